"""Localisation in the other ways a run may go: in two processes, compiled."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from test_charades_commands import TINY
from test_processes import in_two_processes, vector
from test_train import lines, weights

from data.charades_files import make_official, make_source
from saccade.cli.fields import parse_fields
from saccade.models import create_model
from saccade.recipes import get_recipe
from saccade.training import TrainConfig, train


@pytest.fixture(scope="module")
def charades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrimmed")
    return make_official(folder / "official", make_source(folder / "set"), frames=True)


def config(data: Path, out: Path, *flags: str) -> TrainConfig:
    args = [*shlex.split(f"--data {data} --out {out} --epochs 2 --val-every 1"), *flags]
    made = parse_fields(get_recipe("x3d_m_charades_loc"), [*TINY, *args], prog="test")
    assert made is not None
    return made.replace(test_views="", sync_bn=True)


@pytest.mark.slow
def test_two_processes_localise_as_one(charades: Path, tmp_path: Path):
    flags = ("--model.dropout", "0", "--optim.lr", "0.005")
    one, two = (config(charades, tmp_path / name, *flags) for name in ("one", "two"))
    train(one)
    in_two_processes(tmp_path, [(two, {}, 0)])
    single, double = lines(Path(one.out)), lines(Path(two.out))
    assert [line["step"] for line in single] == [line["step"] for line in double]
    for a, b in zip(single, double, strict=True):
        for name in ("loss", "val_charades25", "val_per_frame", "val_loss"):
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=1e-2), (name, a["step"])
    assert any("val_charades25" in line for line in single)
    mine, theirs = vector(weights(Path(one.out))), vector(weights(Path(two.out)))
    assert (theirs - mine).norm() < 1e-2 * mine.norm()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # as well
def test_a_compiled_network_localises_the_same():
    torch.manual_seed(0)
    model = create_model("x2d", 3, localization=True, gamma_w=0.3, head_width=32, gamma_t=4, dropout=0.0)
    clips = torch.randn(2, 3, 4, 32, 32)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for training in (False, True):
        model.train(training)
        torch.testing.assert_close(compiled(clips), model(clips))
    assert compiled(clips).shape == (2, 3, 4)
