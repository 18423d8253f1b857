"""Mixing, repetition, uneven passes, recomputation: in the step and in whole runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_train import assert_same, lines, untimed, weights
from torch import Tensor, nn

from saccade.cli.fields import parse_fields
from saccade.data.types import ClipBatch
from saccade.errors import ConfigError
from saccade.models import create_model, load_model
from saccade.recipes import get_recipe
from saccade.training import TrainConfig, train
from saccade.training.checkpoint import load_checkpoint
from saccade.training.processes import Processes
from saccade.training.step import GradientStep, split_batch
from saccade.training.validate import validate

MakeConfig = Callable[..., TrainConfig]
ALONE = Processes(0, 1, torch.device("cpu"))
NAMES = ("a", "b", "c")
EVERYTHING = (
    *("--augment.mixup", "0.8", "--augment.cutmix", "1.0", "--augment.rand-ops", "2"),
    *("--augment.rand-magnitude-std", "0.5", "--augment.erasing", "0.5", "--augment.repeats", "2"),
    *("--label-smoothing", "0.1", "--model.layer-decay", "0.7", "--ema", "0.9", "--optim.name", "adamw"),
    *("--optim.lr", "0.002", "--checkpoint-activations", "--save-minutes", "0"),
)


def batch(num_clips: int) -> ClipBatch:
    random = torch.Generator().manual_seed(0)
    clips = [
        torch.randint(0, 256, (2, 36, 40, 3), dtype=torch.uint8, generator=random) for _ in range(num_clips)
    ]
    labels = torch.arange(num_clips) % len(NAMES)
    return ClipBatch(clips, labels, tuple(range(100, 100 + num_clips)), tuple(range(num_clips)), 32)


def gradient_step(config: TrainConfig, *, frozen: bool = False) -> tuple[GradientStep, nn.Module]:
    """``frozen``: batch norm, dropout and stochastic depth as in a test, so that parts see one network."""
    torch.manual_seed(0)
    model = create_model("x2d", len(NAMES), gamma_w=0.3, head_width=16)
    nn.init.normal_(model.head.classifier.weight, std=0.5)
    return GradientStep(config, model.train(not frozen), ALONE, NAMES), model


def gradients(step: GradientStep, model: nn.Module, clips: ClipBatch) -> dict[str, Tensor]:
    step(clips)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


# --- the step ----------------------------------------------------------------------------------------------


def test_the_loss_of_a_mix_is_the_mix_of_the_losses(tiny_config: MakeConfig):
    """arXiv 1710.09412, section 2: cross entropy is linear in the target; smoothed or not (Szegedy et al.
    2015, arXiv 1512.00567, section 7: (1 - ε) of the target and ε / K for every class).
    """
    config = tiny_config("x", "--augment.mixup", "0.8", "--label-smoothing", "0.2")
    step, model = gradient_step(config, frozen=True)
    clips = batch(6)
    x, targets = step.inputs(clips)
    assert step.mixing is not None
    partners = step.mixing.partners(6)
    logits = model(x)
    expected = 0.0
    for i, j in enumerate(partners):
        share = step.mixing.draw(clips.seeds[i], (2, 32, 32)).lam
        for weight, label in ((share, clips.labels[i]), (1 - share, clips.labels[j])):
            log_p = logits[i].log_softmax(0)
            expected -= weight * (0.8 * log_p[label] + 0.2 * log_p.mean()).item()
    loss, right = step(clips)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert right == (logits.argmax(1) == targets.argmax(1)).sum()


def test_several_labels_mix_and_smooth_label_by_label(tiny_config: MakeConfig):
    flags = ("--task", "multi-label", "--augment.mixup", "0.8", "--label-smoothing", "0.2")
    step, model = gradient_step(tiny_config("x", *flags), frozen=True)
    clips = replace(batch(4), labels=torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1]]))
    x, targets = step.inputs(clips)
    assert step.mixing is not None
    logits = model(x)
    expected = 0.0
    for i, j in enumerate(step.mixing.partners(4)):
        share = step.mixing.draw(clips.seeds[i], (2, 32, 32)).lam
        mixed = share * clips.labels[i] + (1 - share) * clips.labels[j]
        torch.testing.assert_close(targets[i], mixed)
        yes = 0.8 * mixed + 0.1  # a share of 0.2 evenly over yes and no
        losses = -(yes * F.logsigmoid(logits[i]) + (1 - yes) * F.logsigmoid(-logits[i]))
        expected += losses.mean().item()
    loss, _ = step(clips)
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--task", "localization", "--augment.mixup", "0.8"), r"^augment.mixup: "),
        (("--task", "localization", "--label-smoothing", "0.1"), r"^label_smoothing: "),
    ],
)
def test_labels_of_moments_do_not_mix(tiny_config: MakeConfig, flags: tuple[str, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        validate(tiny_config("x", *flags))


def test_without_mixing_the_labels_stay_numbers(tiny_config: MakeConfig):
    step, _ = gradient_step(tiny_config("x"))
    x, labels = step.inputs(batch(4))
    assert labels.dtype == torch.int64
    assert x.equal(step.transform(batch(4)))


@pytest.mark.parametrize(("num_clips", "accumulate"), [(6, 2), (5, 2), (7, 3), (8, 3)])
@pytest.mark.parametrize("flags", [(), ("--augment.rand-ops", "2", "--augment.erasing", "1")])
def test_passes_add_up_to_the_gradient_of_the_whole_batch(
    tiny_config: MakeConfig, num_clips: int, accumulate: int, flags: tuple[str, ...]
):
    """However uneven: each clip counts the same."""
    step, model = gradient_step(tiny_config("x", *flags), frozen=True)
    whole = gradients(step, model, batch(num_clips))
    step, model = gradient_step(tiny_config("x", *flags, "--accumulate", str(accumulate)), frozen=True)
    parts = gradients(step, model, batch(num_clips))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-3


def test_mixed_passes_of_whole_pairs_add_up_too(tiny_config: MakeConfig):
    mix = ("--augment.mixup", "0.8", "--augment.cutmix", "1")
    step, model = gradient_step(tiny_config("x", *mix), frozen=True)
    whole = gradients(step, model, batch(8))
    step, model = gradient_step(tiny_config("x", *mix, "--accumulate", "2"), frozen=True)
    for name, value in gradients(step, model, batch(8)).items():
        torch.testing.assert_close(whole[name], value, rtol=1e-4, atol=1e-6)


def test_parts_are_as_even_as_they_come():
    whole = batch(7)
    parts = split_batch(whole, 3)
    assert [len(part) for part in parts] == [3, 2, 2]
    assert [seed for part in parts for seed in part.seeds] == list(whole.seeds)
    assert torch.cat([part.labels for part in parts]).equal(whole.labels)


def test_recomputed_activations_give_the_same_step(tiny_config: MakeConfig):
    from saccade.training.step import checkpoint_blocks

    results = []
    for again in (False, True):
        step, model = gradient_step(tiny_config("x"))
        if again:
            checkpoint_blocks(model)
        torch.manual_seed(3)
        results.append((gradients(step, model, batch(4)), model.state_dict()))
    for a, b in zip(*results, strict=True):
        assert_same(a, b)


# --- whole runs --------------------------------------------------------------------------------------------


def test_recomputed_activations_train_the_same_weights(tiny_config: MakeConfig):
    """Dropout, stochastic depth, batch statistics and all: bit for bit."""
    flags = ("--epochs", "2", "--ema", "0.9")
    plain, again = (
        train(tiny_config(name, *flags, *more)).run_dir
        for name, more in (("plain", ()), ("again", ("--checkpoint-activations",)))
    )
    assert_same(weights(plain), weights(again))
    assert untimed(lines(plain)) == untimed(lines(again))


def test_everything_at_once_resumes_bit_for_bit(tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch):
    flags = (*EVERYTHING, "--epochs", "2", "--val-every", "0")
    whole = train(tiny_config("whole", *flags)).run_dir
    config = tiny_config("parts", *flags)
    plain, calls = GradientStep.__call__, 0

    def failing(self: GradientStep, clips: ClipBatch) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise OSError("the disk went away")
        return plain(self, clips)

    monkeypatch.setattr(GradientStep, "__call__", failing)
    with pytest.raises(OSError, match="disk"):
        train(config)
    train(config.replace(workers=1), resume=True)
    one, other = load_checkpoint(whole / "last.pt"), load_checkpoint(Path(config.out) / "last.pt")
    assert_same(one["model"], other["model"])
    assert_same(one["average"]["model"], other["average"]["model"])
    assert untimed(lines(whole)) == untimed(lines(Path(config.out)))


def test_each_part_of_the_recipe_changes_the_run(tiny_config: MakeConfig):
    """A flag that did nothing would pass every other test."""
    base = weights(train(tiny_config("base", "--epochs", "1", "--val-every", "0")).run_dir)
    for flags in (
        ("--augment.mixup", "0.8"),
        ("--augment.cutmix", "1"),
        ("--augment.rand-ops", "2"),
        ("--augment.erasing", "1"),
        ("--augment.repeats", "2"),
        ("--model.layer-decay", "0.5"),
        ("--accumulate", "2"),
    ):
        run = train(tiny_config(flags[0], "--epochs", "1", "--val-every", "0", *flags)).run_dir
        different = [name for name, value in weights(run).items() if not value.equal(base[name])]
        assert different, flags


def test_multigrid_takes_the_rest_of_the_recipe(tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("saccade.training.run.draw_plan", lambda *_: None)
    grid = ("--multigrid", "short", "--epochs", "2", "--batch-size", "4", "--accumulate", "2")
    result = train(tiny_config("run", *EVERYTHING, *grid, "--augment.repeats", "1"))
    assert all(value.isfinite().all() for value in weights(result.run_dir).values())
    assert result.num_steps == 6


def test_every_field_is_a_flag():
    config = parse_fields(
        get_recipe("x3d_ucf10"),
        [
            *("--augment.mixup", "0.8", "--augment.cutmix", "1", "--augment.cutmix-shape", "box"),
            *("--augment.mix-switch", "0.3", "--augment.mix-probability", "0.9", "--augment.rand-ops", "4"),
            *("--augment.rand-magnitude", "9", "--augment.rand-magnitude-std", "0.5", "--augment.erasing"),
            *("0.25", "--augment.repeats", "2", "--model.layer-decay", "0.75", "--checkpoint-activations"),
            "--shard",
        ],
        prog="test",
    )
    assert config is not None
    augment = config.augment
    assert (augment.mixup, augment.cutmix, augment.cutmix_shape) == (0.8, 1.0, "box")
    assert (augment.mix_switch, augment.mix_probability) == (0.3, 0.9)
    assert (augment.rand_ops, augment.rand_magnitude, augment.rand_magnitude_std) == (4, 9.0, 0.5)
    assert (augment.erasing, augment.repeats, config.model.layer_decay) == (0.25, 2, 0.75)
    assert config.checkpoint_activations
    assert config.shard


def test_cross_entropy_of_shares_is_what_the_loss_computes():
    """The identity the mixed loss rests on, for PyTorch's own function."""
    logits = torch.randn(3, 4)
    shares = torch.tensor([[0.3, 0.7, 0, 0], [1, 0, 0, 0], [0, 0.5, 0, 0.5]])
    expected = -(shares * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(F.cross_entropy(logits, shares), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, as it loads its compiler
def test_a_compiled_run_is_saved_under_plain_names(tiny_config: MakeConfig):
    """With the custom operators, mixed labels and uneven passes, which are two shapes to compile."""
    flags = (
        *("--epochs", "1", "--augment.mixup", "0.8", "--ema", "0.9", "--batch-size", "5"),
        *("--accumulate", "2", "--label-smoothing", "0.1"),
        *("--model.dropout", "0", "--model.drop-path", "0"),  # compiled code draws other random numbers
    )
    compiled = train(tiny_config("compiled", *flags, "--compile")).run_dir
    plain = train(tiny_config("plain", *flags)).run_dir
    assert weights(compiled).keys() == weights(plain).keys()
    assert not [name for name in weights(compiled) if "_orig_mod" in name]
    model, _ = load_model(compiled / "best.safetensors")
    assert model.state_dict().keys() == weights(plain).keys()
    a, b = ([line["loss"] for line in lines(folder) if "loss" in line] for folder in (compiled, plain))
    assert a == pytest.approx(b, rel=2e-3)
