"""Flags that say which model to use and which clip it sees; shared by the commands that use a trained
model.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.clip import ClipSpec
    from saccade.inference import LoadedModel


def add_model_flags(parser: ArgumentParser) -> None:
    """Add the flags that `load_from_flags` reads."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="NAME", help="architecture of a checkpoint not written by Saccade")
    group.add_argument(
        "--num-classes", type=int, metavar="N", help="classes of that checkpoint (default 400)"
    )
    group.add_argument(
        "--labels", metavar="NAMES", help="class names: a file, one per line, or e.g. kinetics400"
    )
    group.add_argument(
        "--task",
        choices=("single-label", "multi-label", "localization"),
        help="what that checkpoint was trained for (default single-label)",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default %(default)s)")
    clip = parser.add_argument_group("clip (default: what the model was trained for)")
    clip.add_argument("--frames", type=int, metavar="N", help="frames of a clip")
    clip.add_argument("--stride", type=int, metavar="N", help="distance of two frames of a clip, at 30 fps")
    clip.add_argument("--crop", type=int, metavar="PIXELS", help="side of the square the model sees")
    clip.add_argument(
        "--short-side", type=int, metavar="PIXELS", help="frames are resized to this short side"
    )


def load_from_flags(source: str | None, weights: str | None, options: Namespace) -> LoadedModel:
    """The model that the flags describe.

    Args:
        source: run folder or weights, if the command takes them so.
        weights: a checkpoint given by its own flag.
    """
    from saccade.inference import load_for_inference

    if source is not None and options.model:
        source, weights = None, source
    if options.model:
        loaded = load_for_inference(
            options.model,
            weights=weights,
            num_classes=options.num_classes,
            labels=options.labels,
            device=options.device,
            task=options.task,
        )
    else:
        loaded = load_for_inference(
            source or weights or "",
            num_classes=options.num_classes,
            labels=options.labels,
            device=options.device,
            task=options.task,
        )
    return replace(loaded, clip=_changed_clip(loaded, options))


def _changed_clip(loaded: LoadedModel, options: Namespace) -> ClipSpec:
    changes = {
        "num_frames": options.frames,
        "stride": options.stride,
        "crop": options.crop,
        "short_side": options.short_side,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if value < 1:
            raise UsageError(
                f"--{name.replace('num_', '').replace('_', '-')} must be at least 1, got {value}"
            )
    if "crop" in given and "short_side" not in given:  # the same share of the frame as before
        scale = loaded.clip.short_side / loaded.clip.crop
        given["short_side"] = round(given["crop"] * scale)
    return loaded.clip.replace(**given)
