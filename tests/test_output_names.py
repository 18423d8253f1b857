"""Files that a command writes: a place that cannot be written to is told at once; no two have one name."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.cli import main
from saccade.cli.flags import check_file, check_folder, output_names
from saccade.errors import UsageError


def test_check_folder_creates_nothing(tmp_path: Path):
    assert check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert check_file(tmp_path / "a" / "b.png", suffixes=(".png", ".svg")) == tmp_path / "a" / "b.png"
    assert not list(tmp_path.iterdir())


def test_unwritable_paths_are_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--out .*/file: .*/file is a file, not a folder"):
        check_folder(tmp_path / "file")
    with pytest.raises(UsageError, match=r"--out .*/file/a: .*/file is a file, not a folder"):
        check_folder(tmp_path / "file" / "a")
    with pytest.raises(UsageError, match=r"--picture .*: is a folder; name a file"):
        check_file(tmp_path, "--picture")
    with pytest.raises(UsageError, match=r"--out x.gif: the video must end in .mp4"):
        check_file("x.gif", what="video", suffixes=(".mp4",))
    with pytest.raises(UsageError, match=r"--out .*: not writable"):
        check_folder(tmp_path / ("long" * 100))
    if Path("/proc/version").is_file():
        with pytest.raises(UsageError, match=r"--out /proc/a/b: not writable"):
            check_folder("/proc/a/b")


COMMANDS = {
    "a model that is not there": ("predict", "a.mp4", "--run", "gone", "--localize", "--out"),
    "boxes": ("predict", "a.mp4", "--run", "gone", "--boxes", "b.csv", "--out"),
    "gradcam": ("visualize", "gradcam", "gone", "a.mp4", "--out"),
    "attention": ("visualize", "attention", "gone", "a.mp4", "--out"),
    "hog": ("visualize", "hog", "gone", "a.mp4", "--out"),
    "embedding": ("visualize", "embedding", "gone", "--out"),
    "quickstart": ("quickstart", "--out"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_check_the_output_folder_first(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    assert main([*COMMANDS[command], str(tmp_path / "file")]) == 2
    file = tmp_path / "file"
    assert capsys.readouterr().err == f"saccade: error: --out {file}: {file} is a file, not a folder\n"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("visualize", "timeline", "a.mp4", "--run", "gone", "--out"), "x.mp4"),
        (("visualize", "shifts", "gone", "--out"), "x.png"),
        (("pareto", "gone", "--out"), "x.svg"),
    ],
)
def test_commands_check_the_folder_of_the_output_file(
    command: tuple[str, ...], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    file = tmp_path / "file"
    assert main([*command, str(file / name)]) == 2
    assert f"--out {file}/{name}: {file} is a file, not a folder\n" in capsys.readouterr().err


def test_threshold_must_be_a_score(capsys: pytest.CaptureFixture[str]):
    for value in ("7", "nan"):
        assert main(["visualize", "timeline", "a.mp4", "--run", "gone", "--threshold", value]) == 2
        assert f"--threshold: must be between 0 and 1, got {value} " in capsys.readouterr().err


def test_system_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def refused(*_: object) -> None:
        raise OSError(28, "No space left on device", "scores.npz")

    monkeypatch.setattr("saccade.cli._dispatch", refused)
    assert main(["models"]) == 3
    assert capsys.readouterr().err == "saccade: error: scores.npz: No space left on device\n"


def test_output_names_are_those_of_the_videos():
    assert output_names(["a/run.mp4", "b/jump.mp4"]) == {"a/run.mp4": "run", "b/jump.mp4": "jump"}


def test_the_name_of_a_frame_folder_keeps_its_suffix(tmp_path: Path):
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
def test_duplicate_names_are_extended(paths: list[str], names: list[str]):
    assert list(output_names(paths).values()) == names
