from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from saccade.cli import main
from saccade.clip import ClipSpec
from saccade.data.training_check import fitting_clip, training_warnings
from saccade.data.types import VideoDataset, VideoItem
from saccade.video import write_video

CLIP = ClipSpec(num_frames=4, stride=3, crop=32, short_side=32)  # 10 frames


def dataset(*items: tuple[Path | str, int], names: tuple[str, ...] = ("a", "b")) -> VideoDataset:
    return VideoDataset(tuple(VideoItem(str(path), label) for path, label in items), names, "train", "clips")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A video of each of these numbers of frames."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for length in (1, 3, 7, 8, 10, 30):
        frames = rng.integers(0, 255, (length, 32, 32, 3), dtype=np.uint8)
        write_video(folder / f"{length}.mp4", frames, fps=30)
    return {int(path.stem): path for path in folder.iterdir()}


def warnings(train: VideoDataset, val: VideoDataset | None = None, **options: str) -> str:
    return "\n".join(training_warnings(train, val, CLIP, **options))


def test_a_good_set_gives_no_warning(videos: dict[int, Path]):
    assert warnings(dataset(*((videos[n], label) for n in (10, 30) for label in (0, 1)))) == ""


def test_videos_shorter_than_the_clip_get_the_stride_that_fits(videos: dict[int, Path]):
    text = warnings(dataset(*((videos[n], label) for n in (8, 7, 30) for label in (0, 1))))
    assert "4 of 6 training videos" in text
    assert "0.33 s" in text
    assert "--clip.stride 2 fits" in text
    assert "clips: " in text


def test_segments_need_as_many_frames_as_the_clip(videos: dict[int, Path]):
    set_ = dataset(*((videos[n], label) for n in (3, 7, 30) for label in (0, 1)))
    assert "2 of 6 training videos" in warnings(set_, temporal_rule="tsm")
    assert "4 of 6 training videos" in warnings(set_)


def test_videos_without_motion_are_named(videos: dict[int, Path]):
    text = warnings(dataset(*((videos[n], label) for n in (1, 3, 10) for label in (0, 1))))
    assert "4 of 6 training videos looked at have fewer than 4 frames" in text
    assert str(videos[1]) in text


@pytest.mark.parametrize(
    ("frames", "hint"),
    [
        (10, "--clip.stride 3 "),
        (9, "--clip.stride 2 "),
        (4, "--clip.stride 1 "),
        (3, "--clip.num-frames 3 --clip.stride 1 "),
        (300, "--clip.stride 3 "),
    ],
)
def test_the_clip_that_fits(frames: int, hint: str):
    assert fitting_clip(CLIP, [frames / 30] * 5, [frames] * 5).startswith(hint)
    assert fitting_clip(CLIP, [frames / 30] * 5, [frames] * 5, True).startswith(
        f"--clip.num-frames {frames} "
    )


def test_one_clip_a_class_is_named():
    assert "each of the 2 classes has one" in warnings(dataset(("x.mp4", 0), ("y.mp4", 1)))
    text = warnings(dataset(("x.mp4", 0), ("y.mp4", 1), ("z.mp4", 1)))
    assert "1 classes have one training clip: a" in text


@pytest.mark.parametrize(
    ("names", "odd"),
    [
        (("9f86d081884c7d65", "e3b0c44298fc1c14"), True),
        (("550e8400-e29b-41d4-a716-446655440000", "2c5ea4c0-4067-11e9-8bad-9b1deb4d3b7d"), True),
        (("deadbeef", "facade"), False),
        (("20260101", "20260102"), False),
        (("CleanAndJerk", "BasketballDunk"), False),
    ],
)
def test_class_names_like_hashes_are_named(names: tuple[str, str], odd: bool):
    text = warnings(dataset(("x", 0), ("y", 0), ("z", 1), ("w", 1), names=names))
    assert ("look like ids" in text) is odd


def test_copies_under_two_labels_and_in_two_splits_are_named(videos: dict[int, Path], tmp_path: Path):
    copy = shutil.copy(videos[30], tmp_path / "copy.mp4")
    (tmp_path / "same size.mp4").write_bytes(bytes(videos[30].stat().st_size))
    others = [(videos[10], 0), (tmp_path / "same size.mp4", 1)]
    text = warnings(dataset((videos[30], 0), (copy, 1), *others))
    assert "1 files are in two classes" in text
    assert "copy.mp4 (b)" in text
    text = warnings(dataset((videos[30], 0), *others), dataset((copy, 0)))
    assert "1 validation files are copies" in text
    assert "byte" not in warnings(
        dataset((videos[30], 0), (videos[30], 0), *others), dataset((videos[10], 0))
    )


def test_data_check_takes_the_clip_of_a_recipe(
    videos: dict[int, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    for split in ("train", "val"):
        for name, length in (("a", 30), ("b", 10)):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            shutil.copy(videos[length], tmp_path / "set" / split / name / f"{split}.mp4")
    out = tmp_path / "out.json"
    args = ["data", "check", str(tmp_path / "set"), "--workers", "0", "--json", str(out)]
    main([*args, "--recipe", "x3d_ucf10"])
    found = json.loads(out.read_text())
    from saccade.recipes import get_recipe

    clip = get_recipe("x3d_ucf10").clip
    assert (found["clip"]["num_frames"], found["clip"]["stride"]) == (clip.num_frames, clip.stride)
    main([*args, "--recipe", "x3d_ucf10", "--clip-frames", "4", "--stride", "4"])
    found = json.loads(out.read_text())
    assert len(found["short"]) == 2
    assert found["fitting_clip"].startswith("--clip.stride 3 ")
    assert found["fewer_than_4_frames"] == []
    assert "--clip.stride 3" in capfd.readouterr().out
