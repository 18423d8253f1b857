"""Drawings of HOG, and MaskFeat's predictions of masked tokens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.cli import main
from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.models import MaskFeat, create_model, save_weights
from saccade.transforms.hog import hog
from saccade.transforms.masked_targets import token_targets
from saccade.transforms.masking import CubeMask
from saccade.video import open_video, write_video
from saccade.visualize.clips import InputClip, read_clip
from saccade.visualize.hog import (
    _as_cells,
    _as_pixels,
    draw_hog,
    edge_angles,
    hog_sheet,
    hog_video,
    panel_images,
    predict_masked,
    strokes,
)

SPEC = ClipSpec(num_frames=4, stride=2, crop=64, short_side=64, target_fps=20.0)
SHAPE: dict[str, Any] = {"embed_dim": 4, "depth": 4, "widen_at": (1,), "pool_q_at": (1, 3), "num_frames": 4}


def tiny(name: str = "maskfeat_mvit_base", **more: Any) -> MaskFeat:
    torch.manual_seed(0)
    model = create_model(name, 0, **{**SHAPE, "train_crop": 64, **more}).eval()
    assert isinstance(model, MaskFeat)
    return model


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> InputClip:
    path = tmp_path_factory.mktemp("hog") / "one.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (20, 8, 10, 3), np.uint8)
    write_video(path, frames.repeat(8, axis=1).repeat(8, axis=2), fps=20)
    return read_clip(path, SPEC)


def waves(angle: float) -> torch.Tensor:
    """A frame with edges at ``angle``: 0 is horizontal, pi/2 vertical."""
    y, x = np.mgrid[:48, :48]
    across = -np.sin(angle) * x + np.cos(angle) * y
    grey = np.round(127 + 120 * np.sin(across / 2.5)).astype(np.uint8)
    return torch.from_numpy(np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("angle", [0.17, math.pi / 2, 0.9, 2.3])
def test_strokes_follow_the_edges(kind: Any, angle: float):
    cells = hog(waves(angle), kind).mean(2)
    strongest = int(cells.mean((0, 1)).argmax())
    apart = abs((edge_angles(kind)[strongest] - angle + math.pi / 2) % math.pi - math.pi / 2)
    assert apart <= math.pi / 18 + 1e-6  # half a bin
    y, x = np.nonzero(strokes(kind, 24)[strongest] > 0.5)
    main_axis = np.linalg.svd(np.stack([x - x.mean(), y - y.mean()]))[0][:, 0]
    drawn = math.atan2(main_axis[1], main_axis[0])
    assert abs((drawn - angle + math.pi / 2) % math.pi - math.pi / 2) < math.pi / 18 + 0.05


def test_draw_hog():
    cells = np.zeros((2, 3, 9), np.float32)
    cells[1, 2, 4] = 1.0
    cells[0, 0, 0] = 0.5
    cells[0, 1, 3] = -1.0
    darkness = draw_hog(cells, "soft", 16)
    assert darkness.shape == (32, 48)
    np.testing.assert_allclose(darkness[16:, 32:], strokes("soft", 16)[4], atol=1e-6)
    np.testing.assert_allclose(darkness[:16, :16], 0.5 * strokes("soft", 16)[0], atol=1e-6)
    assert not darkness[:16, 16:].any()


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_tokens_to_cells(kind: Any):
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    found = _as_cells(token_targets(frames, kind, (4, 4)), kind, frames)
    np.testing.assert_allclose(found, hog(frames, kind).mean(3).numpy(), atol=1e-6)


def test_tokens_to_pixels():
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    found = _as_pixels(token_targets(frames, "pixels", (4, 4)), "pixels", frames)
    np.testing.assert_allclose(found, frames.numpy() / 255, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind", "num"),
    [("maskfeat_mvit_base", "soft", 4), ("maskfeat_mvitv2_small", "hard", 2)],
)
def test_masked_tokens_are_predicted(name: str, kind: str, num: int, clip: InputClip):
    model = tiny(name)
    mask = np.zeros((2, 4, 4), np.bool_)
    mask[1, :2, 3] = True
    found = predict_masked(model, clip, CubeMask(mask))
    assert (found.kind, found.target_name) == (kind, "HOG")
    assert found.frames.tolist() == ([0, 1, 2, 3] if num == 4 else [0, 2])
    assert [layer.tolist() for layer in found.masked[[0, -1]]] == [mask[0].tolist(), mask[1].tolist()]
    assert found.predicted.shape == found.target.shape == (num, 8, 8, 9)
    pixels = torch.from_numpy(clip.pixels)[found.frames]
    np.testing.assert_allclose(found.target, hog(pixels, model.target_kind).mean(3).numpy(), atol=1e-6)
    with torch.no_grad():
        output = model(clip.inputs, torch.from_numpy(mask)[None])[0].numpy()
    for frame in range(num):  # the cell (5, 2) is in token (2, 1)
        token = output[frame // (num // 2), 2, 1].reshape(num // 2, -1)[frame % (num // 2)]
        cell = token.reshape(2, 2, 3, 9)[1, 0] if kind == "soft" else token.reshape(3, 9, 2, 2)[:, :, 1, 0]
        np.testing.assert_allclose(found.predicted[frame, 5, 2], cell.mean(0), atol=1e-5)
    perfect = token_targets(pixels, model.target_kind, (4, 4)).numpy()
    wrong = output.reshape(2, 4, 4, num // 2, -1).transpose(0, 3, 1, 2, 4).reshape(perfect.shape)
    hidden = found.masked
    spread = ((perfect[hidden] - perfect[hidden].mean(0)) ** 2).sum()
    expected = 1 - ((wrong - perfect)[hidden] ** 2).sum() / spread
    assert found.explained == pytest.approx(expected, rel=1e-3)


def test_panel_images(clip: InputClip):
    mask = np.zeros((2, 4, 4), np.bool_)
    mask[:, 0, 0] = True
    found = predict_masked(tiny(), clip, CubeMask(mask))
    masked, predicted, target, original = (picture.astype(int) for picture in panel_images(found, 1, 192))
    assert original.shape == (192, 192, 3)
    assert (masked[:48, :48] == masked[0, 0]).all()
    assert (masked[48:] == original[48:]).all()
    assert target[:48, :48].min() < 60 < target[56:, 56:].min()  # dark strokes only on the masked token
    assert target[0, 0, 2] < 230 < target[-1, -1, 2]  # coloured background
    assert abs(predicted - target).max() > 20


def test_sheet_and_video(clip: InputClip, tmp_path: Path):
    mask = np.zeros((2, 4, 4), np.bool_)
    mask[1] = True
    found = predict_masked(tiny(), clip, CubeMask(mask))
    figure = hog_sheet(found, title="Title", subtitle="below", rows=3)
    assert len(figure.axes) == 2 * 4  # two frames have masked tokens
    texts = {text.get_text() for text in figure.texts}
    assert {"masked input", "predicted HOG", "target HOG", "original", "Title", "below"} <= texts
    assert {f"{clip.seconds[i]:.2f} s" for i in (2, 3)} <= texts
    figure.canvas.draw()
    assert all(text.get_window_extent().x0 >= 0 for text in figure.texts)
    with open_video(hog_video(found, tmp_path / "out.mp4", title="Title")) as video:
        assert (len(video), video.fps) == (4, pytest.approx(10))  # every second frame of 20 fps
        assert video.size[1] > 4 * 336


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    clip = {"num_frames": 4, "stride": 2, "crop": 64, "short_side": 64, "target_fps": 20.0}
    metadata = {"clip": {**clip, "mean": [0.45] * 3, "std": [0.225] * 3}, "task": "masked"}
    save_weights(tiny(), folder / "best.safetensors", metadata=metadata)
    masked = {"rule": "pyslowfast", "ratio": 0.5, "coarse": 1, "scored": "all", "min_patches": 2}
    (folder / "config.json").write_text(json.dumps({"config": {"masked": masked}}))
    frames = np.random.default_rng(0).integers(0, 256, (20, 80, 90, 3), np.uint8)
    write_video(folder / "one.mp4", frames, fps=20)
    return folder


def test_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    args = ["visualize", "hog", str(run), str(run / "one.mp4"), "--out", str(tmp_path), "--rows", "2"]
    assert main(args) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "one.hog.png"), str(tmp_path / "one.hog.mp4")]
    with Image.open(tmp_path / "one.hog.png") as sheet:
        assert sheet.width > 1400
    with open_video(tmp_path / "one.hog.mp4") as video:
        assert len(video) == 4


def test_the_mask_uses_the_settings_of_the_run(run: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    monkeypatch.setattr("saccade.visualize.hog.hog_sheet", lambda found, **how: seen.append((found, how)))
    monkeypatch.setattr("saccade.visualize.charts.save_figure", lambda figure, path: None)
    args = ["visualize", "hog", str(run), str(run / "one.mp4"), "--no-video"]
    for flags in ([], ["--seed", "1"], ["--ratio", "0.25"]):
        assert main([*args, *flags]) == 0
    ratios = [found.masked.mean() for found, _ in seen]
    assert ratios == pytest.approx([0.5, 0.5, 0.25], abs=0.07)
    assert (seen[0][0].masked != seen[1][0].masked).any()
    assert "explains" in seen[0][1]["subtitle"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rows", "0"], "--rows: must be at least 1, got 0"),
        (["--ratio", "1"], "--ratio must lie between 0 and 1, got 1"),
    ],
)
def test_errors_are_one_line(run: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    assert main(["visualize", "hog", str(run), str(run / "one.mp4"), *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_other_models_and_wrong_masks_are_refused(clip: InputClip):
    with pytest.raises(UsageError, match=r"x2d .*maskfeat_"):
        predict_masked(create_model("x2d", 2), clip, CubeMask(np.zeros((2, 4, 4), np.bool_)))
    with pytest.raises(UsageError, match=r"\(1, 4, 4\).*\(2, 4, 4\)"):
        predict_masked(tiny(), clip, CubeMask(np.zeros((1, 4, 4), np.bool_)))
