"""Commands of ``saccade`` in a session of processes of their own, which can be killed together; and the
results that must be the same however often a command was killed and resumed.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.cli import main as saccade_command
from saccade.models import read_weights
from saccade.runs import Run

_MEASURED = {"clips_per_s", "data_wait", "time", "seconds", "eta", "wall_s"}
_OF_THE_MACHINE = ("seconds", "_per_s", "latency", "time")


class Command:
    """A running command, the leader of its process group; stdout and stderr go to ``log``."""

    def __init__(self, args: list[str], log: Path) -> None:
        self.began, self._log, self.code = time.monotonic(), log, None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            code = saccade_command(args)
            sys.stdout.flush()
        finally:
            os._exit(code)

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def wait(self, seconds: float) -> bool:
        """Whether it ends within ``seconds``; ``code`` is then its exit code, negative for a signal."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                return True
            time.sleep(0.01)
        return False

    def kill(self) -> None:
        """End it and all its workers with SIGKILL."""
        for pid in [*self.workers(), self.pid]:
            _kill(pid)
        _kill(-self.pid)
        self.wait(10)

    def workers(self) -> list[int]:
        """The processes below it."""
        parents: dict[int, int] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                parents[int(entry)] = int(fields[1])
        found, added = {self.pid}, True
        while added:
            new = {pid for pid, parent in parents.items() if parent in found} - found
            found, added = found | new, bool(new)
        return sorted(found - {self.pid})


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def run_results(folder: Path) -> dict[str, Any]:
    """What a finished run measured and learned, without what depends on the speed of the machine."""
    run = Run(folder)
    rows, damaged = run.metrics()
    weights, _ = read_weights(run.best)
    last = torch.load(run.last, map_location="cpu", weights_only=True)
    scores = np.load(run.val_scores, allow_pickle=False)
    return {
        "metrics": [_lasting(row) for row in rows],
        "damaged": damaged,
        "best": {key: value.numpy().tobytes() for key, value in weights.items()},
        "last": {key: value.numpy().tobytes() for key, value in last["model"].items()},
        "scores": {key: scores[key].tobytes() for key in scores.files if scores[key].dtype.kind in "fiu"},
        "test": _lasting(run.test),
    }


def search_results(folder: Path) -> list[Any]:
    """The records of a search's journal without times."""
    lines = (folder / "expansion.jsonl").read_text().splitlines()
    return sorted(
        json.dumps(_lasting(record)) for line in lines if (record := json.loads(line))["kind"] != "search"
    )


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _lasting(entry)
            for key, entry in value.items()
            if key not in _MEASURED and not any(word in key for word in _OF_THE_MACHINE)
        }
    return [_lasting(entry) for entry in value] if isinstance(value, list) else value


def differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The names of the results that differ."""
    return ", ".join(key for key in one if one[key] != other[key])
