"""One pass for everything: long videos in parts, any module, any data set; what is the caller's stays."""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import saccade
from saccade.clip import ClipSpec
from saccade.data.types import Action, VideoDataset, VideoItem
from saccade.errors import DataError, UsageError, VideoError
from saccade.evaluation import reading
from saccade.evaluation.reading import VideoSource
from saccade.sampling.views import Views, parse_views
from saccade.tasks import Classify, Localize, MultiLabel
from saccade.transforms import test_transform
from saccade.video import write_video

CLIP = ClipSpec(num_frames=4, stride=3, crop=16, short_side=16)


class OrderNet(nn.Module):
    """Knows places and the order of frames; not one of ours."""

    def __init__(self, per_frame: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 3 * 4 * 16 * 16, generator=generator) * 0.02)
        self.drop = nn.Dropout(0.5)
        self.per_frame = per_frame

    def forward(self, x: Tensor) -> Tensor:
        if self.per_frame:
            return torch.einsum("bcthw,kcthw->bkt", x, self.weight.view(3, 3, 4, 16, 16))
        return self.drop(x.flatten(1)) @ self.weight.T


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    items = []
    for number, length in enumerate((90, 9, 50)):
        frames = rng.integers(0, 255, (length, 20, 28, 3)).astype(np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=30, crf=10)
        action = Action(number, 0.1, 1.0)
        items.append(VideoItem(str(folder / f"{number}.mp4"), -1, actions=(action,)))
    return VideoDataset(tuple(items), ("a", "b", "c"), "val", str(folder), multi_label=True)


def single(videos: VideoDataset) -> VideoDataset:
    items = tuple(VideoItem(item.path, item.actions[0].label) for item in videos.items)
    return VideoDataset(items, videos.class_names, "val", videos.root)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_in_many_parts_gives_the_same_to_the_bit(
    videos: VideoDataset, workers: int, monkeypatch: pytest.MonkeyPatch
):
    def results() -> list[np.ndarray]:
        model, options = OrderNet(), {"workers": workers, "batch_size": 5}
        both = saccade.evaluate(model, single(videos), CLIP, "3x1,10x3", **options)
        several = saccade.evaluate(model, videos, CLIP, "10x1", task="multi-label", **options)
        where = saccade.evaluate(OrderNet(True), videos, CLIP, task=Localize(0.5), **options)
        return [*(result.scores for result in (*both.values(), *several.values())), where["windows"].logits]

    whole = results()
    sizes: list[int] = []
    real = reading.read_chunks

    def watched(*args: Any, **options: Any) -> Any:
        for chunk in real(*args, **options):
            sizes.append(len(chunk.frames))
            yield chunk

    monkeypatch.setattr(reading, "read_chunks", watched)
    monkeypatch.setattr(reading, "_CHUNK_BYTES", 6 * 16 * 22 * 3)  # six frames
    for one, other in zip(whole, results(), strict=True):
        assert np.array_equal(one, other)
    assert len(sizes) > 30
    assert max(sizes) <= 6


def test_each_frame_of_a_video_in_parts_is_decoded_once(
    videos: VideoDataset, monkeypatch: pytest.MonkeyPatch
):
    """Neighbouring windows share half of their frames."""
    decoded: list[int] = []
    real_open = VideoDataset.open

    def opened(self: VideoDataset, position: int, **options: Any) -> Any:
        reader = real_open(self, position, **options)
        frames = reader.frames
        reader.frames = lambda indices: decoded.extend(indices) or frames(indices)
        return reader

    monkeypatch.setattr(VideoDataset, "open", opened)
    monkeypatch.setattr(reading, "_CHUNK_BYTES", 6 * 16 * 22 * 3)
    list(VideoSource(videos, Localize(), CLIP, (Views(1, 1),))(0))
    assert sorted(decoded) == list(range(0, 90, 3))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_that_breaks_half_way_is_in_no_figure(
    videos: VideoDataset, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    broken = tmp_path / "broken.mp4"
    data = bytearray(Path(videos.items[0].path).read_bytes())
    data[len(data) * 3 // 4 : len(data) * 3 // 4 + 4000] = bytes(4000)
    broken.write_bytes(bytes(data))
    monkeypatch.setattr(reading, "_CHUNK_BYTES", 6 * 16 * 22 * 3)
    good = single(videos)
    more = VideoDataset((VideoItem(str(broken), 0), *good.items), good.class_names, "val", "")
    result = saccade.evaluate(OrderNet(), more, CLIP, "10x1", workers=workers)["10x1"]
    assert [failure.path for failure in result.failures] == [str(broken)]
    alone = saccade.evaluate(OrderNet(), good, CLIP, "10x1", workers=0)["10x1"]
    np.testing.assert_allclose(result.scores, alone.scores, atol=1e-6)


def test_nothing_of_the_callers_is_moved_and_no_process_forked(
    videos: VideoDataset, monkeypatch: pytest.MonkeyPatch
):
    def forbidden() -> int:
        raise AssertionError("a process was forked")

    monkeypatch.setattr(os, "fork", forbidden)
    model = OrderNet().train()
    state = np.random.get_state
    before = torch.get_rng_state(), state()[1].copy(), random.getstate()
    saccade.evaluate(model, single(videos), CLIP, "2x1", workers=2)
    saccade.evaluate(model, Clips(), workers=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(state()[1], before[1])
    assert random.getstate() == before[2]
    assert model.training
    assert model.drop.training


class Clips(Dataset[tuple[Tensor, int]]):
    """Somebody's own data set: float clips and labels."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 4, 16, 16, generator=generator), index % 3


@pytest.mark.parametrize("workers", [0, 2])
def test_any_module_on_any_data_set(workers: int):
    model = OrderNet().eval()
    result = saccade.evaluate(model, Clips(), workers=workers)["1x1"]
    with torch.no_grad():
        expected = torch.stack([model(Clips()[i][0][None])[0].softmax(0) for i in range(7)])
    np.testing.assert_allclose(result.scores, expected, atol=1e-6)
    assert result.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert result.class_names == ("0", "1", "2")
    assert result.clip == ClipSpec(num_frames=4, stride=1, crop=16, short_side=16)
    assert np.isfinite(result.loss)


def test_frames_and_several_labels_from_any_data_set():
    class Frames(Dataset[Any]):
        class_names = ("x", "y", "z")

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            rng = np.random.default_rng(index)
            return rng.integers(0, 255, (4, 20, 30, 3)).astype(np.uint8), np.array([1, index % 2, 0])

    model = OrderNet().eval()
    result = saccade.evaluate(model, Frames(), CLIP, task=MultiLabel("mean"), workers=0)["1x1"]
    assert result.positives.tolist() == [[True, bool(i % 2), False] for i in range(4)]
    assert result.class_names == ("x", "y", "z")
    assert 0 <= result.map <= 1
    with pytest.raises(UsageError, match="clip"):
        saccade.evaluate(model, Frames(), workers=0)
    with pytest.raises(UsageError, match="1x1"):
        saccade.evaluate(model, Frames(), CLIP, "10x1", workers=0)
    with pytest.raises(UsageError, match="localization"):
        saccade.evaluate(OrderNet(True), Frames(), CLIP, task="localization", workers=0)


def test_uint8_clips_of_the_short_side_are_what_a_test_cuts():
    frames = torch.randint(0, 256, (4, 16, 24, 3), dtype=torch.uint8)

    class One(Dataset[Any]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            return frames, 0

    model = OrderNet().eval()
    result = saccade.evaluate(model, One(), CLIP, workers=0)["1x1"]
    with torch.no_grad():
        expected = model(test_transform(frames, CLIP, 1)).softmax(1)
    np.testing.assert_allclose(result.scores, expected, atol=1e-6)


def test_the_backend_reaches_the_decoder(videos: VideoDataset, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    import saccade.data.types as types

    real_open = types.open_video

    def recorded(path: str, backend: Any = "auto", **options: Any) -> Any:
        asked.append(backend)
        return real_open(path, "pyav", **options)

    monkeypatch.setattr(types, "open_video", recorded)
    saccade.evaluate(OrderNet(), single(videos), CLIP, workers=0, backend="torchcodec")
    assert asked == ["torchcodec"] * 3
    monkeypatch.undo()
    with pytest.raises(UsageError, match="ffmpeg"):
        saccade.evaluate(OrderNet(), single(videos), CLIP, workers=0, backend="ffmpeg")  # type: ignore[arg-type]


def test_plans_say_what_they_need(videos: VideoDataset):
    with pytest.raises(UsageError, match="clip"):
        saccade.evaluate(OrderNet(), single(videos), workers=0)
    with pytest.raises(DataError, match="multi-label"):
        saccade.evaluate(OrderNet(), videos, CLIP, workers=0)
    with pytest.raises(UsageError, match="unknown task"):
        saccade.evaluate(OrderNet(), videos, CLIP, task="dance", workers=0)
    chunks = list(VideoSource(single(videos), Classify(), CLIP, (parse_views("3x1"),))(0))
    assert [len(chunk.clips) for chunk in chunks] == [3]


# --- what goes wrong ---------------------------------------------------------------------------------------


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("broken")


def test_the_decoding_threads_end_with_an_error_that_is_still_looked_at(videos: VideoDataset):
    with pytest.raises(ValueError, match="broken") as caught:
        saccade.evaluate(Broken(), single(videos), CLIP, "10x3", workers=2, batch_size=1)
    assert caught.tb is not None  # its frames are alive, as in a notebook
    assert threading.active_count() == len([thread for thread in threading.enumerate() if not thread.daemon])


def test_the_decoding_threads_end_when_no_more_predictions_are_wanted(videos: VideoDataset):
    before = set(threading.enumerate())
    predictions = saccade.Predictor(OrderNet(), list("abc"), clip=CLIP).predict_many(
        [item.path for item in videos.items], workers=2
    )
    next(predictions)
    predictions.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before


def test_the_mode_of_a_module_comes_back_after_an_error(videos: VideoDataset):
    model = nn.Sequential(nn.Dropout(0.5), Broken()).train()
    with pytest.raises(ValueError, match="broken"):
        saccade.evaluate(model, single(videos), CLIP, workers=0)
    with pytest.raises(ValueError, match="broken"):
        saccade.Predictor(model, list("abc"), clip=CLIP)(videos.items[0].path)
    assert all(module.training for module in model.modules())


def test_no_video_that_can_be_read_names_the_first(videos: VideoDataset, tmp_path: Path):
    items = tuple(VideoItem(str(tmp_path / f"{name}.mp4"), 0) for name in "ba")
    with pytest.raises(DataError, match=r"none of the 2 videos.*b\.mp4"):
        saccade.evaluate(OrderNet(), VideoDataset(items, ("a", "b", "c"), "val", ""), CLIP, workers=2)
    (tmp_path / "b.mp4").write_bytes(b"")
    predict = saccade.Predictor(OrderNet(), list("abc"), clip=CLIP)
    with pytest.raises(VideoError, match=r"b\.mp4"):
        predict(items[0].path)
    found = list(predict.predict_many([items[0].path, videos.items[1].path, items[1].path]))
    assert [type(one).__name__ for one in found] == ["Failure", "Prediction", "Failure"]


class Items(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_items_and_labels_that_cannot_be_are_named():
    clip = torch.zeros(3, 4, 16, 16)

    def error(*items: Any, task: str = "single-label") -> str:
        with pytest.raises(DataError) as caught:
            saccade.evaluate(OrderNet(), Items(*items), task=task, workers=0)
        return str(caught.value)

    assert "empty" in error()
    assert "item 0" in error(clip)
    assert "item 1" in error((clip, 0), (clip[0], 0))
    assert "label 3" in error((clip, 3))
    assert "label -1" in error((clip, 0), (clip, -1))
    assert "single-label" in error((clip, [0, 1, 0]))
    for wrong in (1, [0, 1], [0, 1, 0, 1]):
        assert "multi-label" in error((clip, wrong), task="multi-label")
    with pytest.raises(UsageError, match="workers"):
        saccade.evaluate(OrderNet(), Items((clip, 0)), workers=-1)


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "script.py")
    monkeypatch.setitem(sys.modules, "__main__", script)
    (tmp_path / "script.py").write_text("import saccade\n")
    with pytest.raises(UsageError, match="__main__"):
        saccade.evaluate(OrderNet(), Clips(), workers=2)
    assert saccade.evaluate(OrderNet(), Clips(), workers=0)["1x1"].num_videos == 7


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_cannot_be_read_is_a_failure(workers: int):
    result = saccade.evaluate(OrderNet(), Deadly("if index in (0, 2): read()"), workers=workers)["1x1"]
    assert [(failure.path, failure.cause) for failure in result.failures] == [("f", "is cut")] * 2
    assert result.labels.tolist() == [1, 0, 1, 2, 0]
    with pytest.raises(DataError, match="is cut"):
        saccade.evaluate(OrderNet(), Deadly("read()"), workers=workers)


@pytest.mark.parametrize("death", ["os._exit(3)", "raise ValueError('mine')"])
def test_a_worker_that_dies_is_not_an_error_of_the_data_set(death: str):
    error, text = (DataError, "worker process") if "exit" in death else (ValueError, "mine")
    with pytest.raises(error, match=text):
        saccade.evaluate(OrderNet(), Deadly(death), workers=1)


def broken_file() -> None:
    raise VideoError("f", "is cut")


class Deadly(Clips):
    def __init__(self, death: str) -> None:
        self.death = death

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        exec(self.death, {"index": index, "read": broken_file, "os": os})
        return super().__getitem__(index)
