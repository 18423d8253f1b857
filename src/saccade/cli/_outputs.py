"""Where the files of a command go, and what those that it writes for many videos are called."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from saccade.errors import UsageError

PICTURES = (".png", ".svg", ".pdf")  # that a chart can be written as


def check_folder(path: str | os.PathLike[str], flag: str = "--out") -> Path:
    """The folder that files will be written to; called before anything takes time, it leaves nothing behind.

    Raises:
        UsageError: it is a file, cannot be made, or cannot be written to.
    """
    folder = Path(path)
    if obstacle := _obstacle(folder):
        raise UsageError(f"{flag} {folder}: {obstacle}")
    return folder


def check_file(
    path: str | os.PathLike[str],
    flag: str = "--out",
    *,
    what: str = "file",
    suffixes: Sequence[str] = (),
) -> Path:
    """The file that will be written; called before anything takes time.

    Args:
        what: what it is called in errors.
        suffixes: that its name may end in; none: any.

    Raises:
        UsageError: its name does not end so, or it cannot be written.
    """
    file = Path(path)
    if suffixes and file.suffix.lower() not in suffixes:
        one_of = "one of " if len(suffixes) > 1 else ""
        raise UsageError(f"{flag} {file}: the {what} must end in {one_of}{', '.join(suffixes)}")
    if file.is_dir():
        raise UsageError(f"{flag} {file}: is a folder; name a file")
    if obstacle := _obstacle(file.parent):
        raise UsageError(f"{flag} {file}: {obstacle}")
    return file


def _obstacle(folder: Path) -> str:
    """Why no file can be written into a folder that may not be there yet; empty if one can."""
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not there.is_dir():
            return f"{there} is a file, not a folder"
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as error:
        return f"nothing can be written there ({error.strerror})"


def output_names(paths: Sequence[str]) -> dict[str, str]:
    """A name without ending for each video, all of them different.

    It is the file's without its ending, a folder's whole. Where that is not enough the name of the folder
    that holds it comes before it, then the ending after it, then a number.
    """
    names = {path: _own_name(path) for path in paths}
    for longer in (_with_folder, _with_ending):
        count = Counter(names.values())
        names = {path: longer(path) if count[name] > 1 else name for path, name in names.items()}
    taken: set[str] = set()
    for path, name in names.items():
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        taken.add(unique)
        names[path] = unique
    return names


def _own_name(path: str) -> str:
    return Path(path).name if Path(path).is_dir() else Path(path).stem


def _with_folder(path: str) -> str:
    return f"{Path(path).resolve().parent.name}_{_own_name(path)}"


def _with_ending(path: str) -> str:
    return f"{_with_folder(path)}{Path(path).suffix.replace('.', '_')}"
