"""SIGKILL at random moments of train, predict and expand: what is resumed ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from tools.fuzz import children, tiny
from tools.fuzz.commands import Command, differences, run_results, search_results

_GOOD = {
    "resumed, equal": "killed once or twice, resumed, and the results are those of the undisturbed command",
    "ended before": "the command was done before its moment came, and its results are the same",
    "worker lost, equal": "one worker killed: one line that says so; resumed, the results are the same",
    "lines whole": "predict --jsonl: every line is whole, and they are the first of the undisturbed ones",
}
_WAIT = 1200.0
_SEARCH = ["expand", "--replay", "figure2", "--target-gmacs", "0.05", "--axes", "bottleneck,depth"]


class Cases:
    """A command, the moments at which it is killed, and whether all of it or one worker is."""

    good = _GOOD

    def __init__(self, folder: Path) -> None:
        self._folder, self._seeds = folder, tiny.make_seeds(folder)
        self._seconds: dict[str, float] = {}
        for kind in ("train", "train with workers", "predict", "expand"):
            command = Command(self._arguments(kind, self._seeds / kind), self._seeds / f"{kind}.log")
            command.wait(_WAIT)
            assert command.code == 0, (kind, command.code, command.said[-500:])
            self._seconds[kind] = time.monotonic() - command.began
        print(
            "undisturbed:", {kind: f"{seconds:.1f} s" for kind, seconds in self._seconds.items()}, flush=True
        )

    def _arguments(self, kind: str, out: Path) -> list[str]:
        if kind == "predict":
            run, videos = self._seeds / "train", self._seeds / "clips"
            return ["predict", str(videos), "--run", str(run), "--jsonl", str(out), "--workers", "1"]
        if kind == "expand":
            return [*_SEARCH, "--out", str(out)]
        workers = 1 if kind == "train with workers" else 0
        command = tiny.train_command(self._seeds / "clips", out, epochs=3, workers=workers, views="1x1")
        return [*command, "--save-minutes", "0.001"]

    def describe(self, case: int) -> dict[str, Any]:
        rng = random.Random(case)
        kind = rng.choices(list(self._seconds), (5, 3, 4, 2))[0]
        return {"kind": kind, "at": [round(rng.random(), 3) for _ in range(rng.choice((1, 1, 2)))]}

    def keep(self, case: int) -> None:
        """The folder of a failing case stays; see `run`."""

    def run(self, case: int) -> dict[str, Any]:
        """Start the command of a case, kill it, finish it, and compare."""
        plan = self.describe(case)
        kind, out = plan["kind"], self._folder / f"case_{case}"
        found = {**plan, **(self._predict(plan, out) if kind == "predict" else self._resumed(plan, out))}
        if found["outcome"] in self.good:
            if out.is_file():
                out.unlink()
            shutil.rmtree(out, ignore_errors=True)
            out.with_suffix(".log").unlink(missing_ok=True)
        return found

    def _predict(self, plan: dict[str, Any], out: Path) -> dict[str, Any]:
        children.stage("predict")
        command = Command(self._arguments("predict", out), out.with_suffix(".log"))
        ended = command.wait(plan["at"][0] * self._seconds["predict"])
        command.kill()
        whole = (self._seeds / "predict").read_text()
        given = out.read_text() if out.exists() else ""
        if given and not given.endswith("\n"):
            return {"outcome": "half a line", "detail": given[-200:]}
        lines = [json.loads(line) for line in given.splitlines()]
        expected = [json.loads(line) for line in whole.splitlines()]
        if lines != expected[: len(lines)]:
            return {"outcome": "other lines", "detail": given[-400:]}
        return {"outcome": "ended before" if ended else "lines whole", "lines": len(lines)}

    def _resumed(self, plan: dict[str, Any], out: Path) -> dict[str, Any]:
        kind, log, killed, lost = plan["kind"], out.with_suffix(".log"), 0, ""
        rng = random.Random(str(plan))
        for moment in plan["at"]:
            children.stage(f"{kind} until {moment}")
            command = Command(self._again(kind, out), log)
            if command.wait(moment * self._seconds[kind]):
                break
            workers = command.workers()
            if kind == "train with workers" and workers and rng.random() < 0.5:
                children.stage("one worker killed")
                lost = self._kill_worker(command, workers[-1])
                if lost and lost != "done":
                    return {"outcome": lost, "detail": command.said[-600:]}
            else:
                command.kill()
                killed += 1
        children.stage("resumed")
        command = Command(self._again(kind, out), log)
        if not command.wait(_WAIT):
            command.kill()
            return {"outcome": "hang after resume", "detail": command.said[-600:]}
        finished = "already" in command.said or "nothing to" in command.said
        if command.code != 0 and not (kind == "expand" and finished):
            return {"outcome": f"resumed, exit code {command.code}", "detail": command.said[-600:]}
        if kind == "expand":
            same = search_results(out) == search_results(self._seeds / kind)
            differing = "" if same else "journal"
        else:
            differing = differences(run_results(self._seeds / kind), run_results(out))
        if differing:
            return {"outcome": "results differ", "detail": differing}
        outcome = "worker lost, equal" if lost else "resumed, equal" if killed else "ended before"
        return {"outcome": outcome}

    def _kill_worker(self, command: Command, worker: int) -> str:
        try:
            os.kill(worker, signal.SIGKILL)
        except ProcessLookupError:
            return "done"
        if not command.wait(_WAIT):
            command.kill()
            return "hang after a worker was killed"
        errors = [line for line in command.said.splitlines() if line.startswith("saccade: error:")]
        if command.code != 0 and (len(errors) != 1 or "Traceback" in command.said):
            return f"worker killed: exit code {command.code} with {len(errors)} error lines"
        return "done"

    def _again(self, kind: str, out: Path) -> list[str]:
        """The command to start with, or to go on with what is in the folder."""
        if kind == "expand":
            begun = (out / "expansion.jsonl").exists() and (out / "expansion.jsonl").stat().st_size > 0
            return [*_SEARCH[:3], "--resume", "--out", str(out)] if begun else self._arguments(kind, out)
        return [*self._arguments(kind, out), *tiny.to_go_on(out)]
