from __future__ import annotations

import collections
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.data.clips import ClipSettings, TrainClips
from saccade.data.loader import TrainLoader
from saccade.data.sampler import TrainSampler
from saccade.data.types import ClipBatch, ClipRequest, VideoDataset, VideoItem
from saccade.errors import ConfigError, DataError
from saccade.video import open_video


def sampler(**changes: Any) -> TrainSampler:
    settings: dict[str, Any] = {
        "num_items": 12,
        "batch_size": 4,
        "seed": 7,
        "num_frames": 4,
        "stride": (1, 3),
        "short_side": (32, 40),
        "crop": 24,
    }
    return TrainSampler(**(settings | changes))


def load_batches(
    dataset: VideoDataset, requests: Iterable[list[ClipRequest]], **options: Any
) -> Iterator[ClipBatch]:
    """The batches of one list of requests, by a loader of their own."""
    with TrainLoader(dataset, **options) as loader:
        yield from loader.batches(requests)


def assert_same(ours: list[ClipBatch], others: list[ClipBatch]) -> None:
    assert len(ours) == len(others) > 0
    for a, b in zip(ours, others, strict=True):
        assert (a.seeds, a.indices, a.crop, a.failures) == (b.seeds, b.indices, b.crop, b.failures)
        assert torch.equal(a.labels, b.labels)
        assert all(torch.equal(x, y) for x, y in zip(a.clips, b.clips, strict=True))


def with_broken(dataset: VideoDataset, path: str, *indices: int) -> VideoDataset:
    items = list(dataset.items)
    for index in indices:
        items[index] = VideoItem(path, items[index].label)
    return replace(dataset, items=tuple(items))


@pytest.fixture(scope="module")
def alone(small_videos: VideoDataset) -> list[ClipBatch]:
    """Two epochs, decoded in this process."""
    with TrainLoader(small_videos) as loader:
        return [b for epoch in (0, 1) for b in loader.batches(sampler().requests(epoch))]


def test_clips_are_the_frames_asked_for(small_videos: VideoDataset, alone: list[ClipBatch]) -> None:
    strides, sides = set(), set()
    for batch in alone:
        assert batch.crop == 24
        assert batch.labels.tolist() == [small_videos.items[i].label for i in batch.indices]
        for index, clip in zip(batch.indices, batch.clips, strict=True):
            assert clip.shape[0] == 4
            assert clip.dtype == torch.uint8
            assert 32 <= min(clip.shape[1:3]) <= 40
            sides.add(min(clip.shape[1:3]))
            assert clip[..., 0].float().mean() == pytest.approx(20 * index, abs=6)
            frames = clip[..., 1].float().mean(dim=(1, 2)) / 8  # the numbers of the frames
            steps = frames.diff()
            assert steps.max() - steps.min() < 0.8
            strides.add(round(steps.mean().item()))
    assert strides == {1, 2, 3}
    assert len(sides) > 4


def test_workers_change_nothing(small_videos: VideoDataset, alone: list[ClipBatch]) -> None:
    with TrainLoader(small_videos, workers=2, cache_mb=0) as loader:
        first = list(loader.batches(sampler().requests(0)))
        left_early = loader.batches(sampler().requests(3))
        next(left_early)
        del left_early
        second = list(loader.batches(sampler().requests(1)))
        assert loader.wait_seconds > 0
    assert_same(first + second, alone)
    assert_same(list(load_batches(small_videos, sampler().requests(0), workers=1)), first)


def test_processes_together_make_the_batches_of_one(
    small_videos: VideoDataset, alone: list[ClipBatch]
) -> None:
    parts = [
        list(load_batches(small_videos, sampler(rank=rank, world_size=2).requests(0))) for rank in (0, 1)
    ]
    joined = [
        ClipBatch(
            [*a.clips, *b.clips],
            torch.cat([a.labels, b.labels]),
            a.seeds + b.seeds,
            a.indices + b.indices,
            a.crop,
        )
        for a, b in zip(*parts, strict=True)
    ]
    assert_same(joined, alone[:3])


def test_the_loader_leaves_the_random_state_alone(small_videos: VideoDataset) -> None:
    before = torch.random.get_rng_state()
    list(load_batches(small_videos, sampler().requests(0)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_waiting_is_measured(small_videos: VideoDataset) -> None:
    with TrainLoader(small_videos) as loader:
        assert loader.wait_seconds == 0
        list(loader.batches(sampler().requests(0)))
        assert 0 < loader.wait_seconds < 30


# --- files that cannot be read -----------------------------------------------------------------------------


def test_an_unreadable_file_is_replaced_by_one_of_its_kind(
    small_videos: VideoDataset, broken_file: str
) -> None:
    half = len(small_videos) // 2
    broken = [0, 1, *range(half, len(small_videos) - 1)]
    dataset = replace(
        with_broken(small_videos, broken_file, *broken), num_unlabelled=len(small_videos) - half
    )
    requests = [request for batch in sampler().requests(0) for request in batch]
    for request in requests:
        (batch,) = load_batches(dataset, [[request]], workers=0)
        assert (batch.indices[0] < half) == (request.index < half)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_is_replaced_and_reported(
    small_videos: VideoDataset, broken_file: str, workers: int
) -> None:
    dataset = with_broken(small_videos, broken_file, 2, 5)
    batches = list(load_batches(dataset, sampler().requests(0), workers=workers))
    failures = [failure for batch in batches for failure in batch.failures]
    assert [failure.path for failure in failures].count(broken_file) == len(failures) >= 2
    assert all(failure.cause and failure.cause in str(failure) for failure in failures)
    used = {small_videos.items[i].path for batch in batches for i in batch.indices}
    assert {failure.replaced_by for failure in failures} <= used
    for batch in batches:
        assert not {2, 5} & set(batch.indices)
        assert batch.labels.tolist() == [dataset.items[i].label for i in batch.indices]
    again = list(load_batches(dataset, sampler().requests(0)))
    assert_same(again, batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_unreadable_files_is_an_error_that_names_them(
    small_videos: VideoDataset, broken_file: str, workers: int
) -> None:
    dataset = with_broken(small_videos, broken_file, *range(12))
    batches = load_batches(dataset, sampler().requests(0), workers=workers, attempts=3)
    with pytest.raises(DataError, match=r"^3 videos in a row cannot be read:\n  .*broken\.mp4: ") as raised:
        next(batches)
    assert "Traceback" not in str(raised.value)
    batches.close()


def test_a_killed_worker_is_a_clear_error(small_videos: VideoDataset) -> None:
    def endless() -> Iterator[list[ClipRequest]]:
        epoch = 0
        while True:
            yield from sampler().requests(epoch)
            epoch += 1

    with TrainLoader(small_videos, workers=1) as loader:
        batches = loader.batches(endless())
        next(batches)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGKILL)
        with pytest.raises(DataError, match=r"worker process ended unexpectedly.*lower workers"):
            collections.deque(batches, maxlen=0)


# --- settings ----------------------------------------------------------------------------------------------


def test_wrong_settings_name_their_field(small_videos: VideoDataset) -> None:
    with pytest.raises(ConfigError, match="workers: -1 is negative"):
        TrainLoader(small_videos, workers=-1)
    with pytest.raises(ConfigError, match="temporal_rule: 'x' is unknown; known are saccade,"):
        TrainLoader(small_videos, rule="x")
    with pytest.raises(ConfigError, match="cache_short_side"):
        TrainLoader(small_videos, cache_mb=1)


def test_settings_reach_the_clips(small_videos: VideoDataset) -> None:
    request = next(sampler(short_side=48, stride=3, num_frames=3).requests(0))[0]

    def frames(**settings: Any) -> torch.Tensor:
        clip = TrainClips(small_videos, ClipSettings(**settings)).read([request]).unpack().clips[0]
        return clip[..., 1].float().mean(dim=(1, 2)) / 8

    assert frames().diff().tolist() == pytest.approx([3, 3], abs=0.3)
    assert frames(target_fps=90.0).diff().tolist() == pytest.approx([1, 1], abs=0.3)
    assert frames(rule="pyslowfast").diff().tolist() == pytest.approx([4, 4], abs=0.3)
    with open_video(small_videos.items[request.index].path) as video:
        assert frames()[-1] <= len(video) - 0.5


KILLED_TRAINING = """
import multiprocessing, sys
from saccade.data.loader import TrainLoader
from saccade.data.sampler import TrainSampler
from saccade.data.types import VideoDataset, VideoItem

if __name__ == "__main__":
    dataset = VideoDataset(tuple(VideoItem(path, 0) for path in sys.argv[1:]), ("a",), "train", "")
    sampler = TrainSampler(4, batch_size=1, seed=0, num_frames=2, stride=1, short_side=32, crop=32)
    loader = TrainLoader(dataset, workers=1, cache_mb=1, cache_short_side=32)
    batches = loader.batches(sampler.requests(0))
    next(batches)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    sys.stdin.read()
"""


def test_workers_end_when_the_training_is_killed(small_videos: VideoDataset, tmp_path: Path) -> None:
    script = tmp_path / "killed_training.py"
    script.write_text(KILLED_TRAINING)
    paths = [item.path for item in small_videos.items[:4]]
    with subprocess.Popen(
        [sys.executable, script, *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as training:
        assert training.stdout is not None
        workers = [Path("/proc") / pid for pid in training.stdout.readline().decode().split()]
        assert len(workers) == 1
        assert workers[0].exists()
        training.kill()
    deadline = time.monotonic() + 10
    while workers[0].exists():
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.05)


# --- research clips ----------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_odd_files_are_read_or_replaced(real_data: Path) -> None:
    """One epoch over files that break readers: full batches, and every file used or reported."""
    paths = sorted(path for path in (real_data / "odd").iterdir() if path.is_file())
    dataset = VideoDataset(tuple(VideoItem(str(path), 0) for path in paths), ("odd",), "train", "odd")
    requests = sampler(num_items=len(paths), batch_size=len(paths)).requests(0)
    (batch,) = load_batches(dataset, requests, attempts=30)
    assert len(batch) == len(paths)
    assert all(len(clip) == 4 and min(clip.shape[1:3]) >= 32 for clip in batch.clips)
    failed = {failure.path for failure in batch.failures}
    assert 0 < len(failed) < len(paths)
    assert {str(path) for path in paths} == failed | {dataset.items[i].path for i in batch.indices}
