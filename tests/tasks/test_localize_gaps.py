"""Localisation in videos whose frame rate varies or that have gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.types import Action, VideoDataset, VideoItem
from saccade.evaluation import evaluate
from saccade.sampling.timing import FrameTimes
from saccade.tasks import LocalizationResult
from saccade.tasks.moments import charades_frames, frame_weights, interpolate, interpolate_to_frames
from saccade.video import write_video

CLIP = ClipSpec(num_frames=8, stride=2, crop=32, short_side=32, mean=(0, 0, 0), std=(1, 1, 1))
SECOND = np.arange(30) / 30
PAUSE = np.concatenate([SECOND, 60 + SECOND])
DOUBLED = np.concatenate([np.arange(20) / 30, 20 / 30 + np.arange(40) / 60])
FREEZE = np.append(np.arange(59) / 30, 120.0)
EVEN = np.arange(60) / 30


class Number(nn.Module):
    """Of every frame its number, which its grey tells."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        number = x.mean((1, 3, 4)) * 255 / 4 + self.weight
        return torch.stack([number, -number], 1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    folder = tmp_path_factory.mktemp("gaps")
    items = []
    for number, times in enumerate((PAUSE, EVEN, DOUBLED, FREEZE)):
        grey = (4 * np.arange(60) + 2).astype(np.uint8)[:, None, None, None]
        path = folder / f"{number}.mp4"
        write_video(path, np.tile(grey, (1, 32, 32, 3)), fps=30, pts=times.tolist(), crf=0)
        actions = (Action(0, 0.51, 1.01), Action(1, 60.0, 70.0)) if number != 1 else (Action(1, 0.0, 1.0),)
        items.append(VideoItem(str(path), -1, actions=actions))
    return VideoDataset(tuple(items), ("a", "b"), "val", str(folder), multi_label=True)


@pytest.fixture(scope="module")
def result(dataset: VideoDataset) -> LocalizationResult:
    found = evaluate(Number(), dataset, CLIP, task="localization", workers=0)["windows"]
    assert isinstance(found, LocalizationResult)
    return found


def test_every_frame_has_the_score_of_its_time(result: LocalizationResult) -> None:
    """The model's score rises with the frame; a frame a stride before the end of a section has it exactly."""
    assert result.num_points.tolist() == [30, 30, 20, 30]
    for video, allowed in ((0, 1.2), (1, 1.2), (2, 3.5), (3, 1.2)):
        scores = result.at_frames(video)[:, 0]
        assert np.abs(scores - np.arange(60) - 0.5).max() < allowed
    pause = result.at_frames(0)[:, 0]
    assert pause[29] < 29.5  # no weight of the frames after the gap
    assert pause[30] > 29.5
    assert result.at_frames(3)[59, 0] == result.logits_of(3)[-1, 0]  # stands alone after a gap


def test_durations_moments_and_windows(result: LocalizationResult) -> None:
    np.testing.assert_allclose(result.durations, [61, 2, 4 / 3, 120 + 1 / 30], atol=1e-3)
    # 30 points are 7 windows of 8; of 15 to either side of a gap 3 each; 20 points are 4
    assert result.num_views == pytest.approx((6 + 7 + 4 + 7) / 4)
    chosen = np.round(result.points[:25, 0] - 0.5)
    assert (chosen[0], chosen[1]) == (0, pytest.approx(29, abs=1))  # 2.44 s on: the last frame before the gap
    assert chosen[24] == pytest.approx(29, abs=1)  # 58.6 s
    assert charades_frames(60, FrameTimes(60, 30.0, PAUSE)).tolist() == [0] + 24 * [29]
    truth = result.truth[:25]
    assert truth[:, 0].sum() == 0  # of the 25 moments none is at 0.51 - 1.01 s
    active = result._active_frames(0)[:60]
    assert np.flatnonzero(active).tolist() == list(range(16, 30))
    assert np.flatnonzero(result._active_frames(1)[:60]).tolist() == list(range(31, 60))
    assert 0 < result.per_frame <= 1


def test_times_are_in_the_file(result: LocalizationResult, dataset: VideoDataset, tmp_path: Path) -> None:
    result.save(tmp_path / "scores.npz")
    again = LocalizationResult.load(tmp_path / "scores.npz")
    assert [video.gaps for video in again.videos] == [video.gaps for video in result.videos]
    assert again.charades25 == result.charades25
    assert again.per_frame == result.per_frame
    np.testing.assert_array_equal(again.at_frames(2), result.at_frames(2))
    timeline = again.examples(4, hardest=True)[0].timeline
    assert timeline.duration > 0
    even = VideoDataset(dataset.items[1:2], ("a", "b"), "val", dataset.root, multi_label=True)
    found = evaluate(Number(), even, CLIP, task="localization", workers=0)["windows"]
    found.save(tmp_path / "even.npz")
    with np.load(tmp_path / "even.npz") as stored:
        assert not {"times", "timed"} & set(stored.files)  # as ever


def test_weights_of_a_constant_rate_are_those_of_the_indices() -> None:
    values = np.random.default_rng(0).normal(size=(30, 3))
    video = FrameTimes(60, 30.0, EVEN + 5)
    np.testing.assert_array_equal(interpolate_to_frames(values, video, CLIP), interpolate(values, 60))
    below, above, weight = frame_weights(30, FrameTimes(60, 30.0, PAUSE), CLIP)
    assert (below[:30].max(), below[30:].min(), above[:30].max()) == (14, 15, 14)
    assert ((weight >= 0) & (weight < 1)).all()
