"""What a model asks of the training: rates of its own, a schedule, an addition to the loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saccade.errors import ConfigError
from saccade.models import RubiksNet, create_model, load_model
from saccade.training import TrainConfig, train
from saccade.training.checkpoint import load_checkpoint
from saccade.training.config import ModelConfig, OptimConfig
from saccade.training.ema import WeightAverage
from saccade.training.loop import Trainer
from saccade.training.optim import create_optimizer, parameter_groups, set_learning_rate

MakeConfig = Callable[..., TrainConfig]

AQ = ModelConfig(
    name="rubiksnet_tiny_aq",
    overrides={"width": 8, "depths": "1,1,1,1", "harden_at": 0.6, "shift_budget": 0.25},
    drop_path=0.1,
)


@pytest.fixture
def aq_config(tiny_config: MakeConfig) -> MakeConfig:
    def make(name: str, *flags: str) -> TrainConfig:
        config = tiny_config(name, "--no-channels-last", "--ema", "0.9", "--epochs", "4", *flags)
        return config.replace(model=AQ)

    return make


_whole: list[Path] = []


@pytest.fixture
def whole(aq_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped, trained once."""
    if not _whole:
        out = tmp_path_factory.mktemp("whole") / "run"
        _whole.append(train(aq_config("whole").replace(out=str(out))).run_dir)
    return _whole[0]


def test_a_run_ends_in_a_hard_choice_within_the_budget(whole: Path) -> None:
    model, _ = load_model(whole / "best.safetensors")
    assert isinstance(model, RubiksNet)
    assert model.is_hard()  # though the average lags behind the weights, and an earlier one may score better
    offsets = torch.cat([m.offset for m in model.modules() if hasattr(m, "offset")])
    assert 0 < int((offsets != 0).sum()) <= 0.25 * len(offsets)
    last = load_checkpoint(whole / "last.pt")["model"]
    assert torch.equal(torch.cat([v for k, v in last.items() if k.endswith(".offset")]), offsets)


@pytest.mark.parametrize("stop", [5, 15], ids=["while annealing", "when hard"])
def test_resume_goes_on_bit_for_bit(
    aq_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, whole: Path, stop: int
) -> None:
    step = Trainer._step

    def stopping(trainer: Trainer, batches: object) -> None:
        if trainer.progress.step == stop:
            trainer.save()
            raise RuntimeError("pulled the plug")
        step(trainer, batches)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", stopping)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        train(aq_config("parts"))
    monkeypatch.setattr(Trainer, "_step", step)
    parts = train(aq_config("parts"), resume=True).run_dir
    one, other = (load_checkpoint(folder / "last.pt") for folder in (whole, parts))
    for part in ("model", "average"):
        tensors = (flat(state[part]) for state in (one, other))
        for (name, a), (_, b) in zip(*tensors, strict=True):
            assert torch.equal(a, b), name


def flat(state: dict, prefix: str = "") -> list[tuple[str, Tensor]]:
    found = []
    for name, value in state.items():
        if isinstance(value, dict):
            found += flat(value, f"{name}.")
        elif isinstance(value, Tensor):
            found.append((prefix + name, value))
    return found


def test_the_regularisation_is_learned_from_but_not_reported(
    aq_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--epochs", "1", "--val-every", "0")
    plain = train(aq_config("plain", *flags)).run_dir
    monkeypatch.setattr(
        RubiksNet, "regularization", lambda self: 1000 * self.res1[0].time.weight.square().sum()
    )
    pulled = train(aq_config("pulled", *flags)).run_dir
    key = "res1.0.time.weight"
    states = [load_checkpoint(folder / "last.pt")["model"][key] for folder in (plain, pulled)]
    assert not torch.allclose(*states)
    losses = [
        (folder / "metrics.jsonl").read_text().split('"loss": ')[1].split(",")[0]
        for folder in (plain, pulled)
    ]
    assert float(losses[1]) < 10


# ------------------------------------------------------------------------------------------------ optimiser


def rubiksnet() -> RubiksNet:
    model = create_model("rubiksnet_tiny", 3, width=8, depths=(1, 1, 1, 1))
    assert isinstance(model, RubiksNet)
    return model


def test_shifts_learn_a_hundredth_as_fast_and_never_decay() -> None:
    model = rubiksnet()
    optimizer = create_optimizer(model, OptimConfig(lr=0.1, weight_decay=0.1), backbone_lr=0.5)
    set_learning_rate(optimizer, 0.2)
    group = next(g for g in optimizer.param_groups if g["name"] == "backbone at 0.01 x lr, not decayed")
    shifts = {id(model.get_parameter(name)) for name in model.lr_multipliers()}
    assert {id(p) for p in group["params"]} == shifts
    assert len(shifts) == 5
    assert group["lr"] == pytest.approx(0.2 * 0.5 * 0.01)
    assert group["weight_decay"] == 0
    others = [p for g in optimizer.param_groups if g is not group for p in g["params"]]
    assert len(others) + len(shifts) == len(list(model.parameters()))


def test_shift_lr_overrides_and_is_refused_without_shifts() -> None:
    groups = parameter_groups(rubiksnet(), weight_decay=0.1, shift_lr=0.1)
    assert [g["lr_scale"] for g in groups if "at 0.1 x lr" in g["name"]] == [0.1]
    with pytest.raises(ConfigError, match=r"optim\.shift_lr: the model has no learned shifts"):
        parameter_groups(create_model("x2d", 3), weight_decay=0.1, shift_lr=0.1)


def test_a_negative_shift_lr_is_refused(tiny_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"optim\.shift_lr: must be 0 or more \(is -1\.0\)"):
        train(tiny_config("run", "--optim.shift-lr", "-1"))


def test_clipping_does_not_see_the_shifts(aq_config: MakeConfig, tmp_path: Path) -> None:
    """Their unit gradients alone are longer than any reasonable limit."""
    model = rubiksnet()
    x = torch.randn(2, 3, 4, 32, 32)
    model(x).square().mean().backward()
    lengths = [p.grad.norm() for name, p in model.named_parameters() if name in model.lr_multipliers()]  # type: ignore[union-attr]
    assert float(torch.stack(lengths).norm()) > 5
    seen = []
    original = torch.nn.utils.clip_grad_norm_

    def spy(parameters: list[Tensor], limit: float) -> Tensor:
        seen.append([tuple(p.shape) for p in parameters])
        return original(parameters, limit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
        train(aq_config("run", "--epochs", "1", "--optim.clip-grad", "1", "--val-every", "0"))
    assert seen
    assert all((2, 8) not in shapes and (8, 3) in shapes for shapes in seen)


def test_an_average_takes_a_schedule_as_it_is() -> None:
    model = create_model("rubiksnet_tiny_aq", 3, width=8, depths=(1, 1, 1, 1))
    average = WeightAverage(model, 0.9)
    model.on_train_progress(0.5)
    average.update(model)
    key = "res2.0.time.temperature"
    assert torch.equal(average.model.state_dict()[key], model.state_dict()[key])
    model.on_train_progress(1.0)
    average.update(model)
    assert average.model.is_hard()  # type: ignore[operator]
