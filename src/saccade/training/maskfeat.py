"""What pre-training by masked prediction does otherwise: its data, its loss, its validation.

MaskFeat: Wei et al., CVPR 2022, arXiv 2112.09133. Masks, targets and loss are those of its two published
codes, see `saccade.transforms.masking`, `saccade.transforms.masked_targets`.

Shape letters: B clips, C colours, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from saccade.data.datasets import load_dataset
from saccade.data.entries import Split
from saccade.data.types import ClipBatch, VideoDataset
from saccade.data.unlabelled import is_plain_folder, load_videos
from saccade.errors import ConfigError
from saccade.evaluation.masked import LOSS_EPS, Masking, token_errors
from saccade.models import MaskFeat
from saccade.training.config import MaskedConfig, TrainConfig
from saccade.training.distributed import Processes
from saccade.training.step import GradientStep
from saccade.transforms.masking import (
    CubeMask,
    MaskedTokens,
    MaskGenerator,
    PySlowFastCubes,
    VideoTransformerCubes,
)


def unlabelled_data(config: TrainConfig, options: dict[str, Any]) -> tuple[VideoDataset, VideoDataset | None]:
    """The videos of any data set without their labels, or of a plain folder: to train on, and to validate on
    unless `val_every` is 0.
    """
    splits: tuple[Split, ...] = ("train", "val") if config.val_every else ("train",)
    found = []
    for split in splits:
        if is_plain_folder(config.data):
            found.append(load_videos(config.data, split, val_fraction=config.val_fraction))
        else:
            found.append(_without_labels(load_dataset(config.data, split, **options)))
    return found[0], found[1] if config.val_every else None


def _without_labels(dataset: VideoDataset) -> VideoDataset:
    items = tuple(replace(item, label=-1, actions=()) for item in dataset.items)
    return replace(dataset, items=items, class_names=(), pairs=(), multi_label=False)


def masking(config: MaskedConfig, model: nn.Module, num_frames: int, crop: int) -> Masking:
    """How clips of this size are masked and scored.

    Raises:
        ConfigError: the model predicts no hidden tokens, or the masks cannot be drawn.
        UsageError: the clip is not made of whole tokens.
    """
    if not isinstance(model, MaskFeat):
        name = getattr(model, "model_name", type(model).__name__)
        raise ConfigError(
            f"task: {name} does not predict what is hidden; take one of saccade models 'maskfeat_*'"
        )
    grid = model.grid_of(num_frames, crop, crop)
    generator: MaskGenerator
    if config.rule == "pyslowfast":
        generator = PySlowFastCubes(
            grid, ratio=config.ratio, coarse=config.coarse, min_patches=config.min_patches
        )
    else:
        generator = VideoTransformerCubes(grid, ratio=config.ratio, min_patches=config.min_patches)
    frames = num_frames // grid[0] // model.predict_every
    return Masking(generator, config.scored, frames, model.target_kind)


def check_masks(config: TrainConfig, model: nn.Module, sizes: Iterable[tuple[int, int]]) -> None:
    """Raise `ConfigError` if clips of any of these (frames, pixels), which multigrid trains on, cannot be
    masked.
    """
    for num_frames, crop in sorted(sizes, reverse=True):
        try:
            masking(config.masked, model, num_frames, crop)
        except ConfigError as error:
            if (num_frames, crop) == (config.clip.num_frames, config.train_crop):
                raise
            raise ConfigError(
                f"multigrid: has clips of {num_frames} frames x {crop} pixels, and there {error}; or choose "
                "another cycle"
            ) from None


class MaskedStep(GradientStep):
    """`GradientStep` for hidden tokens: the mean over the scored tokens of the whole batch, over all
    processes and passes, of the squared error. What counts as right is the share of the targets' variance
    explained.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        processes: Processes,
        class_names: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(config, model, processes, class_names, **options)
        self._maskings: dict[tuple[int, int], Masking] = {}
        self._masks: dict[int, CubeMask] = {}
        self._tokens_per_clip = 0.0

    def __call__(self, batch: ClipBatch) -> tuple[float, float]:
        generator = self._masking(batch).generator
        self._masks = {seed: generator.of_clip(seed) for seed in batch.seeds}
        own = self._tokens(batch).count
        everywhere, clips = self.processes.sum([float(own), float(len(batch))])
        self._tokens_per_clip = (everywhere + LOSS_EPS) / clips
        return super().__call__(batch)

    def _masking(self, batch: ClipBatch) -> Masking:
        """That of the batch's clips, whose size multigrid changes."""
        size = (len(batch.clips[0]), batch.crop)
        if size not in self._maskings:
            self._maskings[size] = masking(self.config.masked, self.model, *size)
        return self._maskings[size]

    def _tokens(self, part: ClipBatch) -> MaskedTokens:
        return self._masking(part).tokens([self._masks[seed] for seed in part.seeds])

    def _part_loss(self, part: ClipBatch) -> tuple[Tensor, Tensor]:
        tokens = self._tokens(part)
        x_BCTHW, pixels_BTHWC = self.transform.with_pixels(part.to(self.processes.device))
        with self.autocast():
            predictions = self.network(x_BCTHW, tokens.mask.to(x_BCTHW.device))  # type: ignore[call-arg]
        found = token_errors(predictions, tokens, pixels_BTHWC, self._masking(part).kind)
        loss = found.errors.sum() / (self._tokens_per_clip * len(part))
        return loss, found.explained() * len(part)


def masked_problems(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Fields that cannot work together with the task masked."""
    masked = config.masked
    if not 0 < masked.ratio < 1:
        yield "masked.ratio", f"must lie between 0 and 1 (is {masked.ratio})"
    if masked.coarse < 1:
        yield "masked.coarse", f"must be 1 or more (is {masked.coarse})"
    if masked.min_patches is not None and masked.min_patches < 1:
        yield "masked.min_patches", f"must be 1 or more (is {masked.min_patches})"
    if config.task != "masked":
        return
    if masked.rule == "pyslowfast" and masked.scored == "centre":
        yield "masked.scored", "boxes of pyslowfast have no middle frame; take all"
    for name in ("mixup", "cutmix"):
        if getattr(config.augment, name):
            yield f"augment.{name}", "mixes clips and their labels, and there are none; leave it at 0"
    if config.test_views:
        yield "test_views", "there are no classes to test; fine-tune the run first"
    if config.positive_weight != 1:
        yield "positive_weight", "is for labels; leave it at 1 for task masked"
