"""Heads for several labels a clip and for labels in time, of every convolutional model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saccade.errors import ConfigError
from saccade.models import create_model

SMALL: dict[str, dict[str, Any]] = {
    "x3d_xs": {"gamma_w": 0.3, "gamma_d": 1.0, "head_width": 16, "gamma_t": 4, "gamma_s": 64 / 112},
    "vov3d_m": {
        "inner_channels": 4,
        "depths": "1,1,1,1",
        "num_conv": 1,
        "head_width": 16,
        "num_frames": 4,
        "train_crop": 64,
    },
    "rubiksnet_tiny": {"width": 8, "depths": "1,1,1,1"},
}


@pytest.mark.parametrize("name", SMALL)
def test_logits_per_frame_whose_mean_the_classifier_s_bias_moves(name: str):
    torch.manual_seed(0)
    model = create_model(name, 5, localization=True, **SMALL[name])
    clips = torch.randn(2, 3, 6, 64, 64)
    logits = model.eval()(clips)
    assert logits.shape == (2, 5, 6)
    with torch.no_grad():
        model.head.classifier.bias[3] += 1  # type: ignore[index, operator, union-attr]
    change = model(clips) - logits
    torch.testing.assert_close(change[:, 3], torch.ones(2, 6))
    assert change[:, :3].abs().max() < 1e-6
    again = create_model(**model.build_args)
    again.load_state_dict(model.state_dict())
    assert again.eval()(clips).equal(model(clips))


def test_rubiksnet_per_clip_is_the_mean_of_its_frames():
    torch.manual_seed(0)
    per_frame = create_model("rubiksnet_tiny", 5, localization=True, **SMALL["rubiksnet_tiny"]).eval()
    per_clip = create_model("rubiksnet_tiny", 5, **SMALL["rubiksnet_tiny"]).eval()
    per_clip.load_state_dict(per_frame.state_dict())
    clips = torch.randn(2, 3, 6, 64, 64)
    torch.testing.assert_close(per_clip(clips), per_frame(clips).mean(2))


@pytest.mark.parametrize("name", ["x3d_xs", "vov3d_m"])
@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_scores_of_a_larger_crop_are_the_mean_over_windows(name: str, scores: str):
    torch.manual_seed(0)
    model = create_model(name, 5, head_scores=scores, dropout=0.0, **SMALL[name])
    clips = torch.randn(2, 3, 4, 96, 96)  # 3x3 places for a window of 2x2: four windows
    windows = model.eval().window_logits(clips).flatten(1, 3)
    assert windows.shape == (2, 4, 5)
    turn = torch.sigmoid if scores == "sigmoid" else lambda logits: logits.softmax(-1)
    torch.testing.assert_close(turn(model(clips)), turn(windows).mean(1))
    model.train()
    torch.testing.assert_close(model(clips), model.window_logits(clips).flatten(1, 3).mean(1))
    assert create_model(**model.build_args).head.scores == scores


def test_scores_far_from_a_half_stay_finite():
    model = create_model("x3d_xs", 2, head_scores="sigmoid", **SMALL["x3d_xs"])
    with torch.no_grad():
        model.head.classifier.bias.copy_(torch.tensor([90.0, -90.0]))  # type: ignore[operator, union-attr]
    logits = model.eval()(torch.randn(1, 3, 4, 96, 96))
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits.detach().round(), torch.tensor([[90.0, -90.0]]), atol=2, rtol=0)


def test_a_wrong_word_is_refused():
    with pytest.raises(ConfigError, match="head_scores must be one of softmax, sigmoid, got 'tanh'"):
        create_model("x3d_xs", 2, head_scores="tanh")
    with pytest.raises(ConfigError, match="localization must be true or false"):
        create_model("rubiksnet_tiny", 2, localization="yes")
