"""The rule by which both sides of a parity test make the same weights and inputs, from names and shapes.

`param` gives a weight from its upstream state-dict name, `input_clip` the network's input and `loss_vector`
the vector whose product with the logits is the loss. Each draws from a Philox generator keyed with the CRC-32
of a string, float64, C order.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
_LAST_NORMS = ("c_bn", "bn3", "norm_c")  # of a residual branch: halved, or deep networks blow up


def load(name: str) -> dict[str, Any]:
    """The recording ``name``.json.gz of this folder."""
    with gzip.open(FOLDER / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        recording: dict[str, Any] = json.load(file)
    return recording


def normal(key: str, shape: Sequence[int]) -> np.ndarray:
    return np.asarray(_generator(key).standard_normal(tuple(shape)), dtype=np.float64)


def uniform(key: str, shape: Sequence[int], low: float, high: float) -> np.ndarray:
    return np.asarray(_generator(key).uniform(low, high, tuple(shape)), dtype=np.float64)


def param(name: str, shape: Sequence[int]) -> np.ndarray:
    module, _, leaf = name.rpartition(".")
    if leaf == "num_batches_tracked":
        return np.zeros(tuple(shape), dtype=np.int64)
    if leaf == "running_var":
        return uniform(name, shape, 0.5, 1.5)
    if leaf in ("running_mean", "bias"):
        return 0.1 * normal(name, shape)
    if leaf == "shift":
        return uniform(name, shape, -1.5, 1.5)
    if "pos_embed" in leaf or "time_embed" in leaf or leaf.endswith("_token"):
        return 0.02 * normal(name, shape)
    if len(shape) <= 1:
        halved = len(shape) == 1 and leaf == "weight" and module.rpartition(".")[2] in _LAST_NORMS
        return uniform(name, shape, 0.25, 0.75) if halved else uniform(name, shape, 0.5, 1.5)
    scale = 0.5 if len(shape) == 4 and name.endswith(".conv3.weight") else 1.0
    return scale * (normal(name, shape) * np.sqrt(1.0 / math.prod(shape[1:])))


def input_clip(model: str, shape: Sequence[int]) -> np.ndarray:
    return normal(f"input:{model}", shape)


def loss_vector(model: str, shape: Sequence[int]) -> np.ndarray:
    return normal(f"loss:{model}", shape)


def _generator(key: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=zlib.crc32(key.encode())))
