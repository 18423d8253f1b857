from __future__ import annotations

import gc
import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_loader import assert_same, load_batches, sampler

from saccade.data import cache as cache_module
from saccade.data.cache import FrameCache
from saccade.data.loader import TrainLoader
from saccade.data.types import ClipBatch, VideoDataset
from saccade.video.resize import resize_short_side, resize_to


def video(seed: int, num_frames: int = 3) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 4, 6, 3), dtype=torch.uint8, generator=random)


def keep(cache: FrameCache, index: int, frames: torch.Tensor, fps: float = 25.0) -> bool:
    offset = cache.reserve(index, frames.numel())
    if offset is None:
        return False
    cache.put(index, offset, frames, fps)
    return True


def test_frames_come_back_as_they_were_put() -> None:
    cache = FrameCache(3, budget=1000, short_side=4)
    assert cache.get(1) is None
    assert keep(cache, 1, video(1), 30000 / 1001)
    assert keep(cache, 0, video(0, 2))
    for index, frames, fps in ((1, video(1), 30000 / 1001), (0, video(0, 2), 25.0)):
        kept = cache.get(index)
        assert kept is not None
        assert np.array_equal(kept[0], frames.numpy())
        assert kept[1] == fps
        assert not kept[0].flags.writeable
    assert cache.used == 5 * 72


def test_what_does_not_fit_is_not_kept() -> None:
    cache = FrameCache(3, budget=300, short_side=4)
    assert keep(cache, 0, video(0))
    assert not keep(cache, 1, video(1))
    assert keep(cache, 2, video(2, 1))
    assert cache.get(1) is None
    assert cache.used == 288


def test_a_refused_video_is_not_tried_again() -> None:
    cache = FrameCache(2, budget=1000, short_side=4)
    assert cache.reserve(0, 10) is not None
    cache.refuse(0)
    assert cache.reserve(0, 10) is None
    assert cache.get(0) is None


def test_a_video_is_reserved_once() -> None:
    """Two workers that read the same video at the same time take the room of one."""
    cache = FrameCache(2, budget=1000, short_side=4)
    offset = cache.reserve(0, 216)
    assert offset is not None
    assert cache.reserve(0, 216) is None
    assert cache.get(0) is None  # it is still being written
    cache.put(0, offset, video(0), 25.0)
    assert cache.reserve(0, 216) is None
    assert cache.get(0) is not None
    assert cache.used == 216


def test_memory_running_out_ends_the_filling(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    cache = FrameCache(2, budget=1000, short_side=4)
    monkeypatch.setattr(os, "pwrite", full)
    assert keep(cache, 0, video(0))
    assert cache.get(0) is None
    assert not keep(cache, 1, video(1))


def _fill(cache: FrameCache, indices: list[int]) -> None:
    for index in indices:
        keep(cache, index, video(index, 1 + index % 3))


def test_processes_fill_it_together() -> None:
    cache = FrameCache(60, budget=60 * 3 * 72, short_side=4)
    context = get_context("forkserver")
    fillers = [context.Process(target=_fill, args=(cache, list(range(start, 60, 2)))) for start in (0, 1)]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()
        assert filler.exitcode == 0
    for index in range(60):
        kept = cache.get(index)
        assert kept is not None
        assert np.array_equal(kept[0], video(index, 1 + index % 3).numpy())


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file by name, at no time; and the descriptor is closed with the cache."""
    monkeypatch.setattr(cache_module, "_SHARED_MEMORY", tmp_path)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    cache = FrameCache(2, budget=1000, short_side=4)
    keep(cache, 0, video(0))
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) > before
    del cache
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_killed_process_leaves_nothing_behind(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal; from saccade.data import cache;"
        f"cache._SHARED_MEMORY = pathlib.Path({str(tmp_path)!r});"
        "kept = cache.FrameCache(1, budget=1000, short_side=4); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert list(tmp_path.iterdir()) == []


# --- with the loader ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uncached_miss(small_videos: VideoDataset) -> list[ClipBatch]:
    """Two epochs with a cache too small for any video: every clip is a miss."""
    dataset, short_side = small_videos, 40
    with TrainLoader(dataset, cache_mb=1, cache_short_side=short_side) as loader:
        assert loader.cache is not None
        loader.cache.budget = 0
        batches = [b for epoch in (0, 1) for b in loader.batches(sampler().requests(epoch))]
        assert loader.cache.used == 0
    return batches


@pytest.mark.parametrize("workers", [0, 2])
def test_hit_or_miss_the_clips_are_the_same(
    small_videos: VideoDataset, uncached_miss: list[ClipBatch], workers: int
) -> None:
    with TrainLoader(small_videos, workers=workers, cache_mb=64, cache_short_side=40) as loader:
        assert loader.cache is not None
        batches = [b for epoch in (0, 1) for b in loader.batches(sampler().requests(epoch))]
        assert loader.cache.used > 12 * 10 * 40 * 40 * 3
        hits = [loader.cache.get(index) for index in range(12)]
        assert all(hit is not None for hit in hits)
    assert_same(batches, uncached_miss)


def test_a_cached_clip_has_the_size_drawn(small_videos: VideoDataset, uncached_miss: list[ClipBatch]) -> None:
    plain = load_batches(small_videos, sampler().requests(0))
    for cached, direct in zip(uncached_miss, plain, strict=False):
        for a, b in zip(cached.clips, direct.clips, strict=True):
            assert min(a.shape[1:3]) == min(b.shape[1:3])
            # Resized twice, so not equal; but it is the same clip.
            height, width = (min(x, y) for x, y in zip(a.shape[1:3], b.shape[1:3], strict=True))
            difference = a[:, :height, :width].float() - b[:, :height, :width].float()
            assert difference.abs().mean() < 6


def test_resize_short_side_keeps_the_aspect() -> None:
    frames = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    assert resize_short_side(frames, 48) is frames
    assert resize_short_side(frames, 36).shape == (2, 36, 48, 3)
    assert resize_short_side(frames.transpose(1, 2), 30).shape == (2, 40, 30, 3)
    flat = torch.full((1, 48, 64, 3), 77, dtype=torch.uint8)
    assert (resize_short_side(flat, 20) == 77).all()


def test_bytes_are_resized_as_pillow_does_and_floats_exactly() -> None:
    noise = torch.randint(
        0, 256, (1, 48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    image = Image.fromarray(noise[0].numpy()).resize((48, 36), Image.Resampling.BILINEAR)
    pillow = torch.from_numpy(np.array(image))[None]
    difference = (resize_short_side(noise, 36).int() - pillow.int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.02
    exact = F.interpolate(noise.permute(0, 3, 1, 2).double(), (36, 48), mode="bilinear", antialias=True)
    assert (resize_to(noise, 36, 48) - exact.permute(0, 2, 3, 1)).abs().max() < 0.501
