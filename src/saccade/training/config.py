"""The frozen description of one training run. A recipe is a function that returns a `TrainConfig`.

Each field's docstring is the help text of its command-line flag.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from saccade.clip import ClipSpec


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    name: str
    """A name that `saccade models` lists."""
    overrides: dict[str, float | int | str] = field(default_factory=dict)
    """Fields of the architecture's own config to change, e.g. gamma_d 1 gamma_w 1."""
    weights: str = ""
    """Checkpoint to start from (any format load_weights knows). Empty: from scratch."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last block."""
    dropout: float = 0.5
    """Dropout before the classifier."""
    freeze: int = 0
    """Freeze the first N stages (stem counts as one). -1: all but the classifier (linear probe)."""
    backbone_lr: float = 1.0
    """Multiplier on the learning rate of everything but the classifier."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    short_side: tuple[int, int]
    """Range of the short side in pixels that a training clip is resized to before the random crop."""
    inverse_uniform: bool = False
    """Draw 1/short_side uniformly instead of short_side."""
    flip: float = 0.5
    """Probability of a horizontal flip. 0 where left and right mean something."""
    brightness: float = 0.0
    """Colour jitter strength, 0 is off."""
    contrast: float = 0.0
    saturation: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    name: Literal["sgd", "adamw"] = "sgd"
    lr: float
    """Peak learning rate for a global batch of `reference_batch` clips; scaled linearly with the batch."""
    reference_batch: int = 64
    """The batch size that `lr` is stated for."""
    min_lr: float = 0.0
    """Learning rate at the end, for the same reference batch."""
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-5
    """Not applied to norms, biases and what the model names in no_weight_decay()."""
    clip_grad: float = 0.0
    """Largest global gradient norm, 0 is off."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    steps: tuple[float, ...] = ()
    """Epochs at which a step schedule multiplies the rate by `gamma`."""
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""
    warmup_lr: float = 0.0
    """Learning rate the warm-up starts from, for the same reference batch."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    recipe: str
    """Name of the recipe this run comes from."""
    data: str = ""
    """Folder or list file of the data set."""
    out: str = ""
    """Run folder. Empty: runs/<recipe>."""
    model: ModelConfig
    clip: ClipSpec
    augment: AugmentConfig
    optim: OptimConfig
    epochs: float
    batch_size: int
    """Clips per optimiser step over all processes, before accumulation splits it."""
    accumulate: int = 1
    """Split each optimiser step's batch into this many forward/backward passes."""
    temporal_rule: str = "saccade"
    """How the random training clip is drawn; see saccade.video.sampling."""
    label_smoothing: float = 0.0
    ema: float = 0.0
    """Decay of the moving average of the weights, 0 is off. With it, the average is what is tested and kept."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 uses autocast."""
    channels_last: bool = True
    """Store activations as channels-last-3d."""
    compile: bool = False
    """Run the model through torch.compile."""
    sync_bn: bool = False
    """Batch statistics over all processes."""
    seed: int = 0
    workers: int = 2
    """Decoding processes per training process; 0 decodes in the training process."""
    cache_mb: int = 0
    """Memory for decoded short-side frames, shared by all workers; 0 is off."""
    max_failures: float = 0.01
    """Share of unreadable clips in an epoch above which the run stops."""
    val_views: str = "1x1"
    """Views per video of the validation during training, CLIPSxCROPS."""
    val_every: float = 1
    """Epochs between validations."""
    test_views: str = ""
    """Views of a final test on the validation split, e.g. 10x1. Empty: none."""
    save_minutes: float = 5.0
    """Minutes between two writings of last.pt; it is also written after every validation."""
    device: str = "auto"
    threads: int = 0
    """CPU threads for torch, 0 leaves its default."""
    tensorboard: bool = False

    def replace(self, **changes: Any) -> TrainConfig:
        return replace(self, **changes)
