"""One job of a search, from its config to its outcome; also as a process of its own.

``python -m saccade.expansion.worker JOB.json OUTCOME.json`` is what `saccade.expansion.engines` starts.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.errors import SaccadeError
from saccade.evaluation import load_result
from saccade.expansion.types import Job, Outcome
from saccade.expansion.warm_start import write_warm_start
from saccade.files import write_json
from saccade.runs import Run
from saccade.training import TrainConfig, train

START = "start.safetensors"
"""Name of the weights, in the run folder, that a warm start begins with."""
INTERRUPTED = 130


def run_job(job: Job) -> Outcome:
    """Train as the job says, from where its run folder stands: a second attempt goes on from the last state
    that the first one saved, as the next rung of successive halving does.

    Whatever goes wrong is an outcome with status ``failed``.

    Raises:
        KeyboardInterrupt: stopped by a signal; the run folder can be resumed.
    """
    start = time.perf_counter()
    try:
        return _trained(job, start)
    except Exception as error:
        return Outcome.of_failure(job, explain(error), seconds=time.perf_counter() - start)


def explain(error: BaseException) -> str:
    """One line: the message of an error of ours, and the kind too of any other."""
    text = " ".join(str(error).split())
    if isinstance(error, SaccadeError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _trained(job: Job, start: float) -> Outcome:
    run = Run(job.config.run_dir)
    resume = run.last.is_file()
    if resume:
        config = _as_begun(job.config, run.config)
    else:
        config = _warm(job, run.folder) if job.parent_run else job.config
    train(config, resume=resume, overwrite=not resume, fraction=job.share)
    result = load_result(run.val_scores)
    return Outcome(
        candidate=job.candidate,
        seed=job.seed,
        status="done",
        rung=job.rung,
        attempt=job.attempt,
        accuracy=result.score,
        num_val=result.num_videos,
        noise=result.standard_error if math.isfinite(result.standard_error) else None,
        seconds=time.perf_counter() - start,
        epochs=job.share * job.config.epochs,
        run_dir=str(run.folder),
    )


def _as_begun(config: TrainConfig, begun: TrainConfig) -> TrainConfig:
    """``config`` with what a run must keep although a search may go on with another: the cache, and where the
    weights lay that it started from, which is read no more and may be elsewhere by now.
    """
    model = replace(config.model, weights=begun.model.weights)
    return config.replace(model=model, cache_mb=begun.cache_mb)


def _warm(job: Job, folder: Path) -> TrainConfig:
    """The job's config with the expanded weights of its parent."""
    path = folder / START
    report = write_warm_start(job.config, Run(job.parent_run).best, path)
    write_json(folder / "warm_start.json", report.to_dict())
    return job.config.replace(model=replace(job.config.model, weights=str(path)))


def main(args: list[str]) -> int:
    """Read a job, run it, write its outcome. When stdin ends, as it does with the engine's process, so does
    the training, after saving.
    """
    job_path, outcome_path = map(Path, args)
    order: dict[str, Any] = json.loads(job_path.read_text(encoding="utf-8"))
    if order["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order["cores"])
    threading.Thread(target=_watch_stdin, daemon=True).start()
    try:
        outcome = run_job(Job.from_dict(order["job"]))
    except KeyboardInterrupt:
        return INTERRUPTED
    write_json(outcome_path, outcome.to_dict())
    return 0


def _watch_stdin() -> None:
    """Without the engine nobody waits for the outcome."""
    while os.read(sys.stdin.fileno(), 64):  # not sys.stdin.read(): its lock would be held at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
