"""The result of a search, and the files it writes: recipe, summary, weights and run."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from saccade.errors import UsageError
from saccade.evaluation.pareto import pareto_front
from saccade.expansion.candidate import Trial, derive
from saccade.expansion.config import SearchConfig
from saccade.expansion.counting import Latencies
from saccade.expansion.criterion import Scored, score_finished
from saccade.expansion.halving import savings
from saccade.expansion.journal import CANDIDATES, JOURNAL, candidate_record, relative_run_dir
from saccade.files import atomic_path, write_json
from saccade.runs import BEST, Run
from saccade.training.config import TrainConfig

RECIPE, SUMMARY, BEST_RUN = "recipe.json", "search.json", "best_run"
REPORT, PATH_PICTURE, FRONT_PICTURE = "report.html", "expansion", "pareto"


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The result of a search.

    Attributes:
        path: the selected networks in order; the last may be contracted.
        final: the most accurate network of the path that meets the targets, nearly always the last.
        trials: all trials, including failed ones.
        notes: remarks on the choices.
        latencies: latencies measured at the end of the search; None if not measured.
    """

    path: tuple[Scored, ...]
    final: Scored
    trials: tuple[Trial, ...]
    notes: tuple[str, ...]
    latencies: Latencies | None = None


def remove_search(folder: Path) -> None:
    """Remove the files of an earlier search from its folder."""
    pictures = (f"{name}.{kind}" for name in (PATH_PICTURE, FRONT_PICTURE) for kind in ("svg", "png"))
    for name in (JOURNAL, RECIPE, SUMMARY, BEST, REPORT, *pictures):
        (folder / name).unlink(missing_ok=True)
    _remove_run(folder / BEST_RUN)
    shutil.rmtree(folder / CANDIDATES, ignore_errors=True)


def write_result(search: SearchConfig, result: SearchResult) -> None:
    """Write recipe.json, search.json, best.safetensors and best_run; see docs/expansion.md."""
    write_json(search.out / RECIPE, {"config": result_recipe(search, result.final).to_dict()})
    write_json(search.out / SUMMARY, summary(search, result))
    if result.final.best.run_dir:
        _copy_run(search.out, Path(result.final.best.run_dir))


def result_recipe(search: SearchConfig, final: Scored) -> TrainConfig:
    """The search's base recipe with the network found, for training at full length."""
    base = search.base
    return derive(base, final.candidate.factors).replace(recipe=f"expanded_{Path(base.data).stem}", out="")


def summary(search: SearchConfig, result: SearchResult) -> dict[str, Any]:
    """The content of search.json."""
    trials, latencies = result.trials, result.latencies
    num_done = sum(trial.status == "done" for trial in trials)
    scored = score_finished(trials, search.epochs)
    if latencies:
        scored = [replace(one, candidate=latencies.apply_to(one.candidate)) for one in scored]
        scored = [s for s in scored if getattr(s.candidate.complexity, search.cost) is not None]
    costs = [one.candidate.complexity.cost(search.cost) for one in scored]
    front = [scored[i] for i in pareto_front(costs, [one.accuracy for one in scored])]
    return {
        "targets": [asdict(target) for target in search.targets],
        "cost": search.cost,
        "criterion": search.criterion,
        "result": _row(result.final, search.out),
        "way": [_row(one, search.out) for one in result.path],
        "pareto_front": [
            {**candidate_record(one.candidate), "accuracy": one.accuracy, "seeds": len(one.trials)}
            for one in front
        ],
        "trainings": num_done,
        "failed_attempts": len(trials) - num_done,
        "seconds": sum(trial.seconds for trial in trials),
        **({"halving": savings(trials, search.epochs)} if search.halving else {}),
        **({"timed_in_turns": sorted(latencies.latency_ms)} if latencies else {}),
        "notes": list(result.notes),
    }


def _row(one: Scored, folder: Path) -> dict[str, Any]:
    return {
        **candidate_record(one.candidate),
        "accuracy": one.accuracy,
        "standard_error": one.error,
        "seeds": len(one.trials),
        "run_dir": relative_run_dir(one.best.run_dir, folder),
    }


def _copy_run(folder: Path, run: Path) -> None:
    """Copy the weights, and link the run folder, or copy it if the file system has no links."""
    weights = Run(run).best
    if not weights.is_file():
        raise UsageError(f"{run}: {BEST} is missing; the search ended with this run, restore its folder")
    with atomic_path(folder / BEST) as path:
        shutil.copyfile(weights, path)
    link = folder / BEST_RUN
    _remove_run(link)
    try:
        link.symlink_to(relative_run_dir(str(run), folder), target_is_directory=True)
    except OSError:
        shutil.copytree(run, link)


def _remove_run(link: Path) -> None:
    if link.is_symlink():
        link.unlink()
    shutil.rmtree(link, ignore_errors=True)
