"""Where the candidates of a search train: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal, get_args

from saccade.errors import UsageError
from saccade.expansion.types import Engine, Job, Outcome
from saccade.files import write_json

EngineName = Literal["process", "ray"]
WORKER = (sys.executable, "-m", "saccade.expansion.worker")
GRACE_SECONDS = 60.0
"""How long a job may take to save itself when it is told to stop."""


@dataclass(frozen=True)
class Share:
    """The part of a machine that one job has: CPU cores by number, and a GPU by its CUDA_VISIBLE_DEVICES."""

    cores: tuple[int, ...]
    gpu: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables that must be set before torch is imported."""
        threads = {name: str(len(self.cores)) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        return threads | ({} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu})


def shares(num: int, cores: Sequence[int], gpus: Sequence[str] = ()) -> list[Share]:
    """Divide cores, and GPUs if there are some, among ``num`` jobs as evenly as they come.

    Neighbouring cores stay together. With fewer cores (GPUs) than jobs several jobs share one.
    """
    if num <= len(cores):
        bounds = [round(i * len(cores) / num) for i in range(num + 1)]
        parts = [tuple(cores[bounds[i] : bounds[i + 1]]) for i in range(num)]
    else:
        parts = [(cores[i % len(cores)],) for i in range(num)]
    return [Share(part, gpus[i % len(gpus)] if gpus else None) for i, part in enumerate(parts)]


def create_engine(name: str, *, jobs: int = 0, device: str = "auto", address: str = "") -> Engine:
    """The engine of that name.

    Args:
        jobs: how many train at a time; 0: one a GPU, or two on a CPU with at least two cores. On Ray the
            cluster's cores are divided likewise.
        device: ``cpu``, ``cuda`` or ``auto``, which takes GPUs where there are some.
        address: of the Ray cluster; empty: the one this machine belongs to, or a new one on it.

    Raises:
        UsageError: no such engine, or what it needs is missing.
    """
    if name not in get_args(EngineName):
        raise UsageError(f"engine: {name!r} is unknown; choose {' or '.join(get_args(EngineName))}")
    if jobs < 0:
        raise UsageError(f"jobs: must be at least 1, or 0 for the engine's choice, got {jobs}")
    if name == "ray":
        from saccade.expansion.ray_engine import RayEngine

        return RayEngine(jobs=jobs, device=device, address=address)
    cores, gpus = available_cores(), visible_gpus() if wants_gpu(device) else []
    return ProcessEngine(shares(jobs or len(gpus) or min(2, len(cores)), cores, gpus))


def available_cores() -> list[int]:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def visible_gpus() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them."""
    import torch

    listed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return listed[: torch.cuda.device_count()] or [str(i) for i in range(torch.cuda.device_count())]


def wants_gpu(device: str) -> bool:
    """Whether jobs train on GPUs.

    Raises:
        UsageError: a GPU is asked for and there is none, or one alone is: the engine deals them out.
    """
    import torch

    if device == "auto":
        return torch.cuda.is_available()
    if device not in ("cpu", "cuda"):
        raise UsageError(
            f"device: {device!r}; an engine deals the GPUs out itself: choose cpu, cuda or auto, and limit "
            "the GPUs with CUDA_VISIBLE_DEVICES"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: cuda was asked for and PyTorch finds no GPU here; choose cpu")
    return device == "cuda"


class ProcessEngine:
    """As many processes at a time as there are shares of the machine, each held to its share.

    The processes read standard input and stop when it ends: none outlives the search, however that ends.
    """

    def __init__(self, shares: Sequence[Share]) -> None:
        if not shares:
            raise UsageError("jobs: an engine needs at least one share of the machine")
        self.shares = tuple(shares)
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._closing = False

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """One outcome for each job, as they finish; see `Engine.run`."""
        waiting, outcomes = deque(jobs), queue.Queue[Outcome]()
        self._closing = False
        threads = [
            threading.Thread(target=self._serve, args=(share, waiting, outcomes), daemon=True)
            for share in self.shares[: len(jobs)]
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in jobs:
                yield outcomes.get()
        finally:
            self.close()
            for thread in threads:
                thread.join()

    def close(self) -> None:
        """End what is running: SIGTERM, time to save, and SIGKILL for what has not ended then."""
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

    def _serve(self, share: Share, waiting: deque[Job], outcomes: queue.Queue[Outcome]) -> None:
        """Run jobs on one share until none is left."""
        while not self._closing:
            try:
                job = waiting.popleft()
            except IndexError:
                return
            start = time.perf_counter()
            try:
                outcome = self._run(job, share)
            except Exception as error:  # of starting a process: no memory, no disk space
                seconds = time.perf_counter() - start
                outcome = Outcome.of_failure(job, f"could not be started: {error}", seconds=seconds)
            if outcome is not None:
                outcomes.put(outcome)

    def _run(self, job: Job, share: Share) -> Outcome | None:
        """The outcome of a job in a process of its own; None if it was stopped by `close`."""
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="saccade-job-") as folder:
            order, answer, said = (Path(folder) / name for name in ("job.json", "outcome.json", "said.txt"))
            write_json(order, {"job": _placed(job, share).to_dict(), "cores": share.cores})
            with said.open("wb") as stream:
                process = self._start([*WORKER, str(order), str(answer)], job, share, stream)
                if process is None:
                    return None
                code = process.wait()
            with self._lock:
                self._running.pop(job.name, None)
            if process.stdin:
                process.stdin.close()
            if answer.is_file():
                return Outcome.from_dict(_read(answer))
            if self._closing:
                return None
            return Outcome.of_failure(job, _cause(code, said), seconds=time.perf_counter() - start)

    def _start(
        self, command: Sequence[str], job: Job, share: Share, stream: IO[bytes]
    ) -> subprocess.Popen[bytes] | None:
        with self._lock:  # so that `close` either sees the process or keeps it from starting
            if self._closing:
                return None
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **share.environment},
                start_new_session=True,  # Ctrl-C is for the search, which then says what its jobs shall do
            )
            self._running[job.name] = process
            return process


def _placed(job: Job, share: Share) -> Job:
    """The job with the threads and the device of its share."""
    device = "cpu" if share.gpu is None else "cuda"
    return replace(job, config=job.config.replace(threads=len(share.cores), device=device))


def _read(path: Path) -> dict[str, object]:
    import json

    values: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _cause(code: int, said: Path) -> str:
    """Why a process ended without an outcome, with the last line it printed."""
    lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = f"; its last line was: {lines[-1].strip()[:300]}" if lines else ""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = " (often: the machine ran out of memory)" if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}{hint}{last}"
    return f"its process ended with exit code {code} and no outcome{last}"
