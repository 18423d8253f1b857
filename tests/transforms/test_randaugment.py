"""RandAugment (arXiv 1909.13719, section 3), each operation against Pillow's of that name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from saccade.data.seeds import clip_seed
from saccade.errors import ConfigError
from saccade.transforms.randaugment import OPERATIONS, RandAugment

SIZE = 24


def picture(seed: int = 0) -> np.ndarray:
    """Smooth and colourful, not using the whole range of values."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 210, (5, 5, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def clips(*pictures: np.ndarray, num_frames: int = 1) -> Tensor:
    return torch.stack([torch.from_numpy(p.copy()).expand(num_frames, -1, -1, -1) for p in pictures]).clone()


def affine(coefficients: Callable[[float], tuple[float, ...]]) -> Callable[[Image.Image, float], Image.Image]:
    """Pillow's affine map about the centre of the picture; moves are shares of its size."""

    def apply(image: Image.Image, strength: float) -> Image.Image:
        a, b, c, d, e, f = coefficients(strength)
        m = SIZE / 2
        c, f = c * SIZE + m - a * m - b * m, f * SIZE + m - d * m - e * m
        return image.transform(
            image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR, fillcolor=FILL
        )

    return apply


FILL = (128, 128, 128)
PILLOW: dict[str, tuple[Callable[[Image.Image, float], Image.Image], float]] = {
    "identity": (lambda image, s: image, 0.0),
    "auto_contrast": (lambda image, s: ImageOps.autocontrast(image), 0.0),
    "equalize": (lambda image, s: ImageOps.equalize(image), 0.0),
    "rotate": (lambda image, s: image.rotate(s, Image.Resampling.BILINEAR, fillcolor=FILL), 21.0),
    "solarize": (lambda image, s: ImageOps.solarize(image, int(s)), 110.0),
    "color": (lambda image, s: ImageEnhance.Color(image).enhance(s), 1.63),
    "posterize": (lambda image, s: ImageOps.posterize(image, int(s)), 4.0),
    "contrast": (lambda image, s: ImageEnhance.Contrast(image).enhance(s), 0.37),
    "brightness": (lambda image, s: ImageEnhance.Brightness(image).enhance(s), 1.63),
    "sharpness": (lambda image, s: ImageEnhance.Sharpness(image).enhance(s), 1.9),
    "shear_x": (affine(lambda s: (1, s, 0, 0, 1, 0)), 0.21),
    "shear_y": (affine(lambda s: (1, 0, 0, s, 1, 0)), -0.21),
    "translate_x": (affine(lambda s: (1, 0, s, 0, 1, 0)), 0.25),
    "translate_y": (affine(lambda s: (1, 0, 0, 0, 1, s)), -0.25),
}


def test_there_are_the_fourteen_of_the_paper() -> None:
    assert OPERATIONS.keys() == PILLOW.keys()
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("name", PILLOW)
def test_an_operation_is_pillow_s(name: str) -> None:
    apply, strength = PILLOW[name]
    pictures = picture(0), picture(1)
    ours = OPERATIONS[name].apply(clips(*pictures), torch.tensor([strength, strength]), 128.0)
    assert ours.dtype == torch.uint8
    for mine, image in zip(ours, pictures, strict=True):
        theirs = np.asarray(apply(Image.fromarray(image), strength)).astype(int)
        difference = np.abs(mine[0].numpy().astype(int) - theirs)
        if name in ("rotate", "shear_x", "shear_y"):  # Pillow has no blend with the fill at the border
            difference = difference[4:-4, 4:-4]
        assert difference.max() <= 1, name  # Pillow cuts digits off where ours rounds
        if name != "identity":
            assert (theirs != image).any()


@pytest.mark.parametrize("name", [name for name in PILLOW if name != "identity"])
def test_an_operation_does_the_same_to_every_frame(name: str) -> None:
    """Two frames that share a part show the same in it afterwards, whatever the rest of each is."""
    left, right = picture(0), picture(1)
    right = right // 2  # darker: statistics of its own would give it another look
    shared = slice(8, 16)
    right[:, :] = np.where(np.isin(np.arange(SIZE), np.arange(8, 16))[None, :, None], left, right)
    clip = torch.stack([torch.from_numpy(left.copy()), torch.from_numpy(right)])[None]
    strength = torch.tensor([PILLOW[name][1] / (4 if "shear" in name or "translate" in name else 1)])
    if name == "rotate":
        strength = torch.tensor([0.0])
    changed = OPERATIONS[name].apply(clip, strength, 128.0)
    columns = slice(shared.start + 3, shared.stop - 3)
    rows = slice(10, 14)
    assert changed[0, 0, rows, columns].equal(changed[0, 1, rows, columns])


def test_a_still_clip_stays_still_and_a_moving_one_moves_as_before() -> None:
    augment = RandAugment(4, 9.0)
    seeds = tuple(clip_seed(0, 0, i) for i in range(64))
    still = augment(clips(*(picture(i) for i in range(64)), num_frames=3), seeds)
    assert (still == still[:, :1]).all()
    assert (still != clips(*(picture(i) for i in range(64)), num_frames=3)).flatten(1).any(1).sum() > 56


def test_operations_are_drawn_uniformly_and_anew_for_each_clip() -> None:
    augment = RandAugment(2, 5.0)
    drawn = [augment.draw(clip_seed(0, 0, i)) for i in range(7000)]
    counts = Counter(name for operations in drawn for name, _ in operations)
    assert counts.keys() == OPERATIONS.keys()
    assert all(850 < count < 1150 for count in counts.values())  # 1000 expected; 5 standard deviations
    for name, most in (("rotate", 15.0), ("shear_x", 0.15), ("translate_y", 75 / 331)):
        strengths = [s for operations in drawn for n, s in operations if n == name]
        assert {round(s, 6) for s in strengths} == {round(-most, 6), round(most, 6)}
    assert {s for operations in drawn for n, s in operations if n == "solarize"} == {128.0}
    assert {s for operations in drawn for n, s in operations if n == "posterize"} == {6.0}
    colors = {round(s, 6) for operations in drawn for n, s in operations if n == "color"}
    assert colors == {0.55, 1.45}


def test_the_deviation_spreads_the_magnitude_and_leaves_the_operations() -> None:
    plain, spread = RandAugment(2, 7.0), RandAugment(2, 7.0, magnitude_std=0.5)
    angles = []
    for i in range(4000):
        a, b = plain.draw(i), spread.draw(i)
        assert [name for name, _ in a] == [name for name, _ in b]
        angles += [abs(s) / 3 for name, s in b if name == "rotate"]
    assert np.mean(angles) == pytest.approx(7.0, abs=0.1)
    assert np.std(angles) == pytest.approx(0.5, abs=0.1)
    wild = RandAugment(2, 10.0, magnitude_std=3.0)
    assert max(abs(s) for i in range(500) for name, s in wild.draw(i) if name == "rotate") == 30


def test_a_clip_does_not_depend_on_its_batch() -> None:
    augment = RandAugment(3, 8.0, magnitude_std=0.5)
    batch = clips(*(picture(i) for i in range(40)), num_frames=2)
    whole = augment(batch.clone(), tuple(range(40)))
    for start in (0, 13):
        part = augment(batch[start : start + 9].clone(), tuple(range(start, start + 9)))
        assert part.equal(whole[start : start + 9])


def test_a_flat_picture_survives_what_stretches_its_values() -> None:
    flat = torch.full((2, 2, 8, 8, 3), 90, dtype=torch.uint8)
    for name in ("auto_contrast", "equalize", "contrast", "color", "sharpness"):
        assert OPERATIONS[name].apply(flat, torch.tensor([1.9, 0.1]), 128.0).equal(flat)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_ops": 0, "magnitude": 5}, "^augment.rand_ops: "),
        ({"num_ops": 1, "magnitude": 11}, r"augment.rand_magnitude: 11 is not in 0..10"),
        ({"num_ops": 1, "magnitude": 5, "magnitude_std": -1}, "augment.rand_magnitude_std: -1 is negative"),
    ],
)
def test_what_cannot_work_is_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RandAugment(**options)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_the_gpu_makes_the_same_clips(cuda: torch.device) -> None:
    augment = RandAugment(3, 8.0, magnitude_std=0.5)
    batch = clips(*(picture(i) for i in range(40)), num_frames=2)
    here, there = augment(batch.clone(), range(40)), augment(batch.to(cuda), range(40)).cpu()
    difference = (here.int() - there.int()).abs()
    assert (difference > 1).float().mean() < 1e-3  # rounding at .5, enlarged by later operations
