"""What a `motion` clip shows besides its event: background, camera, distractors, light and noise.

Everything here has the same distribution when played backwards (constant velocities of uniform direction,
sinusoids of uniform phase, stationary noise), so the direction of time can be told from the event alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.data.motion.shapes import Array, Sprite, make_sprite, paint

_MARGIN = 28  # pixels of background beyond each edge: drift and shake stay within it
_NOISE_SIGMA = 3.0


@dataclass(frozen=True)
class Wobble:
    """A smooth stationary signal: two sinusoids of random frequency and phase."""

    amplitude: float
    frequencies: Array  # radians a frame
    phases: Array

    @classmethod
    def draw(cls, rng: np.random.Generator, amplitude: float, *, fastest: float = 0.45) -> Wobble:
        """A signal with frequencies up to ``fastest`` radians a frame."""
        return cls(
            amplitude,
            rng.uniform(0.08, fastest, 2).astype(np.float32),
            rng.uniform(0, 2 * np.pi, 2).astype(np.float32),
        )

    def at(self, t: int) -> float:
        """Its value at frame ``t``, between plus and minus the amplitude."""
        return float(self.amplitude * np.sin(self.frequencies * t + self.phases).sum() / 2)


def background_texture(rng: np.random.Generator, height: int, width: int) -> Array:
    """(height, width, 3): three colours mixed by smooth noise of several scales, sometimes with stripes."""
    palette = rng.uniform(30, 190, (3, 3)).astype(np.float32)
    grey = palette.mean(axis=1, keepdims=True)
    palette = grey + (palette - grey) * 0.8
    value = np.zeros((height, width), np.float32)
    for cells, weight in ((3, 1.0), (6, 0.6), (12, 0.35), (28, 0.22)):
        value += weight * _smooth_noise(rng, height, width, cells)
    value = np.clip((value - value.mean()) / (3.2 * value.std()) + 0.5, 0.0, 1.0)
    if rng.random() < 0.5:
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(0.15, 0.5)
        along = np.cos(angle) * np.arange(width)[None, :] + np.sin(angle) * np.arange(height)[:, None]
        value = np.clip(value + 0.12 * np.sign(np.sin(along * frequency)), 0.0, 1.0).astype(np.float32)
    low = np.clip(2 * value, 0, 1)[..., None]
    high = np.clip(2 * value - 1, 0, 1)[..., None]
    texture = palette[0] + (palette[1] - palette[0]) * low
    return (texture + (palette[2] - texture) * high).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> Array:
    grid = rng.random((cells + 1, cells + 1), dtype=np.float32)
    return _stretched(_stretched(grid, height).T, width).T


def _stretched(grid: Array, size: int) -> Array:
    """``grid`` interpolated smoothly along its first axis to ``size`` rows."""
    position = np.linspace(0, len(grid) - 1, size, endpoint=False)
    index = position.astype(int)
    part = (position - index).astype(np.float32)[:, None]
    part = part * part * (3 - 2 * part)
    return grid[index] + (grid[index + 1] - grid[index]) * part


@dataclass(frozen=True)
class Distractor:
    """A small shape that drifts, spins, swells or blinks in a direction that means nothing."""

    sprite: Sprite
    start: tuple[float, float]
    velocity: tuple[float, float]
    radius: float
    spin: float
    swell: Wobble
    blink: Wobble

    @classmethod
    def draw(cls, rng: np.random.Generator, height: int, width: int) -> Distractor:
        """One for frames of this size."""
        unit = min(height, width)
        direction, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.012) * unit
        return cls(
            make_sprite(
                rng, shapes=("disc", "square", "triangle", "star"), patterns=("halves", "stripes", "shade")
            ),
            (rng.uniform(0, width), rng.uniform(0, height)),
            (speed * np.cos(direction), speed * np.sin(direction)),
            rng.uniform(0.035, 0.07) * unit,
            rng.uniform(-0.15, 0.15),
            Wobble.draw(rng, float(rng.choice([0.0, 0.3]))),
            Wobble.draw(rng, float(rng.choice([0.0, 1.0]))),
        )

    def paint(self, frame: Array, t: int, dx: float, dy: float) -> None:
        """Paint it onto frame ``t``, (H, W, 3), with the camera moved by ``dx`` and ``dy`` pixels."""
        height, width = frame.shape[:2]
        reach = 2 * self.radius
        paint(
            frame,
            self.sprite,
            x=(self.start[0] + self.velocity[0] * t) % (width + 2 * reach) - reach + dx,
            y=(self.start[1] + self.velocity[1] * t) % (height + 2 * reach) - reach + dy,
            radius=self.radius * (1 + self.swell.at(t)),
            angle=self.spin * t,
            alpha=min(1.0, max(0.0, 1.5 - self.blink.amplitude + self.blink.at(t))),
        )


@dataclass(frozen=True)
class Scene:
    """Everything around the event. `begin` gives a frame to paint the event on, `finish` completes it."""

    texture: Array
    drift: tuple[float, float]
    shake: tuple[Wobble, Wobble]
    behind: tuple[Distractor, ...]
    before: tuple[Distractor, ...]
    light: Wobble
    noise: Array
    noise_offsets: Array

    @classmethod
    def draw(cls, rng: np.random.Generator, height: int, width: int, num_frames: int) -> Scene:
        """One for a clip of this size and length."""
        direction, length = rng.uniform(0, 2 * np.pi), rng.uniform(0, 22.0)
        speed = length / num_frames
        shake = rng.uniform(0.3, 2.2)
        distractors = [Distractor.draw(rng, height, width) for _ in range(rng.integers(2, 5))]
        num_behind = int(rng.integers(1, len(distractors)))
        return cls(
            background_texture(rng, height + 2 * _MARGIN, width + 2 * _MARGIN),
            (speed * np.cos(direction), speed * np.sin(direction)),
            (Wobble.draw(rng, shake), Wobble.draw(rng, shake)),
            tuple(distractors[:num_behind]),
            tuple(distractors[num_behind:]),
            Wobble.draw(rng, 0.06),
            rng.normal(0, _NOISE_SIGMA, (height + 32, width + 32, 3)).astype(np.float32),
            rng.integers(0, 32, (num_frames, 2)),
        )

    def camera(self, t: int) -> tuple[float, float]:
        """How far everything is moved at frame ``t`` by the camera: (dx, dy)."""
        return self.shake[0].at(t), self.shake[1].at(t)

    def begin(self, t: int, num_frames: int) -> Array:
        """The background of frame ``t`` with the distractors that lie behind the event, (H, W, 3)."""
        dx, dy = self.camera(t)
        middle = t - (num_frames - 1) / 2  # the drift goes through the middle of the margin at half time
        frame = _shifted(self.texture, self.drift[0] * middle + dx, self.drift[1] * middle + dy)
        for distractor in self.behind:
            distractor.paint(frame, t, dx, dy)
        return frame

    def finish(self, frame: Array, t: int) -> np.ndarray:
        """Distractors in front, light and noise; returns uint8 (H, W, 3)."""
        dx, dy = self.camera(t)
        for distractor in self.before:
            distractor.paint(frame, t, dx, dy)
        top, left = self.noise_offsets[t]
        frame *= 1 + self.light.at(t)
        frame += self.noise[top : top + frame.shape[0], left : left + frame.shape[1]]
        return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def _shifted(texture: Array, dx: float, dy: float) -> Array:
    """The inner part of ``texture`` moved by a fraction of pixels, bilinear."""
    height, width = texture.shape[0] - 2 * _MARGIN, texture.shape[1] - 2 * _MARGIN
    x, y = _MARGIN - dx, _MARGIN - dy
    left, top = int(np.floor(x)), int(np.floor(y))
    fx, fy = np.float32(x - left), np.float32(y - top)
    part = texture[top : top + height + 1, left : left + width + 1]
    rows = part[:-1] + (part[1:] - part[:-1]) * fy
    return rows[:, :-1] + (rows[:, 1:] - rows[:, :-1]) * fx
