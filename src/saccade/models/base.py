"""Base class of the models of this package; `saccade.models.contract` covers any other `nn.Module`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from torch import Tensor, nn

from saccade.errors import ConfigError, UsageError
from saccade.layers.streaming import State
from saccade.models import causal, contract
from saccade.models.checks import checked_num_classes
from saccade.models.registry import model_entry

NormLayer = Callable[[int], nn.Module]


class VideoModel(nn.Module, ABC):
    """A network from clips (B, 3, T, H, W) to logits (B, num_classes).

    Attributes:
        config: the dataclass that describes its shape.
        model_name: name for `create_model`: the variant that its config is derived from.
        num_classes: classes of the head; 0 means the head returns the features before the classifier.
        num_features: width of those features.
        classifier_prefix: prefix of the names of the classifier's parameters.
        clip_multiple: (frames, pixels): sizes of a clip must be multiples of these.
        prefers_channels_last: whether it runs faster in channels-last-3d.
    """

    classifier_prefix: ClassVar[str] = "head.classifier."
    clip_multiple: tuple[int, int] = (1, 1)
    prefers_channels_last: ClassVar[bool] = True

    head: nn.Module

    def __init__(self, config: Any, num_classes: int, *, model_name: str, num_features: int) -> None:
        super().__init__()
        self.config = config
        self.model_name = model_name
        self.num_classes = checked_num_classes(num_classes)
        self.num_features = num_features

    @property
    def build_args(self) -> dict[str, Any]:
        """Plain arguments with which ``create_model(**build_args)`` builds the same architecture."""
        named = asdict(model_entry(self.model_name).config)
        changed = {
            key: list(value) if isinstance(value, tuple) else value  # as JSON gives it back
            for key, value in asdict(self.config).items()
            if value != named[key]
        }
        return {"name": self.model_name, "num_classes": self.num_classes, **changed}

    @abstractmethod
    def stages(self) -> list[nn.Module]:
        """The modules before the head in order, the stem first; for freezing."""

    def blocks(self) -> list[nn.Module]:
        """The blocks of the stages: the units of activation checkpointing and of sharding.
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
        return contract.depth_by_stage(self, self.stages())

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a newly initialised one on the same device; 0 classes remove it."""
        self.num_classes = checked_num_classes(num_classes)
        self.head.classifier = nn.Identity()
        if num_classes:
            like = next(self.head.parameters())
            linear = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            self.head.classifier = linear
            self.init_classifier(linear)

    @abstractmethod
    def init_classifier(self, linear: nn.Linear) -> None:
        """Initialise a new classifier."""

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
        """Called before the first training step and after each, with the fraction of steps that is done."""

    def in_final_form(self) -> bool:
        """False while a schedule still has to change the network: the best weights are chosen after that."""
        return True

    def resize_positions(self, tensors: dict[str, Tensor]) -> list[str]:
        """Bring what is learned for every position to this model's clip: weights about to be loaded, by name,
        changed in place. Returns what was done, in words. Here, those of a plain network to a causal one.
        """
        return causal.adapt_plain_weights(self, tensors) if self.is_causal else []

    @property
    def is_causal(self) -> bool:
        """Whether no frame sees a later one, so that the network has a `step`."""
        return bool(getattr(self.config, "causal", False))

    @property
    def receptive_field(self) -> int:
        """Frames that a feature of the last stage depends on by convolutions and shifts. Squeeze-excitation
        over a clip or a window, and the mean of the head, see further.
        """
        return 1 + sum(causal.reach(self))

    @property
    def delay(self) -> int:
        """Frames after its own that a feature of the last stage depends on: 0 if causal."""
        return causal.reach(self)[1]

    def step(self, frame: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits after the next frame of a stream, and the state for the frame after it; causal models only.

        The logits after t frames are those of the first t frames as a clip, in eval mode, up to rounding.
        Nothing is changed in place, and no gradient is computed.

        Args:
            frame: (B, 3, H, W), normalised; B streams, one frame of each.
            state: what the step before returned; None at the beginning. See `saccade.layers.streaming.State`.

        Returns:
            Logits (B, K), and the state, tensors whose first axis is B. Their number and size stay the same
            however long the stream is.

        Raises:
            UsageError: the model is not causal or in training mode, or the state is of another size.

        Example:
            >>> import torch
            >>> from saccade.models import create_model
            >>> model = create_model("x3d_xs", 5, causal=True, gamma_w=0.3, gamma_d=1).eval()
            >>> clip, state = torch.rand(2, 3, 6, 32, 32), None
            >>> for frame in clip.unbind(2):
            ...     logits, state = model.step(frame, state)
            >>> torch.allclose(logits, model(clip), atol=1e-5)
            True
        """
        return causal.step(self, frame, state)

    def regularization(self) -> Tensor | None:
        """What training adds to the loss, a scalar with its gradient; None for nothing."""
        return None

    def stage_calls(self, x: Tensor) -> Sequence[Callable[[Tensor], Tensor]]:
        """The stages as they are called one after the other on clips ``x``."""
        return self.stages()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of clips (B, 3, T, H, W)."""
        logits: Tensor = self.head(self.forward_features(x))
        return logits

    def forward_features(self, x: Tensor) -> Tensor:
        """The output of the last stage, before the head."""
        check_clips(x)
        for stage in self.stage_calls(x):
            x = stage(x)
        return x

    def forward_intermediates(self, x: Tensor, *, indices: Sequence[int] | None = None) -> list[Tensor]:
        """Outputs of the stages named by ``indices`` (0 is the stem, negative counts from the end; default
        all).

        They come in the order of the network. Stages after the last one asked for are not run.
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


def batch_norm(config: Any, norm_layer: NormLayer | None) -> NormLayer:
    """``norm_layer``, or by default a function for `nn.BatchNorm3d` with the config's eps and momentum.

    Raises:
        ConfigError: ``norm_layer`` is not callable.
    """
    if norm_layer is None:
        return lambda channels: nn.BatchNorm3d(channels, eps=config.bn_eps, momentum=config.bn_momentum)
    if not callable(norm_layer):
        raise ConfigError(
            f"norm_layer must be a function from a number of channels to a norm, got {norm_layer!r}"
        )
    return norm_layer


def check_clips(x: Tensor) -> None:
    """Raise `UsageError` unless ``x`` has shape (B, 3, T, H, W)."""
    if x.ndim != 5 or x.shape[1] != 3:
        raise UsageError(f"a model takes clips of shape (B, 3, T, H, W), got {tuple(x.shape)}")
