"""The output of ``saccade test``: tables and sentences, and the files of scores and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from saccade.cli.console import output
from saccade.cli.tables import bar, percent
from saccade.files import write_json
from saccade.tasks import Result, figure_name, figure_note
from saccade.tasks.metrics import most_confused
from saccade.tasks.time_use import CONTROLS, points
from saccade.visualize.charts import (
    confusion_chart,
    per_class_chart,
    reliability_chart,
    save_figure,
    sparse_view_chart,
)

_SUSPECTS = 10  # shown
_BARS = 40  # classes in the chart


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
    for line in _sentences(record, results):
        console.print(line, soft_wrap=True, markup=False)
    alone = first.model_clips_per_second
    console.print(
        f"{first.num_params / 1e6:.2f} M parameters; {first.clips_per_second:.1f} clips/s with decoding"
        f"{f', {alone:.1f} clips/s the model alone' if isfinite(alone) else ''}, "
        f"on {record['device']} in {record['precision']}; {first.seconds:.1f} s, "
        f"{100 * first.data_wait:.0f} % of it waiting for video\n",
        style="dim",
        soft_wrap=True,
    )
    _show_classes(max(results, key=lambda result: result.num_views), num_rows)
    _show_suspects(record.get("suspects", ()))


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


def _sentences(record: dict[str, Any], results: Sequence[Result]) -> list[str]:
    """Two classes, calibration, and the comparison with another model."""
    lines = []
    for result, entry in zip(results, record["results"], strict=True):
        if entry.get("two_class"):
            lines += _two_class_lines(entry["two_class"], result.views)
        if entry.get("calibration_error") is not None:
            error = percent(entry["calibration_error"])
            lines.append(f"{result.views}: calibration error (ECE) {error}")
    for entry in record.get("against", ()):
        low, high = (f"{100 * end:.1f}" for end in entry["interval"])
        verdict = "they differ" if entry["differs"] else "no evidence that they differ"
        lines.append(
            f"{entry['views']} against {entry['other']}, {entry['num_videos']} videos: right are both "
            f"{entry['num_both']}, only this one {entry['num_first']}, only the other {entry['num_second']}, "
            f"neither {entry['num_neither']}; difference {100 * entry['difference']:+.1f} points, "
            f"95 % interval {low} to {high}; McNemar p = {entry['p_value']:.2g}: {verdict}"
        )
    return lines


def _two_class_lines(found: dict[str, Any], views: str) -> list[str]:
    """AUC, F1 and the operating point of two classes."""
    name, point = found["positive"], found["operating_point"]
    lines = [f"{views}: AUC {percent(found['auc'])}, F1 {percent(found['f1'])}; the positive class is {name}"]
    if point is not None:
        wanted, num = found["wanted_false_alarms"], found["num_negatives"]
        lines.append(
            f"{views}: at most {percent(wanted)} false alarms: {name} from a score of "
            f"{point['threshold']:.4g}; finds {percent(point['recall'])} of them, precision "
            f"{percent(point['precision'])}, {percent(point['false_alarms'])} false alarms"
        )
        if num * wanted < 1:
            lines.append(f"{num} clips of the other class cannot show a rate of {percent(wanted)}")
    return lines


def _show_suspects(suspects: Sequence[dict[str, Any]]) -> None:
    console = output()
    if not suspects:
        return
    console.print("\n[bold]labels that may be wrong[/] (held-out clips)")
    for each in suspects[:_SUSPECTS]:
        console.print(
            f"  {each['path']}: labelled {each['label']} ({percent(each['label_score'])}), looks like "
            f"{each['predicted']} ({percent(each['predicted_score'])})",
            soft_wrap=True,
            markup=False,
        )
    if len(suspects) > _SUSPECTS:
        console.print(f"  and {len(suspects) - _SUSPECTS} more in the JSON file", style="dim")


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


# --------------------------------------------------------------------------------------------------- files


def save_results(
    results: Mapping[str, Result], record: dict[str, Any], folder: Path, *, shuffled: bool
) -> list[str]:
    """Write scores, summary and charts; return the names of the files."""
    prefix = f"{record['split']}{'_shuffled' if shuffled else ''}"
    saved = []
    for views, result in results.items():
        saved.append(f"{prefix}_scores_{views}.npz")
        result.save(folder / saved[-1])
        if result.submission_name:
            saved.append(f"{prefix}_{result.submission_name}")
            result.write_submission(folder / saved[-1])
    saved.append(f"{prefix}_result.json")
    write_json(folder / saved[-1], record)
    for name, figure in _charts(list(results.values()), record["model"]).items():
        for suffix in ("svg", "png"):
            save_figure(figure, folder / f"{prefix}_{name}.{suffix}")
        saved.append(f"{prefix}_{name}.svg (.png)")
    return saved


def _charts(results: Sequence[Result], model: str) -> dict[str, Figure]:
    """Charts of the classes for the largest view set, and of accuracy against cost for several view sets."""
    largest = max(results, key=lambda result: result.num_views)
    table, charts = largest.class_table(), {}
    if table is not None and table.confusion is not None:
        title = f"{model}, {largest.views} views"
        charts[f"confusion_{largest.views}"] = confusion_chart(
            table.confusion, largest.class_names, title=title
        )
    elif table is not None:
        names, values = [row[0] for row in table.rows[:_BARS]], [row[1] for row in table.rows[:_BARS]]
        title = f"{table.value}: {model}, {largest.views}"
        charts[f"classes_{largest.views}"] = per_class_chart(names, values, title=title)
    if largest.confidence_bins:
        charts[f"reliability_{largest.views}"] = reliability_chart(
            largest.confidence_bins, error=largest.calibration_error, title=f"{model}, {largest.views} views"
        )
    if len(results) > 1:
        curve = [(result.views, result.gmacs_per_video, result.score) for result in results]
        name = figure_name(largest.score_name)
        charts["sparse_views"] = sparse_view_chart(curve, label=model, figure_name=name)
    return charts
