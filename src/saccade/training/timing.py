"""How long a training step takes on this machine, measured on random clips."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saccade.errors import SaccadeError
from saccade.evaluation.scorer import pick_device
from saccade.models import contract, count_macs, create_model
from saccade.models.registry import create_on_meta
from saccade.training.config import TrainConfig
from saccade.training.network import model_options, place_model
from saccade.training.optim import set_train_mode

_CLIPS = 4  # of a timed batch: batch norm needs some
_MAX_GMACS = 400.0  # of a timed batch; a core does 10 to 50 in a second
_MAX_STEPS = 6


@dataclass(frozen=True)
class ClipSeconds:
    """Seconds for each clip of a batch: of a training step (forward, backward and the optimiser's update are
    about three forward passes), and of a test. Decoding is not in them. ``nan``: not measured.
    """

    train: float = math.nan
    test: float = math.nan

    @property
    def is_known(self) -> bool:
        """Whether it could be measured."""
        return math.isfinite(self.train)

    def scaled(self, factor: float) -> ClipSeconds:
        """Of clips that cost ``factor`` times as much."""
        return ClipSeconds(self.train * factor, self.test * factor)


def clip_seconds(config: TrainConfig, *, num_classes: int = 10, seconds: float = 2.0) -> ClipSeconds:
    """Measure the network of ``config`` on random clips of its training size.

    One step to warm up, then steps for ``seconds`` or six of them. Weights are random: no file is read.
    Networks of more than about 100 GMACs a clip are not measured.
    """
    num_frames, crop = config.clip.num_frames, config.train_crop
    clips = max(2, min(_CLIPS, config.batch_size))
    device = pick_device(config.device)
    try:
        options = model_options(config)
        skeleton = create_on_meta(config.model.name, num_classes, **options)
        if 3 * clips * count_macs(skeleton, (1, 3, num_frames, crop, crop)) / 1e9 > _MAX_GMACS:
            return ClipSeconds()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = create_model(config.model.name, num_classes, **options)
            x = torch.randn(clips, 3, num_frames, crop, crop)
        model = place_model(config, model, device)
        x = x.to(device).to(memory_format=contract.memory_format(model, config.channels_last))
        return _timed(model, x, config, seconds)
    except (SaccadeError, RuntimeError, MemoryError, TypeError, ValueError):
        return ClipSeconds()  # such as tasks that need more than clips


def _timed(model: nn.Module, x: Tensor, config: TrainConfig, seconds: float) -> ClipSeconds:
    def step(*, backward: bool) -> float:
        start = time.perf_counter()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            output = model(x)
        if backward:
            output.float().square().mean().backward()
            model.zero_grad()
        if x.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    set_train_mode(model)
    step(backward=True)
    train = [step(backward=True)]
    while sum(train) < seconds and len(train) < _MAX_STEPS:
        train.append(step(backward=True))
    model.eval()
    with torch.no_grad():
        step(backward=False)
        test = [step(backward=False) for _ in range(2)]
    return ClipSeconds(sorted(train)[len(train) // 2] / len(x), min(test) / len(x))
