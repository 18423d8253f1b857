"""Signals that stop a command: Ctrl-C, SIGTERM (``kill``, ``docker stop``), SIGHUP (the terminal closed).

Each raises KeyboardInterrupt in the main thread, so that files are closed, workers stop and results so far
are complete. During training, `saccade.training` handles them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_delayed = 0  # depth of `delayed` blocks
_pending: list[int] = []


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within the context, the signals raise KeyboardInterrupt. Ignored signals (``nohup``) stay ignored. This
    has no effect outside the main thread, where Python does not allow signal handlers.
    """
    previous: dict[int, Any] = {}
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked child inherits the handler
            os._exit(128 + number)
        if _delayed and not _pending:  # a second signal is not delayed
            _pending.append(number)
        else:
            raise KeyboardInterrupt(_text(number))

    if threading.current_thread() is threading.main_thread():
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def delayed() -> Iterator[None]:
    """Delay signals until the end of the context, e.g. to write a complete line."""
    global _delayed
    _delayed += 1
    try:
        yield
    except BaseException:
        _pending.clear()
        raise
    finally:
        _delayed -= 1
    if _pending and not _delayed:
        number = _pending.pop()
        _pending.clear()
        raise KeyboardInterrupt(_text(number))


def _text(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
