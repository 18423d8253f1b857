"""``saccade convert``: convert a checkpoint of another code base to safetensors for `load_model`."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli.fields import OVERRIDES, parse_overrides
from saccade.cli.flags import Parser, add_overrides, add_threads, check_file
from saccade.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def run(args: list[str]) -> int:
    """Convert one file and print the report."""
    options = _parser().parse_args(args)
    check_file(options.out, "OUT", what="output", suffixes=(".safetensors",))
    overrides = options.overrides | (parse_overrides(options.set) if options.set else {})
    if options.from_image and not options.model:
        raise UsageError("--from-image needs --model, e.g. timesformer_base")
    from saccade.models import clip_spec, create_model, load_weights, model_info, save_weights
    from saccade.models.checkpoints import num_classes_of, read_state

    if options.model:
        model_info(options.model)  # check the name before reading the file
    if options.from_image:
        return _from_image(options, overrides)
    metadata = {} if options.model else _metadata_of_ours(options.checkpoint)
    if metadata:
        model = create_model(**metadata.pop("model") | overrides)
        name = model.model_name
    else:
        state = read_state(options.checkpoint)
        name = options.model or guess(options.checkpoint, state)
        model = create_model(name, num_classes_of(state, name), **overrides)
    report = load_weights(model, options.checkpoint)
    known = {"converted_from": report.format, "clip": asdict(clip_spec(name))}
    save_weights(model, options.out, known | metadata)
    print(report.summary())
    print(f"{options.out}: {name}, {model.num_classes} classes")
    return 0


def _metadata_of_ours(path: str) -> dict[str, Any]:
    """What a file or run folder written by Saccade says of its model; empty for others."""
    from saccade.models import read_weights
    from saccade.runs import BEST

    file = Path(path) / BEST if Path(path).is_dir() else Path(path)
    if file.suffix != ".safetensors" or not file.is_file():
        return {}
    metadata = read_weights(file)[1]
    return metadata if isinstance(metadata.get("model"), dict) else {}


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
    print(f"{options.out}: {options.model}, with a new classifier of {model.num_classes} classes")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="saccade convert",
        description="Convert a checkpoint of another code base to safetensors.\n"
        "Reads PySlowFast, PyTorchVideo, X3D-Multigrid, MMAction2, VoV3D, RubiksNet, TSM\n"
        "and VideoTransformer-pytorch; with --from-image also image models (timm, Hugging Face, MAE).",
    )
    parser.add_argument("checkpoint", help="file to read")
    parser.add_argument("out", help="file to write, .safetensors")
    parser.add_argument(
        "--model", default="", help="architecture of the checkpoint (default: detected from its shapes)"
    )
    add_overrides(parser)
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help=f"the same as {OVERRIDES}, e.g. head_pool=pytorchvideo",
    )
    add_threads(parser)
    parser.add_argument(
        "--from-image",
        action="store_true",
        help="initialise the video model --model from the checkpoint of an image model",
    )
    parser.add_argument(
        "--inflate",
        choices=("temporal_avg", "center_frame"),
        default="temporal_avg",
        help="with --from-image: how 2-D filters are inflated to 3-D (default %(default)s)",
    )
    parser.add_argument(
        "--time",
        choices=("copy", "zero"),
        default="copy",
        help="with --from-image: initialise temporal attention as a copy of spatial attention, or with an "
        "output projection of zeros (default %(default)s)",
    )
    return parser


def guess(path: str, state: dict[str, Tensor]) -> str:
    """Guess the model from the shapes of a state dict, and from the file name if several fit."""
    from saccade.models.checkpoints import guess_models, shorten

    names = guess_models(state)
    if not names:
        raise WeightsError(f"{path}: matches no known model; its keys are like {shorten(state)}; use --model")
    stem = Path(path).stem.lower().replace("-", "_")
    in_file_name = [name for name in names if f"_{name}_" in f"_{stem}_"]
    if len(names) > 1 and len(in_file_name) != 1:
        raise UsageError(f"{path}: {', '.join(names)} all have these shapes; choose one with --model")
    return in_file_name[0] if in_file_name else names[0]
