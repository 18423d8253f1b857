"""Runs one job of a search.

`saccade.expansion.engines` starts it as ``python -m saccade.expansion.worker JOB.json TRIAL.json``.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from saccade.errors import SaccadeError
from saccade.evaluation import load_result
from saccade.expansion.candidate import Job, Trial
from saccade.expansion.warm_start import write_warm_start
from saccade.files import write_json
from saccade.runs import Run
from saccade.training import TrainConfig, train

START = "start.safetensors"
"""File in the run folder: initial weights of a warm start."""
WARM_START = "warm_start.json"
"""File in the run folder: report of the warm start."""
INTERRUPTED = 130


def run_job(job: Job) -> Trial:
    """Run a job. If its run folder has a checkpoint, after a failed attempt or an earlier rung of successive
    halving, the training resumes from it. An error returns a trial with status ``failed``.

    Raises:
        KeyboardInterrupt: stopped by a signal; the run folder can be resumed.
    """
    start = time.perf_counter()
    try:
        return _train(job, start)
    except Exception as error:
        return job.failed(error_line(error), seconds=time.perf_counter() - start)


def error_line(error: BaseException) -> str:
    """The message of an error as one line, with the type unless it is a `SaccadeError`."""
    text = " ".join(str(error).split())
    if isinstance(error, SaccadeError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _train(job: Job, start: float) -> Trial:
    run = Run(job.config.run_dir)
    resume = run.last.is_file()
    if resume:
        config = _with_run_settings(job.config, run.config)
    else:
        config = _with_parent_weights(job, run.folder) if job.parent_run else job.config
    train(config, resume=resume, overwrite=not resume, fraction=job.fraction)
    result = load_result(run.val_scores)
    return job.done(
        result.score,
        num_val=result.num_videos,
        noise=result.standard_error if math.isfinite(result.standard_error) else None,
        seconds=time.perf_counter() - start,
        run_dir=str(run.folder),
    )


def _with_run_settings(config: TrainConfig, begun: TrainConfig) -> TrainConfig:
    """``config`` with those settings of ``begun`` that a run cannot change although a search can: the cache
    size, and the path of the initial weights, which are not read again and may have been moved.
    """
    model = replace(config.model, weights=begun.model.weights)
    return config.replace(model=model, cache_mb=begun.cache_mb)


def _with_parent_weights(job: Job, folder: Path) -> TrainConfig:
    """The job's config with its parent's expanded weights."""
    path = folder / START
    report = write_warm_start(job.config, Run(job.parent_run).best, path)
    write_json(folder / WARM_START, report.to_dict())
    return job.config.replace(model=replace(job.config.model, weights=str(path)))


def main(args: list[str]) -> int:
    """Read a job, run it, write its trial. The training saves a checkpoint and stops when stdin is closed,
    which happens when the engine's process ends.
    """
    job_path, trial_path = map(Path, args)
    request: dict[str, Any] = json.loads(job_path.read_text(encoding="utf-8"))
    if request["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cores"])
    threading.Thread(target=_stop_at_stdin_eof, daemon=True).start()
    try:
        trial = run_job(Job.from_dict(request["job"]))
    except KeyboardInterrupt:
        return INTERRUPTED
    write_json(trial_path, asdict(trial))
    return 0


def _stop_at_stdin_eof() -> None:
    """Send SIGTERM to this process once the engine's process has ended."""
    while os.read(sys.stdin.fileno(), 64):  # not sys.stdin.read(): its lock would be held at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
