"""Accuracy against labelled clips a class: from scratch, image weights, distilled, semi-supervised, MaskFeat.

    python -m benchmarks.few_clips --data ucf10 --work runs/few_clips --minutes 3
    python -m benchmarks.few_clips --data ucf10 --work runs/few_clips --cells "scratch-*" "distilled-5-*"

A cell METHOD-CLIPS-SEED is one training of so many minutes, tested on the validation split, which chooses
nothing: the last weights count. Its clips are drawn from the training split, the same for all methods,
and those of fewer clips are among those of more; the rest of the training split are the unlabelled clips.
A cell that another needs (the teacher of a student, the pre-training of MaskFeat) is trained first.
Finished cells stay, so the command may be stopped and repeated; results/few_clips.csv and .png are
written after each cell.

    scratch      the student of recipe --student, on the labelled clips
    image        TSM on EfficientNet-Lite0 from image weights (extra imagenet), on the labelled clips
    features     the student, with the features of the image network as it is (no labels behind the teacher)
    distilled    the student, taught by `image`, on labelled and unlabelled clips
    pseudo       the student with pseudo-labels of its own (FixMatch) on the unlabelled clips
    maskfeat     MaskFeat's small MViT, pre-trained on all training clips without labels, then fine-tuned
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from benchmarks._record import RESULTS, write_results
from saccade import ClipSpec, TrainConfig, evaluate, load_dataset, train
from saccade.data.types import VideoDataset, VideoItem
from saccade.files import write_json, write_text
from saccade.inference.loading import load_for_inference
from saccade.models import model_info
from saccade.recipes import get_recipe
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig
from saccade.visualize.charts import BLUE, GREY, ORANGE, TEAL, save_figure, styled

NAME = "few_clips"
IMAGE_NET = "tsm_efficientnet_lite0"
METHODS = {
    "scratch": (GREY, "from scratch"),
    "image": (BLUE, "image weights (teacher)"),
    "features": ("#c9a227", "features of the image network"),
    "distilled": (TEAL, "distilled"),
    "pseudo": (ORANGE, "pseudo-labels"),
    "maskfeat": ("#8c4fc4", "MaskFeat"),
}
"""Colour and label of each method."""


@dataclass(frozen=True)
class Cell:
    """One training: method, labelled clips a class, and seed, of the draw of the clips too."""

    method: str
    clips: int
    seed: int

    def __str__(self) -> str:
        return f"{self.method}-{self.clips}-{self.seed}"


@dataclass(frozen=True)
class Benchmark:
    """The options of the command line, and the training and validation videos."""

    options: argparse.Namespace
    videos: VideoDataset
    val: VideoDataset

    def folder(self, name: object) -> Path:
        """The run folder of a cell."""
        return Path(self.options.work) / str(name)

    # ----------------------------------------------------------------------------------------------- data

    def lists(self, cell: Cell) -> tuple[Path, Path]:
        """List files of the labelled clips with the validation clips, and of the other clips."""
        chosen = chosen_clips(self.videos, cell.clips, cell.seed)
        taken = {id(item) for item in chosen}
        others = [item for item in self.videos.items if id(item) not in taken]
        folder, name = Path(self.options.work) / "lists", f"{cell.clips}-{cell.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        files = folder / f"labelled-{name}.csv", folder / f"unlabelled-{name}.csv"
        splits = ((chosen, "train"), (self.val.items, "val")), ((others, "train"),)
        for file, parts in zip(files, splits, strict=True):
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["path", "label", "split"])
            names = self.videos.class_names
            for items, split in parts:
                writer.writerows([str(Path(item.path).resolve()), names[item.label], split] for item in items)
            write_text(file, text.getvalue())
        return files

    # ------------------------------------------------------------------------------------------- trainings

    def config(self, cell: Cell) -> TrainConfig:
        """The training of a cell; what it starts from must be there."""
        labelled, unlabelled = self.lists(cell)
        config = {"image": _image_weights, "maskfeat": self._maskfeat}.get(cell.method, self._student)()
        num_labelled = len(chosen_clips(self.videos, cell.clips, cell.seed))
        config = config.replace(data=str(labelled), batch_size=min(config.batch_size, num_labelled))
        config = self._limited(config, cell, seed=cell.seed, minutes=self.options.minutes)
        if cell.method == "image":
            return config.replace(model=replace(config.model, head_clips=min(200, 4 * num_labelled)))
        if cell.method == "features":
            return config.replace(teacher=IMAGE_NET)
        if cell.method in ("distilled", "pseudo") and len(unlabelled.read_text().splitlines()) > 1:
            config = config.replace(unlabelled=str(unlabelled))
        if cell.method == "distilled":
            return config.replace(teacher=str(self.folder(replace(cell, method="image"))))
        return config

    def _student(self) -> TrainConfig:
        return get_recipe(self.options.student)

    def _maskfeat(self) -> TrainConfig:
        config = get_recipe("maskfeat_ucf10_finetune")
        return config.replace(model=replace(config.model, weights=str(self.folder("maskfeat-pretrain"))))

    def pretraining(self) -> TrainConfig:
        """MaskFeat on all training clips."""
        every, _ = self.lists(Cell("maskfeat", len(self.videos), 0))
        config = get_recipe("maskfeat_ucf10_pretrain")
        config = config.replace(data=str(every), batch_size=min(config.batch_size, len(self.videos)))
        return self._limited(config, "maskfeat-pretrain", seed=0, minutes=self.options.pretrain_minutes)

    def _limited(self, config: TrainConfig, name: object, *, seed: int, minutes: float) -> TrainConfig:
        """The config with the run folder and the limits of this benchmark."""
        options, optim = self.options, config.optim
        warmup = min(optim.warmup_epochs, options.epochs / 10)
        return config.replace(
            out=str(self.folder(name)),
            epochs=options.epochs,
            minutes=minutes,
            optim=replace(optim, warmup_epochs=warmup),
            workers=options.workers,
            seed=seed,
            val_every=0,
            test_views="",
        )

    def run(self, cell: Cell) -> dict[str, object]:
        """The row of a cell, trained if it is not there."""
        if cell.method == "distilled":
            self.run(replace(cell, method="image"))
        if cell.method == "maskfeat":
            _trained(self.pretraining())
        config = self.config(cell)
        result = Path(config.out) / f"{NAME}.json"
        if not result.is_file():
            seconds = _trained(config)
            write_json(result, self._measured(cell, config, seconds))
        row: dict[str, object] = json.loads(result.read_text(encoding="utf-8"))
        return row

    def _measured(self, cell: Cell, config: TrainConfig, seconds: float) -> dict[str, object]:
        model = load_for_inference(config.out).model
        found = evaluate(
            model, self.val, config.clip, "1x1", workers=config.workers, temporal_rule=config.temporal_rule
        )["1x1"]
        labelled = len(chosen_clips(self.videos, cell.clips, cell.seed))
        return {
            "method": cell.method,
            "clips_a_class": cell.clips,
            "seed": cell.seed,
            "model": config.model.name,
            "gmacs_a_view": f"{found.gmacs_per_video:.3f}",
            "labelled": labelled,
            "unlabelled": len(self.videos) - labelled if config.unlabelled else 0,
            "validation_clips": found.num_videos,
            "top1": f"{found.top1:.4f}",
            "standard_error": f"{found.standard_error:.4f}",
            "minutes": f"{seconds / 60:.2f}",
        }


def chosen_clips(dataset: VideoDataset, number: int, seed: int) -> list[VideoItem]:
    """``number`` videos of each class, or all of them; those of a smaller number are among them."""
    by_class: dict[int, list[VideoItem]] = defaultdict(list)
    for item in dataset.items:
        by_class[item.label].append(item)
    chosen = []
    for label, items in sorted(by_class.items()):
        order = sorted(items, key=lambda item: item.path)
        random.Random(f"{seed} {label}").shuffle(order)
        chosen += order[:number]
    return chosen


def _image_weights() -> TrainConfig:
    """TSM on EfficientNet-Lite0 of 160 pixels; the classifier is fitted first, the shift is blended in."""
    clip: ClipSpec = model_info(IMAGE_NET).clip_spec().replace(crop=160, short_side=160)
    return TrainConfig(
        recipe="tsm_image_weights",
        model=ModelConfig(
            name=IMAGE_NET,
            pretrained="imagenet",
            overrides={"shift_warmup": 0.3},
            dropout=0.3,
            backbone_lr=0.3,
        ),
        clip=clip,
        temporal_rule="tsm",
        augment=AugmentConfig(short_side=(160, 200), brightness=0.3, contrast=0.3, saturation=0.3),
        optim=OptimConfig(lr=1e-3, reference_batch=8, name="adamw", weight_decay=0.05, warmup_epochs=0.2),
        batch_size=8,
        label_smoothing=0.1,
        cache_mb=2000,
    )


def _trained(config: TrainConfig) -> float:
    """Train, resume, or find the run; returns its seconds."""
    done, last = Path(config.out) / "seconds.json", Path(config.out) / "last.pt"
    if not done.is_file():
        write_seconds = train(config, resume=last.is_file()).seconds
        write_json(done, {"seconds": write_seconds})
    seconds: float = json.loads(done.read_text(encoding="utf-8"))["seconds"]
    return seconds


# --------------------------------------------------------------------------------------------- the picture


def picture(rows: Sequence[Mapping[str, object]], *, title: str = "") -> Figure:
    """Top-1 against labelled clips a class, a line for each method: the mean over the seeds, with the
    standard error of the validation clips.
    """
    with styled():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        counts = sorted({int(str(row["clips_a_class"])) for row in rows})
        for place, (method, (colour, label)) in enumerate(METHODS.items()):
            points = []
            for count in counts:
                found = [
                    row for row in rows if row["method"] == method and int(str(row["clips_a_class"])) == count
                ]
                if found:
                    top1, error = (
                        fmean(float(str(row[key])) for row in found) for key in ("top1", "standard_error")
                    )
                    beside = 1.02 ** (place - len(METHODS) / 2)  # error bars beside each other
                    points.append((count * beside, top1, error))
            if points:
                x, y, errors = zip(*points, strict=True)
                axes.errorbar(x, y, errors, marker="o", markersize=4, capsize=2, color=colour, label=label)
        axes.set(
            xscale="log", xlabel="labelled clips a class", ylabel="top-1 accuracy", ylim=(0, 1), title=title
        )
        axes.xaxis.set_major_locator(FixedLocator(counts))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        figure.legend(loc="outside lower center", ncols=3)
        return figure


# -------------------------------------------------------------------------------------------------- command


def main(args: Sequence[str] = ()) -> None:
    """Train the cells and write results/few_clips.csv and its chart."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _options(list(args))
    videos, val = (load_dataset(options.data, split) for split in ("train", "val"))
    benchmark = Benchmark(options, videos, val)
    cells = [
        Cell(method, clips, seed)
        for seed in range(options.seeds)
        for clips in options.clips
        for method in METHODS
        if any(fnmatchcase(f"{method}-{clips}-{seed}", pattern) for pattern in options.cells)
    ]
    if not cells:
        raise SystemExit(f"--cells: none of METHOD-CLIPS-SEED matches {' '.join(options.cells)}")
    folder = Path(options.results)
    rows = _earlier(folder / f"{NAME}.csv", options.data)
    for number, cell in enumerate(cells, 1):
        row = {"data": Path(options.data).name, **benchmark.run(cell)}
        key = ("data", "method", "clips_a_class", "seed")
        rows = [other for other in rows if [str(other[k]) for k in key] != [str(row[k]) for k in key]] + [row]
        rows.sort(
            key=lambda row: [
                str(row["data"]),
                int(str(row["clips_a_class"])),
                str(row["method"]),
                str(row["seed"]),
            ]
        )
        write_results(NAME, rows, folder=folder)
        title = f"{row['data']}, {row['validation_clips']} validation clips"
        same = [other for other in rows if other["data"] == row["data"]]
        save_figure(picture(same, title=title), folder / f"{NAME}.png")
        print(
            f"{number}/{len(cells)} {cell}: top-1 {100 * float(str(row['top1'])):.1f} %, {row['minutes']} min"
        )


def _earlier(path: Path, data: str) -> list[dict[str, object]]:
    """The rows of an earlier call, without the context of the measurement."""
    if not path.is_file():
        return []
    from benchmarks._record import CONTEXT

    with path.open(newline="", encoding="utf-8") as stream:
        return [
            {key: value for key, value in row.items() if key not in CONTEXT} for row in csv.DictReader(stream)
        ]


def _options(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_clips",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="a data set with a training and a validation split")
    parser.add_argument("--work", default="runs/few_clips", help="folder of the runs")
    parser.add_argument("--results", default=str(RESULTS), help="folder of few_clips.csv and few_clips.png")
    parser.add_argument("--clips", type=int, nargs="+", default=[5, 10, 20], help="labelled clips a class")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--cells", nargs="+", default=["*"], help="patterns of METHOD-CLIPS-SEED")
    parser.add_argument("--student", default="x3d_xs_distill", help="recipe of the student")
    parser.add_argument("--minutes", type=float, default=3, help="time limit of a training; 0: none")
    parser.add_argument("--pretrain-minutes", type=float, default=4, help="time limit of MaskFeat")
    parser.add_argument("--epochs", type=float, default=200, help="passes over the labelled clips, at most")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args(args)


if __name__ == "__main__":
    main(sys.argv[1:])
