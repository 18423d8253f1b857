"""Something-Something as it is published: what is read, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.something_files import CLASSES, NUM_TRAIN, NUM_VAL, clips, make_tsm, make_v2, write_frames
from saccade.clip import ClipSpec
from saccade.data import check_data, class_names, load_dataset
from saccade.data.clips import ClipSettings, TrainClips
from saccade.data.types import ClipRequest, VideoDataset
from saccade.errors import DataError, UsageError, VideoError
from saccade.evaluation.reading import VideoSource
from saccade.sampling.views import parse_views
from saccade.tasks import Classify
from saccade.video import open_video

LEFT_RIGHT = list(CLASSES.values())[:2]


def by_id(dataset: VideoDataset) -> dict[str, str]:
    """id -> class name."""
    return {Path(item.path).stem: dataset.class_names[item.label] for item in dataset.items}


def expected(split: str) -> dict[str, str]:
    return {video: name for own, video, name, _ in clips() if own == split}


def links(source: Path, target: Path) -> Path:
    """A copy of the lists, with the videos linked."""
    target.mkdir()
    for path in source.iterdir():
        if path.is_dir() and path.name.startswith("20bn"):
            (target / path.name).symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, target / path.name)
        else:
            shutil.copy(path, target)
    return target


@pytest.fixture
def v1(ssv1: Path, tmp_path: Path) -> Path:
    """A miniature of v1 whose lists may be spoilt."""
    return links(ssv1, tmp_path / "v1")


@pytest.fixture
def v2(ssv2: Path, tmp_path: Path) -> Path:
    """A miniature of v2 whose lists may be spoilt."""
    return links(ssv2, tmp_path / "v2")


# --- what is read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_published_lists(version: str, ssv1: Path, ssv2: Path) -> None:
    root = ssv1 if version == "v1" else ssv2
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        dataset = load_dataset(root, split)
        assert by_id(dataset) == expected(split)
        assert len(dataset) == 4 * count
        assert dataset.class_names == class_names(f"something_{version}")
        for item in dataset.items:
            assert (item.fps, item.num_frames) == (12.0, None)
            assert Path(item.path).is_dir() == (version == "v1")


def test_the_files_themselves_and_where_their_videos_lie(ssv1: Path, ssv2: Path, tmp_path: Path) -> None:
    whole = load_dataset(ssv2, "val")
    file = ssv2 / "something-something-v2-validation.json"
    assert load_dataset(file, "val").items == whole.items
    assert load_dataset(file, "test").items == whole.items  # the file that was named
    lists = tmp_path / "lists"
    lists.mkdir()
    shutil.copy(file, lists)
    shutil.copy(ssv1 / "something-something-v1-train.csv", tmp_path)
    for root in (ssv2, ssv2 / "20bn-something-something-v2"):
        assert load_dataset(lists / file.name, "val", root=root).items == whole.items
        assert load_dataset(lists, "val", root=root).items == whole.items
    first = load_dataset(ssv1, "train")
    for root in (ssv1, ssv1 / "20bn-something-something-v1"):
        found = load_dataset(tmp_path / "something-something-v1-train.csv", "all", root=root)
        assert (found.items, found.class_names) == (first.items, first.class_names)  # the list that ships


def test_later_archive_of_v2(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_v2(tmp_path / "ssv2", later=True)
    for place in (root, root / "labels", root / "labels" / "train.json"):
        assert by_id(load_dataset(place, "train")) == expected("train")
        assert by_id(load_dataset(place, "val")) == expected("val")
    assert len(load_dataset(root, "all")) == 4 * (NUM_TRAIN + NUM_VAL)
    assert "no labels were published for the test split; it is skipped" in caplog.text
    (root / "labels" / "test-answers.csv").write_text(f"1420;{LEFT_RIGHT[0]}\n3000;{LEFT_RIGHT[1]}\n")
    for video in ("1420", "3000"):
        shutil.copy(
            next((root / "20bn-something-something-v2").glob("*.webm")),
            root / "20bn-something-something-v2" / f"{video}.webm",
        )
    assert by_id(load_dataset(root, "test")) == dict(zip(("1420", "3000"), LEFT_RIGHT, strict=True))


def test_folders_extracted_from_the_videos_of_v2(v2: Path) -> None:
    (v2 / "20bn-something-something-v2").unlink()
    frames = v2 / "20bn-something-something-v2-frames"
    for _, video, _, pixels in clips():
        write_frames(frames / video, pixels[:4], "{:06d}.jpg")
    dataset = load_dataset(v2, "val")
    assert by_id(dataset) == expected("val")
    assert all(Path(item.path).is_dir() for item in dataset.items)


def test_other_class_names_and_labels_in_other_order(v1: Path) -> None:
    names = list(reversed(class_names("something_v1")))
    (v1 / "something-something-v1-labels.csv").write_text("\n".join(names))
    dataset = load_dataset(v1, "train")
    assert (dataset.class_names, by_id(dataset)) == (tuple(names), expected("train"))
    given = load_dataset(v1, "train", class_names=list(CLASSES.values()))
    assert given.class_names == tuple(CLASSES.values())
    assert by_id(given) == expected("train")


def test_without_a_validation_list_clips_are_held_out(v2: Path, caplog: pytest.LogCaptureFixture) -> None:
    (v2 / "something-something-v2-validation.json").unlink()
    train, val = load_dataset(v2, "train"), load_dataset(v2, "val")
    assert len(train) + len(val) == 4 * NUM_TRAIN
    assert "no validation split, so 4 of 12 clips are held out" in caplog.text


def test_missing_videos_are_told_and_left_out_only_when_allowed(
    v2: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = json.loads((v2 / "something-something-v2-train.json").read_text())
    rows.insert(0, {**rows[0], "id": "999999"})
    (v2 / "something-something-v2-train.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"1 of 13 files are missing, the first is .*999999\.webm .*row 1\)"):
        load_dataset(v2, "train")
    assert by_id(load_dataset(v2, "train", allow_missing=True)) == expected("train")
    assert "1 of 13 files are missing" in caplog.text


@pytest.mark.parametrize("template", ["{:05d}.jpg", "{:06d}.jpg", "img_{:05d}.jpg"])
def test_frame_lists_of_tsm(tmp_path: Path, template: str) -> None:
    root = make_tsm(tmp_path / "tsm", template)
    for split in ("train", "val"):
        for place in (root / "lists", root / "lists" / f"{split}_videofolder.txt"):
            dataset = load_dataset(place, split, root=root / "frames")
            assert by_id(dataset) == expected(split)
            assert dataset.class_names == class_names("something_v2")
        frames = {video: pixels for _, video, _, pixels in clips()}
        for item in dataset.items:
            pixels = frames[Path(item.path).name]
            assert item.num_frames == len(pixels)
            with open_video(item.path, num_frames=item.num_frames) as video:
                decoded = video.frames([0, len(video) - 1]).numpy().astype(int)
            assert np.abs(decoded - pixels[[0, -1]]).mean() < 10


def test_class_names_for_frame_lists(tsm_lists: Path, tmp_path: Path) -> None:
    shutil.copy(tsm_lists / "lists" / "val_videofolder.txt", tmp_path)
    file, root = tmp_path / "val_videofolder.txt", tsm_lists / "frames"
    highest = max(item.label for item in load_dataset(tsm_lists / "lists", "val", root=root).items)
    assert load_dataset(file, "all", root=root).class_names == tuple(map(str, range(highest + 1)))
    named = load_dataset(file, "all", root=root, class_names="something_v2")
    assert by_id(named) == expected("val")


def test_check_reads_all_of_it(ssv1: Path, tsm_lists: Path) -> None:
    report = check_data(ssv1, num_frames=12, temporal_rule="tsm", workers=0)
    assert report.ok
    assert report.splits == ("train", "val")
    assert len(report.files) == 4 * (NUM_TRAIN + NUM_VAL)
    assert {file.fps for file in report.files} == {12.0}
    lengths = {video: len(frames) for _, video, _, frames in clips()}
    assert {Path(file.path).name: file.num_frames for file in report.files} == lengths
    assert len(report.short) == sum(length < 12 for length in lengths.values()) > 0
    assert report.class_counts["train"][report.class_names.index(LEFT_RIGHT[0])] == NUM_TRAIN
    assert check_data(tsm_lists / "lists", root=tsm_lists / "frames", num_frames=2, stride=1, workers=0).ok
    with pytest.raises(UsageError, match="temporal_rule: 'tms' is unknown; known are"):
        check_data(ssv1, temporal_rule="tms")


# --- malformed rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Holding something", r"train\.csv:2: 'Holding something' is not of the form 'id;label'"),
        ("12;", r"train\.csv:2: '12;' is not of the form 'id;label'"),
        ("12", r"train\.csv:2: video 12 has no label; every row of this list needs one"),
        ("12;Holding nothing", r"train\.csv:2: no class 'Holding nothing'; classes are Holding something"),
        ("cat.jpg;Holding something", r"train\.csv:2: 'cat\.jpg;Holding something' is not"),
    ],
)
def test_malformed_rows_of_v1(v1: Path, row: str, message: str) -> None:
    file = v1 / "something-something-v1-train.csv"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([first, row, *rest]))
    with pytest.raises(DataError, match=message):
        load_dataset(v1, "train")


GOOD = {"id": "7", "template": "Holding [something]"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{]", r"train\.json:1: not JSON \(.* at column 3\)"),
        ("{}", r"train\.json: not a list of videos"),
        ("[]", r"train\.json: not a list of videos"),
        ([GOOD, 5], r"train\.json:row 2: 5 has no id, the number of a video"),
        ([GOOD, {"template": "x"}], r"train\.json:row 2: .* has no id"),
        ([GOOD, {**GOOD, "id": "a/b"}], r"train\.json:row 2: .* has no id, the number of a video"),
        ([GOOD, {"id": "8", "label": "a cup"}], r"row 2: video 8 has a label and no template"),
        ([GOOD, {"id": "8", "template": 3}], r"row 2: video 8: the template 3 is not the name of a class"),
        ([GOOD, {"id": "8"}], r"row 2: video 8 has no label; every row of this list needs one"),
        (
            [GOOD, {**GOOD, "template": "Eating [something]"}],
            r"row 2: no class 'Eating something'; classes are",
        ),
    ],
)
def test_malformed_rows_of_v2(v2: Path, text: object, message: str) -> None:
    file = v2 / "something-something-v2-train.json"
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(DataError, match=message):
        load_dataset(v2, "train")


@pytest.mark.parametrize("text", ["[]", '{"Holding something": "1"}', '{"Holding something": "one"}', "{}"])
def test_malformed_table_of_labels(v2: Path, text: str) -> None:
    (v2 / "something-something-v2-labels.json").write_text(text)
    with pytest.raises(DataError, match=r"labels\.json: not a table of names to numbers from 0 on"):
        load_dataset(v2, "train")


def test_one_video_with_two_labels(v1: Path) -> None:
    file = v1 / "something-something-v1-train.csv"
    first = file.read_text().splitlines()[0]
    file.write_text(file.read_text() + f"{first.split(';')[0]};{LEFT_RIGHT[1]}\n")
    with pytest.raises(DataError, match=r"train\.csv:13: .* has another label at .*train\.csv:1"):
        load_dataset(v1, "train")


@pytest.mark.parametrize("row", ["200 30", "200 x 3", "200 0 3", "200"])
def test_malformed_rows_of_frame_lists(tsm_lists: Path, tmp_path: Path, row: str) -> None:
    lines = (tsm_lists / "lists" / "train_videofolder.txt").read_text().splitlines()
    file = tmp_path / "train_videofolder.txt"
    file.write_text("\n".join([lines[0], row, *lines[1:]]))
    with pytest.raises(DataError, match=rf"txt:2: '{row}' is not 'folder, number of frames, label'"):
        load_dataset(file, "train", root=tsm_lists / "frames")


def test_a_folder_with_fewer_frames_than_its_list_says(tsm_lists: Path) -> None:
    dataset = load_dataset(tsm_lists / "lists", "train", root=tsm_lists / "frames")
    item = dataset.items[0]
    assert item.num_frames is not None
    with pytest.raises(VideoError, match=f"{item.num_frames} frames, {item.num_frames + 1} are listed"):
        open_video(item.path, num_frames=item.num_frames + 1)
    with open_video(item.path, num_frames=2) as video:
        assert len(video) == 2


# --- what a user may have meant --------------------------------------------------------------------------


def test_test_split_without_labels(ssv1: Path, ssv2: Path) -> None:
    message = r"the test split was published without labels.*use the validation split"
    for root, name in ((ssv1, "something-something-v1-test.csv"), (ssv2, "something-something-v2-test.json")):
        for place, split in ((root, "test"), (root / name, "val"), (root / name, "test")):
            with pytest.raises(DataError, match=rf"{name}: {message}"):
                load_dataset(place, split)


def test_the_folder_of_the_videos_instead_of_the_lists(ssv1: Path, ssv2: Path, tmp_path: Path) -> None:
    for root, version in ((ssv1, "v1"), (ssv2, "v2")):
        videos = root / f"20bn-something-something-{version}"
        with pytest.raises(DataError, match=f"without their lists; give the folder of the lists, {root}"):
            load_dataset(videos, "train")
        alone = tmp_path / version
        alone.mkdir()
        (alone / videos.name).symlink_to(videos)
        for place, words in (
            (alone, "is here, its lists are not"),
            (alone / videos.name, "without their lists"),
        ):
            with pytest.raises(DataError, match=rf"{words}; put something-something-{version}-train.*--root"):
                load_dataset(place, "train")


def test_one_level_too_high(ssv1: Path) -> None:
    with pytest.raises(DataError, match=f"Something-Something is in {ssv1}; give that folder"):
        load_dataset(ssv1.parent, "train")


def test_videos_that_are_not_to_be_found(ssv1: Path, ssv2: Path, tmp_path: Path) -> None:
    shutil.copy(ssv2 / "something-something-v2-train.json", tmp_path)
    with pytest.raises(
        DataError, match=r"no videos found: no 7\.webm in .*; give the folder 20bn.*-v2 with --root"
    ):
        load_dataset(tmp_path, "train")
    with pytest.raises(DataError, match=r"--root must be the folder 20bn-something-something-v2 or"):
        load_dataset(tmp_path, "train", root=tmp_path)
    with pytest.raises(UsageError, match=r"root '.*nowhere': no such folder"):
        load_dataset(tmp_path, "train", root=tmp_path / "nowhere")


def test_lists_of_one_version_with_videos_of_the_other(ssv1: Path, ssv2: Path, tmp_path: Path) -> None:
    csv, videos = "something-something-v1-train.csv", ssv2 / "20bn-something-something-v2"
    with pytest.raises(
        DataError, match=rf"{csv}: a list of v1, but .*7\.webm is of v2, whose numbers mean other"
    ):
        load_dataset(ssv1 / csv, "train", root=videos)
    (tmp_path / "webm").symlink_to(videos)
    with pytest.raises(DataError, match=r"a list of v1, but .*7\.webm is of v2"):
        load_dataset(ssv1 / csv, "train", root=tmp_path / "webm")
    with pytest.raises(DataError, match=r"a list of v2, but .* is of v1, whose numbers mean other videos"):
        load_dataset(ssv2, "train", root=ssv1 / "20bn-something-something-v1")
    mixed = links(ssv2, tmp_path / "mixed")
    shutil.copy(ssv1 / csv, mixed)
    with pytest.raises(
        DataError, match=rf"lists of both versions, {csv} and something-something-v2-train.json"
    ):
        load_dataset(mixed, "train")


def test_frames_of_v2_by_their_names(v1: Path, caplog: pytest.LogCaptureFixture) -> None:
    (v1 / "20bn-something-something-v1").unlink()
    for _, video, _, pixels in clips():
        write_frames(v1 / "frames" / video, pixels[:2], "{:06d}.jpg")
    load_dataset(v1, "train")
    assert "frames of v1 are called 00001.jpg, with five digits; are these of v2?" in caplog.text


def test_the_file_of_labels_instead_of_a_list(ssv1: Path, ssv2: Path) -> None:
    for path in (ssv1 / "something-something-v1-labels.csv", ssv2 / "something-something-v2-labels.json"):
        with pytest.raises(DataError, match="holds the class names; give the list of training videos"):
            load_dataset(path, "train")


def test_a_frame_list_without_its_root(tsm_lists: Path) -> None:
    with pytest.raises(
        DataError, match=r"12 of 12 files are missing.*lists/7 .*give the folder .* with --root"
    ):
        load_dataset(tsm_lists / "lists", "train")


def test_foreign_json_files_are_left_alone(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "1.mp4").touch()
    (tmp_path / "train.json").write_text('{"00001": {"annotations": {"label": "a"}}}')
    (tmp_path / "labels.json").write_text("{}")
    assert len(load_dataset(tmp_path, "train")) == 2


# --- folders of frames -----------------------------------------------------------------------------------


def test_optical_flow_beside_the_frames_is_left_alone(tmp_path: Path) -> None:
    pixels = clips()[0][3][:3]
    write_frames(tmp_path / "clip", pixels, "img_{:05d}.jpg")
    for number in range(1, 4):
        for axis in "xy":
            shutil.copy(
                tmp_path / "clip" / "img_00001.jpg", tmp_path / "clip" / f"flow_{axis}_{number:05d}.jpg"
            )
    with open_video(tmp_path / "clip") as video:
        assert len(video) == 3


@pytest.mark.parametrize("short_side", [None, 24])
def test_threads_change_nothing(ssv1: Path, short_side: int | None) -> None:
    folder = load_dataset(ssv1, "train").items[0].path
    wanted = [5, 0, 5, 3, 3, 1]
    with (
        open_video(folder, short_side=short_side) as one,
        open_video(folder, short_side=short_side, threads=3) as three,
    ):
        frames = one.frames(wanted)
        assert (frames == three.frames(wanted)).all()
        assert (frames[0] == frames[2]).all()
        assert (frames[0] != frames[1]).any()
        assert one.size == tuple(frames.shape[1:3])


def test_a_list_named_for_no_split_is_held_out_from(ssv2: Path, tmp_path: Path) -> None:
    shutil.copy(ssv2 / "something-something-v2-train.json", tmp_path / "mine.json")
    parts = [load_dataset(tmp_path / "mine.json", split, root=ssv2) for split in ("train", "val", "all")]
    assert [len(part) for part in parts] == [8, 4, 12]


def test_only_the_listed_frames_are_trained_and_tested_on(tsm_lists: Path, tmp_path: Path) -> None:
    names = class_names("something_v2")
    video, name, pixels = next((video, name, pixels) for _, video, name, pixels in clips())
    shutil.copytree(tsm_lists / "frames" / video, tmp_path / video)
    (tmp_path / "all.txt").write_text(f"{video} 3 {names.index(name)}\n")
    dataset = load_dataset(tmp_path / "all.txt", "all", class_names=names)
    request = ClipRequest(index=0, seed=1, num_frames=3, stride=(1, 1), short_side=(40, 40), crop=40)
    batch = TrainClips(dataset, ClipSettings(rule="tsm")).read([request])
    clip = ClipSpec(num_frames=3, stride=1, crop=40, short_side=40)
    (tested,) = VideoSource(dataset, Classify(), clip, (parse_views("1x1"),), "tsm")(0)
    for frames in (batch.unpack().clips[0], tested.frames):
        assert np.abs(frames.numpy().astype(int) - pixels[:3]).mean() < 10
        assert np.abs(frames.numpy().astype(int) - pixels[-3:]).mean() > 10
