"""``saccade test`` of a model that tells what the people in boxes do: frame-mAP, as AVA is evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.tasks.detect import DetectionResult
    from saccade.tasks.frame_map import ActionRow


def show_people(results: Sequence[DetectionResult], record: dict[str, Any], *, num_rows: int | None) -> None:
    """The figure, and the actions, best first. Arguments as for `saccade.cli._test_tables.show`."""
    from rich.table import Table

    from saccade.console import output

    console = output()
    (result,) = results
    found = result.frame_map
    clip = result.clip
    frames = f"{clip.num_frames} frames x stride {clip.stride}, short side {clip.short_side}" if clip else ""
    console.print(
        f"[bold]{record['model']}[/] on {record['data']} ({record['split']}): frame-mAP "
        f"[bold green]{100 * found.mean:.1f} %[/] at IoU {found.iou:g}",
        soft_wrap=True,
    )
    console.print(
        f"{result.num_keyframes} keyframes of {result.num_videos} videos, {len(result.boxes)} boxes from "
        f"{result.boxes_from}; {frames}{'; frames shuffled' if result.shuffled else ''}",
        soft_wrap=True,
        markup=False,
    )
    table = Table("action", "AP", "annotated", "right of detected")
    for row in sorted(found.rows, key=_worst_last)[:num_rows]:
        precision = "-" if math.isnan(row.precision) else f"{100 * row.precision:.1f} %"
        table.add_row(row.name, precision, str(row.num_annotated), f"{row.right} of {row.num_detected}")
    console.print(table)


def _worst_last(row: ActionRow) -> tuple[bool, float, int]:
    missing = math.isnan(row.precision)
    return missing, 0.0 if missing else -row.precision, row.action
