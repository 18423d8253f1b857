"""Thousands of opened videos, and predictions for minutes: memory, files and threads do not grow."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from tools.fuzz import children, tiny
from tools.fuzz.commands import Command
from tools.fuzz.seeds import load_seeds

from saccade import Predictor
from saccade.errors import VideoError
from saccade.video import open_video
from saccade.video.index import clear_index_cache

_GOOD = {"no growth": "after the first tenth nothing grew by more than the allowance"}
_ALLOWANCE = {"memory": 24 << 20, "files": 0, "threads": 0, "temporary files": 0}
"""Bytes, and counts, that may be more at the end than after the first tenth."""


class Cases:
    """Case 0 opens videos, whole and damaged; case 1 predicts."""

    good = _GOOD

    def __init__(self, folder: Path, *, num_opens: int, minutes: float) -> None:
        self._folder, self._num_opens, self._minutes = folder, num_opens, minutes
        seeds = folder / "seeds"
        self._seeds = load_seeds(seeds / "videos")
        self._clips, self._run = seeds / "clips", seeds / "train"
        tiny.make_clips(self._clips, per_class=4, num_val=2)
        if not self._run.exists():
            command = Command(tiny.train_command(self._clips, self._run, epochs=1), seeds / "train.log")
            command.wait(300)
            assert command.code == 0, command.said[-500:]

    def describe(self, case: int) -> dict[str, Any]:
        return {"kind": "predictions" if case % 2 else "opens"}

    def keep(self, case: int) -> None:
        """Nothing to keep."""

    def run(self, case: int) -> dict[str, Any]:
        kind = self.describe(case)["kind"]
        tempfile.tempdir = str(self._folder / "temporary")  # so that none of other programs are counted
        Path(tempfile.tempdir).mkdir(exist_ok=True)
        children.stage(kind, 100_000)
        first, last, count = self._opens() if kind == "opens" else self._predictions()
        grown = {
            name: last[name] - first[name] for name in first if last[name] - first[name] > _ALLOWANCE[name]
        }
        found = {"kind": kind, "count": count, "at first": first, "at last": last}
        return {**found, "outcome": "growth" if grown else "no growth", "detail": grown}

    def _opens(self) -> tuple[dict[str, int], dict[str, int], int]:
        paths = []
        for seed in self._seeds:
            whole, cut = (self._folder / f"{word}_{seed.name}{seed.suffix}" for word in ("whole", "cut"))
            whole.write_bytes(seed.data)
            cut.write_bytes(seed.data[: len(seed.data) // 2])
            paths += [whole, cut]
        first: dict[str, int] = {}
        for number in range(self._num_opens):
            path = paths[number % len(paths)]
            os.utime(path, ns=(number, number))  # so that no index is found in the cache
            try:
                with open_video(path) as reader:
                    reader.try_frames([len(reader) - 1, 0])
            except VideoError:
                pass
            if (
                number % 500 == 0
            ):  # the cache grows up to its bound, about 5 kB a file, and leaves holes behind
                clear_index_cache()
            if number == self._num_opens // 10:
                first = _used()
        return first, _used(), self._num_opens

    def _predictions(self) -> tuple[dict[str, int], dict[str, int], int]:
        predictor = Predictor(self._run)
        videos = sorted(self._clips.glob("*/*/*.mp4"))
        began, count = time.monotonic(), 0
        first: dict[str, int] = {}
        while time.monotonic() - began < self._minutes * 60:
            predictor(videos[count % len(videos)])
            count += 1
            if not first and time.monotonic() - began > self._minutes * 6:
                first = _used()
        return first, _used(), count


def _used() -> dict[str, int]:
    clear_index_cache()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "memory": pages * resource.getpagesize(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "temporary files": len(os.listdir(tempfile.gettempdir())),
    }
