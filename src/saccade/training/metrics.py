"""What a run says while it goes on: metrics.jsonl, log.txt, a bar or plain lines, TensorBoard events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.console import console
from saccade.files import write_text

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_SECONDS = 30.0
WIDE = 110  # columns from which the bar also shows the step and the learning rate
CONSOLE_FAILURES = 5


@dataclass
class Window:
    """Sums over the steps since the last line of metrics.jsonl. Part of the checkpoint: no step is lost."""

    loss: float = 0.0
    correct: float = 0.0
    clips: int = 0
    failures: int = 0

    def add(self, *, loss: float, correct: float, clips: int, failures: int) -> None:
        """Add a step: ``loss`` and ``correct`` are sums over its clips."""
        self.loss += loss
        self.correct += correct
        self.clips += clips
        self.failures += failures

    def record(self, share_name: str = "top1") -> dict[str, float | int]:
        """Means a clip; ``share_name`` is what the share of right clips is called."""
        clips = max(self.clips, 1)
        return {"loss": self.loss / clips, share_name: self.correct / clips, "failures": self.failures}

    def to_dict(self) -> dict[str, float | int]:
        """Plain values for the checkpoint."""
        return asdict(self)


class Stopwatch:
    """Time spent waiting for data and in all, since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.start, self.waited, self.clips = time.perf_counter(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time inside counts as waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def record(self) -> dict[str, float]:
        """Speed and shares since the last reset, as metrics.jsonl has them."""
        total = max(time.perf_counter() - self.start, 1e-9)
        return {
            "clips_per_s": round(self.clips / total, 3),
            "data_wait": round(self.waited / total, 4),
            "data_seconds": round(self.waited, 4),
            "compute_seconds": round(total - self.waited, 4),
        }


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, each with the step after which it was true."""

    def __init__(self, path: Path, *, tensorboard: bool = False) -> None:
        self.path = path
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(path.parent / "tensorboard"))

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
        if self._events is not None:
            for name, value in record.items():
                if name not in ("step", "epoch"):
                    self._events.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()


class Reporter:
    """Tells a person how the run goes, on stderr and in log.txt. Silent on all but the first process."""

    def __init__(self, log: Path, *, total_steps: int, epochs: float, active: bool) -> None:
        self.active = active
        self._log = log
        self._total, self._epochs = total_steps, epochs
        self._bar: Progress | None = None
        self._start, self._first_step, self._last_plain = time.perf_counter(), 0, 0.0
        self._failures_shown = 0

    def say(self, message: str, *, style: str = "") -> None:
        """One line for the console and the log."""
        if self.active:
            console().print(message, style=style or None, markup=False)
            self.note(message)

    def note(self, message: str) -> None:
        """One line for the log alone."""
        if self.active:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now().isoformat(timespec='seconds')} {message}\n")

    def failure(self, path: str, cause: str, replaced_by: str) -> None:
        """A file that could not be read: always logged, shown while there are few."""
        message = f"unreadable: {path}: {cause} (replaced by {replaced_by})"
        self._failures_shown += 1
        if self._failures_shown <= CONSOLE_FAILURES:
            self.say(message, style="yellow")
        else:
            self.note(message)
        if self._failures_shown == CONSOLE_FAILURES:
            self.say(f"further unreadable files are listed in {self._log} only", style="yellow")

    @contextmanager
    def running(self, step: int) -> Iterator[None]:
        """Show progress from ``step`` on until the block ends."""
        self._start, self._first_step, self._last_plain = time.perf_counter(), step, time.perf_counter()
        if self.active and console().is_terminal:
            self._bar = _bar()
            self._bar.add_task("", total=self._total, completed=step, epoch="", text="", left="")
        try:
            with self._bar or _nothing():
                yield
        finally:
            self._bar = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No bar while something else draws one."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def step(self, step: int, epoch: float, record: dict[str, float | int]) -> None:
        """After a step. ``record`` has loss, top1 or explained, lr, clips_per_s and data_wait."""
        share = "top1" if "top1" in record else "explained"
        name = "top-1" if share == "top1" else share
        text = (
            f"loss {record['loss']:.3f}  {name} {100 * record[share]:.0f} %  "
            f"{record['clips_per_s']:.1f} clips/s  data wait {100 * record['data_wait']:.0f} %"
        )
        if self._bar is None or console().width >= WIDE:
            text += f"  lr {record['lr']:.2g}"
        place = f"epoch {min(epoch, self._epochs):.2f}/{self._epochs:g}"
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=step, epoch=place, text=text, left=self._left(step)
            )
        elif self.active and time.perf_counter() - self._last_plain > PLAIN_SECONDS:
            self._last_plain = time.perf_counter()
            console().print(f"{place}  step {step}/{self._total}  {text}  {self._left(step)}", markup=False)

    def epoch(self, step: int, epoch: float, parts: list[str]) -> None:
        """A line that stays, after a validation or an epoch."""
        self._last_plain = time.perf_counter()
        left = f"  {self._left(step)}" if step < self._total else ""
        self.say(f"epoch {epoch:.4g}/{self._epochs:g}  step {step}  {'  '.join(parts)}{left}")

    def _left(self, step: int) -> str:
        done = step - self._first_step
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


def _bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

    wide = console().width >= WIDE
    steps: list[ProgressColumn] = [BarColumn(bar_width=16), MofNCompleteColumn()] if wide else []
    return Progress(
        TextColumn("{task.fields[epoch]}"),
        *steps,
        TextColumn("{task.fields[text]}"),
        TextColumn("{task.fields[left]}", style="dim"),
        console=console(),
        transient=True,
    )


@contextmanager
def _nothing() -> Iterator[None]:
    yield
