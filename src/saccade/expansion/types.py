"""The records that travel between the parts of a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from saccade.errors import ConfigError
from saccade.models.x3d import BASE_CROP, X3DConfig
from saccade.tasks import figure_name, get_task
from saccade.training.config import TrainConfig

Axis = Literal["fast", "temporal", "spatial", "depth", "width", "bottleneck"]
"""What one step expands. Section 3.1 of the X3D paper calls them X-Fast, X-Temporal and so on."""
AXES: tuple[Axis, ...] = get_args(Axis)

Cost = Literal["gmacs", "params", "latency_ms", "memory_mb"]
"""A figure of `Complexity` that can be a target."""
COSTS: tuple[Cost, ...] = get_args(Cost)

Criterion = Literal["accuracy", "gain", "ratio"]
Runtime = Literal["saccade", "torch", "compile"]
Status = Literal["done", "failed"]


def accuracy_name(task: str) -> str:
    """What the accuracy of a search is called in print: that by which models of the task are chosen."""
    return figure_name(get_task(task or "single-label").figure)


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A point in the space of X3D in usable values: the clip in frames and pixels, the network in factors."""

    frames: int = 1
    stride: int = 1
    """Frames of the source, at the clip's rate, from one frame of the clip to the next."""
    crop: int = BASE_CROP
    width: float = 1.0
    bottleneck: float = 1.0
    depth: float = 1.0

    @property
    def duration(self) -> int:
        """Frames of the source that the clip stands for."""
        return self.frames * self.stride

    @property
    def network(self) -> dict[str, int | float | str]:
        """Fields of `X3DConfig` that do not follow from the clip."""
        return {"gamma_w": self.width, "gamma_b": self.bottleneck, "gamma_d": self.depth}

    @property
    def gammas(self) -> dict[str, Any]:
        """All six factors as fields of `X3DConfig`."""
        clip = {"gamma_tau": self.stride, "gamma_t": self.frames, "gamma_s": self.crop / BASE_CROP}
        return {**clip, **self.network}

    @property
    def config(self) -> X3DConfig:
        """The point with `X3DConfig`'s defaults for all else."""
        return replace(X3DConfig(), **self.gammas)

    @classmethod
    def of(cls, config: X3DConfig) -> Factors:
        """The point of a model's config."""
        return cls(
            frames=config.num_frames,
            stride=config.stride,
            crop=config.train_crop,
            width=config.gamma_w,
            bottleneck=config.gamma_b,
            depth=config.gamma_d,
        )

    def replace(self, **changes: Any) -> Factors:
        return replace(self, **changes)

    def __str__(self) -> str:
        return (
            f"{self.frames}x{self.stride} frames, {self.crop} pixels, "
            f"width {self.width:g}, bottleneck {self.bottleneck:g}, depth {self.depth:g}"
        )


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """What one clip costs the network of some `Factors`, counted and measured.

    Attributes:
        gmacs: multiply-adds / 10⁹ of convolutions and linear layers, at the training crop.
        params: parameters, those of the classifier for the data set's classes included.
        latency_ms: median of a forward pass of one clip on the device and runtime of the search; None if it
            was not measured.
        memory_mb: largest sum of weights and live activations, in 10⁶ bytes, during that pass in float32.
    """

    gmacs: float
    params: int
    memory_mb: float
    latency_ms: float | None = None

    def cost(self, kind: Cost) -> float:
        """The figure of that name.

        Raises:
            ConfigError: it was not measured.
        """
        value = getattr(self, kind)
        if value is None:
            raise ConfigError(f"{kind}: was not measured in this search")
        return float(value)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One network that a step of the search tries.

    Attributes:
        step: 0 for the network the search starts from, then 1, 2, ...
        axis: what was expanded; ``start`` for the first network.
        contracted: whether it is the last expansion taken back in part to meet the target.
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
        """Unique in a search, and a good name of a folder: ``03-spatial``."""
        return f"{self.step:02d}-{self.axis}" + ("-contracted" if self.contracted else "")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Candidate:
        nested = {
            "factors": Factors(**values["factors"]),
            "complexity": Complexity(**values["complexity"]),
        }
        return cls(**{**values, **nested})


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training of one candidate with one seed, as an engine runs it.

    Attributes:
        config: the whole training; its ``out`` is the folder of the run.
        rung: round of successive halving, 0 where there is none.
        share: how much of the config's training is done when this job ends, 0..1; the next rung goes on from
            there in the same run folder.
        parent_run: run folder to take weights from by expansion (warm start); empty: from scratch.
        attempt: 1 for the first try, 2 for the second.
    """

    candidate: Candidate
    seed: int
    config: TrainConfig
    rung: int = 0
    share: float = 1.0
    parent_run: str = ""
    attempt: int = 1

    @property
    def name(self) -> str:
        """Unique in a search: ``03-spatial-seed1``, with the rung of successive halving if there are some."""
        return f"{self.candidate.name}-seed{self.seed}" + (f"-rung{self.rung}" if self.rung else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "candidate": self.candidate.to_dict(),
            "seed": self.seed,
            "config": self.config.to_dict(),
            "rung": self.rung,
            "share": self.share,
            "parent_run": self.parent_run,
            "attempt": self.attempt,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        nested = {
            "candidate": Candidate.from_dict(values["candidate"]),
            "config": TrainConfig.from_dict(values["config"]),
        }
        return cls(**{**values, **nested})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a `Job`.

    Attributes:
        accuracy: the validation figure after the last epoch, 0..1: top-1, or that of the task.
        num_val: videos it was taken on.
        noise: standard error of ``accuracy`` for that number of videos; None: that of a share of them.
        seconds: wall time of the training.
        run_dir: the run folder with the weights.
        error: why it failed.
    """

    candidate: Candidate
    seed: int
    status: Status
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
    def job_name(self) -> str:
        """`Job.name` of the job this came of."""
        return f"{self.candidate.name}-seed{self.seed}" + (f"-rung{self.rung}" if self.rung else "")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Outcome:
        return cls(**{**values, "candidate": Candidate.from_dict(values["candidate"])})

    @classmethod
    def of_failure(cls, job: Job, error: str, *, seconds: float = 0.0) -> Outcome:
        """``job`` has failed for a reason in words."""
        return cls(
            candidate=job.candidate,
            seed=job.seed,
            status="failed",
            rung=job.rung,
            attempt=job.attempt,
            seconds=seconds,
            epochs=job.share * job.config.epochs,
            run_dir=job.config.run_dir,
            error=error,
        )


class Engine(Protocol):
    """Where candidates train."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """One outcome for each job, as they finish. A job that fails, or whose process dies, is an outcome
        with status ``failed``, never an exception. Closing the iterator, as Ctrl-C does, ends the jobs under
        way by SIGTERM, after which they can be resumed.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...


@dataclass(frozen=True)
class Target:
    """The search ends at the largest network whose ``kind`` is not above ``value``."""

    kind: Cost
    value: float

    def met(self, complexity: Complexity) -> bool:
        return complexity.cost(self.kind) <= self.value


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The frozen description of one search.

    Attributes:
        base: the training of every candidate but for clip, network, seed and folder; ``base.data`` is the
            data set, ``base.epochs`` what a candidate is trained for in the recipe that comes out.
        epochs: epochs of each candidate's training (the budget).
        targets: ceilings, all of which the result keeps.
        cost: what a step multiplies by ``rate``.
        rate: how much a step costs, as a multiple of its parent.
        axes: what may be expanded.
        start: where the search begins.
        duration: frames of the source that the first clip of several frames stands for.
        seeds: trainings of each candidate, with seeds 0, 1, ...
        out: folder of the search.
        device: of the latency, and of trainings that run in sequence.
        runtime: of the latency: the kernels of this library, PyTorch's operators alone, or torch.compile.
        latency_runs: timed passes.
        warm_start: candidates take their parent's weights over, expanded.
        halving: successive halving among the candidates of a step: the share kept each round is 1/halving;
            0 trains all of them to the end.
    """

    base: TrainConfig
    epochs: float
    targets: tuple[Target, ...]
    out: Path
    cost: Cost = "gmacs"
    rate: float = 2.0
    criterion: Criterion = "accuracy"
    axes: tuple[Axis, ...] = AXES
    start: Factors = Factors()
    duration: int = 48
    seeds: int = 1
    device: str = "cpu"
    runtime: Runtime = "saccade"
    latency_runs: int = 5
    warm_start: bool = False
    halving: int = 0
    max_steps: int = 30

    def replace(self, **changes: Any) -> SearchConfig:
        return replace(self, **changes)


class Strategy(Protocol):
    """How the candidates of one step are judged: all trained to the end, or by successive halving.

    ``make_job(candidate, seed)`` makes jobs of whole trainings. ``run(jobs)`` trains them: it takes what
    the journal has already from there, writes every outcome to the journal, and tries a failed job a second
    time. What is returned are the outcomes that decide, those of the candidates' longest trainings.
    """

    def __call__(
        self, candidates: Sequence[Candidate], *, make_job: JobMaker, run: Runner, search: SearchConfig
    ) -> list[Outcome]: ...


class JobMaker(Protocol):
    def __call__(self, candidate: Candidate, seed: int) -> Job: ...


class Runner(Protocol):
    def __call__(self, jobs: Sequence[Job]) -> list[Outcome]: ...
