"""What a run reports: metrics.jsonl, log.txt, log records, TensorBoard events, and callbacks.

The library shows nothing by itself: lines are records of the logger ``saccade.training`` (INFO; WARNING for
unreadable files), and a progress bar is a callback that the command line adds.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from saccade.files import write_text

_log = logging.getLogger("saccade.training")
_NUM_FAILURES_SHOWN = 5


class Callback:
    """What `saccade.train` calls while it runs, on the first process alone; derive from it to feed a tracker.
    Records are plain dictionaries. An exception ends the run.

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
        """Before the first step: ``run_dir``, ``config`` (plain values), ``step`` (0, or where the run is
        resumed), ``total_steps``, ``epochs``.
        """

    def on_step(self, record: Mapping[str, Any]) -> None:
        """After each step: ``step`` (steps done), ``epoch``, ``lr``, ``clips``, and means since the last line
        of metrics.jsonl: ``loss``, ``top1`` (or the task's figure), ``clips_per_s``, ``data_wait`` ...
        """

    def on_validation(self, record: Mapping[str, Any]) -> None:
        """After each validation: ``step``, ``epoch``, ``val_loss``, ``val_top1`` and the other figures of the
        task, ``is_best``.
        """

    def on_end(self, record: Mapping[str, Any]) -> None:
        """After the last step, the final test and the report: ``run_dir``, ``step``, ``epoch``, ``paused``,
        ``best_score``, ``best_epoch``, ``seconds``, ``test`` (figures by views).
        """


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, each with the step after which it was true."""

    def __init__(self, path: Path, *, tensorboard: bool = False) -> None:
        self.path, self._tensorboard = path, tensorboard
        self._events: Any = None

    def cut(self, *, step: int, validation_due: bool) -> None:
        """Remove what was written after the checkpoint of ``step``, which a resumed run writes again."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # the line that was being written when the process died
                continue
            validation = any(name.startswith("val_") for name in record)
            later = record["step"] > step or (validation_due and record["step"] == step and validation)
            if not later:
                kept.append(line + "\n")
        write_text(self.path, "".join(kept))

    def write(self, record: dict[str, Any]) -> None:
        """Append a line; to TensorBoard too if that is on."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._tensorboard and self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.path.parent / "tensorboard"))
        if self._events is not None:
            for name, value in record.items():
                if name not in ("step", "epoch"):
                    self._events.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()


class Reporter:
    """Lines for log.txt and the logger, and records for the callbacks. Silent on all but the first process.

    Args:
        log: file that lines are appended to, once it may be written (`open`).
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
        """Before the first step of this call."""
        self._clock.start(step)
        totals = {"step": step, "total_steps": self._total, "epochs": self._epochs}
        for callback in self.callbacks:
            callback.on_start({**record, **totals})

    def say(self, message: str, *, level: int = logging.INFO) -> None:
        """One line for the logger and log.txt."""
        if self.active:
            _log.log(level, "%s", message)
            self.note(message)

    def note(self, message: str) -> None:
        """One line for log.txt alone."""
        if self.active:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now().isoformat(timespec='seconds')} {message}\n")

    def failure(self, path: str, cause: str, replaced_by: str) -> None:
        """A file that could not be read: always in log.txt, and a warning while there are few."""
        message = f"unreadable: {path}: {cause} (replaced by {replaced_by})"
        self._failures_shown += 1
        if self._failures_shown <= _NUM_FAILURES_SHOWN:
            self.say(message, level=logging.WARNING)
        else:
            self.note(message)
        if self._failures_shown == _NUM_FAILURES_SHOWN:
            self.say(f"further unreadable files are listed in {self._log} only", level=logging.WARNING)

    def step(self, record: Mapping[str, Any]) -> None:
        """After a step; see `Callback.on_step`."""
        for callback in self.callbacks:
            callback.on_step(record)

    def epoch(self, step: int, epoch: float, parts: list[str]) -> None:
        """A line after an epoch or a validation."""
        left = f"  {self._clock.left(step)}" if step < self._total else ""
        self.say(f"epoch {epoch:.4g}/{self._epochs:g}  step {step}  {'  '.join(parts)}{left}")

    def validation(self, record: Mapping[str, Any]) -> None:
        """After a validation; see `Callback.on_validation`."""
        for callback in self.callbacks:
            callback.on_validation(record)

    def end(self, record: Mapping[str, Any]) -> None:
        """At the end; see `Callback.on_end`."""
        for callback in self.callbacks:
            callback.on_end(record)


class RemainingTime:
    """How long a run still takes, by the steps of this call."""

    def __init__(self, total: int) -> None:
        self._total = total
        self.start(0)

    def start(self, step: int) -> None:
        self._start, self._first = time.perf_counter(), step

    def left(self, step: int) -> str:
        done = step - self._first
        if not done:
            return ""
        seconds = (time.perf_counter() - self._start) / done * (self._total - step)
        return f"{format_seconds(seconds)} left"


def format_seconds(seconds: float) -> str:
    """``3 s``, ``12 min 05 s``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
