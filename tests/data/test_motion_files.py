"""The `motion` data set as files: whole or unfinished, found again, never mixed with something else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from saccade.data.datasets import load_dataset
from saccade.data.motion import MOTION_CLASSES, MOTION_PAIRS, make_motion, render_clip
from saccade.errors import DataError, UsageError
from saccade.video import open_video

SMALL = {"clips_per_class": 2, "val_per_class": 1, "size": (48, 64), "num_frames": (8, 10), "workers": 0}


def frames_of(path: Path) -> np.ndarray:
    with open_video(path) as video:
        return video.frames(range(len(video))).numpy()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_motion(tmp_path_factory.mktemp("motion") / "clips", **SMALL)


def test_layout_and_description(made: Path) -> None:
    assert len(list(made.glob("train/*/*.mp4"))) == 24
    assert len(list(made.glob("val/*/*.mp4"))) == 12
    described = json.loads((made / "motion.json").read_text())
    assert described["classes"] == list(MOTION_CLASSES)
    assert [tuple(pair) for pair in described["pairs"]] == list(MOTION_PAIRS)
    assert described["settings"]["seed"] == 0
    assert not list(made.glob(".motion*"))


def test_files_hold_what_was_rendered(made: Path) -> None:
    for name in MOTION_CLASSES:
        decoded = frames_of(made / "train" / name / f"{name}_0001.mp4")
        rendered = render_clip(name, seed=0, split="train", index=1, size=(48, 64), num_frames=(8, 10))
        assert decoded.shape == rendered.shape
        error = np.mean((decoded.astype(np.float64) - rendered) ** 2, axis=(1, 2, 3))
        assert 10 * np.log10(255**2 / error).min() > 24  # dB; chroma is stored at half size


def test_quality_does_not_tell_the_place_of_a_frame(made: Path) -> None:
    errors = []
    for path in sorted(made.glob("*/*/*_0000.mp4")):
        name = path.parent.name
        split = path.parent.parent.name
        rendered = render_clip(name, seed=0, split=split, index=0, size=(48, 64), num_frames=(8, 10))
        error = np.mean((frames_of(path).astype(np.float64) - rendered) ** 2, axis=(1, 2, 3))
        errors.append(np.log(error[0] / error[1:].mean()))
    assert abs(np.mean(errors)) < 0.12  # the key frame is no better than the others; x264 by default: -0.22


def test_processes_make_the_same_files(made: Path, tmp_path: Path) -> None:
    other = make_motion(tmp_path / "again", **{**SMALL, "workers": 2})
    names = sorted(path.relative_to(made) for path in made.glob("*/*/*.mp4"))
    assert names == sorted(path.relative_to(other) for path in other.glob("*/*/*.mp4"))
    for name in names:
        np.testing.assert_array_equal(frames_of(made / name), frames_of(other / name))


def test_dataset_knows_the_pairs(made: Path) -> None:
    dataset = load_dataset(made, "val")
    assert len(dataset) == 12
    assert dataset.class_names == MOTION_CLASSES
    named = {(dataset.class_names[a], dataset.class_names[b]) for a, b in dataset.pairs}
    assert named == set(MOTION_PAIRS)


def test_found_again(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.glob("*/*/*.mp4")}
    make_motion(made, **SMALL)
    assert "36 clips found" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in made.glob("*/*/*.mp4")}


def test_other_settings_need_force(tmp_path: Path) -> None:
    tiny = {**SMALL, "clips_per_class": 1}
    root = make_motion(tmp_path / "set", **tiny)
    old = frames_of(root / "val" / "merge" / "merge_0000.mp4")
    with pytest.raises(DataError, match=r"other settings \(seed 0, requested 5\).*--force"):
        make_motion(root, **tiny, seed=5)
    make_motion(root, **tiny, seed=5, force=True)
    new = frames_of(root / "val" / "merge" / "merge_0000.mp4")
    assert old.shape != new.shape or not np.array_equal(old, new)


def test_interrupted_set_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from saccade.data.motion import files

    tiny = {**SMALL, "clips_per_class": 1}
    real = files.write_video
    written: list[str] = []

    def stops_after_seven(path: str, *args: object, **options: object) -> None:
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(path)
        real(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "write_video", stops_after_seven)
    with pytest.raises(KeyboardInterrupt):
        make_motion(tmp_path / "set", **tiny)
    assert not (tmp_path / "set" / "motion.json").exists()
    with pytest.raises(DataError, match="not finished"):
        load_dataset(tmp_path / "set", "train")
    monkeypatch.setattr(files, "write_video", real)
    caplog.clear()
    root = make_motion(tmp_path / "set", **tiny)
    assert "17 of 24 clips" in caplog.text
    assert len(load_dataset(root, "all")) == 24


def test_removed_clip_is_made_again(tmp_path: Path) -> None:
    tiny = {**SMALL, "clips_per_class": 1}
    root = make_motion(tmp_path / "set", **tiny)
    gone = root / "val" / "split" / "split_0000.mp4"
    before = frames_of(gone)
    gone.unlink()
    make_motion(root, **tiny)
    np.testing.assert_array_equal(frames_of(gone), before)
    assert (root / "motion.json").is_file()


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="not empty and holds no motion data set"):
        make_motion(tmp_path, **SMALL, force=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(DataError, match="is a file"):
        make_motion(tmp_path / "thesis.tex", **SMALL)


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"clips_per_class": 0}, "clips_per_class"),
        ({"seed": -1}, "seed"),
        ({"size": (95, 112)}, "size"),
        ({"num_frames": (12, 8)}, "num_frames"),
        ({"workers": -1}, "workers"),
        ({"fps": 0}, "fps"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, setting: dict[str, object], field: str) -> None:
    with pytest.raises(UsageError, match=f"^{field}"):
        make_motion(tmp_path / "set", **{**SMALL, **setting})
