"""Training batches, decoded by worker processes while the model works on earlier ones."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from types import TracebackType
from typing import Any, Self

import torch
from torch.utils.data import DataLoader

from saccade.data.ava import AvaDataset
from saccade.data.ava_clips import AvaClips
from saccade.data.cache import FrameCache
from saccade.data.clips import ClipSettings, PackedBatch, TrainClips
from saccade.data.types import ClipBatch, ClipRequest, Task, VideoDataset
from saccade.errors import ConfigError, DataError, SaccadeError
from saccade.sampling.temporal import RULES
from saccade.video import Backend


class TrainLoader:
    """Turns requests into batches, in the order of the requests, whatever the number of workers.

    Worker processes start with the first batch and live until `close`. They are started from a clean server
    process (``forkserver``), never forked from a process that has threads or a GPU, so a script that uses
    workers needs the usual ``if __name__ == "__main__":``.

    Args:
        dataset: the training videos.
        workers: decoding processes; 0 decodes in this process.
        target_fps, rule, inverse_uniform, backend, frames_fps, attempts, task: see `ClipSettings`.
        cache_mb: memory in MiB for decoded frames, shared by the workers; 0 is off.
        cache_short_side: the short side frames are kept at: the largest that clips ask for.
        prefetch: batches each worker prepares ahead.
        pin_memory: deliver in page-locked memory, for a CUDA device.

    Attributes:
        wait_seconds: time spent waiting for batches so far. May be set back to 0.
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
        task: Task = "single-label",
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
                raise ConfigError("cache_short_side: the cache needs the short side it keeps frames at")
            cache = FrameCache(len(dataset), budget=cache_mb << 20, short_side=cache_short_side)
        settings = ClipSettings(
            target_fps=target_fps,
            rule=rule,
            inverse_uniform=inverse_uniform,
            backend=backend,
            frames_fps=frames_fps,
            attempts=attempts,
            task=task,
        )
        self.cache = cache
        self._workers = workers
        self._requests = _Requests()
        self._loader: DataLoader[PackedBatch | SaccadeError] | None = DataLoader(
            AvaClips(dataset, settings)
            if isinstance(dataset, AvaDataset)
            else TrainClips(dataset, settings, cache),
            batch_size=None,
            sampler=self._requests,
            collate_fn=_as_it_is,
            # Its own generator: a loader must not move the random state of the training loop.
            generator=torch.Generator(),
            pin_memory=pin_memory,
            **_worker_options(workers, prefetch),
        )

    def batches(self, requests: Iterable[list[ClipRequest]]) -> Iterator[ClipBatch]:
        """The batch of each request list, e.g. of ``TrainSampler.requests(epoch)``.

        May be left early and called again.

        Raises:
            DataError: too many files in a row cannot be read, or a worker process died.
        """
        if self._loader is None:
            raise ValueError("the loader is closed")
        self._requests.current = requests
        iterator = iter(self._loader)
        while True:
            begin = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if not self._lost_a_worker(error):
                    raise
                raise _worker_died(error) from error
            finally:
                self.wait_seconds += time.perf_counter() - begin
            if isinstance(item, SaccadeError):
                raise item
            yield item.unpack()

    def _lost_a_worker(self, error: Exception) -> bool:
        """Whether a worker died (the loader says so, or its batches can no longer be fetched)."""
        raised_inside = str(error).startswith("Caught ")
        return (
            self._workers > 0
            and not raised_inside
            and (not isinstance(error, RuntimeError) or "DataLoader worker" in str(error))
        )

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


def make_train_loader(
    dataset: VideoDataset, requests: Iterable[list[ClipRequest]], *, workers: int = 0, **options: Any
) -> Iterator[ClipBatch]:
    """The batches of one list of requests, with workers of their own. Options as for `TrainLoader`."""
    with TrainLoader(dataset, workers=workers, **options) as loader:
        yield from loader.batches(requests)


class _Requests:
    """The sampler of the DataLoader, which is made once: each epoch puts its requests here."""

    def __init__(self) -> None:
        self.current: Iterable[list[ClipRequest]] = ()

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        return iter(self.current)


def _as_it_is(item: Any) -> Any:
    return item


def _worker_options(workers: int, prefetch: int) -> dict[str, Any]:
    if not workers:
        return {}
    context = get_context("forkserver")
    context.set_forkserver_preload(["saccade.data.clips"])
    return {
        "num_workers": workers,
        "prefetch_factor": prefetch,
        "persistent_workers": True,
        "worker_init_fn": _start_worker,
        "multiprocessing_context": context,
    }


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends the workers
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    """End this worker when the training process is gone, however it ended.

    PyTorch's own watch looks at the parent of the worker, which is the fork server, which lives as long as
    any of its workers.
    """
    parent.join()
    os._exit(1)


def _worker_died(error: Exception) -> DataError:
    return DataError(
        f"a decoding process ended unexpectedly ({error}). Often memory is short: lower workers, batch_size "
        "or cache_mb; with workers 0 a crash of the decoder shows where it is"
    )
