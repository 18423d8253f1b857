"""The output of ``saccade test``: protocol, figures, controls, speed, classes."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from rich.markup import escape
from rich.table import Table

from saccade.cli.console import output
from saccade.cli.tables import bar, percent
from saccade.tasks import Result, figure_name, figure_note
from saccade.tasks.metrics import most_confused
from saccade.tasks.time_use import CONTROLS, points


def show_results(results: Sequence[Result], record: dict[str, Any], *, num_rows: int | None) -> None:
    """Print protocol, metrics of each view set, cost, and the classes for the view set with most views.

    Args:
        record: model, weights, data, split, device and precision.
        num_rows: number of classes in the table, worst first; None shows all.
    """
    console, first = output(), results[0]
    title = f"\n[bold]{escape(record['model'])}[/] from {escape(record['weights'])}"
    console.print(title, soft_wrap=True)
    console.print(
        f"on {escape(record['data'])} ({record['split']}): {first.num_videos} videos, "
        f"{len(first.class_names)} classes",
        soft_wrap=True,
    )
    for line in dict.fromkeys(result.protocol_text() for result in results):  # without duplicates
        console.print(line, soft_wrap=True, markup=False)
    if first.shuffled:
        console.print("[yellow]control: the frames of each view are shuffled[/]", soft_wrap=True)
    console.print()
    names = _shown_figures(first)
    console.print(_figures(results, names))
    for name in names:
        if note := figure_note(name):
            console.print(f"{figure_name(name)}: {note}", style="dim", soft_wrap=True)
    for result in results:
        console.print(f"{result.views}: {result.score_text}", soft_wrap=True, markup=False)
    _show_time_use(first)
    alone = first.model_clips_per_second
    console.print(
        f"{first.num_params / 1e6:.2f} M parameters; {first.clips_per_second:.1f} clips/s with decoding"
        f"{f', {alone:.1f} clips/s the model alone,' if isfinite(alone) else ''} "
        f"on {record['device']} in {record['precision']}; {first.seconds:.1f} s, "
        f"{100 * first.data_wait:.0f} % of it waiting for video\n",
        style="dim",
        soft_wrap=True,
    )
    _show_classes(max(results, key=lambda result: result.num_views), num_rows)


def _shown_figures(result: Result) -> list[str]:
    """The metrics that have a value; top-5 only for more than five classes."""
    few = len(result.class_names) <= 5
    return [
        name for name, value in result.figures.items() if isfinite(value) and not (few and name == "top5")
    ]


def _figures(results: Sequence[Result], names: Sequence[str]) -> Any:
    table = Table(box=None, pad_edge=False, header_style="bold")
    pairs = [getattr(result, "pair_accuracy", float("nan")) for result in results]
    with_pairs = any(map(isfinite, pairs))
    table.add_column("views")
    for heading in (*map(figure_name, names), *(["within pairs"] * with_pairs), "GMACs/video"):
        table.add_column(heading, justify="right")
    table.add_column("GMACs x views", style="dim", justify="right")
    for result, pair_accuracy in zip(results, pairs, strict=True):
        values = [
            f"{result.figures[name]:.4g}" if name in result.metrics else percent(result.figures[name])
            for name in names
        ]
        table.add_row(
            result.views,
            *values,
            *([percent(pair_accuracy)] * with_pairs),
            f"{result.gmacs_per_video:.4g}",
            f"{result.gmacs_per_view:.4g} x {result.num_views:.4g}",
        )
    return table


def _show_time_use(result: Result) -> None:
    """A table of the controls and a sentence, or why there are none."""
    console, found = output(), result.time_use
    if found is None:
        if result.clip is not None and result.clip.num_frames == 1:
            console.print("one frame per clip: the model cannot use time", soft_wrap=True)
        return
    with_pairs = isfinite(found.pair_accuracy)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"frames, {found.views}, {found.num_videos} videos")
    for heading in (figure_name(found.figure_name), *(["within pairs"] * with_pairs), "in order better by"):
        table.add_column(heading, justify="right")
    table.add_row("in order", percent(found.figure), *([percent(found.pair_accuracy)] * with_pairs), "")
    for each in found.controls:
        name = CONTROLS[each.name] + (f", {each.num_passes} seeds" if each.num_passes > 1 else "")
        pairs = [percent(each.pair_accuracy)] * with_pairs
        table.add_row(name, percent(each.figure), *pairs, f"{points(each.worth, each.error)} points")
    console.print()
    console.print(table)
    if found.num_videos < found.num_tested:
        num = f"{found.num_videos} of the {found.num_tested} videos, spread evenly"
        console.print(f"controls on {num} (--control-clips)", style="dim", soft_wrap=True)
    console.print(str(found), soft_wrap=True, markup=False)


def _show_classes(result: Result, num_rows: int | None) -> None:
    classes, console = result.class_table(), output()
    if classes is None:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class (worst first)")
    table.add_column(classes.value, justify="right")
    table.add_column("", width=12)
    for heading in classes.columns:
        table.add_column(heading, justify="right")
    for name, value, cells in classes.rows[:num_rows]:
        table.add_row(escape(name), percent(value), f"[cyan]{bar(value, 12)}[/]", *map(escape, cells))
    console.print(table)
    num_hidden = len(classes.rows) - len(classes.rows[:num_rows])
    if num_hidden:
        console.print(f"... and {num_hidden} better classes (--all-classes)", style="dim")
    confused = [] if classes.confusion is None else most_confused(classes.confusion, 5)
    if confused:
        names = result.class_names
        console.print(f"\n[bold]most confused[/] ({result.views})")
        for true, predicted, count in confused:
            console.print(f"  {count:>4} x {escape(names[true])} predicted as {escape(names[predicted])}")
    console.print()
