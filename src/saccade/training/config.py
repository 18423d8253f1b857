"""The frozen description of one training run. A recipe is a function that returns a `TrainConfig`.

Each field's docstring is the help text of its command-line flag.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_type_hints

from saccade.clip import ClipSpec
from saccade.errors import ConfigError

SCRATCH = "scratch"
"""`ModelConfig.weights` of a run that is to start from scratch although its recipe is for fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network, and the weights it starts from."""

    name: str = ""
    """A name that `saccade models` lists. Empty: the nn.Module that is given to saccade.train."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Fields of the architecture's own config to change, e.g. gamma_d 1 localization true depths [1,2,2]."""
    weights: str = ""
    """Run folder or checkpoint to start from (any format load_weights knows). Empty: from scratch, which a
    recipe for fine-tuning refuses; scratch: from scratch all the same."""
    image_weights: str = ""
    """Checkpoint of a network for images to start from: a ViT (timm, Hugging Face, MAE ...) for TimeSformer
    and ViViT, an MViT for MViT. What came from where is in image_weights.json of the run folder."""
    image_inflate: Literal["temporal_avg", "center_frame"] = "temporal_avg"
    """Filters of several frames start as those for images, divided by the frames, in each of them
    (temporal_avg), or as they are in the middle one alone (center_frame)."""
    image_time: Literal["copy", "zero"] = "copy"
    """Attention in time starts as that in space (copy), or so that it adds nothing at first (zero)."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last block."""
    dropout: float = 0.5
    """Dropout before the classifier."""
    freeze: int = 0
    """Freeze the first N stages (the stem counts as one), batch statistics included. -1: all but the
    classifier (linear probe)."""
    backbone_lr: float = 1.0
    """Multiplier on the learning rate of everything but the classifier."""
    layer_decay: float = 1.0
    """Each stage (each block, for transformers) learns this many times as fast as the next; the head at the
    full rate. 1 is off, 0.75 usual in fine-tuning transformers."""

    @property
    def start(self) -> str:
        """Run folder or checkpoint to start from; empty: from scratch."""
        return "" if self.weights == SCRATCH else self.weights


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What training does to clips: their size and crop, their colours, how they are mixed."""

    short_side: tuple[int, int] | None = None
    """Range of the short side in pixels that a training clip is resized to before the random crop. None: from
    clip.short_side to 1.25 times that."""
    crop: int = 0
    """Side in pixels of the random training crop. 0: the crop of the test side, `clip.crop`."""
    area: tuple[float, float] | None = None
    """Range of the fraction of the frame that a training crop covers before it is resized to `crop`, e.g.
    0.08 1 (Inception's crops, usual for transformers). None: a square of `crop` pixels, not resized."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of width / height of the crops of `area`, before they are resized."""
    inverse_uniform: bool = False
    """Draw 1/short_side uniformly instead of short_side."""
    flip: float | None = None
    """Probability of a horizontal flip. None: 0.5, or 0 with left and right classes (Something-Something).
    If it is set with such classes, flipped clips get the label of the other side."""
    brightness: float = 0.0
    """Colour jitter strength, 0 to 1; 0 is off."""
    contrast: float = 0.0
    """Colour jitter strength, 0 to 1; 0 is off."""
    saturation: float = 0.0
    """Colour jitter strength, 0 to 1; 0 is off."""
    rand_ops: int = 0
    """RandAugment: operations drawn for each clip, 0 is off."""
    rand_magnitude: float = 7.0
    """RandAugment: magnitude, 0 to 10."""
    rand_magnitude_std: float = 0.0
    """RandAugment: standard deviation of the magnitude between operations; PySlowFast uses 0.5."""
    erasing: float = 0.0
    """Random erasing: probability that a rectangle of a clip is erased."""
    mixup: float = 0.0
    """MixUp: parameter of the Beta distribution that the mixing weight is drawn from; 0 is off."""
    cutmix: float = 0.0
    """CutMix: parameter of the Beta distribution that the fraction kept is drawn from; 0 is off."""
    cutmix_shape: Literal["tube", "box"] = "tube"
    """What CutMix cuts out: a rectangle of all frames alike (tube), or of some frames (box)."""
    mix_switch: float = 0.5
    """Fraction of clips mixed by CutMix rather than MixUp, if both are on."""
    mix_probability: float = 1.0
    """Fraction of clips that are mixed."""
    transform: str = ""
    """Name of a registered transform (saccade.transforms.register_transform) applied to each batch last."""
    repeats: int = 1
    """Repeated augmentation: clips of each video in a batch. A batch then holds that many fewer videos, and
    `epochs` counts clips as before: each pass over the videos takes that many epochs."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser and its learning rate."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd uses Nesterov momentum."""
    lr: float
    """Peak learning rate for a global batch of `reference_batch` clips; scaled linearly with the batch."""
    reference_batch: int = 64
    """The batch size that `lr` is stated for."""
    min_lr: float = 0.0
    """Learning rate at the end, for the same reference batch."""
    shift_lr: float | None = None
    """Multiplier on the learning rate of learned shifts. None: the model's own (0.01 for RubiksNet)."""
    momentum: float = 0.9
    """Momentum of sgd."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Averaging coefficients of adamw."""
    weight_decay: float = 5e-5
    """Not applied to norms, biases and the parameters in the model's no_weight_decay()."""
    clip_grad: float = 0.0
    """Largest global gradient norm, 0 is off. Learned shifts are not clipped."""
    schedule: Literal["cosine", "step", "constant", "plateau"] = "cosine"
    """How the rate falls after the warm-up; it is set anew at every step. plateau multiplies it by `gamma`
    when the loss of more than `patience` validations in a row is no better than the best before."""
    patience: int = 2
    """plateau: validations without improvement before the rate drops."""
    steps: tuple[float, ...] = ()
    """Epochs at which a step schedule multiplies the rate by `gamma`."""
    gamma: float = 0.1
    """Factor of each step of the step and plateau schedules."""
    cosine_after_warmup: bool = False
    """The cosine begins at the end of the warm-up, with the full rate, not at the start of the run."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""
    warmup_lr: float = 0.0
    """Learning rate the warm-up starts from, for the same reference batch."""


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """What `TrainConfig.multigrid` does; without effect while that is off."""

    epoch_factor: float = 1.5
    """Epochs of the run as a multiple of `epochs`. Not for x3d-multigrid, whose length is that of the run
    without multigrid in steps."""
    short_factors: tuple[float, ...] = (0.5, 0.5**0.5)
    """Crops of the short cycle as multiples of the training crop; the phase's own crop ends each round."""
    long_frames: tuple[float, ...] = (0.25, 0.5, 0.5, 1.0)
    """Frames of the long cycle as multiples of the clip's. The last is 1."""
    long_crops: tuple[float, ...] = (0.5**0.5, 0.5**0.5, 1.0, 1.0)
    """Crops of the long cycle as multiples of the training crop, as many as long_frames. The last is 1."""
    cycle_ends: tuple[float, ...] = (0.4, 0.65, 0.85)
    """Where long cycles end when the schedule has no steps (cosine, constant), as fractions of the run
    without multigrid; the rest trains at the base shape. A step schedule has one before each step."""
    lr_scaling: Literal["auto", "linear", "sqrt", "none"] = "auto"
    """How the rate grows with the batch of a phase: linear for sgd, the square root for adamw."""
    bn_base_size: int = 8
    """Clips that batch statistics are taken over: a larger batch on a device is split, a smaller one joined
    with those of other devices, whatever `sync_bn` says. 0 leaves the batch norm as it is."""
    evals: int = 3
    """Validations in each phase of a long cycle. 0: every `val_every` epochs instead."""


@dataclass(frozen=True, kw_only=True)
class PeopleConfig:
    """The boxes of people that a detector learns from and is validated on; for task detection alone."""

    train_boxes: str = ""
    """File of detected people with scores, as AVA's, to train on besides the annotated ones. Empty: none."""
    val_boxes: str = ""
    """File of detected people to validate on. Empty: the file among the annotations, or annotated ones."""
    min_score: float = 0.9
    """Detected people with a lower score are left out."""
    full_validation: bool = False
    """Validate every keyframe, not only those whose second is divisible by 4."""


@dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    """What is hidden of a clip and learned from, for task masked alone. What is predicted of it the model
    says: --model.overrides target_kind soft (HOG of scikit-image), hard (HOG of PySlowFast) or pixels."""

    rule: Literal["video-transformer", "pyslowfast"] = "video-transformer"
    """How masks are drawn: one shape held for a stretch of time, or boxes until enough is hidden."""
    ratio: float = 0.4
    """Share that is hidden: of the steps in time and of the tokens in each of those (video-transformer; 15 %
    of all tokens at 0.4), or of all tokens (pyslowfast)."""
    min_patches: int | None = None
    """Tokens of the smallest rectangle, or cells of the smallest box on one step. None: as published, 16 of
    14x14 tokens and as many of other grids; a fifth of a step's cells."""
    coarse: int = 2
    """Tokens a side of the cells that pyslowfast hides as a whole."""
    scored: Literal["centre", "all"] = "centre"
    """Frames on which hidden tokens are learned from: the middle one of each stretch
    (VideoTransformer-pytorch), or all that are predicted (PySlowFast)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a training run. Each field is a flag of ``saccade train``.

    Only ``clip`` has no default. Recipes set most fields; a config without one trains with AdamW, whose rate
    of 1e-3 at 64 clips falls by a cosine.

    Example:
        >>> from saccade.recipes import get_recipe
        >>> config = get_recipe("x3d_ucf10").replace(data="ucf10", epochs=30)
        >>> config.model.name, config.epochs, config.run_dir
        ('x3d_xs', 30, 'runs/x3d_ucf10')
        >>> TrainConfig.from_dict(config.to_dict()) == config
        True
        >>> config = TrainConfig(clip=ClipSpec(num_frames=8, stride=4, crop=112, short_side=128), epochs=10)
        >>> config.optim.name, config.batch_size, config.train_short_side
        ('adamw', 16, (128, 160))
    """

    recipe: str = "my_run"
    """Name recorded with the run."""
    data: str = ""
    """Folder or list file of the data set; Something-Something by its published lists."""
    root: str = ""
    """Folder that the paths of a list start from. Empty: the list's own; for Something-Something: found."""
    task: str = "single-label"
    """single-label: one class a clip. multi-label: any number of classes a clip, binary cross entropy, chosen
    by mAP. localization: which classes at every moment of a video; chosen by charades-25, the loss is that of
    X3D-Multigrid. The last two need a data set that says when actions happen, as Charades does. detection:
    what each person in a box does, as in AVA; chosen by frame-mAP. masked: pre-training without labels, on
    clips of any data set or a plain folder of videos; chosen by the fraction of the targets' variance that is
    explained."""
    people: PeopleConfig = field(default_factory=PeopleConfig)
    masked: MaskedConfig = field(default_factory=MaskedConfig)
    class_names: str = ""
    """Class names in label order: a shipped list (something_v2) or a file. Empty: those of the data set."""
    out: str = ""
    """Run folder. Empty: runs/<recipe>."""
    model: ModelConfig = field(default_factory=ModelConfig)
    clip: ClipSpec
    """The clip as validation, test and prediction see it; training differs in what `augment` says."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(name="adamw", lr=1e-3))
    epochs: float = 30
    """Passes over the training split; fractions are allowed."""
    batch_size: int = 16
    """Clips per optimiser step over all processes, before accumulation splits it."""
    multigrid: Literal["off", "short", "long", "both", "x3d-multigrid"] = "off"
    """Train in batches of many small clips first and of few large ones last: shapes change from batch to
    batch (short), from phase to phase (long), or both (Wu et al. 2020, as PySlowFast does it); or by the
    schedule of X3D-Multigrid. --dry-run shows the plan."""
    grid: GridConfig = field(default_factory=GridConfig)
    accumulate: int = 1
    """Split each optimiser step's batch into this many forward/backward passes, as even as they come; batch
    statistics are then those of the parts."""
    temporal_rule: str = "saccade"
    """How the frames of a clip are chosen. segments, tsm, pyslowfast-ssv2 and vov3d-ssv take one frame of
    each of clip.num_frames segments of the whole video, without regard to clip.stride; the others take
    frames clip.stride apart. See docs/sampling.md."""
    ensemble: Literal["max", "mean"] = "max"
    """What a multi-label test makes of a class's scores in several views: the largest, as PySlowFast on
    Charades, or the mean."""
    positive_weight: float = 1.0
    """Positive weight of the binary cross entropy. 0: for each class, how many times more often it is absent
    than present in the training split."""
    label_smoothing: float = 0.0
    """Fraction of the target spread over all classes; of multi-label targets, over yes and no."""
    ema: float = 0.0
    """Decay of the moving average of the weights, 0 is off. The average is then what is tested and saved."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 uses autocast."""
    channels_last: bool | None = None
    """Store activations as channels-last-3d. None: where the model prefers it."""
    compile: bool = False
    """Run the model through torch.compile."""
    checkpoint_activations: bool = False
    """Keep the input of each block alone and compute the rest again in the backward pass: less memory, about
    a third more time, the same gradients."""
    shard: bool = False
    """With several processes: each keeps its shard of weights, gradients and optimiser state (FSDP2), for
    models that are large beside their activations."""
    sync_bn: bool = False
    """Batch statistics over all processes."""
    precise_bn: int = 0
    """Batches of the base shape from which the batch statistics are taken anew before each validation; 0
    keeps their running averages."""
    seed: int = 0
    """Every random choice of the run comes from this number."""
    deterministic: bool = False
    """On CUDA: allow only algorithms that give the same bits every time (slower). A CPU always does."""
    backend: Literal["auto", "pyav", "torchcodec"] = "auto"
    """What decodes video. auto: pyav. torchcodec needs the extra `torchcodec`."""
    frames_fps: float | None = None
    """Frame rate of videos that are folders of images, if the data set does not state it. None: 30."""
    workers: int = 2
    """Decoding processes per training process; 0 decodes in the training process."""
    cache_mb: int = 0
    """Memory for decoded short-side frames, shared by all workers; 0 is off."""
    max_failures: float = 0.01
    """Fraction of unreadable clips in an epoch above which the run stops; three are always tolerated. 0 stops
    at the first."""
    allow_missing: bool = False
    """Skip missing files with a warning, as in any download of Kinetics."""
    val_fraction: float = 0.2
    """Fraction of the videos held out for validation if the data set has no validation split."""
    val_views: str = "1x1"
    """Views per video of the validation during training: CLIPSxCROPS, or a protocol such as ssv2-1clip."""
    val_every: float = 1
    """Epochs between validations. 0: none; the last weights are saved as the best."""
    test_views: str = ""
    """Views of a final test on the validation split, e.g. 10x1 or ssv2-2clip-3crop. Empty: none."""
    save_minutes: float = 5.0
    """Minutes between checkpoints (last.pt); one is also written after every validation."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    device: str = "auto"
    """cpu, cuda, cuda:1 ... auto takes CUDA where there is one."""
    threads: int = 0
    """CPU threads for torch, 0 leaves its default."""
    tensorboard: bool = False
    """Write TensorBoard events into the run folder too (needs the extra `tensorboard`)."""

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with these fields changed, checked like any other."""
        return replace(self, **changes)

    @property
    def run_dir(self) -> str:
        """The run folder: `out`, or runs/<recipe>."""
        return self.out or f"runs/{self.recipe}"

    @property
    def train_crop(self) -> int:
        """Side of the training crop in pixels."""
        return self.augment.crop or self.clip.crop

    @property
    def train_short_side(self) -> tuple[int, int]:
        """Range of the short side of training clips in pixels."""
        side = self.clip.short_side
        return self.augment.short_side or (side, round(1.25 * side))

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values that JSON and `torch.load(weights_only=True)` can hold."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`. Fields that are not there have their defaults.

        Raises:
            ConfigError: a field is unknown to this version.
        """
        config: TrainConfig = _build(cls, values, "")
        return config


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (tuple, list)) else value


def _build(kind: type, values: dict[str, Any], prefix: str) -> Any:
    types = get_type_hints(kind)
    unknown = sorted(set(values) - {entry.name for entry in fields(kind)})
    if unknown:
        raise ConfigError(f"{prefix}{unknown[0]}: not a field of this version's {kind.__name__}")
    built = {}
    for name, value in values.items():
        if is_dataclass(types[name]):
            value = _build(types[name], value, f"{prefix}{name}.")
        built[name] = tuple(value) if isinstance(value, list) else value
    return kind(**built)


def parse_override(text: str) -> Any:
    """A value of `ModelConfig.overrides` from the command line: JSON (true, false, null, a number, a list, a
    string) or Python's True, False and None; anything else is a string.

    >>> parse_override("true"), parse_override("1e-3"), parse_override("[1,2]"), parse_override("soft")
    (True, 0.001, [1, 2], 'soft')
    """
    plain = {"True": True, "False": False, "None": None}
    if text in plain:
        return plain[text]
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return float(text)  # ".5"
    except ValueError:
        return text
