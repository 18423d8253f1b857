"""A folder of image files as a video: frame i is the i-th file in natural order (``img_9``, ``img_10``)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import torch
from PIL import Image

from saccade.errors import VideoError
from saccade.video.sizes import check_indices, resized

SUFFIXES = (".jpg", ".jpeg", ".png")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts numbers inside names by their value."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


class FrameFolderReader:
    """A folder of JPEG or PNG frames of one size. See ``VideoReader``; open it with ``open_video``."""

    def __init__(self, path: str, *, short_side: int | None = None, fps: float = 30.0) -> None:
        self.path = path
        self.fps = float(fps)
        try:
            names = [entry.name for entry in os.scandir(path) if entry.is_file()]
        except OSError as error:
            raise VideoError(path, f"cannot be listed: {error.strerror}") from error
        images = [n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
        if not images:
            raise VideoError(path, f"holds no frames ({', '.join('*' + suffix for suffix in SUFFIXES)})")
        self._files = [os.path.join(path, name) for name in sorted(images, key=natural_key)]
        first = self._load(0, None)
        self._file_size: tuple[int, int] = (first.shape[0], first.shape[1])
        self.size = resized(*self._file_size, short_side)
        self._closed = False

    def __len__(self) -> int:
        return len(self._files)

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """The frames ``indices``, in the order asked for: uint8 (N, H, W, 3) RGB."""
        if self._closed:
            raise VideoError(self.path, "is closed")
        wanted = check_indices(self.path, indices, len(self))
        rows: dict[int, int] = {}
        pixels = torch.empty((len(wanted), *self.size, 3), dtype=torch.uint8)
        array = pixels.numpy()
        for row, frame in enumerate(wanted):
            first = rows.setdefault(frame, row)
            array[row] = array[first] if first != row else self._load(frame, self.size)
        return pixels

    def _load(self, frame: int, size: tuple[int, int] | None) -> np.ndarray:
        name = self._files[frame]
        problem = f"frame {frame} ({os.path.basename(name)})"
        try:
            with Image.open(name) as image:
                found = (image.height, image.width)
                if size is not None and found != self._file_size:
                    raise VideoError(self.path, f"{problem} is {found}, the first frame {self._file_size}")
                picture = image.convert("RGB")
        except FileNotFoundError as error:
            raise VideoError(self.path, f"{problem} is gone") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise VideoError(self.path, f"{problem} is damaged: {error}") from error
        if size is not None and size != found:
            picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(picture)

    def close(self) -> None:
        """Nothing stays open between calls; further calls of ``frames`` are refused."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
