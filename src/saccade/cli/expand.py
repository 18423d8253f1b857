"""``saccade expand``: search a network for a data set and a budget by expanding X2D."""

from __future__ import annotations

import shlex
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli.console import print_json
from saccade.cli.fields import parse_fields
from saccade.cli.flags import Parser, add_device, add_json, set_threads
from saccade.cli.tables import aligned
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
    """Run a search and print its result, or rewrite the report of a search."""
    parser = _parser()
    options, rest = parser.parse_known_args(args)
    if options.report:
        return _report(options, rest)
    from_journal = options.resume and not options.data
    search = _resumed(options, args, rest) if from_journal else _search(options, rest)
    if search is None:
        return 0
    result = _replay(options, search) if options.replay else _expand(options, search)
    if options.json:
        from saccade.expansion.result import summary

        print_json(summary(search, result))
    else:
        print(_table(search, result))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="saccade expand",
        description="Search a network for a data set and a budget by expanding X2D, as X3D was found.\n\n"
        "Each step trains one candidate per axis, all of about the same cost, and continues from the best,\n"
        "until the targets are reached.",
        epilog="All fields of the recipe are flags, as in saccade train: --batch-size 8 --optim.lr 0.1",
    )
    parser.add_argument(
        "--data", default="", metavar="PATH", help="data set: a folder of class folders, a list file, ..."
    )
    parser.add_argument(
        "--recipe",
        default=RECIPE,
        help="recipe that trains the candidates: name or file (default %(default)s)",
    )
    parser.add_argument("--out", default="", help=f"folder of the search (default {OUT})")
    _add_steps(parser)
    _add_training(parser)
    _add_modes(parser)
    add_json(parser)
    return parser


def _add_steps(parser: Parser) -> None:
    targets = parser.add_argument_group("targets (at least one; upper limits for the result)")
    targets.add_argument("--target-gmacs", type=float, metavar="G", help="GMACs per clip")
    targets.add_argument("--target-params", type=_number, metavar="N", help="parameters: 3800000 or 3.8M")
    targets.add_argument(
        "--target-latency-ms", type=float, metavar="MS", help="latency per clip, measured on --device"
    )
    targets.add_argument(
        "--target-memory", type=float, metavar="MB", help="memory of weights and activations for one clip"
    )
    steps = parser.add_argument_group("steps")
    steps.add_argument(
        "--axes",
        default="",
        help="axes to expand: fast,temporal,spatial,depth,width,bottleneck (default all)",
    )
    steps.add_argument(
        "--rate",
        type=float,
        default=2.0,
        help="factor by which each step raises the cost (default %(default)s)",
    )
    steps.add_argument(
        "--cost",
        choices=["gmacs", "latency-ms", "memory-mb", "params"],
        default="gmacs",
        help="cost that --rate applies to (default %(default)s)",
    )
    steps.add_argument(
        "--criterion",
        choices=["accuracy", "gain", "ratio"],
        default="accuracy",
        help="select by accuracy, by accuracy gain per doubling of the cost, or by accuracy / cost "
        "(default %(default)s)",
    )
    steps.add_argument(
        "--start",
        default="",
        metavar="NAME=VALUE,...",
        help="first network, e.g. crop=64,width=0.5 (default X2D)",
    )
    steps.add_argument(
        "--duration",
        type=int,
        default=48,
        metavar="FRAMES",
        help="video frames that the first clip with two frames spans (default %(default)s)",
    )
    steps.add_argument(
        "--max-steps", type=int, default=30, metavar="N", help="maximum number of steps (default %(default)s)"
    )


def _add_training(parser: Parser) -> None:
    budget = parser.add_argument_group("training of candidates")
    budget.add_argument("--epochs", type=float, help="epochs of each candidate (default: the recipe's)")
    budget.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="trainings of each candidate (default %(default)s)"
    )
    budget.add_argument(
        "--halving",
        type=int,
        default=0,
        metavar="N",
        help="successive halving: 1 in N candidates continues after each rung (default off)",
    )
    budget.add_argument(
        "--warm-start",
        action="store_true",
        help="initialise candidates with the expanded weights of their parent",
    )
    execution = parser.add_argument_group("execution")
    execution.add_argument(
        "--engine", choices=["process", "ray"], default="process", help="processes on this machine, or Ray"
    )
    execution.add_argument(
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="candidates trained in parallel (default: one per GPU, two on CPUs)",
    )
    execution.add_argument("--address", default="", help="address of the Ray cluster (default: this machine)")
    add_device(execution)
    execution.add_argument(
        "--runtime",
        choices=["saccade", "torch", "compile"],
        default="saccade",
        help="measure latency with our kernels, PyTorch's operators or torch.compile (default %(default)s)",
    )
    execution.add_argument(
        "--latency-runs",
        type=int,
        default=5,
        metavar="N",
        help="timed passes per network; 0 measures no latency (default %(default)s)",
    )


def _add_modes(parser: Parser) -> None:
    modes = parser.add_argument_group("modes")
    modes.add_argument("--resume", action="store_true", help="continue the search in --out")
    modes.add_argument("--overwrite", action="store_true", help="replace the search in --out")
    modes.add_argument(
        "--replay",
        default="",
        metavar="TABLE",
        help="read accuracies from a CSV table instead of training; figure2 is the search of the X3D paper",
    )
    modes.add_argument(
        "--num-classes",
        type=int,
        default=400,
        metavar="N",
        help="number of classes with --replay (default %(default)s)",
    )
    modes.add_argument(
        "--report", action="store_true", help="rewrite the report of the search in --out and exit"
    )
    modes.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="with --report: folders of other searches on the same data set to compare with",
    )


def _report(options: Namespace, rest: list[str]) -> int:
    from saccade.expansion.report import write_report

    if rest:
        raise UsageError(f"unknown flag {rest[0].split('=')[0]}; --report takes only --out and --against")
    print(write_report(Path(options.out or OUT), against=options.against))
    return 0


def _resumed(options: Namespace, args: list[str], rest: list[str]) -> SearchConfig | None:
    """The settings in the journal with the changes of the flags; None after printing help."""
    from saccade.expansion.config import SearchConfig
    from saccade.expansion.journal import read_journal, settings_in, steps_in
    from saccade.training.processes import pick_device

    flags = {arg.split("=")[0].replace("_", "-"): arg for arg in args if arg.startswith("--")}
    extra = [arg for name, arg in flags.items() if name not in _WITH_RESUME]
    if extra:
        raise UsageError(
            f"{extra[0]}: --resume without --data reads the settings from the search in --out; only "
            f"{', '.join(_MAY_CHANGE)} can be changed"
        )
    out = Path(options.out or OUT)
    records = read_journal(out)
    settings = settings_in(records)
    if settings is None:
        raise UsageError(f"{out}: the journal has no settings; give all flags of the search again")
    if "--device" not in flags:
        options.device = settings["device"].split(":")[0]  # cuda:1 -> cuda: the engine assigns the GPUs
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
    from saccade.expansion.axes import parse_axes
    from saccade.expansion.config import AXES, COSTS, SearchConfig, Target
    from saccade.recipes import get_recipe
    from saccade.training.processes import pick_device

    if not (options.data or options.replay):
        raise UsageError("give --data PATH (or --replay TABLE)")
    recipe = get_recipe(options.recipe).replace(data=options.data)
    base = parse_fields(recipe, rest, prog="saccade expand")
    if base is None:
        return None
    limits = (options.target_gmacs, options.target_params, options.target_latency_ms, options.target_memory)
    targets = tuple(
        Target(kind, value) for kind, value in zip(COSTS, limits, strict=True) if value is not None
    )
    cost: Any = options.cost.replace("-", "_")
    uses_latency = "latency_ms" in (cost, *(target.kind for target in targets))
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
        latency_runs=options.latency_runs if uses_latency or not options.replay else 0,
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
                f"--start {part!r}: must be NAME=VALUE, where NAME is one of {', '.join(_START)}"
            ) from None
    return Factors(**values)


def _number(text: str) -> float:
    """Parse ``3.8M``."""
    scale = {"k": 1e3, "m": 1e6, "g": 1e9}.get(text[-1:].lower())
    try:
        return float(text[:-1]) * scale if scale else float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number like 3800000 or 3.8M") from None


def _expand(options: Namespace, search: SearchConfig) -> SearchResult:
    from saccade.expansion.engines import create_engine
    from saccade.expansion.search import run_search

    set_threads(search.base.threads)  # of the latencies; the engine has those of its processes
    engine = create_engine(options.engine, jobs=options.jobs, device=options.device, address=options.address)
    try:
        return run_search(search, engine, resume=options.resume, overwrite=options.overwrite)
    except KeyboardInterrupt as stop:
        again = f"go on with: saccade expand --out {shlex.quote(str(search.out))} --resume"
        raise KeyboardInterrupt(f"{stop or 'interrupted'}; {again}") from None


def _replay(options: Namespace, search: SearchConfig) -> SearchResult:
    from saccade.expansion.replay import FIGURE_2, read_table, replay

    return replay(
        search,
        read_table(FIGURE_2 if options.replay == "figure2" else Path(options.replay)),
        num_classes=options.num_classes,
        resume=options.resume,
        overwrite=options.overwrite,
    )


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
    lines = aligned(rows, num_left=len(titles) + 1)
    final = result.final.candidate
    lines += ["", f"result: {final.name}: {final.factors}"]
    if (search.out / "recipe.json").is_file():
        lines.append(f"train it at full length: saccade train {search.out / 'recipe.json'}")
    return "\n".join(lines)
