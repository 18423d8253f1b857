"""Pixels are those of the ffmpeg command's rgb24, for every pixel format, matrix and range."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from test_readers import BACKENDS

from saccade.video import Backend, open_video, write_video

FFV1 = (
    *("yuv420p", "yuv422p", "yuv444p", "yuv410p", "yuv411p", "yuv440p"),
    *("yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv444p12le", "yuv420p16le"),
    *("gray", "gray10le", "gray16le", "ya8", "yuva420p", "yuva444p10le", "bgr0", "gbrp10le"),
)
RAW = ("nv12", "nv21", "yuyv422", "uyvy422", "rgb24", "bgr24", "argb", "rgb565le", "monow")
MJPEG = ("yuvj420p", "yuvj422p", "yuvj444p")
FORMATS = [
    *((name, "ffv1", ".mkv") for name in FFV1),
    *((name, "rawvideo", ".nut") for name in RAW),
    *((name, "mjpeg", ".avi") for name in MJPEG),
]
# AVColorSpace and the weights of red and blue in luma, ITU-T H.273 table 4
MATRICES = {
    "unspecified": (2, 0.299, 0.114),
    "bt601": (5, 0.299, 0.114),
    "smpte170m": (6, 0.299, 0.114),
    "bt709": (1, 0.2126, 0.0722),
    "bt2020": (9, 0.2627, 0.0593),
    "smpte240m": (7, 0.212, 0.087),
}


def write(
    path: Path,
    frames: list[av.VideoFrame],
    codec: str,
    *,
    matrix: int = 2,
    value_range: int = 0,
    options: dict[str, str] | None = None,
) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = value_range
        for number, frame in enumerate(frames):
            frame.colorspace, frame.color_range = matrix, value_range
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def hard_frames(height: int, width: int, pix_fmt: str, count: int = 2) -> list[av.VideoFrame]:
    """Noise over colour edges, which shows how chroma is interpolated."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    edges = np.stack([(x * 7 + y * 3) % 256, (x * 3 + y * 11) % 256, (x // 3 * 31 + y // 2 * 57) % 256], 2)
    pictures = []
    for number in range(count):
        picture = np.roll(edges, 5 * number, 1).astype(np.uint8)
        picture[height // 2 :] = rng.integers(0, 256, picture[height // 2 :].shape)
        pictures.append(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pix_fmt))
    return pictures


def by_command(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-fps_mode", "passthrough"]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    )
    return np.frombuffer(raw.stdout, np.uint8).reshape(shape)


def by_reformatter(path: Path) -> np.ndarray:
    """PyAV's other way of converting, right for progressive pictures with chroma in its usual position."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([frame.to_ndarray(format="rgb24", interpolation="BICUBIC") for frame in frames])


@pytest.mark.parametrize("size", [(64, 96), (63, 95)], ids=["even", "odd"])
@pytest.mark.parametrize(("pix_fmt", "codec", "suffix"), FORMATS, ids=[name for name, _, _ in FORMATS])
def test_every_pixel_format(
    pix_fmt: str, codec: str, suffix: str, size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / f"video{suffix}"
    write(path, hard_frames(*size, pix_fmt), codec, value_range=2 if codec == "mjpeg" else 0)
    expected = by_reformatter(path)
    for backend in BACKENDS:
        with open_video(path, backend) as reader:
            assert reader.size == size
            frames = reader.frames(range(2)).numpy()
        assert np.array_equal(frames, expected), backend
    if shutil.which("ffmpeg") is not None:
        assert np.array_equal(expected, by_command(path, expected.shape))


@pytest.mark.parametrize("value_range", [1, 2], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_matrix_and_range(
    pix_fmt: str, backend: Backend, matrix: str, value_range: int, tmp_path: Path
) -> None:
    """A plain colour against the equations of H.273, and noise against PyAV's conversion."""
    space, red, blue = MATRICES[matrix]
    deep = 4 if pix_fmt == "yuv420p10le" else 1
    luma, cb, cr = 100, 90, 170
    plain = av.VideoFrame(96, 64, "yuv444p10le" if deep == 4 else "yuv444p")
    for plane, value in zip(plain.planes, (luma, cb, cr), strict=True):
        kind = np.uint16 if deep == 4 else np.uint8
        plane.update(np.full(plane.buffer_size // kind().itemsize, value * deep, kind).tobytes())
    frames = [plain.reformat(format=pix_fmt), *hard_frames(64, 96, pix_fmt, 1)]
    path = tmp_path / "video.mkv"
    write(path, frames, "ffv1", matrix=space, value_range=value_range)
    with open_video(path, backend) as reader:
        pixels = reader.frames(range(2)).numpy()
    assert np.array_equal(pixels, by_reformatter(path))
    scale_y, scale_c, black = (255 / 219, 255 / 224, 16) if value_range == 1 else (1, 1, 0)
    y, pb, pr = (luma - black) * scale_y, (cb - 128) * scale_c, (cr - 128) * scale_c
    r, b = y + 2 * (1 - red) * pr, y + 2 * (1 - blue) * pb
    g = (y - red * r - blue * b) / (1 - red - blue)
    assert np.abs(pixels[0].astype(float) - [r, g, b]).max() < 3
    if shutil.which("ffmpeg") is not None:
        assert np.array_equal(pixels, by_command(path, pixels.shape))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with the ffmpeg command line")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("libx265", "yuv420p10le", {"x265-params": "log-level=none:pools=1:chromaloc=2"}),
        ("libx264", "yuv420p10le", {"x264-params": "chromaloc=3"}),
        ("libx264", "yuv420p", {"x264-params": "interlaced=1:tff=1"}),
        ("libx264", "yuv420p10le", {"x264-params": "interlaced=1:tff=1"}),
        ("mpeg2video", "yuv420p", {}),
    ],
)
def test_chroma_position_and_fields(
    codec: str, pix_fmt: str, options: dict[str, str], backend: Backend, tmp_path: Path
) -> None:
    size = (63, 95) if codec == "mpeg2video" else (64, 96)
    path = tmp_path / ("video.mpg" if codec == "mpeg2video" else "video.mkv")
    write(path, hard_frames(*size, pix_fmt, 4), codec, options=options)
    with open_video(path, backend) as reader:
        pixels = reader.frames(range(len(reader))).numpy()
    assert np.array_equal(pixels, by_command(path, pixels.shape))


@pytest.mark.parametrize("orientation", range(8))
def test_display_matrix(orientation: int, tmp_path: Path) -> None:
    """All quarter turns, mirrored or not, in the track header of an MP4."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:20, :30] = 255  # top left
    picture[40:, :30] = 128  # bottom left
    path = tmp_path / "video.mp4"
    write(path, [av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")], "libx264")
    transposed, rows, columns = bool(orientation & 4), bool(orientation & 2), bool(orientation & 1)
    a, b, c, d = (0, 1, 1, 0) if transposed else (1, 0, 0, 1)
    a, c = (-a, -c) if columns else (a, c)
    b, d = (-b, -d) if rows else (b, d)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    matrix = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]
    data[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    shown = picture.swapaxes(0, 1) if transposed else picture
    shown = shown[:: -1 if rows else 1, :: -1 if columns else 1]
    with open_video(path) as reader:
        assert reader.size == shown.shape[:2]
        frame = reader.frames([0])[0].numpy()
    assert np.abs(frame.astype(int) - shown)[4:-4:8, 4:-4:8].max() < 16
    if shutil.which("ffmpeg") is not None:
        assert np.array_equal(frame[None], by_command(path, (1, *shown.shape)))


@pytest.mark.parametrize("short_side", [32, 100])
def test_ordinary_pictures_are_resized_as_ever(tmp_path: Path, short_side: int) -> None:
    """8 bit 4:2:0 of even size: by PyAV, whose rounding the recorded views have."""
    noise = np.random.default_rng(0).integers(0, 255, (3, 12, 16, 3), dtype=np.uint8)
    path = tmp_path / "a.mp4"
    write_video(path, noise.repeat(4, axis=1).repeat(4, axis=2), fps=10)
    with open_video(path, short_side=short_side) as reader, av.open(str(path)) as container:
        height, width = reader.size
        expected = [
            frame.reformat(width, height, "rgb24").to_ndarray() for frame in container.decode(video=0)
        ]
        np.testing.assert_array_equal(reader.frames(range(3)).numpy(), expected)
