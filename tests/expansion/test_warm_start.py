from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saccade.errors import UsageError, WeightsError
from saccade.expansion.warm_start import expand_tensor, warm_start, write_warm_start
from saccade.models import X3D, X3DConfig, create_model, load_model, save_weights
from saccade.recipes import get_recipe

BASE = X3DConfig(gamma_t=3, gamma_s=48 / 112, gamma_w=0.4, gamma_d=0.6, head_width=24)
GROWTH = {
    "deeper": {"gamma_d": 1.4},
    "wider": {"gamma_w": 0.9},
    "twice as wide": {"gamma_w": 0.8},
    "bottleneck": {"gamma_b": 2.25},
    "squeeze-excitation wider": {"gamma_b": 9.0},
    "longer": {"gamma_t": 7},
    "faster": {"gamma_tau": 2},
    "larger": {"gamma_s": 80 / 112},
    "all": {"gamma_d": 1.4, "gamma_w": 0.7, "gamma_b": 2.25, "gamma_t": 7, "gamma_s": 80 / 112},
}


def trained(config: X3DConfig, *, seed: int = 0) -> X3D:
    """A network whose norms and biases are not at their initial 0 or 1."""
    torch.manual_seed(seed)
    model = X3D(config, 5).double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "norm" in name and tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand_like(tensor))
            elif name.endswith("bias"):
                tensor.copy_(0.3 * torch.randn_like(tensor))
    return model.eval()


def grown(changes: dict[str, float], base: X3DConfig = BASE) -> X3D:
    torch.manual_seed(99)
    return X3D(replace(base, **changes), 5).double().eval()


@pytest.fixture(scope="module")
def parent() -> X3D:
    return trained(BASE)


@pytest.mark.parametrize("name", GROWTH)
def test_a_larger_child_has_the_outputs_of_its_parent(parent: X3D, name: str) -> None:
    child = grown(GROWTH[name])
    clips = torch.randn(2, 3, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        expected = parent(clips)
        assert expected.std() > 1e-3
        report = warm_start(child, parent)
        torch.testing.assert_close(child(clips), expected, rtol=0, atol=1e-10)
        features = child.forward_features(clips)[:, : parent.config.widths[3]]
        torch.testing.assert_close(features, parent.forward_features(clips), rtol=0, atol=1e-10)
    assert report.exact


def test_single_precision_matches_up_to_rounding(parent: X3D) -> None:
    child, clips = grown(GROWTH["all"]).float(), torch.randn(2, 3, 3, 48, 48)
    like = X3D(BASE, 5).eval()
    like.load_state_dict(parent.state_dict())
    warm_start(child, like)
    with torch.no_grad():
        torch.testing.assert_close(child(clips), like(clips), rtol=0, atol=1e-5)


def test_training_mode_matches_and_batch_statistics_are_copied(parent: X3D) -> None:
    config = replace(BASE, dropout=0.0)
    plain = X3D(config, 5).double()
    plain.load_state_dict(parent.state_dict())
    child = grown({"gamma_w": 0.9, "gamma_b": 2.25, "gamma_d": 1.4}, config)
    warm_start(child, plain)
    clips = torch.randn(4, 3, 3, 48, 48, dtype=torch.float64)
    torch.testing.assert_close(child.train()(clips), plain.train()(clips), rtol=0, atol=1e-9)
    width = plain.config.widths[0]
    for copy in (slice(0, width), slice(width, None)):
        moved = child.stem.norm.running_mean[copy]
        torch.testing.assert_close(moved, plain.stem.norm.running_mean[: len(moved)])


def test_copies_of_a_channel_get_different_gradients(parent: X3D) -> None:
    child = grown({"gamma_b": 2.0})
    warm_start(child, parent)
    block = child.res4[1]
    half = block.conv_a.out_channels // 2
    seen: list[torch.Tensor] = []
    with block.norm_a.register_forward_hook(lambda module, args, out: seen.append(out)):
        child.train()(torch.randn(2, 3, 3, 48, 48, dtype=torch.float64)).square().sum().backward()
    torch.testing.assert_close(seen[0][:, :half], seen[0][:, half:])
    gradient = block.conv_b.weight.grad
    assert gradient is not None
    assert (gradient[:half] - gradient[half:]).norm() > 0.05 * gradient.norm()


def test_child_of_an_image_network_ignores_time_at_first() -> None:
    image = trained(replace(BASE, gamma_t=1))
    child = grown({"gamma_t": 6}, image.config)
    report = warm_start(child, image)
    assert report.zeroed_taps == (1, 2)
    frame = torch.randn(2, 3, 1, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        still = child(frame.expand(-1, -1, 6, -1, -1))
        torch.testing.assert_close(still, image(frame), rtol=0, atol=1e-10)
    child.train()(torch.randn(2, 3, 6, 48, 48, dtype=torch.float64)).sum().backward()
    assert child.stem.conv_t.weight.grad[:, :, [0, 1, 3, 4]].abs().min() > 0, "zeroed taps get gradients"


def test_trained_taps_are_not_zeroed(parent: X3D) -> None:
    child = grown({"gamma_t": 7})
    assert warm_start(child, parent).zeroed_taps == ()
    assert torch.equal(child.stem.conv_t.weight, parent.stem.conv_t.weight)
    two = trained(replace(BASE, gamma_t=2))
    child = grown({"gamma_t": 7}, two.config)
    assert warm_start(child, two).zeroed_taps == (2,)
    assert not child.stem.conv_t.weight[:, :, [0, 4]].any()
    assert torch.equal(child.res2[0].conv_b.weight, two.res2[0].conv_b.weight)


def test_a_causal_child_has_the_outputs_of_its_causal_parent() -> None:
    parent = trained(replace(BASE, causal=True))
    child = grown(GROWTH["all"], parent.config)
    clips = torch.randn(2, 3, 3, 48, 48, dtype=torch.float64)
    assert warm_start(child, parent).zeroed_taps == (3, 4)
    assert not child.stem.conv_t.weight[:, :, :2].any()
    with torch.no_grad():
        torch.testing.assert_close(child(clips), parent(clips), rtol=0, atol=1e-10)


def test_report_names_the_origin_of_each_part(parent: X3D) -> None:
    report = warm_start(grown({"gamma_d": 1.4, "gamma_w": 0.8}), parent)
    sources = report.parts
    assert sources["stem"] == "widened: 16 -> 24 channels"
    assert sources["res4.6"] == "new: identity"
    assert list(sources)[-1] == "head"


def test_shrinking_is_reported(parent: X3D) -> None:
    report = warm_start(grown({"gamma_d": 0.2, "gamma_b": 0.5}), parent)
    assert not report.exact
    sources = report.parts
    assert sources["res2.0"].startswith("narrowed")
    assert sources["res4.2"] == "dropped"


@pytest.mark.parametrize(
    ("changes", "classes", "message"),
    [({"se_ratio": 0.25}, 5, "se_ratio is 0.0625 in the parent"), ({}, 7, "5 classes, the child 7")],
)
def test_other_differences_are_refused(
    parent: X3D, changes: dict[str, float], classes: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        warm_start(X3D(replace(BASE, **changes), classes), parent)


def test_fractions_of_a_column_add_up() -> None:
    weight = torch.randn(4, 3, dtype=torch.float64)
    wide = expand_tensor(weight, torch.Size((4, 8)), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(wide[:, [0, 3, 6]].sum(1), weight[:, 0])
    torch.testing.assert_close(wide[:, [2, 5]].sum(1), weight[:, 2])
    fractions = wide[:, 2] / weight[:, 2]
    assert fractions.min() > 0.24
    assert fractions.max() < 0.76
    assert len(fractions.unique()) == 4


def test_weights_file_for_a_run(tmp_path: Path) -> None:
    recipe = get_recipe("x3d_motion")
    narrow = {"gamma_w": 0.5, "gamma_d": 1.0, "gamma_b": 1.0, "head_width": 32}
    config = recipe.replace(model=replace(recipe.model, name="x2d", overrides=narrow | {"gamma_b": 2.25}))
    small = create_model("x2d", 5, **narrow)
    save_weights(small, tmp_path / "best.safetensors")
    report = write_warm_start(config, tmp_path / "best.safetensors", tmp_path / "start.safetensors")
    assert report.exact
    model, metadata = load_model(tmp_path / "start.safetensors")
    assert model.num_classes == 5
    assert metadata["warm_start"]["exact"] is True
    save_weights(create_model("vov3d_m", 5, depths="1,1,1,1"), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="got vov3d_m"):
        write_warm_start(config, tmp_path / "other.safetensors", tmp_path / "no.safetensors")
