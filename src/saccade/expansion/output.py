"""What a search leaves: a recipe, weights, a summary and a report."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from saccade.errors import UsageError
from saccade.evaluation.pareto import pareto_front
from saccade.expansion.candidate import derive
from saccade.expansion.criterion import score_finished
from saccade.expansion.halving import savings
from saccade.expansion.journal import CANDIDATES, JOURNAL, flat, portable
from saccade.expansion.search import Kept, SearchResult
from saccade.expansion.types import SearchConfig
from saccade.files import atomic_path, write_json
from saccade.runs import BEST
from saccade.training.config import TrainConfig

logger = logging.getLogger(__name__)

RECIPE, SUMMARY, BEST_RUN = "recipe.json", "search.json", "best_run"
REPORT, PICTURE, FRONT = "report.html", "expansion", "pareto"


def found_recipe(search: SearchConfig, final: Kept) -> TrainConfig:
    """The network that was found, in the recipe the search began from, to be trained at full length."""
    base = search.base
    return derive(base, final.candidate.factors).replace(recipe=f"expanded_{Path(base.data).stem}", out="")


def clear(folder: Path) -> None:
    """Remove what an earlier search left in the folder, so that nothing there is not of the one to come."""
    pictures = (f"{name}.{kind}" for name in (PICTURE, FRONT) for kind in ("svg", "png"))
    for name in (JOURNAL, RECIPE, SUMMARY, BEST, REPORT, *pictures):
        (folder / name).unlink(missing_ok=True)
    _remove_run(folder / BEST_RUN)
    shutil.rmtree(folder / CANDIDATES, ignore_errors=True)


def write_result(search: SearchConfig, result: SearchResult) -> None:
    """recipe.json, search.json, best.safetensors and best_run, and the report; see docs/expansion.md."""
    folder, final = search.out, result.final
    write_json(folder / RECIPE, {"config": found_recipe(search, final).to_dict()})
    write_json(folder / SUMMARY, summary(search, result))
    if final.best.run_dir:
        _take_run(folder, Path(final.best.run_dir))
    _report(folder)


def summary(search: SearchConfig, result: SearchResult) -> dict[str, Any]:
    """The search in figures."""
    done = [outcome for outcome in result.outcomes if outcome.status == "done"]
    scores = score_finished(result.outcomes, search.epochs)
    if result.timed:
        scores = [replace(score, candidate=result.timed.of(score.candidate)) for score in scores]
        scores = [s for s in scores if getattr(s.candidate.complexity, search.cost) is not None]
    costs = [score.candidate.complexity.cost(search.cost) for score in scores]
    return {
        "targets": [asdict(target) for target in search.targets],
        "cost": search.cost,
        "criterion": search.criterion,
        "result": _kept(result.final, search.out),
        "way": [_kept(kept, search.out) for kept in result.way],
        "pareto_front": [
            {**flat(scores[i].candidate), "accuracy": scores[i].mean, "seeds": scores[i].seeds}
            for i in pareto_front(costs, [score.mean for score in scores])
        ],
        "trainings": len(done),
        "failed_attempts": len(result.outcomes) - len(done),
        "seconds": sum(outcome.seconds for outcome in result.outcomes),
        **({"halving": savings(result.outcomes, search.epochs).to_dict()} if search.halving else {}),
        **({"timed_in_turns": sorted(result.timed.latency_ms)} if result.timed else {}),
        "notes": list(result.notes),
    }


def _kept(kept: Kept, folder: Path) -> dict[str, Any]:
    score = kept.score
    return {
        **flat(kept.candidate),
        "accuracy": score.mean,
        "standard_error": score.error,
        "seeds": score.seeds,
        "run_dir": portable(kept.best.run_dir, folder),
    }


def _take_run(folder: Path, run: Path) -> None:
    """Copy the weights, and link the run; where links are not to be had it is copied."""
    if not (run / BEST).is_file():
        raise UsageError(f"{run}: has no {BEST} (the run that the search ended with); put its folder back")
    with atomic_path(folder / BEST) as path:
        shutil.copyfile(run / BEST, path)
    link = folder / BEST_RUN
    _remove_run(link)
    try:
        link.symlink_to(portable(str(run), folder), target_is_directory=True)
    except OSError:
        shutil.copytree(run, link)


def _remove_run(link: Path) -> None:
    if link.is_symlink():
        link.unlink()
    shutil.rmtree(link, ignore_errors=True)


def _report(folder: Path) -> None:
    try:
        from saccade.expansion.report import write_report

        write_report(folder)
    except (
        Exception
    ) as error:  # the result is written; a page must not turn a finished search into a failed one
        logger.warning(f"no report could be written: {error!r}")
