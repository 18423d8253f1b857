from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.tasks import Failure, TestResult
from saccade.tasks.time_use import ControlFigure, TimeUse
from saccade.video import write_video
from saccade.visualize import write_report

NAMES = ("jump", "throw <b>", "run")


def write_run(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    config = {
        "recipe": "my_recipe",
        "data": "clips",
        "model": {"name": "x3d_s", "weights": ""},
        "clip": {"num_frames": 4, "stride": 3, "crop": 16, "short_side": 16, "target_fps": 30.0},
        "epochs": 3.0,
        "batch_size": 8,
        "val_views": "1x1",
    }
    about = {
        "config": config,
        "command": "saccade train my_recipe --data clips",
        "versions": {"torch": "2.13"},
    }
    about |= {"started": "2026-01-02T03:04:05+00:00", "device": "cpu (x86_64)", "git": {"revision": "a" * 40}}
    (folder / "config.json").write_text(json.dumps(about))
    rows = []
    for step in range(1, 7):
        row = {"step": step, "epoch": step / 2, "loss": 2 / step, "top1": 0.1 * step, "lr": 0.1 / step}
        rows.append(row | {"clips_per_s": 10.0, "data_wait": 0.1, "failures": int(step == 2)})
        if step % 2 == 0:
            rows.append({"step": step, "epoch": step / 2, "val_top1": 0.1 * step, "val_loss": 2.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = []
    for number in range(6):
        paths.append(str(folder / f"clip{number}.mp4"))
        write_video(paths[-1], rng.integers(0, 255, (8, 32, 48, 3)).astype(np.uint8), fps=30)
    Path(paths[5]).write_bytes(b"broken since")
    scores = rng.dirichlet([1, 1, 1], 6).astype(np.float32)
    scores[0] = (0.02, 0.03, 0.95)  # a label that may be wrong
    TestResult(
        scores=scores,
        labels=np.array([0, 0, 1, 1, 2, 2]),
        paths=tuple(paths),
        class_names=NAMES,
        views="3x1",
        clip=ClipSpec(num_frames=4, stride=3, crop=16, short_side=16),
        failures=(Failure("gone.mp4", "no such file"),),
        pairs=((0, 1),),
        clips_per_second=12.0,
        model_clips_per_second=34.0,
        time_use=TimeUse(
            *("top1", "1x1", 6, 6, 0.5),
            (ControlFigure("shuffle", 3, 0.25, 0.25, 0.125, 0.5), ControlFigure("reverse", 1, 0.5, 0.0, 0.1)),
            pair_accuracy=0.75,
        ),
        gmacs_per_view=0.25,
        num_params=1_500_000,
    ).save(folder / "val_scores.npz")


class Page(HTMLParser):
    """Collects what a page refers to, and checks that tags close."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def test_report_is_one_complete_file(tmp_path: Path):
    write_run(tmp_path / "run")
    path = write_report(tmp_path / "run")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert all(link.startswith(("data:", "#")) for link in page.links), page.links
    assert not re.search(r"url\((?!#)|@import|<script|<link", text)
    words = " ".join(page.text.split())
    for expected in (
        "my_recipe",
        "x3d_s",
        "1.50 M",
        "0.25 per view x 3 = 0.75 per video",
        "4 frames x stride 3 at 30 fps",
        "last validation, 3x1 views, 6 videos",
        "60.0 %",  # the best top-1 in training
        "within pairs",
        "Hardest clips",
        "of 6 right",
        "these clips chose these weights (the best of 3 validations)",
        "Time is worth 25.0 ± 12.5 points here (50.0 % in order, 25.0 % with frames shuffled)",
        "frames shuffled, mean of 3 25.0 % 50.0 % 25.0 ± 12.5 points",
        "frames reversed 50.0 %",
        "12 clips/s with decoding, 34 clips/s the model alone",
        "Labels that may be wrong",
        "labelled jump (2.0 %), looks like run (95.0 %)",
        "Errors by class",
        "jump: ",
        "gone.mp4: no such file",
        "were replaced (named in the log): 1",
        "saccade train my_recipe --data clips",
        "throw <b>",
        "torch 2.13",
    ):
        assert expected in words, expected
    assert text.count("<svg") == 7  # loss, top-1, learning rate, clips/s, waiting, confusion, calibration
    assert "no frames: " in words  # the clip that was damaged after the test
    assert text.count("data:image/jpeg") >= 5


def test_hardest_clips_come_first(tmp_path: Path):
    write_run(tmp_path / "run")
    result = TestResult.load(tmp_path / "run" / "val_scores.npz")
    text = write_report(tmp_path / "run", num_examples=2).read_text(encoding="utf-8")
    order = [Path(result.paths[i]).name for i in np.argsort(-result.losses)]
    shown = re.findall(r"clip\d\.mp4(?= ·)", text)
    assert shown == [order[0], order[1], order[-1]]


def test_the_final_test_is_preferred_to_the_last_validation(tmp_path: Path):
    write_run(tmp_path / "run")
    (tmp_path / "run" / "val_scores.npz").rename(tmp_path / "run" / "test_scores_3x1.npz")
    assert "final test, 3x1 views" in write_report(tmp_path / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("missing", ["config.json", "metrics.jsonl", "val_scores.npz"])
def test_missing_files_are_listed_and_the_rest_is_shown(tmp_path: Path, missing: str):
    write_run(tmp_path / "run")
    (tmp_path / "run" / missing).unlink()
    text = write_report(tmp_path / "run").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert f"{missing}:" in page.text
    assert ("<h2>Training</h2>" in text) == (missing != "metrics.jsonl")
    assert ("Hardest clips" in text) == (missing != "val_scores.npz")


def test_damaged_files_are_listed(tmp_path: Path):
    write_run(tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 9, "epo')
    (tmp_path / "run" / "config.json").write_text("{")
    (tmp_path / "run" / "val_scores.npz").write_bytes(b"PK")
    text = Page(write_report(tmp_path / "run").read_text(encoding="utf-8")).text
    assert "1 damaged line skipped" in text
    assert "config.json is damaged" in text
    assert "val_scores.npz" in text


def test_truncated_scores_are_listed_and_others_are_shown(tmp_path: Path):
    run = tmp_path / "run"
    write_run(run)
    whole = (run / "val_scores.npz").read_bytes()
    for name in ("test_scores_3x1.npz", "test_scores_10x1.npz"):
        (run / name).write_bytes(whole[: len(whole) // 2])
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert "last validation, 3x1 views" in text
    assert "test_scores_3x1.npz: not a file of scores" in text
    assert "test_scores_10x1.npz: not a file of scores" in text
    (run / "val_scores.npz").unlink()
    assert "Training" in Page(write_report(run).read_text(encoding="utf-8")).text


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="contains no run"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="no such run folder"):
        write_report(tmp_path / "nowhere")
