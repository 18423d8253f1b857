"""A data set, a model and a run so small that a training takes about a second."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np

from saccade.runs import Run
from saccade.video import write_video

FLAGS = shlex.split("""
    --model.name x2d --model.overrides gamma_w 0.3 head_width 32 --model.dropout 0.1 --model.drop-path 0.1
    --clip.num-frames 2 --clip.stride 2 --clip.crop 32 --clip.short-side 32
    --augment.short-side 32 36 --augment.no-inverse-uniform
    --optim.name sgd --optim.lr 0.05 --optim.reference-batch 4 --optim.warmup-epochs 0 --optim.warmup-lr 0
    --optim.weight-decay 1e-4
    --batch-size 4 --cache-mb 0 --ema 0 --label-smoothing 0
    --val-every 1 --val-views 1x1 --threads 1 --device cpu --log-every 2
""")
"""Of ``saccade train``, beside data, out, epochs, workers and test views."""


def make_clips(root: Path, *, per_class: int = 8, num_val: int = 3) -> Path:
    """Two classes of clips of 12 frames, one brightens and one darkens, in train/ and val/."""
    noise = np.random.default_rng(0)
    for split, count in (("train", per_class), ("val", num_val)):
        for label, name in enumerate(("brightening", "darkening")):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                ramp = np.linspace(20, 220, 12)[:: -1 if label else 1]
                frames = ramp[:, None, None, None] + 20 * noise.random((12, 36, 40, 3))
                write_video(
                    folder / f"{number}.mp4", frames.astype(np.uint8), fps=30, options={"preset": "ultrafast"}
                )
    return root


def make_seeds(folder: Path) -> Path:
    """A new folder ``seeds`` with clips to train on. Trainings here and in children draw no report
    from then on: pictures take longer than they do.
    """
    import saccade.training.run as training_run

    training_run._report = lambda trainer: None  # type: ignore[assignment]
    seeds = folder / "seeds"
    shutil.rmtree(seeds, ignore_errors=True)
    seeds.mkdir(parents=True)
    make_clips(seeds / "clips", per_class=6, num_val=3)
    return seeds


def to_go_on(out: Path) -> list[str]:
    """The flag that goes on with an interrupted training, or begins again where nothing was saved."""
    run = Run(out)
    return ["--resume"] if run.last.is_file() else ["--overwrite"] if run.exists() else []


def train_command(
    data: Path, out: Path, *, epochs: float = 2, workers: int = 0, views: str = ""
) -> list[str]:
    """The command of a tiny training."""
    return [
        *("train", "x3d_ucf10", *FLAGS, "--data", str(data), "--out", str(out)),
        *("--epochs", str(epochs), "--workers", str(workers), f"--test-views={views}"),
    ]
