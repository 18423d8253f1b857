"""Training batches, decoded by worker processes while the model works on earlier ones."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import torch
from torch.utils.data import DataLoader

from saccade.data.cache import FrameCache
from saccade.data.clips import ClipSettings, LabelKind, PackedBatch
from saccade.data.types import ClipBatch, ClipRequest, VideoDataset
from saccade.data.workers import loader_options, lost_worker, worker_died, workers_for
from saccade.errors import ConfigError, SaccadeError
from saccade.sampling.temporal import RULES
from saccade.video import Backend


class TrainLoader:
    """Turns requests into batches, in the order of the requests, whatever the number of workers.

    Worker processes start with the first batch and live until `close`; see `saccade.data.workers` for how
    they start.

    Args:
        dataset: the training videos.
        workers: decoding processes; 0 decodes in this process.
        target_fps, rule, inverse_uniform, backend, frames_fps, attempts, labels: see `ClipSettings`.
        cache_mb: memory in MiB for decoded frames, shared by the workers; 0 is off.
        cache_short_side: the short side of cached frames: the largest that clips request.
        prefetch: batches each worker prepares ahead.
        pin_memory: deliver in page-locked memory, for a CUDA device.

    Attributes:
        wait_seconds: time spent waiting for batches so far; may be reset to 0.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        *,
        workers: int = 0,
        target_fps: float = 30.0,
        rule: str = "saccade",
        inverse_uniform: bool = False,
        backend: Backend = "auto",
        frames_fps: float | None = None,
        attempts: int = 10,
        labels: LabelKind = "class",
        cache_mb: int = 0,
        cache_short_side: int | None = None,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        if workers < 0:
            raise ConfigError(f"workers: {workers} is negative; 0 decodes in the training process")
        if rule not in RULES:
            raise ConfigError(f"temporal_rule: {rule!r} is unknown; known are {', '.join(RULES)}")
        self.wait_seconds = 0.0
        cache = None
        if cache_mb > 0:
            if cache_short_side is None:
                raise ConfigError("cache_short_side: needed by the cache")
            cache = FrameCache(len(dataset), budget=cache_mb << 20, short_side=cache_short_side)
        settings = ClipSettings(
            target_fps=target_fps,
            rule=rule,
            inverse_uniform=inverse_uniform,
            backend=backend,
            frames_fps=frames_fps,
            attempts=attempts,
            labels=labels,
        )
        reader = dataset.train_clips(settings, cache)
        workers = workers_for(getattr(reader, "source", None), workers)
        self.cache = cache
        self._workers = workers
        self._requests = _Requests()
        self._loader: DataLoader[PackedBatch | SaccadeError] | None = DataLoader(
            reader,
            batch_size=None,
            sampler=self._requests,
            collate_fn=_identity,
            # Its own generator: a loader must not change the random state of the training loop.
            generator=torch.Generator(),
            pin_memory=pin_memory,
            **loader_options(workers, prefetch=prefetch, persistent=True),
        )

    def batches(self, requests: Iterable[list[ClipRequest]]) -> Iterator[ClipBatch]:
        """The batch of each request list, e.g. of ``TrainSampler.requests(epoch)``.

        Need not be exhausted before the next call.

        Raises:
            DataError: too many files in a row cannot be read, or a worker process died.
        """
        if self._loader is None:
            raise ValueError("the loader is closed")
        self._requests.current = requests
        iterator = None
        while True:
            begin = time.perf_counter()
            try:
                if iterator is None:
                    iterator = iter(self._loader)
                item = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if self._workers and lost_worker(error):
                    raise worker_died(error) from error
                raise
            finally:
                self.wait_seconds += time.perf_counter() - begin
            if isinstance(item, SaccadeError):
                raise item
            yield item.unpack()

    def close(self) -> None:
        """Stop the workers and free the cache. May be called twice."""
        self._loader = None
        self.cache = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Requests:
    """The sampler of the DataLoader, which is built once: each epoch sets its requests here."""

    def __init__(self) -> None:
        self.current: Iterable[list[ClipRequest]] = ()

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        return iter(self.current)


def _identity(item: Any) -> Any:
    return item
