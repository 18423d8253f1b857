"""What people do, from a map of features and their boxes: the head of SlowFast and X3D for AVA.

Feichtenhofer et al., "SlowFast Networks", ICCV 2019, arXiv 1812.03982, section 5, as in PySlowFast: the mean
over time, RoIAlign to 7x7 cells, the largest value over the cells, dropout, a linear layer of one logit for
each action, which a sigmoid turns into a score.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saccade.errors import UsageError
from saccade.layers.roi_align import roi_align


class RoIPool(nn.Module):
    """Features of people: (B, C, T, H, W) and boxes in pixels of the clip, for each clip (N_i, 4) ->
    (sum of N_i, C).

    Args:
        stride: of the map against the clip's pixels.
        resolution: cells along a side.
        sampling_ratio: see `roi_align`.
    """

    def __init__(self, stride: int, *, resolution: int = 7, sampling_ratio: int = 0) -> None:
        super().__init__()
        self.stride, self.resolution, self.sampling_ratio = stride, resolution, sampling_ratio

    @torch.compiler.disable  # how many boxes, and how large, differs from clip to clip
    def forward(self, x: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        side = self.resolution
        cells = roi_align(
            x.mean(dim=2),
            boxes,
            (side, side),
            spatial_scale=1 / self.stride,
            sampling_ratio=self.sampling_ratio,
        )
        return cells.amax(dim=(2, 3))


class RoIHead(nn.Module):
    """`RoIPool`, dropout and a linear layer: logits (sum of N_i, num_classes) of the people in clips.

    Takes the last map of one pathway, or of several of a network like SlowFast (one tensor each, of any
    number of frames), whose features are put side by side.

    Args:
        channels: of each pathway's map.
        stride: of the maps against the clip's pixels: 16 where the last stage has stride 1 and dilation 2.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        stride: int = 16,
        resolution: int = 7,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.pool = RoIPool(stride, resolution=resolution)
        self.channels = tuple(channels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(sum(self.channels), num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, maps: Tensor | Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        pathways = [maps] if isinstance(maps, Tensor) else list(maps)
        got = tuple(int(x.shape[1]) for x in pathways)
        if got != self.channels:
            raise UsageError(f"maps: have {got} channels, the head takes {self.channels}")
        features = torch.cat([self.pool(x, boxes) for x in pathways], dim=1)
        logits: Tensor = self.classifier(self.dropout(features))
        return logits


def whole_frames(x: Tensor) -> list[Tensor]:
    """One box around the whole of each clip (B, 3, T, H, W)."""
    box = torch.tensor([[0.0, 0.0, x.shape[4], x.shape[3]]], device=x.device)
    return [box] * len(x)
