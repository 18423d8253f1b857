"""TimeSformer and ViViT: figures, sizes of clips, weights of other clips and code bases, training traits."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch
from torch import Tensor, nn

from saccade.errors import ConfigError, UsageError, WeightsError
from saccade.layers import DropPath, checkpoint_activations, record_attention
from saccade.models import (
    VideoModel,
    count_macs,
    count_params,
    create_model,
    load_model,
    load_weights,
    model_info,
    save_weights,
)
from saccade.training.optim import freeze, parameter_groups

TIMESFORMERS = ["timesformer_base", "timesformer_base_joint", "timesformer_base_space"]
VIVITS = ["vivit_base", "vivit_base_joint", "vivit_base_divided"]
NAMES = TIMESFORMERS + VIVITS
SMALL: dict[str, Any] = {
    **{"num_frames": 4, "train_crop": 32, "patch": 8, "width": 24, "depth": 2, "num_heads": 3},
    **{"mlp_ratio": 2, "drop_path": 0.0},
}


def small(name: str, num_classes: int = 5, **overrides: Any) -> VideoModel:
    """A tiny one whose every part matters: nothing starts at zero."""
    options = {**SMALL, **({"time_depth": 2} if name == "vivit_base" else {}), **overrides}
    model = create_model(name, num_classes, **options)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(crc32(key.encode())))
            if parameter.ndim == 1:
                parameter.copy_(0.1 * noise + key.endswith("weight"))
            else:
                parameter.copy_(noise * (0.3 if "embed." in key else parameter.shape[1] ** -0.5))
    return model


def clips(*shape: int, seed: int = 0, **options: Any) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **options)


# -------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("timesformer_base", 121_258_752),
        ("timesformer_base_joint", 85_804_800),
        ("timesformer_base_space", 85_798_656),
        ("vivit_base", 114_746_880),
        ("vivit_base_joint", 86_394_624),
        ("vivit_base_divided", 121_848_576),
    ],
)
def test_parameters_and_gmacs(name: str, backbone: int) -> None:
    info = model_info(name)
    with torch.device("meta"):
        model = create_model(name)
    assert count_params(model) == info.params == backbone + 400 * 769
    shape = (1, 3, info.frames, info.train_crop, info.train_crop)
    assert count_macs(model, shape) / 1e9 == pytest.approx(info.gmacs, rel=1e-9)
    assert (info.frames, info.stride) == ((8, 32) if name in TIMESFORMERS else (16, 16))
    assert model.clip_multiple == ((1, 16) if name in TIMESFORMERS else (2, 16))


def test_gmacs_hold_attention() -> None:
    """Of the joint kind, by hand: two products of N x N x width a block, and the linear layers."""
    model = small("timesformer_base_joint", depth=1)
    tokens, width = 1 + 4 * 16, 24
    linear = tokens * width * width * (4 + 2 * 2) + (tokens - 1) * 3 * 8 * 8 * width + 5 * width
    assert count_macs(model, (1, 3, 4, 32, 32)) == linear + 2 * tokens * tokens * width


# ----------------------------------------------------------------------------------------------- definition


@pytest.mark.parametrize("kind", ["joint", "divided"])
def test_a_timesformer_is_a_vivit_whose_tubelets_are_one_frame(kind: str) -> None:
    timesformer = small(f"timesformer_base{'_joint' if kind == 'joint' else ''}").eval()
    vivit = small(f"vivit_base_{kind}", tubelet=1).eval()
    vivit.load_state_dict(timesformer.state_dict())
    x = clips(2, 3, 4, 32, 32)
    torch.testing.assert_close(vivit(x), timesformer(x))


def test_by_frame_the_features_of_frames_are_averaged() -> None:
    model = small("timesformer_base_space").eval()
    x = clips(2, 3, 4, 32, 32)
    torch.testing.assert_close(model(x), model(x.flip(2)))
    tokens = torch.cat([model.forward_features(x[:, :, t : t + 1]) for t in range(4)], 1)
    torch.testing.assert_close(model.head(tokens.mean(1)), model(x))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "timesformer_base_space"])
def test_the_order_of_frames_matters(name: str) -> None:
    model = small(name).eval()
    x = clips(2, 3, 4, 32, 32)
    assert (model(x) - model(x.flip(2))).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_clips_of_a_batch_do_not_see_each_other(name: str, pool: str) -> None:
    model = small(name, head_pool=pool).double().eval()
    x = clips(3, 3, 4, 32, 32, dtype=torch.float64)
    single = torch.cat([model(clip[None]) for clip in x])
    torch.testing.assert_close(model(x), single, rtol=1e-10, atol=1e-12)
    x[0] = 0
    torch.testing.assert_close(model(x)[1:], single[1:], rtol=1e-10, atol=1e-12)


def test_the_leak_is_there_for_weights_that_were_trained_with_it() -> None:
    model = small("vivit_base", class_token_leak=True).eval()
    x = clips(2, 3, 4, 32, 32)
    before = model(x)
    x[0] += 1
    assert (model(x)[1] - before[1]).abs().max() > 1e-3
    torch.testing.assert_close(model(x[:1]), small("vivit_base").eval()(x[:1]))
    assert create_model(**model.build_args).config.class_token_leak


@pytest.mark.parametrize("init", ["vit", "scaled"])
@torch.no_grad()
def test_initialisation(init: str) -> None:
    model = create_model("timesformer_base", 5, width=64, num_heads=4, depth=2, init=init)
    linear, positions = (1 / 8, 0.5) if init == "scaled" else (0.02, 0.02)
    block = model.layers[0]
    assert float(block.attn.qkv.weight.std()) == pytest.approx(linear, rel=0.05)
    assert float(model.embed.pos_embed.std()) == pytest.approx(positions, rel=0.05)
    assert float(model.head.classifier.weight.std()) == pytest.approx(0.02, rel=0.15)
    assert not block.attn.qkv.bias.any()
    assert not block.time_fc.weight.any()
    with pytest.raises(ConfigError, match="init"):
        create_model("timesformer_base", 5, init="random")


def test_divided_attention_in_time_starts_as_no_attention() -> None:
    """As in an image network, so that its weights can be used: a block gives what it would by frame."""
    divided = create_model("timesformer_base", 5, **SMALL).eval()
    by_frame = create_model("timesformer_base_space", 5, **SMALL).eval()
    shared = {key: value for key, value in divided.state_dict().items() if key in by_frame.state_dict()}
    by_frame.load_state_dict(shared)
    nn.init.zeros_(divided.embed.time_embed)
    x = clips(2, 3, 1, 32, 32)  # of one frame, for with more the class tokens differ
    torch.testing.assert_close(divided(x), by_frame(x), rtol=1e-4, atol=1e-5)
    assert all(not layer.time_fc.weight.any() for layer in divided.layers)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_of_stages(name: str) -> None:
    model = small(name).eval()
    x = clips(2, 3, 4, 32, 48)
    outputs = model.forward_intermediates(x)
    times = 4 if name in TIMESFORMERS else 2
    by_moment = [2, times, 1 + 24, 24]
    whole = [2, 1 + times * 24, 24]
    if name == "vivit_base":
        expected = [by_moment] * 3 + [[2, 1 + times, 24]] * 3
    else:
        expected = [by_moment if name == "timesformer_base_space" else whole] * 3
    assert [list(output.shape) for output in outputs] == expected
    torch.testing.assert_close(model.head(outputs[-1]), model(x))
    assert [o.shape for o in model.forward_intermediates(x, indices=[1])] == [outputs[1].shape]
    with pytest.raises(UsageError, match=f"indices=.*: {name} has stages 0 to {len(outputs) - 1}"):
        model.forward_intermediates(x, indices=[len(outputs)])


# ------------------------------------------------------------------------------------------- sizes of clips


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(2, 16, 16), (6, 24, 40), (8, 64, 64)])
def test_clips_of_other_sizes(name: str, size: tuple[int, int, int]) -> None:
    model = small(name, drop_path=0.2, token_dropout=0.1, attn_dropout=0.1, dropout=0.1)
    logits = model(clips(2, 3, *size))
    logits.sum().backward()
    assert logits.shape == (2, 5)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", NAMES)
def test_positions_are_resized_alike_for_a_clip_and_for_a_file(name: str) -> None:
    """A model for larger and longer clips, given the weights, does what the first does with such clips."""
    first = small(name).eval()
    second = small(name, num_frames=8, train_crop=64).eval()
    report = load_weights(second, first.state_dict())
    expected = 2 - (name == "timesformer_base_space")
    assert len(report.notes) == expected
    assert "embed.pos_embed: 17 positions in the file interpolated to 65" in report.notes
    x = clips(2, 3, 8, 64, 64)
    torch.testing.assert_close(second(x), first(x), rtol=1e-4, atol=1e-5)
    again = small(name)
    load_weights(again, second.state_dict())
    assert again.embed.pos_embed.shape == first.embed.pos_embed.shape
    # the class token has no place: its own positions stay
    assert torch.equal(second.embed.pos_embed[:, 0], first.embed.pos_embed[:, 0])


def test_positions_are_interpolated_between_neighbours() -> None:
    model = small("vivit_base", num_frames=4, train_crop=16).eval()
    with torch.no_grad():
        model.embed.pos_embed.copy_(torch.tensor([9.0, 0, 1, 0, 1]).view(1, 5, 1).expand(1, 5, 24))
        model.to_time.time_embed.copy_(torch.tensor([9.0, 0, 1]).view(1, 3, 1).expand(1, 3, 24))
    larger = small("vivit_base", num_frames=8, train_crop=32)
    load_weights(larger, model.state_dict())
    torch.testing.assert_close(larger.to_time.time_embed[0, :, 0], torch.tensor([9.0, 0, 0.25, 0.75, 1]))
    grid = larger.embed.pos_embed[0, 1:, 0].view(4, 4)
    torch.testing.assert_close(grid, grid[:1].expand(4, 4))  # columns 0, 1: nothing changes down a column
    assert (grid[0].diff() > 0).all()
    torch.testing.assert_close(grid[0] + grid[0].flip(0), torch.ones(4))


def test_positions_that_cannot_be_resized_are_an_error() -> None:
    model = small("timesformer_base")
    state = small("timesformer_base", num_frames=8, train_crop=64, width=48).state_dict()
    with pytest.raises(WeightsError, match=r"embed.pos_embed: 1×65×48 in the file, 1×17×24 in the model"):
        load_weights(model, state)
    state = model.state_dict()
    state["embed.pos_embed"] = state["embed.pos_embed"][:, :15]
    with pytest.raises(WeightsError, match=r"embed.pos_embed: 1×15×24 in the file, 1×17×24 in the model"):
        load_weights(model, state)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "timesformer_base",
            (4, 30, 32),
            r"clips of 4×30×32 .* 8×8 patches: height and width must be mul",
        ),
        ("timesformer_base_space", (4, 32, 36), r"height and width must be multiples of 8"),
        ("timesformer_base_joint", (0, 32, 32), r"clips of 0×32×32"),
        (
            "vivit_base",
            (3, 32, 32),
            r"clips of 3×32×32 .* 2×8×8 patches: frames must be a multiple of 2, height",
        ),
        ("vivit_base_joint", (4, 4, 32), r"multiples of 8"),
        ("vivit_base_divided", (5, 32, 32), r"frames must be a multiple of 2"),
    ],
)
def test_clips_of_parts_of_patches_are_refused(name: str, size: tuple[int, ...], message: str) -> None:
    model = small(name)
    with pytest.raises(UsageError, match=message):
        model(torch.zeros(1, 3, *size))
    with pytest.raises(UsageError, match=r"clips of shape \(B, 3, T, H, W\)"):
        model(torch.zeros(1, 1, 4, 32, 32))


# -------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("name", "upstream", "ours"),
    [
        ("timesformer_base", "divided_space_time", "divided"),
        ("timesformer_base", "joint_space_time", "joint"),
        ("timesformer_base", "space_only", "space"),
        ("vivit_base", "fact_encoder", "factorised"),
        ("vivit_base", "joint_space_time", "joint"),
        ("vivit_base", "divided_space_time", "divided"),
    ],
)
def test_attention_has_the_names_of_the_sources_too(name: str, upstream: str, ours: str) -> None:
    with torch.device("meta"):
        model = create_model(name, attention=upstream)
    assert model.config == create_model(name, attention=ours, depth=1).config.__class__(attention=ours)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("timesformer_base", {"width": 770}, r"width must be a multiple of num_heads, got 770 for 12 heads"),
        ("timesformer_base", {"train_crop": 230}, r"train_crop must be a multiple of patch, 16, got 230"),
        (
            "timesformer_base",
            {"attention": "both"},
            r"attention must be one of divided, joint, space, got 'both'",
        ),
        ("timesformer_base", {"depth": 0}, r"depth must be a positive integer, got 0"),
        ("timesformer_base", {"drop_path": 1.0}, r"drop_path must be a number at least 0 and below 1"),
        ("timesformer_base", {"head_pool": "max"}, r"head_pool must be one of class, mean, got 'max'"),
        ("vivit_base", {"num_frames": 15}, r"num_frames must be a multiple of tubelet, 2, got 15"),
        ("vivit_base", {"tubelet": 0}, r"tubelet must be a positive integer, got 0"),
        ("vivit_base", {"attention": "space"}, r"attention must be one of factorised, joint, divided"),
        ("vivit_base", {"class_token_leak": 1}, r"class_token_leak must be true or false, got 1"),
        (
            "vivit_base_joint",
            {"class_token_leak": True},
            r"class_token_leak needs factorised attention, got joi",
        ),
    ],
)
def test_bad_fields_are_named(name: str, fields: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        create_model(name, **fields)


@pytest.mark.parametrize("name", NAMES)
def test_built_again_from_build_args_and_from_a_file(name: str, tmp_path: Path) -> None:
    model = small(name, 7).eval()
    again = create_model(**json.loads(json.dumps(model.build_args)))
    assert again.config == model.config
    save_weights(model, tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path / "model.safetensors")
    x = clips(1, 3, 4, 32, 32)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("name", NAMES)
def test_other_numbers_of_classes(name: str) -> None:
    model = small(name, 5).eval()
    report = load_weights(other := small(name, 9), model.state_dict())
    assert report.notes == ("the classifier was not loaded: 5 classes in the file, 9 in the model",)
    assert set(report.missing) == set(other.classifier_parameters())
    x = clips(2, 3, 4, 32, 32)
    features = small(name, 0).eval()(x)
    torch.testing.assert_close(model.head.classifier(features), model(x))
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    assert model.classifier_parameters() == ["head.classifier.weight", "head.classifier.bias"]
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), features)


# ------------------------------------------------------------------------------------------ authors' weights


def as_authors_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names in those of TimeSformer's repository, as in its files: one prefix, images' convolution."""
    starts = {"embed.patch.": "patch_embed.proj.", "embed.": "", "layers.": "blocks."}
    starts |= {"head.norm.": "norm.", "head.classifier.": "head."}
    within = {"time_norm.": "temporal_norm1.", "time_attn.": "temporal_attn.", "time_fc.": "temporal_fc."}
    renamed = {}
    for key, value in state.items():
        start = next(start for start in starts if key.startswith(start))
        name = starts[start] + key.removeprefix(start)
        for ours, theirs in within.items():
            name = name.replace(ours, theirs)
        renamed[f"model.{name}"] = value.squeeze(2) if value.ndim == 5 else value
    return renamed


@pytest.mark.parametrize("name", TIMESFORMERS)
def test_weights_of_timesformers_authors(name: str) -> None:
    first = small(name, norm_eps=1e-6).eval()
    file = {"model_state": as_authors_names(first.state_dict()), "epoch": 15}
    second = create_model(name, 5, **SMALL, norm_eps=1e-6).eval()
    report = load_weights(second, file)
    assert report.format == "TimeSformer's authors"
    assert report.num_loaded == len(file["model_state"])
    assert not report.notes
    x = clips(2, 3, 4, 32, 32)
    assert torch.equal(second(x), first(x))
    third = create_model(name, 5, **SMALL)
    (note,) = load_weights(third, file).notes
    assert "norm_eps=1e-06" in note


def test_weights_of_another_kind_of_attention_are_refused() -> None:
    state = as_authors_names(small("timesformer_base").state_dict())
    with pytest.raises(WeightsError, match=r"16 unexpected"):
        load_weights(small("timesformer_base_joint"), state)
    with pytest.raises(WeightsError, match=r"missing: .*time_"):
        load_weights(
            small("timesformer_base"), as_authors_names(small("timesformer_base_joint").state_dict())
        )


# ------------------------------------------------------------------------------------------- training traits


@pytest.mark.parametrize("name", NAMES)
def test_layer_ids_and_decay(name: str) -> None:
    model = small(name)
    ids = model.layer_ids()
    assert set(ids) == {key for key, _ in model.named_parameters()}
    deepest = 2 + 2 * (name == "vivit_base") + 1
    assert {ids[key] for key in ("embed.patch.weight", "embed.cls_token", "embed.pos_embed")} == {0}
    assert (ids["layers.0.norm1.weight"], ids["layers.1.mlp.fc2.bias"]) == (1, 2)
    assert ids["head.norm.weight"] == ids["head.classifier.weight"] == deepest
    if name == "vivit_base":
        assert ids["to_time.time_embed"] == ids["time_layers.0.norm1.weight"] == 3
        assert ids["time_layers.1.attn.qkv.weight"] == 4
    groups = parameter_groups(model, weight_decay=0.1)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert not decayed & {"embed.cls_token", "embed.pos_embed"}
    in_time = {key for key in names.values() if key.endswith("time_embed")}
    assert in_time <= decayed
    assert decayed - in_time == {
        key for key, p in model.named_parameters() if p.ndim > 1 and not key.startswith("embed.")
    } - in_time | {"embed.patch.weight"}


def test_freezing() -> None:
    model = small("vivit_base")
    freeze(model, 3)
    learning = {key for key, p in model.named_parameters() if p.requires_grad}
    assert {key.split(".")[0] for key in learning} == {"to_time", "time_layers", "head"}
    with pytest.raises(ConfigError, match="7 is more than the 6 stages"):
        freeze(model, 7)


def test_stochastic_depth_grows_and_drops_whole_clips() -> None:
    model = small("vivit_base", depth=3, drop_path=0.3)
    assert [layer.drop_path.rate for layer in model.layers] == pytest.approx([0, 0.15, 0.3])
    assert [layer.drop_path.rate for layer in model.time_layers] == pytest.approx([0, 0.3])
    block = small("timesformer_base", drop_path=0.5).layers[1].train()
    assert isinstance(block.drop_path, DropPath)
    x = clips(64, 9, 24)
    torch.manual_seed(0)
    dropped = (block(x, 2) - x).flatten(1).abs().amax(1) == 0
    assert 0 < int(dropped.sum()) < 24  # an eighth are left as they are: three branches, each with one draw


@pytest.mark.parametrize("name", ["timesformer_base", "timesformer_base_space", "vivit_base"])
def test_activations_computed_again_give_the_same_gradients(name: str) -> None:
    model = small(name, token_dropout=0.1, attn_dropout=0.1, drop_path=0.3).train()
    again = copy.deepcopy(model)
    for block in again.blocks():
        checkpoint_activations(block)
    x = clips(2, 3, 4, 32, 32)
    for one in (model, again):
        torch.manual_seed(5)
        one(x).square().sum().backward()
    for (key, p), q in zip(model.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=0, atol=0, msg=key)
    assert {id(p) for block in model.blocks() for p in block.parameters()} == {
        id(p) for key, p in model.named_parameters() if not key.startswith("head.")
    }


@pytest.mark.parametrize("name", NAMES)
def test_half_precision(name: str) -> None:
    model = small(name).eval()
    x = clips(2, 3, 4, 48, 48)
    with torch.inference_mode():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(x).float(), expected, rtol=0.1, atol=0.1)
        logits = model.bfloat16()(x.bfloat16())
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, rtol=0.2, atol=0.2)


# --------------------------------------------------------------------------------------- attention, compile


@pytest.mark.parametrize("name", NAMES)
def test_attention_is_recorded(name: str) -> None:
    model = small(name).eval()
    x = clips(2, 3, 4, 32, 48)
    expected = model(x)
    with record_attention(model) as records:
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    times = 4 if name in TIMESFORMERS else 2
    space, whole = (2 * times, 3, 25, 25), (2, 3, 1 + times * 24, 1 + times * 24)
    kinds = {
        "timesformer_base": {"layers.{}.attn": space, "layers.{}.time_attn": (2 * 24, 3, times, times)},
        "timesformer_base_space": {"layers.{}.attn": space},
        "vivit_base": {"layers.{}.attn": space, "time_layers.{}.attn": (2, 3, 1 + times, 1 + times)},
        "vivit_base_divided": {"layers.{}.attn": space, "layers.{}.time_attn": (2 * 24, 3, times, times)},
    }.get(name, {"layers.{}.attn": whole})
    shapes = {layer.format(i): shape for layer, shape in kinds.items() for i in range(2)}
    assert {key: tuple(value.shape) for key, value in records.items()} == shapes
    for value in records.values():
        torch.testing.assert_close(value.sum(-1), torch.ones(value.shape[:-1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compile_and_export(name: str) -> None:
    """Also at sizes whose positions are interpolated."""
    torch.compiler.reset()
    model = small(name).eval()
    x = clips(2, 3, 6, 48, 32)
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    for size in ((4, 32, 32), (6, 48, 32)):
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(model, (clips(2, 3, *size),), dynamic_shapes=({0: batch},))
        more = clips(5, 3, *size, seed=1)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(more), model(more), rtol=1e-4, atol=1e-5)
    training = small(name, drop_path=0.1)
    torch.compile(training, backend="eager", fullgraph=True)(clips(2, 3, 4, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in training.parameters())
