"""The learning rate as a function of the (fractional) epoch, set anew at every step."""

from __future__ import annotations

import math

from saccade.training.config import OptimConfig


def learning_rate(epoch: float, optim: OptimConfig, *, epochs: float, batch_size: int) -> float:
    """The rate at ``epoch`` (steps done / steps per epoch) of a run of ``epochs`` epochs.

    All rates of ``optim`` are stated for `reference_batch` clips and scale linearly with ``batch_size``
    (Goyal et al. 2017, arXiv 1706.02677). The cosine spans the whole run, the warm-up is a straight line from
    `warmup_lr` to where the schedule stands at its end: the rule of PySlowFast
    (utils/lr_policy).
    """
    scale = batch_size / optim.reference_batch
    if epoch < optim.warmup_epochs:
        end = decayed_rate(optim.warmup_epochs, optim, epochs)
        return scale * (optim.warmup_lr + (end - optim.warmup_lr) * epoch / optim.warmup_epochs)
    return scale * decayed_rate(epoch, optim, epochs)


def decayed_rate(epoch: float, optim: OptimConfig, epochs: float) -> float:
    """The rate for the reference batch as the schedule alone has it, without warm-up."""
    if optim.schedule == "cosine":
        return optim.min_lr + (optim.lr - optim.min_lr) * (math.cos(math.pi * epoch / epochs) + 1) / 2
    if optim.schedule == "step":
        return max(optim.lr * optim.gamma ** sum(epoch >= step for step in optim.steps), optim.min_lr)
    return optim.lr
