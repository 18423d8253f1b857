"""Attention maps: rollout against products of full matrices, heads, and the command."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from saccade.cli import main
from saccade.cli.visualize_clips import attention_subtitle
from saccade.errors import UsageError
from saccade.layers.attention import record_attention
from saccade.models import VideoModel, create_model, save_weights
from saccade.video import open_video, write_video
from saccade.visualize.attention import (
    PooledBlock,
    attention_maps,
    attention_row,
    linear_pool,
    rollout_pooled,
    time_chart,
    unpool,
)

TINY: dict[str, Any] = {"width": 12, "depth": 3, "num_heads": 2, "train_crop": 32, "num_frames": 4}
TINY_MVIT: dict[str, Any] = {"embed_dim": 4, "depth": 4, "widen_at": (1, 3), "pool_q_at": (1, 3)}
NAMES = ["timesformer_base", "timesformer_base_joint", "timesformer_base_space", "vivit_base"]
NAMES += ["vivit_base_joint", "vivit_base_divided"]


def tiny(name: str, **more: Any) -> VideoModel:
    torch.manual_seed(0)
    model = create_model(name, 5, **(TINY_MVIT if name.startswith("mvit") else TINY), **more)
    with torch.no_grad():  # attention that is not uniform
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, 0.6)
    return model.eval()


def clip_of(model: VideoModel) -> Tensor:
    frames, side = (4, 96) if model.model_name.startswith("mvit") else (4, 32)
    return torch.randn(1, 3, frames, side, side, generator=torch.Generator().manual_seed(1))


def half(matrix: Tensor) -> Tensor:
    return 0.5 * torch.eye(len(matrix)) + 0.5 * matrix


def naive_divided(time: Tensor, space: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices of temporal and spatial attention over all 1 + T P tokens, element by element."""
    num_times, num_patches = len(space), len(time)
    size = 1 + num_times * num_patches
    temporal, spatial = torch.zeros(size, size), torch.zeros(size, size)
    temporal[0, 0] = 1.0
    for t in range(num_times):
        for p in range(num_patches):
            row = 1 + t * num_patches + p
            for s in range(num_times):
                temporal[row, 1 + s * num_patches + p] = time[p, :, t, s].mean()
            spatial[row, 0] = space[t, :, 1 + p, 0].mean()
            spatial[0, row] = space[t, :, 0, 1 + p].mean() / num_times
            for q in range(num_patches):
                spatial[row, 1 + t * num_patches + q] = space[t, :, 1 + p, 1 + q].mean()
        spatial[0, 0] += space[t, :, 0, 0].mean() / num_times
    return temporal, spatial


def naive_rollout(model: Any, weights: dict[str, Tensor]) -> Tensor:
    """Rollout of the class token as a product of matrices over all tokens."""
    kind = model.config.attention
    if kind == "divided":
        product = torch.eye(9 if model.model_name.startswith("vivit") else 17)
        for i in range(3):
            temporal, spatial = naive_divided(weights[f"layers.{i}.time_attn"], weights[f"layers.{i}.attn"])
            product = half(spatial) @ half(temporal) @ product
        row = product[0]
        return row[1:]
    blocks = [weights[f"layers.{i}.attn"].mean(1) for i in range(3)]
    per_step = []
    for moment in range(len(blocks[0])):
        product = torch.eye(blocks[0].shape[-1])
        for block in blocks:
            product = half(block[moment]) @ product
        per_step.append(product)
    if kind == "joint":
        return per_step[0][0, 1:]
    if kind == "space":
        return torch.cat([product[0, 1:] / len(per_step) for product in per_step])
    time = torch.eye(3)
    for i in range(4):
        time = half(weights[f"time_layers.{i}.attn"][0].mean(0)) @ time
    parts = []
    for moment, product in enumerate(per_step):
        part = time[0, 1 + moment] * product[1:, 1:].mean(0)
        parts.append(part + (time[0, 0] * product[0, 1:] if moment == 0 else 0))
    return torch.cat(parts)


@pytest.mark.parametrize("name", NAMES)
def test_rollout_equals_the_product_of_the_blocks_matrices(name: str):
    model = tiny(name)
    clip = clip_of(model)
    found = attention_maps(model, clip)
    with torch.no_grad(), record_attention(model) as weights:
        logits = model(clip)[0]
    expected = naive_rollout(model, dict(weights))
    np.testing.assert_allclose(found.rollout.ravel(), expected.numpy(), rtol=1e-4, atol=1e-7)
    assert found.rollout.shape == (4 if "times" in name else 2, 2, 2)
    assert 0.1 < found.rollout.sum() < 1  # the rest is the class token's
    assert found.rollout.max() > 1.2 * found.rollout.min()
    np.testing.assert_allclose(found.logits, logits.numpy(), rtol=1e-5)
    assert not model.layers[0].attn.keep_weights  # type: ignore[index, union-attr]


@pytest.mark.parametrize("name", ["timesformer_base", "timesformer_base_joint", "timesformer_base_space"])
def test_model_with_mean_pooling(name: str):
    found = attention_maps(tiny(name, head_pool="mean"), clip_of(tiny(name)), block=0)
    assert found.rollout.sum() == pytest.approx(1, abs=0.5)
    assert found.heads.shape == (2, 4, 2, 2)


@pytest.mark.parametrize("name", NAMES)
def test_heads_are_the_rows_of_the_token_that_the_head_reads(name: str):
    model: Any = tiny(name)
    clip = clip_of(model)
    with torch.no_grad(), record_attention(model) as weights:
        model(clip)
    attention = weights["layers.1.attn"]
    assert torch.allclose(attention.sum(-1), torch.ones(()))
    found = attention_maps(model, clip, block=1)
    assert (found.block, found.num_blocks) == (1, 3)
    length = len(found.rollout)
    for head in range(2):
        for moment in range(length):
            step = 0 if len(attention) == 1 else moment
            first = 1 + 4 * moment if len(attention) == 1 else 1  # joint: the patches of all time steps
            rows = attention[step, head, 1:] if name == "vivit_base" else attention[step, head, :1]
            expected = rows[:, first : first + 4].mean(0).reshape(2, 2)
            np.testing.assert_allclose(found.heads[head, moment], expected.numpy(), rtol=1e-5)


def test_temporal_attention():
    for name, layer in (("timesformer_base", "layers.1.time_attn"), ("vivit_base", "time_layers.3.attn")):
        model = tiny(name)
        clip = clip_of(model)
        with torch.no_grad(), record_attention(model) as weights:
            model(clip)
        found = attention_maps(model, clip, block=1).temporal
        expected = weights[layer].mean(0) if "times" in name else weights[layer][0, :, 1:, 1:]
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)
        assert found is not None
        assert found.shape == ((2, 4, 4) if "times" in name else (2, 2, 2))
    assert attention_maps(tiny("vivit_base_joint"), clip).temporal is None


# ------------------------------------------------------------------------------------- pooled attention


def test_unpool_is_the_transpose_of_pooling():
    grid, cells = (2, 6, 6), (2, 3, 3)
    pool = linear_pool(2)
    matrix = torch.stack(
        [pool(unit.reshape(1, 1, *grid)).flatten() for unit in torch.eye(72)], dim=1
    )  # (cells, patches)
    assert torch.allclose(matrix.sum(1), torch.ones(18))  # means
    middle = matrix[4].reshape(grid)[0]  # the cell in the middle stands on patch (2, 2)
    assert middle[2].tolist() == pytest.approx([0, 0.125, 0.25, 0.125, 0, 0])
    values = torch.rand(18)
    assert torch.allclose(unpool(values, pool, grid), values @ matrix, atol=1e-6)
    assert pool(torch.zeros(1, 1, *grid)).shape[2:] == cells


def test_rollout_of_pooled_blocks_equals_the_product_of_matrices():
    torch.manual_seed(0)
    grids = [(1, 4, 4), (1, 4, 4), (1, 2, 2)]
    strides = [(1, 2), (2, 1)]  # of queries, of keys
    blocks, product = [], torch.eye(17)
    for grid, out, (q_stride, k_stride) in zip(grids, grids[1:], strides, strict=False):
        pool_q, pool_k = linear_pool(q_stride), linear_pool(k_stride)
        units = torch.eye(16).reshape(16, 1, 1, *grid)
        q_matrix, k_matrix = (torch.stack([p(u).flatten() for u in units], 1) for p in (pool_q, pool_k))
        num_queries, num_keys = out[1] * out[2], len(k_matrix)
        weights = torch.rand(3, 1 + num_queries, 1 + num_keys).softmax(-1)
        blocks.append(PooledBlock(weights, grid, pool_q, pool_k))
        keys = torch.block_diag(torch.ones(1, 1), k_matrix)
        skip = torch.block_diag(torch.ones(1, 1), q_matrix)
        product = (0.5 * weights.mean(0) @ keys + 0.5 * skip) @ product
    row = torch.zeros(5)
    row[0] = 1
    found = rollout_pooled(row, blocks)
    assert torch.allclose(found, product[0], atol=1e-6)
    assert found.sum().item() == pytest.approx(1)


def test_an_mvit():
    model = tiny("mvit_base_16x4")
    found = attention_maps(model, clip_of(model), block=2)
    assert found.rollout.shape == (2, 24, 24)
    assert found.heads.shape[1:] == (2, 3, 3)
    assert (found.strides, found.key_strides) == ((2, 4), (2, 32))
    assert found.temporal is None
    assert found.rollout.max() > 1.1 * found.rollout.mean() > 0
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.zero_()  # uniform attention
                module.bias.zero_()
    even = attention_maps(model, clip_of(model), block=-1)
    assert even.rollout == pytest.approx(np.full((2, 24, 24), even.rollout.mean()), rel=1e-4)


# ---------------------------------------------------------------------------------------- chart, command


def test_attention_row_is_scaled_and_notes_the_ratio():
    row = attention_row("head", np.array([[[0.1, 0.1], [0.1, 0.5]]]), None)
    assert row.maps.ravel().tolist() == [0, 0, 0, 1]
    assert row.note == "≤ 2.5× uniform"
    assert not attention_row("even", np.full((1, 2, 2), 0.25), None).maps.any()


def test_time_chart_has_a_matrix_for_each_head():
    weights = np.random.default_rng(0).random((9, 4, 4))
    figure = time_chart(weights, [0.1, 0.2, 0.3, 0.4], title="Title", subtitle="below it")
    squares = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in squares] == [
        "mean of heads",
        *(f"head {i}" for i in range(9)),
    ]
    np.testing.assert_allclose(squares[0].images[0].get_array(), weights.mean(0))
    np.testing.assert_allclose(squares[9].images[0].get_array(), weights[8])
    assert [label.get_text() for label in squares[0].get_xticklabels()] == ["0.1 s", "0.4 s"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and a video."""
    folder = tmp_path_factory.mktemp("attention")
    clip = {"num_frames": 4, "stride": 2, "crop": 32, "short_side": 32, "target_fps": 20.0}
    clip |= {"mean": [0.45] * 3, "std": [0.225] * 3}
    for name in ("timesformer_base", "vivit_base_joint"):
        save_weights(tiny(name), folder / f"{name}.safetensors", metadata={"clip": clip})
    frames = np.random.default_rng(0).integers(0, 256, (30, 60, 90, 3), np.uint8)
    write_video(folder / "one.mp4", frames, fps=20)
    return folder


def test_the_command_draws_sheet_video_and_time(folder: Path, capsys: pytest.CaptureFixture[str]):
    args = ["visualize", "attention", str(folder / "timesformer_base.safetensors"), str(folder / "one.mp4")]
    assert main([*args, "--out", str(folder / "out"), "--columns", "2"]) == 0
    names = ["one.attention.png", "one.attention.mp4", "one.attention-time.png"]
    assert capsys.readouterr().out.split() == [str(folder / "out" / name) for name in names]
    with Image.open(folder / "out" / names[0]) as sheet:
        assert sheet.height > 900  # frames, rollout, mean, two heads, and time
    with open_video(folder / "out" / names[1]) as video:
        assert len(video) == 7
    args[2] = str(folder / "vivit_base_joint.safetensors")
    assert main([*args, "--out", str(folder / "out"), "--heads=none", "--no-video", "--columns=1"]) == 0
    assert capsys.readouterr().out.split() == [str(folder / "out" / names[0])]


@pytest.mark.parametrize(
    ("logits", "heads", "expected"),
    [
        ([], "all", "net; heads of block 8 of 8"),
        ([0.0, 9.0], "mean", "net predicts up 100 %; heads of block 8 of 8"),
        ([0.0, 9.0], "none", "net predicts up 100 %; rollout of 8 blocks"),
    ],
)
def test_subtitle(logits: list[float], heads: str, expected: str):
    loaded: Any = SimpleNamespace(name="net", task="single-label", class_names=("down", "up"), metadata={})
    found: Any = SimpleNamespace(logits=np.array(logits), block=7, num_blocks=8)
    assert attention_subtitle(loaded, found, heads) == expected


@pytest.mark.parametrize(
    ("model", "flags", "words"),
    [
        ("timesformer_base", ["--heads", "2"], "heads 2: must be all, none, mean, or numbers from 0 to 1"),
        ("timesformer_base", ["--block", "3"], "block 3: timesformer_base has blocks 0 to 2"),
    ],
)
def test_errors_are_one_line(
    folder: Path, model: str, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    args = ["visualize", "attention", str(folder / f"{model}.safetensors"), str(folder / "one.mp4")]
    assert main([*args, *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_convolutional_models_are_refused():
    with pytest.raises(UsageError, match=r"x2d has no attention .* gradcam"):
        attention_maps(create_model("x2d", 2), torch.zeros(1, 3, 1, 32, 32))
