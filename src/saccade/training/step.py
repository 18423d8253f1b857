"""The gradients of one batch: transforms, parts, precision, layout, and what the processes exchange.

Shape letters: B clips, C channels, T frames, H and W pixels, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from saccade.data.mirror import mirrored_labels, tells_sides
from saccade.data.types import ClipBatch
from saccade.errors import SaccadeError
from saccade.models import VideoModel
from saccade.training.config import TrainConfig
from saccade.training.distributed import Processes
from saccade.transforms import TrainTransform

# what PyTorch says on a CPU, and cuDNN and cuBLAS on a GPU, when there is no memory left
_NO_MEMORY = ("t allocate memory", "STATUS_ALLOC_FAILED")


class TrainingError(SaccadeError):
    """A run cannot go on: the loss is no number any more, or the memory is too small."""


class GradientStep:
    """Adds the gradients of a batch's mean loss, and of the model's regularisation, to its parameters.

    The batch is cut into `accumulate` equal parts, each weighted by its share, so that the sum is the
    gradient of the mean over the whole batch. With several processes DDP averages the gradients in the last
    part.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        processes: Processes,
        class_names: Sequence[str] = (),
    ) -> None:
        self.config, self.processes, self.model = config, processes, model
        self.transform = train_transform(config, class_names)
        self._ddp: DistributedDataParallel | None = None
        if processes.world_size > 1:
            device_ids = [processes.device] if processes.device.type == "cuda" else None
            self._ddp = DistributedDataParallel(model, device_ids=device_ids)
            # The layouts differ in name alone: in the strides of axes of length 1.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        network: nn.Module = self._ddp or model
        self.network: Callable[[Tensor], Tensor] = _compiled(network, config) if config.compile else network

    def __call__(self, batch: ClipBatch) -> tuple[float, float]:
        """Returns the sum of the clips' losses, without regularisation, and the number of clips whose first
        guess was right.
        """
        parts = split_batch(batch, self.config.accumulate)
        sums = torch.zeros(2, dtype=torch.float64)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with self._exchange(last), explained_memory(part, self.config):
                here = part.to(self.processes.device)
                loss, right = self._loss(*self.transform.with_labels(here))
                extra = self._regularization()
                total = loss if extra is None else loss + extra
                (total * (len(part) / len(batch))).backward()
            sums += torch.stack((loss.detach() * len(part), right)).double().cpu()
        return float(sums[0]), float(sums[1])

    def _loss(self, x_BCTHW: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        with self.autocast():
            logits_BK = self.network(x_BCTHW)
        logits_BK = logits_BK.float()
        loss = F.cross_entropy(logits_BK, labels_B, label_smoothing=self.config.label_smoothing)
        right = (logits_BK.detach().argmax(dim=1) == labels_B).sum().to(loss.dtype)
        return loss, right

    def autocast(self) -> AbstractContextManager[None]:
        """The precision that the network runs in."""
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=enabled)

    def prepare(self, batch: ClipBatch) -> Tensor:
        """The input that the network has in training, (B, 3, T, H, W)."""
        with explained_memory(batch, self.config):
            return self.transform(batch.to(self.processes.device))

    def _regularization(self) -> Tensor | None:
        return self.model.regularization() if isinstance(self.model, VideoModel) else None

    def _exchange(self, last: bool) -> AbstractContextManager[None]:
        """The processes exchange gradients in the last backward pass of a step alone."""
        return nullcontext() if last or self._ddp is None else self._ddp.no_sync()


def _compiled(network: nn.Module, config: TrainConfig) -> Callable[[Tensor], Tensor]:
    if config.multigrid == "off":
        compiled: Callable[[Tensor], Tensor] = torch.compile(network)
        return compiled
    # each of a few shapes and batch norms is worth code of its own
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 128)
    compiled = torch.compile(network, dynamic=False)
    return compiled


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of dropout and drop path in one step of one process.

    It follows from the step's number, so a resumed run need not know what was drawn before.
    """
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def flip_probability(config: TrainConfig, class_names: Sequence[str]) -> float:
    """`augment.flip`, or where it is None 0.5 unless the names of the classes tell left from right."""
    if config.augment.flip is not None:
        return config.augment.flip
    return 0.0 if tells_sides(class_names) else 0.5


def train_transform(config: TrainConfig, class_names: Sequence[str] = ()) -> TrainTransform:
    """The transform of a run; labels swap with the sides where the names of the classes tell them."""
    augment = config.augment
    return TrainTransform(
        config.clip,
        flip=flip_probability(config, class_names),
        mirrored=mirrored_labels(class_names) if tells_sides(class_names) else None,
        brightness=augment.brightness,
        contrast=augment.contrast,
        saturation=augment.saturation,
        channels_last=config.channels_last,
    )


def split_batch(batch: ClipBatch, num_parts: int) -> list[ClipBatch]:
    """Consecutive equal parts; the record of failures stays with the whole."""
    if num_parts == 1:
        return [batch]
    size = len(batch) // num_parts
    slices = [slice(start, start + size) for start in range(0, size * num_parts, size)]
    return [
        ClipBatch(batch.clips[part], batch.labels[part], batch.seeds[part], batch.indices[part], batch.crop)
        for part in slices
    ]


@contextmanager
def explained_memory(batch: ClipBatch, config: TrainConfig) -> Iterator[None]:
    """Turn running out of memory into an error that says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not known and not any(text in str(error) for text in _NO_MEMORY):
            raise
        shape = (len(batch), 3, len(batch.clips[0]), batch.crop, batch.crop)
        other = "" if config.precision == "bfloat16" else " or use --precision bfloat16"
        raise TrainingError(
            f"out of memory with a batch of shape {shape} (clips, RGB, frames, height, width); "
            f"raise --accumulate (now {config.accumulate}), lower --batch-size (now {config.batch_size}"
            f"{', which multigrid multiplies' if config.multigrid != 'off' else ''}){other}"
        ) from error
