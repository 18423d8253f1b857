"""Pre-training without labels: what was hidden of a clip is predicted, and how well.

MaskFeat: Wei et al., CVPR 2022, arXiv 2112.09133. Masks, targets and loss are those of its two published
codes, see `saccade.transforms.masking`, `saccade.transforms.masked_targets`.

Shape letters: B clips, T frames, S pixels a side, t h w the grid of tokens, n scored frames, D numbers
predicted for a frame of a token, N videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.data.seeds import view_seed
from saccade.data.types import ClipBatch, VideoDataset
from saccade.errors import ConfigError, DataError, UsageError
from saccade.models import MaskFeat, create_model, list_models
from saccade.sampling.views import Views
from saccade.tasks.base import Objective, Outcome, Preview, Problems, Step, Task, View, option_names
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
"""Added to the number of tokens that a loss is a mean of, as in VideoTransformer-pytorch."""


class MaskedModel(Protocol):
    """What is asked of a network that predicts hidden tokens."""

    target_kind: TargetKind
    predict_every: int

    def grid_of(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The grid of tokens of a clip."""

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, 3, T, S, S) and bool (B, t, h, w) -> (B, t, h, w, F D)."""


@dataclass(frozen=True)
class Masking:
    """How clips of one size are masked and scored.

    Attributes:
        generator: draws the masks.
        scored: on which frames hidden tokens are scored, see `masked_tokens`.
        num_frames: frames predicted for a token.
        kind: what is predicted.
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
    """Errors of the scored frames of a batch: ``errors`` (n, h, w), the mean of the squares over D, and 0
    where nothing was hidden; ``targets`` (n, h, w, D); ``masked`` bool (n, h, w), what was hidden.
    """

    errors: Tensor
    targets: Tensor
    masked: Tensor

    def explained(self) -> Tensor:
        """Fraction of the variance of the targets that is explained: 1 - squared error / squared distance of
        the targets from their mean. 0 where there is nothing to explain.
        """
        hidden = self.targets[self.masked]
        spread = (hidden - hidden.mean(0)).square().mean(-1).sum() if len(hidden) else hidden.sum()
        explained = 1 - self.errors.detach().sum() / spread
        return torch.where(spread > 0, explained, 0.0)


def token_errors(predictions: Tensor, tokens: MaskedTokens, pixels: Tensor, kind: TargetKind) -> TokenErrors:
    """Errors of predictions (B, t, h, w, F D) about clips, uint8 (B, T, S, S, 3)."""
    targets = scored_targets(pixels, tokens, kind)
    masked = scored_mask(tokens).to(targets.device)
    squares = (scored_predictions(predictions.float(), tokens) - targets).square().mean(-1)
    return TokenErrors(squares * masked, targets, masked)


# ------------------------------------------------------------------------------------------------ the result


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskedResult(Result):
    """Errors of the predictions of hidden tokens.

    Attributes:
        errors: float64 (N,), the sum over the hidden tokens of each video of the mean squared error.
        counts: int64 (N,), hidden tokens of each video.
        target_sum: float64 (D,), the sum of all their targets.
        target_squares: float64 (D,), the sum of the squares.
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
        """Fraction of the variance of the targets that the predictions explain: 1 is perfect, and the same
        prediction for every token gives at best 0.
        """
        count = float(self.counts.sum())
        if not count:
            return float("nan")
        spread = float((self.target_squares - self.target_sum**2 / count).mean())
        return 1.0 - float(self.errors.sum()) / spread if spread > 0 else float("nan")

    @property
    def losses(self) -> NDArray[np.float64]:
        """The loss of each video."""
        return self.errors / (self.counts + LOSS_EPS)

    @property
    def loss(self) -> float:
        """The mean squared error of the hidden tokens of all videos."""
        return float(self.errors.sum() / (self.counts.sum() + LOSS_EPS))

    def _own_summary(self) -> dict[str, Any]:
        return {"explained": self.explained, "num_tokens": int(self.counts.sum())}

    def _arrays(self) -> dict[str, Any]:
        names = ("errors", "counts", "target_sum", "target_squares")
        return {name: getattr(self, name) for name in names}


# ---------------------------------------------------------------------------------------------- the task


def masking(config: Any, model: nn.Module, num_frames: int, crop: int) -> Masking:
    """How clips of this size are masked and scored.

    Args:
        config: a `MaskedConfig`.

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


class MaskedObjective(Objective):
    """The mean over the scored tokens of the whole batch, over all processes and passes, of the squared
    error. What counts as correct is the fraction of the targets' variance explained.
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
        """That of the batch's clips, whose size multigrid changes."""
        size = (len(batch.clips[0]), batch.crop)
        if size not in self._maskings:
            self._maskings[size] = masking(self._config.masked, self._model, *size)
        return self._maskings[size]

    def _tokens(self, part: ClipBatch) -> MaskedTokens:
        return self._masking(part).tokens([self._masks[seed] for seed in part.seeds])


@dataclass
class _Sums:
    """What the views of one video add up to."""

    error: float = 0.0
    count: int = 0
    target_sum: NDArray[np.float64] | float = 0.0
    target_squares: NDArray[np.float64] | float = 0.0

    def add(self, error: float, hidden: Tensor) -> None:
        self.error += error
        self.count += len(hidden)
        self.target_sum = self.target_sum + hidden.sum(0).cpu().numpy()
        self.target_squares = self.target_squares + hidden.square().sum(0).cpu().numpy()


@dataclass(frozen=True)
class Masked(Task):
    """Tokens of clips are hidden and predicted; labels are not looked at.

    Attributes:
        masking: how clips of the size of the test are masked; needed by a test.
        seed: the mask of a view follows from it, the position of the video and the number of the view.
    """

    name: ClassVar[str] = "masked"
    result_type: ClassVar[Any] = MaskedResult
    figure: ClassVar[str] = "explained"
    train_figure: ClassVar[str] = "explained"
    smooths_labels: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False
    test_options: ClassVar[frozenset[str]] = frozenset()
    predict_hint: ClassVar[str] = "it predicts no labels of clips"
    searchable: ClassVar[bool] = False
    default_batch: ClassVar[int | None] = 8
    channels_last: ClassVar[bool | None] = True

    masking: Masking | None = None
    seed: int = 0

    @classmethod
    def problems(cls, config: Any) -> Problems:
        yield from super().problems(config)
        if config.masked.rule == "pyslowfast" and config.masked.scored == "centre":
            yield "masked.scored", "boxes of pyslowfast have no middle frame; take all"
        for name in ("mixup", "cutmix"):
            if getattr(config.augment, name):
                yield f"augment.{name}", "mixes clips and their labels, and there are none; leave it at 0"
        if config.test_views:
            yield "test_views", "there are no classes to test; fine-tune the run first"
        if config.positive_weight != 1:
            yield "positive_weight", "is for labels; leave it at 1 for task masked"

    @classmethod
    def model_overrides(cls, model_name: str) -> dict[str, Any]:
        if "target_kind" not in option_names(model_name):
            known = ", ".join(list_models("maskfeat_*"))
            raise ConfigError(f"task: {model_name} does not predict what is hidden; {known} do")
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
                    f"multigrid: has clips of {num_frames} frames x {crop} pixels, and there {error}; or "
                    "choose another cycle"
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
        """The videos of any data set without their labels, or of a plain folder."""
        return super().load_split(path, split, labelled=False, **options)

    def check_dataset(
        self, dataset: VideoDataset, *, source: str = "", error: type[Exception] = DataError
    ) -> None:
        """Any will do."""

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
        """Clips with the hidden tokens grey."""
        with torch.device("meta"):
            model = create_model(config.model.name, 0, **model_options)
        how = masking(config.masked, model, config.clip.num_frames, config.train_crop)
        hidden = how.tokens([how.generator.of_clip(seed) for seed in part.seeds]).mask
        x = transform(part)
        for axis, size in enumerate(x.shape[2:], start=1):
            hidden = hidden.repeat_interleave(size // hidden.shape[axis], axis)
        grey = (0.5 - torch.tensor(config.clip.mean)) / torch.tensor(config.clip.std)
        x = torch.where(hidden[:, None], grey.view(1, 3, 1, 1, 1), x)
        return Preview(x, [torch.zeros(0)] * len(part))

    def data_text(self, num_classes: int) -> str:
        return "labels not looked at"

    # -------------------------------------------------------------------------------------- evaluation

    def forward(self, model: nn.Module, x: Tensor, views: Sequence[View]) -> Sequence[Any]:
        """Of each view the sum of its errors, and the targets of the hidden tokens, float64 (number, D)."""
        if self.masking is None:
            raise UsageError(
                "task masked: how clips are masked is not given; see saccade.tasks.masked.masking"
            )
        pixels = torch.stack([view.pixels for view in views])
        seeds = [view_seed(self.seed, view.position, view.number) for view in views]
        tokens = self.masking.tokens([self.masking.generator.of_clip(seed) for seed in seeds])
        predictions = model(x, tokens.mask.to(x.device))
        with torch.autocast(x.device.type, enabled=False):
            found = token_errors(predictions, tokens, pixels, self.masking.kind)
        if not bool(torch.isfinite(found.errors).all()):
            raise not_finite()
        whose = tokens.scored.nonzero()[:, 0].to(x.device)
        outputs = []
        for number in range(len(views)):
            own = whose == number
            hidden = found.targets[own][found.masked[own]].double()
            outputs.append((float(found.errors[own].double().sum()), hidden))
        return outputs

    def merge(self, before: Any, output: Any, view: View, sets: Sequence[Views]) -> Any:
        sums = _Sums() if before is None else before
        sums.add(*output)
        return sums

    def activation(self, logits: NDArray[Any]) -> NDArray[Any]:
        raise UsageError("a model of task masked has no classes")

    def results(self, dataset: VideoDataset, outcome: Outcome) -> dict[str, Any]:
        ((name, _),) = outcome.sets.items()
        videos: list[_Sums] = [outcome.scores[i] for i in outcome.order]
        common = outcome.protocol(name) | {"clip": outcome.clip, "temporal_rule": outcome.rule}
        result = self.result_type(
            errors=np.array([own.error for own in videos]),
            counts=np.array([own.count for own in videos], np.int64),
            target_sum=np.asarray(sum(own.target_sum for own in videos)),
            target_squares=np.asarray(sum(own.target_squares for own in videos)),
            **common,
        )
        return {name: result}
