from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

import saccade.data.types as types
from saccade.clip import ClipSpec
from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import DataError, UsageError, WeightsError
from saccade.evaluation import evaluate
from saccade.evaluation.scorer import Scorer
from saccade.sampling.plan import plan_video
from saccade.sampling.temporal import sample_test
from saccade.sampling.views import parse_views
from saccade.tasks import Classify, TestResult
from saccade.tasks.base import View
from saccade.transforms import test_transform
from saccade.video import open_video, write_video

CLIP = ClipSpec(num_frames=4, stride=3, crop=16, short_side=16)
NAMES = ("red", "green", "blue")


class OrderNet(nn.Module):
    """Three classes; knows colours, places and the order of frames, so that every detail of a view tells."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 3 * 4 * 16 * 16, generator=generator) * 0.02)
        self.drop = nn.Dropout(0.5)
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta:
            self.batches.append(len(x))
        return self.drop(x.flatten(1)) @ self.weight.T


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number, (length, size) in enumerate([(30, (24, 36)), (9, (20, 20)), (50, (40, 22)), (2, (18, 24))]):
        frames = rng.integers(0, 255, (length, *size, 3)).astype(np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=30, crf=10)
    return folder


def dataset_of(folder: Path, *extra: str) -> VideoDataset:
    paths = [str(path) for path in sorted(folder.glob("*.mp4"))] + list(extra)
    items = tuple(VideoItem(path, number % 3) for number, path in enumerate(paths))
    return VideoDataset(items, NAMES, "val", str(folder), pairs=((0, 1),))


def expected_scores(model: nn.Module, path: str, clip: ClipSpec, views: str) -> np.ndarray:
    """The protocol spelled out: every view decoded, cut and computed on its own."""
    number = parse_views(views)
    with open_video(path, short_side=clip.short_side) as reader:
        clips = sample_test(
            len(reader),
            reader.fps,
            num_frames=clip.num_frames,
            stride=clip.stride,
            num_clips=number.num_clips,
        )
        cut = [test_transform(reader.frames(list(c)), clip, number.num_crops) for c in clips]
    with torch.no_grad():
        probabilities = [model.eval()(view[None]).softmax(1) for view in torch.cat(cut)]
    return torch.cat(probabilities).double().mean(0).numpy()


@pytest.mark.parametrize("workers", [0, 2])
def test_scores_are_the_mean_of_each_views_softmax(folder: Path, workers: int):
    model, dataset = OrderNet(), dataset_of(folder)
    results = evaluate(model, dataset, CLIP, ["1x1", "3x1", "10x3", "2x3"], workers=workers, batch_size=5)
    assert list(results) == ["1x1", "3x1", "10x3", "2x3"]
    for views, result in results.items():
        expected = [expected_scores(model, item.path, CLIP, views) for item in dataset.items]
        np.testing.assert_allclose(result.scores, expected, atol=1e-6)
        assert result.scores.dtype == np.float32
        assert result.labels.tolist() == [0, 1, 2, 0]
        assert result.paths == tuple(item.path for item in dataset.items)


def test_a_view_set_does_not_depend_on_its_company(folder: Path):
    model, dataset = OrderNet(), dataset_of(folder)
    clip = CLIP.replace(short_side=20)
    together = evaluate(model, dataset, clip, ["1x1", "10x1", "2x3"], workers=0)
    for views, result in together.items():
        alone = evaluate(model, dataset, clip, views, workers=0)[views]
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-6)


def test_three_crops_span_the_frame_even_if_the_short_side_is_larger_than_the_crop(folder: Path):
    with open_video(folder / "0.mp4", short_side=20) as reader:
        clip = CLIP.replace(short_side=20)
        plan = plan_video(len(reader), reader.fps, clip, [parse_views("1x1"), parse_views("1x3")])
    assert [(c.short_side, c.crops) for c in plan.clips] == [
        (20, {1: (1, 0)}),
        (CLIP.crop, {0: (0, 1), 1: (0, 1), 2: (0, 1)}),
    ]


def test_each_video_is_opened_once_and_each_frame_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    asked: list[list[int]] = []
    real_open = types.open_video

    def counting(path, backend, **options):
        opened.append(path)
        reader = real_open(path, backend, **options)
        frames = reader.frames

        def counted(indices):
            asked.append(list(indices))
            return frames(indices)

        reader.frames = counted
        return reader

    monkeypatch.setattr(types, "open_video", counting)
    dataset = dataset_of(folder)
    evaluate(OrderNet(), dataset, CLIP, ["1x1", "3x1", "10x1", "10x3"], workers=0)
    assert opened == [item.path for item in dataset.items]
    assert all(len(set(indices)) == len(indices) for indices in asked)
    assert len(asked) == len(dataset)


def test_shared_views_are_computed_once_and_counted(folder: Path):
    model = OrderNet()
    one = VideoDataset(dataset_of(folder).items[2:3], NAMES, "val", "")
    evaluate(model, one, CLIP, ["10x1", "10x3"], workers=0, batch_size=7)
    assert sum(model.batches) == 30  # the centre crops of 10x3 are the views of 10x1
    assert max(model.batches) == 7
    short = VideoDataset(dataset_of(folder).items[3:4], NAMES, "val", "")
    model.batches.clear()
    result = evaluate(model, short, CLIP, "10x1", workers=0)["10x1"]
    assert sum(model.batches) == 1  # two frames: all ten clips are the same
    np.testing.assert_allclose(result.scores.sum(1), 1, atol=1e-6)


def test_shuffled_control_changes_scores_and_is_seeded(folder: Path):
    model, dataset = OrderNet(), dataset_of(folder)
    plain = evaluate(model, dataset, CLIP, "3x1", workers=0)["3x1"]
    first = evaluate(model, dataset, CLIP, "3x1", workers=0, shuffle_frames=True, seed=1)["3x1"]
    again = evaluate(model, dataset, CLIP, "3x1", workers=2, shuffle_frames=True, seed=1)["3x1"]
    assert first.shuffled
    assert not plain.shuffled
    np.testing.assert_allclose(first.scores, again.scores, atol=1e-6)
    assert np.abs(first.scores - plain.scores).max() > 1e-3


def test_unreadable_videos_are_told_and_left_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    dataset = dataset_of(folder, str(broken), str(tmp_path / "absent.mp4"))
    result = evaluate(OrderNet(), dataset, CLIP, "1x1", workers=1)["1x1"]
    assert [failure.path for failure in result.failures] == [str(broken), str(tmp_path / "absent.mp4")]
    assert all(failure.cause for failure in result.failures)
    assert result.num_videos == 4
    err = caplog.text
    assert "broken.mp4" in err
    assert "left out" in err
    only = VideoDataset(dataset.items[4:], NAMES, "val", "")
    with pytest.raises(DataError, match="none of the 2 videos"):
        evaluate(OrderNet(), only, CLIP, "1x1", workers=0)


def test_the_model_is_left_as_it_was(folder: Path):
    model = OrderNet().train()
    model.drop.eval()
    evaluate(model, dataset_of(folder), CLIP, "1x1", workers=0)
    assert model.training
    assert not model.drop.training
    assert model.weight.grad is None


def test_macs_and_rates_are_reported(folder: Path):
    result = evaluate(OrderNet(), dataset_of(folder), CLIP, "2x3", workers=0)["2x3"]
    assert result.gmacs_per_view == pytest.approx(3 * 3 * 4 * 16 * 16 / 1e9)
    assert result.gmacs_per_video == pytest.approx(6 * result.gmacs_per_view)
    assert result.clips_per_second > 0
    assert 0 <= result.data_wait <= 1
    assert result.num_params == 3 * 3 * 4 * 16 * 16


def test_saved_scores_come_back(folder: Path, tmp_path: Path):
    result = evaluate(OrderNet(), dataset_of(folder, "/nowhere.mp4"), CLIP, "1x1", workers=0)["1x1"]
    result.save(tmp_path / "scores.npz")
    loaded = TestResult.load(tmp_path / "scores.npz")
    np.testing.assert_array_equal(loaded.scores, result.scores)
    assert loaded.summary() == result.summary()
    assert (loaded.paths, loaded.class_names, loaded.clip) == (result.paths, NAMES, CLIP)
    assert loaded.pairs == ((0, 1),)
    stored = np.load(tmp_path / "scores.npz")
    assert {"scores", "labels", "paths", "class_names", "views"} <= set(stored.files)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]
    (tmp_path / "other.npz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"other\.npz"):
        TestResult.load(tmp_path / "other.npz")


def test_figures_equal_the_metrics(folder: Path):
    result = evaluate(OrderNet(), dataset_of(folder), CLIP, "1x1", workers=0)["1x1"]
    assert result.top1 == (result.scores.argmax(1) == result.labels).mean()
    assert result.top5 == 1.0
    assert result.confusion.sum() == 4
    assert result.loss == pytest.approx(-np.log(result.scores[range(4), result.labels]).mean(), rel=1e-6)
    assert 0 <= result.pair_accuracy <= 1


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"views": "10"}, UsageError, "CLIPSxCROPS"),
        ({"temporal_rule": "centre"}, UsageError, "known are saccade"),
        ({"batch_size": 0}, UsageError, "at least 1"),
        ({"clip": CLIP.replace(crop=32)}, UsageError, "does not fit"),
    ],
)
def test_wrong_calls_are_named(folder: Path, change: dict, error: type[Exception], words: str):
    options = {"clip": CLIP, "views": "1x1", "workers": 0} | change
    with pytest.raises(error, match=words):
        evaluate(OrderNet(), dataset_of(folder), **options)


def test_a_model_with_other_classes_is_refused(folder: Path):
    dataset = VideoDataset(dataset_of(folder).items, (*NAMES, "grey"), "val", "somewhere")
    with pytest.raises(DataError, match=r"model has 3 classes, somewhere has 4"):
        evaluate(OrderNet(), dataset, CLIP, "1x1", workers=0)


def test_scores_that_are_not_finite_are_refused():
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 2), float("nan"))

    with pytest.raises(WeightsError, match="not finite"):
        Scorer(Broken(), Classify(), None)([View(0, 0, (1,), torch.zeros(3, 2, 4, 4))])


def test_running_out_of_gpu_memory_halves_the_batch(caplog: pytest.LogCaptureFixture):
    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[int] = []

        def forward(self, x: Tensor) -> Tensor:
            self.sizes.append(len(x))
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return x.flatten(1)[:, :2]

    model = Greedy()
    views = torch.randn(10, 3, 2, 4, 4)
    scorer = Scorer(model, Classify(), None, batch_size=8)
    logits = scorer([View(0, number, (1,), view) for number, view in enumerate(views)])
    np.testing.assert_allclose(logits, views.flatten(1)[:, :2])
    assert model.sizes == [8, 4, 2, 2, 2, 2, 2]
    assert "batches of 2" in caplog.text


def _one_rank(rank: int, world: int, port: int, folder: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
    )
    dataset = dataset_of(Path(folder), "/nowhere.mp4")
    result = evaluate(OrderNet(), dataset, CLIP, "3x1", workers=0, distributed=True)["3x1"]
    result.save(f"{out}/{rank}.npz")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_same_as_one(folder: Path, tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_one_rank, args=(2, port, str(folder), str(tmp_path)), nprocs=2)
    alone = evaluate(OrderNet(), dataset_of(folder, "/nowhere.mp4"), CLIP, "3x1", workers=0)["3x1"]
    for rank in (0, 1):
        shared = TestResult.load(tmp_path / f"{rank}.npz")
        np.testing.assert_allclose(shared.scores, alone.scores, atol=1e-6)
        assert shared.paths == alone.paths
        assert shared.failures == alone.failures
