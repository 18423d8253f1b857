"""``saccade predict --localize``: the timeline of every video, printed and as files."""

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
    from saccade.inference import Localizer
    from saccade.tasks import Failure
    from saccade.tasks.timeline import Timeline

_SHADES = " ░▒▓█"


def check_flags(options: Namespace) -> None:
    """Refuse flags that do not go together."""
    if options.views != "auto":
        raise UsageError("--views: to localise a video is looked at whole; leave the flag out")
    if options.jsonl:
        raise UsageError("--jsonl: --localize writes a file for each video; --json prints them all")
    check_score("--threshold", options.threshold)
    check_folder(options.out or ".")


def localize(localizer: Localizer, paths: list[str], options: Namespace) -> list[Failure]:
    """Localise and show; the videos that could not be read."""
    from saccade.inference import Failure
    from saccade.tasks.timeline import THRESHOLD

    threshold = THRESHOLD if options.threshold is None else options.threshold
    folder, names = Path(options.out or "."), output_names(paths)
    failures: list[Failure] = []
    records: list[dict[str, Any]] = []
    for found in localizer.locate_many(paths, workers=min(options.workers, len(paths))):
        if isinstance(found, Failure):
            failures.append(found)
            records.append(found.to_dict())
            continue
        record = found.to_dict(threshold, options.top)
        files = _write(found, record, folder / names[found.path], threshold)
        records.append(record)
        if not options.json:
            _show(found, threshold, options.top, files)
    if options.json:
        print(json.dumps(records, indent=2, ensure_ascii=False))
    return failures


def _write(found: Timeline, record: dict[str, Any], stem: Path, threshold: float) -> list[Path]:
    """The picture and the figures of one video."""
    from saccade.files import write_json
    from saccade.visualize.charts import save_figure
    from saccade.visualize.timeline import timeline_chart

    picture, figures = Path(f"{stem}.timeline.png"), Path(f"{stem}.timeline.json")
    save_figure(timeline_chart(found, title=stem.name, threshold=threshold), picture)
    write_json(figures, record)
    return [picture, figures]


def _show(found: Timeline, threshold: float, k: int, files: list[Path]) -> None:
    from saccade.console import output

    console = output()
    segments = found.segments(threshold)
    facts = f"{found.duration:.1f} s, {found.fps:.4g} fps, {len(segments)} actions above {threshold:g}"
    console.print(Text.assemble((found.path, "bold"), ("  " + facts, "dim")), soft_wrap=True)
    names = list(dict.fromkeys(segment.label for segment in segments)) or [name for name, _ in found.top(k)]
    width = min(60, max(20, console.width - 30))
    longest = max(len(name) for name in names)
    for name in names:
        times = ", ".join(
            f"{clock(segment.start, found.duration)}-{clock(segment.end, found.duration)}"
            for segment in segments
            if segment.label == name
        )
        line = Text.assemble("  ", (name.ljust(longest), "cyan"), "  ")
        console.print(line.append(_strip(found, name, width)).append(f"  {times}", "dim"), soft_wrap=True)
    axis = clock(0, found.duration)
    end = clock(found.duration, found.duration)
    console.print(Text(" " * (longest + 4) + axis + end.rjust(width - len(axis)), "dim"), soft_wrap=True)
    console.print(Text("  " + ", ".join(map(str, files)), "dim"), soft_wrap=True)
    console.print()


def _strip(found: Timeline, name: str, width: int) -> str:
    """The scores of a class over the video as a line of shades."""
    scores = found.scores[:, found.class_names.index(name)]
    places = [int((column + 0.5) * len(scores) / width) for column in range(width)]
    return "".join(_SHADES[min(int(scores[place] * len(_SHADES)), len(_SHADES) - 1)] for place in places)
