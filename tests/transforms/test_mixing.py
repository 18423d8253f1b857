"""MixUp (arXiv 1710.09412, section 2) and CutMix (arXiv 1905.04899, section 3.1) of clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from saccade.data.seeds import clip_seed
from saccade.errors import ConfigError
from saccade.transforms.mixing import Mixing

NUM, CLASSES = 12, 5
SEEDS = tuple(clip_seed(3, 0, i) for i in range(NUM))


def batch(size: tuple[int, int, int] = (4, 16, 16)) -> tuple[Tensor, Tensor]:
    """Clip i is i + 1 all over, so a mix tells its parts."""
    x = torch.arange(1.0, NUM + 1).view(-1, 1, 1, 1, 1).expand(NUM, 3, *size).clone()
    return x, torch.arange(NUM) % CLASSES


def one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, CLASSES).float()


def mixing(**options: Any) -> Mixing:
    return Mixing(num_classes=CLASSES, **options)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_mixup_blends_clip_and_label_by_one_share(memory_format: torch.memory_format) -> None:
    x, labels = batch()
    mix = mixing(mixup=0.8)
    mixed, targets = mix(x.to(memory_format=memory_format), labels, SEEDS)
    assert mixed.is_contiguous(memory_format=memory_format)
    shares = torch.tensor([mix.draw(seed, (4, 16, 16)).lam for seed in SEEDS])
    assert len(shares.unique()) == NUM  # each clip draws for itself
    partners = mix.partners(NUM)
    for i, (share, j) in enumerate(zip(shares, partners, strict=True)):
        assert j != i
        torch.testing.assert_close(mixed[i], share * x[i] + (1 - share) * x[j])
        torch.testing.assert_close(targets[i], share * one_hot(labels)[i] + (1 - share) * one_hot(labels)[j])
    torch.testing.assert_close(targets.sum(1), torch.ones(NUM))


def test_shares_follow_the_beta_distribution() -> None:
    for alpha in (0.2, 0.8):
        mix = mixing(mixup=alpha)
        shares = np.array([mix.draw(seed, (4, 16, 16)).lam for seed in range(4000)])
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def cut_out(mixed: Tensor, own: float) -> Tensor:
    """Where another clip shows: (T, H, W), the same in all channels."""
    other = mixed != own
    assert other.equal(other[:1].expand_as(other))
    return other[0]


def test_cutmix_cuts_one_rectangle_from_all_frames_and_labels_mix_by_its_area() -> None:
    x, labels = batch()
    mix = mixing(cutmix=1.0)
    mixed, targets = mix(x, labels, SEEDS)
    partners = mix.partners(NUM)
    num_cut = 0
    for i, j in enumerate(partners):
        cut = cut_out(mixed[i], float(x[i, 0, 0, 0, 0]))
        assert cut.equal(cut[:1].expand_as(cut))
        share = 1 - cut.float().mean()
        torch.testing.assert_close(targets[i], share * one_hot(labels)[i] + (1 - share) * one_hot(labels)[j])
        assert mixed[i][:, cut].unique().tolist() in ([], [float(x[j, 0, 0, 0, 0])])
        rows, columns = cut[0].nonzero().unbind(1)
        if len(rows):
            num_cut += 1
            assert cut[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert num_cut > NUM // 2


def test_a_box_is_cut_in_time_too() -> None:
    x, labels = batch((8, 16, 16))
    mix = mixing(cutmix=1.0, shape="box")
    mixed, targets = mix(x, labels, SEEDS)
    lengths = set()
    for i in range(NUM):
        cut = cut_out(mixed[i], float(x[i, 0, 0, 0, 0]))
        lengths.add(int(cut.flatten(1).any(1).sum()))
        assert targets[i].max() <= 1
        j = mix.partners(NUM)[i]
        expected = (1 - cut.float().mean()) * one_hot(labels)[i] + cut.float().mean() * one_hot(labels)[j]
        torch.testing.assert_close(targets[i], expected)
    assert len(lengths) > 3
    assert min(lengths) < 8


def test_the_area_of_a_cut_is_that_of_the_paper() -> None:
    """Before the rectangle is cut off at the border its area is 1 - λ, uniform for α = 1: mean 1/2."""
    mix = mixing(cutmix=1.0)
    inside = []
    for seed in range(3000):
        t, y, x = mix.draw(seed, (4, 1000, 1000)).box or (slice(0),) * 3
        assert (t.start, t.stop) == (0, 4)
        if min(y.start, x.start) > 0 and max(y.stop, x.stop) < 1000:  # whole: a square
            assert abs((y.stop - y.start) - (x.stop - x.start)) <= 1
            inside.append((y.stop - y.start) / 1000)
    assert len(inside) > 500
    assert max(inside) > 0.8


def test_both_are_switched_between_clip_by_clip() -> None:
    mix = mixing(mixup=0.8, cutmix=1.0, switch=0.25)
    boxes = [mix.draw(seed, (4, 16, 16)).box is not None for seed in range(4000)]
    assert np.mean(boxes) == pytest.approx(0.25, abs=0.03)
    rare = mixing(mixup=0.8, cutmix=1.0, probability=0.3)
    untouched = [rare.draw(seed, (4, 16, 16)).lam == 1.0 for seed in range(4000)]
    assert np.mean(untouched) == pytest.approx(0.7, abs=0.04)


def test_several_labels_mix_as_they_are() -> None:
    x, _ = batch()
    labels = (torch.rand(NUM, CLASSES, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    mix = mixing(mixup=0.8)
    _, targets = mix(x, labels, SEEDS)
    for i, j in enumerate(mix.partners(NUM)):
        share = mix.draw(SEEDS[i], (4, 16, 16)).lam
        torch.testing.assert_close(targets[i], share * labels[i] + (1 - share) * labels[j])


@pytest.mark.parametrize("repeats", [1, 2, 3])
@pytest.mark.parametrize("num_clips", [2, 3, 4, 5, 6, 7, 12, 17, 24])
def test_partners_are_a_permutation_that_leaves_nobody_alone(repeats: int, num_clips: int) -> None:
    partners = mixing(mixup=1.0, repeats=repeats).partners(num_clips)
    assert sorted(partners) == list(range(num_clips))
    assert all(i != j for i, j in enumerate(partners))
    if num_clips % repeats == 0 and num_clips > repeats:
        assert all(i // repeats != j // repeats for i, j in enumerate(partners))  # another video


def test_parts_of_whole_blocks_mix_as_the_batch_does() -> None:
    """So neither the number of processes nor that of passes matters."""
    x, labels = batch()
    for repeats, size in ((1, 4), (1, 6), (2, 4)):
        mix = mixing(mixup=0.8, cutmix=1.0, repeats=repeats)
        whole, targets = mix(x, labels, SEEDS)
        for start in range(0, NUM, size):
            part = slice(start, start + size)
            mixed, some = mix(x[part], labels[part], SEEDS[part])
            assert mixed.equal(whole[part])
            assert some.equal(targets[part])


def test_a_lone_clip_stays_itself() -> None:
    x, labels = batch()
    mixed, targets = mixing(mixup=1.0)(x[:1], labels[:1], SEEDS[:1])
    torch.testing.assert_close(mixed, x[:1])
    torch.testing.assert_close(targets, one_hot(labels)[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": -1.0}, r"augment.mixup: -1.0 is negative"),
        ({"cutmix": -1.0}, r"augment.cutmix: -1.0 is negative"),
        ({"mixup": 1.0, "switch": 2.0}, r"augment.mix_switch: 2.0 is not in 0..1"),
        ({"mixup": 1.0, "probability": -1.0}, r"augment.mix_probability: -1.0 is not in 0..1"),
        ({}, "neither MixUp nor CutMix is on"),
    ],
)
def test_what_cannot_work_is_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixing(**options)
