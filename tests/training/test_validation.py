"""Validation is shared out: no process tests what another one tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from saccade.data.types import VideoDataset
from saccade.recipes import get_recipe
from saccade.training import validation
from saccade.training.processes import Processes


@pytest.mark.parametrize("world_size", [1, 2])
def test_several_processes_share_the_videos(world_size: int, monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, Any] = {}

    def evaluate(*args: Any, **options: Any) -> dict[str, str]:
        asked.update(options)
        return {"1x1": "the result"}

    monkeypatch.setattr(validation, "evaluate", evaluate)
    processes = Processes(0, world_size, torch.device("cpu"))
    dataset = VideoDataset((), ("a",), "val", "")
    config = get_recipe("x3d_motion")
    result = validation.validate_model(nn.Identity(), dataset, "1x1", config=config, processes=processes)
    assert result == "the result"
    assert asked["distributed"] == (world_size > 1)
    assert asked["batch_size"] == config.batch_size // world_size
