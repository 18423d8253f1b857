"""``saccade predict --boxes``: what each person does, printed and as files."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from saccade.cli._args import check_score
from saccade.cli._outputs import check_folder, output_names
from saccade.cli._timeline import clock
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.inference import Detector, PeopleActions
    from saccade.tasks import Failure


def check_flags(options: Namespace) -> None:
    """Refuse flags that do not go together."""
    if options.localize:
        raise UsageError("--boxes and --localize are two questions; ask one at a time")
    if options.views != "auto":
        raise UsageError("--views: with --boxes a clip is looked at around every box; leave the flag out")
    if options.jsonl:
        raise UsageError("--jsonl: --boxes writes a file for each video; --json prints them all")
    if options.batch_size is not None:
        raise UsageError("--batch-size: with --boxes clips are looked at one by one; leave the flag out")
    check_score("--threshold", options.threshold)
    check_folder(options.out or ".")


def detect(detector: Detector, paths: list[str], options: Namespace) -> list[Failure]:
    """Find what people do and show it; the videos that could not be read."""
    from saccade.inference import Failure
    from saccade.inference.detector import THRESHOLD

    detector.check(paths)
    threshold = THRESHOLD if options.threshold is None else options.threshold
    folder, names = Path(options.out or "."), output_names(paths)
    failures: list[Failure] = []
    records: list[dict[str, Any]] = []
    for found in detector.detect_many(paths, workers=min(options.workers, len(paths))):
        if isinstance(found, Failure):
            failures.append(found)
            records.append(found.to_dict())
            continue
        record = found.to_dict(threshold, options.top)
        files = _write(found, record, folder / names[found.path], threshold, options)
        records.append(record)
        if not options.json:
            _show(found, threshold, options.top, files)
    if options.json:
        print(json.dumps(records, indent=2, ensure_ascii=False))
    return failures


def _write(
    found: PeopleActions, record: dict[str, Any], stem: Path, threshold: float, options: Namespace
) -> list[Path]:
    """The video with its people and the figures of one video."""
    from saccade.files import write_json
    from saccade.visualize.people import render_people

    video, figures = Path(f"{stem}.people.mp4"), Path(f"{stem}.people.json")
    captions = [
        [f"{label} {100 * score:.0f} %" for label, score in found.actions(person, threshold, options.top)]
        for person in found.people
    ]
    write_json(figures, record)
    render_people(found.path, found.people, captions, video, frames_fps=options.fps)
    return [video, figures]


def _show(found: PeopleActions, threshold: float, k: int, files: list[Path]) -> None:
    from saccade.console import output

    console = output()
    seconds = sorted({person.second for person in found.people})
    facts = (
        f"{found.duration:.1f} s, {found.fps:.4g} fps, {len(found.people)} boxes at {len(seconds)} moments"
    )
    console.print(Text.assemble((found.path, "bold"), ("  " + facts, "dim")), soft_wrap=True)
    for person in found.people:
        x1, y1, x2, y2 = (round(100 * value) for value in person.box)
        actions = found.actions(person, threshold, k)
        line = Text(f"  {clock(person.time, found.duration):>6}  ")
        line.append(f"{x1:3}-{x2:<3} x {y1:3}-{y2:<3} %  ", "dim")
        if actions:
            line.append(", ".join(f"{label} {100 * score:.0f} %" for label, score in actions), "cyan")
        else:
            line.append(f"nothing above {100 * threshold:g} %", "dim")
        console.print(line, soft_wrap=True)
    console.print(Text("  " + ", ".join(map(str, files)), "dim"), soft_wrap=True)
    console.print()
