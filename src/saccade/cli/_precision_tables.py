"""What ``saccade test`` prints of models of several labels, and of those that localise."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

from rich.markup import escape
from rich.table import Table

from saccade.cli._test_tables import percent, print_cost, print_head, protocol
from saccade.cli._timeline import bar
from saccade.console import output
from saccade.tasks import LocalizationResult, MultiLabelResult, Result, figure_name
from saccade.tasks.metrics import PrecisionRow

_NOTES = {
    "map": "mAP: mean over the classes with a positive, as scikit-learn",
    "charades25": "charades-25: 25 moments a video, as the official evaluation of Charades",
    "per_frame": "per-frame: all frames, absent classes as zero, as X3D-Multigrid",
    "repeated_charades25": "charades-25 repeated: control, a video's scores at all of its moments",
}


def show_precisions(results: Sequence[Result], record: dict[str, Any], *, num_rows: int | None) -> None:
    """Protocol, figures per view set, then the classes of the set with most views.

    Args:
        record: model, weights, data, split, device and precision.
        num_rows: classes in the table, worst first; None shows all.
    """
    print_head(results[0], record, list(dict.fromkeys(map(_protocol, results))))
    console = output()
    console.print(_figures(results))
    for name in results[0].figures:
        if not isnan(results[0].figures[name]):
            console.print(_NOTES[name], style="dim", soft_wrap=True)
    print_cost(results[0], record)
    _show_classes(max(results, key=lambda result: result.num_views), num_rows)


def worst_first(result: Result) -> list[PrecisionRow]:
    """The classes with a positive by their average precision."""
    assert isinstance(result, (MultiLabelResult, LocalizationResult))
    rows = [row for row in result.per_class if row.num_positives]
    return sorted(rows, key=lambda row: (row.average_precision, row.label))


def _protocol(result: Result) -> str:
    if not isinstance(result, LocalizationResult) or result.clip is None:
        return protocol(result)
    clip = result.clip
    return (
        f"protocol: whole videos in windows of {clip.num_frames} frames x stride {clip.stride} at "
        f"{clip.target_fps:g} fps that share {100 * result.overlap:.0f} %, short side {clip.short_side}, "
        f"centre crop {clip.crop}, logits interpolated to frames"
    )


def _figures(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = [name for name, value in results[0].figures.items() if not isnan(value)]
    with_pairs = any(result.pairs for result in results)
    table.add_column("views")
    for heading in (*(figure_name(name) for name in names), *(["in pairs"] * with_pairs), "GMACs/video"):
        table.add_column(heading, justify="right")
    for result in results:
        values = [percent(result.figures[name]) for name in names]
        if with_pairs:
            assert isinstance(result, (MultiLabelResult, LocalizationResult))
            values.append(percent(result.pair_accuracy))
        table.add_row(result.views, *values, f"{result.gmacs_per_video:.4g}")
    return table


def _show_classes(result: Result, num_rows: int | None) -> None:
    rows = worst_first(result)
    shown = rows[:num_rows] if num_rows else rows
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class (worst first)")
    table.add_column("AP", justify="right")
    table.add_column("", width=12)
    moments = isinstance(result, LocalizationResult)
    table.add_column("moments" if moments else "videos", justify="right")
    for row in shown:
        table.add_row(
            escape(result.class_names[row.label]),
            percent(row.average_precision),
            f"[cyan]{bar(row.average_precision, 12)}[/]",
            str(row.num_positives),
        )
    output().print(table)
    if len(rows) > len(shown):
        output().print(f"... and {len(rows) - len(shown)} better classes (--all-classes)", style="dim")
    output().print()
