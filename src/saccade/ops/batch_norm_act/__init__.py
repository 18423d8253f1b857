"""Batch norm, squeeze-excitation, residual and activation in one go. See the README beside this file."""

from __future__ import annotations

from saccade.ops.batch_norm_act.op import Activation, batch_norm_act

__all__ = ["Activation", "batch_norm_act"]
