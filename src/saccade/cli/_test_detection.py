"""``saccade test`` of a model that tells what the people in boxes do: frame-mAP, as AVA is evaluated."""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.evaluation.ava_map import ActionRow
    from saccade.evaluation.detection import DetectionResult
    from saccade.inference import LoadedModel


def run_detection(
    loaded: LoadedModel, data: str, options: Namespace, settings: dict[str, Any], folder: Path
) -> int:
    """Test every keyframe of the split; returns 1 when a video could not be read."""
    from saccade.data.ava import load_ava
    from saccade.evaluation.detect import evaluate_detection

    if options.split not in ("train", "val"):
        raise UsageError(f"--split: AVA has train and val, not {options.split}")
    people = settings.get("people", {})
    min_score = people.get("min_score", 0.9) if options.min_score is None else options.min_score
    trained_on = people.get("val_boxes") if not options.data and options.split == "val" else ""
    dataset = load_ava(
        data,
        options.split,
        detected=options.boxes or trained_on or None,
        min_score=min_score,
        root=options.root or (settings.get("root") if not options.data else None) or None,
        allow_missing=options.allow_missing,
    )
    result = evaluate_detection(
        loaded.model,
        dataset,
        loaded.clip,
        workers=options.workers,
        batch_size=options.batch_size,
        shuffle_frames=options.shuffle_frames,
        seed=options.seed,
        precision=options.precision,
        progress=True,
    )
    record: dict[str, Any] = {
        "model": loaded.name,
        "weights": loaded.origin,
        "data": dataset.root,
        "split": dataset.split,
        "min_score": min_score,
        "device": str(loaded.device),
        "precision": options.precision,
        "results": [result.summary()],
    }
    saved = _save(result, record, folder, f"{options.split}{'_shuffled' if options.shuffle_frames else ''}")
    if options.json:
        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        _show(result, record, num_rows=None if options.all_classes else 15)
        print(f"saved in {folder}: {', '.join(saved)}")
    for failure in result.failures:
        print(f"saccade: {failure.path}: {failure.cause}: in no figure", file=sys.stderr)
    return 1 if result.failures else 0


def _save(result: DetectionResult, record: dict[str, Any], folder: Path, mark: str) -> list[str]:
    from saccade.files import write_json

    names = [f"{mark}_scores_keyframes.npz", f"{mark}_result.json", f"{mark}_detections.csv"]
    result.save(folder / names[0])
    write_json(folder / names[1], record)
    result.write_submission(folder / names[2])
    return names


def _show(result: DetectionResult, record: dict[str, Any], *, num_rows: int | None) -> None:
    from rich.table import Table

    from saccade.console import output

    console = output()
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
