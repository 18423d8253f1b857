"""MaskFeat: self-supervised pre-training of MViT by predicting features of masked patches.

Paper: "Masked Feature Prediction for Self-Supervised Visual Pre-Training", Chen Wei, Haoqi Fan, Saining Xie,
Chao-Yuan Wu, Alan Yuille, Christoph Feichtenhofer, CVPR 2022, arXiv 2112.09133. Both published models
are here: the authors' (PySlowFast) and the one of VideoTransformer-pytorch. No code is copied from either.

Fine-tuning: `load_weights` of a checkpoint of `maskfeat_mvit_base` into `mvit_base_maskfeat`, or of
`maskfeat_mvitv2_small` into `mvitv2_small_maskfeat`.

Shape letters: B clips, T frames, H and W pixels, t h w the grid of the last block's tokens, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from saccade.errors import ConfigError, UsageError
from saccade.layers.pooled_attention import Grid, pooled_grid
from saccade.models.base import check_clips
from saccade.models.checks import check_choice, check_number
from saccade.models.mvit import (
    MASKFEAT_MX_MARK,
    MASKFEAT_SLOWFAST,
    MASKFEAT_V1,
    NORM_EPS,
    MViTStem,
    MViTTrunk,
    Tokens,
    init_trunk,
)
from saccade.models.mvit_config import PATCH_STRIDE, MViTTrunkConfig
from saccade.models.registry import config_of, register_model

TargetKind = Literal["soft", "hard", "pixels"]

CELL = 8
"""Side in pixels of the cells whose histograms are predicted."""
NUM_BINS = 9
"""Directions of a histogram."""


@dataclass(frozen=True, kw_only=True)
class MaskFeatConfig(MViTTrunkConfig):
    """Config of a MaskFeat model; the default is VideoTransformer-pytorch's."""

    pool_q_at: tuple[int, ...] = (1, 3)
    drop_path: float = 0.0
    target_kind: TargetKind = "soft"
    """What it is to predict: histograms of oriented gradients, scikit-image's (soft) or those of the paper's
    authors (hard), or the pixels themselves; see `saccade.transforms.masked_targets`."""
    predict_every: int = 1
    """A prediction is made of one frame in so many: of both frames of a tubelet (1), or of its first (2)."""
    head_init_scale: float = 1.0
    """What the decoder's initial weights are multiplied by."""
    head_init_bias: float = 0.0
    """The decoder's initial biases. Small weights and the mean of the targets, 0.25 for histograms, spare a
    short training the steps in which it would find only that mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("target_kind", self.target_kind, get_args(TargetKind))
        if self.predict_every not in (1, PATCH_STRIDE[0]):
            raise ConfigError(f"predict_every must be 1 or {PATCH_STRIDE[0]}, got {self.predict_every!r}")
        check_number("head_init_scale", self.head_init_scale, at_least=0.0)
        check_number("head_init_bias", self.head_init_bias)
        if self.token_pixels % CELL and self.target_kind != "pixels":
            raise ConfigError(
                f"pool_q_at: a token covers {self.token_pixels} pixels a side, "
                f"which must be a multiple of {CELL}"
            )

    @property
    def token_pixels(self) -> int:
        """Side in pixels of a token of the last block."""
        return self.clip_multiple[1]

    @property
    def num_targets(self) -> int:
        """Values predicted per token: for each frame 3 colours per pixel, or 9 bins of 3 colours per cell."""
        frames = PATCH_STRIDE[0] // self.predict_every
        if self.target_kind == "pixels":
            return frames * self.token_pixels**2 * 3
        return frames * (self.token_pixels // CELL) ** 2 * 3 * NUM_BINS


class MaskFeatStem(MViTStem):
    """The stem of MViT, which replaces masked patches by a learned token."""

    def __init__(self, dim: int, grid: Grid, *, absolute: bool) -> None:
        super().__init__(dim, grid, absolute=absolute)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tokens:
        """``mask`` (B, t, h, w), true for masked, may be coarser in space than the patches by a factor."""
        patches = self.patches(x)
        if mask is not None:
            factor = patches.shape[3] // mask.shape[2]
            hidden = mask.repeat_interleave(factor, 2).repeat_interleave(factor, 3)[:, None]
            patches = torch.where(hidden, self.mask_token.view(1, -1, 1, 1, 1).to(patches.dtype), patches)
        return self.with_class_token(patches)


class MaskFeatHead(nn.Module):
    """Norm and a linear layer for every patch: tokens (B, 1 + t h w, C) -> (B, t, h, w, D)."""

    def __init__(self, dim: int, num_targets: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.decoder = nn.Linear(dim, num_targets)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        predictions: Tensor = self.decoder(self.norm(x[:, 1:]))
        return predictions.unflatten(1, grid).clone()  # FSDP wants no view as a network's output


class MaskFeat(MViTTrunk):
    """Normalised clips (B, 3, T, H, W) and a mask of tokens -> predictions (B, t, h, w, D).

    The D values of a token are the predicted frames of its tubelet, frame by frame. For one frame, slowest
    dimension first, "soft": (cell rows, cell columns, colours, bins); "hard": (colours, bins, cell rows, cell
    columns); "pixels": (rows, columns, colours).

    It has no classes: ``num_classes`` is 0.

    Attributes:
        target_kind, predict_every: see `MaskFeatConfig`.
    """

    stem_type = MaskFeatStem
    config: MaskFeatConfig
    stem: MaskFeatStem

    def __init__(self, config: MaskFeatConfig, *, model_name: str = "maskfeat_mvit_base") -> None:
        """Args:
        model_name: the registered variant that ``config`` is derived from.
        """
        super().__init__(config, 0, model_name=model_name)
        self.target_kind, self.predict_every = config.target_kind, config.predict_every
        self.head: MaskFeatHead = MaskFeatHead(self.num_features, config.num_targets)
        init_trunk(self)
        self._init_head()

    @torch.no_grad()
    def _init_head(self) -> None:
        nn.init.trunc_normal_(self.stem.mask_token, std=0.02)
        nn.init.zeros_(self.head.norm.bias)
        nn.init.constant_(self.head.decoder.bias, self.config.head_init_bias)
        if self.config.init != "pyslowfast":
            nn.init.xavier_uniform_(self.head.decoder.weight)
        self.head.decoder.weight.mul_(self.config.head_init_scale)

    @property
    def token_grid(self) -> Grid:
        """(t, h, w): tokens of the configured clip, which are masked and predicted."""
        return self.config.last_grid

    def grid_of(self, frames: int, height: int, width: int) -> Grid:
        """(t, h, w) for clips of another size.

        Raises:
            UsageError: the size is no multiple of the patches.
        """
        step, side = self.clip_multiple
        if frames % step or height % side or width % side:
            raise UsageError(
                f"{self.model_name} predicts whole patches: frames must be a multiple of {step}, "
                f"height and width of {side}, got {frames} x {height} x {width}"
            )
        grid = self.config.patches_of(frames, height, width)
        for shape in self.config.block_shapes():
            grid = pooled_grid(grid, shape.q_stride)
        return grid

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predictions (B, t, h, w, D) of clips (B, 3, T, H, W) whose tokens are masked by ``mask``.

        Args:
            mask: bool (B, t, h, w), true for masked; None: nothing is masked.

        Raises:
            UsageError: the shape of clips or mask is wrong.
        """
        check_clips(x)
        grid = self.grid_of(x.shape[2], x.shape[3], x.shape[4])
        if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != (x.shape[0], *grid)):
            raise UsageError(
                f"mask must be bool of shape {(x.shape[0], *grid)}, got {mask.dtype} of {tuple(mask.shape)}"
            )
        tokens = self._through_blocks(self.stem(x, mask))
        predictions: Tensor = self.head(tokens.x, grid)
        return predictions

    def forward_masked(self, clips: Tensor, mask: Tensor) -> Tensor:
        """Predictions (B, t, h, w, D) with the tokens of ``mask`` (B, t, h, w) masked."""
        predictions: Tensor = self(clips, mask)
        return predictions

    def reset_classifier(self, num_classes: int) -> None:
        if num_classes:
            raise ConfigError(
                f"{self.model_name} predicts features and has no classes: "
                f"load its weights into {FINE_TUNED_AS[self.model_name]}"
            )

    def init_classifier(self, linear: nn.Linear) -> None:
        raise ConfigError(f"{self.model_name} has no classes")


# -------------------------------------------------------------------------------------------- named variants

CONFIGS: dict[str, MaskFeatConfig] = {
    "maskfeat_mvit_base": MaskFeatConfig(**MASKFEAT_V1),
    "maskfeat_mvitv2_small": MaskFeatConfig(
        positions="relative",
        pool_every_q=True,
        residual_pooling=True,
        target_kind="hard",
        predict_every=2,
    ),
}
FINE_TUNED_AS = {
    "maskfeat_mvit_base": "mvit_base_maskfeat",
    "maskfeat_mvitv2_small": "mvitv2_small_maskfeat",
}

_FACTS: dict[str, Any] = {"config": CONFIGS, "train_short_side": (256, 320)}


def _create(name: str, overrides: dict[str, Any]) -> MaskFeat:
    return MaskFeat(config_of(name, overrides), model_name=name)


@register_model(**_FACTS, **MASKFEAT_MX_MARK, params=36_466_488, gmacs=86.078496960)
def maskfeat_mvit_base(num_classes: int = 0, **overrides: Any) -> MaskFeat:
    """VideoTransformer-pytorch's: MViT-B that pools its queries twice, soft histograms of every frame."""
    return _create("maskfeat_mvit_base", overrides)


@register_model(**_FACTS, **MASKFEAT_SLOWFAST, params=36_253_356, gmacs=90.899951028)
def maskfeat_mvitv2_small(num_classes: int = 0, **overrides: Any) -> MaskFeat:
    """PySlowFast's: MViTv2-S that widens in its MLPs and pools its queries twice, hard histograms."""
    return _create("maskfeat_mvitv2_small", overrides)
