"""`saccade.train` with a network, data and transforms that are not ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train import assert_same
from torch import Tensor, nn
from torch.utils.data import Dataset

from saccade.clip import ClipSpec
from saccade.data import load_dataset
from saccade.errors import ConfigError, DataError, UsageError
from saccade.models import load_model, load_weights
from saccade.training import TrainConfig, train
from saccade.training.checkpoint import load_checkpoint
from saccade.transforms import register_transform

MakeConfig = Callable[..., TrainConfig]


class Net(nn.Module):
    """The smallest video network."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm3d(8)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(torch.relu(self.norm(self.conv(x)))).mean((2, 3, 4)))


class Ramps(Dataset):
    """Clips that are red or blue, in any of the forms that are taken."""

    def __init__(self, num: int, form: str = "frames", *, targets: bool = True) -> None:
        self.num, self.form = num, form
        if targets:
            self.targets = [index % 2 for index in range(num)]

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.Generator().manual_seed(index)
        frames = torch.randint(0, 60, (4, 36, 40, 3), generator=noise, dtype=torch.uint8)
        frames[..., 0 if index % 2 else 2] += 150
        if self.form == "frames":
            return frames, index % 2
        planes = frames.permute(3, 0, 1, 2)
        return (planes if self.form == "planes" else planes[..., :32, :32] / 255 - 0.5), index % 2


def network(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def config_for(make: MakeConfig, name: str, *flags: str) -> TrainConfig:
    return make(name, "--clip.num-frames", "4", "--optim.lr", "0.2", "--epochs", "4", *flags)


@pytest.mark.parametrize("form", ["frames", "planes", "floats"])
def test_any_network_and_any_data(tiny_config: MakeConfig, form: str):
    config = config_for(tiny_config, "run")
    net = network()
    run = train(config, model=net, train_set=Ramps(16, form), val_set=Ramps(6, form))
    assert run.best_score == 1
    assert run.config.model.name.endswith("Net")
    assert run.weights_metadata()["class_names"] == ["0", "1"]
    assert run.weights_metadata()["clip"]["num_frames"] == 4
    again = network(seed=1)
    load_weights(again, run.best)
    assert again(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 2)


def test_a_config_of_few_fields(tmp_path: Path):
    config = TrainConfig(
        clip=ClipSpec(num_frames=4, stride=1, crop=32, short_side=32), epochs=2, workers=0, out=str(tmp_path)
    )
    run = train(config, model=network(), train_set=Ramps(16, "floats"), val_set=Ramps(6, "floats"))
    assert run.best.is_file()
    assert run.config.augment.short_side is None
    assert run.config.train_short_side == (32, 40)
    with pytest.raises(ConfigError, match=r"^model\.name: "):
        train(config, train_set=Ramps(16), overwrite=True)


def test_it_resumes_with_the_same_objects(tiny_config: MakeConfig):
    parts = {"train_set": Ramps(16), "val_set": Ramps(6)}
    whole = train(config_for(tiny_config, "whole"), model=network(), **parts)
    config = config_for(tiny_config, "paused")
    train(config, model=network(), **parts, fraction=0.4)
    resumed = train(config, model=network(seed=5), **parts, resume=True)
    assert_same(load_checkpoint(whole.last)["model"], load_checkpoint(resumed.last)["model"])
    with pytest.raises(DataError):
        train(config, model=network(), train_set=Ramps(12), resume=True)


def test_our_network_on_other_data_and_the_reverse(tiny_config: MakeConfig, tiny_clips: Path):
    config = config_for(tiny_config, "ours", "--model.dropout", "0", "--epochs", "1")
    run = train(config, train_set=Ramps(8))
    assert load_model(run.best)[0].num_classes == 2
    assert run.best_score is None
    dataset = load_dataset(tiny_clips, "train")
    config = config_for(tiny_config, "theirs", "--epochs", "1")
    run = train(config, model=network(), train_set=dataset, val_set=load_dataset(tiny_clips, "val"))
    assert run.weights_metadata()["class_names"] == ["brightening", "darkening"]


def test_workers_and_a_final_test(tiny_config: MakeConfig):
    config = config_for(tiny_config, "run", "--workers", "1", "--epochs", "1", "--test-views", "1x1")
    run = train(config, model=network(), train_set=Ramps(8), val_set=Ramps(4))
    assert list(run.test) == ["1x1"]


def test_transforms_come_last(tiny_config: MakeConfig):
    seen = []

    def blank(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return torch.zeros_like(x)

    config = config_for(tiny_config, "run", "--epochs", "1")
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    run = train(config, model=net, train_set=Ramps(16), val_set=Ramps(6), transform=blank)
    assert set(seen) == {(4, 3, 4, 32, 32)}
    assert torch.equal(before["conv.weight"], net.state_dict()["conv.weight"]) is False  # weight decay
    assert run.best_score is not None
    register_transform("test_blank")(blank)
    named = config_for(tiny_config, "named", "--epochs", "1", "--augment.transform", "test_blank")
    other = train(named, model=network(), train_set=Ramps(16), val_set=Ramps(6))
    assert_same(load_checkpoint(run.last)["model"], load_checkpoint(other.last)["model"])
    with pytest.raises(ConfigError, match=r"^augment\.transform"):
        train(named.replace(out=named.out + "2"), model=network(), train_set=Ramps(16), transform=blank)


def test_what_cannot_work_is_named(tiny_config: MakeConfig):
    config = config_for(tiny_config, "run")
    with pytest.raises(DataError, match=r"num_frames"):
        train(
            config.replace(clip=ClipSpec(num_frames=2, stride=1, crop=32, short_side=32)),
            model=network(),
            train_set=Ramps(16),
        )
    named = config.replace(out=config.out + "1")
    with pytest.raises(UsageError, match=r"^train_set: .*class_names"):
        train(named, train_set=Ramps(16, targets=False))
    with pytest.raises(UsageError, match=r"^train_set: .*__getitem__"):
        train(config.replace(out=config.out + "2"), model=network(), train_set={1, 2})
    weights = config_for(tiny_config, "run2", "--model.weights", "some.pt")
    with pytest.raises(ConfigError, match=r"^model\.weights"):
        train(weights, model=network(), train_set=Ramps(16))
    recomputed = config_for(tiny_config, "run3", "--checkpoint-activations")
    with pytest.raises(ConfigError, match=r"^checkpoint_activations: Net has no method blocks"):
        train(recomputed, model=network(), train_set=Ramps(16))


class Labelled(list):
    classes = ("a", "b")


def test_a_network_or_data_that_does_not_fit_is_refused_before_a_file_is_written(tiny_config: MakeConfig):
    config = config_for(tiny_config, "run")
    named = Labelled(Ramps(16)[index] for index in range(16))
    for model, words in ((Net(3), r"\(1, 3\)"), (nn.Flatten(), "logits"), ("x3d_xs", r"nn\.Module")):
        with pytest.raises(UsageError, match=rf"^model: .*{words}"):
            train(config, model=model, train_set=named)
    with pytest.raises(UsageError, match=r"^fraction"):
        train(config, model=network(), train_set=named, fraction=2.0)
    assert not Path(config.run_dir).exists()


def test_labels_and_transforms_that_cannot_be_are_told(tiny_config: MakeConfig):
    config = config_for(tiny_config, "run")
    clip = Ramps(1)[0][0]
    for label in (2, -1, "b"):
        with pytest.raises(DataError, match=rf"^item \d+: .*{label}"):
            train(config, model=network(), train_set=Labelled([(clip, label)] * 16), overwrite=True)
    some = {"train_set": Labelled([(clip, 0)] * 16), "transform": lambda x_BCTHW: x_BCTHW[1:]}
    with pytest.raises(UsageError, match=r"^transform"):
        train(config, model=network(), overwrite=True, **some)


def test_precise_statistics_of_any_batch_norm(tiny_config: MakeConfig):
    """Norms of other dimensions are measured too; one that keeps no statistics is left alone."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(3, 4, 1),
        nn.BatchNorm3d(4, track_running_stats=False),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.BatchNorm1d(4, momentum=0.0),
        nn.Linear(4, 2),
    )
    config = config_for(tiny_config, "run", "--precise-bn", "1", "--epochs", "1")
    train(config, model=net, train_set=Ramps(16))
    assert not net[4].running_mean.equal(torch.zeros(4))


def test_parts_of_any_network_can_be_frozen(tiny_config: MakeConfig):
    config = config_for(tiny_config, "run", "--epochs", "1", "--model.weights", "scratch")
    config = config.replace(model=replace(config.model, freeze=-1))
    net = network()
    before = {name: value.clone() for name, value in net.named_parameters()}
    train(config, model=net, train_set=Ramps(8))
    changed = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}
