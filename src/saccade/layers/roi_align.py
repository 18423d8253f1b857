"""RoIAlign: features of boxes at a fixed size, as averages of bilinear samples.

He et al., "Mask R-CNN", ICCV 2017, arXiv 1703.06870, section 3; with ``aligned`` as in Detectron2
(github.com/facebookresearch/detectron2) and torchvision; results are equal to theirs. It needs no compiled
code: samples lie on a grid and bilinear interpolation is separable, so each box is a matrix for the rows and
one for the columns, and its features are rows x map x columns.

Shape letters: C channels, H and W of the map, N boxes of one map, P rows and Q columns of the output, S
samples along one side of an output cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from saccade.errors import UsageError


def roi_align(
    features: Tensor,
    boxes: Sequence[Tensor],
    output_size: tuple[int, int] = (7, 7),
    *,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """Features of boxes, (sum of N_i, C, P, Q), in the order of ``boxes``.

    Differentiable with respect to the features. Samples more than a pixel outside the map count as 0. The
    result has the dtype of the features; sums are accumulated in float32 or better.

    Args:
        features: (B, C, H, W).
        boxes: for each map (N_i, 4): x1, y1, x2, y2 in pixels of the input.
        output_size: (P, Q).
        spatial_scale: pixels of the map per pixel of the input, e.g. 1/16.
        sampling_ratio: samples along each side of an output cell. 0: the side of a cell in pixels of the map,
            rounded up, for each box.
        aligned: the centre of pixel i is at i + 0.5. False: the first version of Mask R-CNN, half a pixel
            off, with boxes of at least one pixel.

    Raises:
        UsageError: the shapes do not fit, or a number is out of range.
    """
    _check(features, boxes, output_size, spatial_scale, sampling_ratio)
    kind = features.dtype
    maps = features if kind == torch.float64 else features.float()
    features_of_maps = [
        _of_one_map(map_CHW, boxes_N4, output_size, spatial_scale, sampling_ratio, aligned)
        for map_CHW, boxes_N4 in zip(maps, boxes, strict=True)
    ]
    return torch.cat(features_of_maps).to(kind)


class RoIPool(nn.Module):
    """Mean over time, RoIAlign, max over the cells: the RoI pooling of SlowFast's head for AVA.

    Source: arXiv 1812.03982, section 5, as in PySlowFast.

    Shapes: (B, C, T, H, W) and for each clip boxes (N_i, 4) in its pixels -> (sum of N_i, C).

    Args:
        stride: stride of the feature map relative to the clip, in pixels.
        resolution: output cells along a side.
        sampling_ratio: see `roi_align`.
    """

    def __init__(self, stride: int, *, resolution: int = 7, sampling_ratio: int = 0) -> None:
        super().__init__()
        self.stride, self.resolution, self.sampling_ratio = stride, resolution, sampling_ratio

    @torch.compiler.disable  # the number and the sizes of boxes differ from clip to clip
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


def whole_frames(x: Tensor) -> list[Tensor]:
    """One box per clip (B, 3, T, H, W), which covers the frame."""
    box = torch.tensor([[0.0, 0.0, x.shape[4], x.shape[3]]], device=x.device)
    return [box] * len(x)


def _of_one_map(
    map_CHW: Tensor,
    boxes_N4: Tensor,
    output_size: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
) -> Tensor:
    channels, height, width = map_CHW.shape
    num_rows, num_columns = output_size
    corners = boxes_N4.detach().to(map_CHW.device, map_CHW.dtype) * scale - (0.5 if aligned else 0.0)
    x1, y1, x2, y2 = corners.unbind(1)
    least = 0.0 if aligned else 1.0
    rows_NPH = _weights(y1, (y2 - y1).clamp(min=least), num_rows, height, ratio)
    columns_NQW = _weights(x1, (x2 - x1).clamp(min=least), num_columns, width, ratio)
    with _without_autocast(map_CHW.device):
        across = rows_NPH.flatten(0, 1) @ map_CHW.transpose(0, 1).flatten(1)
        across = across.view(-1, num_rows, channels, width).transpose(1, 2)  # (N, C, P, W)
        return torch.matmul(across, columns_NQW.transpose(1, 2)[:, None])


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    has_any = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if has_any else nullcontext()


def _weights(start_N: Tensor, length_N: Tensor, num_cells: int, size: int, ratio: int) -> Tensor:
    """Weight of each of ``size`` pixels along one side in each cell: (N, cells, size)."""
    cell_N = length_N / num_cells
    counts_N = torch.full_like(cell_N, ratio) if ratio else cell_N.ceil()
    most = ratio or _highest(counts_N, size)
    steps_S = torch.arange(most, device=cell_N.device, dtype=cell_N.dtype)
    cells_P = torch.arange(num_cells, device=cell_N.device, dtype=cell_N.dtype)
    fractions_NS = (steps_S + 0.5) / counts_N.clamp(min=1)[:, None]
    at_NPS = start_N[:, None, None] + (cells_P[:, None] + fractions_NS[:, None]) * cell_N[:, None, None]
    counted_NPS = (steps_S < counts_N[:, None])[:, None] & (at_NPS >= -1) & (at_NPS <= size)
    pixels = torch.arange(size, device=cell_N.device, dtype=cell_N.dtype)
    distance = (at_NPS.clamp(0, size - 1)[..., None] - pixels).abs()
    weights = (1 - distance).clamp(min=0) * counted_NPS[..., None]
    return weights.sum(dim=2) / counts_N.clamp(min=1)[:, None, None]


def _highest(counts_N: Tensor, size: int) -> int:
    """Largest number of samples of a cell; ``size`` on the meta device, which has no values."""
    if counts_N.is_meta or not len(counts_N):
        return size
    return int(counts_N.max().clamp(min=1))


def _check(
    features: Tensor, boxes: Sequence[Tensor], output_size: tuple[int, int], scale: float, ratio: int
) -> None:
    if features.ndim != 4 or not features.is_floating_point():
        raise UsageError(
            f"features: must be floats (B, C, H, W), got {features.dtype} {tuple(features.shape)}"
        )
    if len(boxes) != len(features):
        raise UsageError(f"boxes: must be one tensor per map, got {len(boxes)} for {len(features)} maps")
    wrong = next((box for box in boxes if box.ndim != 2 or box.shape[1] != 4), None)
    if wrong is not None:
        raise UsageError(f"boxes: each must be (N, 4): x1, y1, x2, y2; got {tuple(wrong.shape)}")
    if min(output_size) < 1 or not scale > 0 or ratio < 0:
        raise UsageError(
            f"output_size {output_size}, spatial_scale {scale}, sampling_ratio {ratio}: "
            "sizes are at least 1, the scale is above 0, the ratio 0 or more"
        )
