"""What people see while something long is running. Everything goes to stderr; stdout is for results."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


@cache
def console() -> Console:
    """The console of messages and progress bars (stderr)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@cache
def output() -> Console:
    """The console of results (stdout): tables and figures people may redirect."""
    from rich.console import Console

    return Console(highlight=False)


def progress_bar(*, unit: str = "", transient: bool = False) -> Progress:
    """A bar with count, rate, elapsed and remaining time. ``unit`` names what is counted, e.g. ``clips``."""
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


def warn(message: str) -> None:
    """One line that the user should read, on stderr."""
    from rich.markup import escape

    console().print(f"[yellow]warning:[/] {escape(message)}")
