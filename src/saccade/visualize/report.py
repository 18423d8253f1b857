"""The report of a run: ``report.html``, a single file that loads nothing from the network."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

from saccade.errors import SaccadeError, UsageError, VideoError
from saccade.evaluation import load_result
from saccade.files import write_text
from saccade.runs import Run
from saccade.sampling.segments import SEGMENT_RULES
from saccade.tasks import Result, figure_name, figure_note, get_task, list_tasks
from saccade.tasks.result import Example
from saccade.visualize import evidence
from saccade.visualize.charts import confusion_chart, inline_svg, line_chart, shorten
from saccade.visualize.pages import render_page
from saccade.visualize.sheets import data_uri, frame_strip
from saccade.visualize.timeline import timeline_chart

Row = dict[str, Any]
_WORST_CLASSES = 30


@dataclass
class RunRecords:
    """The contents of a run folder; ``missing`` describes missing or damaged files."""

    folder: Path
    config: Row = field(default_factory=dict)
    record: Row = field(default_factory=dict)
    train: list[Row] = field(default_factory=list)
    val: list[Row] = field(default_factory=list)
    result: Result | None = None
    result_name: str = ""
    missing: list[str] = field(default_factory=list)


def write_report(run_dir: str | os.PathLike[str], *, num_examples: int = 8) -> Path:
    """Write ``report.html`` into a run folder from config.json, metrics.jsonl and the scores, and return
    its path. The page lists missing files.

    Args:
        num_examples: number of hardest clips to show; half as many easiest clips are shown.

    Raises:
        UsageError: the folder does not exist, or contains no run.
    """
    records = read_run(Path(run_dir))
    result = records.result if records.result is not None and records.result.num_videos else None
    page = render_page(
        "saccade.visualize",
        "report.html",
        title=records.config.get("recipe") or records.folder.resolve().name,
        headline=_headline(records),
        sentences=evidence.sentences(result) if result else [],
        time=evidence.time_table(result) if result else None,
        calibration=evidence.calibration(result) if result else "",
        class_errors=evidence.class_errors(result) if result else [],
        suspects=evidence.suspects(result) if result else None,
        facts=_facts(records),
        charts=_charts(records),
        classes=_classes(records),
        hardest=_examples(records, num_examples, hardest=True),
        easiest=_examples(records, num_examples // 2, hardest=False),
        failures=_failures(records),
        embedding=_embedding(records.folder),
        missing=records.missing,
        command=records.record.get("command"),
        config=json.dumps(records.config, indent=2, ensure_ascii=False) if records.config else "",
        versions=records.record.get("versions") or {},
        written=datetime.now().strftime("%d %B %Y, %H:%M"),
    )
    target = Run(records.folder).report
    write_text(target, page)
    return target


def write_folds_report(
    path: Path, pooled: Result, rows: Sequence[tuple[str, str]], *, title: str, summary: str
) -> None:
    """Write the report of a cross-validation.

    Args:
        path: the HTML file.
        pooled: the results of all folds together.
        rows: name and figures of each fold.
        summary: the figures in one line.
    """
    records = RunRecords(path.parent, result=pooled, result_name="all folds")
    page = render_page(
        "saccade.visualize",
        "report.html",
        title=title,
        headline=_headline(records),
        facts=[("All folds", summary), *rows],
        classes=_classes(records),
        hardest=_examples(records, 8, hardest=True),
        easiest=_examples(records, 4, hardest=False),
        failures=_failures(records),
        written=datetime.now().strftime("%d %B %Y, %H:%M"),
    )
    write_text(path, page)


def read_run(folder: Path) -> RunRecords:
    """Read the files of a run folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such run folder")
    records = RunRecords(folder)
    _read_config(records)
    _read_metrics(records)
    _read_scores(records)
    if not (records.record or records.config or records.train or records.val or records.result):
        raise UsageError(f"{folder}: contains no run ({'; '.join(records.missing)})")
    return records


def _read_config(records: RunRecords) -> None:
    run = Run(records.folder)
    if not run.config_file.is_file():
        records.missing.append("config.json: no settings are shown")
        return
    try:
        records.record = run.record()
    except UsageError as error:
        records.missing.append(f"config.json is damaged ({error}): no settings are shown")
        return
    records.config = records.record["config"]


def _read_metrics(records: RunRecords) -> None:
    run = Run(records.folder)
    if not run.metrics_file.is_file():
        records.missing.append("metrics.jsonl: no curves are shown")
        return
    rows, damaged = run.metrics()
    for row in rows:
        is_val = any(name.startswith("val_") for name in row)
        (records.val if is_val else records.train).append(row)
    if damaged:
        records.missing.append(f"metrics.jsonl: {damaged} damaged line{'s' * (damaged > 1)} skipped")


def _read_scores(records: RunRecords) -> None:
    """Read the scores of the latest final test, otherwise of the best validation, or the last one."""
    run = Run(records.folder)
    tests = sorted(run.all_test_scores(), key=lambda path: path.stat().st_mtime)
    candidates = [(path, "final test") for path in reversed(tests)]
    candidates += [(run.best_val_scores, "best validation"), (run.val_scores, "last validation")]
    for path, name in candidates:
        if not path.is_file():
            continue
        try:
            result = load_result(path)
        except SaccadeError as error:
            records.missing.append(str(error))
            continue
        if "validation" in name:
            result = replace(result, num_validations=run.num_validations)
        records.result, records.result_name = result, name
        return
    records.missing.append("val_scores.npz: no confusion matrix and no example clips are shown")


def _headline(records: RunRecords) -> list[tuple[str, str, str]]:
    """The cards at the top: (value, label, note)."""
    cards: list[tuple[str, str, str]] = []
    result = records.result
    if result is not None and result.num_videos:
        kind = "" if _has_fixed_views(result) else " views"
        protocol = f"{records.result_name}, {result.views}{kind}, {result.num_videos} videos"
        figures = {name: value for name, value in result.figures.items() if isfinite(value)}
        if len(result.class_names) <= 5:
            figures.pop("top5", None)
        for name, value in figures.items():
            text = f"{value:.4g}" if name in result.metrics else _percent(value)
            notes = [figure_note(name)] if cards else [protocol, figure_note(name)]
            cards.append((text, figure_name(name), "; ".join(filter(None, notes)) or protocol))
        pairs = getattr(result, "pair_accuracy", float("nan"))
        if isfinite(pairs):
            cards.append((_percent(pairs), "within pairs", "50 % is chance"))
    key, name = _main_metric(records)
    best = max((row for row in records.val if key in row), key=lambda row: row[key], default=None)
    if best is not None:
        views = records.config.get("val_views", "?")
        views = "" if result is not None and _has_fixed_views(result) else f", {views} views"
        note = f"validation{views}, epoch {best.get('epoch', 0):.4g}"
        cards.append((_percent(best[key]), f"best {name} in training", note))
    return cards


def _has_fixed_views(result: Result) -> bool:
    """Whether the task has fixed views instead of view sets."""
    return bool(get_task(result.task).fixed_views)


def _main_metric(records: RunRecords) -> tuple[str, str]:
    """(key, display name) of the validation metric that selected the best weights."""
    known = {name for row in records.val for name in row}
    names = (
        [records.result.score_name]
        if records.result is not None
        else [get_task(task).figure for task in list_tasks()]
    )
    name = next((name for name in names if f"val_{name}" in known), "top1")
    return f"val_{name}", figure_name(name)


def _facts(records: RunRecords) -> list[tuple[str, str]]:
    config, record, result = records.config, records.record, records.result
    model = config.get("model") or {}
    facts = [("Model", str(model.get("name", "")))]
    if model.get("weights"):
        facts.append(("Initial weights", str(model["weights"])))
    if result is not None and result.num_params:
        facts.append(("Parameters", f"{result.num_params / 1e6:.2f} M"))
    if result is not None and isfinite(result.gmacs_per_view):
        cost = f"{result.gmacs_per_view:.3g} per view"
        facts.append(("GMACs", f"{cost} x {result.num_views:.4g} = {result.gmacs_per_video:.3g} per video"))
    facts += _protocol_facts(records)
    facts.append(("Speed of the test", _speed(result)))
    facts.append(("Data", str(config.get("data", ""))))
    if config.get("epochs"):
        facts.append(("Training", f"{config['epochs']:g} epochs, batch size {config.get('batch_size', '?')}"))
    facts.append(("Time", _duration(records)))
    facts.append(("Started", str(record.get("started", "")).replace("T", " ")[:16]))
    facts.append(("Device", _device(record)))
    git = record.get("git")
    if isinstance(git, dict) and git.get("revision"):
        facts.append(("Source", f"{git['revision'][:10]}{' + changes' if git.get('changed') else ''}"))
    return [(name, value) for name, value in facts if value]


def _protocol_facts(records: RunRecords) -> list[tuple[str, str]]:
    result = records.result
    clip = records.config.get("clip") or {}
    if result is not None and result.clip is not None:
        clip = vars(result.clip)
    if not clip:
        return []
    rule = result.temporal_rule if result is not None else records.config.get("temporal_rule")
    text = f"{clip.get('num_frames')} frames"
    if rule in SEGMENT_RULES:
        text += ", one from each segment of the video"
    else:
        text += f" x stride {clip.get('stride')} at {clip.get('target_fps', 30):g} fps"
    facts = [("Clip", text), ("Size", f"short side {clip.get('short_side')}, crop {clip.get('crop')} px")]
    return [*facts, ("Temporal rule", str(rule or ""))]


def _speed(result: Result | None) -> str:
    if result is None:
        return ""
    rates = {"with decoding": result.clips_per_second, "the model alone": result.model_clips_per_second}
    return ", ".join(f"{rate:.3g} clips/s {name}" for name, rate in rates.items() if isfinite(rate))


def _device(record: Row) -> str:
    parts = [str(record.get("device", ""))]
    if (record.get("num_processes") or 1) > 1:
        parts.append(f"{record['num_processes']} processes")
    if record.get("num_threads") and "cpu" in parts[0]:
        num = record["num_threads"]
        parts.append(f"{num} thread{'s' * (num > 1)}")
    return ", ".join(part for part in parts if part)


def _duration(records: RunRecords) -> str:
    """Total time of training and validation in metrics.jsonl, without pauses of an interrupted run."""
    names = ("data_seconds", "compute_seconds", "val_seconds")
    times = [row[name] for row in (*records.train, *records.val) for name in names if name in row]
    seconds = sum(time for time in times if isinstance(time, int | float))
    if not seconds:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _charts(records: RunRecords) -> list[str]:
    """Line charts over the epochs, as inline SVG."""
    train, val = records.train, records.val
    key, name = _main_metric(records)
    train_figure = get_task(records.config.get("task", "single-label")).train_figure
    charts = []
    for title, train_key, val_key, percent in (
        ("Loss", "loss", "val_loss", False),
        (name[0].upper() + name[1:], train_figure if key == f"val_{train_figure}" else "", key, True),
    ):
        series = {"training": _series(train, train_key), "validation": _series(val, val_key)}
        series = {name: points for name, points in series.items() if points[0]}
        if series:
            figure = line_chart(series, title=title, percent=percent, bottom=0 if percent else None)
            charts.append(inline_svg(figure, label=f"{title} against epoch"))
    for title, key, percent in (
        ("Learning rate", "lr", False),
        ("Clips per second", "clips_per_s", False),
        ("Time waiting for data", "data_wait", True),
    ):
        points = _series(train, key)
        if points[0]:
            figure = line_chart({title: points}, title=title, percent=percent, bottom=0, small=True)
            charts.append(inline_svg(figure, label=f"{title} against epoch"))
    return charts


def _series(rows: list[Row], key: str) -> tuple[list[float], list[float]]:
    valid = [row for row in rows if _is_number(row.get("epoch")) and _is_number(row.get(key))]
    return [float(row["epoch"]) for row in valid], [float(row[key]) for row in valid]


def _classes(records: RunRecords) -> Row | None:
    """The confusion matrix, if there is one, and a bar for each class, worst first."""
    result = records.result
    table = None if result is None or not result.num_videos else result.class_table()
    if result is None or table is None:
        return None
    chart = ""
    if table.confusion is not None:
        figure = confusion_chart(table.confusion, result.class_names, title="")
        chart = inline_svg(figure, label="Confusion matrix")
    return {
        "value": table.value,
        "columns": table.columns,
        "confusion": chart,
        "wide": len(result.class_names) > 14,
        "num_hidden": max(0, len(table.rows) - _WORST_CLASSES),
        "rows": [
            (name, round(100 * value, 1), [shorten(cell, 28) for cell in cells])
            for name, value, cells in table.rows[:_WORST_CLASSES]
        ],
    }


def _examples(records: RunRecords, num: int, *, hardest: bool) -> list[Row]:
    """The videos with the highest (lowest) loss, with a strip of frames if the file is readable."""
    examples = [] if records.result is None else records.result.examples(num, hardest=hardest)
    return [_example(number, example) for number, example in enumerate(examples)]


def _example(number: int, example: Example) -> Row:
    try:
        strip, unreadable = data_uri(frame_strip(example.path)), ""
    except VideoError as error:
        strip, unreadable = "", error.cause
    name, chart = Path(example.path).name, ""
    if example.timeline is not None:
        figure = timeline_chart(example.timeline, truth=example.actions, max_rows=6)
        chart = inline_svg(figure, label=f"Timeline of {name} {number}, loss {example.loss:.2f}")
    return {
        "file": name,
        "true": example.truth,
        "true_score": None if example.true_score is None else round(100 * example.true_score, 1),
        "correct": example.is_correct,
        "loss": f"{example.loss:.2f}",
        "predictions": [(label, round(100 * score, 1), is_true) for label, score, is_true in example.best],
        "strip": strip,
        "unreadable": unreadable,
        "chart": chart,
    }


def _embedding(folder: Path) -> str:
    """The page that ``saccade visualize embedding`` wrote into the run folder, if any."""
    path = folder / "embedding.html"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _failures(records: RunRecords) -> Row | None:
    """Unreadable videos: the number in training, and path and cause in the test."""
    training = sum(int(row.get("failures") or 0) for row in records.train)
    tested = [(f.path, f.cause) for f in records.result.failures] if records.result is not None else []
    return {"training": training, "tested": tested} if training or tested else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and isfinite(value)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %" if isfinite(fraction) else "-"
