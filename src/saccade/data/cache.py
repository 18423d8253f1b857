"""Decoded frames of small data sets, kept in memory for all decoding processes.

One file without a name (in shared memory if there is room) is mapped by every process. It begins with a fill
mark and one record per video; frames follow, first come, first kept, until the budget is used up. As the file
has no name, its memory is returned when the last process ends, however it ends.
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
import torch
from torch import Tensor

# Fields of a record. STATE: 0 unknown, 1 ready, -1 not to be kept.
_RECORD = np.dtype(
    [("state", "i8"), ("offset", "i8"), ("frames", "i8"), ("height", "i8"), ("width", "i8"), ("fps", "f8")]
)
_SHARED_MEMORY = Path("/dev/shm")


class FrameCache:
    """Frames of ``num_videos`` videos at one short side, within ``budget`` bytes.

    May be sent to a process that is being started (as part of its arguments), and is then shared with it.

    Args:
        num_videos: videos of the data set; a video is known by its index.
        budget: bytes of frames to keep at most.
        short_side: the size that all clips of a cached run are decoded at, kept or not.
    """

    def __init__(self, num_videos: int, *, budget: int, short_side: int) -> None:
        self.num_videos = num_videos
        self.budget = budget
        self.short_side = short_side
        with tempfile.TemporaryFile(dir=_place(budget), prefix="saccade-") as file:
            os.ftruncate(file.fileno(), self._start + budget)
            self._map(os.dup(file.fileno()))

    @property
    def _start(self) -> int:
        """Where frames begin: after the fill mark and the records."""
        return 8 + self.num_videos * _RECORD.itemsize

    def _map(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        self._memory = mmap.mmap(descriptor, self._start + self.budget)
        self._filled = np.frombuffer(self._memory, np.int64, 1)
        self._records = np.frombuffer(self._memory, _RECORD, self.num_videos, offset=8)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("num_videos", "budget", "short_side")}
        return {**kept, "descriptor": reduction.DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.num_videos, self.budget = state["num_videos"], state["budget"]
        self.short_side = state["short_side"]
        self._map(state["descriptor"].detach())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Other processes wait. A process that dies gives its lock back."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 8)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 8)

    @property
    def used(self) -> int:
        """Bytes of frames kept so far."""
        with self._locked():
            return int(self._filled[0])

    def get(self, index: int) -> tuple[np.ndarray, float] | None:
        """All frames of a video (read-only uint8 (N, H, W, 3), not copied) and its frame rate, if kept."""
        with self._locked():
            record = self._records[index].copy()
        if record["state"] != 1:
            return None
        shape = (int(record["frames"]), int(record["height"]), int(record["width"]), 3)
        start = self._start + int(record["offset"])
        frames = np.frombuffer(self._memory, np.uint8, int(np.prod(shape)), offset=start).reshape(shape)
        frames.flags.writeable = False
        return frames, float(record["fps"])

    def reserve(self, index: int, num_bytes: int) -> int | None:
        """Room for a video, to be filled with `put`; None if there is none left or it is not to be kept."""
        with self._locked():
            begin = int(self._filled[0])
            if self._records["state"][index] != 0 or begin + num_bytes > self.budget:
                return None
            self._filled[0] = begin + num_bytes
            return begin

    def put(self, index: int, offset: int, frames: Tensor, fps: float) -> None:
        """Keep the frames of a video in the room reserved for it. A full disk or memory ends the filling."""
        try:
            self._write(frames.contiguous().numpy(), self._start + offset)
        except OSError:
            with self._locked():
                self._filled[0] = self.budget
            return
        count, height, width, _ = frames.shape
        with self._locked():
            self._records[index] = (1, offset, count, height, width, fps)

    def refuse(self, index: int) -> None:
        """Never try to keep this video: it does not decode to its end."""
        with self._locked():
            self._records["state"][index] = -1

    def _write(self, frames: np.ndarray, position: int) -> None:
        # By a call, not through the map: where memory runs out a call fails and a map kills the process.
        rest = memoryview(np.ascontiguousarray(frames).data).cast("B")
        while rest:
            written = os.pwrite(self._descriptor, rest, position)
            rest, position = rest[written:], position + written


def pick(frames: np.ndarray, indices: np.ndarray) -> Tensor:
    """A copy of some kept frames, as a tensor (T, H, W, 3)."""
    return torch.from_numpy(frames[indices])


def _place(budget: int) -> str | None:
    """Shared memory if it has room for the budget, else the folder for temporary files."""
    if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > budget:
        return str(_SHARED_MEMORY)
    return None
