"""Files that are cut short or damaged: what can be decoded is right, the rest is named by time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from painted_files import MadeFile, painted, sequential
from PIL import Image

from saccade.data import check_data
from saccade.errors import VideoError
from saccade.video import open_video, write_video
from saccade.video.damage import damaged_spans

MakeFile = Callable[[str], MadeFile]


@pytest.fixture
def damaged(tmp_path: Path, make_file: MakeFile) -> tuple[Path, MadeFile]:
    """30 fps, key frames at 0, 12, 24 ...; packets 15 and 39 are overwritten, so 15-23 and 39-47 are lost."""
    made = make_file("h264_no_bframes_mp4")
    with open_video(made.path) as reader:
        identity = reader.index.identity  # type: ignore[attr-defined]
    data = bytearray(made.path.read_bytes())
    for packet in (15, 39):
        position, size = identity[packet].tolist()
        data[position : position + size] = b"\xff" * size
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    return path, made


@pytest.mark.parametrize("block", [1, 7, 60])
def test_try_frames(block: int, damaged: tuple[Path, MadeFile]) -> None:
    path, made = damaged
    lost = {*range(15, 24), *range(39, 48)}
    undecodable: dict[int, str] = {}
    with open_video(path) as reader:
        for start in range(0, 60, block):
            wanted = range(start, min(start + block, 60))
            frames, failed = reader.try_frames(wanted)
            undecodable |= failed
            for frame, number in zip(frames.numpy(), wanted, strict=True):
                expected = np.zeros_like(frame) if number in lost else made.truth[number]
                assert np.array_equal(frame, expected), number
        assert undecodable.keys() == lost
        spans = damaged_spans(reader, undecodable)
    assert [(span.first, span.last) for span in spans] == [(15, 23), (39, 47)]
    assert [(span.start, span.end) for span in spans] == [
        pytest.approx((0.5, 0.8), abs=1e-3),
        pytest.approx((1.3, 1.6), abs=1e-3),
    ]
    assert str(spans[0]).startswith("0.50-0.80 s (frames 15-23): ")
    assert "packet 15" in spans[0].cause
    assert "packet 39" in spans[1].cause


def test_frames_around_two_damaged_packets(damaged: tuple[Path, MadeFile]) -> None:
    """Reading on: the second damaged packet is noticed though decoding has recovered from the first."""
    path, made = damaged
    with open_video(path) as reader:
        for number in range(60):
            if 15 <= number < 24 or 39 <= number < 48:
                with pytest.raises(VideoError, match=f"frame {number} of 60 cannot be decoded"):
                    reader.frames([number])
            else:
                assert np.array_equal(reader.frames([number])[0].numpy(), made.truth[number])


def test_data_check_names_the_spans(damaged: tuple[Path, MadeFile], tmp_path: Path) -> None:
    path, _ = damaged
    for split, name in [("train", "a"), ("val", "b")]:
        folder = tmp_path / "set" / split / "run"
        folder.mkdir(parents=True)
        write_video(folder / f"{name}.mp4", [painted(i) for i in range(20)], fps=10)
    shutil.copy(path, tmp_path / "set" / "train" / "run" / "damaged.mp4")
    report = check_data(tmp_path / "set", workers=0)
    (file,) = report.unreadable
    assert (Path(file.path).name, file.num_frames) == ("damaged.mp4", 60)
    assert [(span.first, span.last) for span in file.damage] == [(15, 23), (39, 47)]
    assert "18 of 60 frames cannot be read: 0.50-0.80 s (frames 15-23): " in str(file.cause)
    assert report.to_json()["files"][-1].keys() >= {"damage", "cause"}


def test_folder_with_a_damaged_image(tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(painted(i)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:150])
    with open_video(tmp_path, fps=10) as reader:
        frames, undecodable = reader.try_frames([3, 2, 2, 0])
        assert undecodable.keys() == {2}
        assert np.array_equal(frames[0].numpy(), painted(3))
        assert not frames[1:3].any()
        assert [(s.start, s.end) for s in damaged_spans(reader, undecodable)] == [pytest.approx((0.2, 0.3))]


def test_what_a_header_states_beyond_the_end_is_missing(tmp_path: Path, make_file: MakeFile) -> None:
    """2 s at 30 fps; the header stands before the frames."""
    for name in ("h264_mkv", "vp9_webm", "h264_avi", "mpeg4_avi", "h264_flv", "vp9_ivf"):
        made = make_file(name)
        with open_video(made.path) as whole:
            assert whole.missing_seconds == 0
        path = tmp_path / made.path.name
        path.write_bytes(made.path.read_bytes()[: made.path.stat().st_size * 2 // 3])
        with open_video(path) as reader:
            left = len(reader) / 30
            assert 15 < len(reader) < 58
            assert reader.missing_seconds == pytest.approx(2 - left, abs=0.05)
            *_, span = damaged_spans(reader, {})
        assert (span.first, span.last) == (len(reader), 59)
        assert (span.start, span.end) == (pytest.approx(left, abs=0.05), pytest.approx(2, abs=0.05))
        assert "the file was cut" in span.cause


def test_samples_that_an_mp4_lists_and_lacks_are_missing(tmp_path: Path, make_file: MakeFile) -> None:
    made, path = make_file("h264_bframes_mp4"), tmp_path / "fast.mp4"
    with (
        av.open(str(made.path)) as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with open_video(path) as reader:
        assert (len(reader), reader.missing_seconds) == (60, 0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with open_video(path) as reader:
        assert 15 < len(reader) < 58
        assert reader.missing_seconds == pytest.approx(2 - len(reader) / 30)
        with pytest.raises(VideoError, match="the file ends within the packet"):
            reader.check_end()
        _, undecodable = reader.try_frames(range(len(reader)))
        assert len(undecodable) == 1


def test_a_packet_that_is_cut_is_damaged(tmp_path: Path, make_file: MakeFile) -> None:
    """MPEG-4 part 2 decodes half a picture without an error."""
    made, path = make_file("mpeg4_avi"), tmp_path / "cut.avi"
    path.write_bytes(made.path.read_bytes()[: made.path.stat().st_size * 2 // 3])
    with open_video(path) as reader:
        frames, undecodable = reader.try_frames(range(len(reader)))
        assert undecodable.keys() == {len(reader) - 1}
        for frame, number in zip(frames[:-1].numpy(), range(len(reader) - 1), strict=True):
            assert np.array_equal(frame, made.truth[number])


# codec, suffix, encoder options, and the least fraction of damaged files in which the damage is noticed
NOTICED: list[tuple[str, str, dict[str, str], float]] = [
    ("libx264", ".mp4", {"preset": "veryfast"}, 0.7),
    ("libx265", ".mkv", {"x265-params": "log-level=none:pools=1:hash=1"}, 0.9),
    ("libsvtav1", ".mkv", {"preset": "12"}, 0.9),
    ("mpeg4", ".avi", {}, 0.7),
    ("mpeg2video", ".ts", {}, 0.8),
    ("msmpeg4", ".avi", {}, 0.7),
    ("png", ".mov", {}, 0.9),
]


@pytest.mark.parametrize(
    ("codec", "suffix", "options", "least"), NOTICED, ids=[codec for codec, *_ in NOTICED]
)
def test_damaged_bytes_are_noticed(
    codec: str, suffix: str, options: dict[str, str], least: float, tmp_path: Path
) -> None:
    """Eight bytes inside one packet: how often the decoder says so (docs/video.md). VP8, VP9 and HEVC without
    checksums do not notice.
    """
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (24, 64, 96, 3), dtype=np.uint8)
    whole = tmp_path / f"whole{suffix}"
    pix_fmt = "rgb24" if codec == "png" else "yuv420p"
    pictures = [painted(i) + noise[i] // 2 for i in range(24)]
    write_video(whole, pictures, fps=30, codec=codec, gop=8, pix_fmt=pix_fmt, crf=None, options=options)
    with open_video(whole) as reader:
        identity = reader.index.identity  # type: ignore[attr-defined]
        right, undecodable = reader.try_frames(range(len(reader)))
    assert not undecodable
    assert np.array_equal(right.numpy(), np.stack(sequential(whole)))
    data = whole.read_bytes()
    noticed = wrong = 0
    for number in rng.choice(len(identity), 16):
        position, size = identity[number].tolist()
        position = data.index(data[position + size // 2 : position + size // 2 + 24], position)
        damaged = bytearray(data)
        damaged[position : position + 8] = rng.integers(0, 256, 8, dtype=np.uint8).tobytes()
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(damaged)
        with open_video(path) as reader:
            frames, undecodable = reader.try_frames(range(len(reader)))
        good = [i for i in range(min(len(frames), len(right))) if i not in undecodable]
        silent = any(not np.array_equal(frames[i], right[i]) for i in good)
        noticed += bool(undecodable or len(frames) < len(right)) and not silent
        wrong += silent
    assert noticed >= least * (noticed + wrong)
    assert noticed > 0


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libx265", ".mkv"), ("mpeg4", ".mp4")])
def test_a_damaged_first_packet(codec: str, suffix: str, tmp_path: Path) -> None:
    """The file opens, and everything from the next key frame on is right."""
    path = tmp_path / f"video{suffix}"
    options = {"x265-params": "log-level=none:pools=1"} if codec == "libx265" else {}
    write_video(
        path, [painted(i) for i in range(36)], fps=30, codec=codec, gop=12, bframes=0, options=options
    )
    truth = sequential(path)
    with open_video(path) as reader:
        position, size = reader.index.identity[0].tolist()  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    data[position + size // 3 : position + size] = bytes(size - size // 3)
    path.write_bytes(data)
    with open_video(path) as reader:
        frames, undecodable = reader.try_frames(range(len(reader)))
        assert len(reader) in (24, 36)  # FFmpeg shows nothing, or something, before the first key frame
        assert undecodable.keys() <= set(range(len(reader) - 24))
        for number in range(12, 36):
            assert np.array_equal(frames[number - 36 + len(reader)].numpy(), truth[number]), number
