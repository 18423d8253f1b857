"""The folder that holds all there is to know of a run."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from saccade._version import __version__
from saccade.errors import UsageError
from saccade.files import write_json
from saccade.training.config import TrainConfig
from saccade.training.distributed import Processes
from saccade.training.metrics import command_line

CONFIG, LAST, BEST, METRICS = "config.json", "last.pt", "best.safetensors", "metrics.jsonl"
LOG, SCORES, TEST, REPORT = "log.txt", "val_scores.npz", "test.json", "report.html"
PLAN, IMAGE_WEIGHTS = "plan.png", "image_weights.json"
_WRITTEN = (CONFIG, LAST, BEST, METRICS, LOG, SCORES, TEST, REPORT, PLAN, IMAGE_WEIGHTS)


def check_run_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to mix two runs in one folder.

    Raises:
        UsageError: a run is there and nothing was said of it, or none is there to resume.
    """
    if resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite deletes it; give one of them")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder with --out")
    present = (folder / CONFIG).is_file() or (folder / LAST).is_file()
    if present and not (resume or overwrite):
        raise UsageError(
            f"{folder}: holds a run already; continue it with --resume, keep it and choose another folder "
            "with --out, or replace it with --overwrite"
        )
    if resume and not (folder / LAST).is_file():
        raise UsageError(f"{folder}: has no {LAST} to resume from; start without --resume")


def clear_run_folder(folder: Path) -> None:
    """Delete what a run has written there, and nothing else."""
    for name in _WRITTEN:
        (folder / name).unlink(missing_ok=True)
    for scores in folder.glob("test_scores_*.npz"):
        scores.unlink()
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def read_config(folder: Path) -> TrainConfig:
    """The config of the run in ``folder``.

    Raises:
        UsageError: there is none, or the file is damaged.
        ConfigError: it has fields that this version does not know.
    """
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["config"]
    except FileNotFoundError:
        raise UsageError(f"{folder}: holds no run ({CONFIG} is missing)") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not readable as a run's config ({error})") from error
    return TrainConfig.from_dict(values)


def run_behind(weights: str) -> list[str]:
    """What there is to say of the run whose folder is given as weights to start from; nothing of a file.

    Raises:
        UsageError: the folder holds no run.
    """
    folder = Path(weights)
    if not folder.is_dir():
        return []
    before = read_config(folder)
    told = f"starting from the run {folder}: {before.recipe}, {before.model.name}, task {before.task}"
    if before.model.weights:
        told += f", itself started from {before.model.weights}"
    return [told]


def write_config(folder: Path, config: TrainConfig, processes: Processes) -> None:
    """config.json: the resolved config and where, when and with what it ran."""
    write_json(
        folder / CONFIG,
        {
            "config": config.to_dict(),
            "command": command_line(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "git": git_revision(),
            "versions": versions(),
            "device": device_name(processes.device),
            "num_processes": processes.world_size,
            "num_threads": torch.get_num_threads(),
        },
    )


def versions() -> dict[str, str]:
    """Of Saccade, Python and the packages that results may depend on."""
    found = {"saccade": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "av", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def git_revision() -> dict[str, Any] | None:
    """Commit of the source tree this package runs from and whether it was changed; None outside git."""
    folder = Path(__file__).resolve().parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", Path(__file__).name) != Path(__file__).name:
        return None  # installed below some other project's repository
    revision = git("rev-parse", "HEAD")
    return {"revision": revision, "changed": bool(git("status", "--porcelain", "."))} if revision else None


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's as far as the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"
