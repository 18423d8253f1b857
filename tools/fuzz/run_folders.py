"""Run folders and journals with one file damaged: they load, or there is one error of one line."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.fuzz import children, tiny
from tools.fuzz.mutations import mutate
from tools.fuzz.part import LOADED, REFUSED, call, command
from tools.fuzz.texts import damage_json, damage_text

from saccade.data import load_dataset
from saccade.expansion.journal import (
    JOURNAL,
    Journal,
    latencies_in,
    read_journal,
    result_in,
    settings_in,
    steps_in,
)
from saccade.inference.loading import load_for_inference
from saccade.runs import Run
from saccade.visualize.report import write_report

_GOOD = {
    LOADED: "all that was asked of the folder was answered",
    REFUSED: "an error of one line for at least one question",
}
_JOURNAL_OF_A_SEARCH = Path(__file__).parents[2] / "tests" / "expansion" / "journals" / "trained.jsonl"


class Cases:
    """A finished run, and one that stopped after the first of two epochs, each with one file damaged."""

    good = _GOOD

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        seeds = folder / "seeds"
        if not (seeds / "search").exists():
            shutil.rmtree(seeds, ignore_errors=True)
            list(children.run_cases([0], lambda _: _make_seeds(seeds), cpu_s=120, wall_s=600))
        self._clips = seeds / "clips"
        self._runs = [seeds / name for name in ("finished", "stopped", "search")]
        load_dataset(self._clips, "train")

    def _damage(self, case: int, folder: Path) -> list[str]:
        """Copy a folder to ``folder`` and damage a file in it; says what was done."""
        rng = random.Random(case)
        source = rng.choices(self._runs, (4, 3, 2))[0]
        shutil.copytree(source, folder, dirs_exist_ok=True)
        names = sorted(path.name for path in folder.iterdir() if path.name != "report.html")
        steps = [source.name]
        for _ in range(rng.choice((1, 1, 1, 2))):
            path = folder / rng.choice(names)
            steps.append(f"{path.name}: {_damage_file(path, rng)}")
        return steps

    def run(self, case: int) -> dict[str, Any]:
        """Ask the damaged folder everything that commands ask of it."""
        folder = self._folder / f"case_{case}"
        steps = self._damage(case, folder)
        rng = random.Random(case + 1)
        try:
            found = self._asked(folder, steps[0], rng)
        finally:
            shutil.rmtree(folder)
        failed = {name: answer for name, answer in found.items() if answer[0] not in (LOADED, REFUSED)}
        if failed:
            outcome, detail = f"{next(iter(failed.values()))[0]}", failed
        else:
            refused = {name: message for name, (kind, message) in found.items() if kind == REFUSED}
            outcome, detail = (REFUSED if refused else LOADED), refused
        return {"steps": steps, "outcome": outcome, "detail": json.dumps(detail)[-600:]}

    def _asked(self, folder: Path, kind: str, rng: random.Random) -> dict[str, tuple[str, str]]:
        questions: dict[str, Callable[[], Any]] = {}
        found = {}
        if kind == "search":
            questions["records"] = lambda: _read_search(folder)
            questions["journal"] = lambda: _open_journal(folder)
        else:
            run = Run(folder)
            for name in ("config", "num_steps", "best_score", "best_epoch", "best_metrics", "test"):
                questions[name] = lambda name=name: getattr(run, name)
            questions["metrics"] = run.metrics
            questions["model"] = lambda: load_for_inference(folder)
            if rng.random() < 0.2:
                questions["report"] = lambda: write_report(folder)
        for name, question in questions.items():
            children.stage(name)
            found[name] = call(question)
        if kind == "search":
            children.stage("expand --report")
            found["expand --report"] = command("expand", "--report", "--out", str(folder))
        elif rng.random() < 0.4:
            children.stage("predict")
            video = self._clips / "val" / "brightening" / "0.mp4"
            found["predict"] = command("predict", str(video), "--run", str(folder))
        elif rng.random() < 0.6:
            children.stage("train --resume", 60)
            arguments = tiny.train_command(self._clips, folder, views="1x1" if kind == "finished" else "")
            found["train --resume"] = command(*arguments, "--resume")
        return found

    def describe(self, case: int) -> dict[str, Any]:
        folder = self._folder / f"described_{case}"
        try:
            return {"steps": self._damage(case, folder)}
        finally:
            shutil.rmtree(folder)

    def keep(self, case: int) -> None:
        self._damage(case, self._folder / "failures" / str(case))


def _make_seeds(seeds: Path) -> dict[str, Any]:
    tiny.make_clips(seeds / "clips", per_class=4, num_val=2)
    finished = command(*tiny.train_command(seeds / "clips", seeds / "finished", views="1x1"))
    children.stage("stopped run", 120)
    _train_and_stop(seeds / "clips", seeds / "stopped")
    (seeds / "search").mkdir()
    shutil.copy(_JOURNAL_OF_A_SEARCH, seeds / "search" / JOURNAL)
    return {"outcome": finished}


def _train_and_stop(clips: Path, out: Path) -> None:
    """A run of two epochs that was interrupted after the first."""
    pid = os.fork()
    if pid == 0:
        try:
            from saccade.training.loop import Trainer

            save = Trainer.save

            def save_and_end(self: Any, *args: Any, **kwargs: Any) -> None:
                save(self, *args, **kwargs)
                if self.step > 0:
                    os._exit(0)

            Trainer.save = save_and_end  # type: ignore[method-assign]
            command(*tiny.train_command(clips, out))
        finally:
            os._exit(1)
    os.waitpid(pid, 0)


def _damage_file(path: Path, rng: random.Random) -> str:
    """Damage a file; JSON, lines and archives in a way of their own now and then."""
    if not path.is_file():
        return "already gone"
    kind = rng.choice(("bytes", "bytes", "content", "content", "content", "content", "whole"))
    if kind == "whole":
        return _replace_file(path, rng)
    data = path.read_bytes()
    if kind == "content" and path.suffix in (".json", ".jsonl", ".txt"):
        damage = damage_json if path.suffix == ".json" else damage_text
        text, step = damage(data.decode("utf-8", "replace"), rng)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        return step
    damaged, steps = mutate(data, path.suffix, rng)
    path.write_bytes(damaged)
    return "; ".join(steps)


def _replace_file(path: Path, rng: random.Random) -> str:
    path.unlink()
    kind = rng.choice(("missing", "empty", "a folder", "a dangling link", "zeros", "a page"))
    if kind == "empty":
        path.touch()
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a dangling link":
        path.symlink_to(path.parent / "nowhere")
    elif kind == "zeros":
        path.write_bytes(bytes(4096))
    elif kind == "a page":
        path.write_text("<!DOCTYPE html><html><body>404</body></html>")
    return kind


def _read_search(folder: Path) -> None:
    records = read_journal(folder)
    settings_in(records), steps_in(records), result_in(records), latencies_in(records)


def _open_journal(folder: Path) -> None:
    journal = Journal(folder)
    for step in range(1, 4):
        journal.candidates(step), journal.has_choice(step)
    journal.trials()
