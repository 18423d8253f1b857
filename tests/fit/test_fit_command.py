"""``saccade fit`` from a folder of clips to a tested run, and from that run with more clips."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest

from saccade.cli import main
from saccade.fit import DataFacts
from saccade.fit.clips import check_clips, earlier_sides, keep_sides
from saccade.recipes import get_recipe
from saccade.runs import Run
from saccade.training import train

FAST = ("--minutes", "0.1", "--threads", "1")


def test_facts_of_clips(source_clips):
    report, decoded = check_clips(str(source_clips), minutes=20)
    assert decoded
    facts = DataFacts.of(report)
    assert facts.class_names == ("brightening", "darkening")
    assert (facts.num_train, facts.num_val) == (8, 4)  # one source of three is held out
    assert facts.seconds == pytest.approx((0.4,) * 4)
    assert (facts.short_side, facts.fps, facts.portrait) == (36, 30.0, 0.0)
    assert facts.megapixel_frames == pytest.approx(8 * 12 * 40 / 36 / 1e6)
    assert not check_clips(str(source_clips), minutes=1e-6)[1]  # no time to decode


def test_from_a_folder_to_a_tested_run(source_clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(source_clips), *FAST]) == 0
    folder = Path("runs/fit-clips")
    run = Run(folder)
    assert run.best.is_file()
    assert run.report.is_file()
    assert run.test
    shown = capsys.readouterr()
    assert "12 readable videos of 2 classes" in shown.out
    assert "saccade[imagenet]" in shown.err
    assert f"saccade predict VIDEO --run {folder}" in shown.out
    assert "time is worth" in shown.err
    recipe = json.loads((folder / "recipe.json").read_text())
    assert {choice["what"] for choice in recipe["choices"]} >= {"network", "clip", "crop", "batch", "test"}
    config = get_recipe(str(folder / "recipe.json"))
    assert config.minutes == 0
    assert config.epochs == pytest.approx(run.metrics()[0][-1]["epoch"])
    with open(folder / "clips.csv", newline="") as file:
        sides = {Path(row["path"]).name: row["split"] for row in csv.DictReader(file)}
    assert sorted(sides.values()).count("val") == 4
    assert main(["fit", str(source_clips), "--out", str(folder), *FAST]) == 2  # not over another run
    assert "holds a run" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(source_clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(source_clips), "--dry-run", *FAST]) == 0
    assert not Path("runs").exists()


@pytest.mark.slow
def test_more_clips_and_a_class_keep_what_was_learned(source_clips, make_clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clips = Path(shutil.copytree(source_clips, tmp_path / "clips"))
    assert main(["fit", "clips", "--out", "first", *FAST]) == 0
    first = earlier_sides(Run("first"))
    for number in range(4):
        make_clip(
            clips / "flat" / f"v_flat_g{number // 2:02}_c{number % 2:02}.mp4", up=True, seed=70 + number
        )
    for number in range(8):  # more of an old class, in new sources and in those of before
        file = clips / "darkening" / f"v_darkening_g{number // 2:02}_c{number % 2 + 5:02}.mp4"
        make_clip(file, up=False, seed=80 + number)
    capsys.readouterr()
    assert main(["fit", "clips", "--from", "first", "--out", "second", *FAST]) == 0
    assert "2 of 3 classes taken over by name; new: flat" in capsys.readouterr().err
    second = earlier_sides(Run("second"))
    assert {path: second[path] for path in first} == first
    groups: dict[str, set[str]] = {}
    for path, side in second.items():
        groups.setdefault(Path(path).name.rpartition("_c")[0], set()).add(side)
    assert all(len(sides) == 1 for sides in groups.values())
    assert Run("second").config.data == "second/clips.csv"
    assert Run("second").weights_metadata()["class_names"] == ["brightening", "darkening", "flat"]


def test_sides_of_a_run_that_was_not_made_by_fit(source_clips):
    """Only its validation clips are known: others of its classes count as trained on."""
    report, _ = check_clips(str(source_clips), minutes=20)
    val = [file for file in report.files if file.split == "train"][:2]
    kept = keep_sides(report, {str(Path(f.path).resolve()): "val" for f in val}, ("darkening", "brightening"))
    sides = {file.path: file.split for file in kept.files}
    assert {path for path, side in sides.items() if side == "val"} >= {file.path for file in val}
    new = keep_sides(report, {}, ())
    assert [file.split for file in new.files] == [file.split for file in report.files]


def test_an_unreadable_file_is_named_and_left_out(source_clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clips = Path(shutil.copytree(source_clips, tmp_path / "clips"))
    (clips / "darkening" / "v_darkening_g00_c00.mp4").write_bytes(b"no video")
    assert main(["fit", "clips", "--dry-run", *FAST]) == 0
    shown = capsys.readouterr()
    assert "v_darkening_g00_c00.mp4" in shown.err
    assert "11 readable videos" in shown.out


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["missing"], "missing"),
        (["clips", "--minutes", "0"], "--minutes"),
        (["clips", "--from", "nowhere"], "nowhere"),
        (["clips", "--for", "fun"], "--for"),
        (["one"], "one class"),
    ],
)
def test_bad_input_is_one_line(args, named, source_clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").symlink_to(source_clips)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "darkening").symlink_to(source_clips / "darkening")
    assert main(["fit", *args]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert named in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_an_interrupted_fit_keeps_the_best_so_far(source_clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    from saccade.training import loop

    record = loop.Reporter.validation

    def stop(self, values):
        record(self, values)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop.Reporter, "validation", stop)
    assert main(["fit", str(source_clips), "--out", "run", *FAST]) == 130
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the best weights so far" in error
    assert "saccade train run/recipe.json --resume" in error
    run = Run("run")
    assert run.best.is_file()
    assert run.report.is_file()
    monkeypatch.setattr(loop.Reporter, "validation", record)
    config = get_recipe("run/recipe.json")
    assert train(config, resume=True).test
