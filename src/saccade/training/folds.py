"""Cross-validation: one training for each fold, each clip tested by a network that never saw its source.

The folder of a cross-validation holds

    folds.json           format version, the config, and the figures, complete once every fold is tested
    fold1/ fold2/ ...    an ordinary run folder each, trained on the other folds and tested on this one
    fold1.csv ...        the clips of each run as a list, the fold in the split val
    classes.txt          the class names in label order
    test_scores_VIEWS.npz  the scores of all clips (`saccade.evaluation.load_result`)
    report.html          the pooled confusion matrix, classes and clips
"""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from saccade.data.classnames import class_names as read_class_names
from saccade.data.datasets import load_dataset
from saccade.data.folds import Folds, make_folds
from saccade.errors import ConfigError, DataError, UsageError
from saccade.evaluation import evaluate, load_result
from saccade.files import write_json, write_text
from saccade.inference.loading import load_for_inference, task_of
from saccade.runs import Run
from saccade.tasks.classify import TestResult
from saccade.tasks.statistics import Accuracy
from saccade.training.checkpoint import check_same_run
from saccade.training.config import TrainConfig
from saccade.training.processes import RunInterrupted
from saccade.training.reporting import Callback
from saccade.training.run import train, with_frames_fps

logger = logging.getLogger(__name__)

FORMAT = 1
_SUMMARY, _CLASSES, _REPORT = "folds.json", "classes.txt", "report.html"


@dataclass(frozen=True, eq=False)
class FoldResults:
    """The figures of a cross-validation.

    Attributes:
        folder: its folder.
        folds: the result of each fold.
        pooled: the results of all folds together, each clip once.
        num_sources: number of sources, which the folds keep together.
    """

    folder: Path
    folds: tuple[TestResult, ...]
    pooled: TestResult
    num_sources: int

    @property
    def accuracy(self) -> Accuracy:
        """Right clips of all clips, with the interval."""
        return self.pooled.accuracy

    @property
    def standard_error(self) -> float:
        """Standard error of the accuracy over clips."""
        return self.pooled.standard_error

    @property
    def fold_accuracies(self) -> list[float]:
        """Accuracy of each fold, 0..1."""
        return [result.top1 for result in self.folds]

    @property
    def fold_mean(self) -> float:
        """Mean of the folds' accuracies."""
        return fmean(self.fold_accuracies)

    @property
    def fold_error(self) -> float:
        """Standard error of that mean over the folds. It contains how sources differ, which that over clips
        does not, but the folds share training clips, so it is only a guide.
        """
        return stdev(self.fold_accuracies) / math.sqrt(len(self.folds))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "views": self.pooled.views,
            "top1": self.pooled.top1,
            "num_videos": self.pooled.num_videos,
            **self.accuracy.to_dict(),
            "standard_error": self.standard_error,
            "num_sources": self.num_sources,
            "fold_mean": self.fold_mean,
            "fold_error": self.fold_error,
            "folds": [
                {"top1": each.top1, "num_right": each.accuracy.num_right, "num_videos": each.num_videos}
                for each in self.folds
            ],
        }

    def __str__(self) -> str:
        """The figures in one line."""
        return (
            f"{len(self.folds)} folds, {self.pooled.views} views: {self.accuracy}; mean of the folds "
            f"{100 * self.fold_mean:.1f} ± {100 * self.fold_error:.1f} % (standard error over folds)"
        )


def train_folds(
    config: TrainConfig,
    folds: int,
    *,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> FoldResults:
    """Train and test a network for each fold of ``config.data``, in the folder ``config.run_dir``.

    All clips but those of a stated test split are used (`saccade.data.folds.make_folds`). No fold is
    validated in training, so that nothing of it chooses the weights: the last ones are tested, with
    ``config.test_views``, else ``config.val_views``.

    Args:
        folds: number of folds, 2 or more.
        callbacks: called during every training.
        resume: continue in that folder: finished folds stay, a stopped one continues, the others are trained.
        overwrite: replace what is in that folder.

    Raises:
        UsageError: the folder is in use, or the data set has no folds.
        ConfigError: a field does not fit, or differs from that of the folder to resume.
        DataError: the data set cannot be used, or differs from that of the folder to resume.
        RunInterrupted: stopped by SIGTERM or Ctrl-C after saving (a KeyboardInterrupt).
    """
    _check(config)
    folder = Path(config.run_dir)
    cut = make_folds(
        config.data,
        folds,
        class_names=read_class_names(config.class_names) if config.class_names else None,
        root=config.root or None,
        allow_missing=config.allow_missing,
        group=config.group or None,
    )
    _prepare(folder, config, cut, resume=resume, overwrite=overwrite)
    logger.info(
        f"{config.data}: {len(cut.entries)} clips of {cut.num_groups} sources in {folds} folds ({cut.rule})"
        + (f"; {cut.num_test} clips of the test split are left out" if cut.num_test else "")
    )
    results = []
    for number in range(1, folds + 1):
        try:
            result = _tested(folder, number, config, callbacks)
        except RunInterrupted as stop:
            raise RunInterrupted(
                f"stopped in fold {number} of {folds}; continue with saccade train {config.recipe} --out "
                f"{shlex.quote(str(folder))} --resume"
            ) from stop
        logger.info(f"fold {number} of {folds}: {result.accuracy}")
        results.append(result)
    found = FoldResults(folder, tuple(results), _pooled(results), cut.num_groups)
    _write(found, config, folds)
    return found


def stored_folds(folder: str | os.PathLike[str]) -> tuple[TrainConfig, int] | None:
    """The config and the number of folds of the cross-validation in a folder; None without one.

    Raises:
        DataError: folds.json is damaged, or a newer version of Saccade wrote it.
    """
    path = Path(folder) / _SUMMARY
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] > FORMAT:
            raise ValueError(f"format {values['format']}; this version reads up to {FORMAT}")
        return TrainConfig.from_dict(values["config"]), int(values["num_folds"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not readable as a cross-validation ({error})") from error


def _check(config: TrainConfig) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--folds: trains in one process; start it without torchrun")
    if not config.data:
        raise UsageError(f"{config.recipe} needs a data set: give --data PATH")
    if config.task != TestResult.task:
        raise ConfigError(f"task: folds are for task {TestResult.task} (is {config.task})")
    if config.val_data:
        raise ConfigError("val_data: with folds every clip of data is tested; leave it empty")
    if config.optim.schedule == "plateau":
        raise ConfigError("optim.schedule: plateau needs validations, which folds are trained without")


def _prepare(folder: Path, config: TrainConfig, cut: Folds, *, resume: bool, overwrite: bool) -> None:
    """Write the lists of the folds, or check those of a folder to resume."""
    Run(folder).check_free(resume=False, overwrite=overwrite)
    if resume and overwrite:
        raise UsageError("--resume continues the folds and --overwrite deletes them; give one of them")
    stored = stored_folds(folder) if folder.is_dir() and not overwrite else None
    if stored and not resume:
        raise UsageError(
            f"{folder}: holds a cross-validation already; continue it with --resume, choose another folder "
            "with --out, or replace it with --overwrite"
        )
    if resume and not stored:
        raise UsageError(f"{folder}: has no folds to resume ({_SUMMARY} is missing); start without --resume")
    lists = {folder / f"fold{number + 1}.csv": cut.list_text(number) for number in range(cut.num_folds)}
    if stored:
        if stored[1] != cut.num_folds:
            raise ConfigError(f"folds: is {cut.num_folds}, but {folder} was started with {stored[1]}")
        check_same_run(stored[0].to_dict(), config)
        changed = [path for path, text in lists.items() if not _has_text(path, text)]
        if changed:
            raise DataError(f"{config.data}: its clips are not those of {changed[0]}, which was started with")
        return
    if overwrite:
        _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in lists.items():
        write_text(path, text)
    write_text(folder / _CLASSES, "".join(f"{name}\n" for name in cut.class_names))
    write_json(folder / _SUMMARY, _record(config, cut.num_folds))


def _has_text(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _clear(folder: Path) -> None:
    """Delete what a cross-validation or a run wrote, and nothing else."""
    Run(folder).clear()
    for path in folder.glob("fold*"):
        if path.is_dir() and path.name[4:].isdecimal():
            Run(path).clear()
        elif path.suffix == ".csv" and path.stem[4:].isdecimal():
            path.unlink()
    for name in (_SUMMARY, _CLASSES, _REPORT):
        (folder / name).unlink(missing_ok=True)


def _record(config: TrainConfig, folds: int) -> dict[str, Any]:
    return {"format": FORMAT, "num_folds": folds, "config": config.to_dict()}


def _tested(folder: Path, number: int, config: TrainConfig, callbacks: Sequence[Callback]) -> TestResult:
    """The result of a fold, which is trained and tested unless that was done."""
    run = Run(folder / f"fold{number}")
    done = run.all_test_scores() if run.test_file.is_file() else []
    if done:
        return _loaded(done[0])
    own = config.replace(
        data=str(folder / f"fold{number}.csv"),
        class_names=str(folder / _CLASSES),
        root="",
        group="",
        out=str(run.folder),
        val_every=0,
        test_views="",
    )
    started = run.last.is_file()
    train(own, callbacks=callbacks, resume=started, overwrite=not started and run.exists())
    return _test(run, own, config.test_views or config.val_views)


def _test(run: Run, config: TrainConfig, views: str) -> TestResult:
    loaded = load_for_inference(run.folder, device=config.device)
    dataset = load_dataset(config.data, "val", class_names=loaded.class_names)
    found = evaluate(
        loaded.model,
        with_frames_fps(dataset, config),
        loaded.clip,
        views,
        task=task_of(loaded),
        workers=min(2, config.workers),
        temporal_rule=config.temporal_rule,
        backend=config.backend,
    )
    for name, result in found.items():
        result.save(run.test_scores(name))
    write_json(run.test_file, {name: result.summary() for name, result in found.items()})
    result = next(iter(found.values()))
    assert isinstance(result, TestResult)
    return result


def _loaded(path: Path) -> TestResult:
    result = load_result(path)
    if not isinstance(result, TestResult):
        raise DataError(f"{path}: scores of task {result.task}, not {TestResult.task}")
    return result


def _pooled(results: Sequence[TestResult]) -> TestResult:
    return replace(
        results[0],
        scores=np.concatenate([result.scores for result in results]),
        labels=np.concatenate([result.labels for result in results]),
        paths=tuple(path for result in results for path in result.paths),
        failures=tuple(failure for result in results for failure in result.failures),
        seconds=math.fsum(result.seconds for result in results),
    )


def _write(found: FoldResults, config: TrainConfig, folds: int) -> None:
    from saccade.visualize.report import write_folds_report

    found.pooled.save(Run(found.folder).test_scores(found.pooled.views))
    write_json(found.folder / _SUMMARY, {**_record(config, folds), "result": found.to_dict()})
    rows = [(f"Fold {number}", str(each.accuracy)) for number, each in enumerate(found.folds, 1)]
    try:
        write_folds_report(
            found.folder / _REPORT, found.pooled, rows, title=config.recipe, summary=str(found)
        )
    except Exception as error:  # a failing report must not make finished trainings fail
        logger.warning(f"the report could not be written: {error!r}")
