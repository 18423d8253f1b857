"""The gradients of one batch: transforms, accumulation, precision, memory format, DDP.

Shape letters: B clips, C channels, T frames, H and W pixels, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from saccade.data.classnames import has_left_right_classes, mirrored_labels
from saccade.data.types import ClipBatch, VideoDataset
from saccade.errors import ConfigError, DataError, TrainingError, UsageError, is_out_of_memory
from saccade.layers import checkpoint_activations
from saccade.models import contract
from saccade.tasks import Objective, get_task
from saccade.training.config import TrainConfig
from saccade.training.processes import Processes
from saccade.transforms import Mixing, RandAugment, RandomErasing, TrainTransform, get_transform

if TYPE_CHECKING:
    from saccade.training.shard import Shards


class GradientStep:
    """Computes the gradients of the mean loss of a batch and of the model's regularisation.

    The batch is split into `accumulate` parts. Each part is weighted by its number of clips, so the sum is
    the gradient of the mean over the batch. With several processes DDP or FSDP averages the gradients in the
    last part.

    Attributes:
        terms: sums over the clips of the last batch of the parts of the loss, see `Objective`.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        processes: Processes,
        class_names: Sequence[str] = (),
        *,
        shards: Shards | None = None,
        objective: Objective | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.config, self.processes, self.model = config, processes, model
        layout = contract.memory_format(model, config.channels_last)
        self.transform = train_transform(config, class_names, channels_last=layout == torch.channels_last_3d)
        self.objective = objective or default_objective(config, model, class_names)
        self.terms: dict[str, float] = {}
        self.last_transform = user_transform(config, transform)
        if self.last_transform and not self.objective.takes_clips:
            raise ConfigError(f"augment.transform: not possible for task {config.task}")
        self.mixing = mixing(config, len(class_names))
        self._shards = shards
        self._ddp: DistributedDataParallel | None = None
        if processes.world_size > 1 and not shards:
            device_ids = [processes.device] if processes.device.type == "cuda" else None
            self._ddp = DistributedDataParallel(model, device_ids=device_ids)
            # only the strides of axes of length 1 differ
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        network: nn.Module = self._ddp or model
        self.network: Callable[[Tensor], Tensor] = _compiled(network, config) if config.compile else network

    def __call__(self, batch: ClipBatch) -> tuple[float, float]:
        """Returns the sum of the losses of the clips, without regularisation, and the number of correct
        clips.
        """
        self.objective.begin(self, batch)
        parts = split_batch(batch, self.config.accumulate)
        sums = torch.zeros(2, dtype=torch.float64)
        self.terms = {}
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with self._exchange(last), explained_memory(part, self.config):
                loss, right = self.objective(self, part)
                extra = self._regularization()
                total = loss if extra is None else loss + extra
                (total * (len(part) / len(batch))).backward()
            sums += torch.stack((loss.detach() * len(part), right)).double().cpu()
            for name, value in self.objective.terms.items():
                self.terms[name] = self.terms.get(name, 0.0) + float(value) * len(part)
        if self.objective.module is not None:
            gradients = [p.grad for p in self.objective.module.parameters() if p.grad is not None]
            self.processes.average(gradients)
        return float(sums[0]), float(sums[1])

    def inputs(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Transform a batch: network input (B, 3, T, H, W) and labels, int64 (B,) or, after MixUp or CutMix,
        float32 (B, K).
        """
        batch = batch.to(self.processes.device)
        if batch.clips[0].is_floating_point():
            x_BCTHW, labels = stacked(batch), batch.labels
        else:
            x_BCTHW, labels = self.transform.with_labels(batch)
        x_BCTHW = self._transformed(x_BCTHW)
        return self.mixing(x_BCTHW, labels, batch.seeds) if self.mixing else (x_BCTHW, labels)

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast to the precision of the config."""
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=enabled)

    def prepare(self, batch: ClipBatch, transform: TrainTransform | None = None) -> Tensor:
        """The network input of a batch without MixUp and CutMix, (B, 3, T, H, W); ``transform`` replaces that
        of the run.
        """
        with explained_memory(batch, self.config):
            batch = batch.to(self.processes.device)
            made = transform or self.transform
            x_BCTHW = stacked(batch) if batch.clips[0].is_floating_point() else made(batch)
            return self._transformed(x_BCTHW)

    def _transformed(self, x_BCTHW: Tensor) -> Tensor:
        """Apply the user's transform."""
        if self.last_transform is None:
            return x_BCTHW
        out = self.last_transform(x_BCTHW)
        if not isinstance(out, Tensor) or len(out) != len(x_BCTHW):
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise UsageError(f"transform: must return a batch of {len(x_BCTHW)} clips; returned {got}")
        return out

    def _regularization(self) -> Tensor | None:
        return contract.regularization(self.model)

    def _exchange(self, last: bool) -> AbstractContextManager[None]:
        """Average gradients over the processes only in the last backward pass of a step."""
        if self._shards:
            self._shards.set_gradient_sync(last)
        return nullcontext() if last or self._ddp is None else self._ddp.no_sync()


def default_objective(config: TrainConfig, model: nn.Module, class_names: Sequence[str]) -> Objective:
    """The objective of a run on a data set without class weights."""
    empty = VideoDataset((), tuple(class_names), "train", config.data)
    return get_task(config.task).from_config(config).objective(config, model, empty)


def user_transform(
    config: TrainConfig, transform: Callable[[Tensor], Tensor] | None
) -> Callable[[Tensor], Tensor] | None:
    """The transform of the caller, or the one that ``augment.transform`` names.

    Raises:
        ConfigError: both are given, or the name is not registered.
    """
    name = config.augment.transform
    if not name:
        return transform
    if transform is not None:
        raise ConfigError(
            f"augment.transform: {name} cannot be combined with the argument transform of train()"
        )
    try:
        return get_transform(name)
    except UsageError as error:
        raise ConfigError(f"augment.transform: {error}") from None


def stacked(batch: ClipBatch) -> Tensor:
    """Stack float clips to a network input (B, 3, T, H, W).

    Raises:
        DataError: the clips differ in size.
    """
    shapes = {tuple(clip.shape) for clip in batch.clips}
    if len(shapes) > 1:
        raise DataError(f"float clips of a batch must have the same size; got {sorted(shapes)}")
    return torch.stack(list(batch.clips))


def _compiled(network: nn.Module, config: TrainConfig) -> Callable[[Tensor], Tensor]:
    if config.multigrid == "off":
        compiled: Callable[[Tensor], Tensor] = torch.compile(network)
        return compiled
    # compile for each of the few shapes and batch norms
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 128)
    compiled = torch.compile(network, dynamic=False)
    return compiled


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of dropout and drop path in one step of one process.

    It depends only on the step, so a resumed run draws the same numbers.
    """
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def flip_probability(config: TrainConfig, class_names: Sequence[str]) -> float:
    """`augment.flip`; if it is None, 0.5, or 0 if classes differ in left and right."""
    if config.augment.flip is not None:
        return config.augment.flip
    return 0.0 if has_left_right_classes(class_names) else 0.5


def train_transform(
    config: TrainConfig, class_names: Sequence[str] = (), *, channels_last: bool = False
) -> TrainTransform:
    """The transform of training batches; flips swap the labels of left and right classes."""
    augment = config.augment
    return TrainTransform(
        config.clip,
        flip=flip_probability(config, class_names),
        mirrored=mirrored_labels(class_names) if has_left_right_classes(class_names) else None,
        area=augment.area,
        aspect=augment.aspect,
        brightness=augment.brightness,
        contrast=augment.contrast,
        saturation=augment.saturation,
        rand_augment=_rand_augment(config),
        erasing=RandomErasing(augment.erasing, config.clip) if augment.erasing else None,
        channels_last=channels_last,
    )


def mixing(config: TrainConfig, num_classes: int) -> Mixing | None:
    """MixUp and CutMix of a run, or None."""
    augment = config.augment
    if not (augment.mixup or augment.cutmix):
        return None
    return Mixing(
        mixup=augment.mixup,
        cutmix=augment.cutmix,
        shape=augment.cutmix_shape,
        switch=augment.mix_switch,
        probability=augment.mix_probability,
        num_classes=num_classes,
        repeats=augment.repeats,
    )


def _rand_augment(config: TrainConfig) -> RandAugment | None:
    augment = config.augment
    if not augment.rand_ops:
        return None
    return RandAugment(
        augment.rand_ops,
        augment.rand_magnitude,
        magnitude_std=augment.rand_magnitude_std,
        fill=255.0 * sum(config.clip.mean) / 3,
    )


def checkpoint_blocks(model: nn.Module) -> None:
    """Turn on activation checkpointing for the blocks of ``model``."""
    for block in contract.blocks(model):
        if any(block.children()):  # pointless for a single layer, which stores little more than its input
            checkpoint_activations(block)


def split_batch(batch: ClipBatch, num_parts: int) -> list[ClipBatch]:
    """Split a batch into parts of (nearly) equal size, without its failures."""
    if num_parts == 1:
        return [batch]
    size, larger = divmod(len(batch), num_parts)
    ends = [number * size + min(number, larger) for number in range(num_parts + 1)]
    return [batch.select(range(start, stop)) for start, stop in pairwise(ends)]


@contextmanager
def explained_memory(batch: ClipBatch, config: TrainConfig) -> Iterator[None]:
    """Turn an out-of-memory error into a `TrainingError` that says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        clip = batch.clips[0]
        size = clip.shape[1:] if clip.is_floating_point() else (len(clip), batch.crop, batch.crop)
        shape = (len(batch), 3, *size)
        others = ["--checkpoint-activations"] if not (config.checkpoint_activations or config.compile) else []
        others += ["--precision bfloat16"] if config.precision != "bfloat16" else []
        other = f" or use {' or '.join(others)}" if others else ""
        raise TrainingError(
            f"out of memory with a batch of shape {shape} (clips, RGB, frames, height, width); "
            f"raise --accumulate (now {config.accumulate}), lower --batch-size (now {config.batch_size}"
            f"{', which multigrid multiplies' if config.multigrid != 'off' else ''}){other}"
        ) from error
