"""The run folder: its files, the version of their format, and how older ones are read.

A run folder holds

    config.json          format version, resolved config, command, versions, device (written first)
    last.pt              everything needed to resume
    best.safetensors     the best weights with class names and clip, see `saccade.load_weights`
    metrics.jsonl        a JSON object a line: what was measured after which step
    val_scores.npz       scores of the last validation (`saccade.evaluation.load_result`)
    best_val_scores.npz  scores of the validation whose weights are in best.safetensors
    test.json            figures of the final test by views, and test_scores_VIEWS.npz
    log.txt              what happened, with times
    report.html          written at the end
    plan.png             the multigrid plan, if there is one
    image_weights.json   what came from an image network, if anything did
    rejection.json       when a video shows none of the classes, if that was calibrated
    test/                output of `saccade test`
    tensorboard/         events, if asked for

Only this module knows the names of these files.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade._version import __version__
from saccade.errors import DataError, SaccadeError, UsageError, WeightsError
from saccade.files import write_json
from saccade.plugins import imported_files

if TYPE_CHECKING:
    import torch

    from saccade.data.entries import Split
    from saccade.evaluation.rejection import Rejection
    from saccade.training.config import TrainConfig

FORMAT = 1
"""Version of the folder's format, in config.json. Version 0 (until November 2026, not written down) has the
same files; fields that `TrainConfig` has gained since take their defaults."""
BEST = "best.safetensors"
_CONFIG, _LAST, _METRICS, _LOG, _REPORT = "config.json", "last.pt", "metrics.jsonl", "log.txt", "report.html"
_VAL_SCORES, _TEST, _PLAN, _IMAGE_WEIGHTS = "val_scores.npz", "test.json", "plan.png", "image_weights.json"
_REJECTION, _BEST_VAL_SCORES = "rejection.json", "best_val_scores.npz"
_STEP = ("step", "epoch")  # in each row of the metrics
_WRITTEN = (
    *(_CONFIG, _LAST, BEST, _METRICS, _LOG, _REPORT, _PLAN),
    *(_VAL_SCORES, _BEST_VAL_SCORES, _TEST, _IMAGE_WEIGHTS, _REJECTION),
)


class Run:
    """A run folder: finished, paused or not started yet. `saccade.train` returns one.

    Files are read when an attribute needs them, not when the object is made.

    Args:
        folder: the run folder.

    Attributes:
        folder, run_dir: the run folder.
        config_file, last, best, metrics_file, log, val_scores, best_val_scores, test_file, report, plan,
            image_weights, rejection_file: its files, see the head of this module; they need not exist.
        seconds: wall time of the call to `saccade.train` that returned this object; otherwise None.

    Example:
        >>> run = Run("runs/x3d_motion")
        >>> run.exists(), run.best.name  # the folder does not exist
        (False, 'best.safetensors')
        >>> run.config.model.name, run.best_score, run.test["10x1"]["top1"]  # doctest: +SKIP
        ('x3d_xs', 0.966, 0.971)
    """

    def __init__(self, folder: str | os.PathLike[str], *, seconds: float | None = None) -> None:
        self.folder = self.run_dir = Path(folder)
        self.seconds = seconds
        self.config_file, self.last, self.best = (self.folder / name for name in (_CONFIG, _LAST, BEST))
        self.metrics_file, self.log, self.report = (self.folder / name for name in (_METRICS, _LOG, _REPORT))
        self.val_scores, self.test_file = self.folder / _VAL_SCORES, self.folder / _TEST
        self.best_val_scores = self.folder / _BEST_VAL_SCORES
        self.plan, self.image_weights = self.folder / _PLAN, self.folder / _IMAGE_WEIGHTS
        self.rejection_file = self.folder / _REJECTION

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def test_scores(self, views: str) -> Path:
        """File of scores of the final test with these views."""
        return self.folder / f"test_scores_{views}.npz"

    def all_test_scores(self) -> list[Path]:
        """Files of scores of the final tests, sorted by name."""
        return sorted(self.folder.glob("test_scores_*.npz"))

    def later_test_scores(self) -> list[Path]:
        """Files of scores written by `saccade test`, sorted by name."""
        return sorted((self.folder / "test").glob("*_scores_*.npz"))

    # ------------------------------------------------------------------------------------------- read

    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return self.config_file.is_file() or self.last.is_file()

    def record(self) -> dict[str, Any]:
        """The content of config.json: ``format``, ``config``, ``command``, ``plugins``, ``started``,
        ``git``, ``versions``, ``device``, ``num_processes``, ``num_threads``. Formats before 1 have no
        ``format``; it is then 0.

        Raises:
            UsageError: the file is missing or damaged, or a newer version of Saccade wrote it.
        """
        path = self.config_file
        try:
            values = _read_json(path)
            if not isinstance(values["config"], dict):
                raise TypeError("config is not an object")
        except FileNotFoundError:
            raise UsageError(f"{self.folder}: is not a run folder ({_CONFIG} is missing)") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}: not readable as a run's config ({error}); put it back from a copy, or use the "
                f"weights alone ({self.best})"
            ) from error
        found = values.setdefault("format", 0)
        if not isinstance(found, int) or found > FORMAT:
            raise UsageError(
                f"{path}: format {found}, and this version of Saccade ({__version__}) reads up to {FORMAT}"
            )
        return dict(values)

    @property
    def settings(self) -> dict[str, Any]:
        """The config as plain values. Errors as from `record`."""
        settings: dict[str, Any] = self.record()["config"]
        return settings

    @property
    def config(self) -> TrainConfig:
        """The config of the run.

        Raises:
            UsageError: see `record`.
            ConfigError: it has fields that this version of Saccade does not have.
        """
        from saccade.training.config import TrainConfig

        return TrainConfig.from_dict(self.settings)

    def metrics(self) -> tuple[list[dict[str, Any]], int]:
        """The rows of metrics.jsonl and the number of damaged lines; ([], 0) without the file.

        Each row has ``step`` and ``epoch``; rows of validations have ``val_loss`` and other ``val_*``.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            lines = self.metrics_file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise DataError(f"{self.metrics_file}: cannot be read ({error.strerror})") from error
        rows = []
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):  # the line that was being written when the process died
                continue
            if isinstance(row, dict) and all(isinstance(row.get(name), int | float) for name in _STEP):
                rows.append(row)
        return rows, len(lines) - len(rows)

    @property
    def num_validations(self) -> int:
        """Number of validations in metrics.jsonl, of which the best chose the weights."""
        return sum("val_loss" in row or "val_seconds" in row for row in self.metrics()[0])

    @property
    def num_steps(self) -> int:
        """Number of optimiser steps done."""
        return int(self._progress().get("step", 0))

    @property
    def best_score(self) -> float | None:
        """Best validation metric in [0, 1] (top-1, or the main metric of the task); None without one."""
        progress = self._progress()
        score = progress.get("best_score", -1.0)
        validated = progress.get("best_step") or progress.get("score_name")
        return float(score) if validated and math.isfinite(score) else None

    @property
    def best_epoch(self) -> float | None:
        """Epoch of the best weights; None without a validation."""
        return self.best_metrics.get("epoch") if self.best_score is not None else None

    @property
    def best_metrics(self) -> dict[str, Any]:
        """Metrics stored with the best weights: ``epoch``, ``step`` and, if they were validated, ``val``.
        Empty without weights.
        """
        found = self.weights_metadata().get("metrics")
        return found if isinstance(found, dict) else {}

    @property
    def test(self) -> dict[str, dict[str, Any]]:
        """Metrics of the final test by view set; empty without a test.

        Raises:
            DataError: test.json is damaged.
        """
        try:
            figures: dict[str, dict[str, Any]] = _read_json(self.test_file)
            if not all(isinstance(entry, dict) for entry in figures.values()):
                raise TypeError("not an object of objects")
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self.test_file}: damaged ({error}); remove it, and measure again with saccade test "
                f"{shlex.quote(str(self.folder))}"
            ) from error
        return figures

    @property
    def rejection(self) -> Rejection | None:
        """When a video shows none of the classes; None if that was not calibrated.

        Raises:
            DataError: rejection.json is damaged, or a newer version of Saccade wrote it.
        """
        from saccade.evaluation.rejection import Rejection

        try:
            return Rejection.from_dict(_read_json(self.rejection_file))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError, DataError) as error:
            raise DataError(
                f"{self.rejection_file}: {_first_line(error)}; remove it and calibrate again: saccade test "
                f"{shlex.quote(str(self.folder))} --reject"
            ) from error

    def weights_metadata(self) -> dict[str, Any]:
        """Metadata of best.safetensors: class names, clip, task, metrics, build arguments of the model. Empty
        without weights.

        Raises:
            WeightsError: the file is damaged.
        """
        if not self.best.is_file():
            return {}
        import safetensors

        try:
            with safetensors.safe_open(self.best, framework="pt") as file:
                text = (file.metadata() or {}).get("saccade", "{}")
            metadata: dict[str, Any] = json.loads(text)
            if not isinstance(metadata, dict):
                raise TypeError("its metadata is not an object")
        except Exception as error:  # of a damaged header: nearly anything
            raise WeightsError(
                f"{self.best}: damaged ({_first_line(error)}); put it back from a copy, or use the last "
                f"weights, which {_LAST} holds"
            ) from error
        return metadata

    def _progress(self) -> dict[str, Any]:
        """The progress stored in last.pt, read without its tensors.

        Raises:
            WeightsError: the file is damaged.
        """
        if not self.last.is_file():
            return {}
        import torch

        try:
            state = torch.load(self.last, map_location="cpu", weights_only=True, mmap=True)
            progress: dict[str, Any] = state.get("progress", {})
            numbers = [progress.get(name, 0) for name in ("step", "best_step", "best_score")]
            if not all(isinstance(number, int | float) for number in numbers):
                raise TypeError("its progress is not readable")
        except Exception as error:  # torch.load raises nearly anything on a damaged file
            raise WeightsError(damaged_checkpoint(self.last, error)) from error
        return progress

    @property
    def plugins(self) -> list[str]:
        """Files that were given as ``--plugin`` when the run began; empty if config.json does not say it."""
        try:
            found = self.record().get("plugins")
        except (SaccadeError, OSError):
            return []
        return [file for file in found if isinstance(file, str)] if isinstance(found, list) else []

    # ------------------------------------------------------------------------------------------ write

    def check_free(self, *, resume: bool, overwrite: bool) -> None:
        """Check that a run may be written to the folder.

        Raises:
            UsageError: the folder holds a run and neither flag is set, or there is no run to resume.
        """
        if resume and overwrite:
            raise UsageError("--resume continues a run and --overwrite deletes it; give one of them")
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder}: is a file; name a folder with --out")
        if self.exists() and not (resume or overwrite):
            raise UsageError(
                f"{self.folder}: holds a run already; continue it with --resume, keep it and choose another "
                "folder with --out, or replace it with --overwrite"
            )
        if resume and not self.last.is_file():
            raise UsageError(f"{self.folder}: has no {_LAST} to resume from; start without --resume")

    def clear(self) -> None:
        """Delete the files that a run writes, and nothing else."""
        for name in _WRITTEN:
            (self.folder / name).unlink(missing_ok=True)
        for scores in self.all_test_scores():
            scores.unlink()
        shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)

    def write_config(
        self,
        config: TrainConfig,
        *,
        device: torch.device,
        num_processes: int = 1,
        others: Mapping[str, Any] | None = None,
    ) -> None:
        """Write config.json: the resolved config, the command, versions, hardware and ``others``."""
        import torch

        write_json(
            self.config_file,
            {
                "format": FORMAT,
                "config": config.to_dict(),
                "command": command_line(),
                "plugins": imported_files(),
                "started": datetime.now().astimezone().isoformat(timespec="seconds"),
                "git": git_revision(),
                "versions": versions(),
                "device": device_name(device),
                "num_processes": num_processes,
                "num_threads": torch.get_num_threads(),
                **(others or {}),
            },
        )

    def write_rejection(self, rejection: Rejection) -> None:
        """Write rejection.json."""
        write_json(self.rejection_file, rejection.to_dict())


def damaged_checkpoint(path: str | os.PathLike[str], reason: object) -> str:
    """The error message for a last.pt that cannot be read."""
    best = Path(path).parent / BEST
    return (
        f"{path}: not readable as a checkpoint, so the run cannot be resumed ({_first_line(reason)}); put it "
        f"back from a copy, or start another run from its best weights: --model.weights {best}"
    )


def _read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: it is missing, or its folder is no folder.
        ValueError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(str(error)) from error
    except (OSError, RecursionError) as error:
        raise ValueError(_first_line(error)) from error


def _first_line(reason: object) -> str:
    return (str(reason).strip() or type(reason).__name__).splitlines()[0][:200]


def newest_run(folder: str | os.PathLike[str] = "runs") -> Run | None:
    """The run in ``folder`` with the newest best weights; None without runs."""
    found = sorted(Path(folder).glob(f"*/{BEST}"), key=lambda path: path.stat().st_mtime)
    return Run(found[-1].parent) if found else None


def describe_weights(weights: str | os.PathLike[str]) -> list[str]:
    """Describe, in one line, the run folder whose weights a run starts from; [] for a file.

    Raises:
        UsageError: it is not a run folder.
    """
    folder = Path(weights)
    if not folder.is_dir():
        return []
    before = Run(folder).config
    line = f"starting from the run {folder}: {before.recipe}, {before.model.name}, task {before.task}"
    if before.model.weights:
        line += f", itself started from {before.model.weights}"
    return [line]


def command_line() -> str:
    """The command that started this process."""
    program = os.path.basename(sys.argv[0])
    start = ("python", "-m", "saccade") if program == "__main__.py" else (program,)
    return shlex.join([*start, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of Saccade, Python and the packages that affect results."""
    found = {"saccade": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "av", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def git_revision() -> dict[str, Any] | None:
    """Git commit of the package's source tree and whether it has changes; None outside git."""
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
    """Name of the GPU, or of the processor if the system reports it."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"


def held_out_by(settings: Mapping[str, Any], data: str | os.PathLike[str]) -> dict[str, Any]:
    """The options of `saccade.load_dataset` that decide which clips of ``data`` a run held out."""
    own = settings.get("data") or ""
    same = own and os.path.realpath(data) == os.path.realpath(own)
    group = settings.get("group") if same else None
    return {"val_fraction": settings.get("val_fraction", 0.2), "group": group or None}


def data_of_run(settings: Mapping[str, Any], split: Split | None) -> tuple[str, str | None, Split]:
    """The path, root and split of the data set of a run; for the split ``val`` (None) that it was validated
    on. The path is empty without a run.
    """
    from saccade.data.datasets import evaluation_split
    from saccade.data.lists import is_training_list

    data, root = settings.get("data") or "", settings.get("root") or None
    if split not in (None, "val") or not settings.get("val_data"):
        return data, root, split or "val"
    data, root = settings["val_data"], settings.get("val_root") or root
    if settings.get("task") == "detection":
        return data, root, "val"
    named = evaluation_split(data, root=root)
    return data, root, "train" if named == "val" and is_training_list(data, root=root) else named
