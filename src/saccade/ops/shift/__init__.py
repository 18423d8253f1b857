"""Learnable shifts in time and space, RubiksNet's operator. See the README beside this file."""

from __future__ import annotations

from saccade.ops.shift.op import shift2d, shift3d

__all__ = ["shift2d", "shift3d"]
