"""A small part of ``make fuzz``, and the cases that it found."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOUND = {
    "a transport stream shows another stream behind its head": [1002972, 1003899, 1005026],
    "times that float64 cannot tell apart": [1004265, 1003063, 1005382],
    "key frame marks of the container on other packets": [11, 56, 61, 409],
    "frames known by their order alone, of which a strict decoder gives fewer": [1000075, 1000506],
    "Motion JPEG pictures without their tables": [53, 237],
    "decoders of the MPEG-4 family after damage": [1000166, 1000827, 77000394],
    "lost reference pictures of H.264, FFV1 slices, key frames that are none": [1000044, 1000480, 1003700],
    "time stamps in another order than the pictures": [1000379, 1000390, 1002629, 1000172],
}
"""Cases of ``videos`` that once gave another error than a `VideoError`, or a wrong frame."""


def fuzz(part: str, *options: str, out: Path) -> str:
    """Run a part in a process of its own; returns what it printed. It ends with 1 if a case fails."""
    command = [sys.executable, "-m", "tools.fuzz", part, "--jobs", "1", "--out", str(out), *options]
    environment = {key: value for key, value in os.environ.items() if key != "SACCADE_REAL_DATA"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_damaged_videos_give_the_frames_of_ffmpeg_or_an_error(tmp_path: Path):
    cases = [*chain(*FOUND.values()), *range(14, 31)]
    said = fuzz("videos", "--case", *map(str, cases), out=tmp_path)
    assert f"videos: {len(cases)} cases" in said
    assert "equal" in said


@pytest.mark.parametrize(("part", "count"), [("checkpoints", 6), ("lists", 20)])
def test_damaged_files_load_or_are_refused(part: str, count: int, tmp_path: Path):
    assert f"{part}: {count} cases" in fuzz(part, "--cases", str(count), out=tmp_path)


def test_a_case_is_repeated_by_its_number(tmp_path: Path):
    sys.path.insert(0, str(ROOT))
    from tools.fuzz.videos import Cases

    one, other = Cases(tmp_path / "one", None), Cases(tmp_path / "other", None)
    for case in range(60):
        assert one.damaged(case) == other.damaged(case)
