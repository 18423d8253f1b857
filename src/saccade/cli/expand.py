"""``saccade expand``: search the network for a data set and a budget by expanding X2D."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli._args import Parser
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.expansion.config import Factors, SearchConfig
    from saccade.expansion.result import SearchResult

RECIPE, OUT = "x2d_expand", "runs/expand"
_MAY_CHANGE = ("--max-steps", "--latency-runs", "--workers", "--threads", "--cache-mb")
_WITH_RESUME = (
    "--resume",
    "--out",
    "--engine",
    "--jobs",
    "--address",
    "--device",
    "--json",
    "--replay",
    "--num-classes",
    *_MAY_CHANGE,
)
_START = {"frames": int, "stride": int, "crop": int, "width": float, "bottleneck": float, "depth": float}


def run(args: list[str]) -> int:
    """Search, and print what was found; 130 if it was interrupted."""
    parser = _parser()
    options, rest = parser.parse_known_args(args)
    if options.report:
        return _report(options, rest)
    again = options.resume and not options.data
    search = _resumed(options, args, rest) if again else _search(options, rest)
    if search is None:
        return 0
    result = _replay(options, search) if options.replay else _expand(options, search)
    print(json.dumps(_summary(search, result), indent=2) if options.json else _table(search, result))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="saccade expand",
        description="Expand X2D step by step, along one axis at a time, until the budget is reached (X3D).\n"
        "Each step trains a candidate per axis, each of about the same cost, and keeps the best.",
        epilog="All fields of the recipe are flags too, as of `saccade train`: --batch-size 8 --optim.lr 0.1",
    )
    parser.add_argument("--data", default="", help="the clips: folder of class folders, list file ...")
    parser.add_argument(
        "--recipe", default=RECIPE, help=f"how candidates train: name or file (default {RECIPE})"
    )
    parser.add_argument("--out", default="", help="folder of the search (default runs/expand)")
    _add_steps(parser)
    _add_training(parser)
    _add_modes(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_steps(parser: Parser) -> None:
    targets = parser.add_argument_group("targets, of which at least one is needed; the result keeps them all")
    targets.add_argument("--target-gmacs", type=float, metavar="G", help="multiply-adds of a clip / 10⁹")
    targets.add_argument("--target-params", type=_number, metavar="N", help="parameters: 3800000 or 3.8M")
    targets.add_argument("--target-latency-ms", type=float, metavar="MS", help="measured, see --device")
    targets.add_argument(
        "--target-memory", type=float, metavar="MB", help="weights and activations of a clip"
    )
    steps = parser.add_argument_group("steps")
    steps.add_argument(
        "--axes", default="", help="fast,temporal,spatial,depth,width,bottleneck (default: all)"
    )
    steps.add_argument("--rate", type=float, default=2.0, help="factor on the cost in each step (default 2)")
    steps.add_argument(
        "--cost",
        choices=["gmacs", "latency-ms", "memory-mb", "params"],
        default="gmacs",
        help="what the factor is on (default gmacs)",
    )
    steps.add_argument(
        "--criterion",
        choices=["accuracy", "gain", "ratio"],
        default="accuracy",
        help="keep the most accurate (default), the largest gain per doubling, or accuracy / cost",
    )
    steps.add_argument("--start", default="", metavar="FIELDS", help="e.g. crop=64,width=0.5 (default: X2D)")
    steps.add_argument(
        "--duration",
        type=int,
        default=48,
        help="frames of the video under the first clip of two (default 48)",
    )
    steps.add_argument("--max-steps", type=int, default=30)


def _add_training(parser: Parser) -> None:
    budget = parser.add_argument_group("budget")
    budget.add_argument("--epochs", type=float, help="of each candidate (default: the recipe's)")
    budget.add_argument("--seeds", type=int, default=1, help="trainings of each candidate (default 1)")
    budget.add_argument(
        "--halving", type=int, default=0, metavar="N", help="successive halving, one in N goes on; 0 off"
    )
    budget.add_argument("--warm-start", action="store_true", help="begin with the parent's weights, expanded")
    where = parser.add_argument_group("where")
    where.add_argument("--engine", choices=["process", "ray"], default="process")
    where.add_argument(
        "--jobs", type=int, default=0, help="candidates that train at a time (0: by the machine)"
    )
    where.add_argument("--address", default="", help="of the Ray cluster (default: this machine's)")
    where.add_argument("--device", default="auto", help="trains, and is measured: auto, cpu, cuda")
    where.add_argument(
        "--runtime",
        choices=["saccade", "torch", "compile"],
        default="saccade",
        help="what the latency is measured with: our kernels, PyTorch's operators, torch.compile",
    )
    where.add_argument(
        "--latency-runs", type=int, default=5, help="timed passes, 0 measures none (default 5)"
    )


def _add_modes(parser: Parser) -> None:
    parser.add_argument(
        "--replay", default="", metavar="TABLE", help="scores from a table; nothing is trained"
    )
    parser.add_argument("--num-classes", type=int, default=400, help="with --replay (default 400)")
    parser.add_argument("--resume", action="store_true", help="go on with the search in the folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the search in the folder")
    parser.add_argument(
        "--report", action="store_true", help="write the report of the search in --out anew, and stop"
    )
    parser.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="with --report: other searches of the data, to tell what was saved and whether they chose alike",
    )


def _report(options: Namespace, rest: list[str]) -> int:
    from saccade.expansion.report import write_report

    if rest:
        raise UsageError(f"unknown flag {rest[0].split('=')[0]}; --report takes --out and --against alone")
    print(write_report(Path(options.out or OUT), against=options.against))
    return 0


def _resumed(options: Namespace, args: list[str], rest: list[str]) -> SearchConfig | None:
    """The settings that the search to resume has, so that they need not be repeated, with what the flags
    change of them; None after printing help.
    """
    from saccade.cli.train import parse_fields
    from saccade.expansion.config import SearchConfig
    from saccade.expansion.journal import read_journal, settings_in, steps_in
    from saccade.training.processes import pick_device

    flags = {arg.split("=")[0].replace("_", "-"): arg for arg in args if arg.startswith("--")}
    extra = [arg for name, arg in flags.items() if name not in _WITH_RESUME]
    if extra:
        raise UsageError(
            f"{extra[0]}: --resume without --data takes all settings from the search in --out but "
            f"{', '.join(_MAY_CHANGE)}"
        )
    out = Path(options.out or OUT)
    records = read_journal(out)
    settings = settings_in(records)
    if settings is None:
        raise UsageError(f"{out}: its journal has no settings; give them again with --resume")
    if "--device" not in flags:
        options.device = settings["device"].split(":")[0]  # also of the engine, which deals out the GPUs
    search = SearchConfig.from_dict(settings)
    base = parse_fields(search.base, rest, prog="saccade expand")
    if base is None:
        return None
    return search.replace(
        base=base,
        out=out,
        device=str(pick_device(options.device)),
        max_steps=options.max_steps if "--max-steps" in flags else max(search.max_steps, steps_in(records)),
        latency_runs=options.latency_runs if "--latency-runs" in flags else search.latency_runs,
    )


def _search(options: Namespace, rest: list[str]) -> SearchConfig | None:
    """The search that the flags describe; None after printing help."""
    from saccade.cli.train import parse_fields
    from saccade.expansion.axes import parse_axes
    from saccade.expansion.config import AXES, COSTS, SearchConfig, Target
    from saccade.recipes import get_recipe
    from saccade.training.processes import pick_device

    if not (options.data or options.replay):
        raise UsageError("give --data PATH, the clips the network is for (or --replay TABLE)")
    recipe = get_recipe(options.recipe).replace(data=options.data)
    base = parse_fields(recipe, rest, prog="saccade expand")
    if base is None:
        return None
    given = (options.target_gmacs, options.target_params, options.target_latency_ms, options.target_memory)
    targets = tuple(
        Target(kind, value) for kind, value in zip(COSTS, given, strict=True) if value is not None
    )
    cost: Any = options.cost.replace("-", "_")
    measured = "latency_ms" in (cost, *(target.kind for target in targets))
    return SearchConfig(
        base=base,
        epochs=base.epochs if options.epochs is None else options.epochs,
        targets=targets,
        out=Path(options.out or OUT),
        cost=cost,
        rate=options.rate,
        criterion=options.criterion,
        axes=parse_axes(options.axes) if options.axes else AXES,
        start=_start(options.start),
        duration=options.duration,
        seeds=options.seeds,
        device=str(pick_device(options.device)),
        runtime=options.runtime,
        latency_runs=options.latency_runs if measured or not options.replay else 0,
        warm_start=options.warm_start,
        halving=options.halving,
        max_steps=options.max_steps,
    )


def _start(text: str) -> Factors:
    from saccade.expansion.config import Factors

    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        kind = _START.get(name.strip())
        try:
            values[name.strip()] = kind(value)  # type: ignore[misc]
        except (TypeError, ValueError):
            raise UsageError(
                f"--start {part!r}: write NAME=VALUE, with a name of {', '.join(_START)}"
            ) from None
    return Factors(**values)


def _number(text: str) -> float:
    """``3.8M`` as a number."""
    scale = {"k": 1e3, "m": 1e6, "g": 1e9}.get(text[-1:].lower())
    try:
        return float(text[:-1]) * scale if scale else float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no number; write 3800000 or 3.8M") from None


def _expand(options: Namespace, search: SearchConfig) -> SearchResult:
    from saccade.expansion.engines import create_engine
    from saccade.expansion.search import run_search

    engine = create_engine(options.engine, jobs=options.jobs, device=options.device, address=options.address)
    return run_search(search, engine, resume=options.resume, overwrite=options.overwrite)


def _replay(options: Namespace, search: SearchConfig) -> SearchResult:
    from saccade.expansion.replay import read_table, replay

    return replay(
        search,
        read_table(Path(options.replay)),
        num_classes=options.num_classes,
        resume=options.resume,
        overwrite=options.overwrite,
    )


def _summary(search: SearchConfig, result: SearchResult) -> dict[str, Any]:
    from saccade.expansion.result import summary

    return summary(search, result)


def _table(search: SearchConfig, result: SearchResult) -> str:
    from saccade.expansion.config import accuracy_name

    titles = ["step", "axis", "frames", "pixels", "width", "bottleneck", "depth", "GMACs", "params", "ms"]
    rows = [[*titles, accuracy_name(search.base.task)]]
    for one in result.path:
        candidate, cost = one.candidate, one.candidate.complexity
        factors = candidate.factors
        rows.append(
            [
                str(candidate.step),
                candidate.axis + (" (contracted)" if candidate.contracted else ""),
                f"{factors.frames}x{factors.stride}",
                str(factors.crop),
                f"{factors.width:g}",
                f"{factors.bottleneck:g}",
                f"{factors.depth:g}",
                f"{cost.gmacs:.3g}",
                f"{cost.params / 1e6:.2f} M",
                "—" if cost.latency_ms is None else f"{cost.latency_ms:.1f}",
                f"{100 * one.accuracy:.1f} %",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    final = result.final.candidate
    lines += ["", f"found: {final.name}: {final.factors}"]
    if (search.out / "recipe.json").is_file():
        lines.append(f"train it at full length: saccade train {search.out / 'recipe.json'}")
    return "\n".join(lines)
