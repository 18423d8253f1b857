"""A candidate of the search, its trainings, and where they run."""

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

_NEVER = 100
_FACTORS = ("gamma_tau", "gamma_t", "gamma_s", "gamma_w", "gamma_b", "gamma_d")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One network that a step of the search tries.

    Attributes:
        step: 0 for the network the search starts from, then 1, 2, ...
        axis: what was expanded; ``start`` for the first network.
        contracted: whether the step's expansion was partly taken back to meet the target.
        parent: name of the candidate it was expanded from, empty for the first.
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
    """One training of one candidate with one seed, when it has ended.

    Attributes:
        rung: round of successive halving, 0 where there is none.
        attempt: 1 for the first try, 2 for the second.
        accuracy: the validation figure after the last epoch, 0..1: top-1, or that of the task.
        num_val: number of validation videos.
        noise: standard error of ``accuracy`` for that number of videos; None: that of a proportion.
        seconds: wall time of the training.
        epochs: epochs trained, those of earlier rungs included.
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
        """`Job.name` of the job it came from."""
        return _job_name(self.candidate, self.seed, self.rung)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Trial:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**values, "candidate": Candidate.from_dict(values["candidate"])})


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that an engine is to run.

    Attributes:
        config: the whole training; its ``out`` is the run folder.
        fraction: of the config's training that is done when this job ends, 0..1; the next rung of successive
            halving continues from there in the same run folder.
        parent_run: run folder to take weights from by expansion (warm start); empty: from scratch.
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
        """Unique in a search: ``03-spatial-seed1``, with the rung of successive halving after the first."""
        return _job_name(self.candidate, self.seed, self.rung)

    def done(self, accuracy: float, **fields: Any) -> Trial:
        """The trial of this job with that accuracy."""
        return self._ended(status="done", accuracy=accuracy, **fields)

    def failed(self, error: str, *, seconds: float = 0.0) -> Trial:
        """The trial of this job that failed for the reason ``error``."""
        return self._ended(status="failed", error=error, seconds=seconds, run_dir=self.config.run_dir)

    def _ended(self, **fields: Any) -> Trial:
        epochs = self.fraction * self.config.epochs
        own = {"candidate": self.candidate, "seed": self.seed, "rung": self.rung, "attempt": self.attempt}
        return Trial(**{**own, "epochs": epochs, **fields})

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
    """Where candidates train."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        """One trial for each job, as they finish. A job that fails, or whose process dies, is a trial with
        status ``failed``, never an exception. Closing the iterator, as Ctrl-C does, ends the running jobs by
        SIGTERM, after which they can be resumed.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds."""
        ...


def check_base(base: TrainConfig) -> None:
    """Raise `ConfigError` if candidates cannot be trained with the recipe ``base``."""
    if not (base.model.name == "x2d" or base.model.name.startswith("x3d")):
        model_info(base.model.name)  # an unknown name has an error of its own
        raise ConfigError(
            f"model.name: the axes are those of X3D; start from a recipe of x2d or x3d, "
            f"not of {base.model.name}"
        )
    if base.model.weights or base.model.freeze:
        raise ConfigError(
            "model.weights: every candidate is another network, so none can load them; leave it empty"
        )
    if not get_task(base.task).searchable:
        raise ConfigError(f"task: a search compares networks for clips; it cannot do {base.task}")


def derive(base: TrainConfig, factors: Factors) -> TrainConfig:
    """``base`` with the clip and the network of ``factors``; margins around crops keep their proportions."""
    scale = factors.crop / base.train_crop

    def side(pixels: int) -> int:
        return max(1, round(pixels * scale))

    crop = factors.crop if base.train_crop == base.clip.crop else 2 * round(base.clip.crop * scale / 2)
    low, high = (max(factors.crop, side(pixels)) for pixels in base.train_short_side)
    others = {name: value for name, value in base.model.overrides.items() if name not in _FACTORS}
    return base.replace(
        model=replace(base.model, name="x2d", overrides={**others, **factors.network}),
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
    """The training of one candidate: ``derive`` for the budget's epochs, the schedule shortened with them.

    It is validated once, after the last epoch, so that no candidate profits from being validated more often.
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
        val_every=_NEVER * search.epochs,  # the end is always validated
        test_views="",
        seed=base.seed + seed,
        device=search.device,
        tensorboard=False,
    )
