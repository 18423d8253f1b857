"""``saccade models``: list the models."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from saccade.cli.console import print_json
from saccade.cli.flags import Parser, add_json, add_overrides, add_threads, positive
from saccade.cli.tables import aligned
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.models import ModelInfo, StreamFacts


def run(args: list[str]) -> int:
    """Print the table."""
    options = _parser().parse_args(args)
    from saccade.models import list_models, model_info
    from saccade.models.registry import option_names

    names = list_models(options.pattern)
    if not names:
        raise UsageError(f"no model matches {options.pattern!r}; models are: {', '.join(list_models())}")
    overrides = options.overrides
    if overrides.get("causal"):
        names = [name for name in names if "causal" in option_names(name)]
        if not names:
            raise UsageError(f"no model that matches {options.pattern!r} can be causal")
    infos = [_counted_anew(model_info(name), overrides, options) for name in names]
    latencies = _latencies(infos, overrides, options) if options.latency else {}
    streams = _streams(names, overrides)
    if options.json:
        print_json([_record(info, latencies, streams) for info in infos])
    else:
        _print_table(infos, latencies, streams)
    return 0


def _streams(names: list[str], overrides: dict[str, Any]) -> dict[str, StreamFacts]:
    """The facts of streams by model, with ``--causal``."""
    from saccade.models import stream_facts

    if not overrides.get("causal"):
        return {}
    facts = {name: stream_facts(name, **overrides) for name in names}
    return {name: found for name, found in facts.items() if found is not None}


def _parser() -> Parser:
    parser = Parser(
        prog="saccade models",
        description="List the models with parameters, GMACs, clip and published accuracy.",
    )
    parser.add_argument("pattern", nargs="?", default="*", help="pattern of model names, e.g. 'x3d_*'")
    parser.add_argument(
        "--latency", action="store_true", help="measure a forward pass on this machine (float32, batch 1)"
    )
    parser.add_argument(
        "--runs", type=positive, default=5, metavar="N", help="timed passes; the median is shown (default 5)"
    )
    parser.add_argument("--frames", type=positive, metavar="N", help="build and count for clips of N frames")
    parser.add_argument(
        "--crop", type=positive, metavar="PIXELS", help="count at this crop (default: at both of the model)"
    )
    parser.add_argument(
        "--num-classes", type=positive, default=400, metavar="N", help="count with N classes (default 400)"
    )
    add_threads(parser)
    add_overrides(parser)
    add_json(parser)
    return parser


def _counted_anew(info: ModelInfo, overrides: dict[str, Any], options: Namespace) -> ModelInfo:
    """``info`` with other options, classes, frames or crop, counted again and without published accuracy."""
    if not overrides and options.num_classes == 400 and not (options.frames or options.crop):
        return info
    import torch

    from saccade.models.counts import count_macs, count_params

    frames = options.frames or int(overrides.get("num_frames", info.frames))
    with torch.device("meta"):
        model = _build(info, overrides, options)
    crops = (options.crop, options.crop) if options.crop else (info.train_crop, info.test_crop)
    try:
        gmacs = [count_macs(model, (1, 3, frames, crop, crop)) / 1e9 for crop in crops]
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"{info.name}: does not take clips of {frames} frames and {crops[0]} pixels; it is built for "
            f"{info.frames} frames and {info.train_crop} pixels (--model.overrides changes that)"
        ) from error
    return replace(
        info,
        params=count_params(model),
        frames=frames,
        train_crop=crops[0],
        test_crop=crops[1],
        gmacs=gmacs[0],
        gmacs_test=gmacs[1],
        top1=(),
    )


def _build(info: ModelInfo, overrides: dict[str, Any], options: Namespace) -> Any:
    """The model with the options, classes and frames of the flags."""
    from saccade.models import create_model, model_info
    from saccade.models.registry import clip_options

    for_clip: dict[str, Any] = {}
    if options.frames:
        crop = model_info(info.name).train_crop
        for_clip = clip_options(info.name, num_frames=options.frames, stride=info.stride, crop=crop)
    return create_model(info.name, options.num_classes, **for_clip | overrides)


def _record(info: ModelInfo, latencies: dict[str, Any], streams: dict[str, StreamFacts]) -> dict[str, Any]:
    record = asdict(info) | {"top1": dict(info.top1)}
    record |= {name: None for name in ("gmacs", "gmacs_test") if math.isnan(record[name])}
    stream = asdict(streams[info.name]) if info.name in streams else {}
    return record | latencies.get(info.name, {}) | stream


def _print_table(infos: list[ModelInfo], latencies: dict[str, Any], streams: dict[str, StreamFacts]) -> None:
    titles = ["model", "clip", "params M", "GMACs (train)", "GMACs (test)", "top-1 % (views)"]
    of_streams = ["field", "delay", "state MiB", "GMACs (step)"] if streams else []
    rows = [titles + of_streams + (["ms"] if latencies else [])]
    for info in infos:
        cells = [
            info.name,
            f"{info.frames}×{info.stride}" if info.temporal_rule == "saccade" else f"{info.frames} segments",
            f"{info.params / 1e6:.2f}",
            f"{_figure(info.gmacs)} ({info.train_crop})",
            f"{_figure(info.gmacs_test)} ({info.test_crop})",
            " ".join(f"{top1} ({views})" for views, top1 in info.top1) or "—",
        ]
        if info.name in streams:
            facts = streams[info.name]
            cells += [f"{facts.receptive_field}", f"{facts.delay}"]
            cells += [f"{facts.state_mib:.1f}", _figure(facts.gmacs_step)]
        elif streams:
            cells += ["—"] * 4
        if latencies:
            cells.append(f"{latencies[info.name]['latency_ms']:.0f}")
        rows.append(cells)
    print("\n".join(aligned(rows)))
    print(_footnote(infos, latencies, streams))


def _footnote(infos: list[ModelInfo], latencies: dict[str, Any], streams: dict[str, StreamFacts]) -> str:
    sources: dict[tuple[str, str], list[str]] = {}
    for info in infos:
        if info.top1:
            sources.setdefault((info.top1_data, info.top1_source), []).append(info.name)
    lines = [
        "",
        "Clip: frames × stride at 30 frames per second, or one frame from each of N segments of the video.",
        "GMACs: 10⁹ multiply-adds of convolutions, linear layers and attention for one clip at the training",
        "and the test crop; multiply by the number of views for the cost of a video.",
        *(
            f"Top-1 of {', '.join(names)} on {data}: {source}, not measured here."
            for (data, source), names in sources.items()
        ),
    ]
    if streams:
        lines += [
            "Field: frames that a feature depends on; delay: how many of them are later ones. State of one",
            "stream (float32) and multiply-adds of one step, at the training crop.",
        ]
    if latencies:
        first = next(iter(latencies.values()))
        lines.append(
            f"ms: one clip at the test crop, median of {first['latency_runs']} passes, batch 1, float32, "
            f"{first['latency_device']}, {first['latency_threads']} threads."
        )
    return "\n".join(lines)


def _figure(value: float) -> str:
    """Three significant digits; "—" for NaN."""
    if math.isnan(value):
        return "—"
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}" if value >= 0.1 else f"{value:.4f}"


def _latencies(
    infos: list[ModelInfo], overrides: dict[str, Any], options: Namespace
) -> dict[str, dict[str, Any]]:
    """Median latency of a forward pass at the test crop, and its conditions, for each model."""
    import torch

    measured = {}
    for info in infos:
        if sys.stderr.isatty():
            print(f"timing {info.name} ...", end="\r", file=sys.stderr)
        measured[info.name] = {
            "latency_ms": 1000 * _median_seconds(info, overrides, options),
            "latency_runs": options.runs,
            "latency_threads": torch.get_num_threads(),
            "latency_device": "CPU",
        }
    return measured


def _median_seconds(info: ModelInfo, overrides: dict[str, Any], options: Namespace) -> float:
    from saccade.evaluation.speed import Stopwatch, random_clips, take_turns
    from saccade.models import memory_format

    model = _build(info, overrides, options)
    layout = memory_format(model)
    clip = random_clips(1, info.frames, info.test_crop, "cpu", layout)
    model = model.to(memory_format=layout)
    return take_turns([Stopwatch(model, clip, "forward")], options.runs)[0].median
