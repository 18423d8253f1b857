"""A folder of image files as a video: frame i is the i-th file in natural order (``img_9``, ``img_10``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from saccade.errors import DataError, VideoError
from saccade.video.folders import IMAGE_SUFFIXES, find_videos, is_frame_folder, is_image_name, is_video_name
from saccade.video.images import shown_size, upright_rgb
from saccade.video.reader import VideoReader
from saccade.video.sizes import check_indices, resized


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts numbers inside names by their value."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


class NumberedFiles(Sequence[str]):
    """The paths of consecutively numbered files, made on access: ``a/a_000001.jpg``, ...

    A list of the millions of paths of a data set would fill the memory of every worker.
    """

    def __init__(
        self, folder: str, prefix: str, suffix: str, *, first: int, digits: int, num_files: int
    ) -> None:
        self.folder, self.prefix, self.suffix = folder, prefix, suffix
        self.first, self.digits, self.num_files = first, digits, num_files

    @classmethod
    def of_paths(cls, paths: Sequence[str], *, where: str) -> NumberedFiles:
        """Raises DataError, naming ``where``, unless the paths are numbered one by one in one folder."""
        folder, name = os.path.split(paths[0])
        match = re.fullmatch(r"(.*?)(\d+)(\.\w+)", name)
        if match is None:
            raise DataError(f"{where}: {name} has no number to give its position")
        prefix, number, suffix = match.groups()
        files = cls(folder, prefix, suffix, first=int(number), digits=len(number), num_files=len(paths))
        wrong = next(((own, path) for own, path in zip(files, paths, strict=True) if own != path), None)
        if wrong is not None:
            raise DataError(f"{where}: {wrong[1]} found where {wrong[0]} should follow")
        return files

    @classmethod
    def of_folder(cls, folder: str | os.PathLike[str]) -> NumberedFiles:
        """The images in a folder. Raises DataError if there are none, or one is missing in between."""
        names = [name for name in os.listdir(folder) if is_image_name(name)]
        if not names:
            raise DataError(f"{os.fspath(folder)}: holds no frames")
        paths = [os.path.join(folder, name) for name in sorted(names, key=natural_key)]
        return cls.of_paths(paths, where=os.fspath(folder))

    def __len__(self) -> int:
        return self.num_files

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.num_files))]
        if not -self.num_files <= index < self.num_files:
            raise IndexError(index)
        number = self.first + index % self.num_files
        return os.path.join(self.folder, f"{self.prefix}{number:0{self.digits}d}{self.suffix}")


class FrameFolderReader(VideoReader):
    """A folder of JPEG or PNG frames of one size. See `VideoReader`; open it with `open_video`.

    File names may follow any template (``00001.jpg``, ``img_00001.jpg``); optical flow beside the frames
    (``flow_x_00001.jpg``) is ignored.
    """

    def __init__(
        self,
        path: str,
        *,
        short_side: int | None = None,
        fps: float = 30.0,
        num_frames: int | None = None,
        threads: int = 1,
        files: Sequence[str] | None = None,
    ) -> None:
        """``files``: the paths of the frames where they are known; the folder is then not listed."""
        self.path = path
        self.fps = float(fps)
        self._threads = threads or (os.cpu_count() or 1)
        self._files = self._listed(num_frames) if files is None else files
        with self._image(0) as image:  # the header alone
            self._file_size: tuple[int, int] = shown_size(image)
        self.size = resized(*self._file_size, short_side)
        self._closed = False

    def _listed(self, num_frames: int | None) -> list[str]:
        """The files of the frames in order, ``num_frames`` of them if that is given."""
        try:
            with os.scandir(self.path) as scan:
                entries = list(scan)
            names = [entry.name for entry in entries if entry.is_file()]
            mixed = any(map(is_video_name, names)) or any(entry.is_dir() for entry in entries)
            videos = find_videos(self.path)[0] if mixed and not is_frame_folder(self.path) else []
        except OSError as error:
            raise VideoError(self.path, f"cannot be listed: {error.strerror}") from error
        if videos:
            others = f" and {len(videos) - 1} more" if len(videos) > 1 else ""
            first = os.path.relpath(videos[0], self.path)
            raise VideoError(self.path, f"is a folder of videos ({first}{others}); give one of them")
        images = [name for name in names if is_image_name(name)]
        images = [name for name in images if not name.lower().startswith("flow_")] or images
        if not images:
            endings = ", ".join(f"*{suffix}" for suffix in sorted(IMAGE_SUFFIXES))
            raise VideoError(self.path, f"holds no frames ({endings})")
        if num_frames is not None and len(images) < num_frames:
            raise VideoError(self.path, f"holds {len(images)} frames, {num_frames} are listed")
        return [os.path.join(self.path, name) for name in sorted(images, key=natural_key)[:num_frames]]

    @property
    def times(self) -> NDArray[np.float64]:
        """``index / fps``, float64 (len,): a folder states no times."""
        return np.arange(len(self)) / self.fps

    def __len__(self) -> int:
        return len(self._files)

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """The frames ``indices``, in the order asked for: uint8 (N, H, W, 3) RGB."""
        pixels, undecodable = self.try_frames(indices)
        if undecodable:
            raise VideoError(self.path, undecodable[min(undecodable)])
        return pixels

    def try_frames(self, indices: Sequence[int]) -> tuple[torch.Tensor, dict[int, str]]:
        """See `VideoReader.try_frames`."""
        if self._closed:
            raise VideoError(self.path, "is closed")
        wanted = check_indices(self.path, indices, len(self))
        rows: dict[int, int] = {}
        for row, frame in enumerate(wanted):
            rows.setdefault(frame, row)
        pixels = torch.empty((len(wanted), *self.size, 3), dtype=torch.uint8)
        array = pixels.numpy()
        undecodable: dict[int, str] = {}

        def load(frame: int) -> None:
            try:
                array[rows[frame]] = self._load(frame)
            except VideoError as error:
                array[rows[frame]] = 0
                undecodable[frame] = error.cause

        if self._threads == 1 or len(rows) < 2:
            for frame in rows:
                load(frame)
        else:  # Pillow decodes and resizes without holding the interpreter
            with ThreadPoolExecutor(min(self._threads, len(rows))) as pool:
                list(pool.map(load, rows))
        for row, frame in enumerate(wanted):
            if row != rows[frame]:
                array[row] = array[rows[frame]]
        return pixels, undecodable

    def _load(self, frame: int) -> np.ndarray:
        with self._image(frame) as image:
            found = shown_size(image)
            if found != self._file_size:
                raise VideoError(
                    self.path, f"{self._label(frame)} is {found}, the first frame {self._file_size}"
                )
            picture = upright_rgb(image)
            if self.size != found:
                picture = picture.resize(self.size[::-1], Image.Resampling.BILINEAR)
            return np.asarray(picture)

    @contextmanager
    def _image(self, frame: int) -> Iterator[Image.Image]:
        """The image of a frame; whatever is wrong with it becomes a VideoError."""
        try:
            with Image.open(self._files[frame]) as image:
                yield image
        except FileNotFoundError as error:
            raise VideoError(self.path, f"{self._label(frame)} is missing") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise VideoError(self.path, f"{self._label(frame)} is damaged: {error}") from error

    def _label(self, frame: int) -> str:
        return f"frame {frame} ({os.path.basename(self._files[frame])})"

    def close(self) -> None:
        """Refuse further calls of ``frames``; no file stays open between calls."""
        self._closed = True
