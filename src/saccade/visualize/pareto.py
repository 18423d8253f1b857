"""Accuracy and cost of trained runs, with a check that they are comparable."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from saccade.errors import DataError, UsageError
from saccade.evaluation import load_result
from saccade.evaluation.paired import compare_results, rows_by_video
from saccade.evaluation.pareto import pareto_front
from saccade.runs import Run
from saccade.tasks import Result
from saccade.tasks.statistics import normal_p_value
from saccade.visualize.frontier import Dot

logger = logging.getLogger(__name__)

COSTS = ("gmacs", "params", "latency_ms")
VALIDATION = "validation"
_BEST_RUN = "best_run"  # in the folder of a search
_SIGNIFICANT = 0.05
# Settings in which runs of the same network may differ.
_IGNORED_SETTINGS = frozenset(
    {
        "seed",
        "out",
        "data",
        "root",
        "val_data",
        "val_root",
        "workers",
        "threads",
        "device",
        "save_minutes",
        "log_every",
    }
    | {"tensorboard", "max_failures", "test_views", "cache_mb"}
)
_FAMILIES = {
    "x2d": "X3D",
    "x3d": "X3D",
    "vov3d": "VoV3D",
    "rubiksnet": "RubiksNet",
    "timesformer": "TimeSformer",
    "vivit": "ViViT",
    "mvit": "MViT",
    "mvitv2": "MViT",
    "maskfeat": "MaskFeat",
    "tsm": "TSM",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network, trained with one or several seeds.

    Attributes:
        folders: the run folders, one per seed.
        accuracy: mean of the main metric over the seeds, 0..1.
        spread: standard error of the accuracy, from the seeds and the number of videos; 0 if unknown.
        gmacs: GMACs per clip; nan if unknown.
        params: number of parameters.
        latency_ms: latency of one clip, if measured.
        at_chance: whether the 95 % interval of each run reaches down to chance (single-label).
        best_p_value: p-value that it is right as often as the most accurate network, on the same videos: by
            McNemar's exact test, of several seeds by the normal distribution of the paired difference; None
            for the most accurate one, and for other tasks.
    """

    name: str
    model: str
    folders: tuple[Path, ...]
    accuracy: float
    spread: float
    num_videos: int
    gmacs: float
    params: int
    latency_ms: float | None = None
    at_chance: bool = False
    best_p_value: float | None = None

    @property
    def like_best(self) -> bool:
        """Whether there is no evidence that it differs from the most accurate network."""
        return self.best_p_value is not None and self.best_p_value >= _SIGNIFICANT

    @property
    def family(self) -> str:
        """The model family, which selects the colour."""
        return _FAMILIES.get(self.model.split("_")[0], self.model)

    def cost(self, kind: str) -> float | None:
        """The cost in the unit of `frontier.COST_LABELS`; None if unknown."""
        value = {"gmacs": self.gmacs, "params": self.params / 1e6, "latency_ms": self.latency_ms}[kind]
        return None if value is None or not math.isfinite(value) or value <= 0 else value


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Networks tested with the same protocol.

    Attributes:
        protocol: views of the test, or ``validation`` and its views.
        figure: key of the main metric in `FIGURE_NAMES`.
        selected: runs whose weights were chosen by the best of several validations on the tested videos.
    """

    protocol: str
    figure: str
    entries: tuple[Entry, ...]
    selected: tuple[Path, ...] = ()

    def dots(self, cost: str) -> list[Dot]:
        """A dot for each network whose ``cost`` is known."""
        values = [(entry, entry.cost(cost)) for entry in self.entries]
        return [
            Dot(
                name=f"{e.name} (chance)" if e.at_chance else e.name,
                cost=value,
                accuracy=e.accuracy,
                spread=e.spread,
                group=e.family,
                ringed=e.like_best,
            )
            for e, value in values
            if value is not None
        ]

    def panels(self) -> list[tuple[str, list[Dot]]]:
        """The panels of `pareto_chart`: each cost that is known for any network."""
        return [(cost, self.dots(cost)) for cost in COSTS if self.dots(cost)]

    def front(self, cost: str) -> list[Entry]:
        """The networks on the Pareto front of this cost, cheapest first."""
        known = [entry for entry in self.entries if entry.cost(cost) is not None]
        return [
            known[i] for i in pareto_front([e.cost(cost) or 0.0 for e in known], [e.accuracy for e in known])
        ]


@dataclass(frozen=True)
class _Run:
    folder: Path
    config: dict[str, Any]
    results: dict[str, Result]  # by protocol


def find_runs(paths: Sequence[str | os.PathLike[str]]) -> tuple[list[Path], list[Path]]:
    """The run folders among ``paths``, without duplicates even through links, and the other paths.

    The folder of a search is replaced by its best run.

    Raises:
        UsageError: a path does not exist.
    """
    runs: dict[Path, Path] = {}
    others = []
    for path in map(Path, paths):
        if not path.exists():
            raise UsageError(f"{path}: no such run folder")
        folder = next((each for each in (path, path / _BEST_RUN) if Run(each).config_file.is_file()), None)
        if folder is None:
            others.append(path)
        else:
            runs.setdefault(folder.resolve(), folder)
    return list(runs.values()), others


def compare_runs(folders: Sequence[str | os.PathLike[str]], *, views: str = "") -> Comparison:
    """Compare run folders by the scores that training and ``saccade test`` saved in them.

    Runs that differ only in the seed are one network with a mean and a standard error; of several with the
    same seed the first counts, for they are no independent samples. The folder of a search
    is replaced by its best run.

    Args:
        views: the view set to compare by, or ``validation``. Default: the largest that all runs were tested
            with, otherwise the validation of the weights that are kept.

    Raises:
        UsageError: not a run folder, a run without accuracy, or no common protocol.
        DataError: scores are damaged, or of different tasks or data sets.
    """
    run_folders, others = find_runs(folders)
    if others:
        raise UsageError(f"{others[0]}: is not a run folder (config.json is missing)")
    runs = [_read(folder) for folder in run_folders]
    protocol = _common_protocol(runs, views)
    results = [run.results[protocol] for run in runs]
    _check_comparable(runs, results)
    groups: dict[str, list[int]] = {}
    seeds: dict[tuple[str, Any], Path] = {}
    for index, run in enumerate(runs):
        key = _repetition_key(run)
        first = seeds.setdefault((key, run.config.get("seed")), run.folder)
        if first == run.folder:
            groups.setdefault(key, []).append(index)
        else:
            logger.warning("%s: skipped, the same training with the same seed as %s", run.folder, first)
    names = _entry_names([[runs[i] for i in members] for members in groups.values()])
    entries = [
        _entry(name, [runs[i] for i in members], [results[i] for i in members])
        for name, members in zip(names, groups.values(), strict=True)
    ]
    entries = _against_best(entries, [[results[i] for i in members] for members in groups.values()])
    selected = [run.folder for run, result in zip(runs, results, strict=True) if result.num_validations > 1]
    return Comparison(
        protocol=protocol,
        figure=results[0].score_name,
        entries=tuple(entries),
        selected=tuple(selected),
    )


def with_latency(comparison: Comparison, *, device: str = "cpu", runs: int = 10) -> Comparison:
    """Add the median latency of one clip on this machine, timing the networks in turns.

    Raises:
        UsageError: a folder has no weights.
    """
    from saccade.evaluation.speed import Stopwatch, random_clips, take_turns
    from saccade.models import load_model

    stopwatches = []
    for entry in comparison.entries:
        folder = entry.folders[0]
        weights = Run(folder).best
        if not weights.is_file():
            raise UsageError(f"{folder}: {weights.name} is missing, so the latency cannot be measured")
        clip = _config(folder)["clip"]
        clips = random_clips(1, int(clip["num_frames"]), int(clip["crop"]), device)
        stopwatches.append(Stopwatch(load_model(weights)[0].to(device), clips, "forward"))
    speeds = take_turns(stopwatches, runs)
    timed = [
        replace(entry, latency_ms=1000 * speed.median)
        for entry, speed in zip(comparison.entries, speeds, strict=True)
    ]
    return replace(comparison, entries=tuple(timed))


def to_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row of plain values for each network, with the costs for which it is on the Pareto front."""
    fronts = {cost: comparison.front(cost) for cost in COSTS}
    return [
        {
            **asdict(entry),
            "folders": [str(folder) for folder in entry.folders],
            "gmacs": entry.cost("gmacs"),
            "family": entry.family,
            "front": [cost for cost in COSTS if entry in fronts[cost]],
        }
        for entry in comparison.entries
    ]


# --------------------------------------------------------------------------------------------------- reading


def _read(folder: Path) -> _Run:
    config = _config(folder)
    results = _tests(folder)
    validation = _validation(Run(folder))
    if validation is not None:
        results[f"{VALIDATION} {validation.views}"] = validation
    if not results:
        raise UsageError(
            f"{folder}: was neither validated nor tested; try saccade test {folder} --views 10x1"
        )
    return _Run(folder, config, results)


def _validation(run: Run) -> Result | None:
    """The validation of the weights that are kept. Of a run of an older version only the last one is left."""
    if not run.val_scores.is_file():
        return None
    if run.best_val_scores.is_file():
        return replace(load_result(run.best_val_scores), num_validations=run.num_validations)
    steps = [row["step"] for row in run.metrics()[0] if "val_loss" in row]
    if steps and run.best_metrics.get("step", steps[-1]) != steps[-1]:
        logger.warning(
            "%s: its figure is that of the last validation, not of the weights that are kept; test it: "
            "saccade test %s",
            run.folder,
            run.folder,
        )
    return replace(load_result(run.val_scores), num_validations=run.num_validations)


def _tests(folder: Path) -> dict[str, Result]:
    """Results by protocol, of the final test in training and of ``saccade test``, which takes precedence. The
    protocol names the split if it is not the validation split.
    """
    results = {}
    run = Run(folder)
    later = run.later_test_scores()
    for path in [*run.all_test_scores(), *later]:
        result = load_result(path)
        split = path.name.partition("_scores_")[0] if path in later else "val"
        if not result.shuffled:  # a control experiment
            results[result.views if split == "val" else f"{result.views} of {split}"] = result
    return results


def _config(folder: Path) -> dict[str, Any]:
    run = Run(folder)
    try:
        config = run.settings
        str(config["model"]["name"])
        int(config["clip"]["num_frames"])
    except (UsageError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run.config_file}: invalid config of a run ({error!r})") from error
    return config


def _common_protocol(runs: Sequence[_Run], views: str) -> str:
    if views == VALIDATION:
        common = [name for name in runs[0].results if name.startswith(VALIDATION)]
    elif views:
        common = [views]
    else:
        common = sorted(
            runs[0].results, key=lambda name: (name.startswith(VALIDATION), -_num_views(runs[0], name))
        )
    for protocol in common:
        if all(protocol in run.results for run in runs):
            return protocol
    tested = "; ".join(f"{run.folder}: {', '.join(run.results)}" for run in runs)
    how = f"with {views}" if views else "with the same views"
    raise UsageError(
        f"not all runs were tested {how} ({tested}); test them, e.g. saccade test RUN --views 10x1, "
        "or choose a common view set with --views"
    )


def _num_views(run: _Run, name: str) -> float:
    return run.results[name].num_views


def _check_comparable(runs: Sequence[_Run], results: Sequence[Result]) -> None:
    """Raise `DataError` if task, classes or videos differ."""
    first, first_folder = results[0], runs[0].folder
    videos = _videos(first)
    for run, result in zip(runs, results, strict=True):
        difference = ""
        if (result.task, result.score_name) != (first.task, first.score_name):
            difference = f"{run.folder} is of the task {result.task}, {first_folder} of {first.task}"
        elif result.class_names != first.class_names:
            difference = f"{run.folder} has other classes than {first_folder}"
        elif result.num_videos != first.num_videos:
            numbers = f"{result.num_videos} videos, {first_folder} on {first.num_videos}"
            difference = f"{run.folder} was tested on {numbers}"
        elif _videos(result) != videos:
            difference = f"{run.folder} was tested on other videos than {first_folder}"
        if difference:
            raise DataError(f"accuracies cannot be compared: {difference}")


def _videos(result: Result) -> set[tuple[str, ...]]:
    """Folder and name of each file, since the data set may be in another location."""
    return {Path(path).parts[-2:] for path in [*result.paths, *(f.path for f in result.failures)]}


# -------------------------------------------------------------------------------------------------- entries


def _repetition_key(run: _Run) -> str:
    return json.dumps({k: v for k, v in run.config.items() if k not in _IGNORED_SETTINGS}, sort_keys=True)


def _entry(name: str, runs: Sequence[_Run], results: Sequence[Result]) -> Entry:
    scores = [result.score for result in results]
    mean, num_videos = fmean(scores), results[0].num_videos
    error = variance(scores) / len(scores) if len(scores) > 1 else 0.0
    error += _error_over_videos(results) ** 2
    return Entry(
        name=name,
        model=runs[0].config["model"]["name"],
        folders=tuple(run.folder for run in runs),
        accuracy=mean,
        spread=math.sqrt(error),
        num_videos=num_videos,
        gmacs=results[0].gmacs_per_view,
        params=results[0].num_params,
    )


def _against_best(entries: Sequence[Entry], results: Sequence[Sequence[Result]]) -> list[Entry]:
    """The entries with what can be said of right videos: chance, and the difference from the best."""
    if any(each.right is None for group in results for each in group):
        return list(entries)
    best = max(range(len(entries)), key=lambda i: entries[i].accuracy)
    return [
        replace(
            entry,
            at_chance=all(each.accuracy is not None and each.accuracy.is_chance for each in group),
            best_p_value=None if entry is entries[best] else _p_value(results[best], group),
        )
        for entry, group in zip(entries, results, strict=True)
    ]


def _p_value(first: Sequence[Any], second: Sequence[Any]) -> float:
    """The p-value that two networks are right equally often, on the same videos."""
    if len(first) == len(second) == 1:
        return compare_results(first[0], second[0]).p_value
    a, b = (_right_by_video(results) for results in (first, second))
    return normal_p_value([a[video] - b[video] for video in a.keys() & b.keys()])


def _right_by_video(results: Sequence[Any]) -> dict[tuple[Any, ...], float]:
    """The fraction of the seeds that is right about each video."""
    each = [rows_by_video(result) for result in results]
    return {
        video: fmean(float(result.right[rows[video]]) for result, rows in zip(results, each, strict=True))
        for video in each[0]
    }


def _error_over_videos(results: Sequence[Result]) -> float:
    """Standard error of the mean score due to the number of videos; 0 if unknown."""
    error = type(results[0]).error_of_mean(results)
    return error if math.isfinite(error) else 0.0


def _entry_names(groups: Sequence[Sequence[_Run]]) -> list[str]:
    """A unique name for each network: the name of its folder, or of its recipe if it has several seeds."""
    folders = [group[0].folder for group in groups]  # of a search's best run, that of the search
    folders = [(f.parent if f.name == _BEST_RUN else f).resolve() for f in folders]
    names = [
        f"{group[0].config.get('recipe')} ({len(group)} seeds)" if len(group) > 1 else folder.name
        for group, folder in zip(groups, folders, strict=True)
    ]
    return [
        "/".join(folder.parts[-2:]) if names.count(name) > 1 else name
        for name, folder in zip(names, folders, strict=True)
    ]
