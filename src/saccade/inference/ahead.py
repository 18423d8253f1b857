"""Threads that decode the next videos while the model works on this one."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

from saccade.errors import SaccadeError, VideoError
from saccade.evaluation.result import Failure

Chunk = TypeVar("Chunk")
Answer = TypeVar("Answer")
_END = object()
_WAITING_CHUNKS = 2  # decoded and not yet used, per video


class _Pipe(Generic[Chunk]):
    """One video on its way: a thread puts chunks in, the consumer takes them out, errors included."""

    def __init__(self, name: str, source: Callable[[str], Iterator[Chunk]], stop: threading.Event) -> None:
        self.name, self._stop = name, stop
        self._queue: Queue[object] = Queue(maxsize=_WAITING_CHUNKS)
        self._thread = threading.Thread(target=self._fill, args=(source,), daemon=True)
        self._thread.start()

    def _fill(self, source: Callable[[str], Iterator[Chunk]]) -> None:
        try:
            for chunk in source(self.name):
                if not self._put(chunk):
                    return
            self._put(_END)
        except BaseException as error:  # raised again where the chunks are taken out
            self._put(error)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def __iter__(self) -> Iterator[Chunk]:
        while True:
            item = self._queue.get()
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]

    def join(self) -> None:
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except Empty:
                self._thread.join(timeout=0.05)


def decoded_ahead(
    names: Sequence[str], source: Callable[[str], Iterator[Chunk]], workers: int
) -> Iterator[tuple[str, Iterator[Chunk]]]:
    """``(name, chunks)`` in order, ``workers`` names decoded at the same time; 0 decodes in this thread.

    Memory is bounded: each thread waits when two of its chunks have not been used. An error of a source is
    raised by its chunks. Closing the generator ends the threads.
    """
    if workers < 1:
        for name in names:
            yield name, source(name)
        return
    stop = threading.Event()
    left = iter(names)
    running: deque[_Pipe[Chunk]] = deque()
    try:
        while True:
            running.extend(_Pipe(name, source, stop) for name in islice(left, workers - len(running)))
            if not running:
                return
            pipe = running[0]
            yield pipe.name, iter(pipe)
            running.popleft()
            pipe.join()
    finally:
        stop.set()
        for pipe in running:
            pipe.join()


def answered_ahead(
    paths: Iterable[str | os.PathLike[str]],
    source: Callable[[str], Iterator[Chunk]],
    answer: Callable[[str, Iterator[Chunk]], Answer],
    workers: int,
    *,
    failures: tuple[type[SaccadeError], ...] = (VideoError,),
) -> Iterator[Answer | Failure]:
    """What ``answer`` makes of each video's chunks, in order; a `Failure` with path and cause where one of
    ``failures`` is raised, and the next ones follow.
    """
    for name, chunks in decoded_ahead([os.fspath(path) for path in paths], source, workers):
        try:
            yield answer(name, chunks)
        except failures as error:
            yield Failure(name, error.cause if isinstance(error, VideoError) else str(error))
