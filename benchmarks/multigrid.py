"""A recipe with and without multigrid: accuracy against training time and against clips seen.

    python -m benchmarks.multigrid --data data/motion                   # x3d_motion, four modes, three seeds
    python -m benchmarks.multigrid --data ucf10 --recipe x3d_ucf10
    python -m benchmarks.multigrid --data data/motion --only-report     # only of existing runs

The runs are executed one after the other with `saccade train`. Interrupted runs are resumed, finished runs
are not repeated. All numbers come from metrics.jsonl: seconds of computing, seconds of waiting for decoded
clips, clips seen. Validation time is excluded. Flags after ``--`` are passed to all runs, e.g. ``--
--workers 1 --epochs 20``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks._record import RESULTS, write_results
from saccade.files import write_json
from saccade.visualize.charts import BLUE, GREY, ORANGE, TEAL, save_figure, styled

MODES = ("off", "short", "long", "both")
COLOURS = {"off": GREY, "short": TEAL, "long": ORANGE, "both": BLUE, "x3d-multigrid": "#8c4fc4"}


@dataclass(frozen=True)
class Curve:
    """The validations of a run.

    Attributes:
        top1: accuracy, 0..1.
        clips: clips seen before each validation.
        compute, data: seconds of training before each validation, spent computing and waiting for clips.
    """

    mode: str
    seed: int
    top1: np.ndarray
    clips: np.ndarray
    compute: np.ndarray
    data: np.ndarray

    @property
    def seconds(self) -> np.ndarray:
        return self.compute + self.data

    def seconds_to(self, top1: float) -> float | None:
        """Training time until a validation reached this accuracy; None if none did."""
        reached = np.flatnonzero(self.top1 >= top1)
        return float(self.seconds[reached[0]]) if len(reached) else None


def main(args: list[str]) -> None:
    options, flags = _options(args)
    root = Path(options.out or f"runs/multigrid/{options.recipe}")
    curves = []
    for seed in range(options.seeds):
        for mode in options.modes:
            folder = root / f"{mode}-seed{seed}"
            if not options.only_report:
                train(options.recipe, mode, seed, options.data, folder, flags)
            if (folder / "metrics.jsonl").is_file():
                curves.append(read_curve(folder, mode, seed))
    if not curves:
        raise SystemExit(f"{root}: contains no runs")
    rows = summarise(options.recipe, curves)
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    name = f"multigrid_{options.recipe}"
    print(f"wrote {write_results(name, rows).name}")
    save_figure(picture(curves, title=f"{options.recipe}, {options.seeds} seeds"), RESULTS / f"{name}.png")
    print(f"wrote {name}.png")


def train(recipe: str, mode: str, seed: int, data: str, folder: Path, flags: Sequence[str]) -> None:
    """Start or resume a run unless it is finished; an existing run must have the same settings."""
    settings = {"recipe": recipe, "data": str(Path(data).resolve()), "flags": list(flags)}
    settings_file = folder.with_name(f"{folder.name}.asked.json")
    if folder.is_dir():
        text = settings_file.read_text(encoding="utf-8") if settings_file.is_file() else "null"
        if (previous := json.loads(text)) != settings:
            raise SystemExit(
                f"{folder}: contains a run with other settings ({previous}, not {settings}); change --out"
            )
    if (folder / "report.html").is_file():
        return
    command = [sys.executable, "-m", "saccade", "train", recipe, "--out", str(folder)]
    if (folder / "last.pt").is_file():
        command += ["--resume"]
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_json(settings_file, settings)
        command += ["--data", data, "--multigrid", mode, "--seed", str(seed), *flags]
    print(f"== {recipe}, multigrid {mode}, seed {seed}", flush=True)
    subprocess.run(command, check=True)


def read_curve(folder: Path, mode: str, seed: int) -> Curve:
    """Read metrics.jsonl of a run. For a resumed run, only steps that were kept count."""
    points: list[tuple[float, float, float, float]] = []
    compute = data = clips = 0.0
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if "loss" in record:
            compute += record["compute_seconds"]
            data += record["data_seconds"]
            clips = record["clips"]
        if "val_top1" in record:
            points.append((record["val_top1"], clips, compute, data))
    return Curve(mode, seed, *(np.array(column) for column in zip(*points, strict=True)))


def summarise(recipe: str, curves: Sequence[Curve]) -> list[dict[str, object]]:
    """A row for each mode; the goal is the mean final accuracy of the runs without multigrid."""
    by_mode = {mode: [c for c in curves if c.mode == mode] for mode in COLOURS}
    baseline = by_mode["off"]
    goal = statistics.mean(float(c.top1[-1]) for c in baseline) if baseline else None
    baseline_seconds = statistics.mean(float(c.seconds[-1]) for c in baseline) if baseline else None
    rows: list[dict[str, object]] = []
    for mode, runs in by_mode.items():
        if not runs:
            continue
        last = [float(c.top1[-1]) for c in runs]
        seconds = statistics.mean(float(c.seconds[-1]) for c in runs)
        times = [c.seconds_to(goal) for c in runs] if goal is not None else []
        reached = [time for time in times if time is not None]
        rows.append(
            {
                "recipe": recipe,
                "multigrid": mode,
                "seeds": len(runs),
                "top1_last_mean": f"{statistics.mean(last):.4f}",
                "top1_last_spread": f"{statistics.pstdev(last):.4f}",
                "top1_best_mean": f"{statistics.mean(float(c.top1.max()) for c in runs):.4f}",
                "clips": int(runs[0].clips[-1]),
                "seconds": f"{seconds:.1f}",
                "compute_seconds": f"{statistics.mean(float(c.compute[-1]) for c in runs):.1f}",
                "data_seconds": f"{statistics.mean(float(c.data[-1]) for c in runs):.1f}",
                "times_faster": f"{baseline_seconds / seconds:.2f}" if baseline_seconds else "",
                "runs_at_goal": f"{len(reached)}/{len(runs)}" if goal is not None else "",
                "seconds_to_goal": f"{statistics.mean(reached):.1f}" if reached else "",
            }
        )
    return rows


def picture(curves: Sequence[Curve], *, title: str) -> Figure:
    """Charts of accuracy against time and against clips, and of the time for computing and waiting."""
    with styled():
        figure = Figure(figsize=(10.5, 3.4), layout="constrained")
        axes = figure.subplots(1, 3, width_ratios=[3, 3, 2])
        modes = [mode for mode in COLOURS if any(curve.mode == mode for curve in curves)]
        for mode in modes:
            for curve in (curve for curve in curves if curve.mode == mode):
                label = mode if curve.seed == min(c.seed for c in curves if c.mode == mode) else None
                style = {"color": COLOURS[mode], "alpha": 0.75, "linewidth": 1.3}
                axes[0].plot(curve.seconds / 60, curve.top1, label=label, **style)
                axes[1].plot(curve.clips, curve.top1, **style)
        axes[0].set(title=title, xlabel="minutes of training", ylabel="validation top-1")
        axes[1].set(xlabel="clips seen")
        for each in axes[:2]:
            each.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axes[1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g} k"))
        axes[0].legend(title="multigrid", loc="lower right")
        for x, mode in enumerate(modes):
            runs = [curve for curve in curves if curve.mode == mode]
            compute = statistics.mean(float(c.compute[-1]) for c in runs) / 60
            data = statistics.mean(float(c.data[-1]) for c in runs) / 60
            axes[2].bar(x, compute, color=COLOURS[mode])
            axes[2].bar(x, data, bottom=compute, color=COLOURS[mode], alpha=0.35)
        axes[2].set_xticks(range(len(modes)), modes)
        axes[2].set(title="computing, waiting (light)", ylabel="minutes")
        axes[2].grid(axis="x", visible=False)
        return figure


def _options(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    end = args.index("--") if "--" in args else len(args)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.multigrid",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--recipe", default="x3d_motion")
    parser.add_argument("--data", default="data/motion")
    parser.add_argument("--modes", nargs="+", choices=list(COLOURS), default=list(MODES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="", help="folder of the runs; default runs/multigrid/RECIPE")
    parser.add_argument("--only-report", action="store_true", help="do not train")
    return parser.parse_args(args[:end]), args[end + 1 :]


if __name__ == "__main__":
    main(sys.argv[1:])
