"""Grad-CAM: by hand, against the formula written out, and as a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from saccade.cli import main
from saccade.errors import UsageError
from saccade.models import VideoModel, create_model, save_weights
from saccade.video import open_video, write_video
from saccade.visualize.gradcam import grad_cam

TINY = {
    "x3d_xs": {"gamma_w": 0.5, "gamma_d": 1.0, "head_width": 16},
    "vov3d_m": {"inner_channels": 8, "depths": (1, 1, 1, 1), "num_conv": 2, "head_width": 16},
    "rubiksnet_tiny": {"width": 8, "depths": (1, 1, 1, 1)},
    "rubiksnet_tiny_aq": {"width": 8, "depths": (1, 1, 1, 1)},
    "tsm_efficientnet_lite0": {"width": 0.25},
}


def tiny(name: str, **more: object) -> VideoModel:
    torch.manual_seed(0)
    model = create_model(name, 4, **TINY[name], **more).eval()
    with torch.no_grad():  # make blocks differ from their shortcuts
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
        model.head.classifier.weight.normal_()  # type: ignore[union-attr, operator]
    return model


class MeanColour(nn.Module):
    """Logits: mean red, and 2 x mean green - mean blue."""

    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, -1.0]])

    def window_logits(self, x: Tensor) -> Tensor:
        return (x.mean((2, 3, 4)) @ self.weights.T)[:, None, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.window_logits(x)[:, 0, 0, 0]


def colour_model() -> VideoModel:
    model = create_model("x2d", 2)
    model.stem, model.head = nn.Identity(), MeanColour()  # type: ignore[assignment]
    model.res2 = model.res3 = model.res4 = model.res5 = nn.Identity()  # type: ignore[assignment]
    return model


def test_maps_of_a_linear_model():
    clip = torch.zeros(1, 3, 4, 5, 6)
    clip[0, 0, 1, 2, 3] = 3.0  # one red pixel
    clip[0, 1, 3, 0, 0] = 2.0  # one green pixel with some blue
    clip[0, 2, 3, 0, 0] = 1.0
    clip[0, 2, 0, 4, 4] = 5.0  # blue: evidence against class 1
    found = grad_cam(colour_model(), clip, [0, 1])
    expected = np.zeros((2, 4, 5, 6), np.float32)
    expected[0, 1, 2, 3] = 3.0 / 120  # the mean is over 4 x 5 x 6 pixels
    expected[1, 3, 0, 0] = (2 * 2.0 - 1.0) / 120
    np.testing.assert_allclose(found.maps, expected, rtol=1e-6)
    assert found.scaled().max(axis=(1, 2, 3)).tolist() == [1.0, 1.0]
    np.testing.assert_allclose(found.logits, [3 / 120, (4 - 1 - 5) / 120], atol=1e-7)
    best = grad_cam(colour_model(), clip)
    assert best.labels == (0,)
    np.testing.assert_allclose(best.maps[0], found.maps[0])


def test_a_class_without_positive_evidence_has_an_empty_map():
    clip = torch.zeros(1, 3, 2, 2, 2)
    clip[:, 2] = 1.0
    found = grad_cam(colour_model(), clip, [1])
    assert not found.maps.any()
    assert not found.scaled().any()  # no division 0 / 0


def naive(features: Tensor, gradient: Tensor) -> Tensor:
    """The paper's equations 1 and 2: features (C, T, h, w) and the gradient of a score -> the map."""
    total = torch.zeros_like(features[0])
    for channel, slope in zip(features, gradient, strict=True):
        total += slope.sum() / slope.numel() * channel
    return total.clamp(min=0)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("stage", [-1, 2])
def test_maps_match_the_naive_formula(name: str, stage: int):
    model = tiny(name).double()
    clip = torch.randn(1, 3, 4, 64, 64, dtype=torch.float64)
    found = grad_cam(model, clip, [0, 1, 2, 3], stage=stage)
    assert found.maps.any()
    outputs: list[Tensor] = []
    handle = model.stages()[stage].register_forward_hook(lambda _, __, output: outputs.append(output))
    logits = model(clip)[0]
    handle.remove()
    np.testing.assert_allclose(found.logits, logits.detach().numpy(), rtol=1e-6)
    for label, maps in enumerate(found.maps):
        if stage == -1 and name.startswith(("rubiks", "tsm")):  # then the head is linear
            head: Any = model.head
            features = head.activate(outputs[0])[0]
            gradient = head.classifier.weight[label][:, None, None, None] / features[0].numel()
            gradient = gradient.expand_as(features)
        else:
            features = outputs[0][0]
            gradient = torch.autograd.grad(logits[label], outputs[0], retain_graph=True)[0][0]
        expected = naive(features.detach(), gradient.detach())
        np.testing.assert_allclose(maps, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_windows_are_averaged_before_the_softmax():
    model = tiny("x3d_xs")
    clip = torch.randn(1, 3, 4, 192, 224)  # a map of 6 x 7, where the head's window is 5 x 5
    found = grad_cam(model, clip, [1])
    with torch.no_grad():
        windows = model.window_logits(clip)  # type: ignore[operator]
        assert windows.shape == (1, 1, 2, 3, 4)
        np.testing.assert_allclose(found.logits, model(clip)[0].numpy(), rtol=1e-5)
    assert found.maps.shape == (1, 4, 6, 7)
    assert found.maps.any()


def test_localization_model():
    found = grad_cam(tiny("x3d_xs", localization=True), torch.randn(1, 3, 4, 64, 64))
    assert found.logits.shape == (4,)
    assert found.maps.shape == (1, 4, 2, 2)


def test_the_model_is_unchanged():
    model = tiny("rubiksnet_tiny").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grad_cam(model, torch.randn(1, 3, 4, 64, 64))
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("labels", "stage", "words"),
    [
        ([4], -1, "class 4: the model has classes 0 to 3"),
        (None, 5, "stage 5: x3d_xs has stages 0 to 4"),
    ],
)
def test_unknown_classes_and_stages_are_refused(labels: list[int] | None, stage: int, words: str):
    with pytest.raises(UsageError, match=words):
        grad_cam(tiny("x3d_xs"), torch.zeros(1, 3, 4, 32, 32), labels, stage=stage)


def test_unsupported_models_are_refused():
    with pytest.raises(UsageError, match="detection model"):
        grad_cam(tiny("x3d_xs", detection=True), torch.zeros(1, 3, 4, 32, 32))
    with pytest.raises(UsageError, match="convolutional model, got Linear"):
        grad_cam(nn.Linear(1, 1), torch.zeros(1, 3, 4, 32, 32))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run folder and two videos."""
    folder = tmp_path_factory.mktemp("gradcam")
    clip = {"num_frames": 4, "stride": 2, "crop": 32, "short_side": 40, "target_fps": 20.0}
    clip |= {"mean": [0.45] * 3, "std": [0.225] * 3}
    metadata = {"class_names": ["to the left", "to_the_right", "up", "down"], "clip": clip}
    save_weights(tiny("x3d_xs"), folder / "run" / "best.safetensors", metadata=metadata)
    frames = np.random.default_rng(0).integers(0, 256, (30, 60, 90, 3), np.uint8)
    write_video(folder / "one.mp4", frames, fps=20)
    write_video(folder / "two.mp4", frames[:6], fps=20)
    return folder


def test_the_command_writes_a_sheet_and_a_video(run: Path, capsys: pytest.CaptureFixture[str]):
    args = ["visualize", "gradcam", str(run / "run"), str(run / "one.mp4"), str(run / "two.mp4")]
    assert main([*args, "--out", str(run / "out"), "--top", "2", "--columns", "3"]) == 0
    names = [f"{video}.gradcam.{kind}" for video in ("one", "two") for kind in ("png", "mp4")]
    assert capsys.readouterr().out.split() == [str(run / "out" / name) for name in names]
    with Image.open(run / "out" / "one.gradcam.png") as sheet:
        assert min(sheet.size) > 500  # three frames, three rows
    with open_video(run / "out" / "one.gradcam.mp4") as video:
        assert (len(video), video.fps) == (7, 20.0)  # from the first of 4 frames to the last, 2 apart
        assert video.size[1] > 3 * 256
    with open_video(run / "out" / "two.gradcam.mp4") as video:
        assert len(video) == 6  # shorter than the clip; only the model's input repeats its last frame


def test_classes_and_stage_by_name(run: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(
        "saccade.visualize.overlay.map_sheet", lambda clip, rows, **how: seen.append((clip, rows, how))
    )
    monkeypatch.setattr("saccade.visualize.charts.save_figure", lambda figure, path: None)
    args = ["visualize", "gradcam", str(run / "run"), str(run / "one.mp4"), "--no-video"]
    classes = [f"--class={name}" for name in ("to_the_right", "3", "0", "up")]
    assert main([*args, *classes, "--stage=res3", "--start=0.5"]) == 0
    ((clip, rows, how),) = seen
    assert [row.title for row in rows] == ["to_the_right", "down", "to the left", "up"]
    assert rows[0].maps.shape == (4, 4, 4)  # res3 is an eighth of 32 pixels
    assert max(row.maps.max() for row in rows) == 1.0
    assert clip.indices.tolist() == [10, 12, 14, 16]
    assert how["title"] == "Grad-CAM: one.mp4"
    assert how["subtitle"].startswith("x3d_xs predicts ")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--class", "to the"], "--class to the: no such class of the model; did you mean to the left"),
        (["--class", "up", "--top", "2"], "--class and --top"),
        (["--top", "0"], "--top: must be at least 1"),
        (["--stage", "res9"], "--stage res9: x3d_xs has stages stem, res2, res3, res4, res5"),
        (["--columns", "0"], "--columns: must be at least 1"),
        (["--start", "-1"], "--start: must be at least 0, got -1"),
        (["--start", "2"], "start 2 s is beyond the end of the video, which lasts 1.5 s"),
    ],
)
def test_errors_are_one_line(run: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    assert main(["visualize", "gradcam", str(run / "run"), str(run / "one.mp4"), *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_an_unreadable_video_is_reported_and_the_others_are_drawn(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    videos = [str(tmp_path / "broken.mp4"), str(run / "one.mp4")]
    args = ["visualize", "gradcam", str(run / "run"), *videos, "--out", str(tmp_path), "--no-video"]
    assert main(args) == 1
    captured = capsys.readouterr()
    assert captured.out.split() == [str(tmp_path / "one.gradcam.png")]
    assert "1 of 2 videos could not be drawn" in captured.err
    assert "broken.mp4" in captured.err


def test_a_video_shorter_than_the_start_is_reported_and_the_others_are_drawn(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    videos = [str(run / "two.mp4"), str(run / "one.mp4")]
    args = ["visualize", "gradcam", str(run / "run"), *videos, "--out", str(tmp_path), "--no-video"]
    assert main([*args, "--start", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.out.split() == [str(tmp_path / "one.gradcam.png")]
    assert "1 of 2 videos could not be drawn" in captured.err
    assert "two.mp4: start 1 s is beyond the end of the video, which lasts 0.3 s" in captured.err
