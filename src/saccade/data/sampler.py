"""Which clips a training epoch asks for, in which order, and in batches of which shape."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from saccade.data.seeds import clip_seed, epoch_order
from saccade.data.types import ClipRequest
from saccade.errors import ConfigError

_EXTRA = 2**40  # epochs from this number on are only used by `ClipSampler.extra_requests`
_UNLABELLED = 2**41  # and from this number on by `UnlabelledSampler`


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The shape of one global batch. Ranges include both ends and are drawn from per clip.

    ``stride_step`` is the distance between the strides that can be drawn.
    """

    batch_size: int
    num_frames: int
    stride: tuple[int, int]
    short_side: tuple[int, int]
    crop: int
    stride_step: int = 1


class ClipSampler(ABC):
    """Base of the samplers. A global batch is split into equal, contiguous parts for the processes.

    Args:
        num_items: videos in the data set.
        seed: seed of the run.
        rank, world_size: this process and their number.
        repeats: clips of each video in a batch, one after another (Hoffer et al. 2019, "Augment your batch",
            arXiv 1901.09335). An epoch has as many clips as without, of fewer videos.

    Attributes:
        growth: clips of a batch as a multiple of its labelled ones.
    """

    growth = 1.0

    def __init__(self, num_items: int, *, seed: int, rank: int, world_size: int, repeats: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0 .. {world_size - 1}")
        if seed < 0:
            raise ConfigError(f"seed: {seed} is negative")
        self.num_items, self.seed = num_items, seed
        self.rank, self.world_size, self.repeats = rank, world_size, repeats
        self._orders: dict[int, list[int]] = {}

    @abstractmethod
    def run_requests(self, start: int, stop: int) -> Iterator[list[ClipRequest]]:
        """This process's part of each batch of the steps ``start`` to ``stop - 1`` of a run."""

    def extra_requests(self, step: int, num_batches: int, shape: BatchShape) -> Iterator[list[ClipRequest]]:
        """This process's part of extra batches of one shape, in no epoch; other ones for each ``step``."""
        share = shape.batch_size // self.world_size
        for batch in range(num_batches):
            first = batch * shape.batch_size + self.rank * share
            clips = []
            for number in range(first, first + share):
                again, position = divmod(number, self.num_items)
                epoch = _EXTRA + step * num_batches + again
                clips.append(self.request(epoch, position, self.order(epoch)[position], shape))
            yield clips

    def order(self, epoch: int) -> list[int]:
        """The videos in the order in which ``epoch`` draws them."""
        if epoch not in self._orders:
            kept = {key: self._orders[key] for key in list(self._orders)[-1:]}
            self._orders = kept | {epoch: epoch_order(self.num_items, self.seed, epoch).tolist()}
        return self._orders[epoch]

    def request(self, epoch: int, position: int, index: int, shape: BatchShape) -> ClipRequest:
        """The clip at ``position`` of ``epoch``, of the video ``index``."""
        return ClipRequest(
            index=index,
            seed=clip_seed(self.seed, epoch, position),
            num_frames=shape.num_frames,
            stride=shape.stride,
            short_side=shape.short_side,
            crop=shape.crop,
            stride_step=shape.stride_step,
        )

    def check(self, shape: BatchShape) -> None:
        """Raise a ConfigError if batches of this shape cannot be drawn."""
        if shape.batch_size < 1 or shape.batch_size % self.world_size:
            raise ConfigError(
                f"batch_size: {shape.batch_size} cannot be divided evenly among {self.world_size} processes; "
                f"choose a positive multiple of {self.world_size}"
            )
        if self.repeats < 1 or shape.batch_size % self.repeats:
            raise ConfigError(
                f"augment.repeats: {self.repeats} clips of each video do not fill batches of "
                f"{shape.batch_size}"
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


class TrainSampler(ClipSampler):
    """Draws every video once per epoch, shuffled anew for each epoch, in batches of one shape.

    The clips that do not fill the last batch are dropped from that epoch. A clip depends only on the seed,
    the epoch and its position in it, not on the number of processes. With ``repeats`` it takes that many
    epochs to draw every video.

    Args:
        num_items, seed, rank, world_size, repeats: see `ClipSampler`.
        batch_size: clips per step over all processes.
        num_frames, crop: shape of the clips.
        stride, short_side: one value, or a range (both ends included) that each clip draws from.

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
        repeats: int = 1,
    ) -> None:
        super().__init__(num_items, seed=seed, rank=rank, world_size=world_size, repeats=repeats)
        self.shape = BatchShape(
            batch_size=batch_size,
            num_frames=num_frames,
            stride=_range("clip.stride", stride),
            short_side=_range("augment.short_side", short_side),
            crop=crop,
        )
        self.check(self.shape)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that an epoch fills."""
        return self.num_items // self.shape.batch_size

    def requests(self, epoch: int, start_step: int = 0) -> Iterator[list[ClipRequest]]:
        """This process's part of each batch of ``epoch``, from batch ``start_step`` on.

        A run that stopped after ``k`` batches resumes with exactly the same clips from ``start_step=k``.
        """
        pass_, part = divmod(epoch, self.repeats)
        videos = self.steps_per_epoch * self.shape.batch_size // self.repeats
        order = self.order(pass_)[part * videos : (part + 1) * videos]
        share = self.shape.batch_size // self.world_size
        for step in range(start_step, self.steps_per_epoch):
            first = step * self.shape.batch_size + self.rank * share
            clips = range(first, first + share)
            yield [self.request(epoch, p, order[p // self.repeats], self.shape) for p in clips]

    def run_requests(self, start: int, stop: int) -> Iterator[list[ClipRequest]]:
        """This process's part of batches ``start`` to ``stop - 1`` of the run, counted over all epochs."""
        epoch, step = divmod(start, self.steps_per_epoch)
        left = stop - start
        while left > 0:
            for request in islice(self.requests(epoch, step), left):
                left -= 1
                yield request
            epoch, step = epoch + 1, 0


class UnlabelledSampler(ClipSampler):
    """Adds clips of videos without labels to each batch of another sampler, in the shape of the batch.

    The unlabelled videos form a stream of their own, each drawn once per pass over them, shuffled for each
    pass. Among the clips of a process they are spread evenly, so that the parts of gradient accumulation have
    both.

    Args:
        sampler: draws the labelled clips.
        num_items: number of unlabelled videos, which come after the labelled ones in the data set.
        ratio: unlabelled clips for each labelled one, on average over the steps.
        num_clips: number of step -> labelled clips drawn before it, over all processes.
    """

    def __init__(
        self, sampler: ClipSampler, num_items: int, *, ratio: float, num_clips: Callable[[int], int]
    ) -> None:
        super().__init__(num_items, seed=sampler.seed, rank=sampler.rank, world_size=sampler.world_size)
        self.labelled, self.ratio, self._num_clips = sampler, ratio, num_clips
        self.growth = 1.0 + ratio

    def run_requests(self, start: int, stop: int) -> Iterator[list[ClipRequest]]:
        """This process's part of each batch: labelled and unlabelled clips."""
        for step, labelled in enumerate(self.labelled.run_requests(start, stop), start):
            first, end = (self._num_per_process(number) for number in (step, step + 1))
            share = end - first
            begin = self.world_size * first + self.rank * share
            unlabelled = [self._clip(number, labelled[0]) for number in range(begin, begin + share)]
            yield _spread(labelled, unlabelled)

    def extra_requests(self, step: int, num_batches: int, shape: BatchShape) -> Iterator[list[ClipRequest]]:
        """Those of the labelled sampler."""
        return self.labelled.extra_requests(step, num_batches, shape)

    def _num_per_process(self, step: int) -> int:
        """Unlabelled clips of each process before ``step``."""
        return math.floor(self.ratio * self._num_clips(step) / self.world_size + 1e-9)

    def _clip(self, number: int, like: ClipRequest) -> ClipRequest:
        pass_, position = divmod(number, self.num_items)
        index = self.labelled.num_items + self.order(_UNLABELLED + pass_)[position]
        return replace(like, index=index, seed=clip_seed(self.seed, _UNLABELLED + pass_, position))


def _spread(first: list[ClipRequest], second: list[ClipRequest]) -> list[ClipRequest]:
    """Two lists in one, each evenly spread."""
    places = [
        ((number + 0.5) / len(each), each[number]) for each in (first, second) for number in range(len(each))
    ]
    return [request for _, request in sorted(places, key=lambda place: place[0])]


def _range(field: str, value: int | tuple[int, int]) -> tuple[int, int]:
    low, high = (value, value) if isinstance(value, int) else value
    if not 1 <= low <= high:
        raise ConfigError(f"{field}: {low}..{high} is not a range of positive numbers, low before high")
    return low, high
