"""Flags that several commands share, and the functions that read them."""

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
"""File formats of charts."""


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises `UsageError`, does not accept abbreviated flags, and accepts
    values for switches: ``--json``, ``--json true``, ``--json=false``.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Like argparse's; also sets the number of threads of PyTorch."""
        options = super().parse_args(args, namespace)
        set_threads(getattr(options, "threads", None))
        return options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Like argparse's, after parsing the values of switches and the overrides of the model."""
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
                self.error(f"{flag}: must be true or false, got {value!r}")
            if value.lower() != "false":
                rest.append(flag)
        namespace, rest = super().parse_known_args(rest, namespace)
        if overrides is not None:
            namespace.overrides = overrides
        return namespace, rest


def check_dashes(words: Sequence[str]) -> None:
    """Raise `UsageError` for a file whose name starts with a dash, which would be parsed as a flag."""
    for word in words[: words.index("--") if "--" in words else None]:
        if len(word) > 1 and word.startswith("-") and os.path.lexists(word):
            raise UsageError(
                f"{word}: to use this file, write ./{word}; names with a dash are parsed as flags"
            )


def set_threads(threads: int | None) -> None:
    """Set the number of CPU threads of PyTorch; None and 0 keep its default."""
    if threads:
        import torch

        torch.set_num_threads(threads)


# --------------------------------------------------------------------------------------- types of flags


def positive(text: str) -> int:
    """An integer >= 1, as the ``type`` of a flag."""
    return _number(text, int, 1)


def not_negative(text: str) -> int:
    """An integer >= 0."""
    return _number(text, int, 0)


def score(text: str) -> float:
    """A number in 0..1."""
    return _number(text, float, 0, 1)


def seconds(text: str) -> float:
    """A number >= 0."""
    return _number(text, float, 0)


def _number(text: str, kind: Any, minimum: float, maximum: float = float("inf")) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not {'an integer' if kind is int else 'a number'}") from None
    if not minimum <= value <= maximum:
        limits = f"at least {minimum}" if maximum == float("inf") else f"between {minimum} and {maximum}"
        raise ArgumentTypeError(f"must be {limits}, got {text}")
    return value


# ----------------------------------------------------------------------------------------------- flags


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the model as the first argument."""
    parser.add_argument(
        "source",
        metavar="RUN_OR_WEIGHTS",
        help="run folder, weights file (.safetensors), or a checkpoint of another code base (with --model)",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the model as flags, for commands whose arguments are videos."""
    parser.add_argument("--run", metavar="RUN", help="run folder of saccade train")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights file (.safetensors), or a checkpoint of another code base (with --model)",
    )


def add_videos(parser: argparse.ArgumentParser) -> None:
    """Add the videos, see `find_videos`."""
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="video file, folder (searched recursively), quoted glob or URL",
    )


def add_data(parser: argparse.ArgumentParser, *, default: str = "val") -> None:
    """Add the data set and its split."""
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="data set: a folder of class folders, a list file, Something-Something, Charades or AVA "
        "(default: the one of the run)",
    )
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="folder of the relative paths in a list (default: the one of the run, or the list's folder)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help=f"split to use (default {default})",
    )


def add_decoding(parser: argparse.ArgumentParser, *, batch: str = "views") -> None:
    """Add flags for reading and batching videos."""
    parser.add_argument(
        "--workers", type=not_negative, default=2, metavar="N", help="decoding workers (default %(default)s)"
    )
    add_backend(parser)
    if batch:
        parser.add_argument(
            "--batch-size",
            type=positive,
            metavar="N",
            help=f"{batch} per forward pass (default: depends on the memory)",
        )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add the video decoder."""
    parser.add_argument(
        "--backend",
        choices=("auto", "pyav", "torchcodec"),
        default="auto",
        help="video decoder (default %(default)s: PyAV)",
    )


def add_frames_fps(parser: argparse.ArgumentParser) -> None:
    """Add the frame rate of folders of images."""
    parser.add_argument(
        "--fps", type=float, metavar="FPS", help="frame rate of folders of images (default 30)"
    )


def add_device(parser: Any, default: str = "auto") -> None:
    """Add the device."""
    parser.add_argument(
        "--device", default=default, help="auto, cpu, cuda, cuda:1, ... (default %(default)s)"
    )


def add_threads(parser: Any) -> None:
    """Add the number of CPU threads, which `Parser.parse_args` sets."""
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: PyTorch's)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_overrides(parser: Any) -> None:
    """Add options of the architecture, which `Parser` parses into the dictionary ``overrides``."""
    parser.add_argument(
        OVERRIDES,
        dest="overrides",
        nargs="+",
        metavar="NAME VALUE",
        help="options of the architecture, e.g. gamma_w 0.5, or JSON; --causal is short for causal=true",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `load_from_flags` reads."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="NAME", help="architecture of a checkpoint of another code base")
    add_overrides(group)
    group.add_argument(
        "--num-classes", type=positive, metavar="N", help="number of classes of the checkpoint (default 400)"
    )
    group.add_argument(
        "--labels",
        metavar="NAMES",
        help="class names: a file with one per line, or a list such as kinetics400 (saccade data labels)",
    )
    group.add_argument(
        "--task",
        choices=("single-label", "multi-label", "localization"),
        help="task of the checkpoint (default single-label)",
    )
    add_device(group)
    add_threads(group)
    clip = parser.add_argument_group("clip (default: as in training)")
    clip.add_argument("--frames", type=positive, metavar="N", help="frames per clip")
    clip.add_argument(
        "--stride", type=positive, metavar="N", help="distance between frames of a clip, in frames at 30 fps"
    )
    clip.add_argument("--crop", type=positive, metavar="PIXELS", help="side of the square crop")
    clip.add_argument(
        "--short-side", type=positive, metavar="PIXELS", help="short side that frames are resized to"
    )


def load_from_flags(source: str | None, weights: str | None, options: Namespace) -> LoadedModel:
    """Load the model.

    Args:
        source: run folder or weights, if these are an argument of the command.
        weights: checkpoint of ``--weights``.
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
    """The settings of a run folder; empty for weights without a run.

    Raises:
        UsageError: the run's config.json is damaged.
    """
    from saccade.runs import Run

    run = Run(source)
    return run.settings if run.config_file.is_file() else {}


def dataset_from_flags(
    options: Namespace, *, class_names: Sequence[str] | None = None, allow_missing: bool = False
) -> VideoDataset:
    """Load the data set of ``--data``, ``--root`` and ``--split``; default: that of the run."""
    from saccade.data import load_dataset
    from saccade.runs import data_of_run, held_out_by

    settings = run_settings(options.source)
    data, root, split = data_of_run({} if options.data else settings, options.split)
    if not (data := options.data or data):
        raise UsageError("give --data: class folders, a list file, Something-Something, Charades or AVA")
    return load_dataset(
        data,
        split,
        class_names=class_names,
        root=options.root or root,
        **held_out_by(settings, data),
        allow_missing=allow_missing,
    )


# ---------------------------------------------------------------------------------------------- videos


def find_videos(patterns: Sequence[str]) -> list[str]:
    """The videos of files, folders, globs and URLs (of those too), without duplicates.

    Folders are searched recursively for video files and folders of frames. Files that do not exist stay in
    the list; reading them fails later.

    Raises:
        UsageError: a glob or folder without videos, or a folder that cannot be listed.
    """
    from glob import glob, has_magic

    from saccade.video.source import is_url, videos_at

    found: dict[str, str] = {}
    for pattern in patterns:
        if not pattern:
            raise UsageError("VIDEO: the path is empty")
        path = Path(pattern)
        if is_url(pattern):
            found.update((url, url) for url in videos_at(pattern))
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
        raise UsageError(f"{pattern}: no video matches{_skipped(matches)}")
    return videos


def _videos_in(folder: str) -> list[str]:
    from saccade.video.folders import find_videos as search

    try:
        videos, others = search(folder)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be listed: {error.strerror}") from error
    if not videos:
        raise UsageError(f"{folder}: contains no videos{_skipped(others)}")
    if others:
        logger.info(f"{folder}: {len(videos)} video{'s' * (len(videos) > 1)}{_skipped(others)}")
    return videos


def _skipped(others: Sequence[str]) -> str:
    """``; skipping 3 other files: a.txt, b.txt, c.txt``, or nothing."""
    if not others:
        return ""
    names = ", ".join(os.path.basename(name) for name in others[:3])
    files = f"{len(others)} other file{'s' * (len(others) > 1)}"
    return f"; skipping {files}: {names}{' ...' if len(others) > 3 else ''}"


# --------------------------------------------------------------------------------------------- outputs


def check_folder(path: str | os.PathLike[str], flag: str = "--out") -> Path:
    """Check early, without creating it, that files can be written into a folder.

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
    """Check early, without creating it, that a file can be written.

    Args:
        what: name of the file in errors.
        suffixes: allowed suffixes; empty: any.

    Raises:
        UsageError: another suffix, or the file cannot be written.
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
    """The reason why files cannot be written into a folder, which may not exist yet; empty if they can."""
    try:
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        if not existing.is_dir():
            return f"{existing} is a file, not a folder"
        with tempfile.TemporaryFile(dir=existing):
            return ""
    except OSError as error:
        return f"not writable ({error.strerror})"


def output_names(paths: Sequence[str]) -> dict[str, str]:
    """A unique file name without suffix for each video: the stem of a file, or the name of a folder.

    Duplicates are made unique by prepending the parent folder, then by appending the suffix, then a number.
    """
    names = {path: _stem(path) for path in paths}
    for longer in (_with_folder, _with_suffix):
        count = Counter(names.values())
        names = {path: longer(path) if count[name] > 1 else name for path, name in names.items()}
    used: set[str] = set()
    for path, name in names.items():
        unique, number = name, 2
        while unique in used:
            unique, number = f"{name}-{number}", number + 1
        used.add(unique)
        names[path] = unique
    return names


def _stem(path: str) -> str:
    return Path(path).name if Path(path).is_dir() else Path(path).stem


def _with_folder(path: str) -> str:
    return f"{Path(path).resolve().parent.name}_{_stem(path)}"


def _with_suffix(path: str) -> str:
    return f"{_with_folder(path)}{Path(path).suffix.replace('.', '_')}"
