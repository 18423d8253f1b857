"""Test transform, from decoded frames to the views of a video."""

from __future__ import annotations

import torch
from torch import Tensor

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.sampling.views import CropGrid, crop_box
from saccade.transforms.normalize import affine, batch_layout


def test_transform(  # not a test, whatever its name
    frames: Tensor,
    clip: ClipSpec,
    crops: int = 1,  # noqa: PT028
    *,
    grid: CropGrid = "pyslowfast",  # noqa: PT028
    channels_last: bool = False,  # noqa: PT028
) -> Tensor:
    """Crop and normalise the views of one video.

    Args:
        frames: uint8 (N, H, W, 3) with N a multiple of ``clip.num_frames``, clip by clip; or (num_clips,
            num_frames, H, W, 3). Already resized.
        clip: gives the number of frames, the crop, mean and std.
        crops: 1 (centre) or 3 (left, centre, right; top, middle, bottom in portrait).
        grid: offsets of the crops, see `saccade.sampling.views.crop_box`.
        channels_last: return the memory format channels-last-3d.

    Returns:
        float32 (num_clips * crops, 3, num_frames, crop, crop) on the device of ``frames``; view ``v`` is clip
        ``v // crops``, crop ``v % crops``.

    Raises:
        UsageError: the frames are smaller than the crop, or do not divide into clips.
    """
    if crops not in (1, 3):
        raise UsageError(f"crops must be 1 or 3 (is {crops})")
    height, width = frames.shape[-3:-1]
    flat = frames.reshape(-1, height, width, 3)
    if len(flat) == 0 or len(flat) % clip.num_frames:
        raise UsageError(f"{len(flat)} frames do not divide into clips of {clip.num_frames}")
    clips = flat.view(-1, clip.num_frames, height, width, 3)
    cut = []
    for which in (1,) if crops == 1 else (0, 1, 2):
        top, left = crop_box(height, width, clip.crop, which, grid)
        cut.append(clips[:, :, top : top + clip.crop, left : left + clip.crop])
    pixels = torch.stack(cut, dim=1).flatten(0, 1)
    mean, std = (torch.tensor(value, dtype=torch.float64) for value in (clip.mean, clip.std))
    return affine(
        pixels, batch_layout(1.0 / (255.0 * std)), batch_layout(-mean / std), channels_last=channels_last
    )


test_transform.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test
