"""Console output: progress bars and log messages on stderr, results on stdout."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from saccade.progress import Progress as ProgressCallable


@cache
def console() -> Console:
    """The console for messages and progress bars (stderr)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@cache
def output() -> Console:
    """The console for results (stdout)."""
    from rich.console import Console

    return Console(highlight=False)


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON, escaped where the encoding of stdout needs it."""
    from saccade.files import json_text

    print(json_text(value, indent=2, encoding=getattr(sys.stdout, "encoding", None) or "ascii"))


def progress_bar(*, unit: str = "", transient: bool = False) -> Progress:
    """A progress bar with count, rate, elapsed and remaining time; ``unit`` is the unit of the count."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} {unit}/s" if speed else f"-- {unit}/s", style="dim")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        console=console(),
        transient=transient,
        disable=not sys.stderr.isatty() and transient,
    )


@contextmanager
def show_progress(
    description: str, *, unit: str, transient: bool = False, stopped: str = ""
) -> Iterator[ProgressCallable]:
    """A progress bar as the ``progress`` argument of library functions; hidden with ``-q``.

    Args:
        stopped: text after the count if a signal stops the command.
    """
    bar = progress_bar(unit=unit, transient=transient)
    tasks: list[TaskID] = []
    last = ""
    quiet = logging.getLogger("saccade").getEffectiveLevel() > logging.INFO

    def update(done: int, total: int) -> None:
        nonlocal last
        last = f" after {done} of {total} {unit}"
        if not (tasks or quiet):  # no bar before the first update
            bar.start()
            tasks.append(bar.add_task(description))
        for task in tasks:
            bar.update(task, completed=done, total=total)

    try:
        yield update
    except KeyboardInterrupt as stop:
        text = f"{stop}{'' if ' after ' in str(stop) else last}"
        raise KeyboardInterrupt("; ".join(filter(None, [text, stopped]))) from None
    finally:
        if tasks:
            bar.stop()


class ConsoleHandler(logging.Handler):
    """Prints the library's log records on `console`, with a prefix unless their level is INFO."""

    _PREFIXES: ClassVar = {
        "WARNING": "[yellow]warning:[/] ",
        "ERROR": "[red]error:[/] ",
        "DEBUG": "[dim]debug:[/] ",
    }

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        from rich.markup import escape

        try:
            console().print(self._PREFIXES.get(record.levelname, "") + escape(self.format(record)))
        except Exception:
            self.handleError(record)


@contextmanager
def logs_on_console(level: int = logging.INFO) -> Iterator[None]:
    """Show the log records of the logger ``saccade`` on the console, from ``level`` on."""
    logger, handler = logging.getLogger("saccade"), ConsoleHandler()
    previous_level = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(previous_level)
