"""Training transform, from decoded clips to the model's input: crop, flip, RandAugment, colour, erasing.

It takes one batch at a time, on the model's device. The random draws of a clip follow from its seed
(`ClipBatch.seeds`), so that they do not depend on the batch, the process or the device.

Shape letters: B clips, T frames, S side of the crop.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saccade.clip import ClipSpec
from saccade.data.seeds import stream
from saccade.data.types import ClipBatch
from saccade.errors import ConfigError, UsageError
from saccade.sampling.views import check_crop
from saccade.transforms.area import Range, draw_area
from saccade.transforms.erasing import RandomErasing
from saccade.transforms.normalize import GRAY, affine, batch_layout
from saccade.transforms.randaugment import RandAugment
from saccade.video.resize import resize_to


class TrainTransform:
    """Random crop, horizontal flip, colour jitter and normalisation; all frames of a clip are treated alike.

    Colour jitter follows PySlowFast (brightness, then contrast, then saturation, always in this order;
    values are not clamped): with a, b, c each drawn uniformly from 1-strength .. 1+strength, the frame is
    multiplied by a, then blended as ``b * frame + (1 - b) * mean of its grey``, then as
    ``c * frame + (1 - c) * grey``. Together they are one linear map per frame, applied with the
    normalisation.

    Args:
        clip: mean and std of the normalisation.
        flip: probability of a horizontal flip.
        area: range of the fraction of the frame that a crop covers before it is resized, see
            `saccade.transforms.area`. None: squares of the crop's size.
        aspect: range of the crop's width / height, with ``area``.
        mirrored: label of each class after a flip, see `saccade.data.classnames.mirrored_labels`; None:
            unchanged.
        brightness, contrast, saturation: strength of the jitter in 0..1, 0 is off.
        rand_augment: applied to the crop before the jitter.
        erasing: applied last.
        channels_last: return the memory format channels-last-3d (faster).

    Raises:
        ConfigError: a probability or strength outside 0..1.
    """

    def __init__(
        self,
        clip: ClipSpec,
        *,
        flip: float = 0.5,
        mirrored: Sequence[int] | None = None,
        area: Range | None = None,
        aspect: Range = (3 / 4, 4 / 3),
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        rand_augment: RandAugment | None = None,
        erasing: RandomErasing | None = None,
        channels_last: bool = False,
    ) -> None:
        strengths = {"flip": flip, "brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, value in strengths.items():
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"augment.{name}: {value} is not in 0..1")
        self.flip, self.area, self.aspect = flip, area, aspect
        self.mirrored = None if mirrored is None else torch.tensor(mirrored, dtype=torch.int64)
        self.jitter = (brightness, contrast, saturation)
        self.rand_augment, self.erasing = rand_augment, erasing
        self.channels_last = channels_last
        self._mean = torch.tensor(clip.mean, dtype=torch.float64)
        self._std = torch.tensor(clip.std, dtype=torch.float64)

    def __call__(self, batch: ClipBatch) -> Tensor:
        """The input of the model: float32 (B, 3, T, crop, crop), on the device of the batch.

        Raises:
            UsageError: a clip is smaller than the crop, or the clips differ in length.
        """
        return self.with_labels(batch)[0]

    def with_labels(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """The input of the model and its labels, in the shape of ``batch.labels``. The label of a flipped
        clip is swapped if its class has a mirrored one.
        """
        draws = self._draws(batch)
        return self._views(batch, draws)[0], self._labels(batch.labels, self._flipped(draws))

    def with_pixels(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """The input of the model and the frames it was made from, uint8 (B, T, S, S, 3): after crop, flip
        and RandAugment, before colour jitter, normalisation and erasing.
        """
        return self._views(batch, self._draws(batch))

    def _views(self, batch: ClipBatch, draws: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self._cut(batch)
        if self.rand_augment:
            pixels = self.rand_augment(pixels, batch.seeds)
        scale, offset, gray = self._linear_map(pixels, draws)
        x = affine(pixels, scale, offset, gray=gray, channels_last=self.channels_last)
        if self.erasing:
            x = self.erasing(x, batch.seeds)
        return x, pixels

    def _draws(self, batch: ClipBatch) -> Tensor:
        """Six uniform numbers in 0..1 for each clip, drawn from its seed: float64 (B, 6)."""
        # All six are drawn, used or not, so that switching the jitter on does not change the crops.
        rows = [stream(seed, "transform").random(6).tolist() for seed in batch.seeds]
        return torch.tensor(rows, dtype=torch.float64)  # float32 would round the largest draws to 1

    def _flipped(self, draws: Tensor) -> Tensor:
        """Which clips are flipped: bool (B,)."""
        return draws[:, 2] < self.flip

    def _labels(self, labels: Tensor, flipped: Tensor) -> Tensor:
        if self.mirrored is None:
            return labels
        mirrored, flipped = self.mirrored.to(labels.device), flipped.to(labels.device)
        if labels.ndim == 1:
            return torch.where(flipped, mirrored[labels], labels)
        index = mirrored.view(1, -1, *(1,) * (labels.ndim - 2)).expand_as(labels)
        swapped = torch.zeros_like(labels).scatter_reduce(1, index, labels, "amax")
        return torch.where(flipped.view(-1, *(1,) * (labels.ndim - 1)), swapped, labels)

    def crops(self, batch: ClipBatch) -> list[tuple[int, int, bool]]:
        """Top and left of each clip's crop, and whether it is flipped; not for crops by area."""
        draws = self._draws(batch)
        crops = []
        rows = zip(draws[:, 0].tolist(), draws[:, 1].tolist(), self._flipped(draws).tolist(), strict=True)
        for clip, (down, right, flipped) in zip(batch.clips, rows, strict=True):
            height, width = clip.shape[1:3]
            check_crop(height, width, batch.crop)
            top = min(int(down * (height - batch.crop + 1)), height - batch.crop)
            left = min(int(right * (width - batch.crop + 1)), width - batch.crop)
            crops.append((top, left, flipped))
        return crops

    def _cut(self, batch: ClipBatch) -> Tensor:
        """Random crops, of one size, flipped or not: uint8 (B, T, S, S, 3)."""
        num_frames, size = len(batch.clips[0]), batch.crop
        shape = (len(batch), num_frames, size, size, 3)
        pixels = torch.empty(shape, dtype=torch.uint8, device=batch.clips[0].device)
        for out, clip, (top, left, height, width, flipped) in zip(
            pixels, batch.clips, self._windows(batch), strict=True
        ):
            if len(clip) != num_frames:
                raise UsageError(f"a batch holds clips of {num_frames} and of {len(clip)} frames")
            crop = resize_to(clip[:, top : top + height, left : left + width], size, size)
            out.copy_(crop.flip(2) if flipped else crop)
        return pixels

    def _windows(self, batch: ClipBatch) -> list[tuple[int, int, int, int, bool]]:
        """(top, left, height, width, flipped) of each clip's crop, before it is resized."""
        if self.area is None:
            return [(top, left, batch.crop, batch.crop, flip) for top, left, flip in self.crops(batch)]
        flipped = self._flipped(self._draws(batch)).tolist()
        return [
            (*draw_area(seed, *clip.shape[1:3], area=self.area, aspect=self.aspect), flip)
            for seed, clip, flip in zip(batch.seeds, batch.clips, flipped, strict=True)
        ]

    def _linear_map(self, pixels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scale (B or 1, 1, 3), offset (B or 1, T or 1, 3) and weight of grey (B, 1, 3) or None.

        Computed in float64 from integer sums, which are exact, so that batch and device do not matter.
        """
        brightness, contrast, saturation = (
            1.0 + strength * (2.0 * draws[:, 3 + i] - 1.0) for i, strength in enumerate(self.jitter)
        )
        if self.jitter == (0.0, 0.0, 0.0):
            return batch_layout(1.0 / (255.0 * self._std)), batch_layout(-self._mean / self._std), None
        scale = (saturation * contrast * brightness)[:, None, None] / (255.0 * self._std)
        offset = batch_layout(-self._mean / self._std)
        gray = None
        if self.jitter[1]:
            side = pixels.shape[2] * pixels.shape[3]
            sums = pixels.sum(dim=(2, 3), dtype=torch.int64).to("cpu", torch.float64)
            mean_gray = (sums * torch.tensor(GRAY, dtype=torch.float64)).sum(-1) / (255.0 * side)
            offset = offset + (((1.0 - contrast) * brightness)[:, None] * mean_gray)[..., None] / self._std
        if self.jitter[2]:
            gray = ((1.0 - saturation) * contrast * brightness)[:, None, None] / (255.0 * self._std)
        return scale, offset, gray
