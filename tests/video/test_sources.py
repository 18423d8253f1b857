"""What `open_video` reads besides paths, and what it refuses."""

from __future__ import annotations

import io
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from painted_files import MadeFile, painted
from PIL import Image

from saccade.errors import UsageError, VideoError
from saccade.video import VideoReader, index, open_video, pyav, write_video
from saccade.video.source import videos_at

MakeFile = Callable[[str], MadeFile]
FRAMES = np.stack([painted(i) for i in range(12)])


def assert_frames(reader: VideoReader, made: MadeFile) -> None:
    assert len(reader) == len(made.truth)
    for wanted in ([*range(len(reader))], [47, 3, 30], [0]):
        expected = np.stack([made.truth[i] for i in wanted])
        assert np.array_equal(reader.frames(wanted).numpy(), expected)


class OneWay(io.RawIOBase):
    """A file object that cannot seek, as a socket or pipe."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


@pytest.fixture
def memory_url(make_file: MakeFile):
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.pipe("/archive/clip.mp4", make_file("h264_bframes_mp4").path.read_bytes())
    yield "memory://archive/clip.mp4"
    files.rm("/archive", recursive=True)


@pytest.mark.parametrize("name", ["h264_bframes_mp4", "h264_ts", "h264_avi", "mpeg4_bframes_avi"])
@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "BytesIO", "file", "one way"])
def test_every_kind_of_bytes_gives_the_frames_of_the_file(kind: str, name: str, make_file: MakeFile) -> None:
    made = make_file(name)
    data = made.path.read_bytes()
    at_its_end = io.BytesIO()
    at_its_end.write(data)
    with made.path.open("rb") as file:
        file.seek(100)
        source = {
            "bytes": data,
            "bytearray": bytearray(data),
            "memoryview": memoryview(data),
            "BytesIO": at_its_end,
            "file": file,
            "one way": OneWay(data),
        }[kind]
        with open_video(source) as reader:
            assert_frames(reader, made)
        assert not file.closed
    assert reader.path == {"file": str(made.path), "BytesIO": "<BytesIO>", "one way": "<OneWay>"}.get(
        kind, "<bytes>"
    )


def test_packets_read_again_from_one_file_object(
    make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where packets are not in memory, the reader opens the object again while it is open."""
    monkeypatch.setattr(index, "KEEP_BYTES", 0)
    made = make_file("h264_ts")
    with open_video(io.BytesIO(made.path.read_bytes())) as reader:
        assert_frames(reader, made)


def test_memory_is_not_cached(make_file: MakeFile) -> None:
    """Two contents under one name."""
    index.clear_index_cache()
    for name in ("h264_bframes_mp4", "mpeg4_bframes_avi"):
        made = make_file(name)
        with open_video(made.path.read_bytes()) as reader:
            assert_frames(reader, made)
    assert not index._cache._indexes


def test_a_url(memory_url: str, make_file: MakeFile) -> None:
    made = make_file("h264_bframes_mp4")
    with open_video(memory_url) as reader:
        assert reader.path == memory_url
        assert_frames(reader, made)
    with open_video(made.path.as_uri()) as reader:
        assert_frames(reader, made)
    spaced = made.path.with_name("a b.mp4")
    spaced.write_bytes(made.path.read_bytes())
    assert "%20" in spaced.as_uri()
    with open_video(spaced.as_uri()) as reader:
        assert_frames(reader, made)


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("memory://archive/none.mp4", "no such file"),
        ("memory://archive", "is a folder; give the URL of one file"),
        ("nonsense://archive/clip.mp4", "cannot be read: Protocol not known: nonsense"),
        ("rtsp://127.0.0.1/x", "is a live stream"),
        ("file:///none/there.mp4", "no such file or folder"),
    ],
)
def test_urls_that_cannot_be_read(memory_url: str, url: str, cause: str) -> None:
    with pytest.raises(VideoError) as caught:
        open_video(url)
    assert caught.value.path == url
    assert caught.value.cause.startswith(cause)


def test_folders_and_globs_of_urls(memory_url: str) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    for name in ("a/b.MKV", "a/.c.mp4", "note.txt", "z.mp4"):
        files.pipe(f"/archive/{name}", b"0")
    everything = [f"memory:///archive/{name}" for name in ("a/b.MKV", "clip.mp4", "z.mp4")]
    assert videos_at("memory://archive/") == videos_at("memory://archive") == everything
    assert videos_at("memory://archive/*.mp4") == everything[1:]
    for url in (memory_url, "memory://archive/none.mp4", "https://host/?v=1*", "rtsp://host/x"):
        assert videos_at(url) == [url]
    for url in ("memory://archive/*.avi", "memory://archive/none/"):
        with pytest.raises(VideoError) as caught:
            videos_at(url)
        assert caught.value.path == url
    with open_video(everything[1]) as one, open_video(memory_url) as other:
        assert len(one) == len(other)


def test_a_url_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"pip install 'saccade\[s3\]'"):
        open_video("s3://bucket/clip.mp4")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match="pip install gcsfs"):
        open_video("gs://bucket/clip.mp4")


def test_a_url_as_a_path_lost_a_slash() -> None:
    with pytest.raises(VideoError, match="give a URL as a string"):
        open_video(Path("s3://bucket/clip.mp4"))


@pytest.mark.parametrize(
    "frames",
    [
        FRAMES,
        torch.from_numpy(FRAMES),
        torch.from_numpy(FRAMES).permute(0, 3, 1, 2),
        list(FRAMES),
        tuple(torch.from_numpy(FRAMES)),
        [Image.fromarray(frame) for frame in FRAMES],
        FRAMES[..., ::-1].copy()[..., ::-1],  # BGR turned round: negative strides
    ],
    ids=["numpy", "torch", "channels first", "list", "tuple of tensors", "PIL", "BGR"],
)
def test_frames_in_memory(frames: Any) -> None:
    with open_video(frames, fps=24) as reader:
        assert (len(reader), reader.fps, reader.size, reader.path) == (12, 24, (64, 96), "<frames>")
        assert np.array_equal(reader.frames([11, 2, 2]).numpy(), FRAMES[[11, 2, 2]])
        assert reader.times.tolist() == pytest.approx([i / 24 for i in range(12)])
        with pytest.raises(VideoError, match="has no frame 12"):
            reader.frames([12])
    with pytest.raises(VideoError, match="is closed"):
        reader.frames([0])
    with open_video((frames, 10), short_side=32, name="shot") as reader:
        assert (reader.fps, reader.path, reader.size) == (10, "shot", (32, 48))
        assert reader.frames([3]).shape == (1, 32, 48, 3)


def test_frames_in_memory_are_resized_as_those_of_a_folder(tmp_path: Path) -> None:
    Image.fromarray(FRAMES[5]).save(tmp_path / "0.png")
    with open_video(tmp_path, short_side=40) as folder, open_video(FRAMES[5:6], short_side=40) as memory:
        difference = folder.frames([0]).int() - memory.frames([0]).int()
    assert difference.abs().max() <= 1


def test_a_read_only_array_is_not_written_to() -> None:
    frames = FRAMES.copy()
    frames.flags.writeable = False
    with open_video(frames) as reader:
        assert np.array_equal(reader.frames([0]).numpy()[0], FRAMES[0])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (FRAMES.astype(np.float32), "dtype float32; give uint8, values from 0 to 255"),
        (torch.zeros(2, 4, 4, 3), "dtype float32; give uint8"),
        (FRAMES.astype(np.int64), "dtype int64; give uint8"),
        (FRAMES[0], r"shape \(64, 96, 3\); give frames of shape \(T, H, W, 3\)"),
        (FRAMES[..., 0], r"shape \(12, 64, 96\)"),
        (FRAMES[None], r"shape \(1, 12, 64, 96, 3\)"),
        (np.zeros((4, 3, 8, 3), np.uint8), r"shape \(4, 3, 8, 3\)"),  # either order
        ([FRAMES[0], FRAMES[0][:32]], r"frame 1 has shape \(32, 96, 3\), the first \(64, 96, 3\)"),
        ([FRAMES[0, :, :, 0]], r"frame 0 has shape \(64, 96\)"),
        ([0, 1], "frame 0: is of type int"),
        ((FRAMES, 0), "rate must be positive"),
        (Image.fromarray(FRAMES[0]), "one image; give a list of frames"),
        (["a.mp4", "b.mp4"], "list of paths"),
        (0, "source 0: cameras are not read"),
        (None, "of type NoneType; give a path, a URL, bytes"),
        (object(), "of type object"),
        (io.StringIO("text"), "mode 'rb'"),
    ],
)
def test_what_is_not_taken(source: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        open_video(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (b"", "is empty (0 bytes)"),
        (io.BytesIO(), "is empty (0 bytes)"),
        ([], "holds no frames"),
        (FRAMES[:0], "holds no frames"),
        (b"\x00\x01" * 4000, "is not a video FFmpeg can read"),
    ],
)
def test_nothing_to_read(source: Any, cause: str) -> None:
    with pytest.raises(VideoError) as caught:
        open_video(source)
    assert caught.value.cause.startswith(cause)


def test_file_objects_that_fail(make_file: MakeFile) -> None:
    path = make_file("h264_mkv").path
    with path.open() as text, pytest.raises(UsageError, match="mode 'rb'"):
        open_video(text)
    file = path.open("rb")
    file.close()
    with pytest.raises(VideoError, match="closed file"):
        open_video(file)

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 1000:
                raise RuntimeError("the disk was removed")
            return super().read(min(size or 0, 1000))

    with pytest.raises(VideoError, match="disk was removed"):
        open_video(Failing(path.read_bytes()))


def test_backends_and_sources(make_file: MakeFile) -> None:
    with pytest.raises(UsageError, match="reads files, not frames in memory"):
        open_video(FRAMES, "pyav")
    with pytest.raises(VideoError, match="reads folders"):
        open_video(make_file("h264_mkv").path.read_bytes(), "frames")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", FRAMES, fps=10)
    (tmp_path / "a.mp4").chmod(0)
    with pytest.raises(VideoError, match="cannot be opened: permission denied"):
        open_video(tmp_path / "a.mp4")


def test_a_file_that_vanishes_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", FRAMES, fps=10)
    find = pyav.cached_index

    def remove(file: Any) -> Any:
        (tmp_path / "a.mp4").unlink()
        return find(file)

    monkeypatch.setattr(pyav, "cached_index", remove)
    with pytest.raises(VideoError, match=r"a\.mp4.*No such file"):
        open_video(tmp_path / "a.mp4")


def test_images_of_16_bits_are_read_as_in_a_folder(tmp_path: Path) -> None:
    image = Image.fromarray((np.arange(64 * 96).reshape(64, 96) * 10).astype(np.uint16))
    image.save(tmp_path / "0.png")
    with open_video(tmp_path) as folder, open_video([image]) as memory:
        assert torch.equal(folder.frames([0]), memory.frames([0]))
        assert len(memory.frames([0]).unique()) > 200


def test_torchcodec_is_given_the_same_bytes(make_file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package, which takes what torchcodec takes: a path or a file object."""
    opened: list[Any] = []

    class VideoDecoder:
        def __init__(self, source: Any, **options: Any) -> None:
            opened.append(source)
            with av.open(source) as container:
                frames = list(container.decode(video=0))
            self.pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
            self.times = np.array([frame.time for frame in frames])

        def __len__(self) -> int:
            return len(self.pixels)

        def get_frames_at(self, indices: list[int]) -> Any:
            data, times = torch.from_numpy(self.pixels[indices]), torch.from_numpy(self.times[indices])
            return types.SimpleNamespace(data=data, pts_seconds=times)

    package = types.ModuleType("torchcodec.decoders")
    package.VideoDecoder = VideoDecoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", package)
    made = make_file("h264_mkv")
    data = made.path.read_bytes()
    for source in (data, io.BytesIO(data), made.path):
        with open_video(source, "torchcodec") as reader:
            assert reader.frames([47, 3, 3]).shape == (3, *reader.size, 3)
            assert np.abs(reader.frames([47]).int().numpy() - made.truth[47].astype(int)).mean() < 3
    assert [hasattr(source, "read") for source in opened] == [True, True, False]
