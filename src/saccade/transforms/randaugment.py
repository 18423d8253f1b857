"""RandAugment for clips: a few random picture operations in a row, the same for all frames of a clip.

Cubuk et al. 2019, "RandAugment: Practical automated data augmentation with a reduced search space", arXiv
1909.13719, section 3: each operation is drawn uniformly from 14, and all use the same magnitude. The ranges
come from AutoAugment (Cubuk et al. 2018, arXiv 1805.09501, table 6). As in PySlowFast and timm ("inc1"),
every operation grows stronger with the magnitude; an operation with two directions draws one at random.

Image statistics (extremes, histogram, mean grey) are computed over the whole clip, so that all frames change
alike. Every operation takes a batch of uint8 (B, T, S, S, 3) and runs on its device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.data.seeds import stream
from saccade.errors import ConfigError
from saccade.transforms.normalize import GRAY

MAX_MAGNITUDE = 10.0


@dataclass(frozen=True)
class Operation:
    """One of the 14 operations.

    Attributes:
        apply: (uint8 batch (B, T, S, S, 3), strength (B,), fill) -> uint8 batch.
        strength: (level in 0..1, direction -1 or 1) -> strength.
    """

    apply: Callable[[Tensor, Tensor, float], Tensor]
    strength: Callable[[float, int], float]


class RandAugment:
    """Draw ``num_ops`` operations for each clip from the clip's seed and apply them in turn.

    Args:
        num_ops: operations per clip, N in the paper.
        magnitude: M in the paper, 0..10.
        magnitude_std: each operation draws its magnitude from a normal distribution around ``magnitude``
            with this standard deviation, clipped to 0..10 (timm's "mstd"). 0: constant, as in the paper.
        fill: value 0..255 of pixels outside the frame.

    Raises:
        ConfigError: ``num_ops`` is below 1, the magnitude is out of range, or the deviation is negative.
    """

    def __init__(
        self, num_ops: int, magnitude: float, *, magnitude_std: float = 0.0, fill: float = 128.0
    ) -> None:
        if num_ops < 1:
            raise ConfigError(f"augment.rand_ops: must be 0 (off) or more (is {num_ops})")
        if not 0 <= magnitude <= MAX_MAGNITUDE:
            raise ConfigError(f"augment.rand_magnitude: {magnitude} is not in 0..{MAX_MAGNITUDE:g}")
        if magnitude_std < 0:
            raise ConfigError(f"augment.rand_magnitude_std: {magnitude_std} is negative")
        self.num_ops, self.magnitude, self.magnitude_std, self.fill = num_ops, magnitude, magnitude_std, fill

    def draw(self, seed: int) -> list[tuple[str, float]]:
        """The operations of the clip with this seed, in order, each with its strength."""
        random = stream(seed, "randaugment")
        drawn = []
        for _ in range(self.num_ops):
            which, direction = random.random(2)
            level = self.magnitude + self.magnitude_std * random.standard_normal()
            level = min(max(level, 0.0), MAX_MAGNITUDE) / MAX_MAGNITUDE
            name = _NAMES[int(which * len(_NAMES))]
            drawn.append((name, OPERATIONS[name].strength(level, 1 if direction < 0.5 else -1)))
        return drawn

    def __call__(self, pixels: Tensor, seeds: Sequence[int]) -> Tensor:
        """Augment ``pixels``, uint8 (B, T, S, S, 3), in place, each clip by its seed; return them."""
        drawn = [self.draw(seed) for seed in seeds]
        for i in range(self.num_ops):
            groups: dict[str, list[int]] = {}
            for clip, operations in enumerate(drawn):
                groups.setdefault(operations[i][0], []).append(clip)
            groups.pop("identity", None)
            for name, clips in groups.items():
                strength = torch.tensor([drawn[clip][i][1] for clip in clips], device=pixels.device)
                chosen = torch.stack([pixels[clip] for clip in clips])
                changed = OPERATIONS[name].apply(chosen, strength, self.fill)
                for clip, result in zip(clips, changed, strict=True):
                    pixels[clip] = result
        return pixels


# ------------------------------------------------------------------------------------------------ operations
# Each follows the Pillow operation of the same name.


def identity(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """The clips as they are."""
    return pixels


def auto_contrast(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Stretch each channel so that its darkest value becomes 0 and its brightest 255."""
    rows = _rows(pixels)
    low, high = (
        extreme.unflatten(1, (-1, 3)).float()
        for extreme in (rows.flatten(1, 2).amin(1), rows.flatten(1, 2).amax(1))
    )
    low, high = low.amin(1), high.amax(1)  # (B, 3)
    stretched = high > low
    scale = torch.where(stretched, 255.0 / (high - low).clamp_min(1.0), 1.0)
    offset = -scale * torch.where(stretched, low, 0.0)
    scale, offset = (factor.repeat(1, pixels.shape[3])[:, None, None] for factor in (scale, offset))
    return _rounded(rows.float().mul_(scale).add_(offset)).view_as(pixels)


def equalize(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Give each channel a flat histogram."""
    batch = len(pixels)
    channel = torch.arange(3 * batch, device=pixels.device).view(batch, 1, 3)
    bins = pixels.flatten(1, 3).long().add_(channel * 256)
    counts = torch.bincount(bins.view(-1), minlength=3 * batch * 256).view(3 * batch, 256)
    last = counts.gather(1, 255 - (counts.flip(1) > 0).int().argmax(1, keepdim=True).long())
    step = (counts.sum(1, keepdim=True) - last) // 255
    before = counts.cumsum(1) - counts
    table = ((before + step // 2) // step.clamp_min(1)).clamp_max(255)
    unchanged = torch.arange(256, device=pixels.device).expand_as(table)
    table = torch.where(step > 0, table, unchanged).to(torch.uint8)
    return table.view(-1).gather(0, bins.view(-1)).view_as(pixels)


def solarize(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Invert all values at or above a threshold."""
    inverted = pixels.to(torch.int16) >= _per_clip(strength.ceil().to(torch.int16))
    return pixels ^ inverted.to(torch.uint8).mul_(255)


def posterize(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Keep the most significant bits of each value."""
    mask = (256 - 2 ** (8 - strength.round())).to(torch.uint8)
    return pixels & _per_clip(mask)


def color(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Blend with the grey image: towards it with a factor below 1, away from it above 1."""
    x = _rows(pixels).float()
    red, green, blue = (x[..., channel::3] * GRAY[channel] for channel in range(3))
    gray = red.add_(green).add_(blue).repeat_interleave(3, dim=-1)
    return _blend(gray, x, strength[:, None, None, None]).view_as(pixels)


def contrast(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Blend with the mean grey of the clip, as in `color`."""
    x = pixels.float()
    rows = _rows(pixels).flatten(1, 2).sum(1, dtype=torch.int64)  # exact, whatever the batch
    sums = rows.unflatten(1, (-1, 3)).sum(1).double()
    mean = (sums @ sums.new_tensor(GRAY)) / pixels[0, ..., 0].numel()
    return _blend(_per_clip(mean.round().float()), x, _per_clip(strength))


def brightness(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Multiply all values by a factor."""
    return _rounded(pixels.float().mul_(_per_clip(strength)))


def sharpness(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Blend with the image smoothed over 3x3 pixels, as in `color`; border pixels do not change."""
    x = pixels.float()
    rows = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    inner = x[:, :, 1:-1, 1:-1]
    smooth = rows[:, :, :, :-2] + rows[:, :, :, 1:-1] + rows[:, :, :, 2:]
    smooth = smooth.add_(inner, alpha=4.0).div_(13.0)
    sharp = pixels.clone()
    sharp[:, :, 1:-1, 1:-1] = _blend(smooth, inner, _per_clip(strength))
    return sharp


def rotate(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Rotate counter-clockwise about the centre, by an angle in degrees."""
    angle = strength * (math.pi / 180)
    return _warp(pixels, _maps((angle.cos(), -angle.sin(), 0), (angle.sin(), angle.cos(), 0)), fill)


def shear_x(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Shear horizontally about the centre."""
    return _warp(pixels, _maps((1, strength, 0), (0, 1, 0)), fill)


def shear_y(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Shear vertically about the centre."""
    return _warp(pixels, _maps((1, 0, 0), (strength, 1, 0)), fill)


def translate_x(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Translate horizontally by a fraction of the width."""
    return _warp(pixels, _maps((1, 0, 2 * strength), (0, 1, 0)), fill)


def translate_y(pixels: Tensor, strength: Tensor, fill: float) -> Tensor:
    """Translate vertically by a fraction of the height."""
    return _warp(pixels, _maps((1, 0, 0), (0, 1, 2 * strength)), fill)


def _factor(level: float, direction: int) -> float:
    return 1.0 + 0.9 * level * direction


def _up_to(most: float) -> Callable[[float, int], float]:
    return lambda level, direction: most * level * direction


def _nothing(level: float, direction: int) -> float:
    return 0.0


OPERATIONS: dict[str, Operation] = {
    "identity": Operation(identity, _nothing),
    "auto_contrast": Operation(auto_contrast, _nothing),
    "equalize": Operation(equalize, _nothing),
    "rotate": Operation(rotate, _up_to(30.0)),
    "solarize": Operation(solarize, lambda level, _: 256.0 * (1.0 - level)),
    "color": Operation(color, _factor),
    "posterize": Operation(posterize, lambda level, _: float(8 - round(4 * level))),
    "contrast": Operation(contrast, _factor),
    "brightness": Operation(brightness, _factor),
    "sharpness": Operation(sharpness, _factor),
    "shear_x": Operation(shear_x, _up_to(0.3)),
    "shear_y": Operation(shear_y, _up_to(0.3)),
    "translate_x": Operation(translate_x, _up_to(150 / 331)),
    "translate_y": Operation(translate_y, _up_to(150 / 331)),
}
_NAMES = tuple(OPERATIONS)


# --------------------------------------------------------------------------------------------------- helpers


def _rows(pixels: Tensor) -> Tensor:
    """View (B, T, H, W, 3) as (B, T, H, W * 3): an innermost dimension of 3 is slow."""
    return pixels.flatten(3)


def _per_clip(values: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1, 1)


def _rounded(x: Tensor) -> Tensor:
    return x.add_(0.5).clamp_(0.0, 255.0).to(torch.uint8)


def _blend(base: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """``base + factor * (x - base)``, rounded."""
    return _rounded((x - base).mul_(factor).add_(base))


def _maps(*rows: tuple[Tensor | int, Tensor | int, Tensor | int]) -> Tensor:
    """Affine matrices (B, 2, 3) from entries that are numbers or (B,)."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    return torch.stack(
        [
            torch.stack(
                [entry if isinstance(entry, Tensor) else torch.full_like(like, entry) for entry in row]
            )
            for row in rows
        ]
    ).permute(2, 0, 1)


def _warp(pixels: Tensor, maps: Tensor, fill: float) -> Tensor:
    """Sample the clips bilinearly at the affine ``maps`` (B, 2, 3) of normalised coordinates, -1..1."""
    batch, length, height, width, _ = pixels.shape
    planes = pixels.permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    planes = planes.view(batch, length * 3, height, width).sub_(fill)
    grid = F.affine_grid(maps, [batch, 1, height, width], align_corners=False)
    warped = _rounded(F.grid_sample(planes, grid, align_corners=False).add_(fill))
    return warped.view(batch, length, 3, height, width).permute(0, 1, 3, 4, 2)
