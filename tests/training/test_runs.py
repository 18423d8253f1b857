"""The run folder, and one that an earlier version wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from saccade.cli import main
from saccade.errors import UsageError
from saccade.evaluation import load_result
from saccade.inference import Predictor
from saccade.models import load_model
from saccade.runs import FORMAT, Run, newest_run
from saccade.training import TrainConfig, train

OLD = Path(__file__).parent / "fixtures" / "run_v0"
"""x3d_ucf10 made tiny, on the clips of `tiny_clips`, two of three epochs; written at commit d3891ba."""


@pytest.fixture
def old(tmp_path: Path) -> Run:
    """A copy of `OLD`."""
    return Run(shutil.copytree(OLD, tmp_path / "run_v0"))


def config_of(run: Run, data: Path) -> TrainConfig:
    return run.config.replace(data=str(data), out=str(run.folder))


def test_an_old_run_is_read(old: Run):
    record = old.record()
    assert record["format"] == 0
    assert record["git"]["revision"].startswith("d3891ba")
    assert old.exists()
    assert old.num_steps == 10
    assert old.best_score == pytest.approx(0.6)
    assert old.best_epoch == 2
    assert old.test == {}
    assert old.seconds is None
    rows, damaged = old.metrics()
    assert damaged == 0
    assert rows[-1]["val_top1"] == pytest.approx(0.6)
    assert load_result(old.val_scores).class_names == ("brightening", "darkening")


def test_an_old_run_goes_on_as_one_that_never_stopped(old: Run, tiny_clips: Path, tmp_path: Path):
    config = config_of(old, tiny_clips)
    resumed = train(config, resume=True)
    assert resumed.num_steps == 15
    whole = train(config.replace(out=str(tmp_path / "whole")))
    # the first two epochs were computed on another machine
    torch.testing.assert_close(
        load_model(resumed.best)[0].state_dict(), load_model(whole.best)[0].state_dict(), rtol=1e-3, atol=1e-4
    )
    assert resumed.record()["format"] == 0  # config.json stays that of the start


def test_an_old_run_is_tested_and_predicts(old: Run, tiny_clips: Path, capsys: pytest.CaptureFixture[str]):
    code = main(
        ["test", str(old.folder), "--data", str(tiny_clips), "--views", "2x1", "--workers", "0", "--json"]
    )
    assert code == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["num_videos"] == 5
    assert len(old.later_test_scores()) == 1
    predictor = Predictor(old.folder, device="cpu")
    prediction = predictor(next((tiny_clips / "val" / "brightening").iterdir()))
    assert set(predictor.class_names) == {"brightening", "darkening"}
    assert prediction.label in predictor.class_names


def test_a_newer_format_is_refused(old: Run):
    record = old.record()
    old.config_file.write_text(json.dumps({**record, "format": FORMAT + 1}), encoding="utf-8")
    with pytest.raises(UsageError, match=f"format {FORMAT + 1}"):
        old.record()


def test_a_new_run_says_its_format(tiny_config, tmp_path: Path):
    run = train(tiny_config("run", "--epochs", "1", "--test-views", "2x1"))
    assert run.record()["format"] == FORMAT
    assert run.best_score is not None
    assert run.best_epoch == 1
    assert run.seconds is not None
    assert list(run.test) == ["2x1"]
    assert [path.name for path in run.all_test_scores()] == ["test_scores_2x1.npz"]
    assert load_model(run.best)[0].num_classes == 2
    assert newest_run(tmp_path).folder == run.folder
    assert newest_run(tmp_path / "elsewhere") is None
