"""Plans beyond the published ones: any clip and batch, one cycle alone, any schedule of the learning rate."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from saccade.errors import ConfigError
from saccade.recipes import get_recipe
from saccade.training import TrainConfig
from saccade.training.config import GridConfig
from saccade.training.multigrid import MultigridTimetable, NormChoice, make_plan
from saccade.training.multigrid.sampler import CycleSampler
from saccade.training.norms import batch_norm_for
from saccade.training.validate import validate

CLIPS = 5000


def config(multigrid: Any = "both", *, grid: dict[str, Any] | None = None, **changes: Any) -> TrainConfig:
    recipe = get_recipe("x3d_motion").replace(multigrid=multigrid, grid=GridConfig(**(grid or {})))
    parts: dict[str, Any] = {}
    for name, value in changes.items():
        section, _, field = name.partition("__")
        present = parts.get(section, getattr(recipe, section))
        parts[section] = replace(present, **{field: value}) if field else value
    return recipe.replace(**parts)


@pytest.mark.parametrize("mode", ["short", "long", "both", "x3d-multigrid"])
@pytest.mark.parametrize("schedule", ["cosine", "constant", "step"])
@pytest.mark.parametrize(
    ("frames", "crop", "batch"), [(1, 32, 8), (13, 160, 24), (16, 312, 10), (3, 97, 7)], ids=str
)
def test_any_base_and_schedule_gives_a_sound_plan(
    mode: str, schedule: Any, frames: int, crop: int, batch: int
):
    base = config(
        mode,
        clip__num_frames=frames,
        clip__short_side=crop,
        clip__crop=crop,
        augment__short_side=(crop, crop + 40),
        batch_size=batch,
        epochs=40,
        optim__schedule=schedule,
        optim__steps=(20, 30) if schedule == "step" else (),
    )
    validate(base)
    plan = make_plan(base, CLIPS)
    assert [phase.number for phase in plan.phases] == list(range(1, len(plan.phases) + 1))
    step = 0
    for phase in plan.phases:
        assert phase.first_step == step
        step = phase.end_step
        for shape in phase.cycle.shapes:
            assert 1 <= shape.num_frames <= frames
            assert 1 <= shape.crop <= crop
            assert shape.short_side[0] >= shape.crop
            scale = shape.crop / crop if mode == "x3d-multigrid" else 1
            assert shape.short_side[1] == max(shape.short_side[0], round((crop + 40) * scale))
            longest = shape.stride[1] * shape.num_frames
            assert longest <= base.clip.stride * frames or shape.stride == (base.clip.stride,) * 2
            if phase.norm.kind == "sub":
                assert shape.batch_size % phase.norm.num == 0
    last = plan.phases[-1].shape
    assert (last.batch_size, last.num_frames, last.crop) == (batch, frames, crop)
    assert plan.total_steps == step == max(plan.validations)
    table = MultigridTimetable(plan)
    rates = [table.rate(at) for at in range(0, step, max(1, step // 50))]
    assert all(math.isfinite(rate) and rate >= 0 for rate in rates)
    if mode != "x3d-multigrid":
        assert plan.epochs == 60
        # all clips of every epoch, but for less than a batch
        assert (
            0
            <= 60 * CLIPS - plan.total_clips
            < max(s.batch_size for p in plan.phases for s in p.cycle.shapes)
        )
    assert plan.total_clips == CycleSampler(CLIPS, [p.cycle for p in plan.phases], seed=0).num_clips(step)


def test_each_cycle_alone():
    short, long, both = (make_plan(config(mode), CLIPS) for mode in ("short", "long", "both"))
    assert len(short.phases) == 1
    assert all(len(phase.cycle.shapes) == 1 for phase in long.phases)
    assert all(len(phase.cycle.shapes) == 3 for phase in (*short.phases, *both.phases))
    assert [s.crop for s in short.phases[0].cycle.shapes] == [32, 45, 64]
    assert [s.batch_size for s in short.phases[0].cycle.shapes] == [64, 32, 16]
    shapes = [(phase.shape.num_frames, phase.shape.crop) for phase in long.phases[:4]]
    assert shapes == [(2, 45), (4, 45), (4, 64), (8, 64)]
    assert [phase.batch_factor for phase in both.phases[:4]] == [8, 4, 2, 1]
    assert both.total_steps < short.total_steps < 1.5 * 45 * CLIPS / 16
    assert both.cost < 0.4


def test_a_cosine_falls_over_the_stretched_run_times_the_growth_of_the_batch():
    base = config("long", optim__warmup_epochs=0.0, grid={"cycle_ends": (0.5,)})
    table = MultigridTimetable(make_plan(base, CLIPS))
    assert len(table.plan.phases) == 5
    for step in range(0, table.total_steps, 97):
        cosine = 0.5 * (1 + math.cos(math.pi * table.epoch(step) / table.epochs))
        assert table.rate(step) == pytest.approx(0.2 * cosine * table.phase(step).batch_factor)
    root = MultigridTimetable(make_plan(replace(base, optim=replace(base.optim, name="adamw")), CLIPS))
    assert root.rate(0) == pytest.approx(0.2 * 8**0.5)
    level = MultigridTimetable(make_plan(replace(base, grid=replace(base.grid, lr_scaling="none")), CLIPS))
    assert level.rate(0) == pytest.approx(0.2)


def test_crops_and_frames_follow_the_multiples_that_a_model_needs():
    base = config(clip__num_frames=16, clip__crop=224, clip__short_side=224, augment__short_side=(224, 256))
    plan = make_plan(base, CLIPS, multiple=(2, 16))
    shapes = {(s.num_frames, s.crop) for phase in plan.phases for s in phase.cycle.shapes}
    assert shapes == {(t, s) for t in (4, 8, 16) for s in (112, 160)} | {(8, 224), (16, 224)}


def test_validations_lie_in_each_phase_or_at_regular_epochs():
    plan = make_plan(config(), CLIPS)
    for phase in plan.phases:
        inside = [step for step in plan.validations if phase.first_step < step <= phase.end_step]
        assert 1 <= len(inside) <= 3
        assert phase.end_step in inside
    regular = MultigridTimetable(make_plan(config(grid={"evals": 0}, val_every=10), CLIPS))
    epochs = [regular.epoch(step) for step in sorted(regular.plan.validations)]
    assert epochs == pytest.approx([10, 20, 30, 40, 50, 60, 68], abs=256 / CLIPS)
    assert not make_plan(config(val_every=0), CLIPS).validations


@pytest.mark.parametrize(
    ("clips", "devices", "base", "choice"),
    [
        (64, 8, 8, NormChoice("sub", 8)),
        (8, 8, 8, NormChoice("plain")),
        (2, 8, 8, NormChoice("sync", 4)),
        (2, 1, 8, NormChoice("plain")),  # nobody to join with
        (2, 6, 8, NormChoice("sync", 3)),  # 4 devices do not divide 6
        (28, 1, 8, NormChoice("sub", 2)),  # 3 splits do not divide 28
        (13, 1, 8, NormChoice("plain")),
        (64, 8, 0, NormChoice("as built")),
    ],
)
def test_batch_norm_follows_the_clips_of_a_device(clips: int, devices: int, base: int, choice: NormChoice):
    assert batch_norm_for(clips, devices, base) == choice


def test_devices_and_passes_share_the_clips():
    plan = make_plan(config(accumulate=2), CLIPS, num_devices=4)
    assert [phase.clips_per_device for phase in plan.phases[:4]] == [16, 8, 4, 2]
    assert [phase.norm.kind for phase in plan.phases[:4]] == ["sub", "plain", "sync", "sync"]


@pytest.mark.parametrize(
    ("grid", "changes", "message"),
    [
        ({"epoch_factor": 0.0}, {}, "grid.epoch_factor: must be above 0"),
        ({"short_factors": (0.5, 1.5)}, {}, "grid.short_factors: .*0.5, 1.5"),
        ({"long_frames": (0.5, 1.0)}, {}, "grid.long_crops: has 4 factors, .* 2"),
        ({"long_crops": (0.5, 0.5, 0.7, 0.7)}, {}, "grid.long_crops: must end with 1"),
        ({"long_frames": (), "long_crops": ()}, {}, "grid.long_frames: must end with 1"),
        ({"cycle_ends": (0.6, 0.4)}, {}, "grid.cycle_ends: .*0.6, 0.4"),
        ({"cycle_ends": (0.4, 1.0)}, {}, "grid.cycle_ends: .*0.4, 1.0"),
        ({"bn_base_size": -1}, {}, "grid.bn_base_size: must be 0 or more"),
        ({"evals": -1}, {}, "grid.evals: must be 0 or more"),
        (
            {},
            {"optim__schedule": "step", "optim__steps": (20, 45)},
            "optim.steps: must lie within the 45 epochs",
        ),
    ],
)
def test_fields_that_cannot_work_are_named(grid: dict[str, Any], changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=f"^{message}"):
        validate(config(grid=grid, **changes))


def test_a_cycle_that_cannot_be_has_no_effect_while_multigrid_is_off():
    validate(config("off", grid={"long_frames": (0.5, 1.0)}))


def test_a_data_set_or_run_too_small_for_the_plan_is_refused():
    with pytest.raises(ConfigError, match=r"^batch_size: .* from 16 to 256 clips .* use at most 6$"):
        make_plan(config(), 100)
    with pytest.raises(ConfigError, match=r"^epochs: 0.1 is too short for the long cycle"):
        make_plan(config(epochs=0.1), CLIPS)
