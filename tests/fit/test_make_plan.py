"""Plans for synthetic facts: any data set gets a config that a run accepts, and sensible choices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saccade.fit.facts import DataFacts, Machine
from saccade.fit.plan import IMAGE_NETWORK, PURPOSES, Request, make_plan
from saccade.recipes import get_recipe
from saccade.sampling.views import parse_views
from saccade.training.config import TrainConfig
from saccade.training.run import make_timetable
from saccade.training.timing import ClipSeconds
from saccade.training.validate import validate

CPU, GPU = Machine(), Machine(device="cuda", cores=16, memory_mb=100_000)


def facts(classes=10, train=20, val=8, **changes) -> DataFacts:
    values = {
        "class_names": tuple(f"class {number}" for number in range(classes)),
        "train_counts": (train,) * classes,
        "val_counts": (val,) * classes,
        "seconds": (3.0, 4.5, 6.0, 9.0),
        "megapixel_frames": classes * train * 180 * 4 / 3 / 1e6,
    }
    return DataFacts(**values | changes)


def two_cores(config: TrainConfig) -> ClipSeconds:
    """About what two cores take for each clip of TSM at this crop; a third of it for X3D."""
    seconds = 0.36 * (config.clip.crop / 128) ** 2 * (1 if config.model.name == IMAGE_NETWORK else 0.3)
    return ClipSeconds(seconds, seconds / 3)


def plan(found: DataFacts, machine: Machine = CPU, **changes):
    values = {"data": "clips", "out": "runs/fit-clips", "seconds": two_cores, "image_weights": True}
    return make_plan(found, machine, Request(**values | changes))


@pytest.fixture(autouse=True)
def _weights_are_there(monkeypatch: pytest.MonkeyPatch):
    """Plans are checked as a run checks them; the file of the image weights need not exist."""
    monkeypatch.setattr("saccade.training.validate.find_file", lambda *_: None)


DATA = {
    "ucf10": facts(),
    "two classes of two clips": facts(2, 2, 1),
    "five clips a class": facts(4, 4, 1),
    "400 classes": facts(400, 20, 4),
    "10,000 clips": facts(10, 1000, 200),
    "100,000 clips": facts(400, 250, 50),
    "portrait": facts(short_side=720, smallest=720, aspect=16 / 9, portrait=1.0),
    "tiny": facts(short_side=64, smallest=48, seconds=(0.3, 0.4, 0.5, 0.8)),
    "unequal": facts(3, train_counts=(1000, 30, 3), val_counts=(200, 6, 1)),
    "long": facts(seconds=(10, 25, 60, 300), fps=25.0),
    "slow camera": facts(fps=5.0),
    "without validation": facts(3, 5, 0),
    "left and right": facts(2, class_names=("push left", "push right")),
}


@pytest.mark.parametrize("weights", [True, False], ids=["imagenet", "scratch"])
@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("name", DATA)
def test_every_plan_is_a_valid_run(name, purpose, weights):
    found, number = DATA[name], list(DATA).index(name) + PURPOSES.index(purpose)
    minutes, machine = (0.5, 5, 20, 600)[number % 4], (CPU, GPU)[number % 2]
    made = plan(found, machine, minutes=minutes, purpose=purpose, image_weights=weights)
    config = made.config
    validate(config)
    assert TrainConfig.from_dict(config.to_dict()) == config
    timetable = make_timetable(config, found.num_train)
    assert timetable.total_steps >= 1
    assert config.clip.crop <= config.clip.short_side
    assert 0 < config.minutes <= minutes
    assert bool(config.test_views) == bool(found.num_val)
    assert (config.val_every > 0) == bool(found.num_val)
    assert all(choice.value and choice.why for choice in made.choices)
    assert len({choice.what for choice in made.choices}) == len(made.choices)


@pytest.mark.parametrize("name", DATA)
def test_unknown_speed_is_no_obstacle(name):
    for weights in (True, False):
        made = plan(DATA[name], seconds=lambda config: ClipSeconds(), image_weights=weights)
        validate(made.config)


def test_more_time_means_more_pixels_and_passes():
    crops = [plan(facts(), minutes=minutes).config.clip.crop for minutes in (1, 5, 10, 20, 60)]
    assert crops == sorted(crops)
    assert crops[0] < crops[-1] == 224
    assert plan(facts(1000, 40), minutes=20).config.clip.crop == 112


def test_a_few_hundred_clips_in_twenty_minutes():
    config = plan(facts()).config
    assert (config.model.name, config.model.pretrained) == (IMAGE_NETWORK, "imagenet")
    assert config.temporal_rule == "segments"
    assert config.model.head_clips >= 200
    assert 200 / config.batch_size >= 20
    assert config.clip.crop >= 192


def test_the_classifier_sees_every_clip_of_a_small_set_however_slow_the_machine():
    slow = plan(facts(), minutes=1, seconds=lambda config: ClipSeconds(6.0, 2.0)).config
    assert slow.model.head_clips == 200
    assert plan(DATA["100,000 clips"], minutes=1).config.model.head_clips == 20 * 400


def test_without_image_weights_the_user_is_told():
    made = plan(facts(), image_weights=False)
    assert made.config.model.name == "x3d_xs"
    assert not made.config.model.pretrained
    assert made.config.model.head_clips == 0
    assert any("saccade[imagenet]" in warning for warning in made.warnings)
    assert not any("saccade[imagenet]" in warning for warning in plan(facts()).warnings)
    tiny = plan(DATA["tiny"], image_weights=False).config
    assert tiny.clip.crop == get_recipe("x3d_motion").clip.crop


def test_a_stream_has_no_later_frames_and_a_fixed_rate():
    made = plan(facts(), purpose="stream").config
    assert made.model.overrides["causal"] is True
    assert made.temporal_rule == "saccade"
    assert 0.75 * 4.5 <= made.clip.seconds <= 4.5  # most of what three of four clips have
    long = plan(DATA["long"], purpose="stream").config
    assert long.clip.seconds == pytest.approx(4.8, abs=0.3)
    slow = plan(DATA["slow camera"], purpose="stream").config
    assert slow.clip.stride / 30 >= 1 / 5  # no frame twice


def test_rare_classes_weigh_more():
    assert plan(facts()).config.class_balance == 0
    assert plan(DATA["unequal"]).config.class_balance == 0.5


def test_flips():
    assert plan(facts()).config.augment.flip == 0.5
    assert plan(DATA["left and right"]).config.augment.flip is None  # off, see flip_probability


def test_wide_and_upright_videos_are_tested_whole():
    assert parse_views(plan(facts(val=2), minutes=60).config.test_views).num_crops == 1
    wide = plan(replace(DATA["portrait"], val_counts=(2,) * 10), minutes=60)
    assert parse_views(wide.config.test_views).num_crops == 3
    assert any("upright" in warning for warning in wide.warnings)


def test_small_validation_sets_and_missing_classes_are_named():
    assert any("error of about" in warning for warning in plan(facts(3, 10, 2)).warnings)
    made = plan(facts(3, train_counts=(20, 20, 2), val_counts=(5, 5, 0)))
    assert sum("class 2" in warning for warning in made.warnings) == 2


def test_many_clips_are_not_all_validated():
    config = plan(DATA["10,000 clips"]).config
    assert config.val_fraction * 12_000 == pytest.approx(1000, rel=0.01)
    assert plan(facts()).config.val_fraction == 0.2


def test_decoded_frames_are_kept_where_they_fit():
    small = plan(facts(5, 10, 2, megapixel_frames=0.01)).config
    assert small.cache_mb == pytest.approx(3.15 * 0.01 * small.train_short_side[1] ** 2, abs=1)
    assert plan(DATA["100,000 clips"]).config.cache_mb == 0


def test_going_on_from_a_run_keeps_its_network_and_clip():
    before = get_recipe("tsm_finetune").replace(out="runs/a", data="old", epochs=20, val_data="x")
    made = plan(facts(), start=("runs/a", before)).config
    assert (made.model.weights, made.model.pretrained) == ("runs/a", "")
    assert made.clip == before.clip
    assert made.optim.lr == before.optim.lr / 2
    assert made.model.head_clips > 0
    assert (made.data, made.out, made.val_data) == ("clips", "runs/fit-clips", "")
    validate(made)


def test_clips_without_labels():
    made = plan(facts(), unlabelled="more")
    assert made.config.unlabelled == "more"
    validate(made.config)
