"""Accuracy and cost of trained runs, checked to be comparable."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from saccade.errors import DataError, UsageError
from saccade.evaluation import load_result
from saccade.evaluation.pareto import pareto_front
from saccade.runs import Run
from saccade.tasks import Result
from saccade.visualize.frontier import Dot

COSTS = ("gmacs", "params", "latency_ms")
VALIDATION = "validation"
_FOUND = "best_run"  # in the folder of a search: the run that it found
# Settings in which two runs of one network may differ and still be repetitions of it.
_OF_A_REPETITION = frozenset(
    {"seed", "out", "data", "root", "workers", "threads", "device", "save_minutes", "log_every"}
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
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One network, trained once or with several seeds.

    Attributes:
        folders: its run folders.
        accuracy: mean over them of the headline figure, in 0..1.
        spread: standard error of the accuracy, from the seeds and the videos; 0 where neither is known.
        gmacs: per clip, nan if unknown; params: number of parameters; latency_ms: of one clip, if measured.
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

    @property
    def family(self) -> str:
        """Models that have a colour of their own."""
        return _FAMILIES.get(self.model.split("_")[0], self.model)

    def cost(self, kind: str) -> float | None:
        """In the unit of `frontier.COST_LABELS`; None if it is unknown."""
        value = {"gmacs": self.gmacs, "params": self.params / 1e6, "latency_ms": self.latency_ms}[kind]
        return None if value is None or not math.isfinite(value) or value <= 0 else value


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Networks measured in the same way.

    Attributes:
        protocol: views of the test, or ``validation`` and its views.
        figure: name of the headline figure in `FIGURE_NAMES`.
    """

    protocol: str
    figure: str
    entries: tuple[Entry, ...]

    def known(self, cost: str) -> list[Entry]:
        """The networks of which this cost is known."""
        return [entry for entry in self.entries if entry.cost(cost) is not None]

    def panels(self) -> list[tuple[str, list[Dot]]]:
        """What `pareto_chart` draws: each cost that is known of any network."""
        return [
            (cost, [_dot(entry, cost) for entry in self.known(cost)]) for cost in COSTS if self.known(cost)
        ]

    def front(self, cost: str) -> list[Entry]:
        """The networks that no other beats at this cost, cheapest first."""
        known = self.known(cost)
        return [
            known[i] for i in pareto_front([e.cost(cost) or 0.0 for e in known], [e.accuracy for e in known])
        ]


@dataclass(frozen=True)
class _Run:
    folder: Path
    config: dict[str, Any]
    results: dict[str, Result]  # by protocol


def find_runs(paths: Sequence[str | os.PathLike[str]]) -> tuple[list[Path], list[Path]]:
    """The run folders among ``paths``, each once whatever links lead to it, and the other paths.

    The folder of a search stands for the run that it found.

    Raises:
        UsageError: nothing is there.
    """
    runs: dict[Path, Path] = {}
    others = []
    for path in map(Path, paths):
        if not path.exists():
            raise UsageError(f"{path}: no such run folder")
        place = next((each for each in (path, path / _FOUND) if Run(each).config_file.is_file()), None)
        if place is None:
            others.append(path)
        else:
            runs.setdefault(place.resolve(), place)
    return list(runs.values()), others


def compare_runs(folders: Sequence[str | os.PathLike[str]], *, views: str = "") -> Comparison:
    """Accuracy and cost of run folders, from the scores that training and ``saccade test`` left in them.

    Runs that differ in nothing but the seed are one network with a mean and an error. The folder of a search
    stands for the run that it found.

    Args:
        views: the view set to compare by, or ``validation``. Default: the largest that all were tested with,
            else the last validation in training, if that was the same for all.

    Raises:
        UsageError: not a run folder, a run without accuracy, or runs that were not tested in the same way.
        DataError: scores are damaged, or of different tasks or data sets.
    """
    found, others = find_runs(folders)
    if others:
        raise UsageError(f"{others[0]}: is not a run folder (config.json is missing)")
    runs = [_read(folder) for folder in found]
    protocol = _common_protocol(runs, views)
    results = [run.results[protocol] for run in runs]
    _check_alike(runs, results)
    groups: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(_repetition_key(run), []).append(index)
    names = _names([[runs[i] for i in members] for members in groups.values()])
    entries = [
        _entry(name, [runs[i] for i in members], [results[i] for i in members])
        for name, members in zip(names, groups.values(), strict=True)
    ]
    return Comparison(protocol=protocol, figure=results[0].score_name, entries=tuple(entries))


def with_latency(comparison: Comparison, *, device: str = "cpu", runs: int = 10) -> Comparison:
    """The same with the median latency of one clip, measured here; the networks take turns.

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
            raise UsageError(f"{folder}: has no {weights.name} to measure the latency of")
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
    """Plain values, a row a network, with the costs at which it is on the front."""
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
    if Run(folder).val_scores.is_file():
        result = load_result(Run(folder).val_scores)
        results[f"{VALIDATION} {result.views}"] = result
    if not results:
        raise UsageError(
            f"{folder}: has no accuracy: it was neither validated nor tested; try saccade test {folder} "
            "--views 10x1"
        )
    return _Run(folder, config, results)


def _tests(folder: Path) -> dict[str, Result]:
    """Results by protocol: of the final test of training, and of ``saccade test``, which takes precedence.
    Splits other than the validation split are part of the protocol's name.
    """
    results = {}
    run = Run(folder)
    later = run.later_test_scores()
    for path in [*run.all_test_scores(), *later]:
        result = load_result(path)
        split = path.name.partition("_scores_")[0] if path in later else "val"
        if not result.shuffled:  # a control, not an accuracy
            results[result.views if split == "val" else f"{result.views} of {split}"] = result
    return results


def _config(folder: Path) -> dict[str, Any]:
    run = Run(folder)
    try:
        config = run.settings
        str(config["model"]["name"])
        int(config["clip"]["num_frames"])
    except (UsageError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run.config_file}: not readable as a run's config ({error!r})") from error
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
    asked = f"with {views}" if views else "in the same way"
    raise UsageError(
        f"not all runs were tested {asked} ({tested}); test them alike, e.g. saccade test RUN --views 10x1, "
        "or name a common view set with --views"
    )


def _num_views(run: _Run, name: str) -> float:
    return run.results[name].num_views


def _check_alike(runs: Sequence[_Run], results: Sequence[Result]) -> None:
    """Raise `DataError` unless the figures can be compared."""
    first, start = results[0], runs[0].folder
    videos = _videos(first)
    for run, result in zip(runs, results, strict=True):
        differs = ""
        if (result.task, result.score_name) != (first.task, first.score_name):
            differs = f"{run.folder} is of the task {result.task}, {start} of {first.task}"
        elif result.class_names != first.class_names:
            differs = f"{run.folder} has other classes than {start}"
        elif _videos(result) != videos:
            differs = (
                f"{run.folder} was tested on {result.num_videos} videos, {start} on {first.num_videos}"
                if result.num_videos != first.num_videos
                else f"{run.folder} was tested on other videos than {start}"
            )
        if differs:
            raise DataError(f"accuracies cannot be compared: {differs}")


def _videos(result: Result) -> set[tuple[str, ...]]:
    """Files by folder and name: where a data set lies does not matter."""
    return {Path(path).parts[-2:] for path in [*result.paths, *(f.path for f in result.failures)]}


# -------------------------------------------------------------------------------------------------- entries


def _repetition_key(run: _Run) -> str:
    return json.dumps({k: v for k, v in run.config.items() if k not in _OF_A_REPETITION}, sort_keys=True)


def _entry(name: str, runs: Sequence[_Run], results: Sequence[Result]) -> Entry:
    scores = [result.score for result in results]
    mean, num_videos = fmean(scores), results[0].num_videos
    error = variance(scores) / len(scores) if len(scores) > 1 else 0.0
    error += _of_the_videos(results) ** 2
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


def _of_the_videos(results: Sequence[Result]) -> float:
    """Standard error of the mean score of several seeds on the same videos; 0 where none is known."""
    error = type(results[0]).error_of_mean(results)
    return error if math.isfinite(error) else 0.0


def _names(groups: Sequence[Sequence[_Run]]) -> list[str]:
    """A name for each network: that of its folder, or its recipe's where it has several; longer where two
    networks would have the same.
    """
    names = [
        f"{group[0].config.get('recipe')} ({len(group)} seeds)"
        if len(group) > 1
        else _place(group[0].folder).name
        for group in groups
    ]
    return [
        "/".join(_place(group[0].folder).parts[-2:]) if names.count(name) > 1 else name
        for name, group in zip(names, groups, strict=True)
    ]


def _place(folder: Path) -> Path:
    """The folder by which a run is called: of one that a search found, the search's."""
    return folder.parent.resolve() if folder.name == _FOUND else folder.resolve()


def _dot(entry: Entry, cost: str) -> Dot:
    value = entry.cost(cost)
    assert value is not None
    return Dot(name=entry.name, cost=value, accuracy=entry.accuracy, spread=entry.spread, group=entry.family)
