from __future__ import annotations

import pytest
import torch

from saccade.layers import DropPath, SqueezeExcite, round_channels


@pytest.mark.parametrize(
    ("width", "rounded"), [(3.375, 8), (27, 32), (34.8, 32), (69.6, 72), (139.2, 136), (278.4, 280), (24, 24)]
)
def test_round_channels_is_the_rule_of_the_paper(width: float, rounded: int) -> None:
    assert round_channels(width) == rounded


def test_drop_path_drops_whole_clips_and_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    y = drop(torch.ones(4000, 2, 1, 3, 3))
    per_clip = y.flatten(1)
    assert (per_clip == per_clip[:, :1]).all()
    assert per_clip.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert y.mean().item() == pytest.approx(1.0, abs=0.03)
    x = torch.randn(2, 3, 1, 2, 2)
    assert drop.eval()(x) is x


def test_drop_path_rejects_a_rate_of_one() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        DropPath(1.0)


def test_squeeze_excite_is_its_definition() -> None:
    torch.manual_seed(0)
    layer = SqueezeExcite(6, 4)
    x = torch.randn(2, 6, 3, 5, 5)
    mean = x.flatten(2).mean(2)
    hidden = torch.relu(mean @ layer.fc1.weight.flatten(1).T + layer.fc1.bias)
    gate = torch.sigmoid(hidden @ layer.fc2.weight.flatten(1).T + layer.fc2.bias)
    torch.testing.assert_close(layer(x), x * gate[:, :, None, None, None])
