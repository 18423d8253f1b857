"""`load_dataset`: the videos under a path, by a reader that recognises their layout or is named.

A reader is a function registered with `register_dataset`, in this package (one file each), in a user's file,
or in an installed package (entry points of the group ``saccade.datasets``).
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from saccade.data.classnames import LabelFinder
from saccade.data.classnames import class_names as read_class_names
from saccade.data.entries import ClassNames, Entry, Listing, Split, StrPath, split_of
from saccade.data.holdout import with_splits
from saccade.data.labelling import labelled, select_split, without_missing
from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import DataError, UsageError
from saccade.plugins import Registry, import_file

F = TypeVar("F", bound=Callable[..., Any])

# In the order in which they are asked whether they recognise a path; readers from outside are asked first.
_BUILT_IN = {
    "unlabelled": "saccade.data.unlabelled",
    "motion": "saccade.data.motion.files",
    "kinetics": "saccade.data.kinetics",
    "charades": "saccade.data.charades",
    "something": "saccade.data.something",
    "ava": "saccade.data.ava",
    "lists": "saccade.data.lists",
    "folders": "saccade.data.folders",
}


@dataclass(frozen=True)
class DatasetReader:
    """A registered reader.

    Attributes:
        name: by which ``NAME:PATH`` chooses it.
        read: called with the path and the split; gives a `VideoDataset`, or, for the layouts that list all
            splits at once, a `saccade.data.entries.Listing`.
        recognises: whether a path is in its layout; None: it is only used by name.
        options: keyword arguments that ``read`` takes; None: any.
    """

    name: str
    read: Callable[..., Any]
    recognises: Callable[[Path], bool] | None
    options: frozenset[str] | None

    @property
    def lists(self) -> bool:
        """Whether it gives a `Listing`."""
        return inspect.signature(self.read).return_annotation in (Listing, "Listing")


def _adopt(name: str, found: Any) -> None:
    if callable(found):
        register_dataset(name, recognises=getattr(found, "recognises", None))(found)


_READERS: Registry[DatasetReader] = Registry("data set reader", group="saccade.datasets", adopt=_adopt)


def register_dataset(name: str, *, recognises: Callable[[Path], bool] | None = None) -> Callable[[F], F]:
    """Make a format of data sets known by name: a decorator for the function that reads it.

    The function is called as ``read(path, split)``, with the path as a `pathlib.Path` and ``train``, ``val``,
    ``test`` or ``all``, and returns a `saccade.data.VideoDataset`. It may take the options of `load_dataset`
    (``class_names``, ``val_fraction``, ``root``, ``allow_missing``) and others as keyword arguments; one that
    is given and that it does not take is an error, except ``class_names``: the labels are then renumbered.

    `load_dataset`, recipes and commands read with it where the data is given as ``NAME:PATH``, or where
    ``recognises`` is true for a plain path. ``my_reader.py:PATH`` imports that file and uses the reader that
    it registers.

    Args:
        name: letters, digits, ``_`` and ``-``, at least two of them.
        recognises: called with an existing path; readers from outside are asked before the built-in ones.

    Raises:
        UsageError: the name is malformed or taken.

    Example:
        >>> import saccade
        >>> from saccade.data import VideoDataset, VideoItem
        >>> @saccade.register_dataset("tab_file", recognises=lambda path: path.suffix == ".tab")
        ... def read_tab_file(path, split):
        ...     rows = [line.split("\\t") for line in path.read_text().splitlines()]
        ...     names = tuple(sorted({label for _, label, _ in rows}))
        ...     items = [VideoItem(video, names.index(label)) for video, label, own in rows if own == split]
        ...     return VideoDataset(tuple(items), names, split, str(path))
        >>> from pathlib import Path
        >>> _ = Path("clips.tab").write_text("a.mp4\\twalk\\ttrain\\nb.mp4\\trun\\tval\\n")
        >>> [(item.path, item.label) for item in saccade.load_dataset("tab_file:clips.tab", "val").items]
        [('b.mp4', 0)]
        >>> len(saccade.load_dataset("clips.tab", "train"))
        1
    """
    if not re.fullmatch(r"\w[\w-]+", name):
        raise UsageError(f"register_dataset: {name!r} is not a name of at least two letters, digits, _ and -")

    def register(function: F) -> F:
        module = function.__module__
        if name in _BUILT_IN and module != _BUILT_IN[name]:
            raise UsageError(f"data set reader {name!r} is built in; choose another name")
        parameters = list(inspect.signature(function).parameters.values())[2:]
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        options = None if takes_any else frozenset(parameter.name for parameter in parameters)
        _READERS.add(name, DatasetReader(name, function, recognises, options), owner=module)
        return function

    return register


def load_dataset(
    path: StrPath,
    split: Split,
    *,
    class_names: ClassNames | None = None,
    val_fraction: float = 0.2,
    root: StrPath | None = None,
    allow_missing: bool = False,
    labelled: bool = True,
    group: str | None = None,
    **options: Any,
) -> VideoDataset:
    """The videos of one split.

    Recognised, in this order: a `motion` set; Kinetics' JSON files; the lists of Charades and
    Something-Something, or one of them; AVA (see `saccade.data.kinetics`, ``charades``, ``something``,
    ``ava``); a list file; a folder with ``clips.csv``;
    ``train``, ``val`` or ``test`` folders of class folders; list files named for the splits; a folder of
    class folders. A list file named for a split finds the others beside it (``train.csv``, ``val.csv``).
    ``NAME:PATH`` chooses a reader by its name (`register_dataset`).

    Without a validation split, about ``val_fraction`` of each class is held out, always the same clips, those
    of one source video together; this is logged. Classes are those of the training split, sorted by name, so
    that the labels are the same for every split.

    Args:
        path: the folder or list file, or ``NAME:PATH``.
        split: ``train``, ``val``, ``test``, or ``all`` of them together. ``val`` falls back to ``test`` where
            only that exists, with a warning.
        class_names: names in label order: a shipped list (``kinetics400``), a file, or a sequence.
        val_fraction: fraction to hold out where there is no split.
        root: folder that relative paths of a list start from; None takes the list's own. For
            Something-Something, Charades and AVA the folder of the videos.
        allow_missing: skip listed files that do not exist, with a warning, instead of failing.
        labelled: False: the videos without labels and classes; a folder of videos alone is then recognised
            too, and read first.
        group: column of a list with a header that names the source of each clip, whose clips are held out
            together; default: one that is known to (group, source, person, subject, actor ...).
        options: further options of the reader (`saccade.data.ava.load_ava` has some).

    Raises:
        UsageError: an argument is out of range, or ``path`` does not exist.
        DataError: the layout is not recognised, a line or label is wrong, files are missing, or a split is
            empty.

    Example:
        >>> import saccade
        >>> train = saccade.load_dataset("clips", "train")  # doctest: +SKIP
        >>> len(train), train.class_names, train.items[0].path  # doctest: +SKIP
    """
    if split not in get_args(Split):
        raise UsageError(f"split: {split!r} is unknown; choose one of {', '.join(get_args(Split))}")
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction: must lie between 0 and 1, got {val_fraction}")
    reader, place = find_reader(path, labelled=labelled)
    if reader.lists:
        _check_options(reader, options)
        listing = read_listing(reader, place, split, class_names=class_names, root=root, group=group)
        dataset = _dataset(listing, place, split, class_names, val_fraction, allow_missing)
    else:
        common = {
            "val_fraction": (val_fraction, 0.2),
            "root": (root, None),
            "allow_missing": (allow_missing, False),
            "group": (group, None),
        }
        given = options | {name: value for name, (value, default) in common.items() if value != default}
        dataset = _load(reader, place, split, class_names, given)
    return dataset if labelled else _without_labels(dataset)


def stated_splits(path: StrPath, *, root: StrPath | None = None, labelled: bool = True) -> frozenset[str]:
    """The splits that the data set itself states; empty: ``train`` and ``val`` are made by holding out clips.
    All three of a reader that does not list its splits at once.

    Raises:
        UsageError, DataError: as `load_dataset`.
    """
    reader, place = find_reader(path, labelled=labelled)
    if reader.name == "unlabelled":
        folders = [entry.name for entry in place.iterdir() if entry.is_dir()]
        return frozenset(split for folder in folders if (split := split_of(folder)) is not None)
    if not reader.lists:
        return frozenset(("train", "val", "test"))
    entries = read_listing(reader, place, "all", root=root).entries
    return frozenset(entry.split for entry in entries if entry.split is not None)


def evaluation_split(path: StrPath, *, root: StrPath | None = None, labelled: bool = True) -> Split:
    """The split to evaluate on of a data set that nothing was trained on: ``val`` where it has one or a test
    split, else ``all``. Arguments and errors as of `stated_splits`.
    """
    return "val" if stated_splits(path, root=root, labelled=labelled) & {"val", "test"} else "all"


def read_entries(
    path: StrPath,
    *,
    class_names: ClassNames | None = None,
    root: StrPath | None = None,
    group: str | None = None,
) -> tuple[tuple[str, ...], list[Entry]]:
    """The class names and the entries of every split, each with a split and its label as a number, or with
    actions instead; `load_dataset` without the check whether the files exist.
    """
    reader, place = find_reader(path)
    if reader.lists:
        listing = read_listing(reader, place, "all", class_names=class_names, root=root, group=group)
        return labelled(with_splits(listing.entries, place, "train", 0.2), listing, place, class_names)
    found = {}
    for split in ("train", "val", "test"):
        try:
            found[split] = _load(reader, place, split, class_names, {} if root is None else {"root": root})
        except DataError as error:
            missing = error
    if not found:
        raise missing
    entries: dict[tuple[Any, ...], Entry] = {}
    for split, dataset in found.items():
        for item in dataset.items:
            actions = item.actions if item.label < 0 else None
            entry = Entry(item.path, str(item.label), reader.name, split, actions=actions)
            entry = replace(entry, num_frames=item.num_frames, fps=item.fps, start=item.start, end=item.end)
            entries.setdefault((item.path, item.start, item.end), entry)
    return next(iter(found.values())).class_names, list(entries.values())


def find_reader(
    path: StrPath, *, labelled: bool = True, but: Sequence[str] = ()
) -> tuple[DatasetReader, Path]:
    """The reader named by ``NAME:PATH``, or the first that recognises the path, and the path itself.

    Args:
        labelled: not a reader of unlabelled videos, unless it is named.
        but: names of readers that are not asked.

    Raises:
        UsageError: no reader has that name, or the path does not exist.
        DataError: no reader recognises the path.
    """
    _import_built_in()
    name, place = _split_name(path)
    if not place.exists():
        raise UsageError(f"data {str(place)!r}: no such file or folder")
    if name:
        return _from_file(name) if name.endswith(".py") else _READERS[name], place
    outside = [name for name in reversed(list(_READERS)) if name not in _BUILT_IN]
    for name in [*outside, *_BUILT_IN]:
        reader = _READERS[name]
        if name in but or (labelled and name == "unlabelled") or reader.recognises is None:
            continue
        if reader.recognises(place):
            return reader, place
    raise DataError(f"{place}: no data set recognised; known formats are {', '.join(_READERS)}")


def with_default_reader(path: StrPath, name: str) -> str:
    """``path`` with the name of a reader, unless it has one already."""
    return os.fspath(path) if _split_name(path)[0] else f"{name}:{os.fspath(path)}"


def _split_name(path: StrPath) -> tuple[str, Path]:
    """The name of a reader or a Python file, empty if there is none, and the path after it."""
    text = os.fspath(path)
    match = None if os.path.exists(text) else re.fullmatch(r"(.+?\.py|\w[\w-]+):(.+)", text)
    return (match[1], Path(match[2])) if match else ("", Path(text))


@cache
def _import_built_in() -> None:
    for module in _BUILT_IN.values():
        importlib.import_module(module)


def _from_file(file: str) -> DatasetReader:
    module = import_file(file)
    found = [reader for name in _READERS if (reader := _READERS[name]).read.__module__ == module.__name__]
    if len(found) != 1:
        raise UsageError(f"{file}: registers {len(found)} data set readers; name one of them with NAME:PATH")
    return found[0]


def _check_options(reader: DatasetReader, options: dict[str, Any]) -> None:
    unknown = [] if reader.options is None else sorted(set(options) - reader.options)
    if unknown:
        raise UsageError(f"{unknown[0]}: not an option of data sets in the format {reader.name!r}")


def read_listing(
    reader: DatasetReader,
    place: Path,
    split: Split,
    *,
    class_names: ClassNames | None = None,
    root: StrPath | None = None,
    group: str | None = None,
) -> Listing:
    """All splits of a data set by a reader that lists them; options as of `load_dataset`."""
    if root is not None and not Path(root).is_dir():
        raise UsageError(f"root {os.fspath(root)!r}: no such folder; paths of the list start from it")
    options = {} if group is None else {"group": group}
    _check_options(reader, options)
    found: Listing = reader.read(place, split, class_names=class_names, root=root, **options)
    return found


def _dataset(
    listing: Listing,
    place: Path,
    split: Split,
    class_names: ClassNames | None,
    val_fraction: float,
    allow_missing: bool,
) -> VideoDataset:
    entries = with_splits(listing.entries, place, split, val_fraction)
    if allow_missing:
        entries = without_missing(entries, place, split)
    names, entries = labelled(entries, listing, place, class_names)
    selected = select_split(entries, place, split)
    multi_label = any(entry.actions is not None for entry in selected)
    items = tuple(
        VideoItem(
            path=e.path,
            label=-1 if multi_label else int(e.label),
            num_frames=e.num_frames,
            fps=e.fps,
            actions=e.actions or (),
            duration=e.duration,
            start=e.start,
            end=e.end,
        )
        for e in selected
    )
    pairs = tuple((names.index(a), names.index(b)) for a, b in listing.pairs if a in names and b in names)
    return VideoDataset(items, names, split, str(place), pairs, multi_label)


def _load(
    reader: DatasetReader, place: Path, split: str, class_names: ClassNames | None, options: dict[str, Any]
) -> VideoDataset:
    """The data set of a reader that gives one, its labels in the order of ``class_names``."""
    renumber = reader.options is not None and "class_names" not in reader.options
    if class_names is not None and not renumber:
        options = {**options, "class_names": class_names}
    _check_options(reader, options)
    dataset = reader.read(place, split, **options)
    if not isinstance(dataset, VideoDataset):
        raise UsageError(
            f"data set reader {reader.name!r} gives {type(dataset).__name__}, not a VideoDataset"
        )
    if class_names is None or not renumber or dataset.keyframes:
        return dataset
    return _renumbered(dataset, read_class_names(class_names))


def _renumbered(dataset: VideoDataset, names: tuple[str, ...]) -> VideoDataset:
    if dataset.class_names == names:
        return dataset
    finder = LabelFinder(names)
    labels = [finder.find(name) for name in dataset.class_names]
    if None in labels:
        name = dataset.class_names[labels.index(None)]
        raise DataError(f"{dataset.root}: class {name!r} is not among the {len(names)} class names given")
    by_old = [label for label in labels if label is not None]
    items = tuple(
        replace(
            item,
            label=by_old[item.label] if item.label >= 0 else item.label,
            actions=tuple(replace(action, label=by_old[action.label]) for action in item.actions),
        )
        for item in dataset.items
    )
    pairs = tuple((by_old[a], by_old[b]) for a, b in dataset.pairs)
    return replace(dataset, items=items, class_names=names, pairs=pairs)


def _without_labels(dataset: VideoDataset) -> VideoDataset:
    items = tuple(replace(item, label=-1, actions=()) for item in dataset.items)
    return VideoDataset(items, (), dataset.split, dataset.root)
