"""Which clips a training epoch asks for, in which order, and in batches of which shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from saccade.data.seeds import clip_seed, epoch_order
from saccade.data.types import ClipRequest
from saccade.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The shape of one global batch. Ranges include both ends and are drawn from per clip."""

    batch_size: int
    num_frames: int
    stride: tuple[int, int]
    short_side: tuple[int, int]
    crop: int


class TrainSampler:
    """Draws every video once an epoch, in an order of its own for each epoch.

    The clips that do not fill the last batch are left out of that epoch. A global batch is cut into equal,
    contiguous parts for the processes of a distributed run. What a clip looks like depends on the seed, the
    epoch and the clip's place in it alone, not on the number of processes.

    Args:
        num_items: videos in the data set.
        batch_size: clips per step over all processes.
        seed: seed of the run.
        num_frames, crop: shape of the clips.
        stride, short_side: one value, or a range (both ends included) that each clip draws from.
        rank, world_size: this process and their number.

    Raises:
        ConfigError: an empty epoch, an uneven split, or a short side smaller than the crop.
    """

    def __init__(
        self,
        num_items: int,
        *,
        batch_size: int,
        seed: int,
        num_frames: int,
        stride: int | tuple[int, int],
        short_side: int | tuple[int, int],
        crop: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0 .. {world_size - 1}")
        if seed < 0:
            raise ConfigError(f"seed: {seed} is negative")
        self.num_items = num_items
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.shape = BatchShape(
            batch_size=batch_size,
            num_frames=num_frames,
            stride=_range("clip.stride", stride),
            short_side=_range("augment.short_side", short_side),
            crop=crop,
        )
        self._check(self.shape)

    def _check(self, shape: BatchShape) -> None:
        if shape.batch_size < 1 or shape.batch_size % self.world_size:
            raise ConfigError(
                f"batch_size: {shape.batch_size} cannot be divided evenly among {self.world_size} processes; "
                f"choose a positive multiple of {self.world_size}"
            )
        if self.num_items < shape.batch_size:
            raise ConfigError(
                f"batch_size: {shape.batch_size} is larger than the {self.num_items} training clips; "
                f"choose at most {self.num_items}"
            )
        if shape.short_side[0] < shape.crop:
            raise ConfigError(
                f"augment.short_side: {shape.short_side[0]} is smaller than the crop of {shape.crop}; "
                f"choose at least {shape.crop}"
            )

    def batch_shapes(self, epoch: int) -> Iterator[BatchShape]:
        """The shape of each batch of an epoch, as many as the data set fills. A schedule overrides this."""
        for _ in range(self.num_items // self.shape.batch_size):
            yield self.shape

    def steps(self, epoch: int) -> int:
        """Number of batches in one epoch."""
        return sum(1 for _ in self.batch_shapes(epoch))

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in every epoch, where it does not change from epoch to epoch."""
        return self.steps(0)

    def requests(self, epoch: int, start_step: int = 0) -> Iterator[list[ClipRequest]]:
        """This process's part of each batch of ``epoch``, from batch ``start_step`` on.

        A run that stopped after ``k`` batches goes on with exactly the same clips from ``start_step=k``.
        """
        order = epoch_order(self.num_items, self.seed, epoch)
        begin = 0
        for step, shape in enumerate(self.batch_shapes(epoch)):
            if step >= start_step:
                share = shape.batch_size // self.world_size
                first = begin + self.rank * share
                yield [self._request(epoch, p, int(order[p]), shape) for p in range(first, first + share)]
            begin += shape.batch_size

    def _request(self, epoch: int, position: int, index: int, shape: BatchShape) -> ClipRequest:
        return ClipRequest(
            index=index,
            seed=clip_seed(self.seed, epoch, position),
            num_frames=shape.num_frames,
            stride=shape.stride,
            short_side=shape.short_side,
            crop=shape.crop,
        )


def _range(field: str, value: int | tuple[int, int]) -> tuple[int, int]:
    low, high = (value, value) if isinstance(value, int) else value
    if not 1 <= low <= high:
        raise ConfigError(f"{field}: {low}..{high} is not a range of positive numbers, low before high")
    return low, high
