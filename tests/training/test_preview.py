"""`saccade data preview`: the batch that a step trains on, as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.ava_miniature import make_ava
from saccade.cli import main
from saccade.cli.data import draw_preview
from saccade.clip import ClipSpec
from saccade.data.types import ClipBatch
from saccade.errors import ConfigError, UsageError
from saccade.recipes import get_recipe
from saccade.training import TrainConfig, train
from saccade.training.config import AugmentConfig, ModelConfig
from saccade.training.preview import _network_view, caption, preview_batch
from saccade.training.step import GradientStep
from saccade.visualize.sheets import clip_sheet

MakeConfig = Callable[..., TrainConfig]
STRONG = (
    *("--augment.mixup", "0.8", "--augment.cutmix", "1", "--augment.rand-ops", "2"),
    *("--augment.erasing", "0.5", "--accumulate", "2"),
)


@pytest.mark.parametrize(
    "flags", [(), STRONG, (*STRONG, "--cache-mb", "16")], ids=["plain", "strong", "cache"]
)
def test_the_preview_is_what_the_step_trains_on(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
):
    config = tiny_config("run", "--epochs", "2", "--val-every", "0", *flags)
    seen: list[torch.Tensor] = []
    plain = GradientStep.inputs

    def noting(self: GradientStep, batch: ClipBatch) -> tuple[torch.Tensor, torch.Tensor]:
        x, labels = plain(self, batch)
        seen.append(x)
        return x, labels

    monkeypatch.setattr(GradientStep, "inputs", noting)
    train(config)
    parts = config.accumulate
    for step in (0, 7):
        preview = preview_batch(config, step)
        trained = torch.cat(seen[step * parts : (step + 1) * parts])
        pixels = (trained * 0.225 + 0.45).clamp(0, 1).mul(255).round()
        assert preview.frames.permute(0, 4, 1, 2, 3).float().equal(pixels)
        assert len(preview.captions) == len(preview.sources) == 4
        assert preview.boxes is None
    assert not (Path(config.out) / "preview").exists()


def test_boxes_of_people_are_drawn(tmp_path: Path):
    config = get_recipe("x3d_m_ava").replace(
        data=str(make_ava(tmp_path / "ava", num_videos=2)),
        model=ModelConfig(name="x2d"),
        clip=ClipSpec(num_frames=2, stride=2, crop=36, short_side=36),
        augment=AugmentConfig(short_side=(36, 40), crop=32),
        batch_size=3,
        accumulate=1,
    )
    preview = preview_batch(config)
    assert preview.boxes is not None
    assert len(preview.boxes) == len(preview.captions) == len(preview.frames) == 3
    boxes = torch.cat(preview.boxes)
    assert len(boxes) > 0
    assert 0 <= boxes.min() < boxes.max() <= 32
    for own, told in zip(preview.boxes, preview.captions, strict=True):
        assert (told == "nothing") == (len(own) == 0)
    draw_preview(config, 0, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    assert (np.abs(sheet - (232, 118, 45)).max(2) < 8).sum() > 50  # orange outlines


def test_of_moments_every_class_is_told(tiny_config: MakeConfig):
    clips = [torch.zeros(2, 36, 36, 3, dtype=torch.uint8)] * 2
    labels = torch.zeros(2, 3, 4)
    labels[0, 1, 2] = labels[0, 2, 0] = labels[1, 0] = 1
    batch = ClipBatch(clips, labels, (0, 1), (0, 1), 32, inside=torch.ones(2, 4, dtype=torch.bool))
    config = tiny_config("run", "--task", "localization")
    _, told, files, _ = _network_view(config, batch, ("a", "b", "c"), ["x.mp4", "y.mp4"])
    assert [caption(own, ("a", "b", "c")) for own in told] == ["b, c", "a"]
    assert files == ["x.mp4", "y.mp4"]


def test_captions_say_shares():
    names = ("a", "b", "c")
    assert caption(torch.tensor(1), names) == "b"
    assert caption(torch.tensor([0.0, 0.25, 0.75]), names) == "c 75\u00a0% + b 25\u00a0%"
    assert caption(torch.tensor([1.0, 0.0, 1.0]), names) == "a, c"
    assert caption(torch.zeros(3), names) == "nothing"
    assert caption(torch.tensor([0.999, 0.001, 0.0]), names) == "a"


def test_the_sheet_shows_every_clip_and_keeps_its_text_beside_them():
    clips = np.zeros((3, 4, 20, 24, 3), np.uint8)
    for number, colour in enumerate(((250, 0, 0), (0, 250, 0), (0, 0, 250))):
        clips[number] = colour
    names = ["a", "with a word that is far too long for the column " + "x" * 200, "b 50\u00a0% + c 50\u00a0%"]
    sheet = np.asarray(clip_sheet(clips, names, ["", "file.mp4", ""], title="title"))
    for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250)):
        assert (sheet == colour).all(2).sum() == 4 * 20 * 24
    assert (sheet[40:, 212:222] == 255).all()  # between text and pictures
    assert (sheet[40:, 12:210].min(2) < 150).sum() > 200  # letters


def test_large_clips_shrink_and_long_ones_show_eight_frames():
    clips = np.full((1, 32, 224, 224, 3), 100, np.uint8)
    sheet = clip_sheet(clips, ["a"], [""], title="t")
    assert sheet.width < 1200
    boxes = [np.array([[10.0, 10, 60, 60]], np.float32)]
    assert np.asarray(clip_sheet(clips, ["a"], [""], title="t", boxes=boxes)).std() > np.asarray(sheet).std()


def test_the_command(tiny_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "sheet.png"
    flags = ["--data", str(tiny_clips), "--augment.mixup", "0.8", "--augment.short-side", "96", "100"]
    flags += ["--clip.stride", "1", "--batch-size", "4"]
    assert main(["data", "preview", "x3d_ucf10", *flags, "--out", str(out), "--step", "2"]) == 0
    with Image.open(out) as sheet:
        assert sheet.size[1] > 4 * 96
    assert "the batch of step 2" in capsys.readouterr().err
    assert main(["data", "preview", "--help"]) == 0
    assert "--step N" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data", "x"], "give the recipe first"),
        (["x3d_ucf10", "--out", "sheet.pdf"], "--out sheet.pdf"),
        (["x3d_ucf10", "--step", "-1"], "--step: must be at least 0, got -1"),
        (["x3d_ucf10", "--step"], "--step: expected one argument"),
        (["x3d_ucf10"], "x3d_ucf10 needs a data set: give --data PATH"),
        (["x3d_ucf"], "did you mean x3d_ucf10"),
        (["x3d_ucf10", "--augment.mixupp", "1"], "did you mean --augment.mixup"),
    ],
)
def test_a_wrong_call_is_one_line(args: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "preview", *args]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


def test_a_step_that_the_run_lacks_is_refused(tiny_config: MakeConfig):
    with pytest.raises(UsageError, match=r"^step: must be in 0\.\.9, .*10"):
        preview_batch(tiny_config("run", "--epochs", "2"), 10)
    with pytest.raises(ConfigError, match=r"^augment\.mixup"):
        preview_batch(tiny_config("run", "--augment.mixup", "-1"))
