"""Where training randomness comes from.

Each clip of a run has a seed, derived from the run's seed, the epoch and the clip's position in the epoch.
Every random draw for that clip, in a worker or on the device, comes from that seed, so it does not depend on
the process that decodes the clip, the rest of the batch, or where a run was resumed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["clip", "transform", "replacement", "randaugment", "erasing", "mixing", "area", "mask"]
_PURPOSES: dict[Purpose, int] = {
    "clip": 0,
    "transform": 1,
    "replacement": 2,
    "randaugment": 3,
    "erasing": 4,
    "mixing": 5,
    "area": 6,
    "mask": 7,
}
_EPOCH_ORDER, _CLIP_SEED, _VIEW_SEED = 0, 1, 2


def epoch_order(num_items: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the items in one epoch: a permutation, int64 (num_items,)."""
    return _generator(seed, _EPOCH_ORDER, epoch).permutation(num_items)


def clip_seed(seed: int, epoch: int, position: int) -> int:
    """The seed of the clip at ``position`` of ``epoch``, in 0 .. 2**63-1."""
    words = np.random.SeedSequence((seed, _CLIP_SEED, epoch, position)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def view_seed(seed: int, video: int, view: int) -> int:
    """The seed of a view in a test, in 0 .. 2**63-1; ``video`` is the index in the data set."""
    words = np.random.SeedSequence((seed, _VIEW_SEED, video, view)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def stream(seed: int, purpose: Purpose, attempt: int = 0) -> np.random.Generator:
    """The random stream of one clip for one purpose. ``seed`` is that of the clip."""
    return _generator(seed, _PURPOSES[purpose], attempt)


def _generator(*entropy: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
