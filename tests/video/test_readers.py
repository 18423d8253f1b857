"""Frame i is exactly frame i: every container and codec, every backend, any order of asking."""

from __future__ import annotations

import doctest
import gc
import importlib.util
import random
import weakref
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from painted_files import RECIPES, MadeFile, number_of
from PIL import Image

from saccade.video import Backend, index, open_video, reader

BACKENDS: list[Backend] = ["pyav"]
if importlib.util.find_spec("torchcodec") is not None:
    BACKENDS.append("torchcodec")

MakeFile = Callable[[str], MadeFile]


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    index.clear_index_cache()


def requests(num_frames: int) -> list[list[int]]:
    rng = random.Random(0)
    last = num_frames - 1
    return [
        [rng.randrange(num_frames) for _ in range(6)],
        sorted(rng.sample(range(num_frames), 5)),
        [last, last - 1, 0, 0, last],
        list(range(num_frames - 9, num_frames)),
        [7],
        list(range(2, 34, 4)),
        [],
    ]


def assert_frames(reader: object, made: MadeFile, tolerance: float = 0) -> None:
    for wanted in requests(len(made.truth)):
        frames = reader.frames(wanted).numpy()  # type: ignore[attr-defined]
        assert frames.shape == (len(wanted), *reader.size, 3)  # type: ignore[attr-defined]
        for frame, number in zip(frames, wanted, strict=True):
            difference = np.abs(frame.astype(int) - made.truth[number]).mean()
            assert difference <= tolerance, f"frame {number} of {wanted} differs by {difference}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_frame_is_the_one_asked_for(name: str, backend: Backend, make_file: MakeFile) -> None:
    made = make_file(name)
    with open_video(made.path, backend) as reader:
        assert len(reader) == len(made.truth) == made.recipe.num_frames
        assert_frames(reader, made)
    # and again with the index known
    with open_video(made.path, backend) as reader:
        assert_frames(reader, made)


@pytest.mark.parametrize("name", RECIPES)
def test_files_too_large_to_keep_are_sought_in(
    name: str, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "KEEP_BYTES", 0)
    made = make_file(name)
    for _ in range(2):  # first open, then with the index known
        with open_video(made.path) as reader:
            assert_frames(reader, made)


@pytest.mark.parametrize("name", ["h264_pyramid_default_mp4", "h264_variable_rate_mkv", "mpeg4_bframes_avi"])
def test_the_painted_number_agrees(name: str, make_file: MakeFile) -> None:
    made = make_file(name)
    with open_video(made.path) as reader:
        numbers = [number_of(frame) for frame in reader.frames(range(len(reader))).numpy()]
    assert numbers == list(range(made.recipe.num_frames))


@pytest.mark.parametrize("name", ["h264_pyramid_default_mp4", "hevc_mp4", "mpeg4_bframes_avi"])
@pytest.mark.parametrize("threads", [1, 2])
def test_going_forward_step_by_step(name: str, threads: int, make_file: MakeFile) -> None:
    made = make_file(name)
    with open_video(made.path, threads=threads) as reader:
        for start in [*range(0, 50, 3), 4]:
            wanted = [start, start + 4, start + 8]
            frames = reader.frames(wanted).numpy()
            for frame, number in zip(frames, wanted, strict=True):
                assert np.array_equal(frame, made.truth[number]), f"frame {number}"


def test_forward_reading_does_not_decode_twice(make_file: MakeFile) -> None:
    made = make_file("h264_long_gop_mp4")
    with open_video(made.path) as reader:
        decoder = reader._decoder._decoder  # type: ignore[attr-defined]

        class Counting:
            fed = 0

            def decode(self, packet: object) -> object:
                Counting.fed += packet is not None
                return decoder.decode(packet)

            def flush_buffers(self) -> None:
                decoder.flush_buffers()

        reader._decoder._decoder = Counting()  # type: ignore[attr-defined]
        for number in range(60):
            reader.frames([number])
    assert Counting.fed < 2.2 * 60  # once more from the key frame, when the second call shows the pattern


def test_unreferenced_frames_are_dropped(make_file: MakeFile) -> None:
    for name, least in [("h264_bframes_mp4", 20), ("hevc_mp4", 10), ("mpeg4_bframes_mp4", 20)]:
        with open_video(make_file(name).path) as reader:
            assert reader.index.droppable.sum() >= least, name  # type: ignore[attr-defined]


def test_intra_refresh_marks_are_not_believed(make_file: MakeFile) -> None:
    with open_video(make_file("h264_intra_refresh_mp4").path) as reader:
        facts = reader.index  # type: ignore[attr-defined]
        assert facts.entries.tolist() == [0]
        assert facts.num_marked > 1


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("h264_bframes_mp4", "packets"),
        ("vp8_webm", "packets"),
        ("mpeg4_avi", "packets"),
        ("h264_avi", "decoded"),
        ("mpeg4_bframes_avi", "decoded"),
        ("h264_interlaced_mp4", "decoded"),
    ],
)
def test_how_the_index_was_made(name: str, method: str, make_file: MakeFile) -> None:
    with open_video(make_file(name).path) as reader:
        assert reader.index.method == method  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["h264_bframes_mp4", "mpeg4_bframes_avi"])
def test_counting_when_frames_do_not_name_their_packet(
    name: str, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last resort: the place in the output alone."""
    from dataclasses import replace

    made = make_file(name)
    with open_video(made.path) as reader:
        whole = reader.index  # type: ignore[attr-defined]
    counted = replace(whole, method="counted", packet_of=whole.packet_of[:0], entries=whole.entries[:1])
    monkeypatch.setattr("saccade.video.pyav.cached_index", lambda path: counted)
    with open_video(made.path) as reader:
        assert_frames(reader, made)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("short_side", [32, 50, 64, 100])
def test_short_side(backend: Backend, short_side: int, make_file: MakeFile) -> None:
    made = make_file("h264_bframes_mp4")
    with open_video(made.path, backend, short_side=short_side) as reader:
        assert reader.size == (short_side, int(96 / 64 * short_side))
        frames = reader.frames([0, 33]).numpy()
    assert frames.shape[1:3] == reader.size
    assert [number_of(frame) for frame in frames] == [0, 33]
    if short_side == 64:
        assert np.array_equal(frames[1], made.truth[33])


def test_short_side_of_a_portrait(make_file: MakeFile) -> None:
    with open_video(make_file("rotated_90_mp4").path, short_side=40) as reader:
        assert reader.size == (60, 40)
        assert reader.frames([3]).shape == (1, 60, 40, 3)


def test_rotation_is_clockwise(make_file: MakeFile) -> None:
    for name, turns in [("rotated_90_mp4", 1), ("rotated_180_mp4", 2), ("rotated_270_mov", 3)]:
        made = make_file(name)
        with open_video(made.path) as reader:
            frame = reader.frames([37])[0].numpy()
        assert number_of(np.rot90(frame, turns)) == 37, name


def test_variable_rate_reports_the_usual_rate(make_file: MakeFile) -> None:
    made = make_file("h264_variable_rate_mp4")
    assert made.recipe.times is not None
    with open_video(made.path) as reader:
        assert reader.fps == pytest.approx(1 / np.median(np.diff(made.recipe.times(60))), rel=0.02)
    with open_video(make_file("h264_mkv").path) as reader:
        assert reader.fps == pytest.approx(30, rel=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name", ["h264_variable_rate_mp4", "h264_late_start_mp4", "h264_ts", "rotated_90_mp4"]
)
def test_times_are_those_of_the_file(name: str, backend: Backend, make_file: MakeFile) -> None:
    made = make_file(name)
    with av.open(str(made.path)) as container:
        expected = [frame.time for frame in container.decode(video=0)]
    with open_video(made.path, backend) as video:
        assert video.times.dtype == np.float64
        assert video.times.tolist() == pytest.approx(expected, abs=1e-6)


def test_times_where_the_file_states_none(make_file: MakeFile) -> None:
    made = make_file("h264_avi")
    with open_video(made.path) as video:
        assert len(video.times) == len(video)
        assert np.diff(video.times) == pytest.approx(np.full(len(video) - 1, 1 / 30), abs=1e-4)


@pytest.mark.parametrize("backend", [*BACKENDS, "frames"])
def test_a_reader_is_indexed_and_iterated_over(backend: Backend, make_file: MakeFile, tmp_path: Path) -> None:
    made = make_file("h264_mov")
    source = made.path
    if backend == "frames":
        source = tmp_path
        for number, frame in enumerate(made.truth[:5]):
            Image.fromarray(frame).save(tmp_path / f"{number}.png")
    with open_video(source, backend, fps=20) as video:
        length = len(video)
        assert np.array_equal(video[3].numpy(), made.truth[3])
        assert np.array_equal(video[-1].numpy(), made.truth[length - 1])
        assert sum(1 for _ in video) == length
        for beyond in (length, -length - 1):
            with pytest.raises(IndexError, match=str(beyond)):
                video[beyond]
        if backend == "frames":
            assert video.times.tolist() == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(reader).failed == 0


def test_a_reader_that_is_dropped_is_freed_at_once(make_file: MakeFile) -> None:
    """Its decoder has threads, of which many readers would have too many."""
    reader = open_video(make_file("h264_bframes_mp4").path, threads=0)
    reader.frames([3])
    alive = weakref.ref(reader)
    gc.disable()
    try:
        del reader
        assert alive() is None
    finally:
        gc.enable()
