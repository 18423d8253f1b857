"""The verbs every model has, so that training, testing and export need not know which model they hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.models._formats import WeightFormat


class VideoModel(nn.Module, ABC):
    """A network from clips (B, 3, T, H, W) to logits (B, num_classes).

    Attributes:
        model_name: the name `create_model` knows it by.
        num_classes: classes of the head; 0 means the head returns the features before the classifier.
        classifier_prefix: what the names of the classifier's parameters begin with.
        weight_formats: checkpoints of other code bases that `load_weights` can map onto it.
        clip_multiple: (frames, pixels): sizes of a clip must be multiples of these.
        prefers_channels_last: whether it is quicker with clips and weights in channels-last-3d.
    """

    model_name: str
    num_classes: int
    weight_formats: ClassVar[tuple[WeightFormat, ...]] = ()
    classifier_prefix: ClassVar[str] = "head.classifier."
    clip_multiple: tuple[int, int] = (1, 1)
    prefers_channels_last: ClassVar[bool] = True

    head: nn.Module

    @property
    @abstractmethod
    def build_args(self) -> dict[str, Any]:
        """Plain values with which ``create_model(**build_args)`` builds this architecture again."""

    @abstractmethod
    def stages(self) -> list[nn.Module]:
        """The parts before the head in the order a clip passes them, the stem first; for freezing."""

    def blocks(self) -> list[nn.Module]:
        """What the stages are made of: the units that activations are recomputed by and weights sharded by.
        Each is called as a module, its parameters used in that call alone.
        """
        return [
            block
            for stage in self.stages()
            for block in (stage if isinstance(stage, nn.Sequential) else [stage])
        ]

    def layer_ids(self) -> dict[str, int]:
        """Names of parameters -> depth of their layer, 0 for the stem, the head deepest; for learning rates
        that fall with the distance from the head. Here a layer is a stage.
        """
        stages = self.stages()
        depths = {id(p): depth for depth, stage in enumerate(stages) for p in stage.parameters()}
        return {name: depths.get(id(p), len(stages)) for name, p in self.named_parameters()}

    @abstractmethod
    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a newly initialised one on the same device. 0 removes it."""

    def classifier_parameters(self) -> list[str]:
        """Names of the parameters that depend on the classes; a linear probe trains these alone."""
        return [name for name, _ in self.named_parameters() if name.startswith(self.classifier_prefix)]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, beyond norms and biases, which never have any."""
        return set()

    def lr_multipliers(self) -> dict[str, float]:
        """Names of parameters that learn at another rate -> the factor on the learning rate."""
        return {}

    def not_averaged(self) -> set[str]:
        """Names of buffers that follow a schedule: an average of the weights takes them as they are."""
        return set()

    def on_train_progress(self, fraction: float) -> None:
        """Called before the first training step and after each, with the share of the training that is
        done.
        """

    def in_final_form(self) -> bool:
        """False while a schedule still has to change the network: the best weights are chosen after that."""
        return True

    def resize_positions(self, tensors: dict[str, Tensor]) -> list[str]:
        """Bring what is learned for every position to this model's clip: weights about to be loaded, by name,
        changed in place. What was done, in words.
        """
        return []

    def regularization(self) -> Tensor | None:
        """What training adds to the loss, a scalar with its gradient; None for nothing."""
        return None

    def stage_calls(self, x: Tensor) -> Sequence[Callable[[Tensor], Tensor]]:
        """The stages as they are called one behind the other on clips ``x``."""
        return self.stages()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of clips (B, 3, T, H, W)."""
        logits: Tensor = self.head(self.forward_features(x))
        return logits

    def forward_features(self, x: Tensor) -> Tensor:
        """What the last stage gives, before the head."""
        check_clips(x)
        for stage in self.stage_calls(x):
            x = stage(x)
        return x

    def forward_intermediates(self, x: Tensor, *, indices: Sequence[int] | None = None) -> list[Tensor]:
        """Outputs of the stages named by ``indices`` (0 is the stem, negative counts from the end; default
        all).

        They come in the order of the network. Stages behind the last one asked for are not run.
        """
        check_clips(x)
        stages = self.stage_calls(x)
        chosen = range(len(stages)) if indices is None else indices
        if any(not -len(stages) <= i < len(stages) for i in chosen):
            raise UsageError(f"indices={list(chosen)}: {self.model_name} has stages 0 to {len(stages) - 1}")
        wanted = {i % len(stages) for i in chosen}
        outputs = []
        for i, stage in enumerate(stages[: max(wanted, default=-1) + 1]):
            x = stage(x)
            if i in wanted:
                outputs.append(x)
        return outputs


def memory_format(model: nn.Module, channels_last: bool | None = None) -> torch.memory_format:
    """The layout for a model and its clips: as ``channels_last`` says; None: the one the model prefers, for a
    module that does not say channels-last-3d.
    """
    if channels_last is None:
        channels_last = getattr(model, "prefers_channels_last", True)
    return torch.channels_last_3d if channels_last else torch.contiguous_format


def check_clips(x: Tensor) -> None:
    """Raise `UsageError` unless ``x`` has shape (B, 3, T, H, W)."""
    if x.ndim != 5 or x.shape[1] != 3:
        raise UsageError(f"a model takes clips of shape (B, 3, T, H, W), got {tuple(x.shape)}")
