"""Batch shapes."""

from __future__ import annotations

from saccade.data.sampler import BatchShape
from saccade.training.config import TrainConfig


def base_shape(config: TrainConfig) -> BatchShape:
    """The shape of a batch without multigrid."""
    return BatchShape(
        batch_size=config.batch_size,
        num_frames=config.clip.num_frames,
        stride=(config.clip.stride, config.clip.stride),
        short_side=config.train_short_side,
        crop=config.train_crop,
    )


def smaller_shape(
    config: TrainConfig,
    *,
    batch_size: int,
    num_frames: int,
    crop: int,
    stride_step: int = 1,
    scale_largest: bool = False,
) -> BatchShape:
    """A batch of shorter or smaller clips than the base shape.

    The stride of a clip is drawn from the range between the stride of the config and the largest one for
    which the clip is not longer than that of the config. The minimum short side scales with the crop. The
    maximum is unchanged, as in PySlowFast (datasets/kinetics.py), or scales as well with ``scale_largest``,
    as in X3D-Multigrid, whose crops are fractions of the frame.
    """
    base = base_shape(config)
    stride, smallest = base.stride[0], max(crop, round(base.short_side[0] * crop / base.crop))
    largest = round(base.short_side[1] * crop / base.crop) if scale_largest else base.short_side[1]
    return BatchShape(
        batch_size=batch_size,
        num_frames=num_frames,
        stride=(stride, stride * max(1, base.num_frames // num_frames)),
        short_side=(smallest, max(smallest, largest)),
        crop=crop,
        stride_step=stride_step,
    )


def rounded(size: float, multiple: int) -> int:
    """The nearest multiple, at least one."""
    return max(1, round(size / multiple)) * multiple


def floored(size: float, multiple: int) -> int:
    """The largest multiple not above ``size``, at least one."""
    return max(1, int(size // multiple)) * multiple
