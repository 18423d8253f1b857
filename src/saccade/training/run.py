"""`train`: from a config to a finished run folder."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saccade.data.classnames import class_names as read_class_names
from saccade.data.classnames import mirrored_labels
from saccade.data.tensors import ClipTensors
from saccade.data.training_check import training_warnings
from saccade.data.types import VideoDataset
from saccade.data.unlabelled import with_unlabelled
from saccade.errors import ConfigError, DataError, UsageError, WeightsError
from saccade.evaluation import Controls
from saccade.evaluation.speed import model_speed
from saccade.files import write_json
from saccade.models import contract, load_weights
from saccade.runs import Run, damaged_checkpoint
from saccade.tasks import Result, figures_text, get_task
from saccade.tasks.statistics import Accuracy
from saccade.training.checkpoint import check_complete, check_same_run, load_checkpoint
from saccade.training.config import TrainConfig
from saccade.training.distill import make_objective
from saccade.training.loop import Trainer
from saccade.training.multigrid import MultigridTimetable
from saccade.training.multigrid.show import chart_data, plan_text
from saccade.training.network import build_model, place_model
from saccade.training.processes import Processes, keep_freed_memory, processes
from saccade.training.reporting import Callback, Reporter, format_seconds
from saccade.training.schedule import rate_text
from saccade.training.step import flip_probability
from saccade.training.timetable import make_timetable
from saccade.training.validate import validate
from saccade.training.validation import validate_model


def train(
    config: TrainConfig,
    *,
    model: nn.Module | None = None,
    train_set: Any = None,
    val_set: Any = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    fraction: float = 1.0,
) -> Run:
    """Train a network and write the run folder.

    Under ``torchrun`` every process calls this. Nothing is printed: the logger ``saccade`` logs the progress
    at level INFO, and the callbacks are called. A script that uses worker processes (``config.workers``)
    needs the usual ``if __name__ == "__main__":``.

    Args:
        model: network to train instead of the one that ``config.model`` names: (B, 3, T, H, W) float32 ->
            logits (B, K). Its weights are changed in place.
        train_set: data set to train on instead of ``config.data``: a `VideoDataset` (`saccade.load_dataset`),
            or any map-style data set of (clip, label). A clip is either uint8 frames (T, H, W, 3) or
            (3, T, H, W), which are resized, cropped, augmented and normalised according to the config, or
            floats (3, T, H, W), which are used unchanged. T is ``config.clip.num_frames``. A label is an int,
            or for multi-label a float vector (K,). Class names come from ``config.class_names``, else from
            the attribute ``class_names`` or ``classes`` of the data set, else they are numbers.
        val_set: data set to validate on, in the same form. If only ``train_set`` is given there is no
            validation.
        transform: function of a training batch (B, 3, T, H, W), called after all other transforms and before
            MixUp and CutMix; returns a batch of the same size. See also ``config.augment.transform``.
        callbacks: called during the run, see `Callback`.
        resume: continue from last.pt of the run folder, with the same arguments; on a CPU the final weights
            are bit for bit those of an uninterrupted run.
        overwrite: replace the run in the folder.
        fraction: fraction of the run after which it pauses, with a validation. Schedules are those of the
            complete run. A resumed run gives the same result as one without a pause (except that a plateau
            schedule sees one more validation); the weights at the pause are the best ones only until the next
            validation.

    Returns:
        The run folder, with the scores of the run.

    Raises:
        ConfigError: a field is invalid, or differs from that of the run to resume.
        UsageError: the run folder already contains a run, or does not contain the run to resume.
        DataError: the data set cannot be used, or too many files are unreadable.
        WeightsError: the initial weights cannot be loaded.
        TrainingError: the loss is not finite, or the device is out of memory.
        RunInterrupted: stopped by SIGTERM or Ctrl-C after saving (a KeyboardInterrupt).

    Example:
        A recipe on a folder of clips:

        >>> import saccade
        >>> from saccade.recipes import get_recipe
        >>> run = saccade.train(get_recipe("x3d_motion").replace(data="data/motion"))  # doctest: +SKIP

        Your own network and clips (here a linear classifier of the mean colour):

        >>> import torch
        >>> clips = [(torch.rand(3, 4, 32, 32) + label, label) for label in (0, 1) * 8]
        >>> net = torch.nn.Sequential(
        ...     torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
        >>> config = saccade.TrainConfig(
        ...     clip=saccade.ClipSpec(num_frames=4, stride=1, crop=32, short_side=32),
        ...     optim=saccade.training.OptimConfig(lr=0.2, reference_batch=16),
        ...     epochs=10, batch_size=4, workers=0, out="runs/colours")
        >>> run = saccade.train(config, model=net, train_set=clips, val_set=clips, overwrite=True)
        >>> run.best_score, run.best.name
        (1.0, 'best.safetensors')
    """
    start = time.perf_counter()
    if not 0 < fraction <= 1:
        raise UsageError(f"fraction: must be in (0, 1] (is {fraction})")
    if model is not None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"model: must be an nn.Module, got {type(model).__name__}")
        config = config.replace(model=replace(config.model, name=_qualified_name(model), overrides={}))
    with _torch_settings(config), processes(config.device) as group:
        if group.device.type == "cpu":
            keep_freed_memory()
        validate(config, world_size=group.world_size, model=model, resume=resume)
        run_folder = Run(config.run_dir)
        run_folder.check_free(resume=resume, overwrite=overwrite)
        group.barrier()  # every process checks the folder before one writes to it
        state = load_checkpoint(run_folder.last) if resume else None
        if state:
            check_complete(run_folder.last, state)
            check_same_run(state["config"], config)
        train_clips, val_clips = _datasets(config, train_set, val_set, model)
        if config.unlabelled:
            train_clips = with_unlabelled(
                train_clips, config.unlabelled, val=val_clips, allow_missing=config.allow_missing
            )
            train_clips = with_frames_fps(train_clips, config)
        if state and state["data"] != train_clips.fingerprint():
            raise DataError(
                f"{config.data or train_clips.root}: number of clips, labels or classes differ from those "
                "that this run was started with"
            )
        timetable = make_timetable(
            config,
            train_clips.num_labelled,
            num_unlabelled=train_clips.num_unlabelled,
            rank=group.rank,
            world_size=group.world_size,
            model=model,
        )
        network, notes, image = _network(config, model, train_clips, group, start_weights=state is None)
        sizes = {(shape.num_frames, shape.crop) for shape in timetable.shapes}
        get_task(config.task).check_model(config, network, sizes)
        if model is not None:
            _check_outputs(config, network, train_clips, group.device)
        trainer = Trainer(
            config,
            network,
            train_clips,
            val_clips,
            processes=group,
            run_folder=run_folder,
            timetable=timetable,
            reporter=Reporter(
                run_folder.log,
                total_steps=timetable.total_steps,
                epochs=timetable.epochs,
                active=group.main,
                callbacks=callbacks,
            ),
            objective=make_objective(config, network, train_clips, group.device),
            transform=transform,
            fraction=fraction,
        )
        if group.main:  # write the folder only after everything has been built and checked
            if overwrite:
                run_folder.clear()
            run_folder.folder.mkdir(parents=True, exist_ok=True)
            if not resume:
                run_folder.write_config(
                    config,
                    device=group.device,
                    num_processes=group.world_size,
                    others=trainer.objective.record,
                )
            if image is not None:
                write_json(run_folder.image_weights, image.to_dict())
        if group.main and state is None:
            for text in training_warnings(train_clips, val_clips, config.clip, config.temporal_rule):
                trainer.reporter.say(text, level=logging.WARNING)
        for note in [*notes, *trainer.objective.notes(), *_flip_note(config, train_clips)]:
            trainer.reporter.say(note)
        _initialize(trainer, state)
        if isinstance(timetable, MultigridTimetable) and state is None:
            _show_plan(timetable, run_folder.plan, trainer.reporter)
        trainer.run()
        return _finish(trainer, start)


def _qualified_name(model: nn.Module) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _datasets(
    config: TrainConfig, train_set: Any, val_set: Any, model: nn.Module | None
) -> tuple[VideoDataset, VideoDataset | None]:
    """The training and validation sets: the arguments of `train`, else those of the config."""
    if train_set is None:
        loaded_train, loaded_val = load_data(config)
        return loaded_train, loaded_val if val_set is None else _as_dataset(config, val_set, "val")
    train_clips = _as_dataset(config, train_set, "train")
    if not train_clips.class_names and get_task(config.task).has_classes:
        train_clips = replace(train_clips, class_names=_class_numbers(config, train_clips, model))
    return train_clips, None if val_set is None else _as_dataset(config, val_set, "val")


def _as_dataset(config: TrainConfig, given: Any, split: str) -> VideoDataset:
    if isinstance(given, VideoDataset):
        task = get_task(config.task).from_config(config)
        task.check_dataset(given)
        if split == "train":
            task.check_training(given)
        return given
    for name in ("__len__", "__getitem__"):
        if not hasattr(given, name):
            raise UsageError(f"{split}_set: {type(given).__name__} has no {name}; give a map-style data set")
    if not len(given):
        raise DataError(f"{split}_set: is empty")
    if config.multigrid != "off":
        raise ConfigError("multigrid: changes the clips of videos; leave it off with tensors")
    names = read_class_names(config.class_names) if config.class_names else ()
    dataset = ClipTensors.of(given, split, names)
    dataset.check(0, config.clip.num_frames)
    return dataset


def _class_numbers(config: TrainConfig, dataset: VideoDataset, model: nn.Module | None) -> tuple[str, ...]:
    """Numbers as class names: as many as the model has classes, else up to the largest label."""
    num_classes = contract.num_classes(model) if model is not None else None
    if not num_classes:
        labels = dataset.fingerprint()["labels"]
        if not labels or not all(isinstance(label, int) for label in labels):
            raise UsageError(
                "train_set: has no class names; give it an attribute class_names, set config.class_names, or "
                "give the model an attribute num_classes"
            )
        num_classes = max(labels) + 1
    return tuple(map(str, range(num_classes)))


def _network(
    config: TrainConfig,
    model: nn.Module | None,
    dataset: VideoDataset,
    group: Processes,
    *,
    start_weights: bool,
) -> tuple[nn.Module, list[str], Any]:
    notes: list[str] = []
    image = None
    if model is None:
        model, notes, image = build_model(config, dataset.class_names, start_weights=start_weights)
    return place_model(config, model, group.device), notes, image


def _check_outputs(
    config: TrainConfig, model: nn.Module, dataset: VideoDataset, device: torch.device
) -> None:
    """Run a user's model on one clip: it must return one logit for each class."""
    task = get_task(config.task)
    if not task.has_classes or task.fixed_views:
        return
    size: tuple[int, ...] = (config.clip.num_frames, config.train_crop, config.train_crop)
    if isinstance(dataset, ClipTensors):
        clip, _ = dataset.clips.item(0, config.clip.num_frames)
        size = tuple(clip.shape[1:]) if clip.is_floating_point() else size
    with torch.no_grad():
        logits = model.eval()(torch.zeros(1, 3, *size, device=device))
    num_classes = len(dataset.class_names)
    if not isinstance(logits, Tensor):
        raise UsageError(f"model: must return logits (B, num_classes), not a {type(logits).__name__}")
    if tuple(logits.shape) != (1, num_classes):
        raise UsageError(
            f"model: must return logits (B, {num_classes}), one for each class of the data set; returns "
            f"{tuple(logits.shape)} for one clip"
        )


def _initialize(trainer: Trainer, state: dict[str, Any] | None) -> None:
    """Load the state to resume from, or save the first one; log a summary of the run."""
    config, reporter, group = trainer.config, trainer.reporter, trainer.processes
    if state:
        try:
            trainer.load_state(state)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise WeightsError(damaged_checkpoint(trainer.run_folder.last, error)) from error
        reporter.say(f"resuming at step {trainer.progress.step} of {trainer.total_steps}")
    else:
        trainer.save()
    num_params = sum(p.numel() for p in trainer.model.parameters())
    val = (
        f"{len(trainer.val_set)} to validate"
        if trainer.val_set
        else "no validation split: the last weights are saved"
    )
    smallest, largest = trainer.timetable.batch_sizes
    batch = f"{smallest} to {largest}" if smallest < largest else f"{smallest}"
    num_classes = len(trainer.train_set.class_names)
    labels = trainer.task.data_text(num_classes)
    reporter.say(
        f"{config.recipe}: {config.model.name} with {num_params / 1e6:.2f} M parameters on "
        f"{trainer.train_set.num_labelled} clips ({val}), {labels}; "
        f"{trainer.total_steps} steps of {batch} clips on {group.world_size} x {group.device}; "
        f"{rate_text(config.optim, config.batch_size)}"
    )


def _finish(trainer: Trainer, start: float) -> Run:
    """Save the best weights, run the final test, write the report."""
    config, group, progress = trainer.config, trainer.processes, trainer.progress
    if trainer.val_set is None and group.main:
        trainer.save_best({"epoch": trainer.epoch, "step": progress.step})
    paused = trainer.end_step < trainer.total_steps
    tests = (bool(config.test_views) or trainer.task.tested_at_end) and not paused
    tested = _final_test(trainer) if tests and trainer.val_set else None
    seconds = time.perf_counter() - start
    if group.main and not paused:
        _report(trainer)
    best = progress.best_score if trainer.val_set and isfinite(progress.best_score) else None
    score = ""
    if group.main and best is not None:
        score = f"{tested.views}: {tested.score_text}; " if tested else f"{_best_text(trainer, best)}; "
    end = f"paused at epoch {trainer.epoch:.4g} after" if paused else "done in"
    trainer.reporter.say(
        f"{end} {format_seconds(seconds)}: {score}everything is in {trainer.run_folder.folder}"
    )
    group.barrier()  # all files are written
    run = Run(trainer.run_folder.folder, seconds=seconds)
    trainer.reporter.end(
        {
            "run_dir": str(run.folder),
            "step": progress.step,
            "epoch": trainer.epoch,
            "paused": paused,
            "best_score": best,
            "best_epoch": trainer.timetable.epoch(progress.best_step) if best is not None else None,
            "seconds": seconds,
            "test": run.test if group.main else {},
        }
    )
    return run


def _best_text(trainer: Trainer, best: float) -> str:
    """The best validation, with its interval if the task counts right videos."""
    name, run_folder = trainer.progress.score_name, trainer.run_folder
    summary = run_folder.best_metrics.get("val", {})
    text = str(Accuracy.from_dict(summary)) if "num_right" in summary else f"{100 * best:.1f} %"
    num = run_folder.num_validations
    chosen = f"; these clips chose these weights (the best of {num} validations)" if num > 1 else ""
    return f"best validation {name}: {text}{chosen}"


def _final_test(trainer: Trainer) -> Result:
    """Test the best weights on the validation split with `test_views`; write and return the result."""
    config, run_folder = trainer.config, trainer.run_folder
    assert trainer.val_set is not None
    trainer.processes.barrier()  # rank 0 has written best.safetensors
    model = trainer.tested_model
    load_weights(model, run_folder.best)
    result = validate_model(
        model,
        trainer.val_set,
        config.test_views,
        config=config,
        processes=trainer.processes,
        controls=Controls(seed=config.seed) if trainer.task.tests_time_use else None,
    )
    if trainer.processes.main:
        result = replace(result, num_validations=run_folder.num_validations)
        if not isinstance(trainer.val_set, ClipTensors):  # whose clips may have another shape
            speed = model_speed(model, config.clip, config.precision)
            result = replace(result, model_clips_per_second=speed)
    views = trainer.task.fixed_views or result.views
    kind = trainer.task.fixed_views or f"{views} views"
    trainer.reporter.say(
        f"test of the best weights, {kind} of {result.num_videos} videos: {figures_text(result)}, "
        f"{result.gmacs_per_video:.3g} GMACs per video"
    )
    if result.time_use:
        trainer.reporter.say(f"{result.time_use.views}: {result.time_use}")
    if trainer.processes.main:
        result.save(run_folder.test_scores(views))
        write_json(run_folder.test_file, {views: result.summary()})
    return result


def _report(trainer: Trainer) -> None:
    try:
        from saccade.visualize.report import write_report

        write_report(trainer.run_folder.folder)
    except Exception as error:  # a failing report must not make a finished run fail
        trainer.reporter.say(f"the report could not be written: {error!r}", level=logging.WARNING)


def _show_plan(timetable: MultigridTimetable, picture: Path, reporter: Reporter) -> None:
    for line in plan_text(timetable).splitlines():
        reporter.say(line)
    if reporter.active:
        draw_plan(timetable, picture)


def draw_plan(timetable: MultigridTimetable, path: Path) -> None:
    """Draw a multigrid plan."""
    from saccade.visualize.charts import plan_chart, save_figure

    save_figure(plan_chart(**chart_data(timetable)), path)


def load_data(config: TrainConfig) -> tuple[VideoDataset, VideoDataset | None]:
    """The training set, and the validation set unless `val_every` is 0."""
    if not config.data:
        raise UsageError(
            f"{config.recipe} needs a data set: give --data PATH (a folder of class folders, a list file, "
            "Something-Something, Charades or AVA)"
        )
    train_set, val_set = get_task(config.task).from_config(config).load_data(config)
    return with_frames_fps(train_set, config), with_frames_fps(val_set, config) if val_set else None


def with_frames_fps(dataset: VideoDataset, config: TrainConfig) -> VideoDataset:
    """``dataset`` with `frames_fps` as the rate of image folders without one."""
    if config.frames_fps is None:
        return dataset
    items = tuple(item if item.fps else replace(item, fps=config.frames_fps) for item in dataset.items)
    return replace(dataset, items=items)


def _flip_note(config: TrainConfig, train_set: VideoDataset) -> list[str]:
    """A log line on flips if classes differ in left and right."""
    names = train_set.class_names
    num_mirrored = sum(label != mirrored for label, mirrored in enumerate(mirrored_labels(names)))
    if not num_mirrored:
        return []
    if flip_probability(config, names) == 0:
        return [f"no horizontal flip: {num_mirrored} classes differ in left and right"]
    return [f"horizontal flip swaps the labels of the {num_mirrored} classes that differ in left and right"]


@contextmanager
def _torch_settings(config: TrainConfig) -> Iterator[None]:
    """Apply the process-wide torch settings of ``config``, and restore them afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    benchmark, state = torch.backends.cudnn.benchmark, torch.get_rng_state()
    try:
        if config.threads:
            torch.set_num_threads(config.threads)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is initialised
            torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = not config.deterministic
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        torch.set_rng_state(state)
