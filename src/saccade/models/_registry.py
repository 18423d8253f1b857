"""The table of models, and the four functions that read it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.models import maskfeat, mvit, rubiksnet, timesformer, vivit, vov3d, x3d
from saccade.models._base import VideoModel
from saccade.models._info import ModelEntry, ModelInfo
from saccade.models._transformer import TransformerConfig

_X3D_SOURCE = "Feichtenhofer, X3D, CVPR 2020, arXiv 2004.04730; github.com/facebookresearch/SlowFast"
_PYSLOWFAST_ZOO = "PySlowFast model zoo"
_RUBIKSNET_SOURCE = "Fan, Buch et al., RubiksNet, ECCV 2020; github.com/StanfordVL/RubiksNet"
_MVIT_SOURCE = "Fan et al., MViT, ICCV 2021, arXiv 2104.11227; github.com/facebookresearch/SlowFast"
_MVITV2_SOURCE = "Li et al., MViTv2, CVPR 2022, arXiv 2112.01526; github.com/facebookresearch/SlowFast"
_MASKFEAT_SOURCE = "Wei et al., MaskFeat, CVPR 2022, arXiv 2112.09133; github.com/"
_TIMESFORMER_SOURCE = (
    "Bertasius et al., TimeSformer, ICML 2021, arXiv 2102.05095; github.com/facebookresearch/TimeSformer"
)
_VIVIT_SOURCE = (
    "Arnab et al., ViViT, ICCV 2021, arXiv 2103.15691; github.com/mx-mark/VideoTransformer-pytorch"
)
_VOV3D_SOURCE = "Lee et al., VoV3D, arXiv 2012.00317; github.com/youngwanLEE/VoV3D"

_TIMESFORMER_SOURCE = (
    "Bertasius et al., TimeSformer, ICML 2021, arXiv 2102.05095; github.com/facebookresearch/TimeSformer"
)
_VIVIT_SOURCE = (
    "Arnab et al., ViViT, ICCV 2021, arXiv 2103.15691; github.com/mx-mark/VideoTransformer-pytorch"
)


def _x3d(build: Callable[..., VideoModel], **info: Any) -> ModelEntry:
    """The line of a named X3D; what follows from its config is taken from there."""
    name = build.__name__
    config = x3d.CONFIGS[name]
    facts = ModelInfo(
        name=name,
        frames=config.num_frames,
        stride=config.stride,
        train_crop=config.train_crop,
        source=_X3D_SOURCE,
        licence="Apache-2.0",
        **info,
    )
    return ModelEntry(build, (*(field.name for field in fields(x3d.X3DConfig)), "norm_layer"), facts)


def _vov3d(build: Callable[..., VideoModel], **info: Any) -> ModelEntry:
    """The line of a named VoV3D; both sizes see the same clips."""
    name = build.__name__
    config = vov3d.CONFIGS[name]
    facts = ModelInfo(
        name=name,
        frames=config.num_frames,
        stride=config.stride,
        train_crop=config.train_crop,
        test_crop=256,
        train_short_side=(256, 320),
        top1_source="VoV3D's repository",
        source=_VOV3D_SOURCE,
        licence="CC-BY-NC-4.0",
        **info,
    )
    return ModelEntry(build, (*(field.name for field in fields(vov3d.VoV3DConfig)), "norm_layer"), facts)


def _rubiksnet(build: Callable[..., VideoModel], **info: Any) -> ModelEntry:
    """The line of a named RubiksNet; all see a frame of each of eight segments, whatever the stride."""
    facts = ModelInfo(
        name=build.__name__,
        frames=8,
        stride=8,
        temporal_rule="tsm",
        train_crop=224,
        test_crop=224,
        train_short_side=(224, 340),
        test_short_side=256,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        gmacs_test=info["gmacs"],
        top1_data="Something-Something v2",
        top1_source="RubiksNet's repository" if "top1" in info else "",
        source=_RUBIKSNET_SOURCE,
        licence="MIT",
        **info,
    )
    overrides = (*(field.name for field in fields(rubiksnet.RubiksNetConfig)), "norm_layer")
    return ModelEntry(build, overrides, facts)


def _mvit(build: Callable[..., VideoModel], *, licence: str = "Apache-2.0", **info: Any) -> ModelEntry:
    """The line of a named MViT or MaskFeat; all are tested at the training crop, the middle of 256 pixels."""
    name = build.__name__
    config = mvit.CONFIGS.get(name) or maskfeat.CONFIGS[name]
    facts = ModelInfo(
        name=name,
        frames=config.num_frames,
        stride=config.stride,
        train_crop=config.train_crop,
        test_crop=config.train_crop,
        train_short_side=(256, 320),
        test_short_side=256,
        gmacs_test=info["gmacs"],
        top1_source=_PYSLOWFAST_ZOO if "top1" in info else "",
        licence=licence,
        **info,
    )
    return ModelEntry(build, tuple(field.name for field in fields(config)), facts)


def _timesformer(build: Callable[..., VideoModel], **info: Any) -> ModelEntry:
    return _clip_transformer(
        build,
        timesformer.CONFIGS[build.__name__],
        source=_TIMESFORMER_SOURCE,
        licence="CC-BY-NC-4.0",
        top1_source="TimeSformer's repository" if "top1" in info else "",
        **info,
    )


def _vivit(build: Callable[..., VideoModel], **info: Any) -> ModelEntry:
    return _clip_transformer(
        build,
        vivit.CONFIGS[build.__name__],
        source=_VIVIT_SOURCE,
        licence="none stated",
        top1_source="VideoTransformer-pytorch's repository" if "top1" in info else "",
        **info,
    )


def _clip_transformer(build: Callable[..., VideoModel], config: TransformerConfig, **info: Any) -> ModelEntry:
    """The line of a named TimeSformer or ViViT; all are tested at the training crop."""
    facts = ModelInfo(
        name=build.__name__,
        frames=config.num_frames,
        stride=config.stride,
        train_crop=config.train_crop,
        test_crop=config.train_crop,
        train_short_side=(256, 320),
        gmacs_test=info["gmacs"],
        **info,
    )
    return ModelEntry(build, tuple(field.name for field in fields(config)), facts)


# Parameters and GMACs are constants so that reading the table builds nothing; a test counts them all anew.
_ENTRIES = (
    # The paper gives X2D no test crop; 128 is the same 8/7 of the training crop as elsewhere.
    # It states 20.67 M multiply-adds: convolutions and linear layers are 20.662 M, 0.04 % less. With the 3072
    # additions of the head's average pool it is 20.665 M, which rounds to the paper's figure.
    _x3d(
        x3d.x2d,
        test_crop=128,
        train_short_side=(128, 160),
        params=1_633_560,
        gmacs=0.020662304,
        gmacs_test=0.025361024,
    ),
    _x3d(
        x3d.x3d_xs,
        test_crop=182,
        train_short_side=(182, 228),
        params=3_794_322,
        gmacs=0.605256512,
        gmacs_test=0.843919472,
        top1=(("10x1", 68.7), ("10x3", 69.5)),
        top1_source=_PYSLOWFAST_ZOO,
    ),
    _x3d(
        x3d.x3d_s,
        test_crop=182,
        train_short_side=(182, 228),
        params=3_794_322,
        gmacs=1.962892112,
        gmacs_test=2.727045164,
        top1=(("10x1", 73.1), ("10x3", 73.5)),
        top1_source=_PYSLOWFAST_ZOO,
    ),
    _x3d(
        x3d.x3d_m,
        test_crop=256,
        train_short_side=(256, 320),
        params=3_794_322,
        gmacs=4.732468736,
        gmacs_test=6.185725184,
        top1=(("10x1", 75.1), ("10x3", 76.2)),
        top1_source=_PYSLOWFAST_ZOO,
    ),
    _x3d(
        x3d.x3d_l,
        test_crop=356,
        train_short_side=(356, 446),
        params=6_153_432,
        gmacs=18.367710176,
        gmacs_test=24.777648768,
        top1=(("10x1", 76.9), ("10x3", 77.5)),
        top1_source=_PYSLOWFAST_ZOO,
    ),
    # PySlowFast has no configuration of XL: short sides and test crop are those of L.
    _x3d(
        x3d.x3d_xl,
        test_crop=356,
        train_short_side=(356, 446),
        params=11_095_904,
        gmacs=35.837627616,
        gmacs_test=48.423725120,
        top1=(("10x1", 78.4), ("10x3", 79.1)),
        top1_source="arXiv 2004.04730",
    ),
    _vov3d(
        vov3d.vov3d_m,
        params=3_667_360,
        gmacs=4.916863360,
        gmacs_test=6.425952640,
        top1=(("10x3", 74.7),),
    ),
    _vov3d(
        vov3d.vov3d_l,
        params=6_297_168,
        gmacs=9.306914048,
        gmacs_test=12.160212224,
        top1=(("10x3", 76.3),),
    ),
    # The 2-clip figures are of its table, those of one clip of its evaluation logs.
    _rubiksnet(
        rubiksnet.rubiksnet_tiny,
        params=1_996_618,
        gmacs=3.695791104,
        top1=(("1x1", 54.6), ("2x3", 56.7)),
    ),
    _rubiksnet(
        rubiksnet.rubiksnet_small,
        params=3_727_768,
        gmacs=6.506781696,
        top1=(("1x1", 57.5), ("2x3", 59.8)),
    ),
    _rubiksnet(
        rubiksnet.rubiksnet_medium,
        params=6_316_024,
        gmacs=10.926563328,
        top1=(("1x1", 58.3), ("2x3", 60.8)),
    ),
    _rubiksnet(
        rubiksnet.rubiksnet_large,
        params=8_668_696,
        gmacs=15.348473856,
        top1=(("1x1", 59.0), ("2x3", 61.7)),
    ),
    # -AQ costs more multiply-adds than the same tier while its choice of frames is soft: three a value.
    _rubiksnet(rubiksnet.rubiksnet_tiny_aq, params=2_001_964, gmacs=3.755738880),
    _rubiksnet(rubiksnet.rubiksnet_small_aq, params=3_734_896, gmacs=6.586712064),
    _rubiksnet(rubiksnet.rubiksnet_medium_aq, params=6_332_944, gmacs=11.029524480),
    _rubiksnet(
        rubiksnet.rubiksnet_large_aq,
        params=8_694_256,
        gmacs=15.479884800,
        top1=(("1x1", 58.6), ("2x3", 61.6)),
    ),
    _timesformer(
        timesformer.timesformer_base, params=121_566_352, gmacs=195.830280192, top1=(("1x3", 77.9),)
    ),
    _timesformer(timesformer.timesformer_base_joint, params=86_112_400, gmacs=179.562805248),
    _timesformer(timesformer.timesformer_base_space, params=86_106_256, gmacs=140.504788992),
    _vivit(vivit.vivit_base, params=115_054_480, gmacs=141.684934656, top1=(("1x1", 75.2),)),
    _vivit(vivit.vivit_base_joint, params=86_702_224, gmacs=180.487649280),
    _vivit(vivit.vivit_base_divided, params=122_156_176, gmacs=196.755124224),
    _mvit(
        mvit.mvit_base_16x4,
        params=36_610_672,
        gmacs=70.599407808,
        top1=(("5x1", 78.4),),
        source=_MVIT_SOURCE,
    ),
    _mvit(
        mvit.mvit_base_32x3,
        params=53_115_280,
        gmacs=235.775815680,
        top1=(("5x1", 80.4),),
        source=_MVIT_SOURCE,
    ),
    _mvit(
        mvit.mvitv2_small,
        params=34_537_744,
        gmacs=68.495667348,
        top1=(("5x1", 81.0),),
        source=_MVITV2_SOURCE,
    ),
    _mvit(
        mvit.mvitv2_base,
        params=51_230_128,
        gmacs=253.143557000,
        top1=(("5x1", 82.9),),
        source=_MVITV2_SOURCE,
    ),
    # The networks of MaskFeat, fine-tuned and while they are pre-trained; the latter have no classes.
    _mvit(
        mvit.mvit_base_maskfeat,
        params=36_607_888,
        gmacs=85.818691776,
        source=f"{_MASKFEAT_SOURCE}mx-mark/VideoTransformer-pytorch",
        licence="none stated",
    ),
    _mvit(
        mvit.mvitv2_small_maskfeat,
        params=36_475_120,
        gmacs=75.433932948,
        top1=(("10x1", 82.2),),
        source=f"{_MASKFEAT_SOURCE}facebookresearch/SlowFast",
    ),
    _mvit(
        maskfeat.maskfeat_mvit_base,
        params=36_466_488,
        gmacs=86.078496960,
        source=f"{_MASKFEAT_SOURCE}mx-mark/VideoTransformer-pytorch",
        licence="none stated",
    ),
    _mvit(
        maskfeat.maskfeat_mvitv2_small,
        params=36_253_356,
        gmacs=90.899951028,
        source=f"{_MASKFEAT_SOURCE}facebookresearch/SlowFast",
    ),
)

_MODELS = {entry.info.name: entry for entry in _ENTRIES}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell pattern such as ``x3d_*``, smallest first within a family."""
    return [name for name in _MODELS if fnmatchcase(name, pattern)]


def model_info(name: str) -> ModelInfo:
    """The facts of a model, without building it. An unknown name raises `UsageError`."""
    return _entry(name).info


def clip_spec(name: str, *, train: bool = False) -> ClipSpec:
    """The clip a model sees.

    The test side has a short side equal to the test crop, as upstream tests with one or three crops. With
    ``train`` it is the training crop, and the smallest short side of its training range.
    """
    return model_info(name).clip_spec(train=train)


def create_model(name: str, num_classes: int = 400, **overrides: Any) -> VideoModel:
    """Build a model with new weights: clips (B, 3, T, H, W), normalised, to logits (B, num_classes).

    Args:
        name: one that `list_models` gives.
        num_classes: 0 builds it without classifier.
        overrides: fields of the architecture's config, e.g. ``gamma_w=0.5`` or ``drop_path=0.1`` for an X3D.

    Raises:
        UsageError: unknown name or override; `ConfigError` if the value of one cannot work.
    """
    entry = _entry(name)
    unknown = sorted(set(overrides) - set(entry.overrides))
    if unknown:
        close = difflib.get_close_matches(unknown[0], entry.overrides, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        options = ", ".join(entry.overrides)
        raise UsageError(f"{name} has no option {', '.join(unknown)}{hint}; its options are {options}")
    return entry.build(num_classes, **overrides)


def option_names(name: str) -> tuple[str, ...]:
    """The options that `create_model` takes for a model. An unknown name raises `UsageError`."""
    return _entry(name).overrides


def _entry(name: str) -> ModelEntry:
    if name in _MODELS:
        return _MODELS[name]
    close = difflib.get_close_matches(name, _MODELS, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"models are {', '.join(_MODELS)}"
    raise UsageError(f"unknown model {name!r}; {hint}")
