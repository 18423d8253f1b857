"""What a report says beside the accuracy: use of time, calibration, errors by class, suspected labels."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

from saccade.errors import VideoError
from saccade.tasks import Result, figure_name
from saccade.tasks.time_use import CONTROLS, points
from saccade.visualize.charts import inline_svg, reliability_chart
from saccade.visualize.sheets import data_uri, frame_strip

Row = dict[str, Any]
_CLASSES, _CLIPS_OF_CLASS, _SUSPECTS = 12, 3, 8
_STRIP_HEIGHT = 64  # pixels


def sentences(result: Result) -> list[str]:
    """The accuracy as a count, what time is worth, and the calibration error."""
    found = [f"{result.views}: {result.score_text}."]
    if result.time_use is not None:
        text = str(result.time_use)
        found.append(f"{text[0].upper()}{text[1:]}.")
    elif result.clip is not None and result.clip.num_frames == 1:
        found.append("A clip is one frame: the model cannot use time.")
    return found


def time_table(result: Result) -> Row | None:
    """The figures of the ordered frames and of the controls; None without controls."""
    found = result.time_use
    if found is None:
        return None
    with_pairs = isfinite(found.pair_accuracy)

    def row(name: str, figure: float, pairs: float, worth: str) -> Row:
        percent = round(100 * figure, 1)
        return {"name": name, "percent": percent, "pairs": round(100 * pairs, 1) if with_pairs else None} | {
            "worth": worth
        }

    rows = [row("in order", found.figure, found.pair_accuracy, "")]
    for each in found.controls:
        name = CONTROLS[each.name] + (f", mean of {each.num_passes}" if each.num_passes > 1 else "")
        rows.append(row(name, each.figure, each.pair_accuracy, points(each.worth, each.error)))
    return {
        "figure": figure_name(found.figure_name),
        "with_pairs": with_pairs,
        "rows": rows,
        "protocol": f"{found.views} views of {found.num_videos} of {found.num_tested} videos",
    }


def calibration(result: Result) -> str:
    """The reliability chart as inline SVG; empty if videos are not right or wrong."""
    if not result.confidence_bins:
        return ""
    figure = reliability_chart(result.confidence_bins, error=result.calibration_error, title="")
    return inline_svg(figure, label="Accuracy against confidence")


def class_errors(result: Result) -> list[Row]:
    """The classes with most errors, each with the frames of its worst clips."""
    return [
        {
            "name": each.name,
            "wrong": each.num_wrong,
            "total": each.num_videos,
            "clips": [
                _strip(example.path)
                | {"predicted": example.best[0][0], "percent": round(100 * example.best[0][1], 1)}
                for example in each.examples
            ],
        }
        for each in result.class_errors(_CLIPS_OF_CLASS)[:_CLASSES]
    ]


def suspects(result: Result) -> Row | None:
    """The clips whose labels may be wrong, with frames of the first ones; None without any."""
    found = result.suspects()
    if not found:
        return None
    return {
        "hidden": max(0, len(found) - _SUSPECTS),
        "clips": [
            _strip(each.path)
            | {
                "path": each.path,
                "label": each.label,
                "label_percent": round(100 * each.label_score, 1),
                "predicted": each.predicted,
                "percent": round(100 * each.predicted_score, 1),
            }
            for each in found[:_SUSPECTS]
        ],
    }


def _strip(path: str) -> Row:
    try:
        strip, unreadable = data_uri(frame_strip(path, height=_STRIP_HEIGHT)), ""
    except VideoError as error:
        strip, unreadable = "", error.cause
    return {"file": Path(path).name, "strip": strip, "unreadable": unreadable}
