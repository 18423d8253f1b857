"""Histograms of oriented gradients against their definitions, written out, and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from golden import rule
from saccade.errors import UsageError
from saccade.models import maskfeat
from saccade.transforms import hog as hog_module
from saccade.transforms.hog import HogKind, hog
from saccade.transforms.masked_targets import token_targets

# ----------------------------------------------------------------------------------------- definitions


def soft_definition(plane: NDArray[np.uint8]) -> NDArray[np.float64]:
    """scikit-image's, of one colour (H, W): (h, w, 9)."""
    values = plane.astype(np.float64)
    height, width = values.shape
    down, across = np.zeros_like(values), np.zeros_like(values)
    for row in range(1, height - 1):
        down[row] = values[row + 1] - values[row - 1]
    for column in range(1, width - 1):
        across[:, column] = values[:, column + 1] - values[:, column - 1]
    degrees = np.rad2deg(np.arctan2(down, across)) % 180
    found = np.zeros((height // 8, width // 8, 9))
    for row in range(height // 8):
        for column in range(width // 8):
            cell = (slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
            for k in range(9):
                inside = (degrees[cell] >= 20 * k) & (degrees[cell] < 20 * (k + 1))
                found[row, column, k] = np.hypot(down, across)[cell][inside].sum() / 64
            found[row, column] /= np.sqrt((found[row, column] ** 2).sum() + 1e-5**2)
    return found


def hard_definition(plane: NDArray[np.uint8]) -> NDArray[np.float64]:
    """PySlowFast's, of one colour (H, W): (h, w, 9)."""
    height, width = plane.shape
    padded = np.pad(plane.astype(np.float64), 1, mode="reflect")
    kernel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    votes = np.zeros((height // 8, width // 8, 9))
    for row in range(height):
        for column in range(width):
            window = padded[row : row + 3, column : column + 3]
            gx, gy = (window * kernel).sum(), (window * kernel.T).sum()
            k = math.floor(math.atan2(gx, gy) / math.pi * 9) % 9
            votes[row // 8, column // 8, k] += math.hypot(gx, gy)
    return votes / np.maximum(np.linalg.norm(votes, axis=-1, keepdims=True), 1e-12)


def noise(*shape: int) -> Tensor:
    values = rule.normal("hog:test", (*shape, 3))
    return torch.from_numpy(np.clip(np.floor(128 + 60 * values), 0, 255).astype(np.uint8))


@pytest.mark.parametrize(("kind", "define"), [("soft", soft_definition), ("hard", hard_definition)])
@pytest.mark.parametrize("size", [(8, 8), (16, 40)])
def test_it_is_its_definition(kind: HogKind, define, size: tuple[int, int]):
    frames = noise(2, *size)
    frames[1, :, : size[1] // 2] = 90  # flat, and an edge
    found = hog(frames, kind)
    assert found.shape == (2, size[0] // 8, size[1] // 8, 3, 9)
    for frame, own in zip(frames, found, strict=True):
        for colour in range(3):
            expected = define(frame[..., colour].numpy())
            np.testing.assert_allclose(own[:, :, colour].numpy(), expected, atol=2e-6)


def test_a_gradient_votes_for_its_direction():
    """Across, down, and the diagonals, of every kind of sign: where the borders of directions lie."""
    ramp = torch.arange(16).mul(8).expand(16, 16)
    columns, rows = ramp, ramp.T
    for plane, soft, hard in (
        (columns, 0, 4),
        (255 - columns, 0, 4),
        (rows, 4, 0),
        (255 - rows, 4, 0),
        ((columns + rows) // 2, 2, 2),
        ((columns.flip(1) + rows) // 2, 6, 6),
    ):
        frame = plane.to(torch.uint8)[..., None].expand(16, 16, 3)
        assert (hog(frame, "soft")[..., soft] > 0.8).all()
        assert (hog(frame, "hard")[..., hard] > 0.8).all()


def test_a_flat_frame_has_no_direction():
    frame = torch.full((1, 16, 16, 3), 77, dtype=torch.uint8)
    assert not hog(frame, "soft").any()
    assert not hog(frame, "hard").any()


# ------------------------------------------------------------------------------------- scikit-image's figures


def recorded_frame(name: str) -> Tensor:
    """The frames the figures are of, from the formulas they come with."""
    row, column, colour = np.meshgrid(np.arange(224), np.arange(224), np.arange(3), indexing="ij")
    waves = 100 * np.sin(2 * np.pi * (row * (colour + 1) / 37 + column * (3 - colour) / 53))
    synth = np.clip(np.floor(127.5 + waves + 20 * np.cos(2 * np.pi * row * column / 1000)), 0, 255)
    frames = {
        "synth": synth,
        "flat": np.full_like(synth, 77),
        "noise": np.clip(np.floor(128 + 60 * rule.normal("hog:noise", (224, 224, 3))), 0, 255),
        "half": np.where(column >= 112, 90, synth),
    }
    return torch.from_numpy(frames[name].astype(np.uint8))


@pytest.mark.parametrize("name", ["synth", "flat", "noise", "half"])
def test_it_is_scikit_image_s(name: str):
    recorded = rule.load("vt_hog")["results"][name]
    frame = recorded_frame(name)
    assert int(frame.sum()) == recorded["frame_sum"]
    found = token_targets(frame[None], "soft", (14, 14))[0]
    assert list(found.shape) == recorded["shape"]
    assert float(found.double().mean()) == pytest.approx(recorded["mean"], abs=1e-7)
    assert float(found.double().std(correction=0)) == pytest.approx(recorded["std"], abs=1e-7)
    for part, figures in (
        (found.flatten()[:27], "first27"),
        (found[5, 9, :27], "cell_5_9_first27"),
        (found.flatten()[-8:], "last8"),
    ):
        np.testing.assert_allclose(part.numpy(), recorded[figures], atol=1e-6)


# ----------------------------------------------------------------------------------------------- as a tensor


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_frames_do_not_matter_to_each_other(kind: HogKind):
    clips = noise(2, 3, 16, 24)
    found = hog(clips, kind)
    assert found.shape == (2, 3, 2, 3, 3, 9)
    torch.testing.assert_close(found[1, 2], hog(clips[1, 2], kind), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_the_sums_of_other_devices_are_those_of_a_cpu(kind: HogKind, monkeypatch: pytest.MonkeyPatch):
    frames = noise(2, 16, 24)
    here = hog(frames, kind)
    monkeypatch.setattr(hog_module, "_scatters", lambda values: False)
    torch.testing.assert_close(hog(frames, kind), here, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_on_a_gpu(kind: HogKind):
    frames = noise(4, 64, 64)
    torch.testing.assert_close(hog(frames.cuda(), kind).cpu(), hog(frames, kind), rtol=1e-4, atol=1e-4)


def test_what_it_refuses():
    with pytest.raises(UsageError, match=r"uint8 .* got torch.float32"):
        hog(torch.zeros(8, 8, 3))
    with pytest.raises(UsageError, match="multiples of 8 pixels, got 12x8"):
        hog(torch.zeros(12, 8, 3, dtype=torch.uint8))


def test_cells_and_directions_are_those_of_the_model():
    assert (hog_module.CELL, hog_module.NUM_BINS) == (maskfeat.CELL, maskfeat.NUM_BINS)


# --------------------------------------------------------------------------------------------------- targets


def test_the_order_of_a_token_s_numbers():
    frames = noise(1, 32, 48)
    cells = hog(frames, "soft")[0]
    soft = token_targets(frames, "soft", (2, 3))[0, 1, 2].view(2, 2, 3, 9)
    torch.testing.assert_close(soft, cells[2:4, 4:6])
    hard = token_targets(frames, "hard", (2, 3))[0, 1, 2].view(3, 9, 2, 2)
    torch.testing.assert_close(hard, hog(frames, "hard")[0, 2:4, 4:6].permute(2, 3, 0, 1))
    pixels = token_targets(frames, "pixels", (2, 3))[0, 1, 2].view(16, 16, 3)
    patch = frames[0, 16:32, 32:48] / 255
    torch.testing.assert_close(pixels, (patch - patch.mean()) / (patch.var() + 1e-6).sqrt())


def test_targets_of_tokens_that_are_no_whole_cells_are_refused():
    with pytest.raises(UsageError, match="3x3 tokens"):
        token_targets(noise(1, 32, 32), "soft", (3, 3))
    with pytest.raises(UsageError, match="4x4 HOG cells"):
        token_targets(noise(1, 32, 32), "soft", (8, 8))
    with pytest.raises(UsageError, match="soft, hard, pixels"):
        token_targets(noise(1, 32, 32), "edges", (2, 2))  # type: ignore[arg-type]
