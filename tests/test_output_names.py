"""Files that a command writes for many videos: no two may have one name."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.cli._outputs import output_names


def test_files_are_called_as_the_videos_are():
    assert output_names(["a/run.mp4", "b/jump.mp4"]) == {"a/run.mp4": "run", "b/jump.mp4": "jump"}


def test_a_folder_of_frames_keeps_what_looks_like_an_ending(tmp_path: Path):
    (tmp_path / "v1.5").mkdir()
    assert output_names([str(tmp_path / "v1.5")]) == {str(tmp_path / "v1.5"): "v1.5"}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.mp4", "b/x.mp4", "c/y.mp4"], ["a_x", "b_x", "y"]),
        (["a/x.mp4", "a/x.avi"], ["a_x_mp4", "a_x_avi"]),
        (["u/a/x.mp4", "v/a/x.mp4"], ["a_x_mp4", "a_x_mp4-2"]),
        (["a/x.mp4", "b/x.mp4", "c/a_x.mp4"], ["a_x_mp4", "b_x", "c_a_x_mp4"]),
    ],
)
def test_longer_names_tell_them_apart(paths: list[str], names: list[str]):
    assert list(output_names(paths).values()) == names
