"""The learning rate as a function of the (fractional) epoch, set anew at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from saccade.training.config import OptimConfig


def learning_rate(epoch: float, optim: OptimConfig, *, epochs: float, batch_size: int) -> float:
    """The rate at ``epoch`` (steps done / steps per epoch) of a run of ``epochs`` epochs.

    All rates of ``optim`` are stated for `reference_batch` clips and scale linearly with ``batch_size``
    (Goyal et al. 2017, arXiv 1706.02677). The cosine spans the whole run, the warm-up is a straight line from
    `warmup_lr` to where the schedule stands at its end: the rule of PySlowFast
    (utils/lr_policy), there too with `cosine_after_warmup`.
    """
    scale = batch_size / optim.reference_batch
    if epoch < optim.warmup_epochs:
        end = decayed_rate(optim.warmup_epochs, optim, epochs)
        return scale * (optim.warmup_lr + (end - optim.warmup_lr) * epoch / optim.warmup_epochs)
    return scale * decayed_rate(epoch, optim, epochs)


@dataclass
class Plateau:
    """What a plateau schedule has seen; PyTorch's ReduceLROnPlateau with its defaults, as X3D-Multigrid uses.

    Attributes:
        factor: what the rate is multiplied by.
        best: the lowest loss so far.
        num_bad: validations in a row that were no better, by a ten-thousandth of it.
    """

    factor: float = 1.0
    best: float = math.inf
    num_bad: int = 0

    def see(self, loss: float, optim: OptimConfig) -> None:
        """After a validation."""
        if optim.schedule != "plateau":
            return
        if loss < self.best * (1 - 1e-4):
            self.best, self.num_bad = loss, 0
            return
        self.num_bad += 1
        if self.num_bad > optim.patience:
            self.factor, self.num_bad = self.factor * optim.gamma, 0


def decayed_rate(epoch: float, optim: OptimConfig, epochs: float) -> float:
    """The rate for the reference batch as the schedule alone has it, without warm-up."""
    if optim.schedule == "cosine":
        start = optim.warmup_epochs if optim.cosine_after_warmup else 0.0
        done = (epoch - start) / (epochs - start) if epoch > start else 0.0
        return optim.min_lr + (optim.lr - optim.min_lr) * (math.cos(math.pi * done) + 1) / 2
    if optim.schedule == "step":
        return max(optim.lr * optim.gamma ** sum(epoch >= step for step in optim.steps), optim.min_lr)
    return optim.lr
