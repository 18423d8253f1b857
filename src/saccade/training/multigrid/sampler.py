"""The sampler of multigrid training: batches of changing shape.

A run is one stream of clips with every video once per epoch, shuffled for each epoch. Each batch takes the
next clips of the stream, so no clip is dropped, and a batch may contain clips of two epochs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from saccade.data.sampler import BatchShape, ClipSampler
from saccade.data.types import ClipRequest


@dataclass(frozen=True, kw_only=True)
class ShapeCycle:
    """``num_steps`` batches that cycle through ``shapes``, starting with ``shapes[first]``."""

    num_steps: int
    shapes: tuple[BatchShape, ...]
    first: int = 0

    def shape(self, step: int) -> BatchShape:
        """The shape of batch ``step`` of this cycle."""
        return self.shapes[(self.first + step) % len(self.shapes)]

    def uses(self, num_steps: int) -> list[int]:
        """The number of uses of each shape in the first ``num_steps`` batches."""
        rounds, rest = divmod(num_steps, len(self.shapes))
        first = [(self.first + step) % len(self.shapes) for step in range(rest)]
        return [rounds + (index in first) for index in range(len(self.shapes))]

    def num_clips(self, num_steps: int) -> int:
        """Number of clips in the first ``num_steps`` batches, over all processes."""
        used = zip(self.uses(num_steps), self.shapes, strict=True)
        return sum(count * shape.batch_size for count, shape in used)


def steps_that_fit(num_clips: int, shapes: Sequence[BatchShape]) -> int:
    """The number of batches, cycling through ``shapes``, that ``num_clips`` clips can fill."""
    rounds, left = divmod(num_clips, sum(shape.batch_size for shape in shapes))
    steps = rounds * len(shapes)
    for shape in shapes:
        if shape.batch_size > left:
            break
        left -= shape.batch_size
        steps += 1
    return steps


class CycleSampler(ClipSampler):
    """Draws batches with the shapes of a sequence of `ShapeCycle`.

    The position of a clip in the stream determines its video and its augmentation, so the clips do not depend
    on the number of processes or workers, or on where a run was resumed.

    Args:
        num_items: number of videos, the length of an epoch.
        cycles: the shapes of the batches.
        seed: seed of the run.
        rank, world_size: of this process.
        repeats: consecutive clips of each video in the stream, see `ClipSampler`; a pass over the videos then
            takes that many epochs.

    Raises:
        ConfigError: a batch is larger than an epoch or not divisible by the number of processes, or a short
            side is smaller than the crop.
    """

    def __init__(
        self,
        num_items: int,
        cycles: Sequence[ShapeCycle],
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        repeats: int = 1,
    ) -> None:
        super().__init__(num_items, seed=seed, rank=rank, world_size=world_size, repeats=repeats)
        for cycle in cycles:
            for shape in cycle.shapes if cycle.num_steps else ():
                self.check(shape)
        self.cycles = tuple(cycles)
        self._starts = [0, *np.cumsum([cycle.num_steps for cycle in cycles]).tolist()]
        self._clips = [0, *np.cumsum([cycle.num_clips(cycle.num_steps) for cycle in cycles]).tolist()]

    @property
    def total_steps(self) -> int:
        """Number of batches of the run."""
        return int(self._starts[-1])

    def cycle_at(self, step: int) -> int:
        """Index of the cycle of a step; at the end of the run, of the last one with steps."""
        last = min(step, self.total_steps - 1)
        return bisect_right(self._starts, last) - 1

    def shape(self, step: int) -> BatchShape:
        """The batch shape of a step."""
        number = self.cycle_at(step)
        return self.cycles[number].shape(step - self._starts[number])

    def num_clips(self, step: int) -> int:
        """Number of clips in the first ``step`` batches of the run, over all processes."""
        number = self.cycle_at(step)
        return int(self._clips[number]) + self.cycles[number].num_clips(step - self._starts[number])

    def run_requests(self, start: int, stop: int) -> Iterator[list[ClipRequest]]:
        """This process's part of each batch of the steps ``start`` to ``stop - 1``."""
        clip = self.num_clips(start)
        for step in range(start, stop):
            shape = self.shape(step)
            per_process = shape.batch_size // self.world_size
            first = clip + self.rank * per_process
            yield [self._clip(number, shape) for number in range(first, first + per_process)]
            clip += shape.batch_size

    def _clip(self, number: int, shape: BatchShape) -> ClipRequest:
        epoch, position = divmod(number, self.num_items)
        pass_, video = divmod(number // self.repeats, self.num_items)
        return self.request(epoch, position, self.order(pass_)[video], shape)
