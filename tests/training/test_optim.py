from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.errors import ConfigError
from saccade.models import create_model
from saccade.training.config import OptimConfig
from saccade.training.optim import (
    create_optimizer,
    freeze,
    parameter_groups,
    set_learning_rate,
    set_train_mode,
)


@pytest.fixture(scope="module")
def x3d() -> nn.Module:
    with torch.device("meta"):
        return create_model("x3d_m")


def tiny() -> nn.Module:
    return create_model("x2d", num_classes=3, gamma_w=0.35, head_width=16, drop_path=0.5)


def test_norms_biases_and_nothing_else_are_spared_from_decay(x3d: nn.Module):
    groups = parameter_groups(x3d, weight_decay=5e-5)
    spared = [p for group in groups if group["weight_decay"] == 0 for p in group["params"]]
    decayed = [p for group in groups if group["weight_decay"] == 5e-5 for p in group["params"]]
    # PySlowFast spares the 168 tensors (31,464 values) of batch norm and decays the other 148 (3,762,858
    # values), among them 31 biases: 2 in each of the 15 squeeze-excite blocks and the classifier's.
    biases = [
        p
        for name, p in x3d.named_parameters()
        if name.endswith("bias") and "norm" not in name.rsplit(".", 2)[-2]
    ]
    assert len(biases) == 31
    assert len(spared) == 168 + 31
    assert len(decayed) == 148 - 31
    num_bias_values = sum(p.numel() for p in biases)
    assert sum(p.numel() for p in spared) == 31_464 + num_bias_values
    assert sum(p.numel() for p in decayed) == 3_762_858 - num_bias_values


def test_what_the_model_names_does_not_decay():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 4, 8))
            self.classifier = nn.Linear(8, 2)

        def no_weight_decay(self) -> set[str]:
            return {"position"}

        def lr_multipliers(self) -> dict[str, float]:
            return {}

        def classifier_parameters(self) -> list[str]:
            return ["classifier.weight", "classifier.bias"]

    model = Named()
    by_name = {group["name"]: group for group in parameter_groups(model, weight_decay=0.1, backbone_lr=0.1)}
    assert by_name["backbone, not decayed"]["params"][0] is model.position
    assert by_name["backbone, not decayed"]["weight_decay"] == 0
    assert set(by_name) == {"backbone, not decayed", "classifier, decayed", "classifier, not decayed"}


def test_backbone_learns_slower():
    model = tiny()
    optimizer = create_optimizer(model, OptimConfig(lr=0.1), backbone_lr=0.1)
    set_learning_rate(optimizer, 0.5)
    assert {group["name"].split(",")[0]: group["lr"] for group in optimizer.param_groups} == {
        "backbone": pytest.approx(0.05),
        "classifier": 0.5,
    }


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_each_optimiser_is_what_it_says(name: str, kind: type):
    optimizer = create_optimizer(tiny(), OptimConfig(name=name, lr=0.1))
    assert type(optimizer) is kind
    if name == "sgd":
        assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)


def clip() -> torch.Tensor:
    return torch.randn(2, 3, 2, 32, 32, generator=torch.Generator().manual_seed(0))


def test_frozen_stages_do_not_move_at_all():
    model = tiny()
    freeze(model, 2)
    set_train_mode(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = create_optimizer(model, OptimConfig(lr=0.5))
    torch.nn.functional.cross_entropy(model(clip()), torch.tensor([0, 1])).backward()
    optimizer.step()
    changed = {
        name.split(".")[0] for name, value in model.state_dict().items() if not value.equal(before[name])
    }
    assert changed == {"res3", "res4", "res5", "head"}
    assert not model.stem.training
    assert not any(module.training for module in model.res2.modules())
    assert model.res3.training


def test_linear_probe_moves_the_classifier_alone():
    model = tiny()
    freeze(model, -1)
    set_train_mode(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = create_optimizer(model, OptimConfig(lr=0.5))
    torch.nn.functional.cross_entropy(model(clip()), torch.tensor([0, 1])).backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == set(model.classifier_parameters())


def test_too_many_stages_to_freeze():
    with pytest.raises(ConfigError, match=r"model\.freeze: 9 is more than the 5 stages"):
        freeze(tiny(), 9)


# --- layer-wise learning rates: arXiv 2003.10555 and 2106.08254 ---------------------------------------------


def test_layers_learn_the_slower_the_farther_they_are_from_the_head():
    model = tiny()
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for depth, stage in enumerate([*model.stages(), model.head]):
        assert {scale[id(p)] for p in stage.parameters()} == {0.5 ** (5 - depth)}
    assert len({id(p) for group in groups for p in group["params"]}) == len(list(model.parameters()))
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    plain = {id(p): g["weight_decay"] for g in parameter_groups(model, weight_decay=0.1) for p in g["params"]}
    assert decay == plain
    assert len({group["name"] for group in groups}) == len(groups)


def test_layer_decay_multiplies_with_the_other_factors():
    model = create_model("rubiksnet_tiny", 3, width=8, depths=(1, 1, 1, 1))
    groups = parameter_groups(model, weight_decay=0.1, backbone_lr=0.1, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    shift = next(name for name in model.lr_multipliers() if name.startswith("res2."))
    assert scale[id(parameters[shift])] == pytest.approx(0.01 * 0.1 * 0.5**4)
    assert scale[id(parameters["head.classifier.weight"])] == 1.0
    assert scale[id(parameters["head.norm.weight"])] == 0.1  # of the head, but not of the classes


def test_a_model_may_count_its_layers_itself():
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.block, self.head = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

        def no_weight_decay(self) -> set[str]:
            return set()

        def lr_multipliers(self) -> dict[str, float]:
            return {}

        def classifier_parameters(self) -> list[str]:
            return ["head.weight", "head.bias"]

        def layer_ids(self) -> dict[str, int]:
            return {
                name: {"tokens": 0, "block": 1, "head": 2}[name.split(".")[0]]
                for name, _ in self.named_parameters()
            }

    model = Counted()
    groups = parameter_groups(model, weight_decay=0.0, layer_decay=0.75)
    assert sorted({group["lr_scale"] for group in groups}) == [0.75**2, 0.75, 1.0]


def test_without_layer_decay_the_groups_are_what_they_were():
    names = [group["name"] for group in parameter_groups(tiny(), weight_decay=0.1)]
    assert sorted(names) == [
        "backbone, decayed",
        "backbone, not decayed",
        "classifier, decayed",
        "classifier, not decayed",
    ]
