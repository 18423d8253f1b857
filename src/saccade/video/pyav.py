"""Reading a video file with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import av
import numpy as np
import torch

from saccade.errors import VideoError


class PyAVReader:
    def __init__(self, path: str, *, short_side: int | None, threads: int) -> None:
        self.path = path
        try:
            with av.open(path) as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = threads
                self.fps = float(stream.average_rate or 30)
                frames = []
                for frame in container.decode(stream):
                    height, width = frame.height, frame.width
                    if short_side:
                        short, long = sorted((height, width))
                        long = long * short_side // short
                        height, width = (short_side, long) if height <= width else (long, short_side)
                    array = frame.to_ndarray(format="rgb24", width=width, height=height)
                    frames.append(np.rot90(array, round(frame.rotation / 90)))
        except (av.FFmpegError, OSError, IndexError) as error:
            raise VideoError(path, str(error)) from error
        self._frames = torch.from_numpy(np.stack(frames))
        self.size: tuple[int, int] = tuple(self._frames.shape[1:3])  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        return self._frames[torch.as_tensor(np.asarray(indices))]

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
