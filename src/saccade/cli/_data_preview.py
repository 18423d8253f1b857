"""``saccade data preview``: a training batch as the network sees it, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saccade.cli._outputs import check_file
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.training.config import TrainConfig

USAGE = """usage: saccade data preview RECIPE --data PATH [--out SHEET.png] [--step N] [--field value ...]

Draws a batch as the network sees it while it trains: cut, flipped, augmented, mixed, with its labels. The
fields are those of `saccade train RECIPE`, and the batch is the very one that step N of that run trains on.

  --data PATH   the clips, as train takes them
  --out FILE    the picture (default preview.png)
  --step N      which step's batch (default 0, the first)

saccade train RECIPE --help shows every field of a recipe with its value.
"""
_MOST = 32  # clips drawn
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def preview(args: list[str]) -> int:
    """The command; returns its exit code."""
    if not args or args[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if args else 2
    from saccade.cli.train import parse_fields
    from saccade.console import console
    from saccade.recipes import get_recipe

    if args[0].startswith("-"):
        raise UsageError(f"the recipe comes first: saccade data preview RECIPE {args[0]} ...")
    rest, out = _taken("--out", args[1:], "preview.png")
    rest, number = _taken("--step", rest, "0")
    if not number.isdecimal():
        raise UsageError(f"--step: {number!r} is not the number of a step")
    if Path(out).suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--out: {out!r} is no picture; its name must end in {', '.join(_SUFFIXES)}")
    picture = check_file(out)
    config = parse_fields(get_recipe(args[0]), rest, prog=f"saccade data preview {args[0]}")
    if config is None:
        return 0
    draw_preview(config, int(number), picture)
    console().print(f"{out}: the batch of step {number}", markup=False)
    return 0


def draw_preview(config: TrainConfig, step: int, out: Path) -> None:
    """Draw the batch of one step of a run into a file."""
    from saccade.files import atomic_path
    from saccade.training.preview import preview_batch
    from saccade.visualize.sheet import clip_sheet

    seen = preview_batch(config, step)
    num_clips, num_frames, side = seen.frames.shape[:3]
    told = f"{num_clips} clips" if num_clips <= _MOST else f"the first {_MOST} of {num_clips} clips"
    sheet = clip_sheet(
        seen.frames[:_MOST].numpy(),
        seen.captions,
        seen.sources,
        title=f"{config.recipe}, step {step}: {told}, {num_frames} frames of {side} pixels",
        boxes=None if seen.boxes is None else [own.numpy() for own in seen.boxes],
    )
    with atomic_path(out) as temporary:
        sheet.save(temporary)


def _taken(flag: str, args: list[str], default: str) -> tuple[list[str], str]:
    """``args`` without a flag, and its value."""
    for place, arg in enumerate(args):
        if arg.startswith(f"{flag}="):
            return args[:place] + args[place + 1 :], arg.split("=", 1)[1]
        if arg == flag:
            if place + 1 == len(args):
                raise UsageError(f"{flag} needs a value")
            return args[:place] + args[place + 2 :], args[place + 1]
    return args, default
