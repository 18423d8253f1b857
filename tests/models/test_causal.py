"""Causal networks: every step of a stream is the network on the clip so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from saccade.errors import ConfigError, UsageError, WeightsError
from saccade.layers import AttentionShift, RubiksShift3d
from saccade.models import VideoModel, create_model, load_weights, model_info, save_weights, stream_facts
from saccade.ops import use_backend
from saccade.ops._library import native_library

needs_native = pytest.mark.skipif(native_library() is None, reason="the native operators are not built")


@dataclass(frozen=True)
class Net:
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (17, 22)

    def build(self, dtype: torch.dtype = torch.float64, **more: Any) -> VideoModel:
        """With norms that are not those of initialisation, in which branches are zero."""
        torch.manual_seed(0)
        model: VideoModel = create_model(self.name, 3, **{"causal": True, **self.options, **more})
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 2)
        return model.eval().to(dtype)

    def clip(self, frames: int, dtype: torch.dtype = torch.float64, batch: int = 2) -> Tensor:
        return torch.randn(batch, 3, frames, *self.size, generator=torch.Generator().manual_seed(1)).to(dtype)


X3D = {"gamma_w": 0.4, "gamma_d": 0.4, "gamma_b": 2.25}
VOV3D = {"inner_channels": 8, "depths": (1, 1, 1, 1), "num_conv": 2}
TSM = {"width": 0.25, "depth": 0.3, "causal_frames": 3}
RUBIKS = {"width": 8, "depths": (1, 1, 1, 1), "causal_frames": 3}
NETS = {
    "x3d": Net("x3d_xs", X3D),
    "x3d_se_per_frame": Net("x3d_xs", {**X3D, "se": "frame", "causal_frames": 2}),
    "x3d_short_window": Net("x3d_xs", {**X3D, "se": "window", "causal_frames": 3}),
    "x3d_means_of_one_frame": Net("x3d_xs", {**X3D, "causal_frames": 1}),
    "x3d_no_se": Net("x3d_xs", {**X3D, "se_ratio": 0.0}),
    "x3d_four_windows_in_space": Net("x3d_xs", {**X3D, "gamma_s": 32 / 112}, size=(64, 64)),
    "x3d_localization": Net("x3d_xs", {**X3D, "localization": True}),
    "vov3d": Net("vov3d_m", {**VOV3D, "causal_frames": 3}),
    "vov3d_se_per_frame": Net("vov3d_m", {**VOV3D, "se": "frame"}),
    "rubiksnet": Net("rubiksnet_tiny", RUBIKS),
    "rubiksnet_quantised": Net("rubiksnet_tiny", {**RUBIKS, "quantize": True}),
    "rubiksnet_far": Net("rubiksnet_tiny", {**RUBIKS, "causal_span": 3, "time_init": "uniform3"}),
    "rubiksnet_localization": Net("rubiksnet_tiny", {**RUBIKS, "localization": True}),
    "rubiksnet_se": Net("rubiksnet_small", {**RUBIKS, "width": 24}),
    "rubiksnet_aq": Net("rubiksnet_tiny_aq", RUBIKS),
    "tsm_lite": Net("tsm_efficientnet_lite0", TSM),
    "tsm_lite_blended": Net("tsm_efficientnet_lite0", {**TSM, "shift_warmup": 0.5}),
    "tsm_mobilenetv2_localization": Net("tsm_mobilenetv2", {**TSM, "localization": True}),
    "tsm_resnet_learnable_3d": Net(
        "tsm_resnet50", {"width": 8, "depths": (1, 1, 1, 1), "causal_frames": 2, "shift": "learnable_3d"}
    ),
}
FAMILIES = ("x3d", "vov3d", "rubiksnet", "tsm_lite")
families = pytest.mark.parametrize("net", [NETS[name] for name in FAMILIES], ids=FAMILIES)
PLAIN_BACKENDS = ["torch", pytest.param("native", marks=needs_native)]


def last(logits: Tensor) -> Tensor:
    """The logits of the last frame where there are some of every frame."""
    return logits[..., -1] if logits.ndim == 3 else logits


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


# --- every step is the clip so far -------------------------------------------------------------------------


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_every_step_is_the_clip_so_far(net: Net, backend: Any):
    model, clip, state = net.build(), net.clip(5), None
    with use_backend(backend), torch.no_grad():
        for t, frame in enumerate(clip.unbind(2), start=1):
            logits, state = model.step(frame, state)
            assert logits.shape == (2, 3)
            assert relative_error(logits, last(model(clip[:, :, :t]))) < 1e-12


@families
def test_every_step_is_the_clip_so_far_in_float32(net: Net):
    model, clip, state = net.build(torch.float32), net.clip(5, torch.float32), None
    with torch.no_grad():
        for t, frame in enumerate(clip.unbind(2), start=1):
            logits, state = model.step(frame, state)
            assert relative_error(logits, last(model(clip[:, :, :t]))) < 1e-5


@families
def test_features_depend_on_the_past_within_the_receptive_field(net: Net):
    """Features depend on no later frame, and on no more earlier ones than the receptive field has."""
    model = net.build(**({"se": "frame"} if "se" in vars(net.build().config) else {}))
    field = model.receptive_field
    clip = net.clip(field + 2, batch=1)
    with torch.no_grad():
        features = model.forward_features(clip)
        for frame in (0, field + 1):
            other = clip.clone()
            other[:, :, frame] += 1
            changed = (model.forward_features(other) != features).any(-1).any(-1).any(1)[0]
            found = changed.nonzero().flatten().tolist()
            # the effect on the last frame of the field may vanish in an activation
            assert found[0] == frame
            assert found[-1] in ((field - 1, field - 2) if frame == 0 else (frame,))


@families
def test_streams_of_a_batch_begin_when_they_like(net: Net):
    """A row of zeros is an empty state; streams do not see one another."""
    model, clip = net.build(), net.clip(7)
    state = None
    for t, frame in enumerate(clip.unbind(2)):
        if t == 4:
            for tensor in state or ():
                tensor[1] = 0
        logits, state = model.step(frame, state)
    with torch.no_grad():
        assert relative_error(logits[:1], model(clip[:1])) < 1e-12
        assert relative_error(logits[1:], model(clip[1:, :, 4:])) < 1e-12
    alone, _ = model.step(clip[1:, :, 0], tuple(torch.zeros_like(tensor[1:]) for tensor in state or ()))
    assert relative_error(alone, model.step(clip[1:, :, 0])[0]) < 1e-12


@families
def test_a_state_goes_on_from_where_it_was(net: Net):
    """A step changes no state in place: two continuations of one state."""
    model, clip = net.build(), net.clip(4)
    state = None
    for frame in clip[:, :, :2].unbind(2):
        _, state = model.step(frame, state)
    first, _ = model.step(clip[:, :, 2], state)
    model.step(clip[:, :, 3], state)
    again, _ = model.step(clip[:, :, 2], state)
    assert torch.equal(first, again)


@families
def test_the_state_is_small_and_stays_of_one_size(net: Net):
    model, clip = net.build(), net.clip(12, batch=1)
    state, shapes = None, []
    for frame in clip.unbind(2):
        _, state = model.step(frame, state)
        shapes.append([tuple(tensor.shape) for tensor in state])
    assert all(each == shapes[0] for each in shapes)
    assert len(shapes[0]) <= 6
    assert state is not None
    assert int(state[-1]) <= model.config.mean_frames


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        dims = max((arg.dim() for arg in args if isinstance(arg, Tensor)), default=0)
        self.calls.append((func.overloadpacket.__name__, dims))
        return func(*args, **(kwargs or {}))


@families
def test_a_step_convolves_and_normalises_in_two_dimensions(net: Net):
    model, clip = net.build(), net.clip(2)
    with use_backend("torch"):
        _, state = model.step(clip[:, :, 0])
        with _Seen() as seen:
            model.step(clip[:, :, 1], state)
    arithmetic = {
        (name, dims) for name, dims in seen.calls if "conv" in name or "norm" in name or "mul" in name
    }
    assert ("convolution", 4) in arithmetic
    assert all(dims <= 4 for _, dims in arithmetic)


@pytest.mark.slow
@families
def test_a_step_is_exported(net: Net):
    class Step(nn.Module):
        def __init__(self, model: VideoModel) -> None:
            super().__init__()
            self.model = model

        def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            logits, after = self.model.step(frame, state)
            return logits, *after

    model, clip = net.build(torch.float32), net.clip(4, torch.float32)
    _, state = model.step(clip[:, :, 0])
    program = torch.export.export(Step(model).eval(), (clip[:, :, 1], *state), strict=False).module()
    for frame in clip[:, :, 1:].unbind(2):
        expected, _ = model.step(frame, state)
        logits, *rest = program(frame, *state)
        assert relative_error(logits, expected) < 1e-5
        state = tuple(rest)


# --- weights of plain networks -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x3d_no_se", "rubiksnet"])
def test_plain_weights_give_the_same_features_for_a_still_picture(name: str):
    net = NETS[name]
    plain, model = net.build(causal=False), net.build()
    report = load_weights(model, plain.state_dict())
    assert not report.missing
    frames = 2 * plain.receptive_field + 1
    clip = net.clip(1, batch=1).expand(-1, -1, frames, -1, -1)
    with torch.no_grad():
        expected = plain.forward_features(clip)[:, :, plain.receptive_field]
        assert relative_error(model.forward_features(clip)[:, :, -1], expected) < 1e-10


def test_plain_weights_are_told_from_causal_ones(tmp_path: Path):
    net = NETS["x3d"]
    plain, model = net.build(torch.float32, causal=False), net.build(torch.float32)
    weight = plain.state_dict()["res2.0.conv_b.weight"]
    save_weights(plain, tmp_path / "plain.safetensors")
    load_weights(model, tmp_path / "plain.safetensors")
    moved = model.state_dict()["res2.0.conv_b.weight"]
    torch.testing.assert_close(moved[:, :, 1:].sum(2), weight.sum(2))
    assert torch.equal(moved[:, :, 1], weight[:, :, 0])
    assert not moved[:, :, 0].any()
    other = net.build(torch.float32)
    save_weights(model, tmp_path / "causal.safetensors")
    load_weights(other, tmp_path / "causal.safetensors")
    assert torch.equal(other.state_dict()["res2.0.conv_b.weight"], moved)
    with pytest.raises(WeightsError, match="is_causal"):
        load_weights(plain, model.state_dict())


def test_shifts_of_plain_weights_are_clamped_to_the_past():
    plain, model = NETS["rubiksnet"].build(causal=False), NETS["rubiksnet"].build()
    load_weights(model, plain.state_dict())
    shifts = [
        (one.shift, other.shift)
        for one, other in zip(plain.modules(), model.modules(), strict=True)
        if isinstance(one, RubiksShift3d) and isinstance(other, RubiksShift3d)
    ]
    assert any((free[0] > 0).any() for free, _ in shifts)
    for free, clamped in shifts:
        assert torch.equal(clamped[1:], free[1:])
        assert (clamped[0] < 0).all()
        assert torch.equal(clamped[0], free[0].clamp(-1, -(2.0**-20)))


# --- training ----------------------------------------------------------------------------------------------


@families
def test_the_clip_form_trains(net: Net):
    model = net.build(torch.float32).train()
    model(net.clip(4, torch.float32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_shift_at_its_end_can_come_back_and_goes_no_further():
    """The gradient passes the clamp; after each step the parameter is clamped."""
    layer = RubiksShift3d(2, causal_span=1, normalize_grad=False, time_init="none")
    with torch.no_grad():
        layer.shift.zero_()
        layer.shift[0] = torch.tensor([0.5, -2.0])
    x = torch.randn(1, 2, 4, 3, 3)
    y = layer(x)
    torch.testing.assert_close(y[:, 0], x[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(y[:, 1, 1:], x[:, 1, :-1])
    y.square().sum().backward()
    assert layer.shift.grad is not None
    assert (layer.shift.grad[0] != 0).all()
    layer.clamp_()
    assert layer.shift[0].tolist() == [-(2.0**-20), -1.0]


def test_training_clamps_the_shifts():
    model = NETS["rubiksnet"].build(torch.float32)
    shifts = [module.shift for module in model.modules() if isinstance(module, RubiksShift3d)]
    with torch.no_grad():
        for shift in shifts:
            shift[0] += 5
    model.on_train_progress(0.5)
    assert all((shift[0] == -(2.0**-20)).all() for shift in shifts)


def test_attention_shifts_never_choose_the_next_frame():
    layer = AttentionShift(5, causal=True)
    assert (layer.taps()[:, 2] == 0).all()
    torch.testing.assert_close(layer.taps().sum(1), torch.ones(5))
    with torch.no_grad():
        layer.weight[:] = torch.tensor([0.0, 0.1, 0.9])
    layer.harden(torch.ones(5, dtype=torch.bool))
    assert (layer.offset <= 0).all()


# --- facts and errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "field"), [("x2d", 27), ("x3d_s", 57), ("vov3d_m", 85)])
def test_receptive_field_and_delay(name: str, field: int):
    with torch.device("meta"):
        plain, model = create_model(name), create_model(name, causal=True)
    assert (plain.receptive_field, plain.delay) == (field, field // 2)
    assert (model.receptive_field, model.delay) == (field, 0)


@pytest.mark.parametrize(
    ("name", "mib", "gmacs"),
    [
        ("x3d_s", 12.245, 0.152711),
        ("vov3d_m", 18.429, 0.308825),
        ("rubiksnet_tiny", 10.670, 0.461974),
        ("tsm_efficientnet_lite0", 0.134, 0.384420),
    ],
)
def test_facts_of_streams(name: str, mib: float, gmacs: float):
    facts = stream_facts(name)
    assert facts is not None
    assert facts.delay == 0
    assert facts.state_mib == pytest.approx(mib, abs=0.001)
    assert facts.gmacs_step == pytest.approx(gmacs, abs=1e-6)
    # the linear layers of the head run for every frame
    assert facts.gmacs_step == pytest.approx(model_info(name).gmacs / model_info(name).frames, rel=0.02)


def test_a_model_without_a_causal_form_has_no_stream():
    assert stream_facts("timesformer_base") is None


def test_options_that_do_not_go_together():
    with pytest.raises(ConfigError, match="se must be frame or window if causal"):
        create_model("x3d_xs", causal=True, se="clip")
    with pytest.raises(ConfigError, match="causal_frames"):
        create_model("rubiksnet_tiny", causal=True, causal_frames=-1)
    assert model_info("x3d_s").params == sum(
        p.numel() for p in create_model("x3d_s", causal=True).parameters()
    )


def test_steps_that_cannot_be_taken():
    model, frame = NETS["x3d"].build(), NETS["x3d"].clip(1)[:, :, 0]
    _, state = model.step(frame)
    with pytest.raises(UsageError, match="causal=True"):
        NETS["x3d"].build(causal=False).step(frame)
    with pytest.raises(UsageError, match="frames of shape"):
        model.step(frame[None])
    with pytest.raises(UsageError, match="frames of 17x20"):
        model.step(frame[..., :20, :20], state)
    with pytest.raises(UsageError, match="2 streams"):
        model.step(frame[:1], state)
    with pytest.raises(UsageError, match="state"):
        NETS["vov3d"].build().step(frame, state)
    with pytest.raises(UsageError, match="clips"):
        model(frame)
    model.train()
    with pytest.raises(UsageError, match="eval"):
        model.step(frame)
