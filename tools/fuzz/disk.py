"""A disk that fills up: one line, the last good state whole, and the run goes on when there is room again."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tools.fuzz import children, tiny
from tools.fuzz.commands import Command, differences, run_results
from tools.fuzz.part import LOADED, REFUSED, judge_command

from saccade.runs import Run
from saccade.training.checkpoint import load_checkpoint

_GOOD = {
    "one line, then equal": "an error of one line, whole files, and the resumed run is the undisturbed one",
    "enough room": "the command succeeded within the room it had",
    "lines whole": "predict --jsonl: an error of one line, and every line before it whole but the last",
}
_WAIT = 1200.0


class Cases:
    """A training or a prediction on a small file system (as root), or with a limit on the size of a file."""

    good = _GOOD

    def __init__(self, folder: Path) -> None:
        self._folder, self._seeds = folder, tiny.make_seeds(folder)
        command = Command(self._arguments(self._seeds / "train"), self._seeds / "train.log")
        command.wait(_WAIT)
        assert command.code == 0, command.said[-500:]
        files = [path for path in (self._seeds / "train").iterdir() if path.is_file()]
        self._size = sum(path.stat().st_size for path in files)
        self._largest = max(path.stat().st_size for path in files)
        probe = folder / "probe"
        probe.mkdir(exist_ok=True)
        self._mounts = _mount(probe, 1 << 20)
        if self._mounts:
            _unmount(probe)
        print("file systems of limited size" if self._mounts else "limits on the size of a file", flush=True)

    def _arguments(self, out: Path) -> list[str]:
        command = tiny.train_command(self._seeds / "clips", out, epochs=2, views="1x1")
        return [*command, "--save-minutes", "0.001"]

    def describe(self, case: int) -> dict[str, Any]:
        rng = random.Random(case)
        kind = rng.choices(("train", "predict"), (4, 1))[0]
        most = 2.2 * self._size if self._mounts else 1.1 * self._largest
        room = int(rng.uniform(0.01, 1) * (most if kind == "train" else 6000))
        return {"kind": kind, "room": room // 4096 * 4096 + 4096}

    def keep(self, case: int) -> None:
        """Nothing is kept: the room of a case says all about it."""

    def run(self, case: int) -> dict[str, Any]:
        """Run the command of a case with little room, then with enough."""
        plan, place = self.describe(case), self._folder / f"case_{case}"
        place.mkdir()
        if self._mounts and not _mount(place, plan["room"]):
            return {**plan, "outcome": "cannot mount"}
        try:
            found = self._predict(plan, place) if plan["kind"] == "predict" else self._train(plan, place)
        finally:
            if self._mounts:
                _unmount(place)
            shutil.rmtree(place, ignore_errors=True)
        return {**plan, **found}

    def _limited(self, args: list[str], room: int) -> Command:
        log = self._folder / f"{os.getpid()}.log"
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if not self._mounts:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        command = Command(args, log)
        if not self._mounts:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        command.wait(_WAIT)
        return command

    def _train(self, plan: dict[str, Any], place: Path) -> dict[str, Any]:
        out = place / "run"
        children.stage("train", 60)
        command = self._limited(self._arguments(out), plan["room"])
        outcome = judge_command(command.code if command.code is not None else -1, command.said)
        if outcome not in (LOADED, REFUSED):
            return {"outcome": outcome, "detail": command.said[-600:]}
        run = Run(out)
        if run.last.is_file():
            load_checkpoint(run.last)
        if run.best.is_file():
            run.weights_metadata()
        left = [path.name for path in out.iterdir() if path.name.startswith(".")] if out.is_dir() else []
        if left:
            return {"outcome": "temporary files left", "detail": left}
        if outcome == REFUSED:
            children.stage("resumed", 60)
            if self._mounts:
                subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            again = Command([*self._arguments(out), *tiny.to_go_on(out)], self._folder / f"{os.getpid()}.log")
            again.wait(_WAIT)
            if again.code != 0:
                return {"outcome": f"resumed, exit code {again.code}", "detail": again.said[-600:]}
        differing = differences(run_results(self._seeds / "train"), run_results(out))
        if differing:
            return {"outcome": "results differ", "detail": differing}
        return {"outcome": "one line, then equal" if outcome == REFUSED else "enough room"}

    def _predict(self, plan: dict[str, Any], place: Path) -> dict[str, Any]:
        out = place / "out.jsonl"
        children.stage("predict", 60)
        videos, run = str(self._seeds / "clips"), str(self._seeds / "train")
        command = self._limited(
            ["predict", videos, "--run", run, "--jsonl", str(out), "--workers", "0"], plan["room"]
        )
        outcome = judge_command(command.code if command.code is not None else -1, command.said)
        if outcome not in (LOADED, REFUSED):
            return {"outcome": outcome, "detail": command.said[-600:]}
        for line in out.read_text().splitlines()[:-1] if out.exists() else ():
            json.loads(line)
        return {"outcome": "lines whole" if outcome == REFUSED else "enough room"}


def _mount(place: Path, size: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "saccade-fuzz", str(place)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _unmount(place: Path) -> None:
    subprocess.run(["umount", "-l", str(place)], capture_output=True)
