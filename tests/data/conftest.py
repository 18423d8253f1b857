"""Small real video files for the loader's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.something_files import make_tsm, make_v1, make_v2
from saccade.data.types import VideoDataset, VideoItem
from saccade.video import write_video


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    """Twelve videos of different size and length: red tells the video, green the frame, blue the column."""
    folder = tmp_path_factory.mktemp("small videos")
    items = []
    for i in range(12):
        height, width = (48, 64) if i % 3 else (66, 50)
        frames = torch.empty(10 + 2 * i, height, width, 3, dtype=torch.uint8)
        frames[..., 0] = 20 * i
        frames[..., 1] = (8 * torch.arange(len(frames)))[:, None, None]
        frames[..., 2] = torch.arange(width)
        path = folder / f"video {i:02d}.mp4"
        write_video(path, frames, fps=30, crf=10, options={"preset": "ultrafast"})
        items.append(VideoItem(str(path), i % 4))
    return VideoDataset(tuple(items), ("a", "b", "c", "d"), "train", str(folder))


@pytest.fixture
def broken_file(tmp_path: Path) -> str:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"this is no video")
    return str(path)


@pytest.fixture(scope="session")
def ssv1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something-Something v1 in miniature."""
    return make_v1(tmp_path_factory.mktemp("ssv1"))


@pytest.fixture(scope="session")
def ssv2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something-Something v2 in miniature."""
    return make_v2(tmp_path_factory.mktemp("ssv2"))


@pytest.fixture(scope="session")
def tsm_lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips as TSM users have them: lists/ and frames/."""
    return make_tsm(tmp_path_factory.mktemp("tsm"), "img_{:05d}.jpg")
