"""Training clips a second by how they are read: frames decoded, decoder, workers, batch, interval.

What VideoTransformer-pytorch's README tells of its own loader (9 hours to 33 minutes an epoch) and
X3D-Multigrid's of image libraries, measured on real clips:

    python -m benchmarks.loading --data UCF101_subset
    python -m benchmarks.loading --data UCF101_subset --pin    # with a GPU: pinned memory and transfer

Each row loads random training clips of the videos, resized to a short side of 128. The rows of a group take
turns for every repetition, so that load on the machine falls on all alike (those of the training loader, with
worker processes, run one after the other). The ratio is to the first row of its group. Frame folders are made
from the same videos beforehand, at the same short side.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks._record import RESULTS, context, write_results
from saccade.clip import ClipSpec
from saccade.data import load_dataset
from saccade.data.sampler import TrainSampler
from saccade.data.types import VideoDataset
from saccade.sampling.temporal import sample_train
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig
from saccade.training.loader import make_loader
from saccade.video import open_video

SIDE, FRAMES = 128, 8
Call = Callable[[int], None]


def frames_of(num: int, fps: float, stride: int, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    return sample_train(num, fps, num_frames=FRAMES, stride=stride, rng=rng).tolist()


def whole_then_clip(paths: Sequence[str]) -> Call:
    """Every frame of the video is decoded, then the clip is taken: "get_batch first"."""

    def call(number: int) -> None:
        with open_video(paths[number % len(paths)], short_side=SIDE) as video:
            every = video.frames(range(len(video)))
            every[frames_of(len(video), video.fps, 16, number)].contiguous()

    return call


def clip_alone(paths: Sequence[str], backend: str = "auto", stride: int = 16) -> Call:
    """The clip's frames are decoded, and what they refer to: "sample_indices first"."""

    def call(number: int) -> None:
        with open_video(paths[number % len(paths)], backend, short_side=SIDE) as video:  # type: ignore[arg-type]
            video.frames(frames_of(len(video), video.fps, stride, number))

    return call


def pillow(folders: Sequence[str]) -> Call:
    """Folders of JPEG files, read by Pillow alone, as X3D-Multigrid reads them."""

    def call(number: int) -> None:
        files = sorted(Path(folders[number % len(folders)]).iterdir())
        for index in frames_of(len(files), 25.0, 16, number):
            with Image.open(files[index]) as image:
                np.asarray(image.convert("RGB"))

    return call


def write_frames(paths: Sequence[str], out: Path) -> list[str]:
    """A folder of JPEG files of each video, at the short side."""
    for number, path in enumerate(paths):
        folder = out / f"{number:04}"
        folder.mkdir()
        with open_video(path, short_side=SIDE) as video:
            for index, frame in enumerate(video.frames(range(len(video))).numpy()):
                Image.fromarray(frame).save(folder / f"{index:05}.jpg", quality=90)
    return [str(out / f"{number:04}") for number in range(len(paths))]


def alternate(calls: dict[str, Call], repetitions: int, clips: int) -> dict[str, list[float]]:
    """Clips a second of each call, one figure for every repetition."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(0)
    for repetition in range(repetitions):
        for name, call in calls.items():
            start = time.perf_counter()
            for number in range(clips):
                call(repetition * clips + number)
            rates[name].append(clips / (time.perf_counter() - start))
    return rates


def loader_rates(
    dataset: VideoDataset, settings: dict[str, tuple[int, int]], *, stride: int, batches: int, pin: bool
) -> dict[str, list[float]]:
    """Clips a second of the training loader with (workers, batch size), once its workers are busy."""
    rates: dict[str, list[float]] = {}
    for name, (workers, batch) in settings.items():
        config = TrainConfig(
            recipe="loading",
            model=ModelConfig(name="x2d"),
            clip=ClipSpec(num_frames=FRAMES, stride=stride, crop=112, short_side=SIDE),
            augment=AugmentConfig(short_side=(SIDE, SIDE), crop=112),
            optim=OptimConfig(lr=0.1),
            epochs=1,
            batch_size=batch,
            workers=workers,
        )
        sampler = TrainSampler(
            len(dataset),
            batch_size=batch,
            seed=0,
            num_frames=FRAMES,
            stride=stride,
            short_side=SIDE,
            crop=112,
        )
        with make_loader(config, dataset, pin_memory=pin) as loader:
            waiting = 2 * workers + 1  # batches that workers prepare before anybody asks
            stream = iter(loader.batches(sampler.run_requests(0, batches + waiting)))
            for _ in range(waiting):
                next(stream)
            start, done = time.perf_counter(), 0
            for clips in stream:
                if pin:
                    clips.pixels.to("cuda", non_blocking=True)
                done += batch
            if pin:
                torch.cuda.synchronize()
            rates[name] = [done / (time.perf_counter() - start)]
    return rates


def to_rows(group: str, rates: dict[str, list[float]]) -> list[dict[str, object]]:
    first = statistics.median(next(iter(rates.values())))
    print(f"\n{group}")
    rows: list[dict[str, object]] = []
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"  {name:44} {middle:8.1f} clips/s  {middle / first:6.2f} x")
        rows.append(
            {
                "group": group,
                "how": name,
                "clips_per_s": round(middle, 2),
                "lowest": round(min(values), 2),
                "highest": round(max(values), 2),
                "ratio_to_first": round(middle / first, 3),
            }
        )
    return rows


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks loading",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="a data set of real clips")
    parser.add_argument("--videos", type=int, default=24, help="how many of its videos (default %(default)s)")
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--clips", type=int, default=24, help="clips in a repetition (default %(default)s)")
    parser.add_argument("--pin", action="store_true", help="compare pinned memory too; needs a GPU")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    dataset = load_dataset(options.data, "train")
    step = max(1, len(dataset) // options.videos)
    paths = [item.path for item in dataset.items][::step][: options.videos]
    rows: list[dict[str, object]] = []
    with ExitStack() as stack:
        frames = write_frames(paths, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        reading = {
            "all frames, then the clip's": whole_then_clip(paths),
            "the clip's frames alone": clip_alone(paths),
        }
        rows += to_rows("what is decoded", alternate(reading, options.repetitions, options.clips))
        decoders: dict[str, Call] = {"PyAV": clip_alone(paths)}
        if importlib.util.find_spec("torchcodec"):
            decoders["torchcodec"] = clip_alone(paths, "torchcodec")
        decoders["JPEG folders, open_video"] = clip_alone(frames)
        decoders["JPEG folders, Pillow alone"] = pillow(frames)
        rows += to_rows("decoder", alternate(decoders, options.repetitions, options.clips))
        intervals = {f"interval {stride}": clip_alone(paths, stride=stride) for stride in (4, 16, 24, 32)}
        rows += to_rows("frame interval", alternate(intervals, options.repetitions, options.clips))
    batches = max(2, options.repetitions * options.clips // 8)
    workers = {f"{number} workers": (number, 8) for number in (0, 1, 2, 4)}
    rows += to_rows("workers", loader_rates(dataset, workers, stride=16, batches=batches, pin=False))
    sizes = {f"batch {size}, 2 workers": (2, size) for size in (4, 8, 16)}
    rows += to_rows("batch size", loader_rates(dataset, sizes, stride=16, batches=batches, pin=False))
    if options.pin:
        for pin in (False, True):
            name = f"pinned: {pin}"
            rows += to_rows(name, loader_rates(dataset, {name: (2, 8)}, stride=16, batches=batches, pin=pin))
    print(f"\nwrote {write_results('loading', rows).name}, {draw(rows)}")


def draw(rows: Sequence[dict[str, object]]) -> str:
    """The rates as bars, one panel a group."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys(str(row["group"]) for row in rows))
    figure, panels = pyplot.subplots(
        len(groups),
        1,
        figsize=(8, 1.2 + 0.42 * len(rows)),
        gridspec_kw={"height_ratios": [sum(row["group"] == group for row in rows) for group in groups]},
        layout="constrained",
    )
    for group, axes in zip(groups, np.atleast_1d(panels), strict=True):
        members = [row for row in rows if row["group"] == group]
        names, values = [str(row["how"]) for row in members], [row["clips_per_s"] for row in members]
        bars = axes.barh(names, values, color="#2f6fde")
        axes.bar_label(bars, fmt="%.0f", padding=3)
        axes.invert_yaxis()
        axes.set_title(group, loc="left", fontsize=10)
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(panels)[-1].set_xlabel(f"clips of {FRAMES} frames a second, {context()['machine']}")
    path = RESULTS / "loading.png"
    figure.savefig(path, dpi=110)
    return path.name


if __name__ == "__main__":
    main(sys.argv[1:])
