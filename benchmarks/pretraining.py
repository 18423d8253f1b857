"""Effect of pre-training: validation curves of a network from scratch, fine-tuned and as linear probe.

    python -m benchmarks.pretraining --panel motion "from scratch=runs/mvit_motion" \\
        "fine-tuned=runs/maskfeat_motion_finetune" "linear probe=runs/maskfeat_motion_probe"

The curves are read from metrics.jsonl of existing runs of `saccade train`, the final accuracies from their
tests. Several --panel are drawn side by side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks._record import RESULTS, write_results
from saccade.runs import Run
from saccade.visualize.charts import BLUE, GREY, ORANGE, TEAL, save_figure, styled

COLOURS = (GREY, BLUE, TEAL, ORANGE, "#8c4fc4")
NAME = "pretraining"


def main(args: Sequence[str] = ()) -> None:
    """Write results/pretraining.csv and its chart."""
    panels = [_panel(words) for words in _options(list(args)).panel]
    rows = [_row(panel, label, run) for panel, runs in panels for label, run in runs]
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    print(write_results(NAME, rows))
    save_figure(picture(panels), RESULTS / f"{NAME}.png")


def read_curve(run: Path) -> tuple[list[float], list[float]]:
    """Epochs and validation top-1."""
    records = Run(run).metrics()[0]
    validations = [record for record in records if "val_top1" in record]
    return [record["epoch"] for record in validations], [record["val_top1"] for record in validations]


def picture(panels: Sequence[tuple[str, list[tuple[str, Path]]]]) -> Figure:
    """A chart of accuracy against epochs, with a panel for each data set."""
    with styled():
        figure = Figure(figsize=(5.2 * len(panels), 3.4), layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, runs) in zip(all_axes, panels, strict=True):
            for colour, (label, run) in zip(COLOURS, runs, strict=False):
                axes.plot(*read_curve(run), marker="o", markersize=3, color=colour, label=label)
            axes.set(title=name, xlabel="epoch", ylabel="validation top-1", ylim=(0, None))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(COLOURS))
        return figure


def _row(panel: str, label: str, run: Path) -> dict[str, object]:
    config, (epochs, top1) = Run(run).config, read_curve(run)
    tested = Run(run).test
    views, figures = next(iter(tested.items()), ("", {}))
    return {
        "data": panel,
        "run": label,
        "recipe": config.recipe,
        "seed": config.seed,
        "layer_decay": config.model.layer_decay,
        "epochs": f"{epochs[-1]:g}",
        "top1_early": f"{top1[0]:.4f}",
        "early_epoch": f"{epochs[0]:g}",
        "top1_last": f"{top1[-1]:.4f}",
        "top1_best": f"{max(top1):.4f}",
        "test_views": views,
        "test_top1": f"{figures['top1']:.4f}" if figures else "",
    }


def _panel(words: Sequence[str]) -> tuple[str, list[tuple[str, Path]]]:
    name, *pairs = words
    runs = [pair.partition("=") for pair in pairs]
    if not runs or not all(sign and Run(run).metrics_file.is_file() for _, sign, run in runs):
        raise SystemExit(f"--panel {name}: give LABEL=RUN, each a run folder; got {pairs}")
    if len(runs) > len(COLOURS):
        raise SystemExit(f"--panel {name}: at most {len(COLOURS)} runs")
    return name, [(label, Path(run)) for label, _, run in runs]


def _options(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pretraining",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--panel", nargs="+", action="append", required=True, metavar="WORD", help="NAME LABEL=RUN ..."
    )
    return parser.parse_args(args)


if __name__ == "__main__":
    main(sys.argv[1:])
