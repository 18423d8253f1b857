"""Labels of training clips where a video has several actions, with times."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saccade.clip import ClipSpec
from saccade.data.actions import active_at
from saccade.data.loader import TrainLoader
from saccade.data.sampler import TrainSampler
from saccade.data.types import Action, ClipBatch, VideoDataset, VideoItem
from saccade.transforms import TrainTransform
from saccade.video import write_video

NUM_CLASSES = 3
LENGTHS = (60, 45, 20)  # of the videos, whose grey tells the frame
ACTIONS = (
    (Action(0, 0.0, 0.51), Action(2, 0.41, 1.11)),  # no time is that of a frame
    (Action(1, 0.31, 9.0),),
    (),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    folder = tmp_path_factory.mktemp("labelled")
    items = []
    for number, length in enumerate(LENGTHS):
        frames = (4 * torch.arange(length, dtype=torch.uint8))[:, None, None, None].expand(length, 32, 40, 3)
        path = folder / f"{number}.mp4"
        write_video(path, frames, fps=30, crf=1, options={"preset": "ultrafast"})
        items.append(VideoItem(str(path), -1, actions=ACTIONS[number], duration=length / 30))
    return VideoDataset(tuple(items), ("a", "b", "c"), "train", str(folder), multi_label=True)


def batches(dataset: VideoDataset, epochs: int = 8, workers: int = 0, **options: object) -> list[ClipBatch]:
    sampler = TrainSampler(
        len(dataset),
        batch_size=3,
        seed=5,
        num_frames=4,
        stride=options.pop("stride", 5),  # type: ignore[arg-type]
        short_side=32,
        crop=32,
    )
    requests = [request for epoch in range(epochs) for request in sampler.requests(epoch)]
    with TrainLoader(dataset, workers=workers, **options) as loader:  # type: ignore[arg-type]
        return list(loader.batches(requests))


def frames_of(clip: torch.Tensor) -> np.ndarray:
    return (clip[..., 1].float().mean(dim=(1, 2)) / 4).round().int().numpy()


@pytest.mark.parametrize("cache_mb", [0, 20])
def test_several_labels_are_those_between_the_first_and_the_last_frame(dataset: VideoDataset, cache_mb: int):
    seen = set()
    for batch in batches(dataset, labels="actions", cache_mb=cache_mb, cache_short_side=32):
        assert batch.labels.shape == (3, NUM_CLASSES)
        assert batch.labels.dtype == torch.float32
        assert batch.inside is None
        for clip, index, labels in zip(batch.clips, batch.indices, batch.labels, strict=True):
            frames = frames_of(clip)
            first, last = frames.min() / 30, frames.max() / 30
            expected = [
                float(any(a.label == k and a.start <= last and a.end >= first for a in ACTIONS[index]))
                for k in range(NUM_CLASSES)
            ]
            assert labels.tolist() == expected
            seen.add((index, *expected))
    assert len(seen) >= 4  # clips of one video differ in their labels


def test_labels_in_time_follow_the_clip(dataset: VideoDataset):
    padded = 0
    for batch in batches(dataset, labels="moments"):
        assert batch.labels.shape == (3, NUM_CLASSES, 20)  # 4 frames x stride 5
        assert batch.inside is not None
        assert batch.inside.shape == (3, 20)
        for clip, index, labels, inside in zip(
            batch.clips, batch.indices, batch.labels, batch.inside, strict=True
        ):
            times = frames_of(clip)[0] / 30 + np.arange(20) / 30
            np.testing.assert_array_equal(labels.numpy(), active_at(ACTIONS[index], times, NUM_CLASSES))
            np.testing.assert_array_equal(inside.numpy(), times < LENGTHS[index] / 30 - 1e-9)
            padded += int((~inside).sum())
    assert padded > 0  # clips that begin late reach beyond the last frame


def test_drawn_strides_share_one_number_of_moments(dataset: VideoDataset):
    spans = set()
    for batch in batches(dataset, labels="moments", stride=(2, 5)):
        assert batch.labels.shape == (3, NUM_CLASSES, 20)
        for clip, index, labels in zip(batch.clips, batch.indices, batch.labels, strict=True):
            frames = frames_of(clip)
            stride = int(frames[1] - frames[0])
            times = frames[0] / 30 + np.arange(20) * (4 * stride / 30 / 20)
            np.testing.assert_array_equal(labels.numpy(), active_at(ACTIONS[index], times, NUM_CLASSES))
            spans.add(stride)
    assert len(spans) > 1


def test_workers_and_devices_carry_all_of_a_batch(dataset: VideoDataset):
    for one, other in zip(
        batches(dataset, epochs=2, labels="moments"),
        batches(dataset, epochs=2, workers=1, labels="moments"),
        strict=True,
    ):
        moved = other.to("cpu")
        assert one.labels.equal(moved.labels)
        assert one.inside is not None
        assert moved.inside is not None
        assert one.inside.equal(moved.inside)


@pytest.mark.parametrize("points", [None, 6])
def test_flipped_clips_swap_the_sides_of_all_their_labels(points: int | None):
    clip = ClipSpec(num_frames=2, stride=1, crop=8, short_side=8)
    transform = TrainTransform(clip, flip=0.5, mirrored=(1, 0, 2))
    shape = (40, 3) if points is None else (40, 3, points)
    labels = torch.rand(shape, generator=torch.Generator().manual_seed(0)).round()
    pixels = torch.arange(8, dtype=torch.uint8).expand(2, 8, 8).unsqueeze(-1).repeat(1, 1, 1, 3)
    batch = ClipBatch([pixels] * 40, labels, tuple(range(40)), tuple(range(40)), 8)
    x, found = transform.with_labels(batch)
    flipped = x[:, 0, 0, 0, 0] > x[:, 0, 0, 0, -1]
    assert 5 < int(flipped.sum()) < 35
    expected = torch.where(flipped.view(-1, *[1] * (labels.ndim - 1)), labels[:, [1, 0, 2]], labels)
    assert found.equal(expected)
