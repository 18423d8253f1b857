"""The flags that several commands share, each defined once, and what they stand for."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from argparse import ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from saccade.cli.fields import OVERRIDES, take_overrides
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.clip import ClipSpec
    from saccade.data.types import VideoDataset
    from saccade.inference import LoadedModel

logger = logging.getLogger(__name__)

PICTURES = (".png", ".svg", ".pdf")
"""Suffixes of the formats that a chart can be written in."""


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` whose errors are `UsageError`s, whose flags may not be abbreviated, and whose
    switches also take a value: ``--json``, ``--json true``, ``--json=false``.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` with the message and where to look."""
        raise UsageError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; sets the number of ``--threads``."""
        options = super().parse_args(args, namespace)
        set_threads(getattr(options, "threads", None))
        return options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, with the values of switches and the overrides of the model read first."""
        words, overrides = list(args or ()), None
        check_dashes(words)
        if OVERRIDES in self._option_string_actions:
            words, overrides = take_overrides(words)
        switches = {
            flag: action.const
            for action in self._actions
            for flag in action.option_strings
            if isinstance(action, argparse._StoreTrueAction)
        }
        rest: list[str] = []
        while words:
            word = words.pop(0)
            flag, equals, value = word.partition("=")
            if flag not in switches:
                rest.append(word)
                continue
            if not equals and words and words[0].lower() in ("true", "false"):
                value = words.pop(0)
            if value.lower() not in ("", "true", "false"):
                self.error(f"{flag}: {value!r} is neither true nor false")
            if value.lower() != "false":
                rest.append(flag)
        namespace, rest = super().parse_known_args(rest, namespace)
        if overrides is not None:
            namespace.overrides = overrides
        return namespace, rest


def check_dashes(words: Sequence[str]) -> None:
    """Raise `UsageError` for a file whose name begins with a dash: it would be taken for a flag."""
    for word in words[: words.index("--") if "--" in words else None]:
        if len(word) > 1 and word.startswith("-") and os.path.lexists(word):
            raise UsageError(f"{word}: a file whose name begins with a dash is given as ./{word}")


def set_threads(threads: int | None) -> None:
    """Let PyTorch compute with so many CPU threads; None and 0 leave its choice."""
    if threads:
        import torch

        torch.set_num_threads(threads)


# -------------------------------------------------------------------------------------- kinds of value


def positive(text: str) -> int:
    """A whole number of at least 1, as the ``type`` of a flag."""
    return _number(text, int, 1)


def not_negative(text: str) -> int:
    """A whole number of at least 0."""
    return _number(text, int, 0)


def score(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, float, 0, 1)


def seconds(text: str) -> float:
    """A number of at least 0."""
    return _number(text, float, 0)


def _number(text: str, kind: Any, least: float, most: float = float("inf")) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number") from None
    if not least <= value <= most:
        limits = f"at least {least}" if most == float("inf") else f"between {least} and {most}"
        raise ArgumentTypeError(f"must be {limits}, got {text}")
    return value


# ----------------------------------------------------------------------------------------------- flags


def add_source(parser: argparse.ArgumentParser) -> None:
    """The model, as the first argument."""
    parser.add_argument(
        "source",
        metavar="RUN_OR_WEIGHTS",
        help="run folder, weights file (.safetensors), or a checkpoint of another code base (with --model)",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """The model, as flags of a command whose arguments are videos."""
    parser.add_argument("--run", metavar="RUN", help="run folder of saccade train")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights file (.safetensors), or a checkpoint of another code base (with --model)",
    )


def add_videos(parser: argparse.ArgumentParser) -> None:
    """The videos; `find_videos` resolves them."""
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="video file, folder (searched recursively), quoted glob or URL",
    )


def add_data(parser: argparse.ArgumentParser, *, default: str = "val") -> None:
    """A data set and its split."""
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="data set: a folder of class folders, a list file, Something-Something, Charades or AVA "
        "(default: the one of the run)",
    )
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="folder that relative paths of a list start from (default: the one of the run, else the list's)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help=f"split to use (default {default})",
    )


def add_decoding(parser: argparse.ArgumentParser, *, batch: str = "views") -> None:
    """How videos are read and batched."""
    parser.add_argument(
        "--workers", type=not_negative, default=2, metavar="N", help="decoding workers (default %(default)s)"
    )
    add_backend(parser)
    if batch:
        parser.add_argument(
            "--batch-size",
            type=positive,
            metavar="N",
            help=f"{batch} per forward pass (default: chosen by memory)",
        )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """What decodes videos."""
    parser.add_argument(
        "--backend",
        choices=("auto", "pyav", "torchcodec"),
        default="auto",
        help="video decoder (default %(default)s: PyAV)",
    )


def add_frames_fps(parser: argparse.ArgumentParser) -> None:
    """The rate of folders of images."""
    parser.add_argument(
        "--fps", type=float, metavar="FPS", help="frame rate of folders of images (default 30)"
    )


def add_device(parser: Any, default: str = "auto") -> None:
    """Where the model runs."""
    parser.add_argument(
        "--device", default=default, help="auto, cpu, cuda, cuda:1, ... (default %(default)s)"
    )


def add_threads(parser: Any) -> None:
    """CPU threads of PyTorch, which `Parser.parse_args` sets."""
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads (default: chosen by PyTorch)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Results for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_overrides(parser: Any) -> None:
    """Options of the architecture, which `Parser` reads into the dictionary ``overrides``."""
    parser.add_argument(
        OVERRIDES,
        dest="overrides",
        nargs="+",
        metavar="NAME VALUE",
        help="options of the architecture, e.g. gamma_w 0.5 localization true, or a JSON object",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """The flags that `load_from_flags` reads besides the source."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="NAME", help="architecture of a checkpoint of another code base")
    add_overrides(group)
    group.add_argument(
        "--num-classes", type=positive, metavar="N", help="number of classes of that checkpoint (default 400)"
    )
    group.add_argument(
        "--labels",
        metavar="NAMES",
        help="class names: a file with one per line, or a list such as kinetics400 (saccade data labels)",
    )
    group.add_argument(
        "--task",
        choices=("single-label", "multi-label", "localization"),
        help="task that checkpoint was trained for (default single-label)",
    )
    add_device(group)
    add_threads(group)
    clip = parser.add_argument_group("clip (default: as the model was trained)")
    clip.add_argument("--frames", type=positive, metavar="N", help="frames of a clip")
    clip.add_argument(
        "--stride", type=positive, metavar="N", help="distance between frames of a clip, in frames at 30 fps"
    )
    clip.add_argument("--crop", type=positive, metavar="PIXELS", help="side of the square crop")
    clip.add_argument(
        "--short-side", type=positive, metavar="PIXELS", help="short side that frames are resized to"
    )


def load_from_flags(source: str | None, weights: str | None, options: Namespace) -> LoadedModel:
    """The model that the flags describe.

    Args:
        source: run folder or weights, if the command takes them as an argument.
        weights: a checkpoint given by ``--weights``.
    """
    from saccade.inference import load_for_inference

    if source is not None and options.model:
        source, weights = None, source
    loaded = load_for_inference(
        options.model or source or weights or "",
        weights=weights if options.model else None,
        num_classes=options.num_classes,
        labels=options.labels,
        device=options.device,
        task=options.task,
        overrides=options.overrides,
    )
    return replace(loaded, clip=_changed_clip(loaded.clip, options))


def _changed_clip(clip: ClipSpec, options: Namespace) -> ClipSpec:
    changes = {
        "num_frames": options.frames,
        "stride": options.stride,
        "crop": options.crop,
        "short_side": options.short_side,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if "crop" in given and "short_side" not in given:  # the same fraction of the frame as before
        given["short_side"] = round(given["crop"] * clip.short_side / clip.crop)
    return clip.replace(**given)


# -------------------------------------------------------------------------------------------- data sets


def run_settings(source: str) -> dict[str, Any]:
    """The settings of the run in a folder; empty for weights without a run.

    Raises:
        UsageError: the run's config.json is damaged.
    """
    from saccade.runs import Run

    run = Run(source)
    return run.settings if run.config_file.is_file() else {}


def dataset_from_flags(
    options: Namespace, *, class_names: Sequence[str] | None = None, allow_missing: bool = False
) -> VideoDataset:
    """The data set that ``--data``, ``--root`` and ``--split`` name; default: that of the run."""
    from saccade.data import load_dataset

    settings = run_settings(options.source)
    data = options.data or settings.get("data")
    if not data:
        raise UsageError("--data is needed: class folders, a list file, Something-Something, Charades or AVA")
    return load_dataset(
        data,
        options.split or "val",
        class_names=class_names,
        root=options.root or (settings.get("root") if not options.data else None) or None,
        val_fraction=settings.get("val_fraction", 0.2),
        allow_missing=allow_missing,
    )


# ---------------------------------------------------------------------------------------------- videos


def find_videos(patterns: Sequence[str]) -> list[str]:
    """The videos that files, folders, globs and URLs name, each once.

    A folder is searched to the bottom for video files and folders of frames. A file that does not exist stays
    in the list: it is reported when its turn comes.

    Raises:
        UsageError: a glob or folder without videos, or a folder that cannot be listed.
    """
    from glob import glob, has_magic

    from saccade.video.source import is_url

    found: dict[str, str] = {}
    for pattern in patterns:
        if not pattern:
            raise UsageError("VIDEO: the path is empty")
        path = Path(pattern)
        if is_url(pattern):
            found.setdefault(pattern, pattern)
            continue
        if has_magic(pattern) and not os.path.lexists(path):
            videos = _videos_among(pattern, sorted(glob(pattern, recursive=True)))
        elif path.is_dir():
            videos = _videos_in(pattern)
        else:
            videos = [pattern]
        for video in videos:
            found.setdefault(os.path.abspath(video), video)
    return list(found.values())


def _videos_among(pattern: str, matches: Sequence[str]) -> list[str]:
    from saccade.video.folders import is_frame_folder, is_video_name

    videos = [
        match
        for match in matches
        if (is_frame_folder(match) if os.path.isdir(match) else is_video_name(os.path.basename(match)))
    ]
    if not videos:
        raise UsageError(f"{pattern}: no video matches{_left_out(matches)}")
    return videos


def _videos_in(folder: str) -> list[str]:
    from saccade.video.folders import find_videos as search

    try:
        videos, others = search(folder)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be listed: {error.strerror}") from error
    if not videos:
        raise UsageError(f"{folder}: no videos in this folder{_left_out(others)}")
    if others:
        logger.info(f"{folder}: {len(videos)} video{'s' * (len(videos) > 1)}{_left_out(others)}")
    return videos


def _left_out(others: Sequence[str]) -> str:
    """``; 3 other files are left out: a.txt ...``, or nothing."""
    if not others:
        return ""
    names = ", ".join(os.path.basename(name) for name in others[:3])
    files = "other file is" if len(others) == 1 else "other files are"
    return f"; {len(others)} {files} left out: {names}{' ...' if len(others) > 3 else ''}"


# --------------------------------------------------------------------------------------------- outputs


def check_folder(path: str | os.PathLike[str], flag: str = "--out") -> Path:
    """The folder that files will be written to. Called before anything takes time; it creates nothing.

    Raises:
        UsageError: it is a file, cannot be created, or is not writable.
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
    """The file that will be written. Called before anything takes time; it creates nothing.

    Args:
        what: what it is called in errors.
        suffixes: the endings that its name may have; none: any.

    Raises:
        UsageError: its name has another ending, or it cannot be written.
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
    """Why no file can be written into a folder that may not exist yet; empty if one can."""
    try:
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        if not existing.is_dir():
            return f"{existing} is a file, not a folder"
        with tempfile.TemporaryFile(dir=existing):
            return ""
    except OSError as error:
        return f"not writable ({error.strerror})"


def output_names(paths: Sequence[str]) -> dict[str, str]:
    """A unique file name without ending for each video.

    It is the stem of a file and the whole name of a folder. Where several are the same, the name of the
    parent folder is put before it, then the ending after it, then a number.
    """
    names = {path: _stem(path) for path in paths}
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


def _stem(path: str) -> str:
    return Path(path).name if Path(path).is_dir() else Path(path).stem


def _with_folder(path: str) -> str:
    return f"{Path(path).resolve().parent.name}_{_stem(path)}"


def _with_ending(path: str) -> str:
    return f"{_with_folder(path)}{Path(path).suffix.replace('.', '_')}"
