"""metrics.jsonl, log.txt, log records, TensorBoard events, and callbacks.

The library prints nothing: the logger ``saccade.training`` gets the lines (INFO; WARNING for unreadable
files), and the progress bar is a callback of the command line.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from saccade.files import append_line, write_text
from saccade.runs import Run

_log = logging.getLogger("saccade.training")
_NUM_FAILURES_SHOWN = 5


class Callback:
    """Base class of callbacks for `saccade.train`, e.g. to feed an experiment tracker.

    Only rank 0 calls them. Records are plain dictionaries. An exception ends the run.

    Example:
        >>> import saccade
        >>> class Losses(saccade.Callback):
        ...     def __init__(self):
        ...         self.losses = []
        ...     def on_step(self, record):
        ...         self.losses.append((record["step"], record["loss"]))
        >>> saccade.train(config, callbacks=[Losses()])  # doctest: +SKIP
    """

    def on_start(self, record: Mapping[str, Any]) -> None:
        """Before the first step: ``run_dir``, ``config`` (plain values), ``step`` (0 unless the run is
        resumed), ``total_steps``, ``epochs``.
        """

    def on_step(self, record: Mapping[str, Any]) -> None:
        """After each step: ``step`` (steps done), ``epoch``, ``total_steps`` and ``epochs`` (of the run, as
        planned so far), ``lr``, ``clips``, and means since the last line of metrics.jsonl: ``loss``, ``top1``
        (or the metric of the task), ``clips_per_s``, ``data_wait`` ...
        """

    def on_validation(self, record: Mapping[str, Any]) -> None:
        """After each validation: ``step``, ``epoch``, ``val_loss``, ``val_top1`` and the other metrics of
        the task, ``is_best``.
        """

    def on_end(self, record: Mapping[str, Any]) -> None:
        """After the last step, the final test and the report: ``run_dir``, ``step``, ``epoch``, ``paused``,
        ``best_score``, ``best_epoch``, ``seconds``, ``test`` (metrics by views).
        """


class MetricsFile:
    """``metrics.jsonl``: one JSON object per line, each with its step."""

    def __init__(self, path: Path, *, tensorboard: bool = False) -> None:
        self.path, self._tensorboard = path, tensorboard
        self._events: Any = None

    def cut(self, *, step: int, validation_due: bool) -> None:
        """Remove the lines after the checkpoint of ``step``; the resumed run writes them again."""
        if not self.path.is_file():
            return
        lines = []
        for record in Run(self.path.parent).metrics()[0]:
            validation = any(name.startswith("val_") for name in record)
            later = record["step"] > step or (validation_due and record["step"] == step and validation)
            if not later:
                lines.append(json.dumps(record) + "\n")
        write_text(self.path, "".join(lines))

    def write(self, record: dict[str, Any]) -> None:
        """Append a line, and write it to TensorBoard if that is on."""
        append_line(self.path, json.dumps(record))
        if self._tensorboard and self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.path.parent / "tensorboard"))
        if self._events is not None:
            for name, value in record.items():
                if name not in ("step", "epoch"):
                    self._events.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Close the TensorBoard file."""
        if self._events is not None:
            self._events.close()


class Reporter:
    """Writes lines to log.txt and the logger, and calls the callbacks. Does nothing unless ``active`` (rank
    0).

    Args:
        log: file that lines are appended to.
    """

    def __init__(
        self,
        log: Path,
        *,
        total_steps: int,
        epochs: float,
        active: bool,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.active = active
        self.callbacks = tuple(callbacks) if active else ()
        self._log = log
        self._total, self._epochs = total_steps, epochs
        self._clock = RemainingTime(total_steps)
        self._failures_shown = 0

    def start(self, step: int, record: Mapping[str, Any]) -> None:
        """Before the first step; see `Callback.on_start`."""
        self._clock.start(step)
        totals = {"step": step, "total_steps": self._total, "epochs": self._epochs}
        for callback in self.callbacks:
            callback.on_start({**record, **totals})

    def plan(self, total_steps: int, epochs: float) -> None:
        """The run has been given another number of steps."""
        self._total, self._epochs = total_steps, epochs
        self._clock.total = total_steps

    def say(self, message: str, *, level: int = logging.INFO) -> None:
        """Write a line to the logger and log.txt."""
        if self.active:
            _log.log(level, "%s", message)
            self.note(message)

    def note(self, message: str) -> None:
        """Write a line to log.txt only."""
        if self.active:
            append_line(self._log, f"{datetime.now().isoformat(timespec='seconds')} {message}")

    def failure(self, path: str, cause: str, replaced_by: str) -> None:
        """Report an unreadable file in log.txt; the first ones also as warnings."""
        message = f"unreadable: {path}: {cause} (replaced by {replaced_by})"
        self._failures_shown += 1
        if self._failures_shown <= _NUM_FAILURES_SHOWN:
            self.say(message, level=logging.WARNING)
        else:
            self.note(message)
        if self._failures_shown == _NUM_FAILURES_SHOWN:
            self.say(f"{self._log} lists further unreadable files", level=logging.WARNING)

    def step(self, record: Mapping[str, Any]) -> None:
        """After a step; see `Callback.on_step`."""
        for callback in self.callbacks:
            callback.on_step(record)

    def epoch(self, step: int, epoch: float, parts: list[str]) -> None:
        """Write a line after an epoch or a validation."""
        left = f"  {self._clock.left(step)}" if step < self._total else ""
        self.say(f"epoch {epoch:.4g}/{self._epochs:.4g}  step {step}  {'  '.join(parts)}{left}")

    def validation(self, record: Mapping[str, Any]) -> None:
        """After a validation; see `Callback.on_validation`."""
        for callback in self.callbacks:
            callback.on_validation(record)

    def end(self, record: Mapping[str, Any]) -> None:
        """At the end; see `Callback.on_end`."""
        for callback in self.callbacks:
            callback.on_end(record)


class RemainingTime:
    """Estimates the remaining time of a run from the steps so far."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.start(0)

    def start(self, step: int) -> None:
        self._start, self._first = time.perf_counter(), step

    def left(self, step: int) -> str:
        done = step - self._first
        if not done:
            return ""
        seconds = (time.perf_counter() - self._start) / done * (self.total - step)
        return f"{format_seconds(seconds)} left"


def format_seconds(seconds: float) -> str:
    """``3 s``, ``12 min 05 s``, ``3 h 20 min``."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02} s"
    return f"{total // 3600} h {total % 3600 // 60:02} min"


def loss_text(record: Mapping[str, Any]) -> str:
    """The loss, with its parts if it has any: ``loss 2.104 (label 1.310, soft 0.794)``."""
    parts = [
        f"{name.removeprefix('loss_')} {value:.3f}"
        for name, value in record.items()
        if name.startswith("loss_")
    ]
    if "pseudo_used" in record:
        parts.append(f"pseudo-labels {100 * record['pseudo_used']:.0f} %")
    return f"loss {record['loss']:.3f}" + (f" ({', '.join(parts)})" if parts else "")
