"""Boxes move as the pixels do: what was inside a box before is inside it after."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saccade.clip import ClipSpec
from saccade.data.types import ClipBatch
from saccade.errors import UsageError
from saccade.transforms import TrainTransform
from saccade.transforms.people import boxes_in_crop, clips_with_people

CLIP = ClipSpec(num_frames=1, stride=1, crop=20, short_side=24, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def test_by_hand():
    shares = torch.tensor([[0.25, 0.25, 0.5, 0.75], [0.0, 0.0, 0.1, 0.1], [0.0, 0.0, 1.0, 1.0]])
    boxes, there = boxes_in_crop(shares, (40, 80), top=8, left=16, crop=32, flipped=False)
    # pixels 20..40 x 10..30 less the corner (16, 8); the second ends left of the crop
    torch.testing.assert_close(boxes[0], torch.tensor([4.0, 2.0, 24.0, 22.0]))
    torch.testing.assert_close(boxes[2], torch.tensor([0.0, 0.0, 32.0, 32.0]))
    assert there.tolist() == [True, False, True]
    mirrored, _ = boxes_in_crop(shares, (40, 80), top=8, left=16, crop=32, flipped=True)
    torch.testing.assert_close(mirrored[0], torch.tensor([8.0, 2.0, 28.0, 22.0]))


def test_a_pixel_is_not_a_person():
    edge = torch.tensor([[0.0, 0.0, 0.21, 1.0], [0.0, 0.0, 0.24, 1.0]])
    _, there = boxes_in_crop(edge, (20, 40), top=0, left=8, crop=20, flipped=False)
    assert there.tolist() == [False, True]


def test_boxes_follow_the_pixels():
    """White rectangles on black: after crop and flip, the white is where the boxes are."""
    rng = np.random.default_rng(0)
    clips, boxes = [], []
    for _ in range(16):
        top, left = rng.integers(2, 14), rng.integers(2, 30)
        bottom, right = top + rng.integers(4, 9), left + rng.integers(4, 9)
        clip = torch.zeros(1, 24, 40, 3, dtype=torch.uint8)
        clip[:, top:bottom, left:right] = 255
        clips.append(clip)
        boxes.append([[left / 40, top / 24, right / 40, bottom / 24], [0.0, 0.0, 0.0, 0.0]])
    batch = ClipBatch(
        clips,
        torch.arange(16.0)[:, None, None].repeat(1, 1, 2),
        tuple(range(16)),
        tuple(range(16)),
        20,
        inside=torch.tensor([[True, False]] * 16),
        boxes=torch.tensor(boxes),
    )
    transform = TrainTransform(CLIP, flip=0.5)
    assert {flipped for *_, flipped in transform.crops(batch)} == {True, False}
    x, moved, labels = clips_with_people(transform, batch)
    kept = 0
    for number, own in enumerate(moved):
        mask = torch.zeros(20, 20)
        for x1, y1, x2, y2 in own.round().int().tolist():
            mask[y1:y2, x1:x2] = 1
        if len(own):
            torch.testing.assert_close(x[number, 0, 0], mask)
            assert labels[kept].item() == number
            kept += 1
    assert kept == len(labels)
    assert 10 < kept < 16  # some leave the crop


def test_a_batch_without_people_is_refused():
    batch = ClipBatch([torch.zeros(1, 24, 40, 3, dtype=torch.uint8)], torch.zeros(1), (0,), (0,), 20)
    with pytest.raises(UsageError, match="without boxes cannot train a detector"):
        clips_with_people(TrainTransform(CLIP), batch)
