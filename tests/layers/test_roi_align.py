"""RoIAlign against its published definition, written out sample by sample, and against numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from saccade.errors import UsageError
from saccade.layers.roi_align import RoIPool, roi_align, whole_frames


def sample(plane: Tensor, y: float, x: float) -> float:
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down = 0.0 if top == height - 1 else y - top
    over = 0.0 if left == width - 1 else x - left
    return float(
        plane[top, left] * (1 - down) * (1 - over)
        + plane[top, right] * (1 - down) * over
        + plane[bottom, left] * down * (1 - over)
        + plane[bottom, right] * down * over
    )


def definition(
    features: Tensor, boxes: list[Tensor], size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    results = []
    for planes, own in zip(features, boxes, strict=True):
        for box in own:
            x1, y1, x2, y2 = (float(v) * scale - (0.5 if aligned else 0.0) for v in box)
            height, width = y2 - y1, x2 - x1
            if not aligned:
                height, width = max(height, 1.0), max(width, 1.0)
            down, over = height / size[0], width / size[1]
            rows, columns = ratio or math.ceil(down), ratio or math.ceil(over)
            out = torch.zeros(len(planes), *size, dtype=torch.float64)
            for c, plane in enumerate(planes):
                for i in range(size[0]):
                    for j in range(size[1]):
                        total = sum(
                            sample(
                                plane,
                                y1 + i * down + (a + 0.5) * down / rows,
                                x1 + j * over + (b + 0.5) * over / columns,
                            )
                            for a in range(rows)
                            for b in range(columns)
                        )
                        out[c, i, j] = total / max(rows * columns, 1)
            results.append(out)
    return torch.stack(results)


def some_features(seed: int = 0, shape: tuple[int, ...] = (2, 3, 9, 13)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BOXES = [
    torch.tensor([[3.0, 5.0, 90.0, 70.0], [-20.0, -9.0, 40.0, 200.0], [7.0, 7.0, 7.5, 7.25]]),
    torch.tensor([[0.0, 0.0, 104.0, 72.0], [100.0, 60.0, 300.0, 90.0], [30.0, 30.0, 30.0, 40.0]]),
]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(7, 7), (1, 1), (3, 5)])
def test_equals_the_definition(size: tuple[int, int], ratio: int, aligned: bool):
    features, boxes = some_features(), [box.double() for box in BOXES]
    expected = definition(features, boxes, size, 1 / 8, ratio, aligned)
    got = roi_align(features, boxes, size, spatial_scale=1 / 8, sampling_ratio=ratio, aligned=aligned)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_numbers_by_hand():
    ramp = torch.arange(4.0).expand(4, 4)[None, None]  # the value is the column
    # Centres of the columns lie at 0.5, 1.5, ...: the box from 1 to 3 holds the columns 1 and 2.
    got = roi_align(ramp, [torch.tensor([[1.0, 0.0, 3.0, 4.0]])], (1, 2))
    torch.testing.assert_close(got, torch.tensor([[[[1.0, 2.0]]]]))
    # Not aligned, the same cells are sampled half a pixel to the right.
    off = roi_align(ramp, [torch.tensor([[1.0, 0.0, 3.0, 4.0]])], (1, 2), aligned=False)
    torch.testing.assert_close(off, torch.tensor([[[[1.5, 2.5]]]]))
    # One sample in the middle of the whole map; two by two samples have the same mean on a ramp.
    for ratio in (1, 2):
        whole = roi_align(ramp, [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], (1, 1), sampling_ratio=ratio)
        torch.testing.assert_close(whole, torch.tensor([[[[1.5]]]]))


def test_gradients_of_the_features():
    features = some_features(shape=(2, 2, 5, 6)).requires_grad_()
    boxes = [
        torch.tensor([[2.0, 3.0, 40.0, 30.0], [-9.0, 0.0, 60.0, 9.0]]),
        torch.tensor([[0.0, 0.0, 48.0, 40.0]]),
    ]
    for ratio in (0, 2):
        assert torch.autograd.gradcheck(
            lambda x, ratio=ratio: roi_align(x, boxes, (3, 2), spatial_scale=1 / 8, sampling_ratio=ratio),
            (features,),
        )


def test_a_box_does_not_depend_on_the_others():
    features = some_features().float()
    together = roi_align(features, BOXES, spatial_scale=1 / 8)
    alone = roi_align(features[:1], [BOXES[0][2:]], spatial_scale=1 / 8)
    torch.testing.assert_close(together[2:3], alone)


def test_maps_without_boxes_and_low_precision():
    features = some_features().to(torch.bfloat16)
    none = torch.empty(0, 4)
    assert roi_align(features, [none, none]).shape == (0, 3, 7, 7)
    got = roi_align(features, [none, BOXES[1]], spatial_scale=1 / 8)
    assert got.dtype == torch.bfloat16
    assert got.shape == (3, 3, 7, 7)
    exact = roi_align(features.double(), [none, BOXES[1]], spatial_scale=1 / 8)
    torch.testing.assert_close(got.double(), exact, rtol=2**-7, atol=2**-8)
    with torch.autocast("cpu", torch.bfloat16):  # sums stay in float32
        same = roi_align(features.float(), [none, BOXES[1]], spatial_scale=1 / 8)
    torch.testing.assert_close(same.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(3, 4, 4)}, r"features: must be floats \(B, C, H, W\)"),
        ({"boxes": [torch.zeros(1, 4)]}, r"^boxes: .* got 1 for 2 maps"),
        ({"boxes": [torch.zeros(1, 5)] * 2}, r"each must be \(N, 4\)"),
        ({"spatial_scale": 0.0}, "the scale is above 0"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, object], message: str):
    options: dict[str, object] = {"features": torch.zeros(2, 1, 4, 4), "boxes": [torch.zeros(1, 4)] * 2}
    with pytest.raises(UsageError, match=message):
        roi_align(**{**options, **change})  # type: ignore[arg-type]


def test_the_pool_takes_the_mean_of_time_and_the_highest_cell():
    x = torch.zeros(1, 1, 2, 8, 8)
    x[0, 0, 0, 2, 5] = 6.0  # in one of two frames: 3 in the mean
    pooled = RoIPool(1, resolution=8, sampling_ratio=1)(x, [torch.tensor([[0.0, 0.0, 8.0, 8.0]])])
    torch.testing.assert_close(pooled, torch.tensor([[3.0]]))
    beside = RoIPool(1, resolution=2, sampling_ratio=2)(x, [torch.tensor([[0.0, 4.0, 4.0, 8.0]])])
    torch.testing.assert_close(beside, torch.zeros(1, 1))


def test_whole_frames():
    assert [box.tolist() for box in whole_frames(torch.zeros(2, 3, 1, 8, 16))] == [[[0, 0, 16, 8]]] * 2
