"""Networks for clips that start from networks for images do what those did."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import tiny_vit
from models.tiny_vit import DEPTH, PATCH, SHAPE, SIDE, WIDTH, State
from saccade.cli import main
from saccade.errors import ConfigError, UsageError, WeightsError
from saccade.models import create_model, init_from_image, load_model
from saccade.models.checkpoints.from_image import inflated, sinusoids
from saccade.recipes import get_recipe
from saccade.training.validate import validate

FORMATS: dict[str, Callable[[State], State]] = {
    "timm": dict,
    "Hugging Face": tiny_vit.hugging_face,
    "Hugging Face, bare": lambda state: tiny_vit.hugging_face(state, prefix=""),
    "Hugging Face, 5": tiny_vit.hugging_face_5,
    "timm, MAE": tiny_vit.mae,
    "MMClassification": tiny_vit.video_transformer,
}


def build(name: str, **overrides: object) -> nn.Module:
    torch.manual_seed(0)
    frames = 4 if name.startswith("timesformer") else 8
    options = {**SHAPE, "num_frames": frames, "drop_path": 0.0, **overrides}
    return create_model(name, 0, **options).eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def still(image: Tensor, frames: int) -> Tensor:
    return image.unsqueeze(2).expand(-1, -1, frames, -1, -1)


# ---------------------------------------------------------------------------------- a still clip is its frame


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(
    ("name", "inflate"),
    [
        ("timesformer_base", "center_frame"),
        ("timesformer_base_space", "temporal_avg"),
        ("vivit_base", "center_frame"),
        ("vivit_base", "temporal_avg"),  # with more blocks in time than the ViT has
        ("vivit_base_divided", "center_frame"),
    ],
)
def test_a_still_clip_gives_what_the_vit_gives_for_the_frame(
    name: str, inflate: str, format_name: str, image: Tensor
) -> None:
    state = tiny_vit.timm_state()
    model = build(name)
    report = init_from_image(model, FORMATS[format_name](state), inflate=inflate, time="zero")  # type: ignore[arg-type]
    assert report.format.split(",")[0] == format_name.split(",")[0]
    with torch.no_grad():
        torch.testing.assert_close(model(still(image, 8)), tiny_vit.vit(state, image), rtol=1e-4, atol=1e-5)


def test_the_parts_in_time_begin_as_those_in_space(image: Tensor) -> None:
    state = tiny_vit.timm_state()
    model = build("timesformer_base")
    init_from_image(model, state, time="copy")
    own = model.state_dict()
    for i in range(DEPTH):
        for ours, theirs in (
            ("time_norm", "norm1"),
            ("time_attn.qkv", "attn.qkv"),
            ("time_attn.proj", "attn.proj"),
        ):
            assert torch.equal(own[f"layers.{i}.{ours}.weight"], state[f"blocks.{i}.{theirs}.weight"])
            assert torch.equal(own[f"layers.{i}.{theirs}.weight"], state[f"blocks.{i}.{theirs}.weight"])
    positions = model.get_parameter("embed.time_embed")
    assert positions.std() > 0.01
    with torch.no_grad():
        assert not torch.allclose(model(still(image, 4)), tiny_vit.vit(state, image), atol=1e-3)
        positions.zero_()  # nothing else keeps a new divided block from being the ViT's
        torch.testing.assert_close(model(still(image, 4)), tiny_vit.vit(state, image), rtol=1e-4, atol=1e-5)

    vivit = build("vivit_base", time_depth=2)
    init_from_image(vivit, state, time="copy")
    own = vivit.state_dict()
    for i in range(2):
        assert torch.equal(own[f"time_layers.{i}.mlp.fc2.weight"], state[f"blocks.{i}.mlp.fc2.weight"])
        assert torch.equal(own[f"time_layers.{i}.attn.proj.bias"], state[f"blocks.{i}.attn.proj.bias"])


def test_zero_is_for_the_parts_in_time_and_space_keeps_its_weights() -> None:
    """VideoTransformer-pytorch sets the attention in space to zero instead."""
    state = tiny_vit.timm_state()
    for name, in_time in (("timesformer_base", "time_attn.proj"), ("vivit_base", "time_layers.0.attn.proj")):
        model = build(name)
        init_from_image(model, state, time="zero")
        own = model.state_dict()
        assert all(not value.any() for key, value in own.items() if f"{in_time}." in key)
        for i in range(DEPTH):
            assert torch.equal(own[f"layers.{i}.attn.proj.weight"], state[f"blocks.{i}.attn.proj.weight"])


@pytest.mark.parametrize("time", ["copy", "zero"])
@pytest.mark.parametrize("name", ["timesformer_base", "vivit_base"])
def test_every_weight_can_learn(name: str, time: str) -> None:
    """What begins at 0 must not stay there: after two steps everything has moved."""
    model = build(name).train()
    init_from_image(model, tiny_vit.timm_state(), time=time)  # type: ignore[arg-type]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clips = torch.randn(2, 3, 8, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    for _ in range(2):
        optimizer.zero_grad()
        model(clips).square().mean().backward()
        optimizer.step()
    stuck = [key for key, value in model.state_dict().items() if torch.equal(value, before[key])]
    assert stuck == []


# -------------------------------------------------------------------------------------------------- inflation


def test_inflated_filters_on_moving_frames() -> None:
    weight = torch.randn(5, 3, 4, 4)
    clip = torch.randn(1, 3, 2, 4, 4)
    frames = [F.conv2d(clip[:, :, t], weight) for t in range(2)]
    average = F.conv3d(clip, inflated(weight, 2, "temporal_avg"))[:, :, 0]
    centre = F.conv3d(clip, inflated(weight, 2, "center_frame"))[:, :, 0]
    torch.testing.assert_close(average, (frames[0] + frames[1]) / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(centre, frames[1], rtol=1e-4, atol=1e-5)
    assert inflated(weight, 3, "center_frame")[:, :, [0, 2]].abs().sum() == 0


def test_positions_are_interpolated_for_another_crop() -> None:
    state = tiny_vit.timm_state()
    model = build("timesformer_base", train_crop=24)
    report = init_from_image(model, state, time="zero")
    assert report.origins["embed.pos_embed"].how == "copied; 16 patches interpolated to 36"
    maps = state["pos_embed"][:, 1:].unflatten(1, (4, 4)).movedim(-1, 1)
    larger = F.interpolate(maps, size=(6, 6), mode="bicubic").flatten(2).transpose(1, 2)
    state["pos_embed"] = torch.cat((state["pos_embed"][:, :1], larger), 1)
    image = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(still(image, 4)), tiny_vit.vit(state, image), rtol=1e-4, atol=1e-5)


def test_mae_pytorch_has_no_class_token_and_no_positions(image: Tensor) -> None:
    state = tiny_vit.timm_state()
    model = build("timesformer_base")
    fresh = model.get_parameter("embed.cls_token").detach().clone()
    report = init_from_image(model, tiny_vit.mae_pytorch(state), time="zero")
    assert report.format == "MAE-pytorch"
    assert torch.equal(model.get_parameter("embed.cls_token"), fresh)
    assert report.origins["embed.cls_token"].how == "freshly initialised"
    assert report.origins["embed.pos_embed"].how.startswith("sinusoids")
    assert "k 0: the file has none" in report.origins["layers.0.attn.qkv.bias"].how
    for i in range(DEPTH):  # keys without a bias, the class token of the model, sines for positions
        state[f"blocks.{i}.attn.qkv.bias"][WIDTH : 2 * WIDTH] = 0
    table = sinusoids((224 // PATCH) ** 2, WIDTH).unflatten(1, (224 // PATCH,) * 2).movedim(-1, 1)
    small = F.interpolate(table, size=(4, 4), mode="bicubic").flatten(2).transpose(1, 2)
    state["pos_embed"] = torch.cat((torch.zeros(1, 1, WIDTH), small), 1)
    state["cls_token"] = fresh
    with torch.no_grad():
        torch.testing.assert_close(model(still(image, 4)), tiny_vit.vit(state, image), rtol=1e-4, atol=1e-5)


def test_sinusoids_are_those_of_the_transformer() -> None:
    table = sinusoids(5, 8)[0].double()
    for position in (0, 3):
        for column in range(8):
            angle = torch.tensor(position / 10000 ** (2 * (column // 2) / 8), dtype=torch.float64)
            expected = angle.sin() if column % 2 == 0 else angle.cos()
            assert table[position, column].item() == pytest.approx(expected.item(), abs=1e-6)


def test_distillation_layer_scale_and_absent_biases(image: Tensor) -> None:
    state = tiny_vit.timm_state()
    special = dict(state) | {"dist_token": torch.ones(1, 1, WIDTH), "head_dist.weight": torch.ones(7, WIDTH)}
    rows = state["pos_embed"]
    special["pos_embed"] = torch.cat((rows[:, :1], torch.full((1, 1, WIDTH), 9.0), rows[:, 1:]), 1)
    for i in range(DEPTH):
        special[f"blocks.{i}.ls1.gamma"] = torch.linspace(0.5, 2, WIDTH)
        special[f"blocks.{i}.ls2.gamma"] = torch.linspace(2, 0.5, WIDTH)
        del special[f"blocks.{i}.attn.qkv.bias"]
        state[f"blocks.{i}.attn.qkv.bias"].zero_()
        for part, scale in (("attn.proj", "ls1"), ("mlp.fc2", "ls2")):
            gamma = special[f"blocks.{i}.{scale}.gamma"]
            state[f"blocks.{i}.{part}.weight"] = state[f"blocks.{i}.{part}.weight"] * gamma[:, None]
            state[f"blocks.{i}.{part}.bias"] = state[f"blocks.{i}.{part}.bias"] * gamma
    model = build("timesformer_base")
    report = init_from_image(model, special, time="zero")
    assert report.unused["dist_token"] == "distillation token"
    assert report.origins["layers.0.attn.qkv.bias"].how == "0: the file has no such bias"
    assert "layer scale in it" in report.origins["layers.1.mlp.fc2.bias"].how
    with torch.no_grad():
        torch.testing.assert_close(model(still(image, 4)), tiny_vit.vit(state, image), rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------------------------- report


@pytest.mark.parametrize("format_name", [*FORMATS, "MAE-pytorch"])
@pytest.mark.parametrize("name", ["timesformer_base", "timesformer_base_joint", "vivit_base"])
def test_the_report_accounts_for_every_tensor_on_both_sides(name: str, format_name: str) -> None:
    state = tiny_vit.timm_state()
    state = {**FORMATS, "MAE-pytorch": tiny_vit.mae_pytorch}[format_name](state)
    model = create_model(name, 5, **SHAPE)
    report = init_from_image(model, state)
    assert set(report.origins) == {key for key, _ in model.named_parameters()}
    used = {source for origin in report.origins.values() for source in origin.sources}
    assert used | set(report.unused) == set(state)
    assert not used & set(report.unused)
    assert report.origins["head.classifier.weight"].how == "freshly initialised"
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["parameters"]["layers.1.mlp.fc1.bias"]["from"] == list(
        report.origins["layers.1.mlp.fc1.bias"].sources
    )


def test_the_summary_says_what_came_from_where() -> None:
    report = init_from_image(create_model("timesformer_base", 5, **SHAPE), tiny_vit.timm_state())
    lines = report.summary().splitlines()
    assert lines[0] == (
        "state dict: timm, an image network; 60 of 69 parameters from it (inflate temporal_avg, time copy)"
    )
    assert "  Conv2d as Conv3d of one frame: 1, embed.patch.weight" in lines
    assert any(
        line.startswith("  copied from attention in space: 18, layers.0.time_norm.weight") for line in lines
    )
    assert "  freshly initialised: an image has no positions in time: 1, embed.time_embed" in lines
    assert "  not used (head for images): head.weight, head.bias" in lines


def test_files(tmp_path: Path) -> None:
    state = tiny_vit.timm_state()
    safetensors.torch.save_file(tiny_vit.hugging_face(state), tmp_path / "model.safetensors")
    torch.save({"model": tiny_vit.mae(state), "epoch": 3}, tmp_path / "mae.pth")
    models = []
    for file in ("model.safetensors", "mae.pth"):
        model = build("vivit_base")
        assert init_from_image(model, tmp_path / file).source == str(tmp_path / file)
        models.append(model.state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_convert_makes_a_file_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safetensors.torch.save_file(tiny_vit.timm_state(), tmp_path / "vit.safetensors")
    words = [
        "convert",
        str(tmp_path / "vit.safetensors"),
        str(tmp_path / "clips.safetensors"),
        "--from-image",
    ]
    assert main(words) == 2
    assert "--from-image needs --model" in capsys.readouterr().err
    options = {**SHAPE, "time_depth": 2}
    shape = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
    assert main([*words, "--model", "vivit_base", *shape, "--time", "zero", "--inflate", "center_frame"]) == 0
    told = capsys.readouterr().out
    assert "an image network" in told
    assert "vivit_base, with a new classifier of 400 classes" in told
    model, metadata = load_model(tmp_path / "clips.safetensors")
    assert metadata["started_from"]["parameters"]["embed.cls_token"]["from"] == ["cls_token"]
    same = create_model("vivit_base", 400, **options)
    init_from_image(same, tiny_vit.timm_state(), time="zero", inflate="center_frame")
    for key, value in same.state_dict().items():
        if not key.startswith("head.classifier."):
            assert torch.equal(model.state_dict()[key], value)


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"width": 8, "hidden": 32}, "a ViT of width 8, and timesformer_base has 12; take"),
        ({"depth": 2}, "a ViT of depth 2, and timesformer_base has 3"),
        ({"patch": 8}, "a ViT of patch 8, and timesformer_base has 4"),
        (
            {"hidden": 24},
            "a ViT of width of the MLPs 24, and timesformer_base has 48; .* or change mlp_ratio",
        ),
    ],
)
def test_a_vit_of_another_shape_is_named(shape: dict[str, int], words: str) -> None:
    model = build("timesformer_base")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=words):
        init_from_image(model, tiny_vit.timm_state(**shape))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_is_no_vit_is_named() -> None:
    model = build("timesformer_base")
    state = tiny_vit.timm_state()
    with pytest.raises(
        WeightsError, match=r"not the weights of a vision transformer .* timm; its keys are like a"
    ):
        init_from_image(model, {"a": torch.zeros(1)})
    missing = {key: value for key, value in state.items() if key != "blocks.1.mlp.fc2.weight"}
    with pytest.raises(
        WeightsError, match=r"timm names, but tensors are missing .*: blocks\.1\.mlp\.fc2\.weight"
    ):
        init_from_image(model, missing)
    video = state | {"patch_embed.proj.weight": torch.zeros(WIDTH, 3, 2, PATCH, PATCH)}
    with pytest.raises(WeightsError, match=r"no convolution over images .* for model\.weights"):
        init_from_image(model, video)
    oblong = state | {"pos_embed": state["pos_embed"][:, :13]}
    with pytest.raises(WeightsError, match=r"pos_embed: positions of shape \(1, 13, 12\) are not those"):
        init_from_image(model, oblong)


def test_models_and_choices_that_cannot_be() -> None:
    state = tiny_vit.timm_state()
    with pytest.raises(UsageError, match=r"x2d .*timesformer_\*"):
        init_from_image(create_model("x2d", 5, gamma_w=0.3), state)
    with pytest.raises(ConfigError, match="inflate must be one of temporal_avg, center_frame, got 'mean'"):
        init_from_image(build("vivit_base"), state, inflate="mean")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="time must be one of copy, zero"):
        init_from_image(build("vivit_base"), state, time="none")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": "a.pyth"}, "model.image_weights: give either model.weights or model.image_weights"),
        ({"image_inflate": "mean"}, "model.image_inflate: .*temporal_avg, center_frame.*'mean'"),
        ({"image_time": "none"}, "model.image_time: .*copy, zero.*'none'"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, str], words: str) -> None:
    config = get_recipe("timesformer_motion")
    model = replace(config.model, image_weights="vit.safetensors", **changes)
    with pytest.raises(ConfigError, match=words):
        validate(config.replace(model=model))


# ------------------------------------------------------------------------------------------------------- MViT

PYRAMID = {
    "embed_dim": 8,
    "depth": 3,
    "widen_at": "1,2",
    "pool_q_at": "1,2",
    "num_frames": 4,
    "train_crop": 32,
}


def mvit_for_images(model: nn.Module) -> State:
    """An MViTv2 for images in PySlowFast's names, which has no class token."""
    names = {
        r"^stem\.patches\.": "patch_embed.proj.",
        r"^layers\.": "blocks.",
        r"attn\.pool_([qkv])\.conv\.": r"attn.pool_\1.",
        r"attn\.pool_([qkv])\.norm\.": r"attn.norm_\1.",
        r"relative\.height": "rel_pos_h",
        r"relative\.width": "rel_pos_w",
        r"mlp\.0\.": "mlp.fc1.",
        r"mlp\.2\.": "mlp.fc2.",
        r"\.widen\.": ".proj.",
        r"^head\.norm\.": "norm.",
        r"^head\.classifier\.": "head.projection.",
    }
    random = torch.Generator().manual_seed(1)
    state = {}
    for key, value in model.named_parameters():
        if key.endswith("relative.time") or key == "stem.cls_token":
            continue
        for ours, theirs in names.items():
            key = re.sub(ours, theirs, key)
        shape = (*value.shape[:2], *value.shape[3:]) if value.ndim == 5 else value.shape
        state[key] = torch.randn(shape, generator=random)
    return state


@pytest.mark.parametrize("inflate", ["temporal_avg", "center_frame"])
def test_an_mvit_starts_from_one_for_images(inflate: str) -> None:
    model = create_model("mvitv2_small", 5, **PYRAMID)
    state = mvit_for_images(model)
    report = init_from_image(model, state, inflate=inflate, time="zero")  # type: ignore[arg-type]
    assert report.format == "PySlowFast"
    assert set(report.origins) == {key for key, _ in model.named_parameters()}
    used = {source for origin in report.origins.values() for source in origin.sources}
    assert used | set(report.unused) == set(state)
    assert set(report.unused) == {"head.projection.weight", "head.projection.bias"}
    fresh = {name for name, origin in report.origins.items() if not origin.sources}
    assert fresh == {
        "stem.cls_token",
        "head.classifier.weight",
        "head.classifier.bias",
        *(f"layers.{i}.attn.relative.time" for i in range(3)),
    }
    assert not model.get_parameter("layers.1.attn.relative.time").any()
    image = torch.randn(1, 3, 32, 32)
    patches = F.conv2d(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 4, 3)
    with torch.no_grad():
        tokens = model.get_submodule("stem.patches")(still(image, 8))
    # averaged filters reach over the edge of the clip in its first moment
    for moment in range(0 if inflate == "center_frame" else 1, 4):
        torch.testing.assert_close(tokens[:, :, moment], patches, rtol=1e-4, atol=1e-4)


def test_a_vit_is_of_no_use_to_an_mvit() -> None:
    model = create_model("mvitv2_small", 5, **PYRAMID)
    with pytest.raises(WeightsError, match=r"not an MViT for images; mvitv2_small widens and pools"):
        init_from_image(model, tiny_vit.timm_state())
