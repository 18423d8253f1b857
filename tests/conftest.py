"""Fixtures every test may use."""

from __future__ import annotations

import os

# What the tests compute is small: two threads that wait for one another take many times as long as one. Set
# before PyTorch reads it, and for the processes that tests start. Tests of threads say their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of research clips. Without ``SACCADE_REAL_DATA`` its tests skip, else they run or fail."""
    folder = os.environ.get("SACCADE_REAL_DATA")
    if folder is None:
        pytest.skip("SACCADE_REAL_DATA does not name a folder of research clips")
    if not Path(folder).is_dir():
        pytest.fail(f"SACCADE_REAL_DATA={folder} is not a folder")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    """A CUDA device. Without one its tests skip, unless ``FAIL_WITHOUT_CUDA`` is set."""
    if not torch.cuda.is_available():
        if os.environ.get("FAIL_WITHOUT_CUDA"):
            pytest.fail("FAIL_WITHOUT_CUDA is set and there is no CUDA device")
        pytest.skip("no CUDA device")
    return torch.device("cuda")
