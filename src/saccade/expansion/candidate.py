"""Candidates of a search, the jobs that train them, and the protocol of the engines that run the jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from saccade.errors import ConfigError
from saccade.expansion.config import Axis, Complexity, Factors, SearchConfig
from saccade.models import model_info
from saccade.tasks import get_task
from saccade.training.config import TrainConfig

_FACTORS = ("gamma_tau", "gamma_t", "gamma_s", "gamma_w", "gamma_b", "gamma_d")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network that a step of the search trains.

    Attributes:
        step: 0 for the network that the search starts from, then 1, 2, ...
        axis: the expanded axis; ``start`` for the first network.
        contracted: whether the step's expansion was partly reverted to meet the target.
        parent: name of the candidate it was expanded from; empty for the first network.
    """

    step: int
    axis: Axis | Literal["start"]
    factors: Factors
    complexity: Complexity
    contracted: bool = False
    parent: str = ""

    @property
    def name(self) -> str:
        """Unique in a search, and the prefix of its run folders: ``03-spatial``."""
        return f"{self.step:02d}-{self.axis}" + ("-contracted" if self.contracted else "")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Candidate:
        """The inverse of `dataclasses.asdict`."""
        nested = {"factors": Factors(**values["factors"]), "complexity": Complexity(**values["complexity"])}
        return cls(**{**values, **nested})


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The outcome of one training of a candidate with one seed.

    Attributes:
        rung: rung of successive halving; 0 without it.
        attempt: 1, or 2 for a retry.
        accuracy: validation metric after the last epoch, 0..1: top-1, or the task's main metric.
        num_val: number of validation videos.
        noise: standard error of ``accuracy`` for that number of videos; None: that of a proportion.
        seconds: wall time of the training.
        epochs: epochs trained, including earlier rungs.
        run_dir: the run folder with the weights.
        error: why it failed.
    """

    candidate: Candidate
    seed: int
    status: Literal["done", "failed"]
    rung: int = 0
    attempt: int = 1
    accuracy: float | None = None
    num_val: int = 0
    noise: float | None = None
    seconds: float = 0.0
    epochs: float = 0.0
    run_dir: str = ""
    error: str = ""

    @property
    def name(self) -> str:
        """The `Job.name` of its job."""
        return _job_name(self.candidate, self.seed, self.rung)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Trial:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**values, "candidate": Candidate.from_dict(values["candidate"])})


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training for an engine to run.

    Attributes:
        config: the full training; its ``out`` is the run folder.
        fraction: stop after this fraction of the training, 0..1; the next rung of successive halving resumes
            the same run folder.
        parent_run: run folder whose weights are expanded for a warm start; empty: train from scratch.
    """

    candidate: Candidate
    seed: int
    config: TrainConfig
    rung: int = 0
    fraction: float = 1.0
    parent_run: str = ""
    attempt: int = 1

    @property
    def name(self) -> str:
        """Unique in a search: ``03-spatial-seed1``, or ``03-spatial-seed1-rung2`` with successive halving."""
        return _job_name(self.candidate, self.seed, self.rung)

    def done(self, accuracy: float, **fields: Any) -> Trial:
        """A successful trial of this job."""
        return self._trial(status="done", accuracy=accuracy, **fields)

    def failed(self, error: str, *, seconds: float = 0.0) -> Trial:
        """A failed trial of this job."""
        return self._trial(status="failed", error=error, seconds=seconds, run_dir=self.config.run_dir)

    def _trial(self, **fields: Any) -> Trial:
        job = {"candidate": self.candidate, "seed": self.seed, "rung": self.rung, "attempt": self.attempt}
        return Trial(**{**job, "epochs": self.fraction * self.config.epochs, **fields})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        """The inverse of `to_dict`."""
        config = TrainConfig.from_dict(values["config"])
        return cls(**{**values, "candidate": Candidate.from_dict(values["candidate"]), "config": config})


def _job_name(candidate: Candidate, seed: int, rung: int) -> str:
    return f"{candidate.name}-seed{seed}" + (f"-rung{rung}" if rung else "")


class Engine(Protocol):
    """Runs jobs."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        """Yield one trial per job, in the order in which they finish. A job that fails, or whose process
        dies, yields a trial with status ``failed``; it raises nothing. Closing the iterator, as Ctrl-C does,
        sends SIGTERM to the running jobs, which can be resumed afterwards.
        """
        ...

    def close(self) -> None:
        """Release the engine's resources."""
        ...


def check_base(base: TrainConfig) -> None:
    """Raise `ConfigError` if candidates cannot be trained with the recipe ``base``."""
    if not (base.model.name == "x2d" or base.model.name.startswith("x3d")):
        model_info(base.model.name)  # raises if the name is unknown
        raise ConfigError(
            f"model.name: only X3D can be expanded, got {base.model.name}; use a recipe of x2d or x3d"
        )
    if base.model.weights or base.model.freeze:
        raise ConfigError("model.weights: candidates differ in shape and cannot load weights; leave it empty")
    if not get_task(base.task).searchable:
        raise ConfigError(f"task: expansion searches do not support the task {base.task}")


def derive(base: TrainConfig, factors: Factors) -> TrainConfig:
    """``base`` with the clip and the network of ``factors``. Resize sizes scale with the crop."""
    scale = factors.crop / base.train_crop

    def scaled(pixels: int) -> int:
        return max(1, round(pixels * scale))

    crop = factors.crop if base.train_crop == base.clip.crop else 2 * round(base.clip.crop * scale / 2)
    low, high = (max(factors.crop, scaled(pixels)) for pixels in base.train_short_side)
    others = {name: value for name, value in base.model.overrides.items() if name not in _FACTORS}
    return base.replace(
        model=replace(base.model, name="x2d", overrides={**others, **factors.network}),
        clip=base.clip.replace(
            num_frames=factors.frames,
            stride=factors.stride,
            crop=crop,
            short_side=max(crop, scaled(base.clip.short_side)),
        ),
        augment=replace(base.augment, short_side=(low, high), crop=factors.crop if base.augment.crop else 0),
    )


def candidate_config(
    search: SearchConfig, factors: Factors, *, name: str, seed: int, out: Path
) -> TrainConfig:
    """The training config of a candidate: `derive` with the search's epochs and a schedule scaled to them.

    It validates once, after the last epoch, so that no candidate gets a best-of-many validation score.
    """
    base = search.base
    scale = search.epochs / base.epochs
    optim = replace(
        base.optim,
        warmup_epochs=base.optim.warmup_epochs * scale,
        steps=tuple(step * scale for step in base.optim.steps),
    )
    return derive(base, factors).replace(
        recipe=name,
        out=str(out),
        optim=optim,
        epochs=search.epochs,
        grid=replace(base.grid, evals=0),
        val_every=100 * search.epochs,  # never during training; the end is always validated
        test_views="",
        seed=base.seed + seed,
        device=search.device,
        tensorboard=False,
    )
