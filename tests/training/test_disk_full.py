"""A disk that fills up: one error that names the file, whole files, and a run that goes on afterwards."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from test_train import assert_same

from saccade.cli import main
from saccade.files import atomic_path, write_json
from saccade.models import create_model, load_model, save_weights
from saccade.runs import Run
from saccade.training import TrainConfig, train
from saccade.training.checkpoint import load_checkpoint, save_checkpoint
from saccade.training.reporting import MetricsFile
from saccade.video import write_video
from saccade.visualize.charts import save_figure

MakeConfig = Callable[..., TrainConfig]


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file of this process can become larger than ``most`` bytes: writing fails in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def arrays(path: Path) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, scores=np.random.default_rng(0).random((400, 40)))


def picture(path: Path) -> None:
    figure = Figure()
    figure.add_subplot().imshow(np.random.default_rng(0).random((400, 400)))
    save_figure(figure, path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "last.pt": lambda path: save_checkpoint(path, {"model": {"w": torch.rand(9000)}}),
    "best.safetensors": lambda path: save_weights(create_model("x2d", 2, gamma_w=0.25), path),
    "test.json": lambda path: write_json(path, ["figure"] * 9000),
    "val_scores.npz": arrays,
    "plan.png": picture,
    "clip.mp4": lambda path: write_video(
        path, torch.randint(0, 255, (9, 64, 64, 3), dtype=torch.uint8), fps=30
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_error_names_the_file_and_the_old_one_stays(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    with pytest.raises(OSError) as caught, small_files(5000):
        WRITERS[name](path)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [name]


# ------------------------------------------------------------------------------------------------------- runs


def fill_up(monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """Let the disk be full when the ``after``-th file is about to be whole; calls so far."""
    calls: list[int] = []
    fsync = os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr("saccade.files.os.fsync", full)
    return calls


FLAGS = ("--epochs", "2", "--test-views", "1x1", "--save-minutes", "0")
_whole: list[Run] = []


@pytest.fixture
def whole(tiny_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that no disk stopped, trained once."""
    if not _whole:
        out = tmp_path_factory.mktemp("whole")
        _whole.append(train(tiny_config("whole", *FLAGS).replace(out=str(out / "run"))))
    return _whole[0]


@pytest.mark.parametrize("after", range(0, 8))
def test_whatever_file_is_the_first_that_fails(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, whole: Run, after: int
) -> None:
    config = tiny_config("run", *FLAGS)
    with monkeypatch.context() as patch:
        fill_up(patch, after)
        with pytest.raises(OSError, match="No space left on device") as caught:
            train(config)
    folder = Path(config.out)
    assert Path(caught.value.filename).parent == folder
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    run = Run(folder)
    if run.last.is_file():
        load_checkpoint(run.last)
    if run.best.is_file():
        load_model(run.best)
    train(config, resume=run.last.is_file(), overwrite=not run.last.is_file())
    assert_same(load_checkpoint(run.last)["model"], load_checkpoint(whole.last)["model"])
    assert run.metrics()[1] == 0
    assert [row["step"] for row in run.metrics()[0]] == [row["step"] for row in whole.metrics()[0]]


@pytest.mark.parametrize("name", ["metrics.jsonl", "log.txt"])
def test_a_file_that_lines_are_added_to(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = tiny_config("run", "--epochs", "1")

    def opened(path: Path, mode: str, **options: str) -> object:
        return open("/dev/full" if Path(path).name == name else path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr("saccade.files.open", opened, raising=False)
        with pytest.raises(OSError, match="No space left on device") as caught:
            train(config)
    assert Path(caught.value.filename).name == name
    run = train(config, resume=Run(config.out).last.is_file(), overwrite=not Run(config.out).last.is_file())
    assert run.num_steps == 5


def test_half_a_line_is_cut_when_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "epoch": 0.4, "loss": 1.5}\n{"step": 4, "ep')
    MetricsFile(path).cut(step=4, validation_due=False)
    MetricsFile(path).write({"step": 4, "epoch": 0.8})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [2, 4]


def test_the_command_says_it_in_one_line(
    tiny_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    config = tiny_config("run", "--epochs", "1")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(config.to_dict()))
    with monkeypatch.context() as patch:
        fill_up(patch, 2)
        assert main(["train", str(recipe)]) == 3
    last = capsys.readouterr().err.strip().splitlines()[-1]
    full = Path(config.out) / "last.pt"
    assert last.startswith(
        f"saccade: error: {full}: No space left on device; {full} keeps the last good state"
    )
    assert last.endswith("--resume")
    assert main(["train", str(recipe), "--resume"]) == 0


def test_a_run_folder_that_is_removed_ends_the_run(tiny_config: MakeConfig) -> None:
    from saccade.training.reporting import Callback

    class Remove(Callback):
        def on_step(self, record: object) -> None:
            shutil.rmtree(config.out, ignore_errors=True)

    config = tiny_config("run", "--epochs", "1", "--log-every", "1000")
    with pytest.raises(FileNotFoundError) as caught:
        train(config, callbacks=[Remove()])
    assert str(caught.value.filename).startswith(config.out)
    assert not Path(config.out).exists()
