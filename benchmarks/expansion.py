"""The network found by a search against hand-made networks of the same cost, trained in the same way.

    saccade expand --data data/motion --target-gmacs 0.034 --out runs/expand ...
    python -m benchmarks.expansion --search runs/expand               # three seeds of each shape
    python -m benchmarks.expansion --search runs/expand --epochs 45   # trained for longer

The baselines are the usual alternatives, scaled to the multiply-adds of the network found:

    x3d_xs, x3d_s   clip, bottleneck and depth of the published network, the crop relative to X2D's, and the
                    largest width within the budget; if the smallest width is too large, the crop shrinks
    compound        X2D on X3D-XS's clip, with depth, width and crop scaled by a power of EfficientNet's
                    1.2, 1.1 and 1.15 (Tan and Le, ICML 2019), the largest within the budget

All train like the candidates of the search: its recipe, its epochs, validated once at the end. The network
found is trained again with all seeds, so that the selection of the search does not bias its accuracy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks._record import RESULTS, write_results
from saccade.evaluation import load_result
from saccade.expansion.axes import CROP_STEP, DEPTH_STEP, WIDTH_STEP, Limits
from saccade.expansion.candidate import candidate_config
from saccade.expansion.checks import read_limits
from saccade.expansion.config import Factors, SearchConfig
from saccade.expansion.counting import Meter
from saccade.expansion.history import read_history
from saccade.expansion.search import create_meter
from saccade.models.x3d import BASE_CROP, CONFIGS
from saccade.runs import Run
from saccade.training import train
from saccade.visualize.charts import BLUE, GREY, save_figure, styled

SHAPES = ("found", "x3d_xs", "x3d_s", "compound")
COMPOUND = {"depth": 1.2, "width": 1.1, "crop": 1.15}


def main(args: Sequence[str] = ()) -> None:
    """Run the trainings that are missing, and write results/expansion_<data>.csv and its chart."""
    options = _options(list(args))
    history = read_history(Path(options.search))
    if history.final is None:
        raise SystemExit(f"{options.search}: the search has not ended")
    search = SearchConfig.from_dict(history.settings)
    search = search.replace(epochs=options.epochs or search.epochs)
    limits = read_limits(search.base)
    meter = create_meter(search, limits)
    budget = history.final.candidate.complexity.gmacs
    rows: list[dict[str, object]] = []
    for name in options.shapes:
        factors = (
            history.final.candidate.factors if name == "found" else shape(name, search, limits, meter, budget)
        )
        accuracies = [
            _accuracy(search, factors, name, seed, Path(options.out)) for seed in range(options.seeds)
        ]
        rows.append(_row(name, factors, meter, search, accuracies))
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    name = f"expansion_{Path(search.base.data).name}"
    print(write_results(name, rows))
    save_figure(picture(rows, title=f"{search.epochs:g} epochs, {budget:.3g} GMACs"), RESULTS / f"{name}.png")


def shape(name: str, search: SearchConfig, limits: Limits, meter: Meter, budget: float) -> Factors:
    """The baseline called ``name``, with at most ``budget`` GMACs."""
    cost = meter.cost_function("gmacs")
    clip = Factors.from_config(CONFIGS["x3d_s" if name == "x3d_s" else "x3d_xs"])
    while not limits.span_fits(clip.frames, clip.stride):
        clip = clip.replace(stride=clip.stride - 1)
    if name == "compound":
        start = search.start.replace(frames=clip.frames, stride=clip.stride)

        def scaled(power: float) -> Factors:
            return start.replace(
                depth=_round_to(start.depth * COMPOUND["depth"] ** power, DEPTH_STEP),
                width=_round_to(start.width * COMPOUND["width"] ** power, WIDTH_STEP),
                crop=round(_round_to(start.crop * COMPOUND["crop"] ** power, CROP_STEP)),
            )

        powers = (step / 20 for step in range(-200, 201))
        fitting = [factors for factors in map(scaled, powers) if cost(factors) <= budget]
        if not fitting:
            raise SystemExit(f"compound: the smallest network exceeds {budget:.3g} GMACs")
        return max(fitting, key=cost)
    crop = CROP_STEP * round(clip.crop * search.start.crop / BASE_CROP / CROP_STEP)
    if limits.short_side is not None:
        crop = min(crop, limits.short_side // CROP_STEP * CROP_STEP)
    widths = [round(WIDTH_STEP * step, 2) for step in range(1, 61)]
    for side in range(crop, CROP_STEP, -CROP_STEP):
        published = clip.replace(crop=side)
        fitting = [f for width in widths if cost(f := published.replace(width=width)) <= budget]
        if fitting:
            return max(fitting, key=cost)
    raise SystemExit(f"{name}: the smallest network exceeds {budget:.3g} GMACs")


def _round_to(value: float, step: float) -> float:
    """The multiple of ``step`` nearest to ``value``, at least one step."""
    return round(max(1, round(value / step)) * step, 6)


def _accuracy(search: SearchConfig, factors: Factors, name: str, seed: int, out: Path) -> float:
    """Validation accuracy of one training, which runs only if its folder does not exist."""
    folder = out / f"{name}-{search.epochs:g}-epochs-seed{seed}"
    config = candidate_config(search, factors, name=name, seed=seed, out=folder)
    if not (folder / "report.html").is_file():
        train(config, overwrite=True)
    elif Run(folder).config.replace(data="") != config.replace(data=""):
        raise SystemExit(f"{folder}: contains a run with another config; give another --out")
    return load_result(Run(folder).val_scores).score


def _row(
    name: str, factors: Factors, meter: Meter, search: SearchConfig, accuracies: Sequence[float]
) -> dict[str, object]:
    cost, num = meter.count(factors), len(accuracies)
    return {
        "shape": name,
        "factors": str(factors),
        "gmacs": f"{cost.gmacs:.4f}",
        "params": cost.params,
        "epochs": f"{search.epochs:g}",
        "mean": f"{statistics.mean(accuracies):.4f}",
        "standard_error": f"{statistics.stdev(accuracies) / num**0.5:.4f}" if num > 1 else "",
        "seeds": " ".join(f"{accuracy:.4f}" for accuracy in accuracies),
    }


def picture(rows: Sequence[dict[str, object]], *, title: str) -> Figure:
    """A chart with a dot for each training and a line for the mean."""
    with styled():
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for x, row in enumerate(rows):
            colour = BLUE if row["shape"] == "found" else GREY
            accuracies = [float(accuracy) for accuracy in str(row["seeds"]).split()]
            axes.plot([x] * len(accuracies), accuracies, "o", color=colour, alpha=0.6)
            axes.hlines(float(str(row["mean"])), x - 0.25, x + 0.25, color=colour, linewidth=2)
        axes.set_xticks(range(len(rows)), [f"{row['shape']}\n{row['gmacs']} GMACs" for row in rows])
        axes.set(title=title, ylabel="validation top-1")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="x", visible=False)
        return figure


def _options(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.expansion",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--search", required=True, help="folder of a finished search")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=0.0, help="default: the epochs of the search")
    parser.add_argument("--out", default="runs/expansion_rivals", help="folder of the runs")
    return parser.parse_args(args)


if __name__ == "__main__":
    main(sys.argv[1:])
