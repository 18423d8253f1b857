"""From a config to a finished run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saccade.data.classnames import mirrored_labels
from saccade.data.sampler import TrainSampler
from saccade.data.types import VideoDataset
from saccade.errors import ConfigError, DataError, UsageError
from saccade.files import write_json
from saccade.layers.batch_norm import convert_sync_batchnorm
from saccade.models import (
    ImageReport,
    create_model,
    init_from_image,
    load_weights,
    memory_format,
)
from saccade.models.registry import option_names
from saccade.models.x3d import BASE_CROP
from saccade.runs import Run, describe_weights
from saccade.tasks import figures_text, get_task
from saccade.training.blank import blank_model
from saccade.training.checkpoint import check_same_run, load_checkpoint
from saccade.training.config import TrainConfig
from saccade.training.distributed import Processes, processes
from saccade.training.loop import Trainer, validate_model
from saccade.training.memory import keep_freed_memory
from saccade.training.metrics import Reporter, format_seconds
from saccade.training.multigrid import make_plan
from saccade.training.multigrid.show import chart_data, plan_text
from saccade.training.optim import freeze
from saccade.training.step import flip_probability
from saccade.training.timetable import MultigridTimetable, PlainTimetable
from saccade.training.validate import validate


def train(config: TrainConfig, *, resume: bool = False, overwrite: bool = False, share: float = 1.0) -> Run:
    """Train as ``config`` says and keep everything in its run folder.

    Under ``torchrun`` every process calls this.

    Args:
        resume: go on from last.pt of the run folder; on a CPU the final weights are bit for bit those of a
            run that was never stopped.
        overwrite: replace a run that is in the folder.
        share: how much of the run to do before it pauses, 0..1, validated as at its end; schedules are those
            of the whole. Resumed, it goes on as though it had never paused (a plateau schedule has seen a
            validation more); the weights of a pause are kept only until the run's own next validation.

    Raises:
        ConfigError: a field cannot work, or differs from that of the run to resume.
        UsageError: the run folder holds a run already, or none to resume.
        DataError: the data set cannot be used, or too many files are unreadable.
        WeightsError: weights to start from cannot be loaded.
        TrainingError: the loss is not finite, or memory is short.
        RunInterrupted: stopped by SIGTERM or Ctrl-C after saving (a KeyboardInterrupt).
    """
    start = time.perf_counter()
    with _settings(config), processes(config.device) as group:
        if group.device.type == "cpu":
            keep_freed_memory()
        validate(config, world_size=group.world_size)
        run_folder = Run(config.run_dir)
        run_folder.check_free(resume=resume, overwrite=overwrite)
        group.barrier()  # nobody writes before all have looked
        trainer = _prepare(config, run_folder, group, resume=resume, overwrite=overwrite, share=share)
        trainer.run()
        return _finish(trainer, start)


def _prepare(
    config: TrainConfig, run_folder: Run, group: Processes, *, resume: bool, overwrite: bool, share: float
) -> Trainer:
    state = load_checkpoint(run_folder.last) if resume else None
    if state:
        check_same_run(state["config"], config)
    train_set, val_set = load_data(config)
    if state and state["data"] != train_set.fingerprint():
        raise DataError(
            f"{config.data}: not the clips this run began with (their number, labels or classes differ)"
        )
    timetable = make_timetable(config, len(train_set), rank=group.rank, world_size=group.world_size)
    model, notes, image = _model(config, train_set, group, start_weights=state is None)
    sizes = {(shape.num_frames, shape.crop) for shape in timetable.shapes}
    get_task(config.task).check_model(config, model, sizes)
    if group.main:
        if overwrite:
            run_folder.clear()
        run_folder.folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            run_folder.write_config(config, device=group.device, num_processes=group.world_size)
        if image is not None:
            write_json(run_folder.image_weights, image.to_dict())
    reporter = Reporter(
        run_folder.log,
        total_steps=timetable.total_steps,
        epochs=timetable.epochs,
        active=group.main,
    )
    trainer = Trainer(
        config,
        model,
        train_set,
        val_set,
        processes=group,
        run_folder=run_folder,
        timetable=timetable,
        reporter=reporter,
        share=share,
    )
    for note in [*notes, *_flip_note(config, train_set)]:
        reporter.say(note)
    _introduce(trainer, state)
    if isinstance(timetable, MultigridTimetable) and state is None:
        _show_plan(timetable, run_folder.plan, reporter)
    return trainer


def _introduce(trainer: Trainer, state: dict[str, Any] | None) -> None:
    """Load or make the first state and say what is about to happen."""
    config, reporter, group = trainer.config, trainer.reporter, trainer.processes
    if state:
        trainer.load_state(state)
        reporter.say(f"resuming at step {trainer.progress.step} of {trainer.total_steps}")
    else:
        trainer.save()
    num_params = sum(p.numel() for p in trainer.model.parameters())
    val = (
        f"{len(trainer.val_set)} to validate"
        if trainer.val_set
        else "no validation split: the last weights are kept"
    )
    smallest, largest = trainer.timetable.batch_sizes
    batch = f"{smallest} to {largest}" if smallest < largest else f"{smallest}"
    num_classes = len(trainer.train_set.class_names)
    labels = trainer.task.data_text(num_classes)
    reporter.say(
        f"{config.recipe}: {config.model.name} with {num_params / 1e6:.2f} M parameters on "
        f"{len(trainer.train_set)} clips ({val}), {labels}; "
        f"{trainer.total_steps} steps of {batch} clips on {group.world_size} x {group.device}"
    )


def _finish(trainer: Trainer, start: float) -> Run:
    """The best weights, the final test, the report."""
    config, group, progress = trainer.config, trainer.processes, trainer.progress
    if trainer.val_set is None and group.main:
        trainer.save_best({"epoch": trainer.epoch, "step": progress.step})
    paused = trainer.end_step < trainer.total_steps
    tests = (bool(config.test_views) or trainer.task.tested_at_end) and not paused
    if tests and trainer.val_set:
        _final_test(trainer)
    seconds = time.perf_counter() - start
    if group.main and not paused:
        _report(trainer)
    best = progress.best_score if trainer.val_set and isfinite(progress.best_score) else None
    told = f"best {progress.score_name} {100 * best:.1f} %, " if best is not None else ""
    end = f"paused at epoch {trainer.epoch:.4g} after" if paused else "done in"
    trainer.reporter.say(
        f"{end} {format_seconds(seconds)}: {told}everything is in {trainer.run_folder.folder}"
    )
    group.barrier()  # the files are whole
    return Run(trainer.run_folder.folder, seconds=seconds)


def _final_test(trainer: Trainer) -> None:
    """Test the best weights on the validation split with `test_views`; keep scores and figures."""
    config, run_folder = trainer.config, trainer.run_folder
    assert trainer.val_set is not None
    trainer.processes.barrier()  # best.safetensors is there
    model = trainer.tested_model
    load_weights(model, run_folder.best)
    result = validate_model(
        model, trainer.val_set, config.test_views, config=config, processes=trainer.processes
    )
    fixed = trainer.task.fixed_views
    views = fixed or config.test_views
    kind = fixed or f"{views} views"
    trainer.reporter.say(
        f"test of the best weights, {kind} of {result.num_videos} videos: {figures_text(result)}, "
        f"{result.gmacs_per_video:.3g} GMACs a video"
    )
    if trainer.processes.main:
        result.save(run_folder.test_scores(views))
        write_json(run_folder.test_file, {views: result.summary()})


def _report(trainer: Trainer) -> None:
    try:
        from saccade.visualize.report import write_report

        write_report(trainer.run_folder.folder)
    except Exception as error:  # the weights are safe; a page must not turn a finished run into a failed one
        trainer.reporter.say(f"no report could be written: {error!r}", style="yellow")


def _show_plan(timetable: MultigridTimetable, picture: Path, reporter: Reporter) -> None:
    for line in plan_text(timetable).splitlines():
        reporter.say(line)
    if reporter.active:
        draw_plan(timetable, picture)


def draw_plan(timetable: MultigridTimetable, path: Path) -> None:
    """Draw a multigrid plan."""
    from saccade.visualize.charts import save_figure
    from saccade.visualize.plan import plan_chart

    save_figure(plan_chart(**chart_data(timetable)), path)


def load_data(config: TrainConfig) -> tuple[VideoDataset, VideoDataset | None]:
    """The videos to train on, and those to validate on unless `val_every` is 0."""
    if not config.data:
        raise UsageError(
            f"{config.recipe} needs clips: give --data PATH (a folder of class folders, a list file, "
            "Something-Something, Charades or AVA)"
        )
    return get_task(config.task).from_config(config).load_data(config)


def _flip_note(config: TrainConfig, train_set: VideoDataset) -> list[str]:
    """What is done about left and right, where the names of the classes tell them apart."""
    names = train_set.class_names
    num_sided = sum(label != mirrored for label, mirrored in enumerate(mirrored_labels(names)))
    if not num_sided:
        return []
    if flip_probability(config, names) == 0:
        return [f"no flip: {num_sided} classes tell left from right"]
    return [f"flipped clips of {num_sided} classes that tell left from right swap their labels"]


def make_timetable(
    config: TrainConfig, num_clips: int, *, rank: int = 0, world_size: int = 1
) -> PlainTimetable | MultigridTimetable:
    """The steps of a run on ``num_clips`` training clips, and the sampler that draws them.

    Raises:
        ConfigError: the clips do not fill a batch.
    """
    if config.multigrid != "off":
        plan = make_plan(config, num_clips, num_devices=world_size, multiple=_clip_multiple(config))
        return MultigridTimetable(plan, rank=rank, world_size=world_size)
    sampler = TrainSampler(
        num_clips,
        batch_size=config.batch_size,
        seed=config.seed,
        num_frames=config.clip.num_frames,
        stride=config.clip.stride,
        short_side=config.augment.short_side,
        crop=config.train_crop,
        rank=rank,
        world_size=world_size,
        repeats=config.augment.repeats,
    )
    return PlainTimetable(config, sampler)


def _clip_multiple(config: TrainConfig) -> tuple[int, int]:
    return get_task(config.task).clip_multiple(config, blank_model(config).clip_multiple)


def model_options(config: TrainConfig) -> dict[str, Any]:
    """What `create_model` is told: the overrides, regularisation, and the training clip.

    The heads of X3D and VoV3D pool over the map of the training clip, so the fields that say for which clip
    a model is (gamma_tau, gamma_t, gamma_s; stride, num_frames, train_crop) follow it unless overridden.
    """
    known = option_names(config.model.name)
    options: dict[str, Any] = {
        "dropout": config.model.dropout,
        "drop_path": config.model.drop_path,
        "gamma_tau": config.clip.stride,
        "gamma_t": config.clip.num_frames,
        "gamma_s": config.train_crop / BASE_CROP,
        "stride": config.clip.stride,
        "num_frames": config.clip.num_frames,
        "train_crop": config.train_crop,
        **get_task(config.task).model_overrides(config.model.name),
    }
    if config.model.drop_path and "drop_path" not in known:
        raise ConfigError(f"model.drop_path: {config.model.name} has none; leave it at 0")
    return {name: value for name, value in options.items() if name in known} | config.model.overrides


def _model(
    config: TrainConfig, train_set: VideoDataset, group: Processes, *, start_weights: bool
) -> tuple[nn.Module, list[str], ImageReport | None]:
    """The model on its device, ready to train; what there is to say of its weights; where they come from, if
    from a network for images.
    """
    torch.manual_seed(config.seed)
    model: nn.Module = create_model(config.model.name, len(train_set.class_names), **model_options(config))
    notes, image = [], None
    if config.model.weights and start_weights:
        notes += [
            *describe_weights(config.model.weights),
            load_weights(model, config.model.weights).summary(),
        ]
    if config.model.image_weights and start_weights:
        image = init_from_image(
            model,
            config.model.image_weights,
            inflate=config.model.image_inflate,
            time=config.model.image_time,
        )
        notes.append(image.summary())
    freeze(model, config.model.freeze)
    chosen_by_plan = config.multigrid != "off" and config.grid.bn_base_size > 0
    if config.sync_bn and group.world_size > 1 and not chosen_by_plan:
        model = convert_sync_batchnorm(model)
    model = model.to(group.device)
    model = model.to(memory_format=memory_format(model, config.channels_last))  # type: ignore[call-overload]
    return model, notes, image


@contextmanager
def _settings(config: TrainConfig) -> Iterator[None]:
    """Process-wide settings of torch, put back afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    benchmark, state = torch.backends.cudnn.benchmark, torch.get_rng_state()
    try:
        if config.threads:
            torch.set_num_threads(config.threads)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
            torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = not config.deterministic
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        torch.set_rng_state(state)
