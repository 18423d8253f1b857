"""Stochastic depth."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Drop a residual branch for whole clips while training (stochastic depth, arXiv 1603.09382).

    Each clip of the batch keeps the branch with probability ``1 - rate``; kept branches are scaled by
    ``1 / (1 - rate)`` so that the expectation does not change. In eval mode it is the identity.

    Shapes: (B, ...) -> (B, ...).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        scale = self.draw(x)
        return x if scale is None else x * scale.view(-1, *(1,) * (x.ndim - 1))

    def draw(self, x: Tensor) -> Tensor | None:
        """Random factors of the clips of ``x``, (B,); None if all are 1."""
        if self.rate == 0.0 or not self.training:
            return None
        keep = 1.0 - self.rate
        return x.new_empty(x.shape[0]).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"
