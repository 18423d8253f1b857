"""What a plan depends on: the clips of a data set, and the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from saccade.data.check import CheckReport, FileFacts
from saccade.errors import DataError

_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The readable clips of a single-label data set.

    Attributes:
        train_counts, val_counts: clips of each class.
        seconds: durations at the 10th, 25th, 50th and 90th percentile.
        fps: median frame rate.
        short_side: median short side in pixels; smallest: 10th percentile.
        aspect: median of long side / short side.
        portrait: fraction of clips that are higher than wide.
        megapixel_frames: sum over the training clips of frames x long side / short side, in 1e6: times the
            square of a short side, the pixels of all their frames.
    """

    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    val_counts: tuple[int, ...]
    seconds: tuple[float, float, float, float]
    fps: float = 30.0
    short_side: int = 240
    smallest: int = 240
    aspect: float = 4 / 3
    portrait: float = 0.0
    megapixel_frames: float = field(default=0.0)

    @property
    def num_train(self) -> int:
        """Training clips."""
        return sum(self.train_counts)

    @property
    def num_val(self) -> int:
        """Validation clips."""
        return sum(self.val_counts)

    @property
    def num_classes(self) -> int:
        """Classes."""
        return len(self.class_names)

    @property
    def imbalance(self) -> float:
        """Training clips of the largest class / those of the smallest."""
        return max(self.train_counts) / max(min(self.train_counts), 1)

    @classmethod
    def of(cls, report: CheckReport) -> DataFacts:
        """The facts in the report of a check.

        Raises:
            DataError: there are no labels, several labels a clip, no readable training clips, or one class.
        """
        if not report.class_names:
            raise DataError(
                f"{report.root}: has no labels; saccade fit needs a folder for each class, or a list with "
                "path and label in each line"
            )
        if any(len(file.labels) != 1 for file in report.files):
            raise DataError(
                f"{report.root}: has clips with several labels; saccade fit learns one label for each clip. "
                "Use saccade train with a recipe of the task multi-label (saccade train lists them)"
            )
        files = [file for file in report.files if file.num_frames]
        train = [file for file in files if file.split == "train"]
        val = [file for file in files if file.split == "val"] or [f for f in files if f.split == "test"]
        if not train:
            raise DataError(f"{report.root}: none of the {len(report.files)} videos can be trained on")
        counts = _counts(train, len(report.class_names))
        if sum(count > 0 for count in counts) < 2:
            raise DataError(f"{report.root}: one class; a classifier needs two or more")
        return cls(
            class_names=report.class_names,
            train_counts=counts,
            val_counts=_counts(val, len(report.class_names)),
            seconds=_percentiles([file.seconds for file in files]),
            fps=float(np.median([file.fps for file in files])),
            short_side=int(np.median([min(file.size) for file in files])),
            smallest=int(np.percentile([min(file.size) for file in files], 10)),
            aspect=float(np.median([max(file.size) / min(file.size) for file in files])),
            portrait=float(np.mean([file.size[0] > file.size[1] for file in files])),
            megapixel_frames=sum(f.num_frames * max(f.size) / min(f.size) for f in train) / 1e6,
        )


def _counts(files: Sequence[FileFacts], num_classes: int) -> tuple[int, ...]:
    labels = [file.labels[0] for file in files]
    return tuple(np.bincount(labels, minlength=num_classes).tolist())


def _percentiles(values: Sequence[float]) -> tuple[float, float, float, float]:
    low, quarter, middle, high = np.percentile(values, [10, 25, 50, 90]).tolist()
    return low, quarter, middle, high


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine that trains.

    Attributes:
        device: ``cpu`` or ``cuda``.
        cores: processor cores that may be used.
        memory_mb: memory for decoded frames, in MB.
        train_seconds: measured seconds of a training step for each clip of `REFERENCE`, by model name, so
            that other clips of that model can be estimated.
    """

    device: str = "cpu"
    cores: int = 2
    memory_mb: int = 4000


def this_machine() -> Machine:
    """Of this machine. A third of the available memory may hold decoded frames."""
    import torch

    available = _available_memory() // 3
    if _SHARED_MEMORY.is_dir():
        available = min(available, int(0.8 * shutil.disk_usage(_SHARED_MEMORY).free))
    return Machine(
        device="cuda" if torch.cuda.is_available() else "cpu",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_mb=available >> 20,
    )


def _available_memory() -> int:
    """Bytes of memory that are free; 4 GB where the system does not say it."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return 4 << 30
