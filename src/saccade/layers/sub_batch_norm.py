"""Batch norm over splits of a batch, so that a large batch is normalised like a small one.

Wu et al. 2020, arXiv 1912.00998, section 3.3; as in PySlowFast (models/batchnorm_helper.py).
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from saccade.layers.batch_norm import SyncBatchNorm3d, replace_modules, share_tensors
from saccade.ops.batch_norm_act import batch_norm_act

_Module = TypeVar("_Module", bound=nn.Module)


class SubBatchNorm3d(nn.BatchNorm3d):
    """`nn.BatchNorm3d` whose batch statistics cover every ``num_splits``-th clip: clip j is in split
    j mod num_splits.

    All splits share weight and bias. In training each has its own running statistics. Evaluation and the
    state dict use one aggregate: the mean of the means, and the mean of the variances plus the variance of
    the means. ``eval()`` and ``state_dict()`` compute it. So a checkpoint is that of an `nn.BatchNorm3d`, and
    loading one sets the statistics of every split.

    A batch whose size is no multiple of ``num_splits`` (a profiler's single clip, say) is one split.

    Shapes: (B, C, T, H, W) -> (B, C, T, H, W).

    Attributes:
        split_mean, split_var: (num_splits, C), not in the state dict.
        moved: whether they have changed since they were last aggregated or set.
    """

    split_mean: Tensor
    split_var: Tensor

    def __init__(
        self,
        num_features: int,
        num_splits: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        """
        Raises:
            ValueError: ``num_splits`` is below 1.
        """
        if num_splits < 1:
            raise ValueError(f"num_splits must be at least 1, got {num_splits}")
        super().__init__(num_features, eps, momentum, device=device, dtype=dtype)
        self.num_splits = num_splits
        self.moved = False
        for name in ("split_mean", "split_var"):
            self.register_buffer(
                name, torch.zeros(num_splits, num_features, device=device, dtype=dtype), persistent=False
            )
        self.spread()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        if not self.divides(x.shape[0]):
            self.aggregate()
            x = super().forward(x)
            self.spread()
            return x
        return batch_norm_act(x, self.weight, self.bias, training=True, eps=self.eps, **self.begin_batch())

    def divides(self, num_clips: int) -> bool:
        """Whether all splits of such a batch have the same size."""
        return num_clips % self.num_splits == 0

    def begin_batch(self) -> dict[str, Any]:
        """Count a training batch; returns arguments for `saccade.ops.batch_norm_act`."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.moved = True
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        return {
            "running_mean": self.split_mean,
            "running_var": self.split_var,
            "momentum": momentum,
            "num_splits": self.num_splits,
        }

    @torch.no_grad()
    def aggregate(self) -> None:
        """Update ``running_mean`` and ``running_var`` from the splits."""
        if not self.moved:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        mean = self.split_mean.mean(0)
        self.running_mean.copy_(mean)
        self.running_var.copy_(self.split_var.mean(0) + (self.split_mean - mean).square().mean(0))
        self.moved = False

    @torch.no_grad()
    def spread(self) -> None:
        """Set every split to the aggregate."""
        assert self.running_mean is not None
        assert self.running_var is not None
        self.split_mean.copy_(self.running_mean.expand_as(self.split_mean))
        self.split_var.copy_(self.running_var.expand_as(self.split_var))
        self.moved = False

    def train(self, mode: bool = True) -> SubBatchNorm3d:
        if not mode:
            self.aggregate()
        super().train(mode)
        return self

    def _save_to_state_dict(self, *args: Any, **options: Any) -> None:
        self.aggregate()
        super()._save_to_state_dict(*args, **options)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self.aggregate()
        super()._load_from_state_dict(*args, **options)
        self.spread()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_splits={self.num_splits}"


def split_batch_norm(model: _Module, num_splits: int) -> _Module:
    """Give every 3-D batch norm of ``model`` (plain, split or synchronised) ``num_splits`` splits, in place.

    Parameters and running statistics stay the same tensors, so that optimisers and state dicts remain valid.
    If the number of splits changes, every split starts from the aggregate. One split is `nn.BatchNorm3d`.

    Returns the model, or its replacement if it is a batch norm itself.
    """

    def split(module: nn.Module) -> nn.Module | None:
        if type(module) not in (nn.BatchNorm3d, SubBatchNorm3d, SyncBatchNorm3d):
            return None
        norm = cast(nn.BatchNorm3d, module)
        if norm.weight is None or norm.running_mean is None or _num_splits(norm) == num_splits:
            return None
        if isinstance(norm, SubBatchNorm3d):
            norm.aggregate()
        if num_splits == 1:
            plain = nn.BatchNorm3d(norm.num_features, norm.eps, norm.momentum, device="meta")
            return share_tensors(plain, norm)
        like = {"device": norm.running_mean.device, "dtype": norm.running_mean.dtype}
        new = SubBatchNorm3d(norm.num_features, num_splits, norm.eps, norm.momentum, **like)
        share_tensors(new, norm)
        new.spread()
        return new

    return replace_modules(model, split)


def split_statistics(model: nn.Module) -> dict[str, Tensor]:
    """The running statistics of every split, by module: (2, num_splits, C), means and variances.

    They are not in the state dict; resuming a run with the same splits needs them.
    """
    return {
        name: torch.stack((module.split_mean, module.split_var))
        for name, module in model.named_modules()
        if isinstance(module, SubBatchNorm3d)
    }


@torch.no_grad()
def load_split_statistics(model: nn.Module, statistics: dict[str, Tensor]) -> None:
    """Split the batch norms of ``model`` and load what `split_statistics` returned."""
    for value in list(statistics.values())[:1]:
        split_batch_norm(model, value.shape[1])
    modules = dict(model.named_modules())
    for name, value in statistics.items():
        module = modules[name]
        assert isinstance(module, SubBatchNorm3d)
        module.split_mean.copy_(value[0])
        module.split_var.copy_(value[1])
        module.moved = True


def _num_splits(norm: nn.BatchNorm3d) -> int:
    """Number of splits; 0 for synchronised statistics."""
    if isinstance(norm, SubBatchNorm3d):
        return norm.num_splits
    return 0 if isinstance(norm, SyncBatchNorm3d) else 1
