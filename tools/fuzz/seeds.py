"""The small videos that get damaged: made with FFmpeg's encoders, and cut from real files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH, NUM_FRAMES, FPS = 48, 64, 30, 25
_X264 = {"preset": "veryfast", "x264-params": "threads=1:scenecut=0"}
_X265 = {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"}
_VPX = {"cpu-used": "8", "deadline": "realtime", "threads": "1"}
_AV1 = {"preset": "12", "svtav1-params": "lp=1"}


@dataclass(frozen=True)
class SeedRecipe:
    """How one small video is made."""

    suffix: str
    codec: str
    bframes: int = 0
    format: str | None = None
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (HEIGHT, WIDTH)
    audio: str | None = None
    varying: bool = False
    rotation: int = 0
    num_frames: int = NUM_FRAMES
    options: dict[str, str] = field(default_factory=dict)
    container: dict[str, str] = field(default_factory=dict)


def _x264(params: str) -> dict[str, str]:
    return {**_X264, "x264-params": f"threads=1:scenecut=0:{params}"}


RECIPES: dict[str, SeedRecipe] = {
    "mp4_h264": SeedRecipe(".mp4", "libx264", 2, options=_X264),
    "mp4_h264_audio": SeedRecipe(".mp4", "libx264", 2, audio="aac", options=_X264),
    "mp4_h264_open_gop": SeedRecipe(".mp4", "libx264", 3, options=_x264("open-gop=1")),
    "mp4_h264_interlaced": SeedRecipe(".mp4", "libx264", options=_x264("tff=1")),
    "mp4_h264_refresh": SeedRecipe(".mp4", "libx264", options=_x264("intra-refresh=1:bframes=0")),
    "mp4_h264_fragments": SeedRecipe(
        ".mp4", "libx264", 2, options=_X264, container={"movflags": "frag_keyframe+empty_moov"}
    ),
    "mp4_h264_faststart": SeedRecipe(
        ".mp4", "libx264", 2, options=_X264, container={"movflags": "faststart"}
    ),
    "mp4_h264_varying": SeedRecipe(".mp4", "libx264", 2, varying=True, rotation=90, options=_X264),
    "mp4_hevc": SeedRecipe(".mp4", "libx265", 2, options=_X265),
    "mp4_mpeg4": SeedRecipe(".mp4", "mpeg4", 2),
    "mp4_av1": SeedRecipe(".mp4", "libsvtav1", size=(64, 64), options=_AV1),
    "mp4_vp9": SeedRecipe(".mp4", "libvpx-vp9", options=_VPX),
    "mov_h264": SeedRecipe(".mov", "libx264", 2, options=_X264),
    "mov_prores": SeedRecipe(".mov", "prores_ks", pix_fmt="yuv422p10le", num_frames=12),
    "mov_mjpeg": SeedRecipe(".mov", "mjpeg", pix_fmt="yuvj420p"),
    "mov_qtrle": SeedRecipe(".mov", "qtrle", pix_fmt="rgb24", num_frames=6),
    "mkv_h264": SeedRecipe(".mkv", "libx264", 2, audio="aac", options=_X264),
    "mkv_hevc10": SeedRecipe(".mkv", "libx265", 2, pix_fmt="yuv420p10le", options=_X265),
    "mkv_ffv1": SeedRecipe(".mkv", "ffv1", num_frames=12, options={"level": "3", "slicecrc": "1"}),
    "mkv_mpeg2": SeedRecipe(".mkv", "mpeg2video", 2),
    "webm_vp8": SeedRecipe(".webm", "libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "16"}),
    "webm_vp9": SeedRecipe(".webm", "libvpx-vp9", options={"cpu-used": "8", "auto-alt-ref": "1"}),
    "webm_av1": SeedRecipe(".webm", "libsvtav1", size=(64, 64), options=_AV1),
    "avi_mpeg4": SeedRecipe(".avi", "mpeg4"),
    "avi_mpeg4_b": SeedRecipe(".avi", "mpeg4", 2),
    "avi_mjpeg": SeedRecipe(".avi", "mjpeg", pix_fmt="yuvj420p", audio="mp2"),
    "avi_h264": SeedRecipe(".avi", "libx264", 2, options=_X264),
    "avi_ffv1": SeedRecipe(".avi", "ffv1", num_frames=12),
    "avi_huffyuv": SeedRecipe(".avi", "huffyuv", pix_fmt="yuv422p", num_frames=8),
    "avi_msmpeg4": SeedRecipe(".avi", "msmpeg4"),
    "flv_flv1": SeedRecipe(".flv", "flv"),
    "flv_h264": SeedRecipe(".flv", "libx264", 2, audio="aac", options=_X264),
    "ts_h264": SeedRecipe(".ts", "libx264", 2, audio="mp2", options=_X264),
    "ts_hevc": SeedRecipe(".ts", "libx265", 2, options=_X265),
    "ts_mpeg2": SeedRecipe(".ts", "mpeg2video", 2),
    "m2ts_h264": SeedRecipe(
        ".m2ts", "libx264", 2, "mpegts", options=_X264, container={"mpegts_m2ts_mode": "1"}
    ),
    "mpg_mpeg1": SeedRecipe(".mpg", "mpeg1video", 2, "mpeg"),
    "vob_mpeg2": SeedRecipe(".vob", "mpeg2video", 2, "vob", audio="mp2"),
    "3gp_h263": SeedRecipe(".3gp", "h263", size=(96, 128)),
    "ogv_vp8": SeedRecipe(".ogv", "libvpx", format="ogg", options=_VPX),
    "nut_mpeg4": SeedRecipe(".nut", "mpeg4", 2),
    "wmv_wmv2": SeedRecipe(".wmv", "wmv2", format="asf"),
    "mxf_mpeg2": SeedRecipe(".mxf", "mpeg2video", 2),
    "h264_raw": SeedRecipe(".h264", "libx264", 2, options=_X264),
    "hevc_raw": SeedRecipe(".hevc", "libx265", 2, options=_X265),
    "m4v_raw": SeedRecipe(".m4v", "mpeg4", 2, "m4v"),
    "m2v_raw": SeedRecipe(".m2v", "mpeg2video", 2, "mpeg2video"),
    "mjpeg_raw": SeedRecipe(".mjpeg", "mjpeg", pix_fmt="yuvj420p", format="mjpeg"),
    "ivf_vp9": SeedRecipe(".ivf", "libvpx-vp9", options=_VPX),
    "obu_av1": SeedRecipe(".obu", "libsvtav1", size=(64, 64), options=_AV1),
    "y4m_raw": SeedRecipe(".y4m", "wrapped_avframe", format="yuv4mpegpipe", num_frames=8),
    "gif": SeedRecipe(".gif", "gif", pix_fmt="rgb8", num_frames=12),
    "rm_rv20": SeedRecipe(".rm", "rv20"),
}


@dataclass(frozen=True)
class Seed:
    """A whole video, as bytes."""

    name: str
    suffix: str
    data: bytes
    weight: float = 1.0


def painted(number: int, height: int, width: int) -> np.ndarray:
    """A frame unlike all others: a moving pattern and a little noise, uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    planes = [(x * 3 + number * 5) % 256, (y * 4 + number * 3) % 256, (x + y + number * 7) % 256]
    frame = (64 + np.stack(planes, 2) // 2).astype(np.uint8)
    size = height // 3
    top, left = (number * 2) % (height - size), (number * 3) % (width - size)
    noise = np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)
    frame[top : top + size, left : left + size] = noise
    return frame


def make_seed(path: Path, recipe: SeedRecipe) -> None:
    """Encode one small video; the same recipe gives the same bytes."""
    clock = Fraction(1, 1000) if recipe.varying else Fraction(1, FPS)
    container_options = {"fflags": "+bitexact", **recipe.container}
    with av.open(str(path), "w", format=recipe.format, options=container_options) as container:
        stream = container.add_stream(recipe.codec, rate=FPS, options=recipe.options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = recipe.size
        stream.pix_fmt = recipe.pix_fmt
        context = stream.codec_context
        context.thread_count = 1
        context.gop_size = 8
        if recipe.bframes:
            context.max_b_frames = recipe.bframes
        if recipe.codec in ("mpeg1video", "mpeg2video"):
            context.bit_rate = 400_000
        if recipe.varying:
            context.time_base = clock
        if recipe.rotation:
            stream.set_display_rotation(-recipe.rotation)
        sound = container.add_stream(recipe.audio, rate=44_100) if recipe.audio else None
        for number in range(recipe.num_frames):
            frame = av.VideoFrame.from_ndarray(painted(number, *recipe.size), format="rgb24")
            frame.pts = number * 40 + 60 * (number // 7) if recipe.varying else number
            frame.time_base = clock
            container.mux(stream.encode(frame))
            if sound is not None:
                container.mux(sound.encode(_sound(number)))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))


def _sound(number: int) -> av.AudioFrame:
    """The sound that goes with one frame: a sine, 44.1 kHz, stereo."""
    count = 44_100 // FPS
    times = np.arange(number * count, (number + 1) * count)
    wave = (np.sin(times * 0.06) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(
        np.stack([wave, wave], 1).reshape(1, -1), format="s16", layout="stereo"
    )
    frame.sample_rate, frame.pts, frame.time_base = 44_100, number * count, Fraction(1, 44_100)
    return frame


def load_seeds(folder: Path, real_data: Path | None = None, names: tuple[str, ...] = ()) -> list[Seed]:
    """All seeds; the made ones are encoded into ``folder`` on first use.

    Recipes for which this build of FFmpeg has no encoder are left out with a line that names them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    versions = json.dumps({name: list(version) for name, version in av.library_versions.items()})
    stamp = folder / "versions.json"
    if not stamp.exists() or stamp.read_text() != versions:
        for old in folder.iterdir():
            old.unlink()
        stamp.write_text(versions)
    seeds = []
    for name, recipe in RECIPES.items():
        if names and name not in names:
            continue
        path = folder / f"{name}{recipe.suffix}"
        if not path.exists():
            try:
                make_seed(path, recipe)
            except (av.FFmpegError, ValueError) as error:
                path.unlink(missing_ok=True)
                print(f"seed {name} cannot be made here: {error}", flush=True)
                continue
        seeds.append(Seed(name, recipe.suffix, path.read_bytes()))
    if real_data is not None:
        seeds += _real_seeds(real_data)
    return seeds


def _real_seeds(folder: Path) -> Iterator[Seed]:
    """Real files: those up to 200 kB, and larger ones now and then."""
    paths = [p for part in ("clips", "odd") for p in (folder / part).glob("*") if p.is_file()]
    paths += sorted((folder / "ucf10").glob("*/*.mp4"))[::40]
    for path in sorted(paths):
        data = path.read_bytes()
        if data and path.suffix != ".wav":
            yield Seed(f"real_{path.name}", path.suffix, data, 0.5 if len(data) < 200_000 else 0.15)
