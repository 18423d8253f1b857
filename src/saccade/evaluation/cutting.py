"""From the frames of a clip to its views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.clip import ClipSpec
from saccade.evaluation.scoring import ViewScorer
from saccade.transforms import test_transform
from saccade.video.views import CropGrid, short_side_size


def cut_views(
    frames: Tensor,
    clip: ClipSpec,
    crops: Iterable[int],
    *,
    short_side: int,
    grid: CropGrid = "pyslowfast",
    like: ViewScorer,
) -> Iterator[tuple[int, Tensor]]:
    """(crop, view) for each of ``crops``: views are normalised floats (3, T, crop, crop).

    Args:
        frames: uint8 (T, H, W, 3) on the device of the scorer ``like``, whose memory format the views get.
        crops: 0, 1, 2 for left, centre, right (top, middle, bottom in portrait).
        short_side: size in pixels that the frames are brought to before cutting.
        grid: where the crops lie, see `saccade.video.views.crop_box`.
    """
    wanted = list(crops)
    if min(frames.shape[1:3]) != short_side:
        frames = resize_short_side(frames, short_side)
    channels_last = like.memory_format == torch.channels_last_3d
    if wanted == [1]:
        yield 1, test_transform(frames, clip, 1, grid=grid, channels_last=channels_last)[0]
        return
    views = test_transform(frames, clip, 3, grid=grid, channels_last=channels_last)
    yield from ((crop, views[crop]) for crop in wanted)


def resize_short_side(frames: Tensor, size: int) -> Tensor:
    """uint8 (T, H, W, 3) -> the same with the short side ``size``, bilinear with antialiasing."""
    height, width = short_side_size(frames.shape[1], frames.shape[2], size)
    planes = frames.permute(0, 3, 1, 2).float()
    resized = F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
