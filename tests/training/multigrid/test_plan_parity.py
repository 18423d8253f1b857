"""The plan against schedules recorded from PySlowFast and X3D-Multigrid."""

from __future__ import annotations

from typing import Any

import pytest

from golden import rule
from saccade.clip import ClipSpec
from saccade.recipes import get_recipe
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig
from saccade.training.multigrid import Plan, make_plan
from saccade.training.multigrid.pyslowfast import long_schedule, validation_epochs

RECORDED = rule.load("multigrid")
PYSLOWFAST: dict[str, Any] = RECORDED["pyslowfast"]
LONG = [name for name, recorded in PYSLOWFAST.items() if recorded["schedule"]]
NUM_CLIPS = 8 * 15360


def config_of(values: dict[str, Any], multigrid: Any) -> TrainConfig:
    side = values["TRAIN_CROP_SIZE"]
    return TrainConfig(
        recipe="recorded",
        model=ModelConfig(name="x3d_m"),
        clip=ClipSpec(
            num_frames=values["NUM_FRAMES"], stride=values["SAMPLING_RATE"], crop=side, short_side=256
        ),
        augment=AugmentConfig(short_side=tuple(values["TRAIN_JITTER_SCALES"])),
        optim=OptimConfig(
            lr=values["BASE_LR"],
            reference_batch=values["BATCH_SIZE"],
            schedule="step",
            steps=tuple(values["STEPS"][1:]),
            gamma=values["GAMMA"],
            warmup_epochs=values["WARMUP_EPOCHS"],
            warmup_lr=values["WARMUP_START_LR"],
        ),
        epochs=values["MAX_EPOCH"],
        batch_size=values["BATCH_SIZE"],
        multigrid=multigrid,
        val_every=1,
    )


def recorded_plan(name: str) -> tuple[Plan, dict[str, Any]]:
    recorded = PYSLOWFAST[name]
    config = config_of(recorded["config"], "both" if recorded["schedule"] else "short")
    return make_plan(config, NUM_CLIPS, num_devices=recorded["config"]["NUM_GPUS"]), recorded


@pytest.mark.parametrize("name", LONG)
def test_the_long_cycle_has_the_recorded_shapes_and_ends(name: str):
    plan, recorded = recorded_plan(name)
    lines = long_schedule(plan.config, plan.config.optim.steps, short=True)
    got = [
        [line.lr_step, line.shape.batch_factor, line.shape.num_frames, line.shape.crop, line.end_epoch]
        for line in lines
    ]
    assert got == recorded["schedule"]
    assert plan.epochs == recorded["max_epoch"]


@pytest.mark.parametrize("name", PYSLOWFAST)
def test_learning_rates_move_as_recorded(name: str):
    plan, recorded = recorded_plan(name)
    assert [0, *(phase.end_epoch for phase in plan.phases[:-1])] == recorded["steps"]
    factors = [phase.lr_factor * phase.lr_decay for phase in plan.phases]
    assert factors == pytest.approx(recorded["lrs"][: len(factors)])


@pytest.mark.parametrize("name", PYSLOWFAST)
def test_every_epoch_has_the_recorded_shape_and_rate(name: str):
    plan, recorded = recorded_plan(name)
    assert len(recorded["epochs"]) == plan.epochs
    for epoch, batch, frames, crop, rate, later in recorded["epochs"]:
        phase = plan.phase_at_epoch(epoch)
        assert [phase.shape.batch_size, phase.shape.num_frames, phase.shape.crop] == [batch, frames, crop]
        assert plan.rate(phase.first_step, epoch) == pytest.approx(rate, rel=1e-9)
        assert plan.rate(phase.first_step, epoch + 0.5) == pytest.approx(later, rel=1e-9)


@pytest.mark.parametrize("name", PYSLOWFAST)
def test_batches_strides_and_batch_norm_are_as_recorded(name: str):
    plan, recorded = recorded_plan(name)
    devices = recorded["config"]["NUM_GPUS"]
    for change in recorded["changes"]:
        phase = plan.phase_at_epoch(change["epoch"])
        got = [
            [s.batch_size // devices, s.num_frames, s.crop, *s.short_side]
            for s in map(phase.cycle.shape, range(12))
        ]
        assert got == change["batches"]
        assert phase.clips_per_device == change["per_device"]
        lowest = plan.config.clip.stride
        assert phase.shape.stride == (lowest, change["stride"] or lowest)
        kind = {"sub_batchnorm": "sub", "batchnorm": "plain", "sync_batchnorm": "sync"}[change["norm"]]
        num = {"sub": change["splits"], "plain": 1, "sync": change["devices"]}[kind]
        assert (phase.norm.kind, phase.norm.num) == (kind, num)
        clips, steps = change["steps_per_epoch"]
        assert int(clips) * devices * 3 // phase.cycle.num_clips(3) == steps


@pytest.mark.parametrize("name", LONG)
def test_validations_are_after_the_recorded_epochs(name: str):
    plan, recorded = recorded_plan(name)
    assert recorded["checkpoint_epochs"] == recorded["eval_epochs"]
    epochs = [epoch + 1 for epoch in recorded["eval_epochs"]]  # recorded from 0
    assert validation_epochs([line[-1] for line in recorded["schedule"]], 3) == epochs
    clips = [_clips(plan, step) for step in sorted(plan.validations)]
    whole = [epoch * NUM_CLIPS for epoch in epochs]
    largest = max(s.batch_size for phase in plan.phases for s in phase.cycle.shapes)
    assert all(0 <= b - a < largest for a, b in zip(clips, whole, strict=True))


def _clips(plan: Plan, step: int) -> int:
    return sum(p.cycle.num_clips(max(0, min(step, p.end_step) - p.first_step)) for p in plan.phases)


# ------------------------------------------------------------------------------------------ X3D-Multigrid


@pytest.fixture(scope="module")
def x3d_plan() -> Plan:
    given = RECORDED["x3d_multigrid"]["constants"]
    batch, per_epoch = given["batch_size"], given["iterations_per_epoch"]
    config = get_recipe("x3d_m_k400_multigrid")
    clip, optim = config.clip, config.optim
    assert (clip.num_frames, clip.stride) == (given["frames"] // given["gamma_tau"], given["gamma_tau"])
    assert (config.train_crop, config.epochs) == (given["crop"], given["max_epochs"])
    assert (optim.lr, optim.reference_batch, config.batch_size) == (given["INIT_LR"], batch, batch)
    assert optim.warmup_epochs * per_epoch == pytest.approx(given["warmup_steps"])
    return make_plan(config, given["dataset_size"], num_devices=given["GPUS"])


def test_x3d_multigrid_has_the_recorded_phases(x3d_plan: Plan):
    recorded = RECORDED["x3d_multigrid"]
    segments = [
        [phase.first_step, phase.shape.num_frames, phase.shape.crop, phase.shape.batch_size, phase.norm.num]
        for phase in x3d_plan.phases
    ]
    names = ("from_iteration", "frames", "crop", "base_batch", "bn_splits")
    assert segments == [[segment[name] for name in names] for segment in recorded["segments"]]
    assert {phase.norm.kind for phase in x3d_plan.phases} == {"sub"}
    rates = [0.2 * phase.lr_factor * phase.lr_decay for phase in x3d_plan.phases]
    assert rates == pytest.approx([segment["lr_after_change"] for segment in recorded["segments"]])
    assert x3d_plan.total_steps == 206160
    for phase, index in zip(x3d_plan.phases[:4], "0123", strict=True):
        low, high = phase.shape.stride
        drawn = list(range(low, high + 1, phase.shape.stride_step))
        assert drawn == recorded["strides"][index]
        assert phase.norm.num == recorded["splits"][index]


def test_x3d_multigrid_crops_seven_eighths_of_the_short_side(x3d_plan: Plan):
    for phase in x3d_plan.phases:
        for shape in phase.cycle.shapes:
            assert shape.short_side == (round(shape.crop * 8 / 7),) * 2


def test_x3d_multigrid_has_the_recorded_batches(x3d_plan: Plan):
    for phase, recorded in zip(x3d_plan.phases, RECORDED["x3d_multigrid"]["batches"], strict=True):
        shapes = [phase.cycle.shape(step) for step in range(12)]
        assert [[s.batch_size, s.num_frames, s.crop] for s in shapes] == recorded


def test_x3d_multigrid_has_the_recorded_rates(x3d_plan: Plan):
    recorded = dict(map(tuple, RECORDED["x3d_multigrid"]["lr_at_iterations"]))
    # its warm-up begins two steps late: those two run at the full rate
    assert (recorded.pop(0), recorded.pop(1)) == (1.6, 1.6)
    assert x3d_plan.rate(0, 0.0) == pytest.approx(1.6 / 8000)
    for step, rate in recorded.items():
        assert x3d_plan.rate(step, 0.0) == pytest.approx(rate), step
