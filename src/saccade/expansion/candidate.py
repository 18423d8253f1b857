"""The training of a candidate, derived from a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saccade.errors import ConfigError
from saccade.expansion.types import Factors, SearchConfig
from saccade.models import model_info
from saccade.tasks import get_task
from saccade.training.config import TrainConfig

_NEVER = 100
_FACTORS = ("gamma_tau", "gamma_t", "gamma_s", "gamma_w", "gamma_b", "gamma_d")


def check_base(base: TrainConfig) -> None:
    """Raise `ConfigError` if candidates cannot be trained as ``base`` says."""
    if not (base.model.name == "x2d" or base.model.name.startswith("x3d")):
        model_info(base.model.name)  # an unknown name has an error of its own
        raise ConfigError(
            f"model.name: the axes are those of X3D; start from a recipe of x2d or x3d, "
            f"not of {base.model.name}"
        )
    if base.model.weights or base.model.freeze:
        raise ConfigError(
            "model.weights: every candidate is another network, so none can take them; leave it empty"
        )
    if not get_task(base.task).searchable:
        raise ConfigError(f"task: a search compares networks for clips; it cannot do {base.task}")


def derive(base: TrainConfig, factors: Factors) -> TrainConfig:
    """``base`` with the clip and the network of ``factors``; margins around crops keep their proportions."""
    scale = factors.crop / base.train_crop

    def side(pixels: int) -> int:
        return max(1, round(pixels * scale))

    crop = factors.crop if base.train_crop == base.clip.crop else 2 * round(base.clip.crop * scale / 2)
    low, high = (max(factors.crop, side(pixels)) for pixels in base.augment.short_side)
    kept = {name: value for name, value in base.model.overrides.items() if name not in _FACTORS}
    return base.replace(
        model=replace(base.model, name="x2d", overrides={**kept, **factors.network}),
        clip=base.clip.replace(
            num_frames=factors.frames,
            stride=factors.stride,
            crop=crop,
            short_side=max(crop, side(base.clip.short_side)),
        ),
        augment=replace(base.augment, short_side=(low, high), crop=factors.crop if base.augment.crop else 0),
    )


def candidate_config(
    search: SearchConfig, factors: Factors, *, name: str, seed: int, out: Path
) -> TrainConfig:
    """The training of one candidate: ``derive`` for the budget's epochs, the schedule shrunk with them.

    It is validated once, after the last epoch, so that no candidate profits from being looked at more often.
    """
    base = search.base
    share = search.epochs / base.epochs
    optim = replace(
        base.optim,
        warmup_epochs=base.optim.warmup_epochs * share,
        steps=tuple(step * share for step in base.optim.steps),
    )
    return derive(base, factors).replace(
        recipe=name,
        out=str(out),
        optim=optim,
        epochs=search.epochs,
        grid=replace(base.grid, evals=0),
        val_every=_NEVER * search.epochs,  # the end is always validated
        test_views="",
        seed=base.seed + seed,
        device=search.device,
        tensorboard=False,
    )
