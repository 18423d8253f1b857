"""Losses of the multi-label and localization tasks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from golden import rule
from saccade.data.types import Action, VideoDataset, VideoItem
from saccade.errors import ConfigError, DataError
from saccade.recipes import get_recipe
from saccade.tasks import Localize, MultiLabel, get_task
from saccade.training.config import TrainConfig
from saccade.training.schedule import Plateau
from saccade.training.validate import validate


def recorded() -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """Logits (2, 157, 16), labels (2, 157, 40) and what X3D-Multigrid makes of them."""
    logits = torch.from_numpy(rule.normal("charades:z", (2, 157, 16)))
    labels = torch.from_numpy(rule.uniform("charades:zl", (2, 157, 40), 0.0, 1.0) < 0.1).double()
    return logits, labels, rule.load("charades")["localisation"]["loss_check"]


def test_the_loss_of_x3d_multigrid():
    logits, labels, expected = recorded()
    loss, _ = Localize().loss(logits, labels)
    assert float(loss) == pytest.approx(expected["loss"], abs=1e-7)
    stretched = F.interpolate(logits, 40, mode="linear")
    whole, _ = MultiLabel().loss(stretched.amax(2), labels.amax(2))
    assert float(whole) == pytest.approx(expected["cls_loss"], abs=1e-7)
    assert float(2 * loss - whole) == pytest.approx(expected["loc_loss"], abs=1e-7)


def test_what_lies_outside_the_video_does_not_count():
    logits, labels, _ = recorded()
    inside = torch.arange(40) < torch.tensor([[40], [25]])
    logits.requires_grad_()
    loss, _ = Localize().loss(logits, labels, inside)
    loss.backward()
    loss = loss.detach()
    assert logits.grad is not None
    assert logits.grad[1, :, 11:].abs().max() == 0  # moments 25.. lie between frames 9 and 16
    changed = labels.clone()
    changed[1, :, 25:] = 1 - changed[1, :, 25:]
    assert float(Localize().loss(logits.detach(), changed, inside)[0]) == float(loss)
    logits = logits.detach()
    alone = [Localize().loss(logits[i : i + 1], labels[i : i + 1], inside[i : i + 1])[0] for i in range(2)]
    assert float(loss) == pytest.approx(float(sum(alone)) / 2, abs=1e-12)  # batch mates do not matter


def test_right_is_a_first_guess_among_the_labels():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 2.0], [5.0, 0.0, 1.0]])
    labels = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert float(MultiLabel().loss(logits, labels)[1]) == 1
    moments = torch.zeros(3, 3, 4)
    moments[0, :, 2] = labels[0]
    moments[1, :, 3] = torch.tensor([0.0, 0.0, 1.0])
    inside = torch.tensor([[True, True, True, False]] * 3)
    assert float(Localize().loss(logits[:, :, None].repeat(1, 1, 2), moments, inside)[1]) == 1


def dataset(*actions: tuple[Action, ...], durations: float = 10.0) -> VideoDataset:
    items = tuple(VideoItem(str(i), -1, actions=found, duration=durations) for i, found in enumerate(actions))
    return VideoDataset(items, ("a", "b", "c"), "train", "clips", multi_label=True)


def weights(config: TrainConfig, videos: VideoDataset) -> torch.Tensor | None:
    return get_task(config.task)().positive_weights(config, videos)


def check(config: TrainConfig, videos: VideoDataset) -> None:
    get_task(config.task)().check_dataset(videos, source=config.data, error=ConfigError)


def test_rare_classes_weigh_more_where_that_is_asked_for():
    videos = dataset((Action(0, 0, 5),), (Action(0, 2, 99), Action(1, 0, 1)), (), (Action(0, 0, 10),))
    config = get_recipe("x3d_motion_multilabel")
    assert weights(config, videos) is None
    assert weights(config.replace(positive_weight=3.0), videos).tolist() == [3, 3, 3]
    counted = weights(config.replace(positive_weight=0.0), videos)
    torch.testing.assert_close(counted, torch.tensor([1 / 3, 3.0, 1.0]))
    in_time = weights(config.replace(positive_weight=0.0, task="localization"), videos)
    torch.testing.assert_close(in_time, torch.tensor([17 / 23, 39.0, 1.0]))
    logits, labels = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]])
    loss, _ = MultiLabel().loss(logits, labels, positive_weight=torch.tensor([5.0, 5.0, 5.0]))
    assert float(loss) == pytest.approx(math.log(2) * (5 + 1 + 1) / 3)
    loss, _ = Localize().loss(
        logits[..., None].expand(1, 3, 2),
        labels[..., None].expand(1, 3, 4),
        positive_weight=torch.tensor([5.0, 5.0, 5.0]),
    )
    assert float(loss) == pytest.approx(math.log(2) * (5 + 1 + 1) / 3)


def test_a_task_needs_labels_of_its_kind():
    several = dataset((Action(0, 0, 5),))
    one = VideoDataset((VideoItem("a", 0),), ("a",), "train", "clips")
    for name in ("x3d_motion_multilabel", "x3d_motion_loc"):
        config = get_recipe(name).replace(data="clips")
        check(config, several)
        with pytest.raises(DataError, match="clips: data set is single-label"):
            check(config, one)
    check(get_recipe("x3d_motion"), one)
    with pytest.raises(ConfigError, match="task: clips: data set is multi-label"):
        check(get_recipe("x3d_motion").replace(data="clips"), several)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("x3d_motion_loc", {"temporal_rule": "segments"}, "temporal_rule: .*segments"),
        ("x3d_motion_loc", {"label_smoothing": 0.1}, "label_smoothing: "),
        ("x3d_motion_multilabel", {"positive_weight": -1.0}, "positive_weight: must be 0 or more"),
        ("x3d_motion", {"positive_weight": 2.0}, "positive_weight: "),
        ("x3d_motion", {"task": "labels"}, "task: unknown task 'labels'"),
        ("x3d_m_charades", {"multigrid": "x3d-multigrid"}, "optim.schedule: x3d-multigrid"),
        ("x3d_m_charades", {"val_every": 0, "test_views": ""}, "optim.schedule: .*val_every"),
    ],
)
def test_fields_that_do_not_go_together(recipe: str, changes: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        validate(get_recipe(recipe).replace(**changes))


def test_a_plateau_is_pytorch_s():
    optim = get_recipe("x3d_m_charades").optim
    losses = [1.0, 0.8, 0.9, 0.79999, 0.81, 0.7, 0.75, 0.72, 0.71, 0.71, 0.71, 0.5, 0.6, 0.6, 0.6, 0.6]
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2)
    ours = Plateau()
    for loss in losses:
        theirs.step(loss)
        ours.see(loss, optim)
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours.factor < 0.1
    constant = Plateau()
    for loss in losses:
        constant.see(loss, get_recipe("x3d_motion").optim)
    assert constant == Plateau()
