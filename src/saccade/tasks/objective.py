"""`Objective`, the loss of a training run.

Shape letters: B clips, T frames, H and W pixels, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from saccade.data.types import ClipBatch
from saccade.transforms import TrainTransform


class Step(Protocol):
    """The part of a training step (`saccade.training.step.GradientStep`) that an objective may use."""

    config: Any
    model: nn.Module
    network: Callable[..., Tensor]
    transform: TrainTransform
    processes: Any

    def inputs(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, H, W) after all transforms, and labels."""
        ...

    def prepare(self, batch: ClipBatch, transform: TrainTransform | None = None) -> Tensor:
        """Clips (B, 3, T, H, W) without MixUp and CutMix; ``transform`` replaces that of the run."""
        ...

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast to the precision of the run."""
        ...


class Objective(ABC):
    """The loss of a training run.

    Attributes:
        module: what the loss trains besides the network; it is not saved with the network.
        terms: the parts of the last loss by name, for the log: means over the clips.
        record: plain values that the run folder and its weights state.
        takes_clips: whether its clips are those of `Step.inputs` and `Step.prepare`.
    """

    module: nn.Module | None = None
    takes_clips: ClassVar[bool] = False
    terms: Mapping[str, Tensor] = {}
    record: Mapping[str, Any] = {}

    def notes(self) -> list[str]:
        """Lines for the log at the start."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint stores of the loss, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027  # optional
        """Restore a `state_dict`; empty if the run began without one."""

    def begin(self, step: Step, batch: ClipBatch) -> None:  # noqa: B027  # optional
        """Called with each batch before it is split for gradient accumulation."""

    @abstractmethod
    def __call__(self, step: Step, part: ClipBatch) -> tuple[Tensor, Tensor]:
        """The mean loss of the clips of a part of the batch, and the number of correct clips."""


@dataclass(frozen=True)
class ClipObjective(Objective):
    """A loss of the logits of clips.

    Args:
        loss: (logits, labels, mask of the points inside the video) -> (mean loss over the clips, number of
            correct clips).
    """

    loss: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
    takes_clips: ClassVar[bool] = True

    def __call__(self, step: Step, part: ClipBatch) -> tuple[Tensor, Tensor]:
        x_BCTHW, labels = step.inputs(part)
        with step.autocast():
            logits = step.network(x_BCTHW)
        inside_BL = None if part.inside is None else part.inside.to(logits.device)
        return self.loss(logits.float(), labels, inside_BL)
