"""A cache of decoded frames for small data sets, shared by all worker processes.

One file without a name (in shared memory if it fits) is mapped by every process. It begins with the number of
bytes used and one record per video; frames follow in the order of arrival until the budget is used up. As the
file has no name, its memory is returned when the last process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

# state: 0 unknown, 1 ready, 2 reserved and being written, -1 never cached.
_RECORD = np.dtype(
    [
        *((name, "i8") for name in ("state", "offset", "frames", "height", "width", "timed")),
        ("fps", "f8"),
    ]
)
_SHARED_MEMORY = Path("/dev/shm")


class FrameCache:
    """Frames of ``num_videos`` videos at one short side, within ``budget`` bytes.

    Passed to a new process as part of its arguments, it is shared with that process.

    Args:
        num_videos: videos of the data set; a video is identified by its index.
        budget: largest number of bytes of frames.
        short_side: the size that all clips of a cached run are decoded at, hit or miss.
    """

    def __init__(self, num_videos: int, *, budget: int, short_side: int) -> None:
        self.num_videos = num_videos
        self.budget = budget
        self.short_side = short_side
        with tempfile.TemporaryFile(dir=_folder_for(budget), prefix="saccade-") as file:
            os.ftruncate(file.fileno(), self._start + budget)
            self._map(os.dup(file.fileno()))

    @property
    def _start(self) -> int:
        """Where frames begin: after the number of bytes used and the records."""
        return 8 + self.num_videos * _RECORD.itemsize

    def _map(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        self._memory = mmap.mmap(descriptor, self._start + self.budget)
        self._used = np.frombuffer(self._memory, np.int64, 1)
        self._records = np.frombuffer(self._memory, _RECORD, self.num_videos, offset=8)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in ("num_videos", "budget", "short_side")}
        return {**state, "descriptor": reduction.DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.num_videos, self.budget = state["num_videos"], state["budget"]
        self.short_side = state["short_side"]
        self._map(state["descriptor"].detach())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude other processes. The lock of a process that dies is released."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 8)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 8)

    @property
    def used(self) -> int:
        """Bytes reserved so far."""
        with self._locked():
            return int(self._used[0])

    def get(self, index: int) -> tuple[np.ndarray, float, np.ndarray | None] | None:
        """All frames of a video (read-only uint8 (N, H, W, 3), not copied), its frame rate, and the times of
        its frames (N,) if it has been given any; None for a miss.
        """
        with self._locked():
            record = self._records[index].copy()
        if record["state"] != 1:
            return None
        shape = (int(record["frames"]), int(record["height"]), int(record["width"]), 3)
        start = self._start + int(record["offset"])
        frames = np.frombuffer(self._memory, np.uint8, int(np.prod(shape)), offset=start).reshape(shape)
        frames.flags.writeable = False
        times = None
        if record["timed"]:
            times = np.frombuffer(self._memory, np.float64, shape[0], offset=start + frames.nbytes).copy()
        return frames, float(record["fps"]), times

    def reserve(self, index: int, num_bytes: int) -> int | None:
        """An offset for the frames of a video, and their times, to be filled with `put`; None if the budget
        is used up, or the video is reserved, cached or refused already.
        """
        with self._locked():
            begin = int(self._used[0])
            if self._records["state"][index] != 0 or begin + num_bytes > self.budget:
                return None
            self._used[0] = begin + num_bytes
            self._records["state"][index] = 2  # other workers read this video without caching it too
            return begin

    def put(
        self, index: int, offset: int, frames: Tensor, fps: float, times: np.ndarray | None = None
    ) -> None:
        """Store the frames of a video, and their times float64 (N,), at its reserved offset. A full disk or
        memory ends the caching.
        """
        try:
            self._write(frames.contiguous().numpy(), self._start + offset)
            if times is not None:
                self._write(times, self._start + offset + frames.numel())
        except OSError:
            with self._locked():
                self._used[0] = self.budget
            return
        count, height, width, _ = frames.shape
        with self._locked():
            self._records[index] = (1, offset, count, height, width, times is not None, fps)

    def refuse(self, index: int) -> None:
        """Never cache this video: it does not decode to its end."""
        with self._locked():
            self._records["state"][index] = -1

    def _write(self, frames: np.ndarray, position: int) -> None:
        # Not through the map: without memory a write call fails, but a write to a map kills the process.
        rest = memoryview(np.ascontiguousarray(frames).data).cast("B")
        while rest:
            written = os.pwrite(self._descriptor, rest, position)
            rest, position = rest[written:], position + written


def _folder_for(budget: int) -> str | None:
    """Shared memory if the budget fits, else the folder for temporary files."""
    if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > budget:
        return str(_SHARED_MEMORY)
    return None
