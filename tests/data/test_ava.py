"""AVA in its own formats: keyframes, clips around them, and what is wrong with a folder told by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.ava_miniature import DANCES, PEOPLE, STANDS, make_ava
from saccade.data.ava import Keyframe, action_labels, is_cut, keyframe_clip, load_ava
from saccade.data.loader import TrainLoader
from saccade.data.types import ClipRequest
from saccade.errors import DataError, UsageError
from saccade.video.frames import NumberedFiles


@pytest.fixture(scope="module")
def ava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ava(tmp_path_factory.mktemp("ava") / "ava", num_videos=2)


def frames_of(second: int, num_video_frames: int, fps: float = 30.0, **options: int | bool) -> list[int]:
    keyframe = Keyframe("v", second, (), (), ())
    return keyframe_clip(keyframe, num_video_frames, fps, **options).tolist()  # type: ignore[arg-type]


def test_frames_of_a_clip_are_pyslowfast_s():
    # range(centre - T * stride // 2, centre + T * stride // 2, stride) around (second - 900) * 30, clamped
    assert frames_of(910, 27030, num_frames=4, stride=16) == [268, 284, 300, 316]
    assert frames_of(902, 27030, num_frames=32, stride=2) == list(range(28, 92, 2))
    assert frames_of(902, 27030, num_frames=16, stride=5) == [20 + 5 * i for i in range(16)]
    assert frames_of(902, 27030, num_frames=4, stride=40)[:2] == [0, 20]
    assert frames_of(1798, 26950, num_frames=4, stride=16) == [26908, 26924, 26940, 26949]


def test_videos_at_other_rates_and_whole_films():
    assert frames_of(910, 25 * 901, 25.0, num_frames=3, stride=6) == [242, 248, 252]
    assert frames_of(910, 25 * 7200, 25.0, num_frames=1, stride=1, cut=False) == [22750]
    assert is_cut(27030, 30.0)
    assert not is_cut(25 * 7200, 25.0)


def test_training_keyframes(ava: Path):
    train = load_ava(ava, "train")
    assert [k.moment for k in train.keyframes] == [
        (v, s) for v in ("train0", "train1") for s in (902, 903, 904)
    ]
    assert train.keyframes[0].boxes == PEOPLE
    assert train.keyframes[0].actions == ((STANDS,), (DANCES,))
    assert len(train.class_names) == 80
    assert train.class_names[DANCES - 1] == "dance"
    assert train.multi_label
    assert action_labels(train.keyframes[0]).nonzero()[1].tolist() == [STANDS - 1, DANCES - 1]
    assert set(train.actions) == {4, 12, 14}
    with train.open(0, short_side=24) as video:
        assert len(video) == 140
        assert video.frames([0, 139]).shape == (2, 24, 32, 3)


def test_detected_people_in_training_are_examples_too(ava: Path, tmp_path: Path):
    found = tmp_path / "found.csv"
    near = ",".join(f"{value:.3f}" for value in PEOPLE[0])
    found.write_text(
        f"train0,902,{near},14,0.99\ntrain0,902,0.1,0.1,0.2,0.2,,0.95\ntrain0,902,0,0,1,1,,0.5\n"
    )
    first = load_ava(ava, "train", detected=found).keyframes[0]
    assert first.actions == ((STANDS, 14), (DANCES,), ())  # one box with two rows, and one of nobody known
    assert first.scores == (1.0, 1.0, 0.95)


def test_validation_looks_at_detected_people(ava: Path, caplog: pytest.LogCaptureFixture):
    val = load_ava(ava, "val")
    assert [len(k.boxes) for k in val.keyframes] == [2] * 6  # those of 0.3 are left out
    assert val.keyframes[0].boxes[0] == pytest.approx((0.03, 0.1, 0.4, 0.93))
    assert val.keyframes[0].actions == ((), ())
    assert val.boxes_from.endswith("ava_val_predicted_boxes.csv")
    assert val.excluded == {("val0", 903)}
    assert len(val.truth) == 12
    assert [len(k.boxes) for k in load_ava(ava, "val", min_score=0.2).keyframes] == [3] * 6
    assert [k.second for k in load_ava(ava, "val", every=4).keyframes] == [904, 904]
    assert {row.second for row in load_ava(ava, "val", every=4).truth} == {904}
    with pytest.raises(DataError, match=r"no boxes with a score of at least 0\.96"):
        load_ava(ava, "val", min_score=0.96)
    assert caplog.text == ""


def test_annotated_people_take_their_place_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = make_ava(tmp_path / "ava", num_videos=1, seconds=(902,), lists=False)
    (root / "annotations" / "ava_val_predicted_boxes.csv").unlink()
    val = load_ava(root, "val")
    assert val.keyframes[0].boxes == PEOPLE
    assert val.boxes_from == "annotations"
    assert "no boxes of detected people" in caplog.text
    assert len(load_ava(root / "annotations" / "ava_train_v2.2.csv", "train")) == 1
    (root / "frames" / "train0" / "train0_000007.jpg").unlink()
    with pytest.raises(DataError, match=r"train0_000008.jpg found where .*train0_000007.jpg should follow"):
        load_ava(root, "train")


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(UsageError, match="no such file or folder"):
        load_ava(tmp_path / "none", "train")
    with pytest.raises(DataError, match=r"no ava_train_v2\.2\.csv here or in annotations/"):
        load_ava(tmp_path, "train")
    notes = tmp_path / "annotations"
    notes.mkdir()
    rows = notes / "ava_train_v2.2.csv"
    rows.write_text("v,0902,0,0,1,1,12,0\n")
    with pytest.raises(DataError, match=r"1 of 1 videos are not found, first v: .*; give the folder"):
        load_ava(tmp_path, "train")
    rows.write_text("v,0900,0,0,1,1,12,0\n")
    with pytest.raises(DataError, match="video v has a box at second 900; keyframes are seconds 902 to 1798"):
        load_ava(tmp_path, "train")
    rows.write_text("v,0902,0,0,1,1,12,0\n")
    for name in ("ava_val_predicted_boxes.csv", "ava_detection_val_boxes_and_labels.csv"):
        (notes / name).write_text("v,0902,0,0,1,1,,0.99\n")
    rows.rename(notes / "ava_val_v2.2.csv")
    with pytest.raises(DataError, match="both hold detected boxes; name the one to use"):
        load_ava(tmp_path, "val")


def test_videos_that_are_not_there_may_be_left_out(
    ava: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    more = tmp_path / "annotations"
    more.mkdir()
    text = (ava / "annotations" / "ava_train_v2.2.csv").read_text()
    (more / "ava_train_v2.2.csv").write_text(text + "gone,0902,0,0,1,1,12,0\n")
    with pytest.raises(DataError, match="1 of 3 videos"):
        load_ava(tmp_path, "train", root=ava / "frames")
    part = load_ava(tmp_path, "train", root=ava / "frames", allow_missing=True)
    assert {k.video for k in part.keyframes} == {"train0", "train1"}
    assert "1 of 3 videos are missing and skipped, first gone" in caplog.text


def test_numbered_files():
    files = NumberedFiles.of_paths(["a/a_000007.jpg", "a/a_000008.jpg", "a/a_000009.jpg"], where="list")
    assert (len(files), files[1], files[-1]) == (3, "a/a_000008.jpg", "a/a_000009.jpg")
    assert files[:2] == ["a/a_000007.jpg", "a/a_000008.jpg"]
    with pytest.raises(IndexError):
        files[3]
    with pytest.raises(DataError, match=r"list: a/a_3\.jpg found where a/a_2\.jpg should follow"):
        NumberedFiles.of_paths(["a/a_1.jpg", "a/a_3.jpg"], where="list")
    with pytest.raises(DataError, match="has no number"):
        NumberedFiles.of_paths(["a/x.jpg"], where="list")


def test_batches_have_places_for_everybody(ava: Path, tmp_path: Path):
    found = tmp_path / "found.csv"
    found.write_text("train0,902,0.1,0.1,0.2,0.2,14,0.95\n")
    train = load_ava(ava, "train", detected=found)
    requests = [
        ClipRequest(index=i, seed=i, num_frames=4, stride=(2, 2), short_side=(24, 24), crop=24)
        for i in (0, 5)
    ]
    with TrainLoader(train) as loader:
        batch = next(loader.batches([requests]))
    assert batch.labels.shape == (2, 80, 3)
    assert batch.inside is not None
    assert batch.inside.tolist() == [[True, True, True], [True, True, False]]
    assert batch.boxes is not None
    np.testing.assert_allclose(batch.boxes[0, 2], [0.1, 0.1, 0.2, 0.2], rtol=1e-6)
    assert batch.labels[0].sum(0).tolist() == [1, 1, 1]
    assert batch.labels[1].sum(0).tolist() == [1, 1, 0]
    assert batch.clips[0].shape == (4, 24, 32, 3)
    # the dancer flickers with a period of four frames: every second frame is bright and dark in turn
    left, right = (batch.clips[0][:, 12, column].float().mean(-1) for column in (6, 24))
    assert left.std() < 3
    assert torch.diff(right).abs().min() > 10
