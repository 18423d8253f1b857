from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saccade import transforms
from saccade.clip import ClipSpec
from saccade.data.seeds import clip_seed, stream
from saccade.data.types import ClipBatch
from saccade.errors import ConfigError, UsageError
from saccade.transforms import TrainTransform
from saccade.transforms.normalize import GRAY

CLIP = ClipSpec(num_frames=3, stride=2, crop=8, short_side=10, mean=(0.4, 0.45, 0.5), std=(0.2, 0.225, 0.25))
IDENTITY = CLIP.replace(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
JITTER = {"brightness": 0.4, "contrast": 0.3, "saturation": 0.5}


def batch(num_clips: int = 4, *, crop: int = 8, device: torch.device | str = "cpu") -> ClipBatch:
    random = torch.Generator().manual_seed(0)
    sizes = [(10, 14), (16, 12), (8, 8), (11, 20)]
    clips = [
        torch.randint(0, 256, (3, *sizes[i % 4], 3), dtype=torch.uint8, generator=random)
        for i in range(num_clips)
    ]
    seeds = tuple(1000 + i for i in range(num_clips))
    labels = torch.arange(num_clips)
    return ClipBatch(clips, labels, seeds, tuple(range(num_clips)), crop).to(device)


def columns(num_clips: int, height: int = 12, width: int = 20) -> ClipBatch:
    """Clips whose red is the row and whose green is the column."""
    clip = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    clip[..., 0] = torch.arange(height)[:, None]
    clip[..., 1] = torch.arange(width)
    return ClipBatch([clip] * num_clips, torch.zeros(num_clips), tuple(range(num_clips)), (0,) * num_clips, 8)


def where(views: Tensor) -> list[tuple[int, int, bool]]:
    """(top, left, flipped) of each crop of `columns`, all of whose frames must agree."""
    pixels = (views * 255).round().int()
    assert (pixels == pixels[:, :, :1]).all()
    found = []
    for view in pixels[:, :, 0]:
        row, column = view[0, :, 0], view[1, 0]
        flipped = bool(column[0] > column[-1])
        column = column.flip(0) if flipped else column
        assert (row == row[0] + torch.arange(8)).all()
        assert (column == column[0] + torch.arange(8)).all()
        found.append((int(row[0]), int(column[0]), flipped))
    return found


def test_every_crop_is_reached_and_half_are_flipped() -> None:
    found = where(TrainTransform(IDENTITY)(columns(600)))
    assert {top for top, _, _ in found} == set(range(5))
    assert {left for _, left, _ in found} == set(range(13))
    assert 240 < sum(flipped for *_, flipped in found) < 360


def test_the_largest_draw_stays_inside_the_frame() -> None:
    # The 240th clip of a run with seed 0 draws 1 - 3e-8 for its place from the left: 1.0 in float32.
    seed = clip_seed(0, 0, 239)
    assert stream(seed, "transform").random(6)[1] > 1 - 2**-24
    clips = [torch.zeros(2, 72, 84, 3, dtype=torch.uint8)]
    one = ClipBatch(clips, torch.zeros(1, dtype=torch.int64), (seed,), (0,), 64)
    transform = TrainTransform(ClipSpec(num_frames=2, stride=1, crop=64, short_side=64))
    assert transform(one).shape == (1, 3, 2, 64, 64)


def test_flip_probability() -> None:
    assert not any(flipped for *_, flipped in where(TrainTransform(IDENTITY, flip=0.0)(columns(50))))
    assert all(flipped for *_, flipped in where(TrainTransform(IDENTITY, flip=1.0)(columns(50))))


def test_switching_an_augmentation_on_leaves_the_crops() -> None:
    plain = where(TrainTransform(IDENTITY, flip=0.0)(columns(20)))
    flipped = where(TrainTransform(IDENTITY, flip=1.0)(columns(20)))
    assert [at[:2] for at in plain] == [at[:2] for at in flipped]


def test_normalisation() -> None:
    views = TrainTransform(CLIP)(batch())
    plain = TrainTransform(IDENTITY)(batch())
    assert views.shape == (4, 3, 3, 8, 8)
    assert views.dtype == torch.float32
    assert 0 <= plain.min() < plain.max() <= 1
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (CLIP.mean, CLIP.std))
    torch.testing.assert_close(views, (plain - mean) / std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("jitter", [{}, {"brightness": 0.5}, {"contrast": 0.5}, {"saturation": 0.5}, JITTER])
def test_a_clip_does_not_depend_on_its_batch(jitter: dict[str, float]) -> None:
    transform = TrainTransform(CLIP, **jitter)
    whole, all_views = batch(), transform(batch())
    for i in range(4):
        one = ClipBatch(whole.clips[i : i + 1], whole.labels[i : i + 1], whole.seeds[i : i + 1], (i,), 8)
        assert torch.equal(transform(one)[0], all_views[i])


@pytest.mark.parametrize("jitter", [{}, JITTER])
def test_memory_format_changes_no_value(jitter: dict[str, float]) -> None:
    plain = TrainTransform(CLIP, **jitter)(batch())
    last = TrainTransform(CLIP, channels_last=True, **jitter)(batch())
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(plain, last)


def jittered_by_definition(frames: Tensor, a: float, b: float, c: float) -> Tensor:
    """PySlowFast's colour jitter, step by step, on float64 (3, T, H, W) in 0..1."""
    weights = torch.tensor(GRAY, dtype=torch.float64).view(3, 1, 1, 1)
    frames = a * frames
    gray_mean = (weights * frames).sum(0).mean(dim=(1, 2))[None, :, None, None]
    frames = b * frames + (1 - b) * gray_mean
    return c * frames + (1 - c) * (weights * frames).sum(0, keepdim=True)


def test_colour_jitter_is_the_three_steps_in_turn() -> None:
    plain = TrainTransform(IDENTITY)(batch())
    views = TrainTransform(CLIP, **JITTER)(batch())
    mean, std = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1, 1) for x in (CLIP.mean, CLIP.std))
    for i, seed in enumerate(batch().seeds):
        draws = stream(seed, "transform").random(6)[3:]
        a, b, c = (1 + s * (2 * u - 1) for s, u in zip(JITTER.values(), draws, strict=True))
        expected = (jittered_by_definition(plain[i].double(), a, b, c) - mean) / std
        torch.testing.assert_close(views[i].double(), expected, rtol=1e-5, atol=1e-5)
        assert (expected - (plain[i] - mean) / std).abs().max() > 0.02


def test_jitter_of_each_kind_alone() -> None:
    plain = TrainTransform(IDENTITY)(batch())
    bright = TrainTransform(IDENTITY, brightness=0.5)(batch())
    ratios = (bright / plain.clamp_min(1e-3))[plain > 0.1].view(-1)
    assert ratios.min() >= 0.49
    assert ratios.max() <= 1.51
    gray = ClipBatch([torch.full((3, 9, 9, 3), 90, dtype=torch.uint8)], torch.zeros(1), (5,), (0,), 8)
    for name in ("contrast", "saturation"):  # neither changes an even grey
        views = TrainTransform(IDENTITY, **{name: 1.0})(gray)
        torch.testing.assert_close(views, torch.full_like(views, 90 / 255))


def test_clip_smaller_than_the_crop_names_the_sizes() -> None:
    with pytest.raises(UsageError, match="crop of 9 × 9 does not fit into frames of 8 × 8"):
        TrainTransform(CLIP)(batch(crop=9))


def test_clips_of_different_length_are_refused() -> None:
    mixed = batch(2)
    mixed.clips = [mixed.clips[0], mixed.clips[1][:2]]
    with pytest.raises(UsageError, match="clips of 3 and of 2 frames"):
        TrainTransform(CLIP)(mixed)


@pytest.mark.parametrize("name", ["flip", "brightness", "contrast", "saturation"])
def test_strengths_outside_0_to_1_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"augment.{name}: 1.5 is not in 0..1"):
        TrainTransform(CLIP, **{name: 1.5})


@pytest.mark.gpu
def test_the_gpu_makes_the_same_clips(cuda: torch.device) -> None:
    for options in ({}, JITTER):
        for channels_last in (False, True):
            transform = TrainTransform(CLIP, channels_last=channels_last, **options)
            assert torch.equal(transform(batch(device=cuda)).cpu(), transform(batch()))


# --- test views --------------------------------------------------------------------------------------------


def test_three_crops_in_view_order() -> None:
    """Two clips, three crops: view v is clip v // 3, crop v % 3."""
    frames = torch.zeros(6, 8, 15, 3, dtype=torch.uint8)
    frames[..., 0] = torch.arange(6)[:, None, None]
    frames[..., 1] = torch.arange(15)
    views = (transforms.test_transform(frames, IDENTITY, 3) * 255).round().int()
    assert views.shape == (6, 3, 3, 8, 8)
    assert views[:, 0, :, 0, 0].tolist() == [[0, 1, 2]] * 3 + [[3, 4, 5]] * 3
    assert views[:, 1, 0, 0, 0].tolist() == [0, 4, 7] * 2
    by_clip = transforms.test_transform(frames.view(2, 3, 8, 15, 3), IDENTITY, 3)
    assert torch.equal((by_clip * 255).round().int(), views)


def test_one_crop_is_the_centre() -> None:
    frames = torch.zeros(3, 13, 10, 3, dtype=torch.uint8)
    frames[..., 0] = torch.arange(13)[:, None]
    frames[..., 1] = torch.arange(10)
    views = (transforms.test_transform(frames, IDENTITY) * 255).round().int()
    assert views.shape == (1, 3, 3, 8, 8)
    assert (views[0, 0, 0, 0, 0], views[0, 1, 0, 0, 0]) == (3, 1)


def test_test_views_are_normalised_in_both_formats() -> None:
    frames = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8)
    plain = transforms.test_transform(frames, CLIP)
    last = transforms.test_transform(frames, CLIP, channels_last=True)
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (CLIP.mean, CLIP.std))
    torch.testing.assert_close(plain[0], (frames.permute(3, 0, 1, 2) / 255 - mean) / std)
    assert torch.equal(plain, last)
    assert last.is_contiguous(memory_format=torch.channels_last_3d)


def test_frames_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(UsageError, match="crop of 8 × 8 does not fit into frames of 7 × 9"):
        transforms.test_transform(torch.zeros(3, 7, 9, 3, dtype=torch.uint8), CLIP, 3)
    with pytest.raises(UsageError, match=r"^4 frames do not divide"):
        transforms.test_transform(torch.zeros(4, 9, 9, 3, dtype=torch.uint8), CLIP)
    with pytest.raises(UsageError, match=r"^crops must be 1 or 3"):
        transforms.test_transform(torch.zeros(3, 9, 9, 3, dtype=torch.uint8), CLIP, 2)
