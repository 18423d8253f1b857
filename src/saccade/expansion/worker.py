"""One job of a search, from its config to its trial; also as a process of its own.

``python -m saccade.expansion.worker JOB.json TRIAL.json`` is what `saccade.expansion.engines` starts.
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
"""Name, in the run folder, of the weights of a warm start."""
WARM_START = "warm_start.json"
"""Name, in the run folder, of the report of a warm start."""
INTERRUPTED = 130


def run_job(job: Job) -> Trial:
    """Train as the job says. If its run folder holds a saved state the training continues from there: after
    a failed first attempt, and in the next rung of successive halving.

    An error becomes a trial with status ``failed``.

    Raises:
        KeyboardInterrupt: stopped by a signal; the run folder can be resumed.
    """
    start = time.perf_counter()
    try:
        return _train(job, start)
    except Exception as error:
        return job.failed(explain(error), seconds=time.perf_counter() - start)


def explain(error: BaseException) -> str:
    """One line: the message of an error of ours, and the kind too of any other."""
    text = " ".join(str(error).split())
    if isinstance(error, SaccadeError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _train(job: Job, start: float) -> Trial:
    run = Run(job.config.run_dir)
    resume = run.last.is_file()
    if resume:
        config = _as_begun(job.config, run.config)
    else:
        config = _warm_started(job, run.folder) if job.parent_run else job.config
    train(config, resume=resume, overwrite=not resume, fraction=job.fraction)
    result = load_result(run.val_scores)
    return job.done(
        result.score,
        num_val=result.num_videos,
        noise=result.standard_error if math.isfinite(result.standard_error) else None,
        seconds=time.perf_counter() - start,
        run_dir=str(run.folder),
    )


def _as_begun(config: TrainConfig, begun: TrainConfig) -> TrainConfig:
    """``config`` with what a run cannot change although a search can: the cache, and the path of its initial
    weights, which are not read again and may have been moved.
    """
    model = replace(config.model, weights=begun.model.weights)
    return config.replace(model=model, cache_mb=begun.cache_mb)


def _warm_started(job: Job, folder: Path) -> TrainConfig:
    """The job's config with the expanded weights of its parent."""
    path = folder / START
    report = write_warm_start(job.config, Run(job.parent_run).best, path)
    write_json(folder / WARM_START, report.to_dict())
    return job.config.replace(model=replace(job.config.model, weights=str(path)))


def main(args: list[str]) -> int:
    """Read a job, run it, write its trial. When stdin is closed, as happens when the engine's process ends,
    the training saves its state and stops.
    """
    job_path, trial_path = map(Path, args)
    order: dict[str, Any] = json.loads(job_path.read_text(encoding="utf-8"))
    if order["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order["cores"])
    threading.Thread(target=_watch_stdin, daemon=True).start()
    try:
        trial = run_job(Job.from_dict(order["job"]))
    except KeyboardInterrupt:
        return INTERRUPTED
    write_json(trial_path, asdict(trial))
    return 0


def _watch_stdin() -> None:
    """Stop when the engine is gone: nobody waits for the trial."""
    while os.read(sys.stdin.fileno(), 64):  # not sys.stdin.read(): its lock would be held at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
