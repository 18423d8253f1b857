"""Multigrid training: a plan of the batch shape, learning rate and batch norm of every step.

Wu et al., "A Multigrid Method for Efficiently Training Video Models", CVPR 2020, arXiv 1912.00998, with the
rules of PySlowFast (utils/multigrid.py, datasets/multigrid_helper.py), and the schedule of X3D-Multigrid
(github.com/kkahatapitiya/X3D-Multigrid). The plan depends only on the config, the number of clips and the
number of devices; docs/multigrid.md explains the rules and their differences from PySlowFast.

Terms: a *long cycle* is a sequence of *phases* of several epochs, each with a different shape; the *short
cycle* changes crop and batch size at every step of a phase. The *base shape* is that of the config, with
batch size B0, T0 frames and crop S0.
"""

from __future__ import annotations

from dataclasses import replace

from saccade.errors import ConfigError
from saccade.training.config import TrainConfig
from saccade.training.multigrid.plan import Phase, Plan
from saccade.training.multigrid.pyslowfast import long_plan, short_plan
from saccade.training.multigrid.shapes import base_shape
from saccade.training.multigrid.timetable import MultigridTimetable
from saccade.training.multigrid.x3d_multigrid import x3d_multigrid_plan
from saccade.training.network import has_batch_norm
from saccade.training.norms import NormChoice

__all__ = ["MultigridTimetable", "NormChoice", "Phase", "Plan", "base_shape", "make_plan"]


def make_plan(
    config: TrainConfig,
    num_clips: int,
    *,
    num_devices: int = 1,
    multiple: tuple[int, int] = (1, 1),
    batch_norm: bool | None = None,
) -> Plan:
    """The plan of ``config``, whose ``multigrid`` is not "off".

    Args:
        num_clips: number of training clips.
        num_devices: number of processes.
        multiple: (frames, pixels) that the size of a clip must be a multiple of.
        batch_norm: whether the model has batch norm; default: check the model of the config.

    Raises:
        ConfigError: the data set is too small for the largest batch or for the schedule.
    """
    if config.multigrid == "x3d-multigrid":
        plan = x3d_multigrid_plan(config, num_clips, num_devices, multiple)
    elif config.multigrid == "short":
        plan = short_plan(config, num_clips, num_devices, multiple)
    else:
        plan = long_plan(config, num_clips, num_devices, multiple)
    if not (has_batch_norm(config) if batch_norm is None else batch_norm):
        phases = tuple(replace(phase, norm=NormChoice("none")) for phase in plan.phases)
        plan = replace(plan, phases=phases)
    largest = max((s for phase in plan.phases for s in phase.cycle.shapes), key=lambda s: s.batch_size)
    if largest.batch_size > num_clips:
        most = num_clips * config.batch_size // largest.batch_size
        raise ConfigError(
            f"batch_size: multigrid {config.multigrid} increases it from {config.batch_size} to "
            f"{largest.batch_size} clips of {largest.num_frames} frames x {largest.crop} pixels, more than "
            f"the {num_clips} training clips; use at most {most}"
        )
    if not plan.total_steps:
        raise ConfigError(
            f"epochs: {config.epochs:g} epochs of {num_clips} clips are less than one step of multigrid"
        )
    return plan
