"""Candidates on a Ray cluster (extra ``ray``), whose machines must share the folders of data and search."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.errors import UsageError
from saccade.expansion.types import Job, Outcome
from saccade.expansion.worker import explain, run_job


class RayEngine:
    """Each job is a Ray task with its share of cores, and a GPU where jobs train on GPUs.

    Ray waits for room, chooses the machine, and sets CUDA_VISIBLE_DEVICES for the task. Its own retries are
    off: whether a failed job is tried again is the search's affair.
    """

    def __init__(self, *, jobs: int = 0, device: str = "auto", address: str = "") -> None:
        """Args:
        jobs: how many fit on the cluster at a time; 0: one a GPU, or two on CPUs.
        device: ``cpu``, ``cuda`` or ``auto``, which takes GPUs if the cluster has some.
        address: of the cluster; empty: the one this machine belongs to, or a new one on it.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device: {device!r}; Ray deals the GPUs out itself: choose cpu, cuda or auto")
        self._ray = _import_ray()
        self._started = not self._ray.is_initialized()
        if self._started:
            self._connect(address)
        total = self._ray.cluster_resources()
        cores, gpus = max(1, int(total.get("CPU", 1))), float(total.get("GPU", 0))
        if device == "cuda" and not gpus:
            raise UsageError("device: cuda was asked for and the Ray cluster has no GPU; choose cpu")
        on_gpu = device != "cpu" and gpus > 0
        num = jobs or (int(gpus) if on_gpu else min(2, cores))
        self.cores = max(1, cores // num)
        self.gpus = min(1.0, gpus / num) if on_gpu else 0.0
        self._task = self._ray.remote(num_cpus=self.cores, num_gpus=self.gpus, max_retries=0)(_task)

    def _connect(self, address: str) -> None:
        try:
            self._ray.init(address=address or None, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"Ray cannot be reached ({explain(error)}); check the address") from error

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """One outcome for each job, as they finish; see `Engine.run`."""
        running = {self._task.remote(self._placed(job).to_dict()): job for job in jobs}
        try:
            while running:
                done, _ = self._ray.wait(list(running), num_returns=1)
                for reference in done:
                    job = running.pop(reference)
                    yield self._outcome(job, reference)
        finally:
            for reference in running:
                self._ray.cancel(reference)  # an interrupt: the training saves itself
            if running:
                self._ray.wait(list(running), num_returns=len(running), timeout=60)

    def close(self) -> None:
        """Leave the cluster, unless the caller had joined it before."""
        if self._started:
            self._ray.shutdown()

    def _placed(self, job: Job) -> Job:
        device = "cuda" if self.gpus else "cpu"
        return replace(job, config=job.config.replace(threads=self.cores, device=device))

    def _outcome(self, job: Job, reference: Any) -> Outcome:
        try:
            outcome = Outcome.from_dict(self._ray.get(reference))
        except Exception as error:  # the task's machine or process is gone
            return Outcome.of_failure(job, explain(error))
        if outcome.status == "done" and not Path(outcome.run_dir).is_dir():
            reason = (
                f"its run folder {outcome.run_dir} is not to be seen from here; put --out on shared storage"
            )
            return Outcome.of_failure(job, reason, seconds=outcome.seconds)
        return outcome


def _task(job: dict[str, Any]) -> dict[str, Any]:
    return run_job(Job.from_dict(job)).to_dict()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        if sys.modules.get("ray") is None and error.name not in (None, "ray"):
            raise UsageError(f"engine: Ray is installed but cannot be imported ({error})") from error
        raise UsageError(
            "engine: ray needs the extra `ray`: pip install 'saccade[ray]'; or choose the engine process"
        ) from error
    return ray
