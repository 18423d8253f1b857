"""Training clips, their labels, the cache and the check where the frame rate varies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.cli.data import run
from saccade.data.ava import Keyframe, is_cut, keyframe_clip
from saccade.data.cache import FrameCache
from saccade.data.check import check_data
from saccade.data.loader import TrainLoader
from saccade.data.sampler import TrainSampler
from saccade.data.types import Action, ClipBatch, VideoDataset, VideoItem
from saccade.video import write_video

SECOND = np.arange(30) / 30
TIMES = (
    np.concatenate([SECOND, 60 + SECOND]),
    np.cumsum(np.random.default_rng(3).uniform(0.02, 0.6, 60)),
    np.append(np.arange(59) / 30, 120.0),
)
ACTIONS = (Action(0, 0.0, 0.51), Action(1, 2.0, 59.0), Action(2, 60.41, 60.71))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    """Videos whose grey tells the frame."""
    folder = tmp_path_factory.mktemp("varying")
    items = []
    for number, times in enumerate(TIMES):
        grey = (4 * np.arange(60) + 3).astype(np.uint8)[:, None, None, None]
        path = folder / f"{number}.mp4"
        write_video(path, np.tile(grey, (1, 32, 32, 3)), fps=30, pts=times.tolist(), crf=0)
        items.append(VideoItem(str(path), -1, actions=ACTIONS))
    return VideoDataset(tuple(items), ("a", "b", "c"), "train", str(folder), multi_label=True)


def batches(dataset: VideoDataset, **options: object) -> list[ClipBatch]:
    sampler = TrainSampler(len(dataset), batch_size=3, seed=5, num_frames=4, stride=5, short_side=32, crop=32)
    requests = [request for epoch in range(12) for request in sampler.requests(epoch)]
    with TrainLoader(dataset, workers=0, **options) as loader:  # type: ignore[arg-type]
        return list(loader.batches(requests))


def times_of(clip: torch.Tensor, index: int) -> np.ndarray:
    frames = (clip[..., 1].float().mean(dim=(1, 2)) / 4).int().numpy()
    return TIMES[index][frames] - TIMES[index][0]


@pytest.mark.parametrize("cache_mb", [0, 20])
def test_clips_and_their_labels_go_by_time(dataset: VideoDataset, cache_mb: int) -> None:
    first_section = set()
    for batch in batches(dataset, labels="actions", cache_mb=cache_mb, cache_short_side=32):
        for clip, index, labels in zip(batch.clips, batch.indices, batch.labels, strict=True):
            times = times_of(clip, index)
            if index != 1:
                np.testing.assert_allclose(np.diff(times), 5 / 30, atol=1e-3)  # neither in nor across a gap
            first, last = times.min() - 1e-4, times.max() + 1e-4
            expected = [float(a.start <= last and a.end >= first) for a in ACTIONS]
            assert labels.tolist() == expected
            if index == 0:
                first_section.add(bool(times[0] < 30))
    assert first_section == {True, False}


def test_moments_lie_inside_the_section_of_a_clip(dataset: VideoDataset) -> None:
    for batch in batches(dataset, labels="moments"):
        assert batch.inside is not None
        for clip, index, labels, inside in zip(
            batch.clips, batch.indices, batch.labels, batch.inside, strict=True
        ):
            start = times_of(clip, index)[0]
            moments = start + np.arange(20) / 30
            present = [[a.start <= m <= a.end for m in moments] for a in ACTIONS]
            assert labels.tolist() == np.array(present, np.float32).tolist()
            if index == 0:
                end = 1 if start < 30 else 61
                assert inside.tolist() == (moments < end).tolist()


def test_hit_or_miss_the_clips_are_the_same(dataset: VideoDataset) -> None:
    hits = batches(dataset, labels="actions", cache_mb=20, cache_short_side=32)
    for hit, plain in zip(hits, batches(dataset, labels="actions"), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(hit.clips, plain.clips, strict=True))
        assert torch.equal(hit.labels, plain.labels)


def test_times_come_back_from_the_cache() -> None:
    cache = FrameCache(2, budget=1000, short_side=4)
    frames = torch.arange(3 * 72, dtype=torch.uint8).reshape(3, 4, 6, 3)
    times = np.array([0.0, 0.5, 61.25])
    offset = cache.reserve(0, frames.numel() + times.nbytes)
    assert offset is not None
    cache.put(0, offset, frames, 2.0, times)
    offset = cache.reserve(1, frames.numel())
    assert offset is not None
    cache.put(1, offset, frames, 30.0)
    timed, even = cache.get(0), cache.get(1)
    assert timed is not None
    assert even is not None
    assert np.array_equal(timed[0], frames.numpy())
    assert timed[1:2] == (2.0,)
    assert timed[2].tolist() == times.tolist()  # type: ignore[union-attr]
    assert even[1:] == (30.0, None)


def test_a_clip_around_a_keyframe_keeps_to_its_section() -> None:
    times = TIMES[0]

    def clip(second: int) -> list[int]:
        keyframe = Keyframe("v", second, (), (), ())
        return keyframe_clip(keyframe, 60, 30, num_frames=8, stride=4, times=times, cut=False).tolist()

    assert clip(0) == [0, 0, 0, 0, 0, 4, 8, 12]
    assert clip(1) == [14, 18, 22, 26, 29, 29, 29, 29]
    assert clip(20) == [29] * 8
    assert clip(60) == [30, 30, 30, 30, 30, 34, 38, 42]
    film = np.arange(60) * 60.0  # an hour of one frame a minute
    film[30:] += 1800
    assert is_cut(60, 1 / 60, np.arange(60) / 60)
    assert not is_cut(60, 1 / 60, film)


def test_the_check_reports_varying_rates_and_gaps(
    dataset: VideoDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = np.zeros((60, 32, 32, 3), np.uint8)
    (tmp_path / "set").mkdir()
    for item in dataset.items:
        (tmp_path / "set" / Path(item.path).name).write_bytes(Path(item.path).read_bytes())
    write_video(tmp_path / "set" / "even.mp4", grey, fps=30)
    report = check_data(tmp_path / "set", num_frames=8, stride=5, workers=0)
    facts = {Path(file.path).name: file for file in report.files}
    np.testing.assert_allclose(facts["0.mp4"].gaps, [(1, 60)], atol=1e-3)
    np.testing.assert_allclose(facts["2.mp4"].gaps, [(59 / 30, 120 + 1 / 30)], atol=1e-3)
    assert [facts[name].gaps for name in ("1.mp4", "even.mp4")] == [(), ()]
    assert [Path(file.path).name for file in report.varying] == ["0.mp4", "1.mp4", "2.mp4"]
    assert facts["0.mp4"].seconds == pytest.approx(61, abs=1e-3)
    assert facts["0.mp4"].longest_section == pytest.approx(1, abs=1e-3)
    assert facts["even.mp4"].seconds == facts["even.mp4"].longest_section == 2
    # A clip of 1.2 s: the video of twice a second is shorter than it, however long it took.
    assert [Path(file.path).name for file in report.short] == ["0.mp4"]
    out = tmp_path / "report.json"
    assert run(["check", str(tmp_path / "set"), "--workers", "0", "--json", str(out)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "0.mp4: gap 0:01-1:00" in shown
    assert "1.mp4: usually" in shown
    written = json.loads(out.read_text())
    assert list(written["gaps"]) == [facts["0.mp4"].path, facts["2.mp4"].path]
    assert len(written["varying_rate"]) == 3
