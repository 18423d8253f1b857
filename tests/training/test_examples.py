"""The examples in the docstrings of what training makes public."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "saccade.clip",
        "saccade.runs",
        "saccade.training.config",
        "saccade.training.reporting",
        "saccade.training.run",
        "saccade.transforms.custom",
    ],
)
def test_examples_give_what_they_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed
