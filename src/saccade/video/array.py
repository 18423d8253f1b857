"""Decoded frames in memory as a video: an array, or a list of frames."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saccade.errors import UsageError, VideoError
from saccade.video.images import upright_rgb
from saccade.video.reader import VideoReader
from saccade.video.resize import resize_short_side
from saccade.video.sizes import check_indices, resized


class ArrayReader(VideoReader):
    """Frames in memory. See `VideoReader`; open it with `open_video`."""

    def __init__(
        self, source: Any, *, name: str, fps: float | None = None, short_side: int | None = None
    ) -> None:
        if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], Real):
            source, fps = source[0], float(source[1])
            if not fps > 0:
                raise UsageError(f"{name}: the frame rate must be positive, got {fps:g}")
        self.path = name
        self.fps = float(fps or 30.0)
        self._frames = as_frames(source, name)
        self._short_side = short_side
        self.size = resized(self._frames.shape[1], self._frames.shape[2], short_side)
        self._closed = False

    @property
    def times(self) -> NDArray[np.float64]:
        """``index / fps``, float64 (len,)."""
        return np.arange(len(self)) / self.fps

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, indices: Sequence[int]) -> Tensor:
        """The frames ``indices``, in the order asked for: uint8 (N, H, W, 3) RGB, on the CPU."""
        if self._closed:
            raise VideoError(self.path, "is closed")
        wanted = check_indices(self.path, indices, len(self))
        found = self._frames[torch.tensor(wanted, dtype=torch.int64, device=self._frames.device)].cpu()
        return found if self._short_side is None else resize_short_side(found, self._short_side)

    def close(self) -> None:
        """Refuse further calls of ``frames``."""
        self._closed = True


def as_frames(source: Any, name: str) -> Tensor:
    """An array or a list of frames as uint8 (T, H, W, 3).

    ``source`` may be (T, 3, H, W) where that cannot be (T, H, W, 3). A list holds frames (H, W, 3) or PIL
    images, all of one size.

    Raises:
        UsageError: another shape or type.
        VideoError: no frames.
    """
    if isinstance(source, list | tuple):
        if not source:
            raise VideoError(name, "holds no frames")
        frames = [_tensor(_pixels(frame), f"{name}: frame {t}") for t, frame in enumerate(source)]
        for t, frame in enumerate(frames):
            if frame.ndim != 3 or frame.shape[2] != 3:
                raise UsageError(f"{name}: frame {t} has shape {tuple(frame.shape)}; give (H, W, 3)")
            if frame.shape != frames[0].shape:
                raise UsageError(
                    f"{name}: frame {t} has shape {tuple(frame.shape)}, the first {tuple(frames[0].shape)}"
                )
        return torch.stack(frames)
    video = _tensor(source, name)
    if video.ndim == 4 and video.shape[3] != 3 and video.shape[1] == 3:
        video = video.permute(0, 2, 3, 1)
    if video.ndim != 4 or video.shape[3] != 3 or video.shape[1] == 3:
        raise UsageError(f"{name}: has shape {tuple(video.shape)}; give frames of shape (T, H, W, 3), RGB")
    if not video.numel():
        raise VideoError(name, f"holds no frames: shape {tuple(video.shape)}")
    return video


def _pixels(frame: Any) -> Any:
    return np.asarray(upright_rgb(frame)) if isinstance(frame, Image.Image) else frame


def _tensor(array: Any, name: str) -> Tensor:
    if not isinstance(array, np.ndarray | Tensor):
        raise UsageError(f"{name}: is of type {type(array).__name__}; give arrays or PIL images")
    if str(array.dtype).removeprefix("torch.") != "uint8":
        hint = ", values from 0 to 255" if "float" in str(array.dtype) else ""
        raise UsageError(f"{name}: has dtype {str(array.dtype).removeprefix('torch.')}; give uint8{hint}")
    if isinstance(array, Tensor):
        return array.detach()
    # torch takes no negative strides (BGR turned round) and warns of arrays that are read-only
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
