"""What the report of a run shows of several labels a clip, and of labels in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from saccade.errors import VideoError
from saccade.tasks import LocalizationResult, MultiLabelResult, Result
from saccade.tasks.scores import sigmoid
from saccade.tasks.timeline import Timeline
from saccade.visualize.charts import inline_svg
from saccade.visualize.strips import data_uri, frame_strip
from saccade.visualize.timeline import timeline_chart

Row = dict[str, Any]


def precision_rows(result: Result, most: int) -> Row | None:
    """The classes with a positive by average precision, worst first; None for other tasks."""
    if not isinstance(result, (MultiLabelResult, LocalizationResult)):
        return None
    rows = sorted(
        (row for row in result.per_class if row.num_positives),
        key=lambda row: (row.average_precision, row.label),
    )
    return {
        "note": "Average precision of each class, the worst first.",
        "value": "AP",
        "count": "moments" if isinstance(result, LocalizationResult) else "videos",
        "num_hidden": max(0, len(rows) - most),
        "rows": [
            {
                "name": result.class_names[row.label],
                "percent": round(100 * row.average_precision, 1),
                "clips": row.num_positives,
            }
            for row in rows[:most]
        ],
    }


def examples(result: Result, num: int, *, hardest: bool) -> list[Row]:
    """The videos with the highest (lowest) loss."""
    if not isinstance(result, (MultiLabelResult, LocalizationResult)):
        return []
    order = result.losses.argsort()
    chosen = order[::-1][:num] if hardest else order[:num]
    return [_example(result, int(place)) for place in chosen]


def _example(result: MultiLabelResult | LocalizationResult, place: int) -> Row:
    if isinstance(result, MultiLabelResult):
        scores, chart = result.scores[place], ""
    else:
        scores, chart = sigmoid(result.video_logits[place]), _timeline(result, place)
    positives = result.positives[place]
    best = np.argsort(-scores, kind="stable")[:3]
    try:
        strip, why = data_uri(frame_strip(result.paths[place])), ""
    except VideoError as error:
        strip, why = "", error.cause
    names = [result.class_names[label] for label in np.flatnonzero(positives)]
    return {
        "file": Path(result.paths[place]).name,
        "true": ", ".join(names) or "nothing of its classes",
        "right": bool(positives[best[0]]),
        "loss": f"{result.losses[place]:.2f}",
        "guesses": [
            (result.class_names[i], round(100 * float(scores[i]), 1), bool(positives[i])) for i in best
        ],
        "strip": strip,
        "why": why,
        "chart": chart,
    }


def _timeline(result: LocalizationResult, place: int) -> str:
    """Scores over time and where the actions truly are, as inline SVG."""
    scores = sigmoid(result.at_frames(place).astype(np.float32))
    timeline = Timeline(result.paths[place], result.class_names, scores, float(result.fps[place]))
    name = Path(result.paths[place]).name
    figure = timeline_chart(timeline, truth=result.actions_of(place), most=6)
    return inline_svg(figure, label=f"Timeline of {name} {place}")
