"""Views through a model in batches: probabilities, or logits, out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.errors import UsageError, WeightsError

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]
Tag = TypeVar("Tag")

# Bytes of activations a model holds at once per byte of its input, generously: X3D's widest map (54
# channels at half the side) is 4.5 times its input, attention models need more.
_ACTIVATIONS_PER_INPUT = 60
_CPU_BUDGET = 1 << 30
_MAX_BATCH = 64


class ViewScorer:
    """Softmax scores of views, or their logits, many views per forward pass.

    Args:
        model: (B, 3, T, H, W) float -> (B, num_classes) logits; its mode is the caller's business
            (`evaluating`).
        device: where the model is; default: where its first parameter is.
        batch_size: most views per forward pass; None chooses by memory. Out of memory on a GPU halves it,
            aloud.
        precision: ``bfloat16`` runs under autocast.
        logits: give the model's logits as they are, for a caller that makes scores of them.
        per_frame: the model localises: it gives logits (B, num_classes, T), and so does this.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: torch.device | str | None = None,
        batch_size: int | None = None,
        precision: Precision = "float32",
        logits: bool = False,
        per_frame: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}")
        if precision not in ("float32", "bfloat16"):
            raise UsageError(f"precision {precision!r} is unknown; it is float32 or bfloat16")
        self.model = model
        self.device = torch.device(device) if device is not None else model_device(model)
        self.batch_size = batch_size
        self.precision = precision
        self.logits = logits or per_frame
        self.per_frame = per_frame
        self.memory_format = _memory_format(model)
        self.channels_last = self.memory_format == torch.channels_last_3d

    def __call__(self, views: Tensor) -> NDArray[np.float32]:
        """Float views (N, 3, T, H, W) on the scorer's device -> float32 (N, num_classes): rows adding up to
        1, or logits.
        """
        size = self.size_for(views.shape[1:])
        parts: list[NDArray[np.float32]] = []
        start = 0
        while start < len(views):
            try:
                parts.append(self._forward(views[start : start + size]))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size = self.batch_size = size // 2
                torch.cuda.empty_cache()
                logger.warning(f"out of GPU memory: continuing with batches of {size} views")
                continue
            start += size
        return np.concatenate(parts)

    def stream(self, views: Iterable[tuple[Tag, Tensor]]) -> Iterator[tuple[Tag, NDArray[np.float32]]]:
        """Tagged views (3, T, H, W) -> the same tags with their scores (num_classes,), or logits
        (num_classes, T), in order.
        """
        tags: list[Tag] = []
        waiting: list[Tensor] = []
        for tag, view in views:
            tags.append(tag)
            waiting.append(view)
            if len(waiting) >= self.size_for(view.shape):
                yield from zip(tags, self(self._stack(waiting)), strict=True)
                tags, waiting = [], []
        if waiting:
            yield from zip(tags, self(self._stack(waiting)), strict=True)

    def _stack(self, views: Sequence[Tensor]) -> Tensor:
        if self.memory_format == torch.channels_last_3d:  # copies rows of channels as they lie
            return torch.stack([view.permute(1, 2, 3, 0) for view in views]).permute(0, 4, 1, 2, 3)
        return torch.stack(list(views))

    def size_for(self, shape: Sequence[int]) -> int:
        """Views of ``shape`` (3, T, H, W) per forward pass."""
        if self.batch_size is None:
            need = 4 * int(np.prod(shape)) * _ACTIVATIONS_PER_INPUT
            budget = _CPU_BUDGET
            if self.device.type == "cuda":
                budget = torch.cuda.mem_get_info(self.device)[0] // 2
            self.batch_size = int(np.clip(budget // need, 1, _MAX_BATCH))
        return self.batch_size

    def _forward(self, views: Tensor) -> NDArray[np.float32]:
        views = views.contiguous(memory_format=self.memory_format)
        with torch.no_grad(), self._autocast():
            logits = self.model(views)
        if logits.ndim != (3 if self.per_frame else 2):
            needed = "(views, classes, frames) is needed to localise"
            if not self.per_frame:
                needed = "(views, classes) is needed to classify"
            raise WeightsError(f"the model gives {tuple(logits.shape)}, but {needed}")
        values: NDArray[np.float32] = logits.float().cpu().numpy()
        scores = softmax(values)
        if not np.isfinite(scores).all():
            raise WeightsError(
                "the model's output is not finite: its weights are damaged or training diverged"
            )
        return values if self.logits else scores

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Over the last axis, in the type of ``logits``."""
    result: NDArray[Any] = torch.from_numpy(logits).softmax(dim=-1).numpy()
    return result


def sigmoid(logits: NDArray[Any]) -> NDArray[Any]:
    """Of each value, in the type of ``logits``."""
    result: NDArray[Any] = torch.from_numpy(logits).sigmoid().numpy()
    return result


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode of every module is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def model_device(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer is; CPU if it has none."""
    sources: tuple[Callable[[], Iterator[Tensor]], ...] = (model.parameters, model.buffers)
    for source in sources:
        for tensor in source():
            return tensor.device
    return torch.device("cpu")


def _memory_format(model: nn.Module) -> torch.memory_format:
    """Channels-last where the model's convolutions are stored so."""
    for weight in model.parameters():
        if weight.ndim == 5 and not weight.is_contiguous():
            if weight.is_contiguous(memory_format=torch.channels_last_3d):
                return torch.channels_last_3d
            break
    return torch.contiguous_format


def pick_device(name: str | torch.device) -> torch.device:
    """The device called ``name``; ``auto`` is CUDA where there is one.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r} is unknown; try auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device
