"""`saccade convert`: a checkpoint of another code base into safetensors that `load_model` rebuilds."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli._args import Parser
from saccade.cli._outputs import check_file
from saccade.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def run(args: list[str]) -> int:
    """Convert one file and print the report; exit code 0.

    With ``--from-image`` the file is of a network for images, and the model starts from it.
    """
    options = _parser().parse_args(args)
    check_file(options.out, "OUT", what="output", suffixes=(".safetensors",))
    overrides = dict(map(_assignment, options.set))
    if options.from_image and not options.model:
        raise UsageError("--from-image needs --model: which model to start, e.g. timesformer_base")
    from saccade.models import clip_spec, create_model, load_weights, model_info, save_weights
    from saccade.models.checkpoints import num_classes_of, read_state

    if options.model:
        model_info(options.model)  # an unknown name is the first thing to say
    if options.from_image:
        return _from_image(options, overrides)
    state = read_state(options.checkpoint)
    name = options.model or guess(options.checkpoint, state)
    model = create_model(name, num_classes_of(state, name), **overrides)
    report = load_weights(model, options.checkpoint)
    save_weights(model, options.out, {"converted_from": report.format, "clip": asdict(clip_spec(name))})
    print(report.summary())
    print(f"{options.out}: {name}, {model.num_classes} classes")
    return 0


def _from_image(options: Namespace, overrides: dict[str, Any]) -> int:
    from saccade.models import clip_spec, create_model, init_from_image, save_weights

    model = create_model(options.model, **overrides)
    report = init_from_image(model, options.checkpoint, inflate=options.inflate, time=options.time)
    save_weights(
        model,
        options.out,
        {"started_from": report.to_dict(), "clip": asdict(clip_spec(options.model))},
    )
    print(report.summary())
    print(f"{options.out}: {options.model}, its classifier of {model.num_classes} classes is new")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="saccade convert",
        description="Convert a checkpoint "
        "(PySlowFast, PyTorchVideo, X3D-Multigrid, MMAction2, VoV3D, RubiksNet, Saccade).",
    )
    parser.add_argument("checkpoint", help="file to read")
    parser.add_argument("out", help="file to write, .safetensors")
    parser.add_argument("--model", default="", help="model it is of (default: the one whose shapes fit)")
    parser.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="build the model with this option, e.g. head_pool=pytorchvideo or localization=true",
    )
    parser.add_argument(
        "--from-image",
        action="store_true",
        help="the file is a network for images (a ViT of timm, Hugging Face, MAE ...): start --model from it",
    )
    parser.add_argument(
        "--inflate",
        choices=("temporal_avg", "center_frame"),
        default="temporal_avg",
        help="with --from-image: what filters of several frames start as (default %(default)s)",
    )
    parser.add_argument(
        "--time",
        choices=("copy", "zero"),
        default="copy",
        help="with --from-image: what attention in time starts as (default %(default)s)",
    )
    return parser


def _assignment(text: str) -> tuple[str, Any]:
    field, equals, value = text.partition("=")
    if not equals or not field:
        raise UsageError(f"--set takes FIELD=VALUE, got {text!r}")
    try:
        return field, json.loads(value)
    except json.JSONDecodeError:
        return field, value


def guess(path: str, state: dict[str, Tensor]) -> str:
    """The model whose shapes a state dict has; where several share them, the one the file is named after."""
    from saccade.models.checkpoints import guess_models, shorten

    names = guess_models(state)
    if not names:
        raise WeightsError(f"{path}: of no known model, its keys are like {shorten(state)}; use --model")
    stem = Path(path).stem.lower().replace("-", "_")
    named = [name for name in names if f"_{name}_" in f"_{stem}_"]
    if len(names) > 1 and len(named) != 1:
        raise UsageError(f"{path}: {', '.join(names)} all have these weights; choose one with --model")
    return named[0] if named else names[0]
