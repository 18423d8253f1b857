"""The timetable of a run, with or without multigrid and unlabelled clips."""

from __future__ import annotations

from torch import nn

from saccade.data.sampler import TrainSampler, UnlabelledSampler
from saccade.training.config import TrainConfig
from saccade.training.multigrid import MultigridTimetable, make_plan
from saccade.training.network import clip_multiple, has_batch_norm
from saccade.training.schedule import PlainTimetable


def make_timetable(
    config: TrainConfig,
    num_clips: int,
    *,
    num_unlabelled: int = 0,
    rank: int = 0,
    world_size: int = 1,
    model: nn.Module | None = None,
) -> PlainTimetable | MultigridTimetable:
    """The steps of a run on ``num_clips`` training clips, and the sampler of their batches.

    Args:
        num_unlabelled: number of videos without labels, of which each batch has clips too.
        model: the network to train instead of the one that ``config.model`` names.

    Raises:
        ConfigError: there are fewer clips than a batch has.
    """
    timetable: PlainTimetable | MultigridTimetable
    if config.multigrid != "off":
        plan = make_plan(
            config,
            num_clips,
            num_devices=world_size,
            multiple=clip_multiple(config, model),
            batch_norm=has_batch_norm(config, model),
        )
        timetable = MultigridTimetable(plan, rank=rank, world_size=world_size)
    else:
        sampler = TrainSampler(
            num_clips,
            batch_size=config.batch_size,
            seed=config.seed,
            num_frames=config.clip.num_frames,
            stride=config.clip.stride,
            short_side=config.train_short_side,
            crop=config.train_crop,
            rank=rank,
            world_size=world_size,
            repeats=config.augment.repeats,
        )
        timetable = PlainTimetable(config, sampler)
    if num_unlabelled:
        timetable.sampler = UnlabelledSampler(
            timetable.sampler,
            num_unlabelled,
            ratio=config.distill.unlabelled_ratio,
            num_clips=timetable.num_clips,
        )
    return timetable
