"""``saccade pareto RUN...``: accuracy of trained runs against cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli.console import print_json
from saccade.cli.flags import PICTURES, Parser, add_device, add_json, add_threads, check_file, positive
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.visualize.pareto import Comparison

EXAMPLES = """examples:
  saccade pareto runs/*
  saccade pareto runs/x3d_s runs/rubiksnet_tiny --views 10x1 --latency --out figure.svg

All runs must have been tested with the same views on the same videos. Runs that differ only in the seed are
drawn as one model, with the standard error of their mean.
"""


def run(args: list[str]) -> int:
    """Print the table and write the chart."""
    options = _parser().parse_args(args)
    out = check_file(options.out, what="chart", suffixes=PICTURES)
    from saccade.tasks import figure_name
    from saccade.visualize.charts import save_figure
    from saccade.visualize.frontier import pareto_chart
    from saccade.visualize.pareto import compare_runs, to_rows, with_latency

    comparison = compare_runs(_runs(options.runs), views=options.views)
    measured: dict[str, Any] = {}
    if options.latency:
        measured = _prepare(options.device)
        comparison = with_latency(comparison, device=measured["device"], runs=options.runs_timed)
        measured["runs"] = options.runs_timed
    name = figure_name(comparison.figure)
    title = options.title or f"{name}, {comparison.protocol}, {comparison.entries[0].num_videos} videos"
    save_figure(pareto_chart(comparison.panels(), figure_name=name, title=title), out)
    if options.json:
        about: dict[str, Any] = {"protocol": comparison.protocol, "figure": comparison.figure}
        about |= {"latency": measured or None, "selected": [str(run) for run in comparison.selected]}
        print_json({**about, "models": to_rows(comparison)})
    else:
        _show(comparison, name, measured)
        print(f"chart: {out}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="saccade pareto",
        description="Compare trained runs: accuracy against GMACs, parameters and latency, as a table and a\n"
        "chart with the Pareto front.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folder, or folder of saccade expand, which is replaced by its best run",
    )
    parser.add_argument(
        "--views",
        default="",
        help="view set to compare by, or validation for that of the weights that are kept (default: the "
        "largest that all runs were tested with, else validation)",
    )
    parser.add_argument(
        "--latency", action="store_true", help="measure the latency of one clip on this machine"
    )
    add_device(parser, "cpu")
    add_threads(parser)
    parser.add_argument(
        "--runs-timed",
        type=positive,
        default=10,
        metavar="N",
        help="timed passes; the median is shown (default 10)",
    )
    parser.add_argument("--title", default="", help="title of the chart (default: metric and protocol)")
    parser.add_argument("--out", default="pareto.png", help="chart, .png, .svg or .pdf (default pareto.png)")
    add_json(parser)
    return parser


def _runs(paths: list[str]) -> list[Path]:
    """The run folders among ``paths``; others are reported and skipped."""
    from saccade.visualize.pareto import find_runs

    runs, others = find_runs(paths)
    names = ", ".join(map(str, others))
    if not runs:
        raise UsageError(f"{names}: not a run folder (config.json is missing)")
    if others:
        print(f"saccade: skipped paths that are not run folders: {names}", file=sys.stderr)
    return runs


def _prepare(device_name: str) -> dict[str, Any]:
    """Set up the measurement of latency, and return its conditions."""
    import torch

    from saccade.training.processes import keep_freed_memory, pick_device

    device = pick_device(device_name)
    if device.type == "cpu":
        keep_freed_memory()
    return {"device": str(device), "threads": torch.get_num_threads(), "precision": "float32", "batch": 1}


def _show(comparison: Comparison, figure_name: str, measured: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from saccade.cli.console import output
    from saccade.visualize.frontier import plain_number
    from saccade.visualize.pareto import COSTS

    cost_names = {"gmacs": "GMACs", "params": "params", "latency_ms": "latency"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    for title in (f"{figure_name} %", "±", "GMACs", "params M", *(["ms"] if measured else [])):
        table.add_column(title, justify="right", no_wrap=True)
    with_tests = any(entry.best_p_value is not None for entry in comparison.entries)
    if with_tests:
        table.add_column("p against best", justify="right")
    table.add_column("Pareto-optimal in")
    fronts = {cost: comparison.front(cost) for cost in COSTS}
    for entry in sorted(comparison.entries, key=lambda entry: (-entry.accuracy, entry.gmacs)):
        cells = [escape(entry.name), f"{100 * entry.accuracy:.1f}"]
        cells.append(f"{100 * entry.spread:.1f}" if entry.spread else "-")
        for cost in COSTS if measured else COSTS[:2]:
            value = entry.cost(cost)
            cells.append("-" if value is None else plain_number(value))
        if with_tests:
            p_value = entry.best_p_value
            cells.append("best" if p_value is None else f"{p_value:.2g}{'  same' * entry.like_best}")
        if entry.at_chance:
            cells[0] += " (at chance)"
        table.add_row(*cells, ", ".join(cost_names[cost] for cost in COSTS if entry in fronts[cost]))
    console = output()
    console.print(table)
    notes = [f"{comparison.protocol}, {comparison.entries[0].num_videos} videos; ± is one standard error."]
    if with_tests:
        notes.append(
            "p: that it is right as often as the most accurate, on the same videos (McNemar, exact); "
            "same: p of 0.05 or more, no evidence that they differ."
        )
    if any(entry.at_chance for entry in comparison.entries):
        notes.append("at chance: the 95 % interval reaches the accuracy of naming the most frequent class.")
    if comparison.selected:
        names = ", ".join(map(str, comparison.selected))
        notes.append(f"these videos chose the weights, so the figures are too high: {names}")
    if measured:
        notes.append(
            f"ms: one clip, median of {measured['runs']} passes, float32, {measured['device']}, "
            f"{measured['threads']} threads."
        )
    for note in notes:
        console.print(note, style="dim", soft_wrap=True)
