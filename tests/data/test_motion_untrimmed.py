"""The untrimmed `motion` set: what happens when, the same every time, in files of the form of Charades."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.cli import main
from saccade.data import load_dataset
from saccade.data.actions import active_at
from saccade.data.motion import MOTION_CLASSES, UntrimmedSpec, make_motion, make_untrimmed
from saccade.data.motion.untrimmed import plan_video, render_video
from saccade.errors import DataError, UsageError
from saccade.video import open_video

SMALL = UntrimmedSpec(
    num_videos=4,
    num_val_videos=2,
    size=(40, 52),
    num_frames=(40, 60),
    num_event_frames=(12, 20),
    num_events=(1, 4),
)
OPTIONS = {
    "num_videos": 4,
    "num_val_videos": 2,
    "size": (40, 52),
    "num_frames": (40, 60),
    "num_event_frames": (12, 20),
    "num_events": (1, 4),
    "workers": 0,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrimmed(tmp_path_factory.mktemp("untrimmed") / "set", **OPTIONS)  # type: ignore[arg-type]


def test_plans_keep_to_the_rules():
    spec = UntrimmedSpec()
    classes, together = set(), 0
    for index in range(150):
        length, happenings = plan_video(spec, "train", index)
        assert spec.num_frames[0] <= length <= spec.num_frames[1]
        busy = np.zeros(length, int)
        for happening in happenings:
            assert 0 <= happening.start < happening.stop <= length
            assert spec.num_event_frames[0] <= happening.stop - happening.start <= spec.num_event_frames[1]
            busy[happening.start : happening.stop] += 1
            classes.add(happening.class_name)
        assert busy.max() <= 2
        together += bool(busy.max() == 2)
        assert [h.start for h in happenings] == sorted(h.start for h in happenings)
    assert classes == set(MOTION_CLASSES)
    assert 30 < together < 150  # several at the same time, not always


def test_files_hold_what_was_planned(made: Path):
    for split, count in (("train", 4), ("val", 2)):
        dataset = load_dataset(made, split)  # type: ignore[arg-type]
        assert len(dataset) == count
        for index, item in enumerate(dataset.items):
            length, happenings = plan_video(SMALL, split, index)
            with open_video(item.path) as video:
                assert len(video) == length
                decoded = video.frames(range(length)).numpy().astype(float)
            rendered = render_video(SMALL, split, index)
            error = np.mean((decoded - rendered) ** 2, axis=(1, 2, 3))
            assert 10 * np.log10(255**2 / error).min() > 24
            # at every frame exactly the events that are drawn on it, whichever rule for the ends
            for ends in ("included", "excluded"):
                times = np.arange(length) / SMALL.fps
                labels = active_at(item.actions, times, len(MOTION_CLASSES), ends=ends)  # type: ignore[arg-type]
                for t in range(int(ends == "excluded"), length):  # frame 0 is at time 0, where one may start
                    there = {h.class_name for h in happenings if h.start <= t < h.stop}
                    assert {MOTION_CLASSES[k] for k in np.flatnonzero(labels[:, t])} == there


def test_events_are_drawn_in_their_time_and_at_no_other(monkeypatch: pytest.MonkeyPatch):
    from saccade.data.motion import untrimmed

    def glaring(rng: object, height: int, width: int) -> object:
        return lambda frame, progress, dx, dy: frame.fill(255)

    pairs = tuple((first, second, glaring) for first, second, _ in untrimmed.PAIRS)
    monkeypatch.setattr(untrimmed, "PAIRS", pairs)
    for index in range(6):
        _, happenings = plan_video(SMALL, "train", index)
        bright = render_video(SMALL, "train", index).mean(axis=(1, 2, 3)) > 215
        expected = np.zeros(len(bright), bool)
        for happening in happenings:
            expected[happening.start : happening.stop] = True
        np.testing.assert_array_equal(bright, expected)


def test_the_second_class_of_a_pair_is_the_first_backwards(monkeypatch: pytest.MonkeyPatch):
    from saccade.data.motion import untrimmed

    seen: dict[str, list[float]] = {}
    monkeypatch.setattr(
        untrimmed,
        "PAIRS",
        tuple(
            (
                first,
                second,
                lambda rng, height, width: lambda frame, progress, dx, dy: seen["now"].append(progress),
            )
            for first, second, _ in untrimmed.PAIRS
        ),
    )
    spec = UntrimmedSpec(num_events=(1, 1), num_frames=(60, 60), num_event_frames=(20, 20), size=(40, 52))
    directions = {}
    for index in range(40):
        seen["now"] = []
        render_video(spec, "train", index)
        _, (happening,) = plan_video(spec, "train", index)
        steps = np.diff(seen["now"])
        assert (steps > 0).all() or (steps < 0).all()
        directions.setdefault(happening.class_name, set()).add(bool(steps[0] > 0))
    for first, second, _ in untrimmed.PAIRS:
        assert directions.get(first, {True}) == {True}
        assert directions.get(second, {False}) == {False}
    assert len(directions) > 8


def test_the_same_again_and_never_mixed(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    make_untrimmed(made, **OPTIONS)  # type: ignore[arg-type]
    assert "6 clips found" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    with pytest.raises(DataError, match=r"other settings \(seed 0, requested 3\)"):
        make_untrimmed(made, **OPTIONS, seed=3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"other settings \(untrimmed clips, requested trimmed\)"):
        make_motion(made, clips_per_class=1, val_per_class=1, workers=0)


def test_force_replaces_one_kind_by_the_other(tmp_path: Path):
    root = tmp_path / "set"
    make_motion(root, clips_per_class=1, val_per_class=1, size=(40, 52), num_frames=(8, 9), workers=0)
    make_untrimmed(root, **{**OPTIONS, "num_videos": 1, "num_val_videos": 1}, force=True)  # type: ignore[arg-type]
    assert sorted(path.name for path in root.iterdir()) == [
        "classes.txt",
        "motion.json",
        "train.csv",
        "val.csv",
        "videos",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_videos": 0}, "num_videos: must be at least 1"),
        ({"size": (41, 52)}, "size: height and width must be even"),
        ({"num_events": (3, 1)}, r"num_events: must be a range .* got \(3, 1\)"),
        ({"num_event_frames": (12, 41)}, "an event of 41 frames does not fit into a video of 40"),
        ({"seed": -1}, "seed: must not be negative"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, change: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        make_untrimmed(tmp_path / "set", **{**OPTIONS, **change})  # type: ignore[arg-type]
    assert not (tmp_path / "set").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["--videos", "1", "--val-videos", "1", "--size", "32x32", "--workers", "0"]
    assert main(["data", "motion", str(tmp_path / "set"), "--untrimmed", *flags]) == 0
    assert len(load_dataset(tmp_path / "set", "all")) == 2
    assert main(["data", "motion", str(tmp_path / "no"), "--untrimmed", "--clips-per-class", "3"]) == 2
    assert "with --untrimmed the counts are --videos and --val-videos" in capsys.readouterr().err
    assert main(["data", "motion", str(tmp_path / "no"), "--videos", "3"]) == 2
    assert "without --untrimmed the counts are" in capsys.readouterr().err
