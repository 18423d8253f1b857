"""The pictures of `motion`: same seed, same pixels; each pair one generator, played both ways."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest

from saccade.data.motion import MOTION_CLASSES, MOTION_PAIRS, MOTION_VERSION, render_clip
from saccade.data.motion import events as events_module
from saccade.data.motion.events import PAIRS, progress_curve
from saccade.data.motion.render import render_forward
from saccade.data.motion.scene import Scene, Wobble, background_texture
from saccade.data.motion.shapes import PATTERNS, SHAPES, Sprite, paint
from saccade.errors import UsageError

SMALL = {"size": (32, 40), "num_frames": (8, 12)}


def test_classes_come_in_pairs() -> None:
    assert len(MOTION_CLASSES) == 12
    assert sorted(name for pair in MOTION_PAIRS for name in pair) == list(MOTION_CLASSES)


@pytest.mark.parametrize("name", MOTION_CLASSES)
def test_same_seed_same_pixels(name: str) -> None:
    first = render_clip(name, seed=3, index=5, **SMALL)
    assert first.dtype == np.uint8
    assert first.shape[1:] == (32, 40, 3)
    assert 8 <= len(first) <= 12
    np.testing.assert_array_equal(first, render_clip(name, seed=3, index=5, **SMALL))
    for other in ({"seed": 4, "index": 5}, {"seed": 3, "index": 6}, {"seed": 3, "index": 5, "split": "val"}):
        assert not np.array_equal(first[0], render_clip(name, **other, **SMALL)[0])


@pytest.mark.parametrize(("forward", "backward"), MOTION_PAIRS)
def test_second_of_a_pair_is_the_generator_of_the_first_played_backwards(forward: str, backward: str) -> None:
    event = next(pair[2] for pair in PAIRS if pair[0] == forward)

    def rng(name: str) -> np.random.Generator:
        return np.random.default_rng([MOTION_VERSION, 7, zlib.crc32(f"train/{name}".encode()), 2])

    for name, order in ((forward, 1), (backward, -1)):
        expected = render_forward(event, rng(name), **SMALL)
        np.testing.assert_array_equal(render_clip(name, seed=7, index=2, **SMALL), expected[::order])


def test_unknown_class() -> None:
    with pytest.raises(UsageError, match=r"class_name: .*'fall'.*appear"):
        render_clip("fall", seed=0)


def test_progress_rises_all_the_way() -> None:
    for seed in range(50):
        curve = progress_curve(np.random.default_rng(seed), 40)
        assert curve[0] == 0
        assert curve[-1] == pytest.approx(1)
        assert (np.diff(curve) > 0.4 / 39).all()  # the event runs at every moment of the clip


# ---------------------------------------------------------------- what the events do, on a black frame


def two_coloured_disc(*_: object, **__: object) -> Sprite:
    """Red where local x < 0, blue where x > 0, no other colour."""
    red, blue = np.array([250, 0, 0], np.float32), np.array([0, 0, 250], np.float32)
    return Sprite("disc", "halves", (red, blue, (red + blue) / 2), 5.0)


def centre(weight: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def painted(monkeypatch: pytest.MonkeyPatch, name: str, seed: int) -> list[np.ndarray]:
    monkeypatch.setattr(events_module, "make_sprite", two_coloured_disc)
    event = next(pair[2] for pair in PAIRS if pair[0] == name)
    draw = event(np.random.default_rng(seed), 96, 112)
    frames = []
    for progress in np.linspace(0, 1, 41):
        frame = np.zeros((96, 112, 3), np.float32)
        draw(frame, float(progress), 0.0, 0.0)
        frames.append(frame)
    return frames


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("name", "axis"), [("slide_right", 0), ("slide_down", 1)])
def test_slides_move_on_and_wrap(monkeypatch: pytest.MonkeyPatch, name: str, axis: int, seed: int) -> None:
    frames = painted(monkeypatch, name, seed)
    seen = [frame.sum(axis=2) for frame in frames]
    inside = [image if image.sum() > 0.9 * max(map(np.sum, seen)) else None for image in seen]
    steps = [
        centre(b)[axis] - centre(a)[axis]
        for a, b in itertools.pairwise(inside)
        if a is not None and b is not None
    ]
    assert len(steps) > 10
    # forward by one to five pixels each, but for the leap from the far edge to the near one
    assert sum(not 0.5 < step < 6 for step in steps) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_approach_grows(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    areas = [(frame.sum(axis=2) > 20).sum() for frame in painted(monkeypatch, "approach", seed)]
    assert (np.diff(areas) > -3).all()
    assert areas[-1] > 6 * areas[0]


@pytest.mark.parametrize("seed", range(4))
def test_appear_grows_clearer(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    light = [float(frame.sum()) for frame in painted(monkeypatch, "appear", seed)]
    assert light[0] < 0.02 * light[-1]
    assert (np.diff(light)[2:-2] > 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_rotation_is_clockwise(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    angles = []
    for frame in painted(monkeypatch, "rotate_clockwise", seed):
        x, y = centre(frame[..., 2]) - centre(frame[..., 0])
        angles.append(np.arctan2(y, x))  # y points down: a growing angle turns clockwise
    steps = np.diff(np.unwrap(angles))
    assert (steps > 0).all()
    assert steps.sum() > 0.9 * np.pi - 0.1
    assert steps.sum() < 2.0 * np.pi + 0.1


@pytest.mark.parametrize("seed", range(4))
def test_merge_brings_together(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    widths = []
    for frame in painted(monkeypatch, "merge", seed):
        image = frame.sum(axis=2)
        y, x = np.mgrid[:96, :112]
        cx, cy = centre(image)
        widths.append(float((image * ((x - cx) ** 2 + (y - cy) ** 2)).sum() / image.sum()))
    assert widths[-1] < 0.25 * widths[0]
    assert (np.diff(widths) < 0.5).all()


# ---------------------------------------------------------------- what surrounds them


def test_drift_prefers_no_direction() -> None:
    rng = np.random.default_rng(0)
    drifts = np.array([Scene.draw(rng, 32, 32, 40).drift for _ in range(400)])
    error = drifts.std(axis=0) / np.sqrt(len(drifts))
    assert (np.abs(drifts.mean(axis=0)) < 4 * error).all()


def test_wobble_keeps_within_its_amplitude() -> None:
    for seed in range(20):
        wobble = Wobble.draw(np.random.default_rng(seed), 2.0)
        assert max(abs(wobble.at(t)) for t in range(100)) <= 2.0
    assert Wobble.draw(np.random.default_rng(0), 0.0).at(3) == 0


@pytest.mark.parametrize("size", [(96, 112), (32, 34), (240, 64)])
def test_any_size_renders(size: tuple[int, int]) -> None:
    for name, _ in MOTION_PAIRS:
        frames = render_clip(name, seed=1, size=size, num_frames=(8, 8))
        assert frames.shape == (8, *size, 3)
        assert frames.std() > 5


def test_background_has_texture() -> None:
    for seed in range(10):
        texture = background_texture(np.random.default_rng(seed), 64, 80)
        assert texture.shape == (64, 80, 3)
        assert texture.min() >= 0
        assert texture.max() <= 255
        assert texture.std(axis=(0, 1)).max() > 5


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_radius_and_no_more(shape: str, pattern: str) -> None:
    white = np.full(3, 255, np.float32)
    frame = np.zeros((100, 100, 3), np.float32)
    paint(frame, Sprite(shape, pattern, (white, white, white), 5.0), x=50.0, y=50.0, radius=30.0, angle=0.4)
    y, x = np.mgrid[:100, :100]
    lit = frame[..., 0] > 128
    assert lit[50, 50]
    assert lit.sum() > 0.25 * np.pi * 30**2
    assert np.hypot(x - 50, y - 50)[lit].max() < 1.15 * 30 + 1


def test_painting_outside_the_frame_does_nothing() -> None:
    frame = np.zeros((20, 20, 3), np.float32)
    paint(frame, two_coloured_disc(), x=-50.0, y=10.0, radius=5.0)
    assert not frame.any()
