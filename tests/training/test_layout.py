"""Clips and weights lie in memory as the model prefers, unless the run says otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.evaluation.scorer import Scorer
from saccade.inference import load_for_inference
from saccade.models import create_model
from saccade.recipes import get_recipe
from saccade.tasks import Classify
from saccade.training.processes import Processes
from saccade.training.step import GradientStep

ALONE = Processes(0, 1, torch.device("cpu"))
ROWS, PLANES = torch.channels_last_3d, torch.contiguous_format


def x3d() -> nn.Module:
    return create_model("x2d", num_classes=3, gamma_w=0.3, head_width=8)


def rubiksnet() -> nn.Module:
    return create_model("rubiksnet_tiny", num_classes=3, width=16, depths=(1, 1, 1, 1))


class Foreign(nn.Module):
    """A module that does not say what it prefers."""

    num_classes = 3
    model_name = "x2d"  # for its clip

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3, 4))


def layout(weights: nn.Module) -> torch.memory_format:
    first = next(weight for weight in weights.parameters() if weight.ndim == 5 and weight[0, 0].numel() > 1)
    assert first.is_contiguous(memory_format=ROWS) != first.is_contiguous()
    return ROWS if first.is_contiguous(memory_format=ROWS) else PLANES


@pytest.mark.parametrize(
    ("build", "preferred"),
    [(x3d, ROWS), (rubiksnet, PLANES), (Foreign, ROWS)],
    ids=["x3d", "rubiksnet", "foreign"],
)
def test_to_predict_and_test(build: type[nn.Module], preferred: torch.memory_format):
    loaded = load_for_inference(
        build(), clip=ClipSpec(num_frames=4, stride=1, crop=32, short_side=32), device="cpu"
    )
    assert layout(loaded.model) == preferred
    channels_last = Scorer(loaded.model, Classify(), loaded.clip).channels_last
    assert channels_last == (preferred == torch.channels_last_3d)


@pytest.mark.parametrize(("said", "wanted"), [(None, None), (True, ROWS), (False, PLANES)])
@pytest.mark.parametrize(("build", "preferred"), [(x3d, ROWS), (rubiksnet, PLANES)])
def test_to_train(
    build: type[nn.Module],
    preferred: torch.memory_format,
    said: bool | None,
    wanted: torch.memory_format | None,
):
    config = get_recipe("x3d_ucf10").replace(channels_last=said)
    step = GradientStep(config, build(), ALONE, ["a", "b", "c"])
    assert step.transform.channels_last == ((wanted or preferred) == ROWS)
