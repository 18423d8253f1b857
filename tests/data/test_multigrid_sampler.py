from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_loader import assert_same

from saccade.data.clips import ClipSettings, TrainClips
from saccade.data.loader import TrainLoader
from saccade.data.sampler import BatchShape
from saccade.data.seeds import clip_seed
from saccade.data.types import ClipBatch, VideoDataset
from saccade.errors import ConfigError
from saccade.training.multigrid.sampler import CycleSampler, ShapeCycle, steps_that_fit

LARGE = BatchShape(batch_size=16, num_frames=2, stride=(2, 8), short_side=(10, 26), crop=8)
SMALL = BatchShape(batch_size=8, num_frames=2, stride=(2, 8), short_side=(20, 26), crop=16)
BASE = BatchShape(batch_size=4, num_frames=4, stride=(2, 2), short_side=(20, 26), crop=16)
CYCLES = (
    ShapeCycle(num_steps=7, shapes=(LARGE, SMALL)),
    ShapeCycle(num_steps=0, shapes=(SMALL,)),
    ShapeCycle(num_steps=6, shapes=(LARGE, SMALL, BASE), first=1),
)
SHAPES = [LARGE, SMALL, LARGE, SMALL, LARGE, SMALL, LARGE, SMALL, BASE, LARGE, SMALL, BASE, LARGE]


def sampler(num_items: int = 25, rank: int = 0, world_size: int = 1) -> CycleSampler:
    return CycleSampler(num_items, CYCLES, seed=3, rank=rank, world_size=world_size)


def test_every_batch_has_its_shape():
    draws = sampler()
    assert draws.total_steps == 13
    assert [draws.shape(step) for step in range(13)] == SHAPES
    batches = list(draws.run_requests(0, 13))
    assert [len(batch) for batch in batches] == [shape.batch_size for shape in SHAPES]
    for batch, shape in zip(batches, SHAPES, strict=True):
        for request in batch:
            carried = (request.num_frames, request.stride, request.short_side, request.crop)
            assert carried == (shape.num_frames, shape.stride, shape.short_side, shape.crop)


def test_every_video_is_drawn_once_an_epoch_and_none_is_left_out():
    drawn = [request for batch in sampler().run_requests(0, 13) for request in batch]
    assert len(drawn) == sum(shape.batch_size for shape in SHAPES) == sampler().num_clips(13)
    for epoch in range(len(drawn) // 25):
        clips = drawn[25 * epoch : 25 * (epoch + 1)]
        assert sorted(request.index for request in clips) == list(range(25))
        assert [request.seed for request in clips] == [clip_seed(3, epoch, place) for place in range(25)]
    assert max(Counter(request.seed for request in drawn).values()) == 1


@pytest.mark.parametrize("start", range(14))
def test_a_run_resumes_with_the_same_clips_wherever_it_stopped(start: int):
    whole = list(sampler().run_requests(0, 13))
    assert list(sampler().run_requests(start, 13)) == whole[start:]
    assert sampler().num_clips(start) == sum(shape.batch_size for shape in SHAPES[:start])


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_each_batch_in_order(world_size: int):
    whole = list(sampler().run_requests(0, 13))
    parts = [
        list(sampler(rank=rank, world_size=world_size).run_requests(0, 13)) for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        assert [request for part in parts for request in part[step]] == batch


@pytest.mark.parametrize("clips", [0, 15, 16, 23, 24, 28, 44, 100, 1000])
def test_steps_that_fit_is_what_filling_one_batch_after_the_other_gives(clips: int):
    shapes = (LARGE, SMALL, BASE)
    steps, left = 0, clips
    while left >= shapes[steps % 3].batch_size:
        left -= shapes[steps % 3].batch_size
        steps += 1
    assert steps_that_fit(clips, shapes) == steps


def test_shapes_that_cannot_be_drawn_are_refused():
    with pytest.raises(ConfigError, match="batch_size: 16 is larger than the 15 training clips"):
        sampler(15)
    with pytest.raises(ConfigError, match="batch_size: 4 cannot be divided evenly among 8 processes"):
        sampler(world_size=8)
    cut = ShapeCycle(num_steps=1, shapes=(replace(BASE, crop=21),))
    with pytest.raises(ConfigError, match=r"augment.short_side: 20 is smaller than the crop of 21"):
        CycleSampler(25, (cut,), seed=0)


def test_repeats_go_through_the_stream_whatever_the_shapes():
    """Each video four times behind each other; a pass over the videos takes four epochs of clips."""
    draws = CycleSampler(25, CYCLES, seed=3, repeats=4)
    batches = list(draws.run_requests(0, 13))
    assert [len(batch) for batch in batches] == [shape.batch_size for shape in SHAPES]
    for batch in batches:
        indices = [request.index for request in batch]
        assert indices == [index for index in indices[::4] for _ in range(4)]
    drawn = [request for batch in batches for request in batch]
    assert len({request.seed for request in drawn}) == len(drawn)
    assert sorted(request.index for request in drawn[: 4 * 25 : 4]) == list(range(25))
    assert list(draws.run_requests(5, 9)) == batches[5:9]
    parts = [CycleSampler(25, CYCLES, seed=3, rank=r, world_size=2, repeats=4) for r in range(2)]
    halves = [list(part.run_requests(0, 13)) for part in parts]
    assert [a + b for a, b in zip(*halves, strict=True)] == batches


def read(videos: VideoDataset, cycles: tuple[ShapeCycle, ...], **options: Any) -> list[ClipBatch]:
    draws = CycleSampler(len(videos), cycles, seed=5)
    with TrainLoader(videos, **options) as loader:
        return list(loader.batches(draws.run_requests(0, draws.total_steps)))


@pytest.fixture(scope="module")
def many_shapes() -> tuple[ShapeCycle, ...]:
    small = BatchShape(batch_size=6, num_frames=2, stride=(1, 4), short_side=(20, 36), crop=16)
    large = BatchShape(batch_size=3, num_frames=4, stride=(2, 2), short_side=(32, 36), crop=32)
    return (
        ShapeCycle(num_steps=3, shapes=(small, replace(small, batch_size=3, crop=20))),
        ShapeCycle(num_steps=3, shapes=(large,)),
    )


def test_batches_of_every_shape_are_the_same_from_workers_and_from_the_cache(
    small_videos: VideoDataset, many_shapes: tuple[ShapeCycle, ...]
):
    plain = read(small_videos, many_shapes)
    shapes = [(len(batch), len(batch.clips[0]), batch.crop) for batch in plain]
    assert shapes == [(6, 2, 16), (3, 2, 20), (6, 2, 16), (3, 4, 32), (3, 4, 32), (3, 4, 32)]
    assert all(min(clip.shape[1:3]) >= batch.crop for batch in plain for clip in batch.clips)
    assert_same(read(small_videos, many_shapes, workers=2), plain)
    options: dict[str, Any] = {"cache_mb": 64, "cache_short_side": 36}
    cached = read(small_videos, many_shapes, **options)
    assert_same(read(small_videos, many_shapes, workers=2, **options), cached)
    # decoded once at the largest size, then resized: of the same sizes, the long side but for rounding
    sizes = [
        [(len(clip), min(clip.shape[1:3])) for batch in batches for clip in batch.clips]
        for batches in (plain, cached)
    ]
    assert sizes[0] == sizes[1]


def test_strides_are_drawn_per_clip_over_the_whole_range(small_videos: VideoDataset):
    def strides(step: int) -> set[int]:
        shape = BatchShape(
            batch_size=12, num_frames=2, stride=(2, 6), short_side=(20, 20), crop=16, stride_step=step
        )
        draws = CycleSampler(12, (ShapeCycle(num_steps=5, shapes=(shape,)),), seed=5)
        found = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "saccade.data.clips.sample_train",
                lambda *_, stride, **__: found.append(stride) or np.zeros(2, dtype=np.int64),
            )
            clips = TrainClips(small_videos, ClipSettings())
            for requests in draws.run_requests(0, 5):
                clips.read(requests)
        return set(found)

    assert strides(1) == {2, 3, 4, 5, 6}
    assert strides(2) == {2, 4, 6}
