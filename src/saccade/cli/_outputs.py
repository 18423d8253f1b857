"""What the files that a command writes for many videos are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path


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
