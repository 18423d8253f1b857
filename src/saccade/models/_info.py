"""What is known of a model without building it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from saccade.clip import ClipSpec
from saccade.models._base import VideoModel


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The facts of a named model with 400 classes.

    Attributes:
        frames: frames of a clip; stride: one is taken every so many at ``fps`` frames per second.
        temporal_rule: how published clips were cut; of a segment rule there is no stride.
        train_crop, test_crop: side in pixels of the square the network sees.
        test_short_side: that test frames are resized to; 0 is the test crop.
        train_short_side: range in pixels the short side is resized to in training.
        mean, std: per RGB channel, on values scaled to 0..1.
        params: number of parameters.
        gmacs, gmacs_test: multiply-adds of convolutions, linear layers and attention for one clip, in 10⁹,
            at the training and at the test crop.
        top1: published top-1 accuracy in percent, as pairs of views and figure.
        top1_data: the data set it is on; top1_source: where it is published. Not measured by us.
        source: where the architecture comes from; licence: of that code.
    """

    name: str
    frames: int
    stride: int
    train_crop: int
    test_crop: int
    train_short_side: tuple[int, int]
    test_short_side: int = 0
    temporal_rule: str = "saccade"
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    fps: float = 30.0
    params: int
    gmacs: float
    gmacs_test: float
    top1: tuple[tuple[str, float], ...] = ()
    top1_data: str = "Kinetics-400"
    top1_source: str = ""
    source: str
    licence: str

    def clip_spec(self, *, train: bool = False) -> ClipSpec:
        """The clip this model sees: the test side, or the training crop and smallest short side."""
        return ClipSpec(
            num_frames=self.frames,
            stride=self.stride,
            crop=self.train_crop if train else self.test_crop,
            short_side=self.train_short_side[0] if train else self.test_short_side or self.test_crop,
            target_fps=self.fps,
            mean=self.mean,
            std=self.std,
        )


@dataclass(frozen=True)
class ModelEntry:
    """A line of the registry: how to build a model, which overrides that takes, and what is known of it."""

    build: Callable[..., VideoModel]
    overrides: tuple[str, ...]
    info: ModelInfo
