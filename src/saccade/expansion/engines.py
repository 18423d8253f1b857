"""Engines that train the candidates of a search: local processes, or a Ray cluster (extra ``ray``)."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, get_args

from saccade.errors import UsageError
from saccade.expansion.candidate import Engine, Job, Trial
from saccade.expansion.worker import error_line, run_job
from saccade.files import write_json

EngineName = Literal["process", "ray"]
WORKER = (sys.executable, "-m", "saccade.expansion.worker")
GRACE_SECONDS = 60.0
"""Seconds between SIGTERM and SIGKILL, in which a job saves its checkpoint."""


@dataclass(frozen=True)
class Slot:
    """CPU cores by number, and a GPU by its CUDA_VISIBLE_DEVICES name, for one job at a time."""

    cores: tuple[int, ...]
    gpu: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that must be set before torch is imported."""
        threads = {name: str(len(self.cores)) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        return threads | ({} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu})


def make_slots(num: int, cores: Sequence[int], gpus: Sequence[str] = ()) -> list[Slot]:
    """Divide cores and GPUs among ``num`` slots as evenly as possible.

    Neighbouring cores stay together. With fewer cores (GPUs) than slots, several slots use the same one.
    """
    if num <= len(cores):
        bounds = [round(i * len(cores) / num) for i in range(num + 1)]
        parts = [tuple(cores[bounds[i] : bounds[i + 1]]) for i in range(num)]
    else:
        parts = [(cores[i % len(cores)],) for i in range(num)]
    return [Slot(part, gpus[i % len(gpus)] if gpus else None) for i, part in enumerate(parts)]


def create_engine(name: str, *, jobs: int = 0, device: str = "auto", address: str = "") -> Engine:
    """The engine called ``name``.

    Args:
        jobs: jobs that run in parallel; 0: one per GPU, or two on CPUs. Cores are divided among them.
        device: ``cpu``, ``cuda`` or ``auto``, which uses GPUs if there are any.
        address: address of the Ray cluster; empty: the cluster of this machine, or a new one on it.

    Raises:
        UsageError: unknown engine, or a dependency or device is missing.
    """
    if name not in get_args(EngineName):
        raise UsageError(f"engine: {name!r} is unknown; choose {' or '.join(get_args(EngineName))}")
    if jobs < 0:
        raise UsageError(f"jobs must be at least 1, or 0 for the default, got {jobs}")
    if name == "ray":
        return RayEngine(jobs=jobs, device=device, address=address)
    cores, gpus = available_cores(), visible_gpus() if wants_gpu(device) else []
    return ProcessEngine(make_slots(jobs or len(gpus) or min(2, len(cores)), cores, gpus))


def available_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def visible_gpus() -> list[str]:
    """The names of the GPUs for CUDA_VISIBLE_DEVICES."""
    import torch

    listed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return listed[: torch.cuda.device_count()] or [str(i) for i in range(torch.cuda.device_count())]


def wants_gpu(device: str) -> bool:
    """Whether jobs train on GPUs.

    Raises:
        UsageError: there is no GPU, or ``device`` names a single GPU.
    """
    import torch

    if device == "auto":
        return torch.cuda.is_available()
    if device not in ("cpu", "cuda"):
        raise UsageError(
            f"device must be cpu, cuda or auto, got {device!r}: the engine assigns GPUs to jobs; limit the "
            "GPUs with CUDA_VISIBLE_DEVICES"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: cuda is not available, PyTorch finds no GPU; use cpu")
    return device == "cuda"


class ProcessEngine:
    """Runs one process at a time in each slot, pinned to the slot's cores.

    The processes stop when their standard input is closed, so none outlives the search, even a killed one.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        if not slots:
            raise UsageError("jobs: the engine needs at least one slot")
        self.slots = tuple(slots)
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._closing = False

    def run(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        """Yield one trial per job, see `Engine.run`."""
        waiting, trials = deque(jobs), queue.Queue[Trial]()
        self._closing = False
        threads = [
            threading.Thread(target=self._run_slot, args=(slot, waiting, trials), daemon=True)
            for slot in self.slots[: len(jobs)]
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in jobs:
                yield trials.get()
        finally:
            self.close()
            for thread in threads:
                thread.join()

    def close(self) -> None:
        """Stop running jobs: SIGTERM, then SIGKILL after `GRACE_SECONDS`."""
        with self._lock:
            self._closing = True
            running = list(self._running.values())
        for process in running:
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()

    def _run_slot(self, slot: Slot, waiting: deque[Job], trials: queue.Queue[Trial]) -> None:
        """Run jobs in one slot until none is left."""
        while not self._closing:
            try:
                job = waiting.popleft()
            except IndexError:
                return
            start = time.perf_counter()
            try:
                trial = self._run(job, slot)
            except Exception as error:  # the process cannot start: no memory, no disk space
                seconds = time.perf_counter() - start
                trial = job.failed(f"could not be started: {error}", seconds=seconds)
            if trial is not None:
                trials.put(trial)

    def _run(self, job: Job, slot: Slot) -> Trial | None:
        """Run a job in a new process; None if `close` stopped it."""
        start = time.perf_counter()
        device = "cpu" if slot.gpu is None else "cuda"
        threads = job.config.threads or len(slot.cores)
        job = replace(job, config=job.config.replace(threads=threads, device=device))
        with tempfile.TemporaryDirectory(prefix="saccade-job-") as folder:
            job_path, trial_path, output = (
                Path(folder) / name for name in ("job.json", "outcome.json", "output.txt")
            )
            write_json(job_path, {"job": job.to_dict(), "cores": slot.cores})
            with output.open("wb") as stream:
                process = self._start([*WORKER, str(job_path), str(trial_path)], job, slot, stream)
                if process is None:
                    return None
                code = process.wait()
            with self._lock:
                self._running.pop(job.name, None)
            if process.stdin:
                process.stdin.close()
            if trial_path.is_file():
                return Trial.from_dict(json.loads(trial_path.read_text(encoding="utf-8")))
            if self._closing:
                return None
            return job.failed(_exit_reason(code, output), seconds=time.perf_counter() - start)

    def _start(
        self, command: Sequence[str], job: Job, slot: Slot, stream: IO[bytes]
    ) -> subprocess.Popen[bytes] | None:
        with self._lock:  # so that `close` either sees the process or prevents its start
            if self._closing:
                return None
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **slot.environment},
                start_new_session=True,  # Ctrl-C reaches only the search, which then stops its jobs
            )
            self._running[job.name] = process
            return process


def _exit_reason(code: int, output: Path) -> str:
    """Why a process ended without a result, with the last line of its output."""
    lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = f"; last line of output: {lines[-1].strip()[:300]}" if lines else ""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = " (maybe out of memory)" if -code == signal.SIGKILL else ""
        return f"the process was killed by {name}{hint}{last}"
    return f"the process exited with code {code} and no result{last}"


# ------------------------------------------------------------------------------------------------------- Ray


class RayEngine:
    """Runs each job as a Ray task with a fixed number of cores and, on GPUs, a fixed fraction of a GPU.

    All machines of the cluster must share the file system of the data and of the search. Ray sets
    CUDA_VISIBLE_DEVICES. Its retries are disabled, since the search retries failed jobs.

    Args:
        jobs, device, address: see `create_engine`.
    """

    def __init__(self, *, jobs: int = 0, device: str = "auto", address: str = "") -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device must be cpu, cuda or auto, got {device!r}: Ray assigns GPUs to jobs")
        self._ray = _import_ray()
        self._started = not self._ray.is_initialized()
        if self._started:
            self._connect(address)
        total = self._ray.cluster_resources()
        cores, gpus = max(1, int(total.get("CPU", 1))), float(total.get("GPU", 0))
        if device == "cuda" and not gpus:
            raise UsageError("device: cuda is not available, the Ray cluster has no GPU; use cpu")
        on_gpu = device != "cpu" and gpus > 0
        num = jobs or (int(gpus) if on_gpu else min(2, cores))
        self.cores = max(1, cores // num)
        self.gpus = min(1.0, gpus / num) if on_gpu else 0.0
        self._task = self._ray.remote(num_cpus=self.cores, num_gpus=self.gpus, max_retries=0)(_task)

    def _connect(self, address: str) -> None:
        try:
            self._ray.init(address=address or None, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"Ray cannot be reached ({error_line(error)}); check the address") from error

    def run(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        """Yield one trial per job, see `Engine.run`."""
        device = "cuda" if self.gpus else "cpu"
        jobs = [
            replace(job, config=job.config.replace(threads=job.config.threads or self.cores, device=device))
            for job in jobs
        ]
        running = {self._task.remote(job.to_dict()): job for job in jobs}
        try:
            while running:
                done, _ = self._ray.wait(list(running), num_returns=1)
                for reference in done:
                    job = running.pop(reference)
                    yield self._trial(job, reference)
        finally:
            for reference in running:
                self._ray.cancel(reference)  # raises KeyboardInterrupt: the training saves a checkpoint
            if running:
                self._ray.wait(list(running), num_returns=len(running), timeout=60)

    def close(self) -> None:
        """Disconnect from the cluster, unless the caller was already connected."""
        if self._started:
            self._ray.shutdown()

    def _trial(self, job: Job, reference: Any) -> Trial:
        try:
            trial = Trial.from_dict(self._ray.get(reference))
        except Exception as error:  # the task's machine or process died
            return job.failed(error_line(error))
        if trial.status == "done" and not Path(trial.run_dir).is_dir():
            reason = f"run folder {trial.run_dir} does not exist on this machine; put --out on shared storage"
            return job.failed(reason, seconds=trial.seconds)
        return trial


def _task(job: dict[str, Any]) -> dict[str, Any]:
    return asdict(run_job(Job.from_dict(job)))


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        if sys.modules.get("ray") is None and error.name not in (None, "ray"):
            raise UsageError(f"engine: Ray is installed but cannot be imported ({error})") from error
        raise UsageError(
            "engine: ray needs the extra `ray`: pip install 'saccade[ray]'; or use the engine process"
        ) from error
    return ray
