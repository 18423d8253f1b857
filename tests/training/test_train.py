"""Whole runs on tiny clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.data.datasets import load_dataset
from saccade.errors import ConfigError, DataError, UsageError
from saccade.evaluation import evaluate
from saccade.models import load_model
from saccade.tasks import TestResult
from saccade.training import RunInterrupted, TrainConfig, TrainingError, train
from saccade.training.checkpoint import load_checkpoint

MakeConfig = Callable[..., TrainConfig]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timing = {"clips_per_s", "data_wait", "val_seconds", "data_seconds", "compute_seconds"}
    return [{key: value for key, value in record.items() if key not in timing} for record in records]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "last.pt")["model"]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not a[name].equal(b[name])]
    assert not different


def test_a_run_leaves_a_complete_folder(
    tiny_config: MakeConfig, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.undo()  # with the report
    config = tiny_config("run", "--epochs", "4", "--test-views", "3x1", "--optim.lr", "0.1")
    result = train(config)
    folder = result.run_dir
    assert result.num_steps == 4 * 5
    assert {path.name for path in folder.iterdir()} >= {
        "config.json", "metrics.jsonl", "last.pt", "best.safetensors", "log.txt", "val_scores.npz",
        "test.json", "test_scores_3x1.npz", "report.html", "best_val_scores.npz",
    }  # fmt: skip
    recorded = json.loads((folder / "config.json").read_text())
    assert TrainConfig.from_dict(recorded["config"]) == config
    assert {"torch", "saccade", "av"} <= recorded["versions"].keys()
    records = lines(folder)
    assert [record["step"] for record in records if "loss" in record] == [
        2,
        4,
        5,
        6,
        8,
        10,
        12,
        14,
        15,
        16,
        18,
        20,
    ]
    validations = [record for record in records if "val_top1" in record]
    assert [record["epoch"] for record in validations] == [1, 2, 3, 4]
    assert result.best_score == max(record["val_top1"] for record in validations)
    for record in records:
        if "loss" in record:
            assert record.keys() >= {"lr", "top1", "clips_per_s", "data_wait", "failures"}
    told = capfd.readouterr().err
    assert "epoch 4/4  step 20" in told
    assert "validation 1x1: top-1" in told
    kept = TestResult.load(folder / "best_val_scores.npz")
    assert kept.top1 == result.best_score
    test = result.test["3x1"]
    assert test["num_validations"] == result.num_validations == 4
    assert test["model_clips_per_second"] > 0
    assert test["controls"]["num_videos"] == test["num_videos"]
    assert [each["name"] for each in test["controls"]["controls"]] == ["shuffle", "repeat", "reverse"]
    assert f"{test['num_right']} of {test['num_videos']} right" in told.splitlines()[-1]
    assert "the best of 4 validations" in told
    assert "Does it use time?" in (folder / "report.html").read_text()


def test_the_best_weights_are_a_model_on_their_own(tiny_config: MakeConfig):
    config = tiny_config("run", "--test-views", "2x1")
    result = train(config)
    model, metadata = load_model(result.run_dir / "best.safetensors")
    assert metadata["class_names"] == ["brightening", "darkening"]
    assert metadata["clip"]["num_frames"] == 2
    assert metadata["recipe"] == "x3d_ucf10"
    assert metadata["metrics"]["val"]["top1"] == result.best_score
    val = load_dataset(config.data, "val")
    again = evaluate(model, val, config.clip, ["1x1", "2x1"], workers=0)
    assert again["1x1"].top1 == result.best_score
    stored = TestResult.load(result.run_dir / "test_scores_2x1.npz")
    torch.testing.assert_close(torch.tensor(again["2x1"].scores), torch.tensor(stored.scores))


def test_training_learns(tiny_config: MakeConfig):
    flags = ("--epochs", "5", "--optim.lr", "0.1", "--model.dropout", "0", "--model.drop-path", "0")
    flags += (
        "--clip.stride",
        "10",
        "--augment.brightness",
        "0",
        "--augment.contrast",
        "0",
        "--log-every",
        "5",
    )
    result = train(tiny_config("run", *flags))
    losses = [record["loss"] for record in lines(result.run_dir) if "loss" in record]
    assert min(losses) < 0.1 * losses[0]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tiny_config: MakeConfig):
    runs = [
        train(tiny_config(name, "--seed", seed, "--val-every", "0")).run_dir
        for name, seed in (("a", "0"), ("b", "0"), ("c", "1"))
    ]
    assert_same(weights(runs[0]), weights(runs[1]))
    with pytest.raises(AssertionError):
        assert_same(weights(runs[0]), weights(runs[2]))


def test_resume_goes_on_bit_for_bit(tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch):
    """Stopped by an error in mid-epoch, with an average, adamw, clipping and accumulation."""
    from saccade.training.step import GradientStep

    flags = ("--ema", "0.9", "--optim.name", "adamw", "--optim.lr", "0.002", "--optim.clip-grad", "1")
    flags += ("--accumulate", "2", "--save-minutes", "0")
    whole = train(tiny_config("whole", *flags)).run_dir
    config = tiny_config("parts", *flags)
    plain = GradientStep.__call__
    calls = 0

    def failing(self: GradientStep, batch: Any) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise OSError("the disk went away")
        return plain(self, batch)

    monkeypatch.setattr(GradientStep, "__call__", failing)
    with pytest.raises(OSError, match="disk"):
        train(config)
    assert load_checkpoint(Path(config.out) / "last.pt")["progress"]["step"] == 7
    train(config.replace(workers=1, save_minutes=5.0), resume=True)
    one, other = load_checkpoint(whole / "last.pt"), load_checkpoint(Path(config.out) / "last.pt")
    assert_same(one["model"], other["model"])
    assert_same(one["average"]["model"], other["average"]["model"])
    assert untimed(lines(whole)) == untimed(lines(Path(config.out)))


def test_a_run_stopped_in_a_validation_begins_with_it_again(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
):
    whole = train(tiny_config("whole"))
    config = tiny_config("stopped")
    with monkeypatch.context() as patch:

        def stopped(*args: Any, **options: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("saccade.training.loop.validate_model", stopped)
        with pytest.raises(
            RunInterrupted, match=r"stopped at step 5 of 15, .*last\.pt; go on with: saccade train"
        ):
            train(config)
    assert load_checkpoint(Path(config.out) / "last.pt")["progress"]["validation_due"]
    resumed = train(config, resume=True)
    assert untimed(lines(whole.run_dir)) == untimed(lines(resumed.run_dir))
    assert_same(weights(whole.run_dir), weights(resumed.run_dir))
    assert resumed.best_score == whole.best_score


def test_a_paused_run_is_validated_and_goes_on_bit_for_bit(tiny_config: MakeConfig):
    flags = ["--epochs", "2", "--test-views", "1x1", "--optim.schedule", "cosine"]
    whole = train(tiny_config("whole", *flags))
    config = tiny_config("paused", *flags)
    first = train(config, fraction=0.3)
    assert lines(first.run_dir)[-1]["step"] == 3
    assert "val_top1" in lines(first.run_dir)[-1]
    assert first.test == {}
    assert not (first.run_dir / "report.html").exists()
    again = train(config, resume=True)
    assert again.test
    assert_same(weights(whole.run_dir), weights(again.run_dir))
    mine, theirs = (untimed(lines(run.run_dir)) for run in (again, whole))
    assert mine[-2:] == theirs[-2:]


def test_a_finished_run_resumes_to_itself(tiny_config: MakeConfig):
    config = tiny_config("run", "--epochs", "1")
    first = train(config)
    before = lines(first.run_dir)
    again = train(config, resume=True)
    assert again.best_score == first.best_score
    assert lines(first.run_dir) == before


def test_two_runs_do_not_mix(tiny_config: MakeConfig):
    config = tiny_config("run", "--epochs", "1", "--val-every", "0")
    with pytest.raises(UsageError, match=r"has no last\.pt to resume from; start without --resume"):
        train(config, resume=True)
    train(config)
    with pytest.raises(
        UsageError, match=r"holds a run already; continue it with --resume, .*--out.*--overwrite"
    ):
        train(config)
    with pytest.raises(ConfigError, match=r"seed \(was 0, now 5\).*a resumed run keeps its settings"):
        train(config.replace(seed=5), resume=True)
    with pytest.raises(UsageError, match="give one of them"):
        train(config, resume=True, overwrite=True)
    keep = Path(config.out) / "notes.md"
    keep.write_text("mine")
    train(config.replace(seed=5), overwrite=True)
    assert load_checkpoint(Path(config.out) / "last.pt")["config"]["seed"] == 5
    assert keep.read_text() == "mine"


def test_resuming_on_other_clips_is_refused(tiny_config: MakeConfig, clips_copy: Path):
    config = tiny_config("run", "--epochs", "1", "--val-every", "0", data=clips_copy)
    train(config)
    (clips_copy / "train" / "darkening" / "0.mp4").unlink()
    with pytest.raises(DataError, match="differ from those"):
        train(config, resume=True)


def test_accumulation_is_the_mean_over_the_whole_batch(tiny_config: MakeConfig):
    """In a linear probe batch norm is frozen, so whole and parts see the same network: the same weights."""
    start = train(tiny_config("start", "--epochs", "1", "--val-every", "0")).run_dir / "best.safetensors"
    probe = (
        "--model.weights",
        str(start),
        "--model.freeze",
        "-1",
        "--model.dropout",
        "0",
        "--val-every",
        "0",
    )
    one = train(tiny_config("one", *probe))
    two = train(tiny_config("two", *probe, "--accumulate", "2"))
    for name, value in weights(one.run_dir).items():
        torch.testing.assert_close(value, weights(two.run_dir)[name], rtol=1e-5, atol=1e-7)
    begin = load_model(start)[0].state_dict()
    changed = {name for name, value in weights(one.run_dir).items() if not value.equal(begin[name])}
    assert changed == {"head.classifier.weight", "head.classifier.bias"}


def test_a_loss_that_is_no_number_stops_the_run(tiny_config: MakeConfig):
    config = tiny_config("run", "--optim.lr", "1e30", "--epochs", "20", "--save-minutes", "0")
    with pytest.raises(
        TrainingError, match=r"not finite at step \d+ \(epoch .*, lr 1e\+30\); .*last\.pt keeps"
    ):
        train(config)
    state = load_checkpoint(Path(config.out) / "last.pt")
    assert all(value.isfinite().all() for value in state["model"].values())


def test_unreadable_files_are_logged_counted_and_limited(
    tiny_config: MakeConfig, clips_copy: Path, capfd: pytest.CaptureFixture[str]
):
    broken = [clips_copy / "train" / "darkening" / f"{i}.mp4" for i in range(2)]
    for path in broken:
        path.write_bytes(b"no video")
    config = tiny_config("run", "--epochs", "2", "--val-every", "0", data=clips_copy)
    result = train(config)
    log = (result.run_dir / "log.txt").read_text()
    told = capfd.readouterr().err
    assert all(f"unreadable: {path}" in log and str(path) in told for path in broken)
    by_epoch: dict[int, int] = {}
    for record in lines(result.run_dir):
        epoch = int(record["epoch"] - 1e-6)
        by_epoch[epoch] = by_epoch.get(epoch, 0) + record["failures"]
    assert all(count >= 2 for count in by_epoch.values())
    with pytest.raises(
        DataError, match=r"of 20 clips of the epoch could not be read .*max_failures allows 0.0%.*darkening"
    ):
        train(config.replace(out=config.out + " strict", max_failures=0.0))


def test_too_many_unreadable_files_stop_the_run(tiny_config: MakeConfig, clips_copy: Path):
    for i in range(6):
        (clips_copy / "train" / "darkening" / f"{i}.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"max_failures allows 10.0%\): .*darkening.*raise --max-failures"):
        train(tiny_config("run", "--max-failures", "0.1", data=clips_copy))


@pytest.mark.parametrize(
    "flags",
    [
        ("--precision", "bfloat16"),
        ("--no-channels-last",),
        ("--optim.schedule", "step", "--optim.steps", "1", "--label-smoothing", "0.1"),
        ("--workers", "1", "--cache-mb", "16"),
        ("--val-every", "0.5"),
    ],
    ids=lambda flags: flags[0],
)
def test_options_run(tiny_config: MakeConfig, flags: tuple[str, ...]):
    result = train(tiny_config("run", "--epochs", "1", *flags))
    assert result.best_score is not None
    assert all(value.isfinite().all() for value in weights(result.run_dir).values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, as it loads its compiler
def test_a_compiled_model_trains(tiny_config: MakeConfig):
    flags = ("--epochs", "1", "--model.dropout", "0", "--model.drop-path", "0")
    plain = train(tiny_config("plain", *flags)).run_dir
    compiled = train(tiny_config("compiled", *flags, "--compile")).run_dir
    losses = [[line["loss"] for line in lines(folder) if "loss" in line] for folder in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_without_clips_the_error_says_what_to_give(tiny_config: MakeConfig):
    with pytest.raises(UsageError, match="x3d_ucf10 needs a data set: give --data PATH"):
        train(tiny_config("run").replace(data=""))
    with pytest.raises(ConfigError, match=r"^batch_size: 64 is larger than the 20 training clips"):
        train(tiny_config("run", "--batch-size", "64"))


def test_the_callers_random_state_is_left_alone(tiny_config: MakeConfig):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(tiny_config("run", "--epochs", "1", "--val-every", "0"))
    assert torch.rand(2).equal(expected)
