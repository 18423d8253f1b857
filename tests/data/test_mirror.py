"""What a flip does to labels: by name, per clip, where the flip happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from saccade.clip import ClipSpec
from saccade.data.classnames import class_names, has_left_right_classes, mirrored_labels
from saccade.data.motion import MOTION_CLASSES
from saccade.data.types import ClipBatch
from saccade.recipes import get_recipe
from saccade.training.step import flip_probability, train_transform
from saccade.transforms import TrainTransform

PAIRS = {
    frozenset(("Pushing something from left to right", "Pushing something from right to left")),
    frozenset(("Pulling something from left to right", "Pulling something from right to left")),
    frozenset(
        (
            "Turning the camera left while filming something",
            "Turning the camera right while filming something",
        )
    ),
}


@pytest.mark.parametrize("version", ["something_v1", "something_v2"])
def test_the_three_pairs_of_something_something(version: str) -> None:
    names = class_names(version)
    mirrored = mirrored_labels(names)
    changed = {label: other for label, other in enumerate(mirrored) if label != other}
    assert {frozenset((names[a], names[b])) for a, b in changed.items()} == PAIRS
    assert len(changed) == 6
    assert all(mirrored[mirrored[label]] == label for label in range(174))
    alone = names.index("Plugging something into something but pulling it right out as you remove your hand")
    assert mirrored[alone] == alone


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("go_left", "stay", "go_right"), (2, 1, 0)),
        (("Swipe Left", "swipe right"), (1, 0)),
        (("left hand up", "right hand down"), (0, 1)),
        (("turn clockwise", "turn counterclockwise"), (1, 0)),
        (("left turn clockwise", "right turn anticlockwise", "left turn anticlockwise"), (1, 0, 2)),
        (("upright", "leftover"), (0, 1)),
        (("left",), (0,)),
        ((), ()),
    ],
)
def test_names(names: tuple[str, ...], expected: tuple[int, ...]) -> None:
    assert mirrored_labels(names) == expected
    assert has_left_right_classes(names) == (expected != tuple(range(len(names))))


def batch(num_clips: int, num_classes: int) -> ClipBatch:
    """Clips whose red is their column."""
    clip = torch.zeros(2, 6, 8, 3, dtype=torch.uint8)
    clip[..., 0] = torch.arange(8)
    labels = torch.arange(num_clips) % num_classes
    return ClipBatch([clip] * num_clips, labels, tuple(range(num_clips)), tuple(range(num_clips)), 6)


def test_the_label_swaps_exactly_where_the_clip_is_flipped() -> None:
    clip = ClipSpec(num_frames=2, stride=1, crop=6, short_side=6, mean=(0.0,) * 3, std=(1.0,) * 3)
    mirrored = mirrored_labels(("left", "right", "up"))
    given = batch(300, 3)
    x, labels = TrainTransform(clip, flip=0.4, mirrored=mirrored).with_labels(given)
    flipped = x[:, 0, 0, 0, 0] > x[:, 0, 0, 0, -1]
    assert 80 < flipped.sum() < 160
    assert labels[flipped].tolist() == [mirrored[label] for label in given.labels[flipped]]
    assert labels[~flipped].tolist() == given.labels[~flipped].tolist()
    assert given.labels.tolist() == [label % 3 for label in range(300)]  # the batch itself is left alone
    plain, kept = TrainTransform(clip, flip=0.4).with_labels(given)
    assert torch.equal(plain, x)  # the same draws, with the mapping or without
    assert torch.equal(kept, given.labels)


def test_no_flip_by_default_where_names_tell_sides() -> None:
    config = get_recipe("x3d_ucf10")
    assert config.augment.flip is None
    assert flip_probability(config, class_names("ucf101")) == 0.5
    for names in (class_names("something_v1"), class_names("something_v2"), MOTION_CLASSES):
        assert flip_probability(config, names) == 0.0
        assert train_transform(config, names).flip == 0.0
    asked = config.replace(augment=replace(config.augment, flip=0.5))
    transform = train_transform(asked, class_names("something_v2"))
    assert transform.flip == 0.5
    assert transform.mirrored is not None
    assert transform.mirrored.tolist() == list(mirrored_labels(class_names("something_v2")))
    assert train_transform(asked, class_names("kinetics400")).mirrored is None
