"""Batches whose shape changes from one to the next, for multigrid training.

A run is one stream of clips: every video once an epoch, in an order of its own for each epoch, and a batch
takes the next clips of the stream, as many as its shape says. So an epoch is a full pass whatever the sizes
of its batches, none of its clips is left out, and a batch may hold the last clips of one epoch and the first
of the next.
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
    """``num_steps`` batches that take ``shapes`` in turn, the first one ``shapes[first]``."""

    num_steps: int
    shapes: tuple[BatchShape, ...]
    first: int = 0

    def shape(self, step: int) -> BatchShape:
        """The shape of batch ``step`` of this cycle."""
        return self.shapes[(self.first + step) % len(self.shapes)]

    def uses(self, num_steps: int) -> list[int]:
        """How often each shape is used in the first ``num_steps`` batches."""
        rounds, rest = divmod(num_steps, len(self.shapes))
        first = [(self.first + step) % len(self.shapes) for step in range(rest)]
        return [rounds + (index in first) for index in range(len(self.shapes))]

    def num_clips(self, num_steps: int) -> int:
        """Clips in the first ``num_steps`` batches, over all processes."""
        used = zip(self.uses(num_steps), self.shapes, strict=True)
        return sum(count * shape.batch_size for count, shape in used)


def steps_that_fit(num_clips: int, shapes: Sequence[BatchShape]) -> int:
    """How many batches that take ``shapes`` in turn can be filled with ``num_clips`` clips."""
    rounds, left = divmod(num_clips, sum(shape.batch_size for shape in shapes))
    steps = rounds * len(shapes)
    for shape in shapes:
        if shape.batch_size > left:
            break
        left -= shape.batch_size
        steps += 1
    return steps


class CycleSampler(ClipSampler):
    """Draws the clips of a run whose batches take their shapes from one `ShapeCycle` after the other.

    Where a clip stands in the stream alone decides which video it is and what it looks like, so the clips do
    not depend on the number of processes or workers, or on where a run was resumed.

    Args:
        num_items: videos in the data set, an epoch.
        cycles: what the batches look like, in order.
        seed: seed of the run.
        rank, world_size: this process and their number.
        repeats: clips of each video behind each other in the stream, see `ClipSampler`; a pass over the
            videos then takes that many epochs.

    Raises:
        ConfigError: a batch that is larger than an epoch or cannot be divided among the processes, or a short
            side smaller than the crop.
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
        """Batches of the whole run."""
        return int(self._starts[-1])

    def cycle_at(self, step: int) -> int:
        """Number of the cycle that step ``step`` of the run is in; at its end, the last that has steps."""
        last = min(step, self.total_steps - 1)
        return bisect_right(self._starts, last) - 1

    def shape(self, step: int) -> BatchShape:
        """What the batch of step ``step`` looks like."""
        number = self.cycle_at(step)
        return self.cycles[number].shape(step - self._starts[number])

    def num_clips(self, step: int) -> int:
        """Clips in the first ``step`` batches of the run, over all processes."""
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
