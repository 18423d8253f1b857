"""`saccade models`: the table of models."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from saccade.cli._args import Parser
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.models import ModelInfo


def run(args: list[str]) -> int:
    """Print the table; exit code 0."""
    options = _parser().parse_args(args)
    if options.runs < 1:
        raise UsageError(f"--runs must be at least 1, got {options.runs}")
    from saccade.models import list_models, model_info

    names = list_models(options.pattern)
    if not names:
        raise UsageError(f"no model matches {options.pattern!r}; models are {', '.join(list_models())}")
    infos = [model_info(name) for name in names]
    latencies = _latencies(infos, options.runs, options.threads) if options.latency else {}
    if options.json:
        print(json.dumps([_record(info, latencies) for info in infos], indent=2))
    else:
        _print_table(infos, latencies)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="saccade models",
        description="Parameters, multiply-adds, clip and published accuracy of every model.",
    )
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of names, e.g. 'x3d_*'")
    parser.add_argument("--latency", action="store_true", help="time a forward pass here (float32, batch 1)")
    parser.add_argument("--runs", type=int, default=5, help="forward passes; the median is shown (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _record(info: ModelInfo, latencies: dict[str, Any]) -> dict[str, Any]:
    record = asdict(info) | {"top1": dict(info.top1)}
    record |= {name: None for name in ("gmacs", "gmacs_test") if math.isnan(record[name])}
    return record | latencies.get(info.name, {})


def _print_table(infos: list[ModelInfo], latencies: dict[str, Any]) -> None:
    titles = ["model", "clip", "params M", "GMACs (train)", "GMACs (test)", "top-1 % (views)"]
    rows = [titles + (["ms"] if latencies else [])]
    for info in infos:
        cells = [
            info.name,
            f"{info.frames}×{info.stride}" if info.temporal_rule == "saccade" else f"{info.frames} segments",
            f"{info.params / 1e6:.2f}",
            f"{_figure(info.gmacs)} ({info.train_crop})",
            f"{_figure(info.gmacs_test)} ({info.test_crop})",
            " ".join(f"{top1} ({views})" for views, top1 in info.top1) or "—",
        ]
        if latencies:
            cells.append(f"{latencies[info.name]['latency_ms']:.0f}")
        rows.append(cells)
    # laid out by hand: rich would cut figures off in a narrow terminal
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        name, *figures = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([row[0].ljust(len(name)), *figures]))
    print(_footnote(infos, latencies))


def _footnote(infos: list[ModelInfo], latencies: dict[str, Any]) -> str:
    sources: dict[tuple[str, str], list[str]] = {}
    for info in infos:
        if info.top1:
            sources.setdefault((info.top1_data, info.top1_source), []).append(info.name)
    lines = [
        "",
        "Clip: frames × stride at 30 frames per second, or a frame of each of so many segments of the video.",
        "GMACs: 10⁹ multiply-adds of convolutions, linear layers and attention for one clip at the",
        "training and the test crop; a video costs that times its views.",
        *(
            f"Top-1 on {data} of {', '.join(names)}: {source}, not measured here."
            for (data, source), names in sources.items()
        ),
    ]
    if latencies:
        one = next(iter(latencies.values()))
        lines.append(
            f"ms: one clip at the test crop, median of {one['latency_runs']} passes, batch 1, float32, "
            f"{one['latency_device']}, {one['latency_threads']} threads."
        )
    return "\n".join(lines)


def _figure(value: float) -> str:
    """Three significant digits; "—" if it could not be counted."""
    if math.isnan(value):
        return "—"
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}" if value >= 0.1 else f"{value:.4f}"


def _latencies(infos: list[ModelInfo], runs: int, threads: int) -> dict[str, dict[str, Any]]:
    """Median milliseconds of a forward pass at the test crop, per model, with how it was measured."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    measured = {}
    for info in infos:
        if sys.stderr.isatty():
            print(f"timing {info.name} ...", end="\r", file=sys.stderr)
        measured[info.name] = {
            "latency_ms": 1000 * _median_seconds(info, runs),
            "latency_runs": runs,
            "latency_threads": torch.get_num_threads(),
            "latency_device": "CPU",
        }
    return measured


def _median_seconds(info: ModelInfo, runs: int) -> float:
    from saccade.evaluation.speed import Stopwatch, random_clips, take_turns
    from saccade.models import create_model, memory_format

    model = create_model(info.name)
    layout = memory_format(model)
    clip = random_clips(1, info.frames, info.test_crop, "cpu", layout)
    model = model.to(memory_format=layout)
    return take_turns([Stopwatch(model, clip, "forward")], runs)[0].median
