"""Maps of many-dimensional points on a plane: principal components, and t-SNE.

Van der Maaten & Hinton 2008, "Visualizing Data using t-SNE", JMLR 9. This is the exact algorithm: all pairs
of points, whose cost grows with their square. It begins with the principal components, as Kobak & Berens 2019
("The art of using t-SNE for single-cell transcriptomics") advise, so that it is the same at every call and
keeps something of what is far from what.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from saccade.errors import UsageError

_EXAGGERATION = 12.0  # of closeness, at the beginning
_EARLY = 250  # steps of it
_SEARCH = 64  # halvings of the search for a width


def principal_components(points: Tensor, num: int = 2) -> tuple[Tensor, Tensor]:
    """The coordinates of points (N, D) on their first ``num`` principal axes, and each axis's share of the
    variance: (N, num), (num,).

    An axis points to where its largest coordinate is, so that the sign is no matter of chance. Where there
    are fewer axes, coordinates are 0.
    """
    centred = points.double() - points.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    axes = u[:, :num] * s[:num]
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    axes = axes * torch.where(signs == 0, torch.ones_like(signs), signs)
    shares = s[:num] ** 2 / (s**2).sum().clamp(min=1e-300)
    missing = num - axes.shape[1]
    pad = torch.nn.functional.pad
    return pad(axes, (0, missing)), pad(shares, (0, missing))


def tsne(points: Tensor, *, perplexity: float = 30.0, steps: int = 1000) -> Tensor:
    """t-SNE of points (N, D) on a plane: float64 (N, 2), the same at every call.

    Args:
        perplexity: about how many neighbours count for each point; of few points at most a third of them.
        steps: of gradient descent.

    Raises:
        UsageError: the perplexity is below 1, or there are no points.
    """
    if len(points) == 0:
        raise UsageError("there are no points to map")
    if perplexity < 1:
        raise UsageError(f"perplexity must be at least 1, got {perplexity:g}")
    places, _ = principal_components(points)
    if len(points) < 4:
        return places
    closeness = joint_closeness(points, min(perplexity, (len(points) - 1) / 3))
    y = places * (1e-4 / places[:, 0].std().clamp(min=1e-300))
    speed, gain = torch.zeros_like(y), torch.ones_like(y)
    rate = max(len(points) / _EXAGGERATION, 50.0)  # Belkina et al. 2019
    for step in range(steps):
        early = step < _EARLY
        gradient = _gradient(y, closeness * (_EXAGGERATION if early else 1.0))
        turned = speed.sign() != gradient.sign()
        gain = torch.where(turned, gain + 0.2, gain * 0.8).clamp(min=0.01)
        speed = (0.5 if early else 0.8) * speed - rate * gain * gradient
        y = y + speed
        y = y - y.mean(0)
    return y


def joint_closeness(points: Tensor, perplexity: float) -> Tensor:
    """How close each pair of points (N, D) is, by equation 1 of the paper made symmetric: (N, N), of sum 1.

    Around each point stands a Gaussian, just so wide that the entropy of what it gives the others is the
    logarithm of ``perplexity``.
    """
    squares = squared_distances(points.double())
    n = len(squares)
    squares = squares / squares.mean().clamp(min=1e-300)
    squares.fill_diagonal_(math.inf)  # nothing is close to itself
    low, high = squares.new_zeros(n, 1), squares.new_full((n, 1), math.inf)
    sharpness = squares.new_ones(n, 1)
    nearest = squares.amin(1, keepdim=True)
    for _ in range(_SEARCH):
        shares = torch.exp(-(squares - nearest) * sharpness)
        shares = shares / shares.sum(1, keepdim=True)
        entropy = -(shares * shares.clamp(min=1e-300).log()).sum(1, keepdim=True)
        wide = entropy > math.log(perplexity)
        low, high = torch.where(wide, sharpness, low), torch.where(wide, high, sharpness)
        sharpness = torch.where(high.isinf(), 2 * sharpness, (low + high) / 2)
    return (shares + shares.T) / (2 * n)


def squared_distances(points: Tensor) -> Tensor:
    """Of every pair: (N, N), 0 on the diagonal."""
    norms = (points**2).sum(1)
    squares = (norms[:, None] + norms - 2 * points @ points.T).clamp(min=0)
    return squares.fill_diagonal_(0)


def divergence(y: Tensor, closeness: Tensor) -> Tensor:
    """What t-SNE makes small: the Kullback-Leibler divergence of how close points are on the plane (N, 2)."""
    near = _kernel(y)
    on_plane = near / near.sum()
    filled = closeness > 0
    return (closeness[filled] * (closeness[filled] / on_plane[filled]).log()).sum()


def _gradient(y: Tensor, closeness: Tensor) -> Tensor:
    """Equation 5 of the paper."""
    near = _kernel(y)
    pull = (closeness - near / near.sum()) * near
    return 4 * (pull.sum(1, keepdim=True) * y - pull @ y)


def _kernel(y: Tensor) -> Tensor:
    return (1 / (1 + squared_distances(y))).fill_diagonal_(0)
