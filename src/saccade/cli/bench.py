"""``saccade bench``: speed of models on this machine, and the backends of operators."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from saccade.cli.console import print_json
from saccade.cli.flags import Parser, add_device, add_json, add_threads, positive
from saccade.cli.tables import aligned

if TYPE_CHECKING:
    from saccade.models import ModelInfo


def run(args: list[str]) -> int:
    """Print the measurements, or with ``--info`` the backends."""
    options = _parser().parse_args(args)
    if options.info:
        _print_info(options.json)
        return 0
    rows = _measure(options)
    if options.json:
        print_json(rows)
    else:
        print(_table(rows))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="saccade bench",
        description="Measure a forward pass and a training step of models, for each operator backend.\n"
        "A training step is forward, loss and backward on random clips, without reading video.",
    )
    parser.add_argument("models", nargs="*", default=["x3d_s"], help="model names (default x3d_s)")
    parser.add_argument(
        "--info", action="store_true", help="show versions and the backend of each operator, then exit"
    )
    parser.add_argument(
        "--batch", type=positive, default=2, metavar="N", help="batch size of a training step (default 2)"
    )
    parser.add_argument("--frames", type=positive, metavar="N", help="frames per clip (default: the model's)")
    parser.add_argument("--crop", type=positive, metavar="PIXELS", help="crop (default: the model's)")
    add_device(parser)
    add_threads(parser)
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="autocast precision (default %(default)s)",
    )
    parser.add_argument(
        "--backends",
        default=None,
        metavar="LIST",
        help="operator backends to compare, e.g. native,torch (default: the automatic choice)",
    )
    parser.add_argument(
        "--runs", type=positive, default=5, metavar="N", help="timed passes; the median is shown (default 5)"
    )
    add_json(parser)
    return parser


def _print_info(as_json: bool) -> None:
    import platform

    import torch

    from saccade._version import __version__
    from saccade.ops import backend_report

    report: dict[str, Any] = {
        "saccade": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **backend_report(),
    }
    if as_json:
        print_json(report)
        return
    width = max(map(len, report))
    for name, value in report.items():
        if isinstance(value, dict):  # by operator
            value = ", ".join(f"{key} {entry}" for key, entry in value.items())
        text = "—" if value is None else ("no", "yes")[value] if isinstance(value, bool) else value
        print(f"{name.replace('_', ' '):<{width}}  {text}")


def _measure(options: Namespace) -> list[dict[str, Any]]:

    from saccade.models import model_info
    from saccade.training.processes import keep_freed_memory, pick_device

    device = pick_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    backends: list[str | None] = options.backends.split(",") if options.backends else [None]
    rows = []
    for name in options.models:
        info = model_info(name)
        rows += _rows(info, "forward", backends, 1, options.crop or info.test_crop, device, options)
        crop = options.crop or info.train_crop
        rows += _rows(info, "train", backends, options.batch, crop, device, options)
    return rows


def _rows(
    info: ModelInfo,
    mode: Any,
    backends: list[str | None],
    batch: int,
    crop: int,
    device: Any,
    options: Namespace,
) -> list[dict[str, Any]]:
    """One row per backend; the backends are timed in turns."""
    import torch

    from saccade.evaluation.speed import Stopwatch, random_clips
    from saccade.models import create_model, memory_format
    from saccade.ops import use_backend

    frames = options.frames or info.frames
    dtype = None if options.dtype == "float32" else getattr(torch, options.dtype)
    model = create_model(info.name)
    layout = memory_format(model)
    model = model.to(device, memory_format=layout)
    clips = random_clips(batch, frames, crop, device, layout)
    stopwatches = []
    for backend in backends:
        with use_backend(backend):  # type: ignore[arg-type]
            stopwatches.append(Stopwatch(model, clips, mode, autocast=dtype))
    for _ in range(options.runs):
        for backend, stopwatch in zip(backends, stopwatches, strict=True):
            with use_backend(backend):  # type: ignore[arg-type]
                stopwatch.time()
    return [
        {
            "model": info.name,
            "mode": mode,
            "clip": f"{frames}x{crop}",
            "batch": batch,
            "dtype": options.dtype,
            "device": str(device),
            "threads": torch.get_num_threads(),
            "backend": backend or "auto",
            "ms": 1000 * stopwatch.speed.median,
            "clips_per_second": stopwatch.speed.clips_per_second,
        }
        for backend, stopwatch in zip(backends, stopwatches, strict=True)
    ]


def _table(rows: list[dict[str, Any]]) -> str:
    titles = ["model", "mode", "clip", "batch", "backend", "ms", "clips/s"]
    cells = [titles] + [
        [
            row["model"],
            row["mode"],
            row["clip"],
            str(row["batch"]),
            row["backend"],
            f"{row['ms']:.1f}",
            f"{row['clips_per_second']:.2f}",
        ]
        for row in rows
    ]
    first = rows[0]
    note = f"{first['dtype']}, {first['device']}, {first['threads']} CPU threads; median after a warm-up."
    return "\n".join([*aligned(cells, num_left=5), "", note])
