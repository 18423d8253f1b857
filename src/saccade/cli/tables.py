"""Text for terminals: aligned columns, bars and timelines, readable without colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from saccade.inference import Window
    from saccade.tasks.timeline import Timeline

_COLOURS = ("#2f6fde", "#e8762d", "#149b84", "#b04fc4", "#c2a11a", "#d6425f", "#5b7f1e", "#7a6ff0")
_OTHER = "#8a94a3"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_SHADES = " ░▒▓█"


def aligned(rows: Sequence[Sequence[str]], *, num_left: int = 1) -> list[str]:
    """Rows of cells as lines; the first ``num_left`` columns are left-aligned, the others right-aligned.

    Unlike rich's tables, this does not truncate numbers in a narrow terminal.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def percent(fraction: float) -> str:
    """0.123 as ``12.3 %``; a dash for NaN."""
    return "-" if isnan(fraction) else f"{100 * fraction:.1f} %"


def bar(fraction: float, width: int = 24) -> str:
    """A bar for a fraction in 0..1, with a resolution of 1/8 character."""
    full, rest = divmod(round(max(0.0, min(1.0, fraction)) * width * 8), 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def timeline(
    windows: Sequence[Window],
    duration: float,
    *,
    width: int = 60,
    gaps: Sequence[tuple[float, float]] = (),
) -> list[Text]:
    """The labels of windows as a line of coloured letters over the duration of the video, blank in its gaps,
    and a legend with times.

    Each of the eight most frequent labels has a letter and a colour; the others are dots.
    """
    from saccade.sampling.timing import columns_in_gaps  # imports torch

    counts = Counter(window.label for window in windows)
    signs = {
        label: (chr(ord("A") + index), colour)
        for index, ((label, _), colour) in enumerate(zip(counts.most_common(), _COLOURS, strict=False))
    }
    line = Text("  ")
    for column, blank in enumerate(columns_in_gaps(gaps, duration, width).tolist()):
        if blank:
            line.append(" ")
            continue
        window = _at(windows, (column + 0.5) * duration / width)
        sign, colour = signs.get(window.label, ("·", _OTHER))
        line.append(sign, style=f"bold white on {colour}")
    axis = Text(
        "  " + clock(0, duration) + clock(duration, duration).rjust(width - len(clock(0, duration))),
        style="dim",
    )
    lines = [line, axis]
    for label, (sign, colour) in signs.items():
        times = [
            f"{clock(start, duration)}-{clock(end, duration)}"
            for start, end in _segments(windows, label, gaps)
        ]
        text = ", ".join(times[:6]) + (f" and {len(times) - 6} more" if len(times) > 6 else "")
        lines.append(
            Text.assemble("  ", (f" {sign} ", f"bold white on {colour}"), f" {label}  ", (text, "dim"))
        )
    others = sum(count for label, count in counts.items() if label not in signs)
    if others:
        lines.append(Text(f"   ·  {others} windows of {len(counts) - len(signs)} other labels", style="dim"))
    return lines


def shades(timeline: Timeline, name: str, width: int) -> str:
    """The scores of a class over a video as a line of shades."""
    scores = timeline.scores[:, timeline.class_names.index(name)]
    columns = timeline.frames_at(width)
    return "".join(
        _SHADES[min(int(scores[at] * len(_SHADES)), len(_SHADES) - 1)] if at >= 0 else " " for at in columns
    )


def clock(seconds: float, duration: float) -> str:
    """Format a time: ``3.4`` if the video is shorter than a minute, otherwise ``1:07`` or ``1:02:03``."""
    if duration < 60:
        return f"{seconds:.1f}"
    total_minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(total_minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def gaps_text(gaps: Sequence[tuple[float, float]], duration: float) -> str:
    """The gaps of a recording: ``gap 0:03-1:03``; empty without gaps."""
    times = [f"{clock(start, duration)}-{clock(end, duration)}" for start, end in gaps[:6]]
    more = f" and {len(gaps) - 6} more" if len(gaps) > 6 else ""
    return f"gap{'s' * (len(gaps) > 1)} {', '.join(times)}{more}" if gaps else ""


def _at(windows: Sequence[Window], time: float) -> Window:
    """The window whose centre is nearest to ``time``."""
    return min(windows, key=lambda window: abs((window.start + window.end) / 2 - time))


def _segments(
    windows: Sequence[Window], label: str, gaps: Sequence[tuple[float, float]] = ()
) -> list[tuple[float, float]]:
    """(start, end) of the segments with this label; neighbouring windows without a gap between are merged."""
    segments: list[tuple[float, float]] = []
    before: Window | None = None
    for window in windows:
        if window.label == label:
            start = window.start
            if before is not None and before.label == label:
                begin, end = segments[-1]
                if not any(end <= gap <= start for gap, _ in gaps):
                    start = begin
                    segments.pop()
            segments.append((start, window.end))
        before = window
    return segments
