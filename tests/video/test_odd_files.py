"""Real files that break readers: right frames, or the one error that says what is wrong."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from painted_files import as_rgb, sequential
from test_readers import BACKENDS

from saccade.errors import VideoError
from saccade.video import Backend, open_video

# frames, size (height, width) as shown
READABLE = {
    "av1_video.mkv": (125, (360, 640)),
    "bitmap.mp4": (5, (1, 1)),
    "discard_first_keyframe.mp4": (25, (64, 64)),  # the header says 30
    "nasa_13013_rotated.mp4": (17, (480, 270)),
    "no_duration.webm": (74, (720, 1280)),
    "test_non_zero_start.mp4": (12, (112, 200)),
    "testsrc2_h265.mp4": (60, (720, 1280)),
    "testsrc2_mpeg4.avi": (30, (720, 1280)),
    "testsrc2_mpeg4.mp4": (1, (64, 64)),
    "testsrc2_odd_height_and_width_444.mp4": (25, (241, 321)),
    "testsrc2_vp9.webm": (30, (720, 1280)),
    "unordered.mov": (4, (50, 50)),
    "video_90.mov": (3, (568, 320)),
}
UNREADABLE = {
    "AudioVideoInterleave.avi": "holds no video packets",
    "FlashVideo.flv": "is not a video FFmpeg can read: End of file",
    "mp4-with-audio.mp4": "has no video stream, only audio",
    "result.webm": "is empty (0 bytes)",
    "sine_mono_s16.wav": "has no video stream, only audio",
}
DAMAGED = {"corrupted.mp4"}


def test_every_odd_file_is_expected(real_data: Path) -> None:
    found = {path.name for path in (real_data / "odd").iterdir() if not path.name.startswith(".")}
    assert found == {*READABLE, *UNREADABLE, *DAMAGED}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", READABLE)
def test_readable(name: str, backend: Backend, real_data: Path) -> None:
    path = real_data / "odd" / name
    truth = sequential(path)
    num_frames, size = READABLE[name]
    rng = random.Random(0)
    with open_video(path, backend) as reader:
        assert (len(reader), reader.size, len(truth)) == (num_frames, size, num_frames)
        for _ in range(4):
            wanted = [rng.randrange(num_frames) for _ in range(3)]
            frames = reader.frames(wanted).numpy()
            for frame, number in zip(frames, wanted, strict=True):
                assert np.array_equal(frame, truth[number]), f"frame {number} of {wanted}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable(name: str, backend: Backend, real_data: Path) -> None:
    path = real_data / "odd" / name
    with pytest.raises(VideoError) as caught:
        open_video(path, backend)
    assert str(caught.value) == f"{path}: {UNREADABLE[name]}"


def test_damaged(real_data: Path) -> None:
    """Packet 29 is damaged and no key frame follows: what was decoded before it is right, the rest raises."""
    path = real_data / "odd" / "corrupted.mp4"
    truth = until_the_first_error(path)
    whole = []
    with open_video(path) as reader:
        assert len(reader) == 50
        for number in range(50):
            try:
                frame = reader.frames([number])[0].numpy()
            except VideoError as error:
                cause = error.cause
            else:
                whole.append(number)
                assert np.array_equal(frame, truth[number]), f"frame {number}"
    assert whole == list(range(29))
    assert cause == "frame 49 of 50 cannot be decoded: the picture is damaged (packet 29)"


def until_the_first_error(path: Path) -> list[np.ndarray]:
    """What is decoded of the packets before the first one that fails."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                frames += stream.codec_context.decode(packet)
            except av.FFmpegError:
                frames += stream.codec_context.decode(None)
                break
        return [as_rgb(frame) for frame in frames]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with the ffmpeg command line")
@pytest.mark.parametrize(
    "name", ["nasa_13013_rotated.mp4", "video_90.mov", "testsrc2_vp9.webm", "test_non_zero_start.mp4"]
)
def test_as_the_ffmpeg_command_line(name: str, real_data: Path) -> None:
    path = real_data / "odd" / name
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-fps_mode", "passthrough"]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    ).stdout
    with open_video(path) as reader:
        golden = np.frombuffer(raw, np.uint8).reshape(len(reader), *reader.size, 3)
        for start in range(0, len(reader), 10):
            wanted = range(start, min(start + 10, len(reader)))
            difference = reader.frames(wanted).numpy().astype(int) - golden[wanted.start : wanted.stop]
            # Two versions of FFmpeg: the last bit of the colour conversion may differ, no more.
            assert np.abs(difference).max() <= 2
