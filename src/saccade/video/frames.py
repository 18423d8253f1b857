"""A folder of image files as a video: frame i is the i-th file in natural order (``img_9``, ``img_10``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    """A folder of JPEG or PNG frames of one size. See ``VideoReader``; open it with ``open_video``.

    Any template of names will do (``00001.jpg``, ``img_00001.jpg``); optical flow beside the frames
    (``flow_x_00001.jpg``) is left alone.
    """

    def __init__(
        self,
        path: str,
        *,
        short_side: int | None = None,
        fps: float = 30.0,
        num_frames: int | None = None,
        threads: int = 1,
    ) -> None:
        self.path = path
        self.fps = float(fps)
        self._threads = threads or (os.cpu_count() or 1)
        self._files = self._listed(num_frames)
        with self._opened(0) as image:  # the header alone
            self._file_size: tuple[int, int] = (image.height, image.width)
        self.size = resized(*self._file_size, short_side)
        self._closed = False

    def _listed(self, num_frames: int | None) -> list[str]:
        """The files of the frames in order, ``num_frames`` of them if that is given."""
        try:
            names = [entry.name for entry in os.scandir(self.path) if entry.is_file()]
        except OSError as error:
            raise VideoError(self.path, f"cannot be listed: {error.strerror}") from error
        images = [n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
        images = [n for n in images if not n.lower().startswith("flow_")] or images
        if not images:
            raise VideoError(self.path, f"holds no frames ({', '.join('*' + suffix for suffix in SUFFIXES)})")
        if num_frames is not None and len(images) < num_frames:
            raise VideoError(self.path, f"holds {len(images)} frames where its list says {num_frames}")
        return [os.path.join(self.path, name) for name in sorted(images, key=natural_key)[:num_frames]]

    def __len__(self) -> int:
        return len(self._files)

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """The frames ``indices``, in the order asked for: uint8 (N, H, W, 3) RGB."""
        if self._closed:
            raise VideoError(self.path, "is closed")
        wanted = check_indices(self.path, indices, len(self))
        rows: dict[int, int] = {}
        for row, frame in enumerate(wanted):
            rows.setdefault(frame, row)
        pixels = torch.empty((len(wanted), *self.size, 3), dtype=torch.uint8)
        array = pixels.numpy()

        def load(frame: int) -> None:
            array[rows[frame]] = self._load(frame)

        if self._threads == 1 or len(rows) < 2:
            for frame in rows:
                load(frame)
        else:  # Pillow decodes and resizes without holding the interpreter
            with ThreadPoolExecutor(min(self._threads, len(rows))) as pool:
                list(pool.map(load, rows))
        for row, frame in enumerate(wanted):
            if row != rows[frame]:
                array[row] = array[rows[frame]]
        return pixels

    def _load(self, frame: int) -> np.ndarray:
        with self._opened(frame) as image:
            found = (image.height, image.width)
            if found != self._file_size:
                raise VideoError(
                    self.path, f"{self._named(frame)} is {found}, the first frame {self._file_size}"
                )
            picture = image if image.mode == "RGB" else image.convert("RGB")
            if self.size != found:
                picture = picture.resize(self.size[::-1], Image.Resampling.BILINEAR)
            return np.asarray(picture)

    @contextmanager
    def _opened(self, frame: int) -> Iterator[Image.Image]:
        """The image of a frame; whatever is wrong with it becomes a VideoError."""
        try:
            with Image.open(self._files[frame]) as image:
                yield image
        except FileNotFoundError as error:
            raise VideoError(self.path, f"{self._named(frame)} is gone") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise VideoError(self.path, f"{self._named(frame)} is damaged: {error}") from error

    def _named(self, frame: int) -> str:
        return f"frame {frame} ({os.path.basename(self._files[frame])})"

    def close(self) -> None:
        """Nothing stays open between calls; further calls of ``frames`` are refused."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
