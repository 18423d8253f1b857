"""Overlapping windows over whole videos: everything is covered, and nothing shows where they meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.types import Action, VideoDataset, VideoItem
from saccade.errors import UsageError, WeightsError
from saccade.evaluation import Controls, evaluate
from saccade.sampling.temporal import frame_grid
from saccade.sampling.windows import Blend, plan_windows
from saccade.tasks import Localize
from saccade.video import open_video, write_video

CLIP = ClipSpec(num_frames=16, stride=2, crop=8, short_side=8)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 16])
def test_windows_cover_every_frame_with_some_weight(size: int, overlap: float):
    for num_points in (1, 2, size, size + 1, 3 * size + 1, 100):
        plan = plan_windows(num_points, size, overlap=overlap)
        weight = np.zeros(num_points)
        for number, start in enumerate(plan.starts):
            frames = plan.frames(number)
            assert len(frames) == size
            assert frames.min() == start
            assert frames.max() == min(start + size, num_points) - 1
            inside = min(size, num_points - start)
            weight[start : start + inside] += plan.weights(number)[:inside]
        assert weight.min() > 0
        assert list(plan.starts) == sorted(set(plan.starts))


def test_weights_pass_from_window_to_window_in_a_straight_line():
    plan = plan_windows(40, 16)
    assert plan.starts == (0, 8, 16, 24)
    first, second = plan.weights(0), plan.weights(1)
    np.testing.assert_allclose(first[8:] + second[:8], 1.0)
    assert first[:10].tolist() == [1.0] * 10
    assert first[-2:].tolist() == [0.0, 0.0]  # two frames that lack neighbours
    assert second[:2].tolist() == [0.0, 0.0]
    assert plan.weights(3)[8:].tolist() == [1.0] * 8  # the video ends there
    assert (np.diff(second[:8]) >= 0).all()


def test_an_overlap_that_cannot_be():
    for overlap in (-0.1, 1.0):
        with pytest.raises(UsageError, match="overlap: "):
            plan_windows(10, 4, overlap=overlap)


class InTime(nn.Module):
    """Convolutional in time with a reach of ``reach`` frames; knows brightness alone."""

    def __init__(self, reach: int, num_classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(num_classes, 3, 2 * reach + 1, generator=generator)
        self.conv = nn.Conv1d(3, num_classes, 2 * reach + 1, padding=reach)
        with torch.no_grad():
            self.conv.weight.copy_(weight)
            self.conv.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.mean(dim=(3, 4)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    folder = tmp_path_factory.mktemp("long")
    rng = np.random.default_rng(0)
    items = []
    for number, length in enumerate((173, 20, 64)):
        levels = rng.integers(20, 230, (length, 1, 1, 3)).astype(np.uint8)
        path = folder / f"{number}.mp4"
        write_video(path, np.repeat(np.repeat(levels, 12, 1), 16, 2), fps=30, crf=4)
        actions = (Action(number, 0.1, 0.5),)
        items.append(VideoItem(str(path), -1, actions=actions))
    return VideoDataset(tuple(items), ("a", "b", "c"), "val", str(folder), multi_label=True)


def one_long_pass(model: nn.Module, path: str) -> np.ndarray:
    """Logits (M, K) of all frames a stride apart at once; of a short video with its last frame repeated, as
    always.
    """
    from saccade.transforms import test_transform

    with open_video(path, short_side=8) as reader:
        grid = frame_grid(len(reader), reader.fps, stride=2)
        frames = [*grid.tolist(), *[int(grid[-1])] * (CLIP.num_frames - len(grid))]
        clip = CLIP.replace(num_frames=len(frames))
        with torch.no_grad():
            logits = model.eval()(test_transform(reader.frames(frames), clip))[0]
    return logits.T.numpy()[: len(grid)]


@pytest.mark.parametrize(("reach", "overlap"), [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)])
def test_a_model_that_is_convolutional_in_time_gives_what_one_long_pass_gives(
    dataset: VideoDataset, reach: int, overlap: float
):
    model = InTime(reach)
    found = evaluate(model, dataset, CLIP, task=Localize(overlap), workers=0, batch_size=3)["windows"]
    for number, item in enumerate(dataset.items):
        np.testing.assert_allclose(found.logits_of(number), one_long_pass(model, item.path), atol=2e-5)
    assert found.num_points.tolist() == [87, 10, 32]
    assert found.num_frames.tolist() == [173, 20, 64]
    np.testing.assert_allclose(found.durations, np.array([173, 20, 64]) / 30)


def test_without_margins_there_would_be_seams(dataset: VideoDataset):
    """What the weights are for: windows side by side differ from one pass where they meet."""
    model = InTime(2)
    found = evaluate(model, dataset, CLIP, task=Localize(0.0), workers=0)["windows"]
    error = np.abs(found.logits_of(0) - one_long_pass(model, dataset.items[0].path)).max(axis=1)
    assert error[[15, 16, 31, 32]].min() > 1e-3
    assert error[[8, 24, 40]].max() < 1e-5


class Constant(nn.Module):
    """Says the same whatever it sees, in a voice that depends on the place in the window."""

    def __init__(self, ramp: float = 0.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([1.5, -2.0, 0.25]))
        self.ramp = ramp

    def forward(self, x: Tensor) -> Tensor:
        place = torch.linspace(-1, 1, x.shape[2], device=x.device)
        return (self.bias[:, None] + self.ramp * place).expand(len(x), 3, -1)


def test_a_constant_model_has_no_seams(dataset: VideoDataset):
    found = evaluate(Constant(), dataset, CLIP, workers=0, task="localization")["windows"]
    np.testing.assert_allclose(found.logits, np.tile([1.5, -2.0, 0.25], (len(found.logits), 1)), atol=1e-6)
    steps = {}
    for overlap in (0.0, 0.5):
        found = evaluate(Constant(0.5), dataset, CLIP, task=Localize(overlap), workers=0)["windows"]
        steps[overlap] = np.abs(np.diff(found.logits_of(0)[:, 0]))
    assert steps[0.0].max() > 0.9  # from the end of one window to the start of the next
    assert steps[0.5].max() < 0.2


def test_a_network_that_strides_in_time_is_stretched(dataset: VideoDataset):
    class Half(Constant):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, :, ::2]

    found = evaluate(Half(), dataset, CLIP, workers=0, task="localization")["windows"]
    assert found.num_points.tolist() == [87, 10, 32]
    np.testing.assert_allclose(found.logits[:, 0], 1.5, atol=1e-6)


def test_controls_of_localization_use_all_windows(dataset: VideoDataset):
    controls = Controls(num_seeds=1)
    result = evaluate(InTime(0), dataset, CLIP, workers=0, controls=controls, task="localization")[
        "windows"
    ]  # it looks at single frames
    found = {each.name: each for each in result.time_use.controls}
    assert result.time_use.figure == result.score
    assert (found["shuffle"].worth, found["reverse"].worth) == (0.0, 0.0)
    assert result.time_use.figure_name == result.score_name


def test_shuffled_frames_give_their_scores_back_to_where_they_belong(dataset: VideoDataset):
    straight = evaluate(InTime(0), dataset, CLIP, workers=0, task="localization")["windows"]
    shuffled = evaluate(
        InTime(0), dataset, CLIP, workers=0, shuffle_frames=True, seed=3, task="localization"
    )["windows"]
    np.testing.assert_allclose(shuffled.logits, straight.logits, atol=1e-6)  # it looks at single frames
    assert shuffled.shuffled
    ordered = evaluate(InTime(2), dataset, CLIP, workers=0, task="localization")["windows"]
    lost = evaluate(InTime(2), dataset, CLIP, workers=0, shuffle_frames=True, seed=3, task="localization")[
        "windows"
    ]
    again = evaluate(InTime(2), dataset, CLIP, workers=2, shuffle_frames=True, seed=3, task="localization")[
        "windows"
    ]
    assert np.abs(lost.logits - ordered.logits).mean() > 0.1
    np.testing.assert_array_equal(lost.logits, again.logits)


def test_a_model_of_clips_cannot_localise(dataset: VideoDataset):
    class PerClip(InTime):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).mean(2)

    with pytest.raises(WeightsError, match=r"localization needs \(views, classes, frames\)"):
        evaluate(PerClip(0), dataset, CLIP, workers=0, task="localization")["windows"]


def test_blending_checks_its_scores():
    blend = Blend(plan_windows(20, 8), 2)
    with pytest.raises(ValueError, match="5 scores for a window of 8 frames"):
        blend.add(0, np.zeros((2, 5)))
