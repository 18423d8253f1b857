"""Pre-training by masked prediction: its loss, whole runs, and what is handed on to the next."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_processes import in_two_processes, vector
from test_train import assert_same, lines, untimed, weights
from torch import Tensor

from golden import rule
from models.test_mvit_parity import build, clip, recorded_run
from saccade.cli import main
from saccade.data.types import ClipBatch
from saccade.errors import ConfigError, UsageError
from saccade.evaluation import load_result
from saccade.inference import Predictor
from saccade.models import create_model, read_weights
from saccade.recipes import get_recipe
from saccade.tasks import masked as evaluation
from saccade.tasks.masked import LOSS_EPS, MaskedResult, masking, token_errors
from saccade.training import RunInterrupted, TrainConfig, train
from saccade.training.checkpoint import load_checkpoint
from saccade.training.loop import Trainer
from saccade.training.network import model_options
from saccade.training.preview import preview_batch
from saccade.training.processes import processes
from saccade.training.step import GradientStep
from saccade.training.validate import validate
from saccade.transforms.masking import CubeMask, masked_tokens

TINY: dict[str, Any] = {"embed_dim": 8, "depth": 2, "widen_at": "1", "pool_q_at": "1", "kv_stride": 2}
Make = Callable[..., TrainConfig]


@pytest.fixture
def pretraining(tiny_clips: Path, tmp_path: Path) -> Make:
    """``pretraining("out name", field=value)``: maskfeat_motion_pretrain made tiny: 2x4x4 tokens."""

    def make(name: str, recipe: str = "maskfeat_motion_pretrain", **changes: Any) -> TrainConfig:
        config = get_recipe(recipe)
        readout = {key: value for key, value in config.model.overrides.items() if key == "readout"}
        common: dict[str, Any] = {
            "data": str(tiny_clips),
            "out": str(tmp_path / name),
            "model": replace(config.model, overrides={**TINY, **readout}),
            "clip": config.clip.replace(num_frames=4, stride=1, crop=32, short_side=32),
            "augment": replace(config.augment, short_side=(32, 36)),
            "optim": replace(config.optim, warmup_epochs=0),
            "epochs": 2,
            "batch_size": 4,
            "val_every": 1,
            "workers": 0,
            "threads": 1,
            "cache_mb": 0,
            "test_views": "",
            "log_every": 2,
            "device": "cpu",
        }
        return config.replace(**common | changes)

    return make


# ------------------------------------------------------------------------------------------------------- loss


@pytest.mark.slow
def test_the_loss_is_the_recorded_one(monkeypatch: pytest.MonkeyPatch):
    """VideoTransformer-pytorch's, with its mask, its targets and its weights; and its gradients."""
    recorded = recorded_run("maskfeat_small")
    model: Any = build("maskfeat_small")[0]
    shape = recorded["target_shape"]
    targets = torch.from_numpy(rule.uniform("target:maskfeat_small", shape, 0.0, 1.0)).float()
    masks = []
    for spans, cubes in zip(recorded["mask_spans"], recorded["cube_marker"], strict=True):
        mask = np.zeros((4, 4, 4), np.bool_)
        for begin, length, top, bottom, left, right in spans:
            mask[begin : begin + length, top:bottom, left:right] = True
        masks.append(CubeMask(mask, tuple((begin, length) for begin, length in cubes)))
    tokens = masked_tokens(masks, scored="centre", num_frames=2)

    def given(pixels: Tensor, tokens: Any, kind: str) -> Tensor:
        number, step, second = tokens.scored.nonzero(as_tuple=True)
        return targets[number, 2 * step + second]

    monkeypatch.setattr(evaluation, "scored_targets", given)
    predictions = model(clip("maskfeat_small").transpose(1, 2), tokens.mask)
    found = token_errors(predictions, tokens, torch.empty(0), model.target_kind)
    loss = found.errors.sum() / (tokens.count + LOSS_EPS)
    assert loss.item() == pytest.approx(recorded["loss"], rel=2e-7)  # without the 1e-5 it is 5e-7 off
    loss.backward()
    assert float(model.stem.mask_token.grad.norm()) == pytest.approx(
        recorded["grad_norm"]["model.mask_token"], rel=1e-5
    )


def batch(num_clips: int = 4) -> ClipBatch:
    noise = torch.Generator().manual_seed(1)
    clips = [
        torch.randint(0, 256, (4, 34, 36, 3), dtype=torch.uint8, generator=noise) for _ in range(num_clips)
    ]
    return ClipBatch(
        clips, torch.full((num_clips,), -1), tuple(range(num_clips)), tuple(range(num_clips)), 32
    )


def gradients(config: TrainConfig) -> tuple[float, Tensor]:
    """Loss of a clip of the batch, and the gradient, of the same weights whatever the config."""
    torch.manual_seed(0)
    model = create_model(config.model.name, 0, **model_options(config)).train()
    with processes("cpu") as group:
        loss, _ = GradientStep(config, model, group)(batch())
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss / 4, torch.cat(grads)


@pytest.mark.parametrize("rule_name", ["video-transformer", "pyslowfast"])
def test_passes_do_not_matter(pretraining: Make, rule_name: str):
    """The mean is over the hidden tokens of the whole batch, of which each clip has another number."""
    scored = "centre" if rule_name == "video-transformer" else "all"
    config = pretraining("x", batch_size=4)
    config = config.replace(masked=replace(config.masked, rule=rule_name, ratio=0.55, scored=scored))
    whole, own = gradients(config)
    parts, theirs = gradients(config.replace(accumulate=3))
    assert parts == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(theirs, own, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["soft", "hard", "pixels"])
@pytest.mark.parametrize("every", [1, 2])
def test_only_hidden_tokens_of_scored_frames_are_learned_from(pretraining: Make, kind: str, every: int):
    config = pretraining("x")
    config = config.replace(
        model=replace(config.model, overrides={**TINY, "target_kind": kind, "predict_every": every})
    )
    model: Any = create_model(config.model.name, 0, **model_options(config)).eval()
    how = masking(config.masked, model, 4, 32)
    tokens = how.tokens([how.generator.of_clip(seed) for seed in (0, 1)])
    pixels = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        predictions = model(torch.randn(2, 3, 4, 32, 32), tokens.mask)
        errors = token_errors(predictions, tokens, pixels, kind).errors  # type: ignore[arg-type]
        changed = predictions.clone()
        changed[~tokens.mask] += 1
        other = token_errors(changed, tokens, pixels, kind).errors  # type: ignore[arg-type]
    assert int((errors > 0).sum()) == tokens.count
    assert errors.equal(other)


# ------------------------------------------------------------------------------------------------------- runs


def test_a_run_without_labels_and_what_comes_after_it(
    pretraining: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first = pretraining("first", epochs=6, val_every=3)
    result = train(first)
    own = lines(result.run_dir)
    losses = [line["loss"] for line in own if "loss" in line]
    assert losses[-1] < losses[0]
    assert "top1" not in own[0]
    val = [line for line in own if "val_loss" in line]
    assert val[-1]["val_loss"] < val[0]["val_loss"] or val[-1]["val_explained"] > val[0]["val_explained"]
    assert result.best_score == max(line["val_explained"] for line in val)
    scores = load_result(result.run_dir / "val_scores.npz")
    assert isinstance(scores, MaskedResult)
    assert (scores.explained, scores.loss) == pytest.approx((val[-1]["val_explained"], val[-1]["val_loss"]))
    assert len(scores.losses) == 5
    capsys.readouterr()

    finetune = pretraining("tuned", "maskfeat_motion_finetune")
    tuned = train(finetune.replace(model=replace(finetune.model, weights=str(result.run_dir))))
    said = capsys.readouterr().err
    assert f"starting from the run {result.run_dir}: maskfeat_motion_pretrain, maskfeat_mvit_base" in said
    assert "stem.mask_token (mask token and decoder are of pre-training)" in said
    assert tuned.best_score is not None

    probe = pretraining("probe", "maskfeat_motion_probe")
    probe = probe.replace(model=replace(probe.model, weights=str(tuned.run_dir)), epochs=1)
    train(probe)
    said = capsys.readouterr().err
    assert f"itself started from {result.run_dir}" in said
    before, after = (
        read_weights(Path(run) / "best.safetensors")[0] for run in (tuned.run_dir, probe.run_dir)
    )
    assert {key for key in after if not torch.equal(before[key], after[key])} == {
        "head.classifier.weight",
        "head.classifier.bias",
    }

    assert main(["test", str(result.run_dir), "--workers", "0"]) == 2
    assert "pre-trained without labels" in capsys.readouterr().err
    with pytest.raises(UsageError, match="was trained for masked; it does not predict labels"):
        Predictor(result.run_dir, device="cpu")


def test_two_runs_are_alike_and_one_that_was_stopped_too(
    pretraining: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    whole = train(pretraining("whole")).run_dir
    config, number = pretraining("stopped"), 0
    step = GradientStep.__call__

    def stopping(self: GradientStep, part: ClipBatch) -> tuple[float, float]:
        nonlocal number
        number += 1
        if number == 3:
            trainer["it"].interrupts.requested = True
        return step(self, part)

    trainer: dict[str, Any] = {}
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self: (trainer.update(it=self), run(self))[1])
    monkeypatch.setattr(GradientStep, "__call__", stopping)
    with pytest.raises(RunInterrupted):
        train(config)
    monkeypatch.undo()
    monkeypatch.setattr("saccade.training.run._report", lambda trainer: None)
    assert load_checkpoint(Path(config.out) / "last.pt")["progress"]["step"] == 3
    train(config, resume=True)
    one, other = load_checkpoint(whole / "last.pt"), load_checkpoint(Path(config.out) / "last.pt")
    assert_same(one["model"], other["model"])
    assert untimed(lines(whole)) == untimed(lines(Path(config.out)))


@pytest.mark.slow
def test_two_processes_train_as_one(pretraining: Make, tmp_path: Path):
    one, two = pretraining("one"), pretraining("two")
    train(one)
    in_two_processes(tmp_path, [(two, {}, 0)])
    for a, b in zip(lines(Path(one.out)), lines(Path(two.out)), strict=True):
        for name in ("loss", "lr", "val_explained", "val_loss"):
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=1e-3), (name, a["step"])
    mine, theirs = vector(weights(Path(one.out))), vector(weights(Path(two.out)))
    assert (theirs - mine).norm() < 1e-3 * mine.norm()


def test_a_plain_folder_is_enough(pretraining: Make, tiny_clips: Path, tmp_path: Path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for number, file in enumerate(sorted(tiny_clips.rglob("*.mp4"))[:10]):
        shutil.copy(file, plain / f"{number}.mp4")
    result = train(pretraining("run", data=str(plain), epochs=1))
    assert result.best_score is not None
    assert result.num_steps == 2  # of four clips; two are held out


def test_bfloat16_and_the_report(pretraining: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()  # the report is written
    config = pretraining("run", precision="bfloat16", epochs=1)
    config = config.replace(
        masked=replace(config.masked, ratio=0.6, rule="video-transformer", scored="centre")
    )
    run = train(config).run_dir
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Explained variance" in page
    assert "the report could not be written" not in (run / "log.txt").read_text()


def test_multigrid_masks_each_size_of_clip(pretraining: Make, monkeypatch: pytest.MonkeyPatch):
    seen: set[tuple[int, ...]] = set()
    inner = evaluation.token_errors

    def watched(predictions: Tensor, tokens: Any, *others: Any) -> Any:
        assert predictions.shape[:4] == tokens.mask.shape
        hidden = tokens.mask.float().mean()
        assert 0 < float(hidden) < 0.7
        seen.add(tuple(tokens.mask.shape[1:]))
        return inner(predictions, tokens, *others)

    monkeypatch.setattr(evaluation, "token_errors", watched)
    config = pretraining("run", multigrid="short", epochs=8, batch_size=2)
    config = config.replace(
        clip=config.clip.replace(num_frames=8, crop=48, short_side=48),
        augment=replace(config.augment, short_side=(48, 48)),
    )
    result = train(config)
    assert result.num_steps > 0
    assert np.isfinite(result.best_score)
    assert len(seen) >= 3
    assert (4, 6, 6) in seen


def test_clips_too_small_to_be_masked_are_named(pretraining: Make):
    config = pretraining("run", multigrid="long", batch_size=2)
    config = config.replace(masked=replace(config.masked, rule="video-transformer", scored="centre"))
    config = config.replace(clip=config.clip.replace(num_frames=8))
    with pytest.raises(
        ConfigError, match=r"^multigrid: has clips of 4 frames x 32 pixels, for which masked\.ratio"
    ):
        train(config)


def test_a_preview_hides_tokens(pretraining: Make):
    seen = preview_batch(pretraining("run"))
    assert set(seen.captions) == {""}
    grey = (seen.frames == 128).all(-1).float().mean()
    assert 0.3 < float(grey) < 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_views": "1x1"}, "test_views: "),
        ({"augment": {"mixup": 0.8}}, "augment.mixup: "),
        ({"masked": {"scored": "centre"}}, "masked.scored: .*pyslowfast"),
        ({"masked": {"ratio": 1.5}}, r"masked.ratio: must be .*1.5"),
        ({"masked": {"coarse": 0}}, "masked.coarse: must be 1 or more"),
        ({"masked": {"min_patches": 0}}, "masked.min_patches: must be 1 or more"),
        ({"label_smoothing": 0.1}, "label_smoothing: "),
    ],
)
def test_what_cannot_work_is_refused(pretraining: Make, changes: dict[str, Any], message: str):
    config = pretraining("run")
    for name, value in changes.items():
        value = replace(getattr(config, name), **value) if isinstance(value, dict) else value
        config = config.replace(**{name: value})
    with pytest.raises(ConfigError, match=message):
        validate(config)


def test_models_and_tasks_that_do_not_go_together_are_refused(pretraining: Make):
    config = pretraining("run")
    with pytest.raises(ConfigError, match=r"task: x2d .*maskfeat_mvit_base"):
        model_options(config.replace(model=replace(config.model, name="x2d", overrides={})))
    with pytest.raises(ConfigError, match=r"task: .* has no classes"):
        model_options(config.replace(task="single-label"))
    weightless = config.replace(model=replace(config.model, weights=str(Path(config.out).parent)))
    with pytest.raises(UsageError, match="is not a run folder"):
        train(weightless)
