"""Models by name: how they are registered, listed and built, and what is known of each.

`register_model` on a function that builds a network is all it takes to add one, in this package, in a file of
one's own or in an installed package (entry points of the group ``saccade.models``).
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar, cast, overload

import torch
from torch import nn

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.models.counts import count_macs, count_params
from saccade.plugins import Registry

F = TypeVar("F", bound=Callable[..., nn.Module])


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is known of a named model with 400 classes, without building it.

    Attributes:
        frames: frames of a clip; stride: one is taken every so many at ``fps`` frames per second.
        temporal_rule: how published clips were sampled; a segment rule has no stride.
        train_crop, test_crop: side in pixels of the square the network sees.
        test_short_side: that test frames are resized to; 0 is the test crop.
        train_short_side: range in pixels the short side is resized to in training.
        mean, std: per RGB channel, on values scaled to 0..1.
        params: number of parameters.
        gmacs, gmacs_test: multiply-adds of convolutions, linear layers and attention for one clip, in 10⁹, at
            the training and at the test crop; NaN if they cannot be counted.
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
    params: int = 0
    gmacs: float = math.nan
    gmacs_test: float = math.nan
    top1: tuple[tuple[str, float], ...] = ()
    top1_data: str = "Kinetics-400"
    top1_source: str = ""
    source: str = ""
    licence: str = ""

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


@dataclass
class ModelEntry:
    """A registered model.

    Attributes:
        build: called with ``num_classes`` and the overrides.
        config: the dataclass of the variant, if it has one; its fields are options.
        options: the keyword arguments that ``build`` takes; None if it takes any.
        plain_options: those that can be given as text or numbers.
        info: its facts; ``params`` and GMACs are counted when asked for if they were not given.
    """

    build: Callable[..., nn.Module]
    config: Any
    options: tuple[str, ...] | None
    plain_options: tuple[str, ...]
    info: ModelInfo
    is_counted: bool = field(default=False)

    def check_options(self, overrides: Mapping[str, Any]) -> None:
        """Raise `UsageError` if the model has no option of that name."""
        unknown = [] if self.options is None else sorted(set(overrides) - set(self.options))
        if not unknown:
            return
        known = self.options or ()
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        options = f"its options are {', '.join(known)}" if known else "it has no options"
        raise UsageError(f"{self.info.name} has no option {', '.join(unknown)}{hint}; {options}")


def _adopt(name: str, found: Any) -> None:
    if callable(found):
        register_model(name=name)(found)


_MODELS: Registry[ModelEntry] = Registry("model", group="saccade.models", adopt=_adopt)


# ---------------------------------------------------------------------------------------------- registration


@overload
def register_model(build: F) -> F: ...


@overload
def register_model(**options: Any) -> Callable[[F], F]: ...


def register_model(
    build: F | None = None,
    *,
    name: str = "",
    config: Any = None,
    clip: ClipSpec | None = None,
    options: tuple[str, ...] = (),
    **facts: Any,
) -> F | Callable[[F], F]:
    """Make a model known by name: a decorator for a function (or class) that builds an `nn.Module`.

    The function is called as ``build(num_classes=N, **overrides)``. Its network takes clips (B, 3, T, H, W),
    normalised, and gives logits (B, num_classes). `create_model`, recipes, commands and `load_model` then
    take its name. What else a model can tell training and inference is listed in `saccade.models.contract`.

    Args:
        name: default is the function's name.
        config: a dataclass whose fields the function takes as overrides, or several by the model's name.
            Where it has ``num_frames``, ``stride`` and ``train_crop``, they are the clip's.
        clip: the clip it sees when tested; by default 16 frames, stride 4, 224 of 256 pixels.
        options: keyword arguments behind the function's ``**overrides``, beyond the config's fields.
        facts: further fields of `ModelInfo`. Parameters and GMACs are counted if they are not given.

    Raises:
        UsageError: the name is taken, or the function does not take ``num_classes``.

    Example:
        >>> import torch, saccade
        >>> from saccade import ClipSpec
        >>> @saccade.register_model(clip=ClipSpec(num_frames=4, stride=8, crop=32, short_side=32))
        ... def mean_pixel(num_classes=400, width=8):
        ...     return torch.nn.Sequential(
        ...         torch.nn.Conv3d(3, width, 1), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(),
        ...         torch.nn.Linear(width, num_classes))
        >>> model = saccade.create_model("mean_pixel", num_classes=5, width=16)
        >>> model(torch.zeros(2, 3, 4, 32, 32)).shape
        torch.Size([2, 5])
        >>> saccade.model_info("mean_pixel").params
        3632
    """

    def register(function: F) -> F:
        known_as = name or function.__name__
        own = config[known_as] if isinstance(config, Mapping) else config
        known, plain = _options(known_as, function, own, options)
        info = _info(known_as, own, clip, facts)
        entry = ModelEntry(function, own, known, plain, info)
        entry.is_counted = "params" in facts and "gmacs" in facts
        _MODELS.add(known_as, entry, owner=f"{function.__module__}.{function.__qualname__}")
        return function

    return register if build is None else register(build)


def _options(
    name: str, build: Callable[..., nn.Module], config: Any, more: tuple[str, ...]
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The keyword arguments of a model's function (None: any), and those that are plain values."""
    parameters = inspect.signature(build).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    if "num_classes" not in named and not takes_any:
        raise UsageError(f"register_model: the function of {name} must take num_classes")
    named = tuple(option for option in named if option != "num_classes")
    of_config = tuple(item.name for item in fields(config)) if config is not None else ()
    if config is None and not more:
        return (None if takes_any else named), named
    return (*of_config, *named, *more), (*of_config, *named)


def _info(name: str, config: Any, clip: ClipSpec | None, facts: dict[str, Any]) -> ModelInfo:
    """The facts of a model, those not given taken from its config and its clip."""
    clip = clip or ClipSpec(num_frames=16, stride=4, crop=224, short_side=256)
    of_clip: dict[str, Any] = {
        "frames": getattr(config, "num_frames", clip.num_frames),
        "stride": getattr(config, "stride", clip.stride),
        "train_crop": getattr(config, "train_crop", clip.crop),
        "test_crop": clip.crop,
        "test_short_side": clip.short_side,
        "train_short_side": (clip.short_side, clip.short_side * 5 // 4),
        "mean": clip.mean,
        "std": clip.std,
        "fps": clip.target_fps,
    }
    if "test_crop" in facts:
        of_clip["test_short_side"] = 0
    if "gmacs" in facts:  # the crops are the same where no other figure is given
        of_clip["gmacs_test"] = facts["gmacs"]
    if not facts.get("top1"):
        facts = {**facts, "top1_source": ""}
    try:
        return ModelInfo(name=name, **of_clip | facts)
    except TypeError:
        unknown = sorted(set(facts) - {item.name for item in fields(ModelInfo)})
        raise UsageError(f"register_model: ModelInfo has no field {', '.join(unknown)}") from None


# --------------------------------------------------------------------------------------------------- reading


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell pattern, smallest first within a family; plug-ins come last.

    Example:
        >>> list_models("x3d_?")
        ['x3d_s', 'x3d_m', 'x3d_l']
    """
    return [name for name in _MODELS if fnmatchcase(name, pattern)]


def model_entry(name: str) -> ModelEntry:
    """What was registered under a name. An unknown one raises `UsageError`."""
    return _MODELS[name]


def is_registered(name: object) -> bool:
    """Whether a model of this name exists."""
    return name in _MODELS


def model_info(name: str) -> ModelInfo:
    """What is known of a model: clip, parameters, GMACs, published accuracy, source.

    Raises:
        UsageError: unknown name.

    Example:
        >>> info = model_info("x3d_m")
        >>> info.params, round(info.gmacs, 2), info.clip_spec().num_frames
        (3794322, 4.73, 16)
    """
    entry = _MODELS[name]
    if not entry.is_counted:
        entry.info, entry.is_counted = _counted(entry), True
    return entry.info


def _counted(entry: ModelEntry) -> ModelInfo:
    """The facts with parameters and GMACs counted on a network of 400 classes."""
    name, info = entry.info.name, entry.info
    try:
        model = create_on_meta(name)
    except Exception:  # a network that cannot be built without memory
        model = create_model(name)
    gmacs = []
    for crop in (info.train_crop, info.test_crop):
        try:
            gmacs.append(count_macs(model, (1, 3, info.frames, crop, crop)) / 1e9)
        except Exception:  # an operator that the meta device does not have
            gmacs.append(math.nan)
    return replace(info, params=count_params(model), gmacs=gmacs[0], gmacs_test=gmacs[1])


def clip_spec(name: str, *, train: bool = False) -> ClipSpec:
    """The clip a named model sees; for a model that is built, see `saccade.models.contract.clip_spec`.

    The test side has a short side equal to the test crop, as upstream tests with one or three crops. With
    ``train`` it is the training crop, and the smallest short side of its training range.
    """
    return _MODELS[name].info.clip_spec(train=train)


def create_model(name: str, num_classes: int = 400, **overrides: Any) -> Any:
    """Build a model with new weights: clips (B, 3, T, H, W), normalised, to logits (B, num_classes).

    Models of this package are `VideoModel`s; one that others registered is whatever `nn.Module` its function
    builds, with the attributes ``model_name``, ``num_classes`` and ``build_args`` added where it has none.

    Args:
        name: one that `list_models` gives.
        num_classes: 0 builds it without classifier.
        overrides: options of the model, for ours the fields of the architecture's config, e.g.
            ``gamma_w=0.5`` or ``drop_path=0.1`` for an X3D.

    Raises:
        UsageError: unknown name or override; `ConfigError` if the value of one cannot work.

    Example:
        >>> model = create_model("x3d_s", num_classes=5, drop_path=0.1)
        >>> model.num_classes, model.model_name
        (5, 'x3d_s')
    """
    entry = _MODELS[name]
    entry.check_options(overrides)
    model = entry.build(num_classes=num_classes, **overrides)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name}: its function built a {type(model).__name__}, not an nn.Module")
    for attribute, value in (("model_name", name), ("num_classes", num_classes)):
        if not hasattr(model, attribute):
            setattr(model, attribute, value)
    if not hasattr(model, "build_args") and _is_plain(overrides):
        cast(Any, model).build_args = {"name": name, "num_classes": num_classes, **overrides}
    return model


def create_on_meta(name: str, num_classes: int = 400, **overrides: Any) -> Any:
    """The model on the meta device: its modules, names and shapes, without memory for weights."""
    with torch.device("meta"):
        return create_model(name, num_classes, **overrides)


def _is_plain(values: Mapping[str, Any]) -> bool:
    """Whether JSON gives these values back as they are."""
    try:
        return bool(json.loads(json.dumps(values)) == values)
    except (TypeError, ValueError):
        return False


def config_of(name: str, overrides: Mapping[str, Any]) -> Any:
    """The config of a named variant with some fields changed. An unknown field raises `UsageError`."""
    entry = _MODELS[name]
    entry.check_options(overrides)
    return replace(entry.config, **overrides)


def option_names(name: str) -> tuple[str, ...]:
    """The options of a model that are numbers, text or flags, as a recipe or a command line can give them."""
    return _MODELS[name].plain_options


def clip_options(name: str, *, num_frames: int, stride: int, crop: int) -> dict[str, Any]:
    """The options with which a model is built for training clips of this size; {} if it has none for it."""
    entry = _MODELS[name]
    for_clip = getattr(entry.config, "clip_options", None)
    if for_clip is not None:
        return dict(for_clip(num_frames=num_frames, stride=stride, crop=crop))
    values = {"num_frames": num_frames, "stride": stride, "train_crop": crop}
    return {option: value for option, value in values.items() if option in entry.plain_options}
