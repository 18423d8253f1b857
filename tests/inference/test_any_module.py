"""Predicting with modules that are not ours, and with ours as they were built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import saccade
from saccade import tasks
from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.inference.loading import load_for_inference, own_clip
from saccade.tasks import Task
from saccade.video import write_video

CLIP = ClipSpec(num_frames=4, stride=2, crop=16, short_side=20)


class Plain(nn.Module):
    """Knows neither its name nor its classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 5, 3, padding=1)
        self.drop = nn.Dropout(0.9)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return self.drop(self.conv(x)).mean((2, 3, 4))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 255, (40, 24, 32, 3)).astype(np.uint8), fps=30)
    return path


def test_any_module_predicts_with_labels_and_a_clip(video: Path):
    model = Plain().train()
    layout = [p.stride() for p in model.parameters()]
    prediction = saccade.Predictor(model, list("abcde"), clip=CLIP)(video)
    assert prediction.class_names == tuple("abcde")
    assert prediction.scores.sum() == pytest.approx(1, abs=1e-5)
    again = saccade.Predictor(model, list("abcde"), clip=CLIP)(video)
    assert np.array_equal(prediction.scores, again.scores)  # no dropout
    assert model.training
    assert model.drop.training
    assert [p.stride() for p in model.parameters()] == layout
    counted = saccade.Predictor(model, num_classes=5, clip=CLIP)(video)
    assert counted.class_names == tuple("01234")


def test_what_a_module_does_not_say_is_asked_for():
    with pytest.raises(UsageError, match="labels"):
        saccade.Predictor(Plain(), clip=CLIP)
    with pytest.raises(UsageError, match="clip"):
        saccade.Predictor(Plain(), ["a", "b", "c", "d", "e"])


def test_a_module_may_localise(video: Path):
    class PerFrame(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((3, 4))

    found = saccade.Localizer(PerFrame(), ["r", "g", "b"], clip=CLIP)(video)
    assert found.scores.shape == (40, 3)


def test_a_model_is_shown_the_clip_it_was_built_for(video: Path):
    model = saccade.create_model("x3d_xs", 5, gamma_t=8, gamma_tau=6, gamma_s=64 / 112, gamma_w=0.5)
    clip = own_clip(model)
    assert (clip.num_frames, clip.stride) == (8, 6)
    named = saccade.model_info("x3d_xs")
    assert abs(clip.crop - named.test_crop * 64 / named.train_crop) < 1
    shapes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    saccade.Predictor(model)(video)
    assert {shape[1:] for shape in shapes} == {(3, 8, clip.crop, clip.crop)}


@pytest.mark.parametrize("name", ["x3d_xs", "x3d_m", "x2d", "vov3d_m", "rubiksnet_tiny", "mvit_base_16x4"])
def test_a_model_as_it_is_named_is_shown_its_published_clip(name: str):
    with torch.device("meta"):
        model = saccade.create_model(name, 5)
    assert own_clip(model) == saccade.model_info(name).clip_spec()


def test_a_loaded_model_stays_where_it_is(video: Path):
    loaded = load_for_inference(Plain(), labels=list("abcde"), clip=CLIP)
    assert saccade.Predictor(loaded).loaded.model is loaded.model
    moved = load_for_inference(loaded, device="meta")
    assert {p.device.type for p in moved.model.parameters()} == {"meta"}
    assert {p.device.type for p in loaded.model.parameters()} == {"cpu"}
    assert moved.class_names == tuple("abcde")


def test_a_task_of_ones_own_predicts(video: Path, monkeypatch: pytest.MonkeyPatch):
    class Squared(Task):
        """Derives from nothing that is there."""

        name = "squared"

        def activation(self, logits: Any) -> Any:
            return logits**2

        def merge(self, before: Any, output: Any, view: Any, sets: Any) -> Any:
            raise NotImplementedError

        def results(self, dataset: Any, outcome: Any) -> Any:
            raise NotImplementedError

    class Whole(Squared):
        name = "whole"
        fixed_views = "whole"

    for table in ("_entries", "_owners"):
        monkeypatch.setattr(tasks._TASKS, table, dict(getattr(tasks._TASKS, table)))
    tasks.register_task(Squared)
    tasks.register_task(Whole)
    prediction = saccade.Predictor(Plain(), list("abcde"), clip=CLIP, task="squared")(video)
    plain = saccade.Predictor(Plain(), list("abcde"), clip=CLIP)(video)
    assert prediction.scores.shape == plain.scores.shape == (5,)
    assert prediction.scores.sum() != pytest.approx(1)
    with pytest.raises(UsageError, match="whole"):
        saccade.Predictor(Plain(), list("abcde"), clip=CLIP, task="whole")
