"""Testing with several labels a video; files of scores and the official submission files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.types import Action, VideoDataset, VideoItem
from saccade.errors import DataError, UsageError
from saccade.evaluation import evaluate, load_result
from saccade.sampling.temporal import sample_test
from saccade.tasks import LocalizationResult, Localize, MultiLabel, MultiLabelResult, TestResult
from saccade.tasks.metrics import mean_average_precision
from saccade.transforms import test_transform
from saccade.video import open_video, write_video

CLIP = ClipSpec(num_frames=4, stride=3, crop=16, short_side=16)
NAMES = ("red", "green", "blue")


class OrderNet(nn.Module):
    """Knows colours, places and the order of frames, so that every detail of a view tells."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 3 * 4 * 16 * 16, generator=generator) * 0.05)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


class PerFrame(OrderNet):
    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2).flatten(2)
        return (frames @ self.weight[:, : 3 * 256].T).transpose(1, 2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    items = []
    for number, (length, size) in enumerate([(30, (24, 36)), (9, (20, 20)), (50, (40, 22)), (2, (18, 24))]):
        path = folder / f"V{number:04d}.mp4"
        write_video(path, rng.integers(0, 255, (length, *size, 3)).astype(np.uint8), fps=30, crf=10)
        actions = tuple(Action(k, 0.1 * k, 0.3 + 0.1 * k) for k in range(3) if (number + k) % 2)
        items.append(VideoItem(str(path), -1, actions=actions, duration=length / 30 if number else None))
    return VideoDataset(tuple(items), NAMES, "val", str(folder), pairs=((0, 1),), multi_label=True)


def sigmoids_of_views(model: nn.Module, path: str, num_clips: int, num_crops: int) -> np.ndarray:
    """The protocol spelled out: every view decoded, cut and computed on its own."""
    with open_video(path, short_side=16) as reader:
        clips = sample_test(len(reader), reader.fps, num_frames=4, stride=3, num_clips=num_clips)
        cut = [test_transform(reader.frames(list(c)), CLIP, num_crops) for c in clips]
    with torch.no_grad():
        return torch.cat([model.eval()(view[None]).sigmoid() for view in torch.cat(cut)]).double().numpy()


@pytest.mark.parametrize("ensemble", ["max", "mean"])
def test_the_largest_sigmoid_over_the_views_or_their_mean(dataset: VideoDataset, ensemble: str):
    model = OrderNet()
    results = evaluate(
        model, dataset, CLIP, ["1x1", "3x1", "10x3"], task=MultiLabel(ensemble), workers=0, batch_size=7
    )
    for views, result in results.items():
        clips, crops = map(int, views.split("x"))
        for item, scores in zip(dataset.items, result.scores, strict=True):
            expected = getattr(sigmoids_of_views(model, item.path, clips, crops), ensemble)(axis=0)
            np.testing.assert_allclose(scores, expected, atol=2e-6)
    whole = results["10x3"]
    assert whole.ensemble == ensemble
    assert whole.positives.tolist() == [[False, True, False], [True, False, True]] * 2
    assert whole.map == pytest.approx(mean_average_precision(whole.scores, whole.positives))
    assert whole.score_name == "map"
    assert whole.gmacs_per_video == pytest.approx(30 * whole.gmacs_per_view)
    assert (results["1x1"].scores <= whole.scores + 1e-6).all() or ensemble == "mean"


def test_the_control_repeats_the_scores_over_the_video(dataset: VideoDataset):
    result = evaluate(OrderNet(), dataset, CLIP, "1x1", workers=0, task="multi-label")["1x1"]
    assert result.truth.shape == (4, 25, 3)
    times = np.arange(25) * (50 / 30) / 25
    np.testing.assert_array_equal(result.truth[2, :, 1], (times >= 0.1) & (times <= 0.4))
    assert result.truth[0].any()  # the data set does not say how long it lasts; the file does
    rows = np.repeat(result.scores, 25, axis=0)
    expected = mean_average_precision(rows, result.truth.reshape(100, 3))
    assert result.repeated_charades25 == pytest.approx(expected)


def test_losses_per_class_and_per_video(dataset: VideoDataset):
    result = evaluate(OrderNet(), dataset, CLIP, "1x1", workers=0, task="multi-label")["1x1"]
    scores, positives = torch.from_numpy(result.scores), torch.from_numpy(result.positives).float()
    expected = nn.functional.binary_cross_entropy(scores, positives, reduction="none")
    np.testing.assert_allclose(result.losses, expected.mean(1), rtol=1e-5)
    assert [row.num_positives for row in result.per_class] == [2, 2, 2]
    assert np.mean([row.average_precision for row in result.per_class]) == pytest.approx(result.map)
    assert 0 <= result.pair_accuracy <= 1


def test_scores_are_kept_and_read_again(dataset: VideoDataset, tmp_path: Path):
    several = evaluate(OrderNet(), dataset, CLIP, "3x1", task=MultiLabel("mean"), workers=0)["3x1"]
    located = evaluate(PerFrame(), dataset, CLIP, task=Localize(0.25), workers=0)["windows"]
    for result in (several, located):
        result.save(tmp_path / "scores.npz")
        again = load_result(tmp_path / "scores.npz")
        assert type(again) is type(result)
        assert again.figures == result.figures
        assert again.clip == result.clip
        assert again.pairs == ((0, 1),)
        assert again.summary() == result.summary()
        with pytest.raises(DataError, match=f"of task {result.task}, not single-label"):
            TestResult.load(tmp_path / "scores.npz")
    assert isinstance(again, LocalizationResult)
    np.testing.assert_array_equal(again.logits, located.logits)
    assert again.actions_of(1) == list(dataset.items[1].actions)
    with pytest.raises(DataError, match="not a file of scores"):
        load_result(tmp_path / "nothing.npz")


def test_a_damaged_file_of_scores_is_one_error(tmp_path: Path):
    scores = np.random.default_rng(0).random((40, 2), np.float32)
    names, labels = tuple(f"{i}.mp4" for i in range(40)), np.arange(40) % 2
    path = tmp_path / "scores.npz"
    TestResult(scores=scores, labels=labels, views="1x1", class_names=("a", "b"), paths=names).save(path)
    whole = path.read_bytes()
    turned = bytes(byte ^ 255 if 60 < place < 200 else byte for place, byte in enumerate(whole))
    for damaged in (b"", whole[:40], whole[: len(whole) // 2], whole[:-1], turned):
        path.write_bytes(damaged)
        for load in (load_result, TestResult.load):
            with pytest.raises(DataError, match=r"scores\.npz: not a file of scores"):
                load(path)


def test_the_official_submission_files(dataset: VideoDataset, tmp_path: Path):
    several = evaluate(OrderNet(), dataset, CLIP, "1x1", workers=0, task="multi-label")["1x1"]
    several.write_submission(tmp_path / "classify.txt")
    lines = (tmp_path / "classify.txt").read_text().splitlines()
    assert [line.split(" ")[0] for line in lines] == ["V0000", "V0001", "V0002", "V0003"]
    table = np.array([line.split(" ")[1:] for line in lines], float)
    np.testing.assert_allclose(table, several.scores, rtol=1e-5)

    located = evaluate(PerFrame(), dataset, CLIP, workers=0, task="localization")["windows"]
    located.write_submission(tmp_path / "localize.txt")
    lines = (tmp_path / "localize.txt").read_text().splitlines()
    assert [tuple(line.split(" ")[:2]) for line in lines] == [
        (f"V{video:04d}", str(moment)) for video in range(4) for moment in range(1, 26)
    ]
    table = np.array([line.split(" ")[2:] for line in lines], float)
    assert mean_average_precision(table, located.truth) == pytest.approx(located.charades25, abs=1e-3)
    assert ((table > 0) & (table < 1)).all()


def test_what_does_not_go_together(dataset: VideoDataset):
    with pytest.raises(UsageError, match=r"^ensemble: .*max, mean .*sum"):
        evaluate(OrderNet(), dataset, CLIP, task=MultiLabel("sum"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="views ssv2-1clip: "):
        evaluate(OrderNet(), dataset, CLIP, "ssv2-1clip", task="multi-label")
    one = VideoDataset((VideoItem("a.mp4", 0),), ("a",), "val", "clips")
    with pytest.raises(DataError, match="clips: data set is single-label"):
        evaluate(OrderNet(), one, CLIP, task="multi-label")
    with pytest.raises(DataError, match="clips: data set is single-label"):
        evaluate(PerFrame(), one, CLIP, task="localization")["windows"]
    with pytest.raises(DataError, match="data set is multi-label"):
        evaluate(OrderNet(), dataset, CLIP, workers=0)


def test_videos_that_cannot_be_read_are_in_no_figure(dataset: VideoDataset, tmp_path: Path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    items = (*dataset.items, VideoItem(str(tmp_path / "broken.mp4"), -1))
    more = VideoDataset(items, NAMES, "val", "clips", multi_label=True)
    several = evaluate(OrderNet(), more, CLIP, workers=0, task="multi-label")["1x1"]
    located = evaluate(PerFrame(), more, CLIP, workers=0, task="localization")["windows"]
    for result in (several, located):
        assert isinstance(result, (MultiLabelResult, LocalizationResult))
        assert result.num_videos == 4
        assert [Path(failure.path).name for failure in result.failures] == ["broken.mp4"]
