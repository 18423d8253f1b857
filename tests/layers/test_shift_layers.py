from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from saccade.errors import ConfigError
from saccade.layers import AttentionShift, RubiksShift2d, RubiksShift3d, SqueezeExcite
from saccade.layers.shift import init_space_, init_time_


def clip(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def moved(x: Tensor, frames: int) -> Tensor:
    """x at t + frames, zeros outside."""
    out = torch.zeros_like(x)
    num = x.shape[2]
    for t in range(num):
        if 0 <= t + frames < num:
            out[:, :, t] = x[:, :, t + frames]
    return out


@pytest.mark.parametrize("stride", [1, 2])
def test_2d_moves_every_frame_alone(stride: int) -> None:
    """As a 3-D shift on each frame as a clip of its own, with the original's unit gradients."""
    layer = RubiksShift2d(6, stride=stride).double()
    x = clip(2, 6, 3, 7, 9)
    out = layer(x)
    out.square().sum().backward()
    grad = layer.shift.grad
    assert grad is not None
    torch.testing.assert_close(grad.norm(dim=0), torch.ones(6, dtype=torch.float64))
    cube = RubiksShift3d(6, stride=stride, normalize_t_factor=0.0).double()
    with torch.no_grad():
        cube.shift[0], cube.shift[1:] = 0, layer.shift
    frames = x.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    alone = cube(frames)
    alone.square().sum().backward()
    assert cube.shift.grad is not None
    torch.testing.assert_close(out.transpose(1, 2).flatten(0, 1), alone.squeeze(2))
    torch.testing.assert_close(grad, cube.shift.grad[1:])
    assert not cube.shift.grad[0].any()


def test_plus_one_reads_the_next_frame_the_row_below_and_the_column_to_the_right() -> None:
    layer = RubiksShift3d(3).double()
    with torch.no_grad():
        layer.shift.copy_(torch.eye(3))
    x = clip(1, 3, 4, 5, 6)
    out = layer(x)
    torch.testing.assert_close(out[:, 0, :-1], x[:, 0, 1:])
    torch.testing.assert_close(out[:, 1, :, :-1], x[:, 1, :, 1:])
    torch.testing.assert_close(out[:, 2, :, :, :-1], x[:, 2, :, :, 1:])
    assert not out[:, 0, -1].any()


# ---------------------------------------------------------------------------------------------------- start


def test_uniform_starts() -> None:
    torch.manual_seed(0)
    shift = RubiksShift3d(4000).shift
    assert shift.abs().max() <= 1
    torch.testing.assert_close(shift.std(dim=1), torch.full((3,), 3**-0.5), rtol=0.05, atol=0)
    small = init_time_(torch.empty(4000), "uniform0.25")
    assert 0.24 < small.abs().max() <= 0.25


def test_tsm_starts() -> None:
    row = init_time_(torch.empty(20), "tsm")
    assert row.tolist() == [1, 1, -1, -1] + [0] * 16
    noisy = init_time_(torch.empty(8000), "tsm-g0.1")
    for part, mean in zip(noisy.split([1000, 1000, 6000]), (1, -1, 0), strict=True):
        assert part.mean().item() == pytest.approx(mean, abs=0.02)
        assert part.std().item() == pytest.approx(0.1, rel=0.1)
    assert not init_time_(torch.empty(9), "none").any()


def test_group_start_is_a_grid_of_offsets_per_group() -> None:
    shift = init_space_(torch.empty(2, 20), "group3")
    rows = [-1.0, 0.0, 1.0] * 3
    assert shift[0].tolist() == [*rows, *rows, 0, 0]
    columns = [-1.0] * 3 + [0.0] * 3 + [1.0] * 3
    assert shift[1].tolist() == [*columns, *columns, 0, 0]
    wide = init_space_(torch.empty(2, 25), "group5")
    assert len({tuple(pair) for pair in wide.T.tolist()}) == 25
    assert wide.abs().max() == 2


@pytest.mark.parametrize("how", ["group", "group2", "group1", "groups3", "tsm"])
def test_bad_space_start(how: str) -> None:
    with pytest.raises(ConfigError, match=f"space_init must be one of .* got '{how}'"):
        RubiksShift2d(9, space_init=how)


@pytest.mark.parametrize("how", ["tsm-g", "tsm-g0", "tsmg.1", "uniform0", "uniform-1", "nan", "none1"])
def test_bad_time_start(how: str) -> None:
    with pytest.raises(ConfigError, match=f"time_init must be one of .* got '{how}'"):
        RubiksShift3d(9, time_init=how)


# ------------------------------------------------------------------------------------------------ attention


def test_taps_are_the_softmax_of_weights_in_units_of_their_deviation() -> None:
    layer = AttentionShift(2, temperature=0.5).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]))
    expected = torch.tensor([[0.0, 2.0, 4.0], [2 * 3**0.5, 0.0, 0.0]], dtype=torch.float64).softmax(1)
    torch.testing.assert_close(layer.taps(), expected, rtol=1e-5, atol=1e-6)
    x = clip(2, 2, 4, 3, 3)
    taps = layer.taps().view(1, 2, 3, 1, 1, 1)
    blend = sum(taps[:, :, k] * moved(x, k - 1) for k in range(3))
    torch.testing.assert_close(layer(x), blend)


def test_a_hard_choice_is_a_whole_temporal_shift() -> None:
    torch.manual_seed(0)
    layer = AttentionShift(12).double()
    best = layer.logits().argmax(dim=1) - 1
    assert set(best.tolist()) == {-1, 0, 1}
    may_move = torch.arange(12) < 8
    layer.harden(may_move)
    assert layer.offset.tolist() == [int(b) if m else 0 for b, m in zip(best, may_move, strict=True)]
    assert torch.equal(
        layer.taps().sort(dim=1).values, torch.tensor([[0.0, 0.0, 1.0]]).expand(12, 3).double()
    )
    x = clip(2, 12, 5, 4, 4).requires_grad_()
    out = layer(x)
    for channel, frames in enumerate(layer.offset.tolist()):
        assert torch.equal(out[:, channel], moved(x, frames)[:, channel])
    out.sum().backward()
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_the_choice_is_in_the_state_dict() -> None:
    layer = AttentionShift(12)
    layer.harden(torch.ones(12, dtype=torch.bool))
    other = AttentionShift(12)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.taps(), layer.taps())
    assert other.temperature == 0


# ---------------------------------------------------------------------------------------- squeeze-excitation


def test_squeeze_excitation_per_frame() -> None:
    torch.manual_seed(0)
    layer = SqueezeExcite(6, 2, bias=False, per_frame=True).double()
    assert [name for name, _ in layer.named_parameters()] == ["fc1.weight", "fc2.weight"]
    x = clip(2, 6, 3, 4, 4)
    whole = SqueezeExcite(6, 2, bias=False).double()
    whole.load_state_dict(layer.state_dict())
    for t in range(3):
        torch.testing.assert_close(layer(x)[:, :, t : t + 1], whole(x[:, :, t : t + 1]))
    assert not torch.allclose(layer(x), whole(x))


def test_a_config_draws_no_random_numbers():
    code = (
        "import torch; torch.manual_seed(0); import saccade\n"
        "first = saccade.create_model('rubiksnet_tiny', 2).state_dict()['res2.0.shift.shift']\n"
        "torch.manual_seed(0)\n"
        "again = saccade.create_model('rubiksnet_tiny', 2).state_dict()['res2.0.shift.shift']\n"
        "assert torch.equal(first, again)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
