"""Values of the expansion axes, within the limits of the videos."""

from __future__ import annotations

from itertools import islice

import pytest

from saccade.errors import UsageError
from saccade.expansion.axes import Limits, axis_values, contract, expand, parse_axes, usable_axes
from saccade.expansion.config import AXES, Axis, Factors
from saccade.expansion.counting import x3d_macs

FREE = Limits()
CLIP = Factors(frames=4, stride=12, crop=160, bottleneck=2.25, depth=2.2)


def macs(factors: Factors) -> float:
    return x3d_macs(factors.config, 400)


def clips(axis: Axis, parent: Factors, limits: Limits = FREE, most: int = 6) -> list[tuple[int, int]]:
    return [(f.frames, f.stride) for f in islice(axis_values(axis, parent, limits=limits, duration=48), most)]


def test_fast_keeps_the_duration():
    assert clips("fast", CLIP) == [(5, 10), (6, 8), (7, 7), (8, 6), (9, 5), (10, 5)]
    assert clips("fast", Factors()) == [(2, 24), (3, 16), (4, 12), (5, 10), (6, 8), (7, 7)]


def test_fast_can_grow_if_the_parents_duration_exceeds_the_video():
    parent, limits = CLIP.replace(stride=15), Limits(num_frames=46)  # frames 0, 15, 30 and 45, the last
    assert clips("fast", parent, limits) == [(5, 11), (6, 9), (7, 7), (8, 6), (9, 5), (10, 5)]
    assert clips("fast", parent, limits, most=99)[-1] == (46, 1)


def test_fast_ends_at_stride_1():
    assert clips("fast", CLIP.replace(frames=24, stride=2), most=99)[-1] == (48, 1)
    assert clips("fast", CLIP.replace(frames=48, stride=1)) == []


def test_temporal_lengthens_the_clip_and_raises_the_rate():
    longer = clips("temporal", CLIP)
    assert (8, 10) in [*longer, *clips("temporal", CLIP, most=4)]
    assert all(frames * stride > CLIP.duration for frames, stride in longer)
    assert clips("temporal", CLIP.replace(frames=2, stride=1), most=2) == [(3, 1), (4, 1)]


@pytest.mark.parametrize("axis", ["fast", "temporal"])
def test_clips_fit_into_the_video(axis: Axis):
    for frames, stride in clips(axis, CLIP, Limits(num_frames=45), most=200):
        assert (frames - 1) * stride + 1 <= 45
    assert clips(axis, Factors(), Limits(num_frames=1)) == []


def test_segment_clips_have_no_frame_rate():
    limits = Limits(num_frames=6, by_segments=True)
    assert clips("temporal", CLIP, limits) == [(5, 12), (6, 12)]
    assert usable_axes(CLIP, AXES, limits) == [axis for axis in AXES if axis != "fast"]


def test_fast_is_unusable_with_one_frame():
    assert "fast" not in usable_axes(Factors(), AXES, FREE)
    assert usable_axes(Factors(), ("fast", "depth"), FREE) == ["fast", "depth"]
    assert "fast" in usable_axes(CLIP, AXES, FREE)


def test_crops_fit_into_the_short_side():
    crops = [
        f.crop for f in axis_values("spatial", Factors(crop=60), limits=Limits(short_side=90), duration=48)
    ]
    assert crops == [64, 72, 80, 88]


@pytest.mark.parametrize("axis", AXES)
def test_an_expansion_has_the_value_nearest_to_the_rate(axis: Axis):
    parent = CLIP if axis != "bottleneck" else CLIP.replace(bottleneck=1)
    chosen = expand(axis, parent, rate=2.0, cost=macs, limits=FREE, duration=48)
    assert chosen is not None
    best = min(
        islice(axis_values(axis, parent, limits=FREE, duration=48), 40),
        key=lambda f: abs(macs(f) / macs(parent) - 2),
    )
    assert macs(best) == macs(chosen)
    changed = {name for name in vars(parent) if getattr(parent, name) != getattr(chosen, name)}
    expected = {"fast": {"frames", "stride"}, "temporal": {"frames", "stride"}, "spatial": {"crop"}}
    assert changed == expected.get(axis, {axis})


def test_of_equal_costs_the_largest_value_is_taken():
    chosen = expand("depth", CLIP.replace(depth=1.0), rate=2.0, cost=macs, limits=FREE, duration=48)
    assert chosen is not None
    assert chosen.depth == 2.2
    assert macs(chosen) == macs(chosen.replace(depth=2.1))


def test_an_axis_with_less_than_half_a_step_left_cannot_be_expanded():
    most = Limits(short_side=168)
    assert expand("spatial", CLIP, rate=2.0, cost=macs, limits=most, duration=48) is None
    more = expand("spatial", CLIP, rate=2.0, cost=macs, limits=Limits(short_side=200), duration=48)
    assert more is not None
    assert more.crop == 200


def test_a_contraction_is_the_largest_value_that_fits():
    parent = CLIP.replace(frames=8, stride=10)
    expanded = expand("fast", parent, rate=2.0, cost=macs, limits=FREE, duration=48)
    assert expanded == parent.replace(frames=16, stride=5)
    found = contract("fast", parent, expanded, fits=lambda f: macs(f) < 1.97e9, limits=FREE, duration=48)
    assert found == parent.replace(frames=13, stride=6)
    none = contract("fast", parent, expanded, fits=lambda f: macs(f) < 1e9, limits=FREE, duration=48)
    assert none is None


def test_parse_axes():
    assert parse_axes("width, spatial") == ("spatial", "width")
    with pytest.raises(UsageError, match="--axes: 'sideways' is not an axis; axes are fast, temporal"):
        parse_axes("spatial,sideways")
