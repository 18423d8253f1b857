"""The clips of a fit: the check, the list in the run folder, and which side clips were on before."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from saccade.data.check import CheckReport, FileFacts, check_data
from saccade.data.datasets import read_entries
from saccade.data.holdout import source_groups
from saccade.errors import SaccadeError, UsageError
from saccade.files import write_text
from saccade.progress import Progress, ignore
from saccade.runs import Run

CLIPS = "clips.csv"
"""The list of a run's clips with the side each was on. A data set that states no split is divided anew when
clips are added; the list keeps clips that were trained on from becoming validation clips."""

_DECODE_FRACTION = 0.06  # of the time limit, which reading every frame may take
_FRAMES_PER_SECOND = 700.0  # decoded by a core, of 320 x 240 pixels
_BYTES_PER_FRAME = 3000.0  # of such a video


def check_clips(
    data: str, *, root: str = "", minutes: float, cores: int = 2, progress: Progress = ignore
) -> tuple[CheckReport, bool]:
    """The facts of all clips; and whether all frames were decoded, or the files opened only, as decoding them
    would take too much of ``minutes``.

    Raises:
        UsageError, DataError: see `saccade.data.check.check_data`.
    """
    place = Path(data)
    num_bytes = sum(_size(path) for path in _files(data, root)) if place.exists() else 0
    seconds = num_bytes / _BYTES_PER_FRAME / _FRAMES_PER_SECOND / max(cores, 1)
    decode = seconds <= _DECODE_FRACTION * 60 * minutes
    return check_data(data, root=root or None, decode=decode, progress=progress), decode


def _files(data: str, root: str) -> list[str]:
    try:
        return [entry.path for entry in read_entries(data, root=root or None)[1]]
    except SaccadeError:  # `check_data` says what is wrong
        return []


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def write_clips(report: CheckReport, path: Path) -> None:
    """Write the readable clips as a list with absolute paths, labels and splits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    segmented = any(file.start is not None or file.end is not None for file in report.files)
    writer.writerow(["path", "label", "split", *(["start", "end"] if segmented else [])])
    for file in report.files:
        if not file.num_frames:
            continue
        times = ["" if time is None else f"{time:g}" for time in (file.start, file.end)]
        name = report.class_names[file.labels[0]]
        writer.writerow([os.path.abspath(file.path), name, file.split, *(times if segmented else [])])
    write_text(path, text.getvalue())


def can_be_listed(report: CheckReport) -> bool:
    """Whether the list says all there is to say: not of folders of frames with a rate of their own."""
    return all(file.listed_frames is None and file.listed_fps is None for file in report.files)


def earlier_sides(run: Run) -> dict[str, str]:
    """The side, train or val, that each clip of an earlier run was on, by real path. Of a run that was not
    made by fit only the validation clips are known.

    Raises:
        UsageError: it is not a run folder.
    """
    run.record()  # raises if it is not a run
    try:
        with open(run.folder / CLIPS, encoding="utf-8", newline="") as file:
            return {_real(row["path"]): row["split"] for row in csv.DictReader(file)}
    except (OSError, KeyError):
        pass
    from saccade.evaluation import load_result

    if not run.val_scores.is_file():
        return {}
    try:
        return {_real(path): "val" for path in load_result(run.val_scores).paths}
    except SaccadeError as error:
        raise UsageError(f"{run.val_scores}: not readable ({error}); give another run to --from") from error


def keep_sides(
    report: CheckReport, earlier: Mapping[str, str], known_classes: Sequence[str], *, root: str = ""
) -> CheckReport:
    """The report with the clips of an earlier run on the sides they were on, and new clips of one source with
    earlier ones on theirs.

    Args:
        earlier: see `earlier_sides`. If it has no training clips, all clips of ``known_classes`` that were
            not validated count as trained on.
    """
    listed = "train" in earlier.values()
    entries = read_entries(report.root, root=root or None)[1]
    keys, _ = source_groups(entries)
    sources = {(entry.path, entry.start, entry.end): key for entry, key in zip(entries, keys, strict=True)}

    def side(file: FileFacts) -> str:
        before = earlier.get(_real(file.path), "")
        known = file.labels and report.class_names[file.labels[0]] in known_classes
        return before or ("train" if known and not listed else "")

    taken: dict[str, set[str]] = {}
    for file in report.files:
        taken.setdefault(sources[file.path, file.start, file.end], set()).add(side(file))

    def settled(file: FileFacts) -> str:
        own, others = side(file), taken[sources[file.path, file.start, file.end]]
        return own or ("train" if "train" in others else "val" if "val" in others else file.split)

    return replace(report, files=tuple(replace(file, split=settled(file)) for file in report.files))


def _real(path: str) -> str:
    return os.path.realpath(path)
