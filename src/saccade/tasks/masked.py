"""Masked pre-training (MaskFeat): predict features of masked tokens.

Wei et al., CVPR 2022, arXiv 2112.09133. Masks, targets and loss follow its two public implementations, see
`saccade.transforms.masking` and `saccade.transforms.masked_targets`.

Shape letters: B clips, T frames, S crop, t h w token grid, F frames per token, n scored frames, D values per
frame of a token, N videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.data.seeds import view_seed
from saccade.data.types import ClipBatch, VideoDataset
from saccade.errors import ConfigError, DataError, UsageError
from saccade.models import MaskFeat, create_model, list_models
from saccade.sampling.views import Views
from saccade.tasks.base import Outcome, Preview, Problems, Task, View, option_names
from saccade.tasks.objective import Objective, Step
from saccade.tasks.result import Result
from saccade.tasks.scores import not_finite
from saccade.transforms import Mixing, TrainTransform
from saccade.transforms.masked_targets import (
    TargetKind,
    scored_mask,
    scored_predictions,
    scored_targets,
)
from saccade.transforms.masking import (
    CubeMask,
    MaskedTokens,
    MaskGenerator,
    PySlowFastCubes,
    Scored,
    VideoTransformerCubes,
    masked_tokens,
)

LOSS_EPS = 1e-5
"""Added to the number of tokens in the mean loss, as in VideoTransformer-pytorch."""


@dataclass(frozen=True)
class Masking:
    """Masking and scoring of clips of one size.

    Attributes:
        generator: draws the masks.
        scored: the frames with a loss, see `masked_tokens`.
        num_frames: frames predicted for a token.
        kind: kind of targets.
    """

    generator: MaskGenerator
    scored: Scored
    num_frames: int
    kind: TargetKind

    def tokens(self, masks: Sequence[CubeMask]) -> MaskedTokens:
        """The masks of clips as one batch."""
        return masked_tokens(masks, scored=self.scored, num_frames=self.num_frames)


@dataclass(frozen=True)
class TokenErrors:
    """Errors of the scored frames of a batch: ``errors`` (n, h, w), the mean squared error over D, 0 for
    visible tokens; ``targets`` (n, h, w, D); ``masked`` bool (n, h, w).
    """

    errors: Tensor
    targets: Tensor
    masked: Tensor

    def explained(self) -> Tensor:
        """Explained variance of the targets: 1 - squared error / squared deviation from the mean. 0 if the
        targets have no variance.
        """
        targets = self.targets[self.masked]
        variance = (targets - targets.mean(0)).square().mean(-1).sum() if len(targets) else targets.sum()
        explained = 1 - self.errors.detach().sum() / variance
        return torch.where(variance > 0, explained, 0.0)


def token_errors(predictions: Tensor, tokens: MaskedTokens, pixels: Tensor, kind: TargetKind) -> TokenErrors:
    """Errors of predictions (B, t, h, w, F D) for clips, uint8 (B, T, S, S, 3)."""
    targets = scored_targets(pixels, tokens, kind)
    masked = scored_mask(tokens).to(targets.device)
    squares = (scored_predictions(predictions.float(), tokens) - targets).square().mean(-1)
    return TokenErrors(squares * masked, targets, masked)


# ------------------------------------------------------------------------------------------------ the result


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskedResult(Result):
    """Errors of the predictions of masked tokens.

    Attributes:
        errors: float64 (N,), mean squared error summed over the masked tokens of each video.
        counts: int64 (N,), number of masked tokens of each video.
        target_sum: float64 (D,), sum of their targets.
        target_squares: float64 (D,), sum of the squares of their targets.
    """

    task: ClassVar[str] = "masked"

    errors: NDArray[np.float64]
    counts: NDArray[np.int64]
    target_sum: NDArray[np.float64]
    target_squares: NDArray[np.float64]

    @property
    def own_figures(self) -> dict[str, float]:
        return {"explained": self.explained}

    @property
    def explained(self) -> float:
        """Explained variance of the targets: 1 is perfect; a constant prediction gives at most 0."""
        count = float(self.counts.sum())
        if not count:
            return float("nan")
        variance = float((self.target_squares - self.target_sum**2 / count).mean())
        return 1.0 - float(self.errors.sum()) / variance if variance > 0 else float("nan")

    @property
    def losses(self) -> NDArray[np.float64]:
        """The loss of each video."""
        return self.errors / (self.counts + LOSS_EPS)

    @property
    def loss(self) -> float:
        """The mean squared error of the masked tokens of all videos."""
        return float(self.errors.sum() / (self.counts.sum() + LOSS_EPS))

    def _task_summary(self) -> dict[str, Any]:
        return {"explained": self.explained, "num_tokens": int(self.counts.sum())}

    def _arrays(self) -> dict[str, Any]:
        names = ("errors", "counts", "target_sum", "target_squares")
        return {name: getattr(self, name) for name in names}


# ---------------------------------------------------------------------------------------------- the task


def masking(config: Any, model: nn.Module, num_frames: int, crop: int) -> Masking:
    """Masking and scoring of clips of this size.

    Args:
        config: a `MaskedConfig`.

    Raises:
        ConfigError: the model does not predict masked tokens, or the masks cannot be drawn.
        UsageError: the clip is not divisible into tokens.
    """
    if not isinstance(model, MaskFeat):
        name = getattr(model, "model_name", type(model).__name__)
        raise ConfigError(
            f"task: {name} does not predict masked tokens; use one of saccade models 'maskfeat_*'"
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


class MaskedObjective(Objective):
    """Mean squared error over the scored tokens of a batch, of all processes and passes. The number of
    correct clips is the sum of the explained variances.
    """

    def __init__(self, config: Any, model: nn.Module) -> None:
        self._config, self._model = config, model
        self._maskings: dict[tuple[int, int], Masking] = {}
        self._masks: dict[int, CubeMask] = {}
        self._tokens_per_clip = 0.0

    def begin(self, step: Step, batch: ClipBatch) -> None:
        generator = self._masking(batch).generator
        self._masks = {seed: generator.of_clip(seed) for seed in batch.seeds}
        num_tokens, clips = step.processes.sum([float(self._tokens(batch).count), float(len(batch))])
        self._tokens_per_clip = (num_tokens + LOSS_EPS) / clips

    def __call__(self, step: Step, part: ClipBatch) -> tuple[Tensor, Tensor]:
        tokens = self._tokens(part)
        x_BCTHW, pixels_BTHWC = step.transform.with_pixels(part.to(step.processes.device))
        with step.autocast():
            predictions = step.network(x_BCTHW, tokens.mask.to(x_BCTHW.device))
        found = token_errors(predictions, tokens, pixels_BTHWC, self._masking(part).kind)
        loss = found.errors.sum() / (self._tokens_per_clip * len(part))
        return loss, found.explained() * len(part)

    def _masking(self, batch: ClipBatch) -> Masking:
        """The masking for the clip size of a batch, which multigrid changes."""
        size = (len(batch.clips[0]), batch.crop)
        if size not in self._maskings:
            self._maskings[size] = masking(self._config.masked, self._model, *size)
        return self._maskings[size]

    def _tokens(self, part: ClipBatch) -> MaskedTokens:
        return self._masking(part).tokens([self._masks[seed] for seed in part.seeds])


@dataclass
class _Sums:
    """Sums over the views of one video."""

    error: float = 0.0
    count: int = 0
    target_sum: NDArray[np.float64] | float = 0.0
    target_squares: NDArray[np.float64] | float = 0.0

    def add(self, error: float, targets: Tensor) -> None:
        self.error += error
        self.count += len(targets)
        self.target_sum = self.target_sum + targets.sum(0).cpu().numpy()
        self.target_squares = self.target_squares + targets.square().sum(0).cpu().numpy()


@dataclass(frozen=True)
class Masked(Task):
    """Masked pre-training, without labels.

    Attributes:
        masking: masking of the clips of a test; required for a test.
        seed: seed of the masks, together with position and number of a view.
    """

    name: ClassVar[str] = "masked"
    result_type: ClassVar[Any] = MaskedResult
    figure: ClassVar[str] = "explained"
    train_figure: ClassVar[str] = "explained"
    smooths_labels: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False
    test_options: ClassVar[frozenset[str]] = frozenset()
    predict_hint: ClassVar[str] = "it does not predict labels"
    searchable: ClassVar[bool] = False
    default_batch: ClassVar[int | None] = 8
    channels_last: ClassVar[bool | None] = True

    masking: Masking | None = None
    seed: int = 0

    @classmethod
    def problems(cls, config: Any) -> Problems:
        yield from super().problems(config)
        if config.masked.rule == "pyslowfast" and config.masked.scored == "centre":
            yield "masked.scored", "must be all for masks of pyslowfast, whose boxes have no middle frame"
        for name in ("mixup", "cutmix"):
            if getattr(config.augment, name):
                yield f"augment.{name}", "is not supported by task masked; set it to 0"
        if config.test_views:
            yield "test_views", "task masked has no classes to test; fine-tune the run first"
        if config.positive_weight != 1:
            yield "positive_weight", "is not supported by task masked; set it to 1"

    @classmethod
    def model_overrides(cls, model_name: str) -> dict[str, Any]:
        if "target_kind" not in option_names(model_name):
            known = ", ".join(list_models("maskfeat_*"))
            raise ConfigError(f"task: {model_name} does not predict masked tokens; use one of {known}")
        return {}

    @classmethod
    def check_model(cls, config: Any, model: nn.Module, sizes: Iterable[tuple[int, int]]) -> None:
        for num_frames, crop in sorted(sizes, reverse=True):
            try:
                masking(config.masked, model, num_frames, crop)
            except ConfigError as error:
                if (num_frames, crop) == (config.clip.num_frames, config.train_crop):
                    raise
                raise ConfigError(
                    f"multigrid: has clips of {num_frames} frames x {crop} pixels, for which {error}; or "
                    "change the cycle"
                ) from None

    @classmethod
    def clip_multiple(cls, config: Any, multiple: tuple[int, int]) -> tuple[int, int]:
        frames, side = multiple
        return frames, side * config.masked.coarse if config.masked.rule == "pyslowfast" else side

    def for_test(self, config: Any, model: nn.Module) -> Self:
        return replace(
            self,
            masking=masking(config.masked, model, config.clip.num_frames, config.clip.crop),
            seed=config.seed,
        )

    # -------------------------------------------------------------------------------------------- data

    def load_split(self, path: str, split: str, **options: Any) -> VideoDataset:
        """Load the videos of any data set without labels, or of a plain folder."""
        return super().load_split(path, split, labelled=False, **options)

    def check_dataset(
        self, dataset: VideoDataset, *, source: str = "", error: type[Exception] = DataError
    ) -> None:
        """All data sets are valid."""

    # ---------------------------------------------------------------------------------------- training

    def objective(self, config: Any, model: nn.Module, dataset: VideoDataset) -> Objective:
        return MaskedObjective(config, model)

    def preview(
        self,
        config: Any,
        part: ClipBatch,
        transform: TrainTransform,
        mixing: Mixing | None,
        model_options: dict[str, Any],
    ) -> Preview:
        """Clips with grey masked tokens."""
        with torch.device("meta"):
            model = create_model(config.model.name, 0, **model_options)
        clip_masking = masking(config.masked, model, config.clip.num_frames, config.train_crop)
        mask = clip_masking.tokens([clip_masking.generator.of_clip(seed) for seed in part.seeds]).mask
        x = transform(part)
        for axis, size in enumerate(x.shape[2:], start=1):
            mask = mask.repeat_interleave(size // mask.shape[axis], axis)
        grey = (0.5 - torch.tensor(config.clip.mean)) / torch.tensor(config.clip.std)
        x = torch.where(mask[:, None], grey.view(1, 3, 1, 1, 1), x)
        return Preview(x, [torch.zeros(0)] * len(part))

    def data_text(self, num_classes: int) -> str:
        return "labels unused"

    # -------------------------------------------------------------------------------------- evaluation

    def forward(self, model: nn.Module, x: Tensor, views: Sequence[View]) -> Sequence[Any]:
        """For each view the sum of its errors and the targets of its masked tokens, float64 (number, D)."""
        if self.masking is None:
            raise UsageError(
                "task masked: a test needs the argument masking, see saccade.tasks.masked.masking"
            )
        pixels = torch.stack([view.pixels for view in views])
        seeds = [view_seed(self.seed, view.position, view.number) for view in views]
        tokens = self.masking.tokens([self.masking.generator.of_clip(seed) for seed in seeds])
        predictions = model(x, tokens.mask.to(x.device))
        with torch.autocast(x.device.type, enabled=False):
            found = token_errors(predictions, tokens, pixels, self.masking.kind)
        if not bool(torch.isfinite(found.errors).all()):
            raise not_finite()
        view_of_frame = tokens.scored.nonzero()[:, 0].to(x.device)
        outputs = []
        for number in range(len(views)):
            frames = view_of_frame == number
            targets = found.targets[frames][found.masked[frames]].double()
            outputs.append((float(found.errors[frames].double().sum()), targets))
        return outputs

    def merge(self, before: Any, output: Any, view: View, sets: Sequence[Views]) -> Any:
        sums = _Sums() if before is None else before
        sums.add(*output)
        return sums

    def activation(self, logits: NDArray[Any]) -> NDArray[Any]:
        raise UsageError("task masked has no classes")

    def results(self, dataset: VideoDataset, outcome: Outcome) -> dict[str, Any]:
        ((name, _),) = outcome.sets.items()
        videos: list[_Sums] = [outcome.scores[i] for i in outcome.order]
        common = outcome.protocol(name) | {"clip": outcome.clip, "temporal_rule": outcome.rule}
        result = self.result_type(
            errors=np.array([sums.error for sums in videos]),
            counts=np.array([sums.count for sums in videos], np.int64),
            target_sum=np.asarray(sum(sums.target_sum for sums in videos)),
            target_squares=np.asarray(sum(sums.target_squares for sums in videos)),
            **common,
        )
        return {name: result}
