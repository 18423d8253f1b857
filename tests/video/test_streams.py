"""Joined recordings, several streams, raw streams, and files that FFmpeg opens though they are no videos."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from painted_files import number_of, painted, sequential
from PIL import Image
from test_readers import BACKENDS

from saccade.errors import VideoError
from saccade.video import Backend, index, open_video, write_video

X265 = {"x265-params": "log-level=none:pools=1"}
OPEN_GOP = {"x264-params": "open-gop=1:scenecut=0:keyint=12:min-keyint=1"}
CODECS = {"h264": ("libx264", {}), "hevc": ("libx265", X265), "mpeg2": ("mpeg2video", {})}


def recording(path: Path, first: int, count: int = 30, **options: object) -> bytes:
    """A recording whose frames carry the numbers from ``first`` on."""
    options = {"codec": "libx264", "gop": 12, "bframes": 2, **options}
    write_video(path, [painted(first + i) for i in range(count)], fps=30, **options)  # type: ignore[arg-type]
    return path.read_bytes()


def joined(folder: Path, parts: list[bytes], suffix: str = ".ts") -> Path:
    path = folder / f"joined{suffix}"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("keep", [True, False], ids=["in memory", "sought in"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("codec", CODECS)
def test_joined_recordings(
    codec: str, backend: Backend, keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames in decoding order across the join, though the container marks a packet there as corrupt."""
    if not keep:
        monkeypatch.setattr(index, "KEEP_BYTES", 0)
    name, options = CODECS[codec]
    parts = [recording(tmp_path / f"{i}.ts", 30 * i, codec=name, options=options) for i in range(3)]
    path = joined(tmp_path, parts)
    with av.open(str(path)) as container:
        assert any(packet.is_corrupt for packet in container.demux(video=0))
    truth = sequential(path)
    assert [number_of(frame) for frame in truth] == list(range(90))
    with open_video(path, backend) as reader:
        assert len(reader) == 90
        assert reader.fps == pytest.approx(30, rel=1e-3)
        assert np.diff(reader.times) == pytest.approx(np.full(89, 1 / 30), abs=1e-4)
        for wanted in (range(90), [31, 29, 60, 59, 30], [89, 0], [45]):
            for frame, number in zip(reader.frames(wanted).numpy(), wanted, strict=True):
                assert np.array_equal(frame, truth[number]), number


@pytest.mark.parametrize("suffix", [".ts", ".m2ts", ".mpg"])
@pytest.mark.parametrize("case", ["same twice", "cut", "begins in the middle", "other size", "open gop"])
def test_other_joins_give_what_decoding_gives(case: str, suffix: str, tmp_path: Path) -> None:
    codec = "mpeg2video" if suffix == ".mpg" else "libx264"
    options = OPEN_GOP if case == "open gop" and codec == "libx264" else {}
    one = recording(tmp_path / f"a{suffix}", 0, codec=codec, options=options)
    if case == "other size":
        write_video(
            tmp_path / f"b{suffix}", [painted(30 + i, 96, 128) for i in range(30)], fps=30, codec=codec
        )
        other = (tmp_path / f"b{suffix}").read_bytes()
    else:
        other = recording(tmp_path / f"b{suffix}", 30, codec=codec, options=options)
    unit = {".ts": 188, ".m2ts": 192, ".mpg": 2048}[suffix]
    start = len(other) // 3 // unit * unit
    parts = {
        "same twice": [one, one],
        "cut": [one[: len(one) // 2 // unit * unit], other],
        "begins in the middle": [one, other[start:]],
    }
    path = joined(tmp_path, parts.get(case, [one, other]), suffix)
    truth = sequential(path)
    with open_video(path) as reader:
        assert len(reader) == len(truth)
        assert (np.diff(reader.times) > 0).all()
        frames, undecodable = reader.try_frames(range(len(reader)))
        for number, expected in enumerate(truth):
            if number not in undecodable and expected.shape == frames.shape[1:]:
                assert np.array_equal(frames[number].numpy(), expected), number
    if case in ("same twice", "other size", "open gop"):
        assert not undecodable


def test_time_stamps_that_wrap(tmp_path: Path) -> None:
    """MPEG time stamps begin again at 2^33 / 90000 = 95443.7 s."""
    path = tmp_path / "wrap.ts"
    recording(path, 0, count=60, pts=[95442.7 + i / 30 for i in range(60)])
    truth = sequential(path)
    with open_video(path) as reader:
        assert np.diff(reader.times) == pytest.approx(np.full(59, 1 / 30), abs=1e-4)
        assert reader.fps == pytest.approx(30, rel=1e-3)
        assert np.array_equal(reader.frames(range(60)).numpy(), np.stack(truth))
    assert [number_of(frame) for frame in truth] == list(range(60))


def two_streams(path: Path, default: int | None, sizes: tuple[tuple[int, int], ...]) -> None:
    """Streams of different sizes, whose frames carry 10 and 20 and so on plus their index."""
    with av.open(str(path), "w") as container:
        streams = []
        for i, (height, width) in enumerate(sizes):
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if default is not None:
                stream.disposition = av.stream.Disposition(1 if i == default else 0)
            streams.append(stream)
        for number in range(20):
            for i, stream in enumerate(streams):
                picture = painted(number + 20 * i, *sizes[i])
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 30)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("suffix", "default"), [(".mkv", 1), (".mkv", 0), (".mp4", None), (".ts", None), (".avi", None)]
)
def test_best_stream(suffix: str, default: int | None, backend: Backend, tmp_path: Path) -> None:
    """The stream that ``av_find_best_stream`` chooses: the default one, if that is marked."""
    sizes = ((64, 96), (128, 192))
    path = tmp_path / f"two{suffix}"
    two_streams(path, default, sizes)
    with av.open(str(path)) as container:
        chosen = container.streams.best("video")
        assert chosen is not None
        best = chosen.index
    with open_video(path, backend) as reader:
        assert reader.size == sizes[best]
        assert [number_of(frame) for frame in reader.frames([0, 7]).numpy()] == [
            20 * best,
            20 * best + 7,
        ]
    if default is not None:
        assert best == default


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cover_picture_is_never_the_video(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    cover = tmp_path / "cover.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)).save(cover)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("png", rate=30)
        picture.width, picture.height, picture.pix_fmt = 640, 480, "rgb24"
        picture.disposition = av.stream.Disposition.attached_pic
        video = container.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        packet = av.Packet(cover.read_bytes())
        packet.stream, packet.pts, packet.dts, packet.time_base = picture, 0, 0, Fraction(1, 30)
        packet.is_keyframe = True
        container.mux(packet)
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(painted(number), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    with av.open(str(path)) as container:
        covers = [bool(s.disposition & av.stream.Disposition.attached_pic) for s in container.streams.video]
    if not any(covers):
        pytest.skip("this muxer does not write the mark of a cover picture")
    with open_video(path, backend) as reader:
        assert reader.size == (64, 96)
        assert number_of(reader[7].numpy()) == 7


TEXT = "".join(f"2024-01-01 12:00:{i % 60:02d} INFO line {i} of a log\n" for i in range(300))


@pytest.mark.parametrize(
    "ending",
    ["txt", "log", "nfo", "ans", "asc", "diz", "json", "csv", "md", "srt", "vtt", "bin", "idf", "mp4"],
)
def test_text_is_no_video(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"notes.{ending}"
    path.write_text(TEXT if ending != "vtt" else "WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n")
    with pytest.raises(VideoError) as caught:
        open_video(path)
    assert caught.value.path == str(path)
    if ending in ("txt", "nfo", "ans", "asc", "diz"):
        assert caught.value.cause == "is text, not a video"


def test_screen_dump_is_no_video(tmp_path: Path) -> None:
    """XBin: text art with a header of its own."""
    path = tmp_path / "art.xb"
    path.write_bytes(b"XBIN\x1a" + bytes([80, 0, 25, 0, 16, 0]) + b"A\x07" * 80 * 25)
    with pytest.raises(VideoError, match="is text, not a video"):
        open_video(path)


RAW: dict[str, tuple[str, str, Callable[[Fraction], dict[str, str]]]] = {
    "h264": ("libx264", "h264", lambda _: {}),
    "hevc": ("libx265", "hevc", lambda _: X265),
    "m1v": ("mpeg1video", "mpeg1video", lambda _: {}),
    "m2v": ("mpeg2video", "mpeg2video", lambda _: {}),
    "m4v": ("mpeg4", "m4v", lambda _: {}),
}


@pytest.mark.parametrize("rate", ["30", "30000/1001", "24000/1001", "50", "60", "25", "12", "120"])
@pytest.mark.parametrize("ending", RAW)
def test_raw_streams_have_the_rate_of_their_header(ending: str, rate: str, tmp_path: Path) -> None:
    if ending in ("m1v", "m2v") and rate in ("12", "120"):
        pytest.skip("MPEG-1 and MPEG-2 know no such rate")
    codec, container_format, options = RAW[ending]
    fps = Fraction(rate)
    path = tmp_path / f"raw.{ending}"
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=fps, options=options(fps))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.max_b_frames = 2
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(painted(number), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, 1 / fps
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_video(path) as reader:
        assert len(reader) == 30
        assert reader.fps == pytest.approx(float(fps), rel=1e-3)
        assert reader.times[-1] - reader.times[0] == pytest.approx(29 / float(fps), rel=0.05)
        assert [number_of(frame) for frame in reader.frames([0, 13, 29]).numpy()] == [0, 13, 29]
