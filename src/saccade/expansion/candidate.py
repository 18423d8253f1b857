"""One candidate's training: its config, and the process of its own that it runs in.

``python -m saccade.expansion.candidate FOLDER`` trains the job in ``FOLDER/job.json`` and writes what became
of it to ``FOLDER/outcome.json``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from saccade.errors import ConfigError, SaccadeError
from saccade.expansion.types import Factors, Job, Outcome
from saccade.files import write_json
from saccade.models import model_info
from saccade.training.config import TrainConfig
from saccade.training.run_folder import BEST, CONFIG, LAST, read_config

JOB, OUTCOME, OUTPUT, START = "job.json", "outcome.json", "output.txt", "warm_start.safetensors"
_FACTORS = ("gamma_tau", "gamma_t", "gamma_s", "gamma_w", "gamma_b", "gamma_d")
_PATIENCE = 60.0
"""Seconds that a process may take to save its state after SIGTERM."""


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
    if base.task not in ("single-label", "multi-label", "localization"):
        raise ConfigError(f"task: a search compares networks for clips; it cannot do {base.task}")


def derive(base: TrainConfig, factors: Factors) -> TrainConfig:
    """``base`` with the clip and the network of ``factors``; the margins around crops keep their proportions."""
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
    base: TrainConfig, factors: Factors, *, name: str, seed: int, epochs: float, out: Path, device: str
) -> TrainConfig:
    """The training of one candidate: ``derive`` for ``epochs``, its schedule shrunk with them.

    It is validated once, after the last epoch, so that no candidate profits from being looked at more often.
    """
    share = epochs / base.epochs
    optim = replace(
        base.optim,
        warmup_epochs=base.optim.warmup_epochs * share,
        steps=tuple(step * share for step in base.optim.steps),
    )
    return derive(base, factors).replace(
        recipe=name,
        out=str(out),
        optim=optim,
        epochs=epochs,
        val_every=epochs,
        test_views="",
        seed=base.seed + seed,
        device=device,
        tensorboard=False,
    )


def train_candidate(job: Job) -> Outcome:
    """Train ``job`` in this process, or go on with what a stopped search left of it.

    Whatever goes wrong becomes an outcome with status ``failed``; only an interruption is raised.
    """
    from saccade.training.run import train

    start = time.perf_counter()
    try:
        config = _with_start(job)
        folder = Path(config.run_dir)
        resume = _can_resume(folder, config)
        result = train(config, resume=resume, overwrite=not resume and (folder / CONFIG).exists())
        if result.best_score is None:
            raise ConfigError("val_every: without a validation there is nothing to compare candidates by")
        return Outcome(
            candidate=job.candidate,
            seed=job.seed,
            status="done",
            rung=job.rung,
            attempt=job.attempt,
            accuracy=result.best_score,
            seconds=time.perf_counter() - start,
            epochs=config.epochs,
            run_dir=str(folder),
        )
    except Exception as error:
        told = str(error) if isinstance(error, SaccadeError) else f"{type(error).__name__}: {error}"
        return Outcome.of_failure(job, told, seconds=time.perf_counter() - start)


def _with_start(job: Job) -> TrainConfig:
    """The job's config, the expanded weights of its parent written and named if there is one."""
    if not job.parent_run:
        return job.config
    from saccade.expansion.warm_start import write_warm_start

    path = Path(job.config.run_dir) / START
    config = job.config.replace(model=replace(job.config.model, weights=str(path)))
    if not path.exists():
        write_warm_start(job.config, Path(job.parent_run) / BEST, path)
    return config


def _can_resume(folder: Path, config: TrainConfig) -> bool:
    """Whether the folder holds the beginning, or all, of this very run."""
    if not ((folder / LAST).exists() and (folder / CONFIG).exists()):
        return False
    try:
        return read_config(folder).to_dict() == config.to_dict()
    except SaccadeError:
        return False


def run_in_process(job: Job, env: Mapping[str, str] | None = None) -> Outcome:
    """Train ``job`` in a fresh process with these additional environment variables, and wait for it.

    What it prints goes to ``output.txt`` of the run folder. A process that dies, of a signal or for want of
    memory, is a failed outcome. When this is interrupted the process gets SIGTERM and time to save its state.
    """
    folder = Path(job.config.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JOB, job.to_dict())
    (folder / OUTCOME).unlink(missing_ok=True)
    start = time.perf_counter()
    command = [sys.executable, "-m", "saccade.expansion.candidate", str(folder)]
    with (folder / OUTPUT).open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            start_new_session=True,  # Ctrl-C is passed on below, once
        )
        try:
            code = process.wait()
        except BaseException:
            stop_process(process)
            raise
    if (folder / OUTCOME).is_file():
        return Outcome.from_dict(json.loads((folder / OUTCOME).read_text(encoding="utf-8")))
    return Outcome.of_failure(job, _death(code, folder), seconds=time.perf_counter() - start)


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """Ask a training to save and end; kill it if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _death(code: int, folder: Path) -> str:
    lines = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"the process {how}{last} (see {folder / OUTPUT})"


class SequentialEngine:
    """One candidate after another, each in a process of its own."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        for job in jobs:
            yield run_in_process(job)

    def close(self) -> None:
        """Nothing is held."""


def main(folder: Path) -> int:
    """Train the job in ``folder``; 130 if it was interrupted."""
    job = Job.from_dict(json.loads((folder / JOB).read_text(encoding="utf-8")))
    try:
        outcome = train_candidate(job)
    except KeyboardInterrupt:
        return 130
    write_json(folder / OUTCOME, outcome.to_dict())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
