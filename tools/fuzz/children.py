"""Each case in a forked child with limits of time and memory, so that a crash or a hang is a result.

The parent imports all that the cases need, once, and stays single-threaded.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

Work = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        case: its number.
        ended: ``done``, ``exception`` (one that nothing caught), ``crash`` (a signal), or ``hang`` (more than
            the limit of processor time, or of ``wall_s``).
        result: what the case returned, if it is done.
        stage: what it was doing last.
        detail: the signal, or the end of the traceback, and what was written to stderr.
        seconds: from start to end.
    """

    case: int
    ended: str
    result: dict[str, Any]
    stage: str
    detail: str
    seconds: float


_pipe = -1
_cpu_s = 10


def stage(name: str, cpu_s: int | None = None) -> None:
    """Called in a case: names what it does next, for which it has ``cpu_s`` seconds of processor time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime) + 1 + (cpu_s or _cpu_s)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    if _pipe >= 0:
        os.write(_pipe, json.dumps({"stage": name}).encode() + b"\n")


@dataclass
class _Child:
    case: int
    pid: int
    pipe: int
    stderr: BinaryIO
    began: float
    received: bytearray = field(default_factory=bytearray)


def run_cases(
    cases: Iterable[int],
    work: Work,
    *,
    jobs: int = 1,
    cpu_s: int = 10,
    wall_s: float = 600,
    memory: int = 1 << 30,
) -> Iterator[Outcome]:
    """Run ``work(case)`` for each case in a child of its own, ``jobs`` at a time; outcomes as they come.

    Args:
        cpu_s: seconds of processor time for each stage of a case.
        wall_s: seconds for a whole case, whatever it waits for.
        memory: bytes of address space beyond what the parent has.
    """
    gc.collect()
    gc.freeze()
    limit = _address_space() + memory
    waiting = iter(cases)
    running: dict[int, _Child] = {}
    try:
        while True:
            while len(running) < jobs and (case := next(waiting, None)) is not None:
                child = _start(case, work, cpu_s, limit)
                running[child.pipe] = child
            if not running:
                return
            ready, _, _ = select.select(list(running), [], [], 1.0)
            for pipe in ready:
                data = os.read(pipe, 1 << 16)
                running[pipe].received += data
                if not data:
                    yield _ended(running.pop(pipe))
            for child in list(running.values()):
                if time.monotonic() - child.began > wall_s:
                    os.kill(child.pid, signal.SIGKILL)
    finally:
        for child in running.values():
            os.kill(child.pid, signal.SIGKILL)
            _ended(child)


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _start(case: int, work: Work, cpu_s: int, limit: int) -> _Child:
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the child has ended)
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return _Child(case, pid, reading, stderr, time.monotonic())
    code = 1
    try:
        os.close(reading)
        os.dup2(stderr.fileno(), 2)
        faulthandler.enable(stderr)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        global _pipe, _cpu_s
        _pipe, _cpu_s = writing, cpu_s
        stage("start")
        try:
            message = {"result": work(case)}
        except BaseException:
            message = {"exception": traceback.format_exc()[-1500:]}
        _write(writing, json.dumps(message).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _write(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]


def _ended(child: _Child) -> Outcome:
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    seconds = time.monotonic() - child.began
    child.stderr.seek(0)
    said = child.stderr.read()[-2000:].decode(errors="replace")
    child.stderr.close()
    messages = [json.loads(line) for line in child.received.splitlines() if line.endswith(b"}")]
    last = next((m["stage"] for m in reversed(messages) if "stage" in m), "")
    result = next((m["result"] for m in messages if "result" in m), None)
    exception = next((m["exception"] for m in messages if "exception" in m), None)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        ended = "hang" if number in (signal.SIGXCPU, signal.SIGKILL) else "crash"
        return Outcome(child.case, ended, {}, last, f"{signal.Signals(number).name} {said}".strip(), seconds)
    if exception is not None:
        return Outcome(child.case, "exception", {}, last, exception, seconds)
    if result is None:
        detail = f"exit code {os.WEXITSTATUS(status)} {said}"
        return Outcome(child.case, "crash", {}, last, detail, seconds)
    return Outcome(child.case, "done", result, last, said, seconds)
