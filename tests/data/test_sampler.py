from __future__ import annotations

from typing import Any

import pytest

from saccade.data.sampler import TrainSampler, UnlabelledSampler
from saccade.errors import ConfigError


def sampler(num_items: int = 50, **changes: Any) -> TrainSampler:
    settings: dict[str, Any] = {
        "batch_size": 8,
        "seed": 3,
        "num_frames": 4,
        "stride": 2,
        "short_side": (20, 26),
        "crop": 16,
    }
    return TrainSampler(num_items, **(settings | changes))


def test_an_epoch_draws_every_video_at_most_once() -> None:
    drawn = [request.index for batch in sampler().requests(0) for request in batch]
    assert len(drawn) == 48
    assert len(set(drawn)) == 48
    assert sampler().steps_per_epoch == 6
    assert len({r.index for batch in sampler(48).requests(0) for r in batch}) == 48


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first = list(sampler().requests(0))
    assert first == list(sampler().requests(0))
    others = [list(sampler().requests(1)), list(sampler(seed=4).requests(0))]
    for other in others:
        assert [r.index for batch in other for r in batch] != [r.index for batch in first for r in batch]
        assert not {r.seed for batch in other for r in batch} & {r.seed for batch in first for r in batch}
    assert len({r.seed for batch in first for r in batch}) == 48


def test_the_draws_of_a_seed_stay_what_they_were() -> None:
    """A run must be repeatable with later versions: these numbers may not change."""
    batch = next(sampler().requests(2))
    assert [r.index for r in batch] == [24, 46, 21, 4, 7, 44, 37, 40]
    assert batch[0].seed == 5839918186241800584


def test_resuming_in_mid_epoch_goes_on_with_the_same_clips() -> None:
    assert list(sampler().requests(5, start_step=4)) == list(sampler().requests(5))[4:]
    assert list(sampler().requests(5, start_step=6)) == []


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_each_batch_in_order(world_size: int) -> None:
    whole = list(sampler().requests(1))
    parts = [list(sampler(rank=rank, world_size=world_size).requests(1)) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        assert [r for part in parts for r in part[step]] == batch


def test_a_request_carries_the_shape() -> None:
    request = next(sampler(stride=(2, 6)).requests(0))[0]
    assert (request.num_frames, request.crop) == (4, 16)
    assert (request.stride, request.short_side) == ((2, 6), (20, 26))
    assert next(sampler(short_side=20).requests(0))[0].short_side == (20, 20)


def test_a_run_goes_through_its_epochs() -> None:
    whole = [batch for epoch in range(3) for batch in sampler().requests(epoch)]
    assert list(sampler().run_requests(0, 18)) == whole
    assert list(sampler().run_requests(4, 13)) == whole[4:13]
    assert list(sampler().run_requests(6, 6)) == []


def test_extra_batches_are_another_set_at_every_step() -> None:
    draws = sampler()
    batches = list(draws.extra_requests(7, 8, draws.shape))
    assert [len(batch) for batch in batches] == [8] * 8
    assert batches == list(sampler().extra_requests(7, 8, draws.shape))
    seeds = {request.seed for batch in batches for request in batch}
    assert len(seeds) == 64
    others = [*draws.requests(0), *draws.requests(7), *draws.extra_requests(8, 8, draws.shape)]
    assert not seeds & {request.seed for batch in others for request in batch}
    assert len({request.index for batch in batches[:6] for request in batch}) == 48
    halves = [list(sampler(rank=rank, world_size=2).extra_requests(7, 8, draws.shape)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == batches


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 64}, "batch_size: 64 is larger than the 50 training clips; choose at most 50"),
        ({"batch_size": 0}, "batch_size: 0 cannot be divided"),
        ({"world_size": 3}, "batch_size: 8 cannot be divided evenly among 3 processes; .* multiple of 3"),
        ({"crop": 24}, "augment.short_side: 20 is smaller than the crop of 24; choose at least 24"),
        ({"short_side": (30, 20)}, "augment.short_side: 30..20 is not a range"),
        ({"stride": 0}, "clip.stride: 0..0 is not a range"),
        ({"seed": -1}, "seed: -1 is negative"),
    ],
)
def test_settings_that_cannot_work_name_their_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sampler(**changes)


# --- repeated augmentation: Hoffer et al. 2019, arXiv 1901.09335 --------------------------------------------


@pytest.mark.parametrize("repeats", [2, 4])
def test_repeats_draw_each_video_so_often_in_a_batch_each_time_anew(repeats: int) -> None:
    draws = sampler(repeats=repeats)
    assert draws.steps_per_epoch == 6  # clips are counted, as without
    for batch in draws.requests(0):
        indices = [r.index for r in batch]
        assert indices == [i for i in indices[::repeats] for _ in range(repeats)]
        assert len(set(indices)) == 8 // repeats
        assert len({r.seed for r in batch}) == 8


@pytest.mark.parametrize("repeats", [2, 4])
def test_with_repeats_a_pass_over_the_videos_takes_as_many_epochs(repeats: int) -> None:
    draws = sampler(48, repeats=repeats)
    for start in (0, repeats):
        seen = [r.index for e in range(start, start + repeats) for batch in draws.requests(e) for r in batch]
        assert sorted(seen) == [i for i in range(48) for _ in range(repeats)]


def test_repeats_share_and_resume_as_ever() -> None:
    whole = list(sampler(repeats=2).requests(3))
    assert list(sampler(repeats=2).requests(3, start_step=4)) == whole[4:]
    parts = [list(sampler(repeats=2, rank=rank, world_size=2).requests(3)) for rank in range(2)]
    assert [[r for part in parts for r in part[step]] for step in range(6)] == whole


def test_repeats_that_do_not_fill_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"augment.repeats: 3 clips of each video do not fill batches of 8"):
        sampler(repeats=3)


def with_unlabelled(num_items: int = 7, ratio: float = 1.0, **changes: Any) -> UnlabelledSampler:
    labelled = sampler(**changes)
    return UnlabelledSampler(labelled, num_items, ratio=ratio, num_clips=lambda step: 8 * step)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.5])
def test_unlabelled_clips_come_on_top_of_the_labelled_ones(ratio: float) -> None:
    batches = list(with_unlabelled(ratio=ratio).run_requests(0, 10))
    assert [[r for r in batch if r.index < 50] for batch in batches] == list(sampler().run_requests(0, 10))
    unlabelled = [r for batch in batches for r in batch if r.index >= 50]
    assert len(unlabelled) == 80 * ratio
    assert {r.index for r in unlabelled[:7]} == set(range(50, 57))  # each once in a pass
    assert len({r.seed for batch in batches for r in batch}) == 80 + len(unlabelled)
    assert {(r.num_frames, r.crop, r.stride) for r in unlabelled} == {(4, 16, (2, 2))}


def test_unlabelled_clips_do_not_depend_on_resuming_or_processes() -> None:
    whole = list(with_unlabelled().run_requests(0, 9))
    assert list(with_unlabelled().run_requests(4, 9)) == whole[4:]
    parts = [list(with_unlabelled(rank=rank, world_size=2).run_requests(0, 9)) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        assert sorted(parts[0][step] + parts[1][step], key=str) == sorted(batch, key=str)
    for batch in whole:  # halves, as of gradient accumulation, have both kinds alike
        assert [sum(r.index >= 50 for r in half) for half in (batch[:8], batch[8:])] == [4, 4]


def test_the_draws_of_unlabelled_clips_stay_what_they_were() -> None:
    batch = next(with_unlabelled().run_requests(5, 6))
    unlabelled = [r for r in batch if r.index >= 50]
    assert [r.index for r in unlabelled] == [51, 54, 54, 55, 50, 51, 52, 56]
    assert unlabelled[0].seed == 8764390000404339297
