"""MViT, MViTv2 and MaskFeat: sizes, options, what a pass computes. Their weights: test_mvit_weights.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.tiny_mvit import EACH, TINY, clips, tiny, tiny_maskfeat
from saccade.errors import ConfigError, UsageError
from saccade.layers import DropPath, checkpoint_activations, record_attention
from saccade.models import (
    MaskFeat,
    MViTConfig,
    count_macs,
    count_params,
    create_model,
    load_model,
    load_weights,
    model_info,
    save_weights,
)
from saccade.models.mvit import CONFIGS, MViTBlock, Tokens, max_pooled
from saccade.models.mvit_config import BlockShape, MViTTrunkConfig
from saccade.training.optim import freeze

NAMES = [
    "mvit_base_16x4",
    "mvit_base_32x3",
    "mvitv2_small",
    "mvitv2_base",
    "mvit_base_maskfeat",
    "mvitv2_small_maskfeat",
    "maskfeat_mvit_base",
    "maskfeat_mvitv2_small",
]


# -------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_gmacs(name: str) -> None:
    info = model_info(name)
    with torch.device("meta"):
        model = create_model(name)
    assert count_params(model) == info.params
    counted = count_macs(model, (1, 3, info.frames, info.train_crop, info.train_crop))
    assert counted / 1e9 == pytest.approx(info.gmacs, rel=1e-9)


def test_the_published_numbers_of_parameters() -> None:
    params = [model_info(name).params for name in NAMES]
    pyslowfast = [36_610_672, 53_115_280, 34_537_744, 51_230_128]
    assert params == [*pyslowfast, 36_607_888, 36_475_120, 36_466_488, 36_253_356]


def test_terms_of_relative_positions_are_counted() -> None:
    """Without them MViTv2-S has the 64 GMACs of its authors; here they are channels of queries and keys."""
    with torch.device("meta"):
        model = create_model("mvitv2_small")
    shapes = model.config.block_shapes()
    extra = 0
    for shape in shapes:
        t, h, w = shape.grid
        num_queries = t * h * w // shape.q_stride**2
        keys = (t, h // shape.kv_stride, w // shape.kv_stride)
        more, num_keys = sum(keys), keys[0] * keys[1] * keys[2]
        head_dim = shape.attention_dim // shape.num_heads
        extra += shape.num_heads * num_queries * more * head_dim
        extra += 2 * shape.num_heads * (1 + num_queries) * (1 + num_keys) * more
    plain = count_macs(model, (1, 3, 16, 224, 224)) - extra
    assert plain / 1e9 == pytest.approx(63.93, abs=0.01)


# --------------------------------------------------------------------------------------------------- config


def test_the_named_shapes() -> None:
    assert CONFIGS["mvit_base_16x4"] == MViTConfig()
    with torch.device("meta"):
        b, v2, long = (create_model(n).config for n in ("mvit_base_16x4", "mvitv2_small", "mvit_base_32x3"))
    first, v1_last, v2_last = b.block_shapes()[0], b.block_shapes()[-1], v2.block_shapes()[-1]
    assert first == BlockShape(96, 96, 192, 1, None, 1, (3, 3, 3), 8, (8, 56, 56))
    assert v1_last == BlockShape(768, 768, 768, 8, None, 1, (3, 3, 3), 1, (8, 7, 7))
    assert v2_last == BlockShape(768, 768, 768, 8, (3, 3, 3), 1, (3, 3, 3), 1, (8, 7, 7))
    assert v2.block_shapes()[1] == BlockShape(96, 192, 192, 2, (3, 3, 3), 2, (3, 3, 3), 4, (8, 56, 56))
    kernels = [shape.kv_kernel for shape in long.block_shapes()]
    assert [kernels[i] for i in (0, 2, 5, 21)] == [(1, 9, 9), (1, 5, 5), (1, 3, 3), None]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"widen_at": (0,)}, r"widen_at must be ascending block indices from 1 to 2, .* got \(0,\)"),
        ({"widen_at": "2,1"}, "widen_at must be ascending"),
        ({"pool_q_at": (3,)}, "pool_q_at must be ascending block indices from 1 to 2"),
        ({"pool_q_at": "one"}, "pool_q_at must be ascending"),
        ({"pool_q_at": 1}, "pool_q_at must be ascending"),
        ({"depth": 0}, "depth must be a positive integer"),
        ({"num_heads": 3}, "embed_dim must be a multiple of num_heads, got 8 for 3"),
        ({"positions": "sine"}, "positions must be one of absolute, relative"),
        ({"widen_in": "heads"}, "widen_in must be one of"),
        ({"pool_kernel": "stride", "kv_stride": 6}, "kv_stride must be a power of two"),
        ({"drop_path": 1.0}, "drop_path must be a number"),
        ({"readout": "max"}, "readout must be one of class, mean"),
        ({"dropout": -0.1}, "dropout must be a number"),
        ({"residual_pooling": 1}, "residual_pooling must be true or false"),
    ],
)
def test_bad_values(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**overrides)


def test_unknown_option() -> None:
    with pytest.raises(UsageError, match=r"mvit_base_16x4 has no option widen_it \(did you mean widen_i"):
        create_model("mvit_base_16x4", widen_it=1)


@pytest.mark.parametrize("name", EACH)
def test_build_args(name: str, tmp_path: Path) -> None:
    model = tiny(name, widen_at="1,2", pool_q_at=[2])
    assert model.build_args["widen_at"] == [1, 2]
    save_weights(model, tmp_path / "m.safetensors")
    again, metadata = load_model(tmp_path / "m.safetensors")
    assert metadata["model"] == again.build_args == model.build_args
    x = clips()
    with torch.no_grad():
        assert torch.equal(again(x), model(x))


# -------------------------------------------------------------------------------------------------- forward


@pytest.mark.parametrize("stride", [1, 2])
def test_the_shortcut_is_max_pooled(stride: int) -> None:
    """As PyTorch's 3-D pooling does it, one clip after the other, class token aside."""
    x = torch.randn(2, 1 + 2 * 5 * 6, 3)
    got = max_pooled(x, (2, 5, 6), stride)
    if stride == 1:
        assert got is x
        return
    pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
    for clip, pooled in zip(x, got, strict=True):
        assert torch.equal(pooled[0], clip[0])
        assert torch.equal(pooled[1:], pool(clip[1:].t().reshape(3, 2, 5, 6)).flatten(1).t())


@pytest.mark.parametrize("widen_in", ["mlp", "attention"])
def test_a_block_step_by_step(widen_in: str) -> None:
    """Where it widens and where its shortcuts go; attention itself is tested with the layers."""
    torch.manual_seed(0)
    config = MViTTrunkConfig(
        **TINY | {"widen_at": (1, 2)}, positions="relative", residual_pooling=True, widen_in=widen_in
    )
    block = MViTBlock(config.block_shapes()[1], config, drop_path=0.0)
    width = 16 if widen_in == "mlp" else 8
    x = torch.randn(2, 1 + 2 * 8 * 8, width)
    y = F.layer_norm(x, (width,), block.norm1.weight, block.norm1.bias, 1e-6)
    attended, grid = block.attn(y, (2, 8, 8))
    shortcut = x if widen_in == "mlp" else block.widen(y)
    z = max_pooled(shortcut, (2, 8, 8), 2) + attended
    inner = F.layer_norm(z, (16,), block.norm2.weight, block.norm2.bias, 1e-6)
    fc1, _, fc2 = block.mlp
    shortcut = block.widen(inner) if widen_in == "mlp" else z
    wanted = shortcut + fc2(F.gelu(fc1(inner)))
    out = block(Tokens(x, (2, 8, 8)))
    assert out.grid == grid == (2, 4, 4)
    assert out.x.shape == (2, 33, 32 if widen_in == "mlp" else 16)
    torch.testing.assert_close(out.x, wanted)


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize(("frames", "side"), [(4, 32), (2, 32), (8, 48), (5, 38)])
def test_clips_of_other_sizes(name: str, frames: int, side: int) -> None:
    """A network made for a size, given the weights of one made for another, computes what that one does."""
    model = tiny(name)
    resized = create_model(name, 5, **TINY | {"num_frames": frames, "train_crop": side}).eval()
    report = load_weights(resized, model.state_dict())
    same = (frames, side) == (4, 32)
    assert any("position tensors were interpolated" in note for note in report.notes) == (not same)
    x = clips(2, frames, side)
    with torch.no_grad():
        torch.testing.assert_close(resized(x), model(x), rtol=1e-4, atol=1e-5)


def test_clips_that_are_not_square() -> None:
    model = tiny("mvitv2_small")
    features = model.forward_intermediates(torch.randn(1, 3, 4, 32, 64))
    assert [tuple(f.shape) for f in features] == [
        (1, 8, 2, 8, 16),
        *[(1, 8, 2, 8, 16)],
        *[(1, 16, 2, 4, 8)] * 2,
    ]


def test_stages() -> None:
    model = tiny()
    assert model.stages() == model.blocks() == [model.stem, *model.layers]
    x = clips()
    with torch.no_grad():
        last = model.forward_intermediates(x, indices=[-1])[0]
        tokens = model.forward_features(x)
        assert torch.equal(last, tokens[:, 1:].transpose(1, 2).reshape(last.shape))
        assert torch.equal(model.head(tokens), model(x))
    with pytest.raises(UsageError, match="has stages 0 to 3"):
        model.forward_intermediates(x, indices=[4])
    freeze(model, 2)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith(("stem.", "layers.0."))}
    assert model.clip_multiple == (2, 8)


def test_layers_and_decay() -> None:
    model = tiny("mvitv2_small", positions="relative")
    ids = model.layer_ids()
    assert ids["stem.cls_token"] == 0
    assert ids["layers.2.attn.relative.time"] == 3
    assert ids["head.norm.weight"] == ids["head.classifier.weight"] == 4
    assert model.no_weight_decay() == set()
    spared = tiny("mvitv2_small", decay_positions=False).no_weight_decay()
    tables = {f"layers.{i}.attn.relative.{axis}" for i in range(3) for axis in ("time", "height", "width")}
    assert spared == {"stem.cls_token", *tables}
    places = {"stem.cls_token", "stem.cls_position", "stem.space", "stem.time"}
    assert tiny("mvit_base_maskfeat").no_weight_decay() == places
    assert tiny_maskfeat().no_weight_decay() == {*places, "stem.mask_token"}
    assert model.classifier_parameters() == ["head.classifier.weight", "head.classifier.bias"]


def test_drop_path_grows_with_depth() -> None:
    model = tiny(drop_path=0.4)
    rates = [b.drop_path.rate if isinstance(b.drop_path, DropPath) else 0.0 for b in model.layers]
    assert rates == pytest.approx([0.0, 0.2, 0.4])


@pytest.mark.parametrize("readout", ["class", "mean"])
def test_readout(readout: str) -> None:
    model = tiny(readout=readout)
    x = torch.randn(2, 9, 16)
    norm, classifier = model.head.norm, model.head.classifier
    wanted = classifier(norm(x)[:, 0] if readout == "class" else norm(x[:, 1:].mean(1)))
    torch.testing.assert_close(model.head(x), wanted)
    model.reset_classifier(0)
    assert model(clips()).shape == (2, 16)
    model.reset_classifier(7)
    assert model(clips()).shape == (2, 7)


@pytest.mark.parametrize("name", ["mvit_base_16x4", "mvitv2_small"])
def test_attention_is_recorded(name: str) -> None:
    model, x = tiny(name), clips()
    with torch.no_grad():
        plain = model(x)
        with record_attention(model) as records:
            torch.testing.assert_close(model(x), plain, rtol=1e-4, atol=1e-5)
    shapes = {key: tuple(weights.shape) for key, weights in records.items()}
    assert shapes == {
        "layers.0.attn": (2, 1, 129, 9),
        "layers.1.attn": (2, 2, 33, 33),
        "layers.2.attn": (2, 2, 33, 9),
    }
    for weights in records.values():
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("name", ["mvit_base_16x4", "mvitv2_small"])
def test_recomputed_activations_change_nothing(name: str) -> None:
    x, gradients = clips(), []
    for recompute in (False, True):
        model = tiny(name, drop_path=0.5, dropout=0.0).train()
        if recompute:
            for block in model.blocks():
                checkpoint_activations(block)
        torch.manual_seed(1)
        model(x).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)


@pytest.mark.parametrize("name", ["mvit_base_16x4", "mvitv2_small"])
def test_gradients_of_single_clips_add_up(name: str) -> None:
    """PyTorch lets two gradients be views of one memory, and then adds the next clip's to both twice."""
    model, x = tiny(name).double().eval(), clips(3).double()

    def gradients(size: int) -> dict[str, Tensor]:
        model.zero_grad()
        for part in x.split(size):
            model(part).square().sum().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    whole = gradients(3)
    for name, value in gradients(1).items():
        torch.testing.assert_close(value, whole[name])


_AT_THE_MEAN = {"head_init_scale": 0.1, "head_init_bias": 0.25}


@torch.no_grad()
def test_initialisation() -> None:
    model = tiny(embed_dim=64)
    first = model.layers[0]
    assert float(first.attn.qkv.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert float(first.attn.pool_k.conv.weight.std()) == pytest.approx(0.02, rel=0.1)
    assert (first.attn.qkv.bias == 0.02).all()
    assert (model.head.norm.bias == 0.02).all()
    assert float(model.stem.space.std()) == pytest.approx(0.02, rel=0.1)
    other = tiny("mvit_base_maskfeat")
    assert not any(p.any() for n, p in other.named_parameters() if n.endswith(("norm1.bias", "qkv.bias")))
    scaled = tiny("mvitv2_small_maskfeat", 400).head.classifier
    assert float(scaled.weight.std()) == pytest.approx(2e-5, rel=0.1)
    assert float(scaled.bias.detach()[0]) == pytest.approx(2e-5)
    wide = tiny("mvit_base_maskfeat", embed_dim=64, init="scaled")
    assert float(wide.layers[0].attn.qkv.weight.std()) == pytest.approx(1 / 8, rel=0.05)
    assert float(wide.layers[0].mlp[-1].weight.std()) == pytest.approx(1 / 16, rel=0.05)
    assert float(wide.stem.space.std()) == pytest.approx(0.5, rel=0.1)
    assert not wide.layers[0].attn.qkv.bias.any()
    plain, mean = (tiny_maskfeat(**own).head.decoder for own in ({}, _AT_THE_MEAN))
    torch.testing.assert_close(mean.weight, plain.weight * 0.1)
    assert not plain.bias.any()
    assert (mean.bias == 0.25).all()


@pytest.mark.parametrize("name", [pytest.param("mvit_base_16x4", marks=pytest.mark.slow), "mvitv2_small"])
def test_compile_and_export(name: str) -> None:
    model, x = tiny(name, depth=2), clips()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    more = clips(3)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(program.module()(more), model(more), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------- maskfeat


def test_what_is_predicted() -> None:
    with torch.device("meta"):
        soft, hard = create_model("maskfeat_mvit_base"), create_model("maskfeat_mvitv2_small")
    assert isinstance(soft, MaskFeat)
    assert isinstance(hard, MaskFeat)
    assert soft.token_grid == hard.token_grid == soft.grid_of(16, 224, 224) == (8, 14, 14)
    assert (soft.target_kind, soft.predict_every, soft.config.num_targets) == ("soft", 1, 216)
    assert (hard.target_kind, hard.predict_every, hard.config.num_targets) == ("hard", 2, 108)
    assert soft.grid_of(8, 112, 160) == (4, 7, 10)
    assert soft.num_classes == hard.build_args["num_classes"] == 0


@pytest.mark.parametrize("name", ["maskfeat_mvit_base", "maskfeat_mvitv2_small"])
def test_hidden_patches_are_not_seen(name: str) -> None:
    """With all tokens hidden, nothing of the clip is left; with some, pixels that only they cover."""
    model = tiny_maskfeat(name)
    one, other = clips(), clips()
    every = torch.ones(2, *model.token_grid, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(model.forward_masked(one, every), model.forward_masked(other, every))
        some = torch.zeros_like(every)
        some[:, :, :2, :2] = True  # 16 x 16 pixels of all frames; patches beside them reach 3 pixels in
        changed = one.clone()
        changed[..., :13, :13] = other[..., :13, :13]
        got = model.forward_masked(one, some)
        assert got.shape == (2, *model.token_grid, model.config.num_targets)
        assert torch.equal(got, model.forward_masked(changed, some))
        assert not torch.equal(model(one), model(changed))
        assert torch.equal(model.forward_masked(one, ~every), model(one))


def test_clips_of_other_sizes_are_predicted() -> None:
    model = tiny_maskfeat()
    x = clips(1, 8, 48)
    mask = torch.rand(1, 4, 6, 6) < 0.4
    predictions = model.forward_masked(x, mask)
    assert predictions.shape == (1, 4, 6, 6, 54)
    predictions.square().mean().backward()
    assert model.stem.mask_token.grad is not None
    assert model.stem.mask_token.grad.any()


def test_wrong_masks_and_clips() -> None:
    model = tiny_maskfeat()
    x = clips()
    with pytest.raises(UsageError, match=r"mask must be bool of shape \(2, 2, 4, 4\), got torch.float32"):
        model.forward_masked(x, torch.ones(2, 2, 4, 4))
    with pytest.raises(UsageError, match=r"mask must be bool of shape \(2, 2, 4, 4\), .* \(2, 2, 8, 8\)"):
        model.forward_masked(x, torch.ones(2, 2, 8, 8, dtype=torch.bool))
    with pytest.raises(UsageError, match="frames must be a multiple of 2, height and width of 8, got 4 x 36"):
        model(clips(side=36))
    with pytest.raises(UsageError, match="a model takes clips"):
        model(torch.zeros(3, 4, 32, 32))
    with pytest.raises(ConfigError, match="has no classes: load its weights into mvit_base_maskfeat"):
        model.reset_classifier(5)
    with pytest.raises(ConfigError, match="predict_every must be 1 or 2, got 3"):
        tiny_maskfeat(predict_every=3)
    with pytest.raises(ConfigError, match="a token covers 4 pixels a side"):
        tiny_maskfeat(pool_q_at=())
