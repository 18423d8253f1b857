"""MixUp and CutMix for clips: two clips become one, and so do their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.data.seeds import stream
from saccade.errors import ConfigError

CutMixShape = Literal["tube", "box"]
Box = tuple[slice, slice, slice]  # of frames, rows and columns


@dataclass(frozen=True)
class Mix:
    """How one clip is mixed with its partner.

    ``lam`` is λ, the weight of the clip itself; its partner has 1 - λ. ``box`` is where the partner is pasted
    (CutMix); None: the clips are blended (MixUp), or not mixed if λ is 1.
    """

    lam: float
    box: Box | None = None


class Mixing:
    """Mix the clips of a batch in pairs; the draws of each clip follow from its seed.

    MixUp (Zhang et al. 2017, arXiv 1710.09412, section 2) blends clip and partner with λ ~ Beta(α, α).
    CutMix (Yun et al. 2019, arXiv 1905.04899, section 3.1) pastes a random rectangle of area 1 - λ from the
    partner; λ is the fraction of the clip that remains. Both mix the labels by λ.

    ``tube``: the rectangle is the same in all frames, and labels mix by its area. PySlowFast does this, and
    "VideoMix" (Yun et al. 2020, arXiv 2012.03457) found it best. ``box``: the cut is limited in time too, a
    box whose sides are (1 - λ)^(1/3) of the clip's.

    The partner of a clip is ``repeats`` positions after it in the batch, modulo a block of ``2 * repeats``
    clips. So a clip is never mixed with a repetition of itself, and the result does not depend on how the
    batch is split over processes and micro-batches, if each part holds complete blocks.

    Args:
        mixup: α of MixUp, 0 is off.
        cutmix: α of CutMix, 0 is off.
        shape: what CutMix cuts out.
        switch: probability of CutMix where both are on.
        probability: probability that a clip is mixed at all.
        num_classes: classes of the labels.
        repeats: consecutive clips of the same video in a batch.

    Raises:
        ConfigError: both are off, or a value is out of range.
    """

    def __init__(
        self,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        shape: CutMixShape = "tube",
        switch: float = 0.5,
        probability: float = 1.0,
        num_classes: int,
        repeats: int = 1,
    ) -> None:
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if alpha < 0:
                raise ConfigError(f"augment.{name}: {alpha} is negative; it is the α of Beta(α, α)")
        for name, value in (("mix_switch", switch), ("mix_probability", probability)):
            if not 0 <= value <= 1:
                raise ConfigError(f"augment.{name}: {value} is not in 0..1")
        if not mixup and not cutmix:
            raise ConfigError("augment.mixup: neither MixUp nor CutMix is on")
        self.mixup, self.cutmix, self.shape = mixup, cutmix, shape
        self.switch = switch if mixup and cutmix else float(cutmix > 0)
        self.probability, self.num_classes, self.repeats = probability, num_classes, repeats

    def draw(self, seed: int, size: Sequence[int]) -> Mix:
        """How the clip with this seed is mixed; ``size`` is (frames, height, width)."""
        random = stream(seed, "mixing")
        applies, which, *centre = random.random(5).tolist()
        if applies >= self.probability:
            return Mix(1.0)
        if which >= self.switch:
            return Mix(float(random.beta(self.mixup, self.mixup)))
        cut = 1.0 - float(random.beta(self.cutmix, self.cutmix))
        if self.shape == "tube":
            sides = (1.0, cut ** (1 / 2), cut ** (1 / 2))
            centre[0] = 0.5
        else:
            sides = (cut ** (1 / 3),) * 3
        box = tuple(map(_cut, size, sides, centre))
        area = 1.0
        for axis, length in zip(box, size, strict=True):
            area *= (axis.stop - axis.start) / length
        return Mix(1.0 - area, (box[0], box[1], box[2]))

    def partners(self, num_clips: int) -> list[int]:
        """The partner of each clip of a batch."""
        block = 2 * self.repeats
        last = max(0, (num_clips // block - 1) * block)  # start of the last block, which takes the rest too
        tail = num_clips - last
        shift = self.repeats if tail > self.repeats else tail // 2
        return [
            i // block * block + (i + self.repeats) % block if i < last else last + (i - last + shift) % tail
            for i in range(num_clips)
        ]

    def targets(self, labels: Tensor) -> Tensor:
        """Labels as class probabilities: int64 (B,) become float32 (B, K); floats are unchanged."""
        if labels.is_floating_point():
            return labels
        return F.one_hot(labels, self.num_classes).to(torch.float32)

    def __call__(self, x: Tensor, labels: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mixed clips (B, 3, T, S, S), in the memory format of ``x``, and their targets, float32 (B, K).

        Args:
            labels: int64 (B,), or multi-label float (B, K).
        """
        mixes = [self.draw(seed, x.shape[2:]) for seed in seeds]
        partners = self.partners(len(x))
        partner = torch.tensor(partners, device=x.device)
        lam = torch.tensor([mix.lam for mix in mixes], device=x.device)
        blend = torch.tensor([1.0 if mix.box else mix.lam for mix in mixes], device=x.device)
        clips = x.permute(0, 2, 3, 4, 1)  # the memory order of channels-last-3d
        if not clips.is_contiguous():
            clips = x
        mixed = torch.lerp(clips.index_select(0, partner), clips, blend.view(-1, 1, 1, 1, 1))
        if clips is not x:
            mixed = mixed.permute(0, 4, 1, 2, 3)
        for i, mix in enumerate(mixes):
            if mix.box:
                box = (slice(None), *mix.box)
                mixed[i][box] = x[partners[i]][box]
        y = self.targets(labels)
        return mixed, torch.lerp(y.index_select(0, partner), y, lam.view(-1, *(1,) * (y.ndim - 1)))


def _cut(length: int, side: float, centre: float) -> slice:
    """The slice of ``side * length`` around ``centre * length``, clipped to 0..length."""
    half = side * length / 2
    middle = 0.5 * length if side == 1.0 else centre * length
    return slice(max(0, round(middle - half)), min(length, round(middle + half)))
