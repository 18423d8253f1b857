"""The steps of ``saccade fit`` after the check: what is installed, the plan, the recipe file, the run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from saccade.data.check import CheckReport
from saccade.data.datasets import stated_splits
from saccade.errors import SaccadeError, UsageError
from saccade.files import write_json
from saccade.fit.clips import CLIPS, can_be_listed, earlier_sides, keep_sides, write_clips
from saccade.fit.facts import DataFacts, this_machine
from saccade.fit.plan import IMAGE_NETWORK, Plan, Purpose, Request, make_plan
from saccade.models.pretrained import find_file, pretrained_weights
from saccade.runs import Run
from saccade.training import Callback, TrainConfig, train
from saccade.training.timing import clip_seconds

RECIPE = "recipe.json"
"""The recipe file in the run folder."""


def has_image_weights() -> bool:
    """Whether the weights of `IMAGE_NETWORK` are installed."""
    try:
        return find_file(IMAGE_NETWORK, pretrained_weights(IMAGE_NETWORK, "imagenet")).is_file()
    except SaccadeError:
        return False


def run_folder(data: str, out: str | None) -> Path:
    """The folder of the run: ``out``, else the first free one of runs/fit-NAME, runs/fit-NAME-2, ...

    Raises:
        UsageError: ``out`` holds a run.
    """
    if out:
        Run(out).check_free(resume=False, overwrite=False)
        return Path(out)
    name = re.sub(r"[^\w.-]+", "-", Path(data).resolve().stem).strip("-") or "clips"
    number, folder = 1, Path("runs") / f"fit-{name}"
    while folder.exists() and any(folder.iterdir()):
        number += 1
        folder = Path("runs") / f"fit-{name}-{number}"
    return folder


def plan_run(
    report: CheckReport,
    *,
    out: Path,
    root: str = "",
    minutes: float = 20.0,
    used: float = 0.0,
    purpose: Purpose = "accuracy",
    start: Run | None = None,
    image_weights: bool | None = None,
    unlabelled: str = "",
) -> tuple[Plan, CheckReport]:
    """The plan for the clips of a checked data set; and the report with the sides of an earlier run.

    Args:
        start: the run whose weights are the first ones.
        image_weights: whether to use image weights; None: if they are installed.
        unlabelled: folder of videos without labels to train on too.

    Raises:
        DataError: the clips cannot be trained on.
    """
    before = None
    divided = not stated_splits(report.root, root=root or None)
    if start is not None:
        before = (str(start.folder), start.config)
        if divided:
            known = start.weights_metadata().get("class_names") or ()
            report = keep_sides(report, earlier_sides(start), known, root=root)
    facts = DataFacts.of(report)
    needs_list = divided and (start is not None or any(not file.num_frames for file in report.files))
    listed = needs_list and can_be_listed(report)
    request = Request(
        data=str(out / CLIPS) if listed else report.root,
        root="" if listed else root,
        out=str(out),
        seconds=lambda config: clip_seconds(config, num_classes=facts.num_classes),
        minutes=minutes,
        used=used,
        purpose=purpose,
        image_weights=has_image_weights() if image_weights is None else image_weights,
        unlabelled=unlabelled,
        start=before,
    )
    plan = make_plan(facts, this_machine(), request)
    damaged = sum(file.cause is not None for file in report.files) / len(report.files)
    if damaged:
        config = plan.config.replace(max_failures=round(max(plan.config.max_failures, 2 * damaged), 4))
        plan = replace(plan, config=config)
    return plan, report


def write_recipe(plan: Plan, folder: Path) -> Path:
    """Write the plan as a recipe file that ``saccade train`` takes."""
    path = folder / RECIPE
    write_json(
        path,
        {
            "config": plan.config.to_dict(),
            "choices": [asdict(choice) for choice in plan.choices],
            "warnings": list(plan.warnings),
        },
    )
    return path


def run_plan(plan: Plan, report: CheckReport, *, callbacks: Sequence[Callback] = ()) -> Run:
    """Record the clips and the recipe in the run folder, and train.

    Errors as from `saccade.train`. When it is done the recipe has the epochs that the minutes were enough
    for, and no time limit, so that it can be repeated.
    """
    folder = Path(plan.config.out)
    folder.mkdir(parents=True, exist_ok=True)
    write_clips(report, folder / CLIPS)
    write_recipe(plan, folder)
    run = train(plan.config, callbacks=callbacks)
    write_recipe(replace(plan, config=repeatable(plan.config, run)), folder)
    return run


def repeatable(config: TrainConfig, run: Run) -> TrainConfig:
    """The config with the epochs that were trained instead of the time limit."""
    rows, _ = run.metrics()
    epochs = max((row["epoch"] for row in rows), default=config.epochs)
    warmup = min(config.optim.warmup_epochs, epochs)
    return config.replace(
        epochs=epochs or config.epochs, minutes=0.0, optim=replace(config.optim, warmup_epochs=warmup)
    )


def check_start(folder: str) -> Run:
    """The run of ``--from``.

    Raises:
        UsageError: it is no run folder, has no weights, or was trained for another task.
    """
    run = Run(folder)
    config = run.config
    if config.task != "single-label":
        raise UsageError(f"{folder}: was trained for the task {config.task}; saccade fit needs single-label")
    if not os.path.isfile(run.best):
        raise UsageError(f"{folder}: has no weights yet ({run.best.name}); give a run with a validation")
    return run
