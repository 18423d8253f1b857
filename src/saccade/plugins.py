"""Registries that a user's file or an installed package can add to: models, data sets, tasks and so on.

A package adds to a registry through an entry point in the registry's group. Its ``pyproject.toml`` says::

    [project.entry-points."saccade.models"]
    my_net = "my_package.models:my_net"

Entry points are loaded when a name is asked for that is not built in, or when all names are listed.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from saccade.errors import SaccadeError, UsageError

T = TypeVar("T")

logger = logging.getLogger(__name__)

_imported: list[str] = []  # absolute paths, by `import_file`


class Registry(Generic[T]):
    """Names and what they stand for, in the order of registration.

    >>> tasks = Registry[int]("task", group="saccade.tasks")
    >>> tasks.add("classify", 1)
    >>> tasks["classify"], list(tasks)
    (1, ['classify'])
    """

    def __init__(self, kind: str, *, group: str, adopt: Callable[[str, Any], None] | None = None) -> None:
        """Args:
        kind: what an entry is, for messages, e.g. "model".
        group: the entry-point group of plug-in packages.
        adopt: is given the name and the object of an entry point whose import registered nothing by that
            name, to register it.
        """
        self.kind, self.group = kind, group
        self._adopt = adopt
        self._entries: dict[str, T] = {}
        self._owners: dict[str, str] = {}
        self._failed: dict[str, Exception] = {}
        self._loaded: set[tuple[str, str]] = set()

    def add(self, name: str, entry: T, *, owner: str = "") -> None:
        """Register ``entry`` under ``name``.

        Args:
            owner: where it is defined, such as a module's name; the same owner may replace its entry, as
                when a notebook's cell or a module is run again.

        Raises:
            UsageError: the name belongs to another owner.
        """
        if name in self._entries and self._owners[name] != owner:
            taken_by = f" by {self._owners[name]}" if self._owners[name] else ""
            raise UsageError(f"{self.kind} {name!r} is already registered{taken_by}; choose another name")
        self._entries[name], self._owners[name] = entry, owner

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self.load_plugins()
        if name in self._entries:
            return self._entries[name]
        if name in self._failed:
            error = self._failed[name]
            raise UsageError(f"{self.kind} {name!r}: its plug-in cannot be imported: {error!r}") from error
        close = difflib.get_close_matches(name, self._entries, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(self._entries)}"
        raise UsageError(f"unknown {self.kind} {name!r}; {hint}")

    def __contains__(self, name: object) -> bool:
        if name not in self._entries:
            self.load_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self.load_plugins()
        return iter(list(self._entries))

    def load_plugins(self) -> None:
        """Import the entry points of the group that are not imported yet; one that fails is logged."""
        for point in entry_points(group=self.group):
            if (point.name, point.value) in self._loaded:
                continue
            self._loaded.add((point.name, point.value))
            taken_by = self._owners.get(point.name)
            try:
                found = point.load()
                if point.name not in self._entries:
                    if self._adopt is not None and not inspect.ismodule(found):  # a module registers itself
                        self._adopt(point.name, found)
                elif taken_by and taken_by.split(".")[0] != point.module.split(".")[0]:
                    raise UsageError(f"{self.kind} {point.name!r} is already registered by {taken_by}")
            except Exception as error:  # somebody else's code must not stop what does not need it
                self._failed[point.name] = error
                logger.warning("%s plug-in %s (%s) failed: %r", self.kind, point.name, point.value, error)


def import_file(path: str | os.PathLike[str]) -> ModuleType:
    """Import a user's Python file, so that what it registers can be used by name.

    Its folder is put on ``sys.path``, so that worker processes can import it too.

    Raises:
        UsageError: there is no such file, another module has its name, or it fails.
    """
    file = Path(path).resolve()
    if file.suffix != ".py" or not file.is_file():
        raise UsageError(f"{os.fspath(path)}: no such Python file")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    try:
        module = importlib.import_module(file.stem)
    except SaccadeError:  # a registration that says itself what is wrong
        raise
    except Exception as error:
        raise UsageError(
            f"{os.fspath(path)}: importing it failed: {type(error).__name__}: {error}"
        ) from error
    if Path(module.__file__ or "").resolve() != file:
        raise UsageError(f"{os.fspath(path)}: a module named {file.stem} exists already; rename the file")
    if str(file) not in _imported:
        _imported.append(str(file))
    return module


def imported_files() -> list[str]:
    """Absolute paths of the files that `import_file` has imported."""
    return list(_imported)
