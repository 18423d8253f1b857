"""Controls: shuffled, repeated and reversed frames of the same clips."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import UsageError
from saccade.evaluation import Controls, evaluate
from saccade.evaluation.controls import arrange
from saccade.tasks import MultiLabelResult, TestResult
from saccade.tasks.base import View
from saccade.tasks.time_use import ControlFigure, TimeUse
from saccade.video import write_video

CLIP = ClipSpec(num_frames=4, stride=2, crop=16, short_side=16, mean=(0.5,) * 3, std=(1.0,) * 3)
NAMES = ("brighter", "darker")
NUM = 6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    """Videos that grow brighter, and the same ones backwards: one frame tells nothing."""
    folder = tmp_path_factory.mktemp("controls")
    items = []
    for number in range(NUM):
        levels = np.linspace(40 + 5 * number, 200, 20).astype(np.uint8)
        for label, shown in enumerate((levels, levels[::-1])):
            frames = np.broadcast_to(shown[:, None, None, None], (20, 16, 24, 3)).copy()
            path = folder / f"{number}_{label}.mp4"
            write_video(path, frames, fps=30)
            items.append(VideoItem(str(path), label))
    return VideoDataset(tuple(items), NAMES, "val", str(folder), pairs=((0, 1),))


class Order(nn.Module):
    """Reads the order of frames and nothing else: whether the last is brighter than the first."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 3, 4))
        return torch.stack((mean[:, -1] - mean[:, 0], mean[:, 0] - mean[:, -1]), 1) * 10


class Middle(nn.Module):
    """Reads the set of frames: their mean, so that no rearrangement but a repetition changes it."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.double().sort(dim=2).values.mean((1, 2, 3, 4)).float()
        return torch.stack((mean, 0.1 - mean), 1)


def test_a_model_that_reads_only_the_order_loses_everything(dataset: VideoDataset):
    result = evaluate(Order(), dataset, CLIP, controls=Controls(num_seeds=5), workers=0)["1x1"]
    found = result.time_use
    assert (result.top1, found.figure, found.pair_accuracy, found.num_videos) == (1.0, 1.0, 1.0, 2 * NUM)
    controls = {each.name: each for each in found.controls}
    assert [each.num_passes for each in found.controls] == [5, 1, 1]
    assert (controls["reverse"].figure, controls["reverse"].worth) == (0.0, 1.0)
    assert controls["reverse"].error == 0.0  # the same for every video
    assert controls["repeat"].pair_accuracy == 0.5  # chance within pairs: equal scores
    shuffled = controls["shuffle"]
    assert shuffled.figure == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(5 * 2 * NUM))
    assert shuffled.worth == pytest.approx(1 - shuffled.figure)
    assert 0 < shuffled.error < 0.25
    assert found.main is shuffled


def test_to_a_model_without_order_time_is_worth_exactly_nothing(dataset: VideoDataset):
    found = evaluate(Middle(), dataset, CLIP, "1x1", controls=Controls(), workers=0)["1x1"].time_use
    assert 0 < found.figure < 1
    worth = {each.name: (each.worth, each.error, each.figure) for each in found.controls}
    assert worth["shuffle"] == worth["reverse"] == (0.0, 0.0, found.figure)
    assert "time is worth 0.0 ± 0.0 points here" in str(found)


def test_the_controls_change_nothing_in_the_test(dataset: VideoDataset):
    plain = evaluate(Order(), dataset, CLIP, "2x1,3x3", workers=0, batch_size=5)
    both = evaluate(Order(), dataset, CLIP, "2x1,3x3", workers=0, batch_size=5, controls=Controls())
    for views in ("2x1", "3x3"):
        np.testing.assert_array_equal(plain[views].scores, both[views].scores)
        assert both[views].time_use.views == "1x1"
    single = evaluate(Order(), dataset, CLIP, "1x1", workers=2, controls=Controls())["1x1"]
    assert single.time_use == both["2x1"].time_use
    assert plain["2x1"].time_use is None


def test_each_video_is_opened_and_decoded_once(dataset: VideoDataset, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    original = VideoDataset.open

    def counted(self: VideoDataset, position: int, **options: object) -> object:
        opened.append(self.items[position].path)
        return original(self, position, **options)

    monkeypatch.setattr(VideoDataset, "open", counted)
    evaluate(Order(), dataset, CLIP, "3x3", workers=0, controls=Controls())
    assert opened == [item.path for item in dataset.items]


def test_a_shuffle_of_the_controls_is_that_of_shuffle_frames(dataset: VideoDataset):
    alone = evaluate(Order(), dataset, CLIP, "1x1", workers=0, shuffle_frames=True, seed=7)["1x1"]
    controls = Controls(names=("shuffle",), num_seeds=1, seed=7)
    (found,) = evaluate(Order(), dataset, CLIP, "1x1", workers=0, controls=controls)["1x1"].time_use.controls
    assert found.figure == alone.top1
    assert found.pair_accuracy == alone.pair_accuracy


def test_a_limit_takes_videos_evenly_and_by_seed(dataset: VideoDataset):
    few = Controls(max_videos=4)
    places = sorted(few.positions(100))
    assert len(places) == 4
    assert set(np.diff(places)) <= {24, 25, 26}
    assert few.positions(100) == Controls(max_videos=4).positions(100)
    assert few.positions(100) != Controls(max_videos=4, seed=1).positions(100)
    assert few.positions(4) == frozenset(range(4))
    found = evaluate(Order(), dataset, CLIP, controls=few, workers=0)["1x1"].time_use
    assert (found.num_videos, found.num_tested) == (4, 2 * NUM)


def test_an_unreadable_video_counts_in_no_control(dataset: VideoDataset, tmp_path: Path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    items = (*dataset.items, VideoItem(str(tmp_path / "bad.mp4"), 0))
    more = VideoDataset(items, NAMES, "val", "", pairs=dataset.pairs)
    found = evaluate(Order(), more, CLIP, workers=1, controls=Controls())["1x1"].time_use
    assert found == evaluate(Order(), dataset, CLIP, workers=0, controls=Controls())["1x1"].time_use


def test_clips_given_as_tensors_have_controls_too():
    ramp = torch.linspace(0, 1, 4)[None, :, None, None].expand(3, 4, 8, 8)
    clips = [(ramp, 0), (ramp.flip(1), 1)] * 3
    found = evaluate(Order(), clips, controls=Controls(names=("reverse",)), workers=0)["1x1"].time_use
    assert (found.figure, found.controls[0].figure) == (1.0, 0.0)


def test_results_keep_their_controls(dataset: VideoDataset, tmp_path: Path):
    result = evaluate(Order(), dataset, CLIP, controls=Controls(), workers=0)["1x1"]
    result.save(tmp_path / "scores.npz")
    assert TestResult.load(tmp_path / "scores.npz").time_use == result.time_use


def test_the_paired_error_of_map_is_below_that_of_independent_sets():
    rng = np.random.default_rng(0)
    positives = rng.random((60, 3)) < 0.4
    scores = (rng.normal(size=(60, 3)) + positives).astype(np.float32)

    def result(noise: float) -> MultiLabelResult:
        moved = scores + noise * rng.normal(size=scores.shape).astype(np.float32)
        names = {"paths": ("x",) * 60, "class_names": ("a", "b", "c"), "views": "1x1"}
        truth = np.zeros((60, 0, 3), np.bool_)
        return MultiLabelResult(**names, scores=moved, positives=positives, truth=truth)

    first, second = result(0.0), result(0.3)
    worth, error = first.minus([second])
    assert worth == pytest.approx(first.map - second.map)
    assert 0 < error < math.hypot(first.standard_error, second.standard_error) / 2
    assert first.minus([first]) == (0.0, 0.0)


def test_rearranged_frames_are_those_of_the_clip():
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 2, 2, 3)
    view = View(3, 0, (1,), pixels, frames=(10, 12, 14, 16, 18))
    order = {name: arrange(view, (name, 0)).pixels[:, 0, 0, 0].tolist() for name in ("repeat", "reverse")}
    assert order == {"repeat": [2] * 5, "reverse": [4, 3, 2, 1, 0]}
    shuffled = arrange(view, ("shuffle", 1))
    shown = np.random.default_rng([1, 3, 10, 12, 14, 16, 18]).permutation([10, 12, 14, 16, 18])
    assert [view.frames[i] for i in shuffled.pixels[:, 0, 0, 0].tolist()] == shown.tolist()
    floats = View(3, 0, (1,), pixels[..., 0].float().expand(3, 5, 2, 2))
    assert arrange(floats, ("reverse", 0)).pixels[0, :, 0, 0].tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"names": ("mirror",)}, "mirror"),
        ({"names": ("shuffle", "shuffle")}, "shuffle"),
        ({"names": ()}, "shuffle, repeat, reverse"),
        ({"num_seeds": 0}, "num_seeds"),
        ({"max_videos": 0}, "max_videos"),
    ],
)
def test_wrong_controls_are_named(options: dict, named: str):
    with pytest.raises(UsageError, match=named):
        Controls(**options)


def test_undefined_figures_come_back_as_such():
    known = TimeUse("frame_map", "keyframes", 2, 2, 0.5, (ControlFigure("reverse", 1, 0.4, 0.1, math.nan),))
    values = known.to_dict()
    assert values["pair_accuracy"] is None
    assert values["controls"][0]["error"] is None
    found = TimeUse.from_dict(values)
    assert math.isnan(found.pair_accuracy)
    assert math.isnan(found.controls[0].error)
    assert (found.figure, found.controls[0].worth) == (0.5, 0.1)
