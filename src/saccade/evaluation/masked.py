"""How well hidden tokens are predicted: the loss of MaskFeat, and its validation.

MaskFeat: Wei et al., CVPR 2022, arXiv 2112.09133.

Shape letters: B clips, T frames, S pixels a side, t h w the grid of tokens, n scored frames, D numbers
predicted for a frame of a token, N videos.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.seeds import view_seed
from saccade.data.types import VideoDataset
from saccade.errors import DataError, WeightsError
from saccade.evaluation.decoding import DecodedVideo, VideosToTest, read_ahead
from saccade.evaluation.result import Result
from saccade.evaluation.scoring import Precision, evaluating, model_device
from saccade.evaluation.share import Share, counted, gather, ranks
from saccade.models.counts import count_macs
from saccade.sampling.views import crop_box, parse_views
from saccade.transforms.masked_targets import (
    TargetKind,
    scored_places,
    scored_predictions,
    scored_targets,
)
from saccade.transforms.masking import CubeMask, MaskedTokens, MaskGenerator, Scored, masked_tokens
from saccade.transforms.normalize import affine, batch_layout
from saccade.video.resize import resize_to
from saccade.video.sizes import short_side_size

LOSS_EPS = 1e-5
"""Added to the number of tokens that a loss is a mean of, as in VideoTransformer-pytorch."""
_CLIPS_PER_PASS = 8


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
    where nothing was hidden; ``targets`` (n, h, w, D); ``places`` bool (n, h, w), what was hidden.
    """

    errors: Tensor
    targets: Tensor
    places: Tensor

    def explained(self) -> Tensor:
        """Share of the variance of the targets that is explained: 1 - squared error / squared distance of the
        targets from their mean. 0 where there is nothing to explain.
        """
        hidden = self.targets[self.places]
        spread = (hidden - hidden.mean(0)).square().mean(-1).sum() if len(hidden) else hidden.sum()
        share = 1 - self.errors.detach().sum() / spread
        return torch.where(spread > 0, share, 0.0)


def token_errors(predictions: Tensor, tokens: MaskedTokens, pixels: Tensor, kind: TargetKind) -> TokenErrors:
    """Errors of predictions (B, t, h, w, F D) about clips, uint8 (B, T, S, S, 3)."""
    targets = scored_targets(pixels, tokens, kind)
    places = scored_places(tokens).to(targets.device)
    squares = (scored_predictions(predictions.float(), tokens) - targets).square().mean(-1)
    return TokenErrors(squares * places, targets, places)


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
    def figures(self) -> dict[str, float]:
        return {"explained": self.explained}

    @property
    def explained(self) -> float:
        """Share of the variance of the targets that the predictions explain: 1 is perfect, and the same
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


# -------------------------------------------------------------------------------------------------- the test


@dataclass
class _Sums:
    """What one video adds to the result."""

    error: float = 0.0
    count: int = 0
    target_sum: NDArray[np.float64] | float = 0.0
    target_squares: NDArray[np.float64] | float = 0.0

    def add(self, error: float, hidden: Tensor) -> None:
        self.error += error
        self.count += len(hidden)
        self.target_sum = self.target_sum + hidden.sum(0).cpu().numpy()
        self.target_squares = self.target_squares + hidden.square().sum(0).cpu().numpy()


def _arrays_of(videos: Sequence[_Sums]) -> dict[str, Any]:
    return {
        "errors": np.array([own.error for own in videos]),
        "counts": np.array([own.count for own in videos], np.int64),
        "target_sum": np.asarray(sum(own.target_sum for own in videos)),
        "target_squares": np.asarray(sum(own.target_squares for own in videos)),
    }


def evaluate_masked(
    model: nn.Module,
    dataset: VideoDataset,
    clip: ClipSpec,
    masking: Masking,
    views: str = "1x1",
    *,
    device: torch.device | str | None = None,
    workers: int = 2,
    batch_size: int | None = None,
    temporal_rule: str = "saccade",
    seed: int = 0,
    precision: Precision = "float32",
    progress: bool = False,
    on_video: Callable[[int, int], None] | None = None,
    distributed: bool = False,
    group: Any = None,
) -> MaskedResult:
    """How well ``model`` predicts hidden tokens of the videos of ``dataset``; labels are not looked at.

    Args:
        model: a `MaskedModel`. Its mode and weights are left as they are.
        masking: how clips of the size of ``clip`` are masked. The mask of a view follows from ``seed``, the
            place of the video in the data set and the number of the view.
        batch_size: most views per forward pass.
        device, workers, temporal_rule, precision, progress, on_video, distributed, group: as for `evaluate`.

    Raises:
        DataError: no video, or none that can be read.
        WeightsError: the model's output is not finite.
    """
    if not len(dataset):
        raise DataError(f"{dataset.root}: no videos in split {dataset.split!r}")
    home = torch.device(device) if device is not None else model_device(model)
    rank, world = ranks(distributed, group)
    videos = VideosToTest(
        dataset.items,
        range(rank, len(dataset), world),
        clip,
        [parse_views(views)],
        rule=temporal_rule,
        shuffle_seed=None,
    )
    scorer = _Scorer(model, clip, masking, home, precision, seed)
    gmacs = count_macs(model, (1, 3, clip.num_frames, clip.crop, clip.crop)) / 1e9
    with evaluating(model):
        share = _share(
            videos, scorer, batch_size or _CLIPS_PER_PASS, workers, progress and rank == 0, on_video
        )
    whole = gather(share, dataset, world, group)
    return MaskedResult(
        **_arrays_of([whole.scores[i] for i in sorted(whole.scores)]),
        views=views,
        clip=clip,
        temporal_rule=temporal_rule,
        gmacs_per_view=gmacs,
        num_params=sum(p.numel() for p in model.parameters()),
        **whole.protocol(dataset, world),
    )


class _Scorer:
    """Errors of the views of a few videos."""

    def __init__(
        self,
        model: nn.Module,
        clip: ClipSpec,
        masking: Masking,
        device: torch.device,
        precision: Precision,
        seed: int,
    ) -> None:
        self.model, self.clip, self.masking = model, clip, masking
        self.device, self.precision, self.seed = device, precision, seed
        mean, std = (torch.tensor(value, dtype=torch.float64) for value in (clip.mean, clip.std))
        self._scale, self._offset = batch_layout(1.0 / (255.0 * std)), batch_layout(-mean / std)

    def __call__(self, views: list[tuple[int, int, Tensor]]) -> Iterator[tuple[int, float, Tensor]]:
        """Of views (video, number, uint8 (T, S, S, 3)) the video, the sum of errors, and the targets of the
        hidden tokens, float64 (their number, D).
        """
        pixels = torch.stack([view for _, _, view in views])
        seeds = [view_seed(self.seed, video, number) for video, number, _ in views]
        tokens = self.masking.tokens([self.masking.generator.of_clip(seed) for seed in seeds])
        reduced = self.precision == "bfloat16"
        autocast = torch.autocast(self.device.type, torch.bfloat16) if reduced else nullcontext()
        x_BCTHW = affine(pixels, self._scale, self._offset, channels_last=True)
        with torch.no_grad(), autocast:
            predictions = self.model(x_BCTHW, tokens.mask.to(self.device))
        found = token_errors(predictions, tokens, pixels, self.masking.kind)
        if not bool(torch.isfinite(found.errors).all()):
            raise WeightsError(
                "the model's output is not finite: its weights are damaged or training diverged"
            )
        whose = tokens.scored.nonzero()[:, 0].to(self.device)
        for place, (video, _, _) in enumerate(views):
            own = whose == place
            hidden = found.targets[own][found.places[own]].double()
            yield video, float(found.errors[own].double().sum()), hidden


def _share(
    videos: VideosToTest,
    scorer: _Scorer,
    batch_size: int,
    workers: int,
    progress: bool,
    on_video: Callable[[int, int], None] | None,
) -> Share[_Sums]:
    share: Share[_Sums] = Share()
    if not len(videos):
        return share
    start = time.perf_counter()
    stream = read_ahead(videos, workers=workers, pin_memory=scorer.device.type == "cuda")
    with counted(len(videos), progress=progress, on_video=on_video) as done:
        for batch in _batches(_views(share.readable(stream, done), scorer), batch_size):
            for video, error, hidden in scorer(batch):
                share.scores.setdefault(video, _Sums()).add(error, hidden)
            share.num_clips += len(batch)
    share.seconds = time.perf_counter() - start
    return share


def _views(videos: Iterator[DecodedVideo], scorer: _Scorer) -> Iterator[tuple[int, int, Tensor]]:
    """(video, number of the view, its pixels on the device) of every view."""
    size = scorer.clip.crop
    for video in videos:
        number = 0
        for decoded in video.sizes:
            frames = decoded.frames.to(scorer.device, non_blocking=True)
            for planned in decoded.clips:
                whole = frames[list(planned.frames)]
                whole = resize_to(whole, *short_side_size(whole.shape[1], whole.shape[2], planned.short_side))
                for crop in planned.crops:
                    height, width = whole.shape[1:3]
                    top, left = crop_box(height, width, size, crop, planned.grid)
                    yield video.position, number, whole[:, top : top + size, left : left + size]
                    number += 1


def _batches(views: Iterator[tuple[int, int, Tensor]], most: int) -> Iterator[list[tuple[int, int, Tensor]]]:
    waiting: list[tuple[int, int, Tensor]] = []
    for view in views:
        waiting.append(view)
        if len(waiting) == most:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
