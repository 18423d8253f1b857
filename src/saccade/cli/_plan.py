"""``saccade train RECIPE --dry-run``: what a run would do, without doing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saccade.cli._outputs import PICTURES, check_file
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.training.config import TrainConfig


def show_plan(config: TrainConfig, *, num_clips: int | None, num_devices: int, picture: str) -> int:
    """Print the plan of a run as a table and draw it; no video is opened.

    Args:
        num_clips: training clips; None counts those of the data set.
        picture: where to draw; empty for <run folder>_plan.png.
    """
    path, flag = picture or f"{config.run_dir}_plan.png", "--picture" if picture else "--out"
    if picture or config.multigrid != "off":
        check_file(path, flag, what="picture", suffixes=PICTURES)
    from saccade.training.multigrid import MultigridTimetable
    from saccade.training.run import draw_plan, make_timetable
    from saccade.training.validate import validate

    validate(config, world_size=num_devices)
    count = _num_clips(config) if num_clips is None else num_clips
    timetable = make_timetable(config, count, world_size=num_devices)
    if not isinstance(timetable, MultigridTimetable):
        shape = timetable.shape(0)
        print(
            f"{timetable.total_steps} steps of {shape.batch_size} clips x {shape.num_frames} frames x "
            f"{shape.crop} pixels, {timetable.epochs:g} epochs of {timetable.clips_per_epoch} clips; "
            "all batches are alike (--multigrid off)"
        )
        return 0
    from saccade.training.multigrid.show import plan_text

    print(plan_text(timetable))
    draw_plan(timetable, Path(path))
    print(f"picture: {path}")
    return 0


def _num_clips(config: TrainConfig) -> int:
    if not config.data:
        raise UsageError(
            "--dry-run needs to know how many clips there are: give --num-clips N or --data PATH"
        )
    from saccade.training.run import load_data

    return len(load_data(config.replace(val_every=0))[0])
