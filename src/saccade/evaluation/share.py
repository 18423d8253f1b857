"""What one process of a test has found, and how the processes put it together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch.distributed as dist

from saccade.console import progress_bar, warn
from saccade.data.types import VideoDataset
from saccade.errors import DataError
from saccade.evaluation.decoding import UnreadVideo
from saccade.evaluation.result import Failure

Scores = TypeVar("Scores")
Decoded = TypeVar("Decoded")
_LOUD_FAILURES = 20  # each is named as it happens up to here; all of them are in the result


@dataclass
class Share(Generic[Scores]):
    """``scores`` by position in the data set, and ``durations`` in seconds of the files that were read."""

    scores: dict[int, Scores] = field(default_factory=dict)
    durations: dict[int, float] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    num_clips: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def readable(
        self, stream: Iterable[Decoded | UnreadVideo], done: Callable[[int], None]
    ) -> Iterator[Decoded]:
        """The videos of ``stream`` that could be read; those that could not be are noted, aloud."""
        source = iter(stream)
        count = 0
        while True:
            start = time.perf_counter()
            try:
                video = next(source)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - start
            if isinstance(video, UnreadVideo):
                self.failures[video.position] = video.failure
                if len(self.failures) <= _LOUD_FAILURES:
                    warn(f"{video.failure.path}: {video.failure.cause}: left out of the test")
            else:
                yield video
            count += 1
            done(count)

    def protocol(self, dataset: VideoDataset, world: int) -> dict[str, Any]:
        """What every result of the test says of it."""
        return {
            "class_names": dataset.class_names,
            "failures": tuple(self.failures[i] for i in sorted(self.failures)),
            "pairs": dataset.pairs,
            "seconds": self.seconds,
            "clips_per_second": self.num_clips / max(self.seconds, 1e-9),
            "data_wait": self.waited / max(self.seconds * world, 1e-9),
            "paths": tuple(dataset.items[i].path for i in sorted(self.scores)),
        }


def ranks(distributed: bool, group: Any) -> tuple[int, int]:
    """(this process, their number)."""
    return (dist.get_rank(group), dist.get_world_size(group)) if distributed else (0, 1)


@contextmanager
def counted(
    total: int, *, progress: bool, on_video: Callable[[int, int], None] | None
) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with the number of videos done, which moves a bar and tells ``on_video``."""
    bar = progress_bar(unit="videos") if progress else None
    with bar or nullcontext():
        task = bar.add_task("testing", total=total) if bar else None

        def done(count: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=count)
            if on_video is not None:
                on_video(count, total)

        yield done


def gather(share: Share[Scores], dataset: VideoDataset, world: int, group: Any) -> Share[Scores]:
    """The shares of all processes in one, which all of them get.

    Raises:
        DataError: no video could be read.
    """
    whole = share
    if world > 1:
        shares: list[Any] = [None] * world
        dist.all_gather_object(shares, share, group=group)
        whole = Share(seconds=max(part.seconds for part in shares))
        for part in shares:
            whole.scores |= part.scores
            whole.durations |= part.durations
            whole.failures |= part.failures
            whole.num_clips += part.num_clips
            whole.waited += part.waited
    if not whole.scores:
        first = whole.failures[min(whole.failures)]
        raise DataError(
            f"none of the {len(dataset)} videos could be read; the first: {first.path}: {first.cause}"
        )
    return whole


def check_classes(num_scores: int, dataset: VideoDataset) -> None:
    """Raise a DataError unless the model's classes are as many as those of the data set."""
    if num_scores != len(dataset.class_names):
        raise DataError(f"the model has {num_scores} classes, {dataset.root} has {len(dataset.class_names)}")
