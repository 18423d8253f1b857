"""Stopping a run from outside without losing work."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped by a signal after its state was saved; the message says how to go on."""


class Interrupts:
    """While entered, SIGTERM and Ctrl-C ask for a stop after the present step instead of breaking into it.

    A second signal, and any signal inside `immediate`, raises KeyboardInterrupt at once. Outside the main
    thread Python allows no handlers, so there nothing changes.
    """

    def __init__(self) -> None:
        self.requested = False
        self._immediate = False
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """For stretches in which nothing can be lost."""
        if self.requested:
            raise KeyboardInterrupt
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker inherits the handler
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return  # Ctrl-C reaches the whole group; the main process ends its workers
        if self.requested or self._immediate:
            self.requested = True
            raise KeyboardInterrupt
        self.requested = True
