"""What ``saccade test`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

from rich.markup import escape
from rich.table import Table

from saccade.cli._timeline import bar
from saccade.console import output
from saccade.sampling.segments import SEGMENT_RULES
from saccade.sampling.views import parse_views
from saccade.tasks import MultiLabelResult, Result, TestResult
from saccade.tasks.metrics import ClassRow, most_confused


def show(results: Sequence[TestResult], record: dict[str, Any], *, num_rows: int | None) -> None:
    """Protocol, figures per view set, then the classes of the set with most views.

    Args:
        record: model, weights, data, split, device and precision.
        num_rows: classes in the table, worst first; None shows all.
    """
    print_head(results[0], record, list(dict.fromkeys(map(protocol, results))))  # view sets mostly share one
    output().print(_figures(results))
    print_cost(results[0], record)
    _show_classes(max(results, key=lambda result: result.num_views), num_rows)


def print_head(first: Result, record: dict[str, Any], protocols: Sequence[str]) -> None:
    """What was tested on what, and how."""
    console = output()
    title = f"\n[bold]{escape(record['model'])}[/] from {escape(record['weights'])}"
    console.print(title, soft_wrap=True)
    console.print(
        f"on {escape(record['data'])} ({record['split']}): {first.num_videos} videos, "
        f"{len(first.class_names)} classes",
        soft_wrap=True,
    )
    for line in protocols:
        console.print(line, soft_wrap=True)
    if first.shuffled:
        console.print("[yellow]control: the frames of every view are in random order[/]", soft_wrap=True)
    console.print()


def print_cost(first: Result, record: dict[str, Any]) -> None:
    """What the test took."""
    output().print(
        f"{first.num_params / 1e6:.2f} M parameters; {first.clips_per_second:.1f} clips/s "
        f"on {record['device']} in {record['precision']}; {first.seconds:.1f} s, "
        f"{100 * first.data_wait:.0f} % of it waiting for video\n",
        style="dim",
        soft_wrap=True,
    )


def protocol(result: Result) -> str:
    """The protocol in one line: an accuracy means nothing without it."""
    views, clip = parse_views(result.views), result.clip
    if clip is None:
        return f"protocol: {result.views} views"
    if result.temporal_rule in SEGMENT_RULES:
        frames = f"{clip.num_frames} frames, one from each of {clip.num_frames} segments of the video"
    else:
        frames = f"{clip.num_frames} frames x stride {clip.stride} at {clip.target_fps:g} fps"
    if views.protocol:
        frames += f", {_count(views.num_clips, 'clip')} x {_count(views.num_crops, 'crop')}"
    return (
        f"{' '.join(filter(None, ('protocol', views.protocol)))}: clips of {frames}, "
        f"short side {clip.short_side}, crop {clip.crop}, temporal rule {result.temporal_rule}, "
        f"{_average(result)}"
    )


def _average(result: Result) -> str:
    """What was made of the views."""
    if isinstance(result, MultiLabelResult):
        return f"{'largest' if result.ensemble == 'max' else 'mean'} sigmoid of each class over the views"
    if isinstance(result, TestResult) and result.average == "logits":
        return "softmax of the mean of the views' logits"
    return "mean of the views' softmax"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _figures(results: Sequence[TestResult]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    with_pairs = any(result.pairs for result in results)
    with_top5 = len(results[0].class_names) > 5
    table.add_column("views")
    for heading in (
        "top-1",
        *(["top-5"] * with_top5),
        "class mean",
        *(["in pairs"] * with_pairs),
        "GMACs/video",
    ):
        table.add_column(heading, justify="right")
    table.add_column("GMACs x views", style="dim", justify="right")
    for result in results:
        values = [percent(result.top1)]
        values += [percent(result.top5)] * with_top5
        values.append(percent(result.mean_class_accuracy))
        values += [percent(result.pair_accuracy)] * with_pairs
        table.add_row(
            result.views,
            *values,
            f"{result.gmacs_per_video:.4g}",
            f"{result.gmacs_per_view:.4g} x {result.num_views}",
        )
    return table


def _show_classes(result: TestResult, num_rows: int | None) -> None:
    console = output()
    rows = sorted(
        (row for row in result.per_class if row.num_clips), key=lambda row: (row.recall, row.precision)
    )
    shown = rows[:num_rows] if num_rows else rows
    names = result.class_names
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class (worst first)")
    table.add_column("right", justify="right")
    table.add_column("", width=12)
    table.add_column("clips", justify="right")
    table.add_column("precision", justify="right")
    table.add_column("taken for", style="dim")
    for row in shown:
        table.add_row(
            escape(names[row.label]),
            percent(row.recall),
            f"[cyan]{bar(row.recall, 12)}[/]",
            str(row.num_clips),
            percent(row.precision),
            escape(_taken_for(row, names)),
        )
    console.print(table)
    if len(rows) > len(shown):
        console.print(f"... and {len(rows) - len(shown)} better classes (--all-classes)", style="dim")
    confused = most_confused(result.confusion, 5)
    if confused:
        console.print(f"\n[bold]most confused[/] ({result.views})")
        for true, predicted, count in confused:
            console.print(f"  {count:>4} x {escape(names[true])} taken for {escape(names[predicted])}")
    console.print()


def _taken_for(row: ClassRow, names: Sequence[str]) -> str:
    return f"{names[row.confused_with]} ({row.num_confused})" if row.num_confused else ""


def percent(share: float) -> str:
    """A share of 1 as tables show it; a dash for NaN."""
    return "-" if isnan(share) else f"{100 * share:.1f} %"
