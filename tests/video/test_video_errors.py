"""What is broken says so in one VideoError, and nothing leaks."""

from __future__ import annotations

import gc
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from painted_files import MadeFile, painted
from PIL import Image

from saccade.errors import UsageError, VideoError
from saccade.video import index, open_video, write_video
from saccade.video.source import Source

MakeFile = Callable[[str], MadeFile]


def cause_of(path: Path, **options: object) -> str:
    with pytest.raises(VideoError) as caught:
        open_video(path, **options)  # type: ignore[arg-type]
    assert caught.value.path == str(path)
    assert str(caught.value) == f"{path}: {caught.value.cause}"
    assert "\n" not in caught.value.cause
    return caught.value.cause


def test_missing_empty_and_garbage(tmp_path: Path) -> None:
    assert cause_of(tmp_path / "none.mp4") == "no such file or folder"
    (tmp_path / "empty.mp4").touch()
    assert cause_of(tmp_path / "empty.mp4") == "is empty (0 bytes)"
    noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    (tmp_path / "noise.mp4").write_bytes(noise)
    assert "is not a video FFmpeg can read" in cause_of(tmp_path / "noise.mp4")
    (tmp_path / "text.avi").write_text("not a video\n" * 50)
    assert cause_of(tmp_path / "text.avi")


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is neither a file nor a folder" in cause_of(tmp_path / "pipe.mp4")


def test_sound_only(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert cause_of(tmp_path / "sound.wav") == "has no video stream, only audio"


def test_wrong_backend_and_options(tmp_path: Path, make_file: MakeFile) -> None:
    path = make_file("h264_mkv").path
    with pytest.raises(UsageError, match="choose one of auto, pyav, torchcodec, frames"):
        open_video(path, "opencv")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="short_side"):
        open_video(path, short_side=0)
    with pytest.raises(UsageError, match="fps"):
        open_video(path, fps=-1)
    assert "reads files" in cause_of(tmp_path, backend="pyav")
    assert "reads folders" in cause_of(path, backend="frames")


@pytest.mark.parametrize("wanted", [[60], [-1], [0, 5, 1000]])
def test_frames_that_do_not_exist(wanted: list[int], make_file: MakeFile) -> None:
    with (
        open_video(make_file("h264_mkv").path) as reader,
        pytest.raises(VideoError, match=rf"has no frame {wanted[-1]}: it has 60, numbered from 0"),
    ):
        reader.frames(wanted)


def test_closed(make_file: MakeFile) -> None:
    reader = open_video(make_file("h264_mkv").path)
    reader.close()
    reader.close()
    with pytest.raises(VideoError, match="is closed"):
        reader.frames([0])


def test_damage_in_the_middle(tmp_path: Path, make_file: MakeFile) -> None:
    """A spoilt packet: frames before it and from the next key frame on are right, those between raise."""
    made = make_file("h264_no_bframes_mp4")  # key frames at 0, 12, 24, ...
    with open_video(made.path) as reader:
        position, size = reader.index.identity[15].tolist()  # type: ignore[attr-defined]
    data = bytearray(made.path.read_bytes())
    data[position : position + size] = b"\xff" * size
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with open_video(path) as reader:
        assert len(reader) == 60
        good = [*range(15), *range(24, 60)]
        for frame, number in zip(reader.frames(good).numpy(), good, strict=True):
            assert np.array_equal(frame, made.truth[number])
        for number in range(15, 24):
            with pytest.raises(VideoError, match=f"frame {number} of 60 cannot be decoded: .*packet 15"):
                reader.frames([0, number, 50])


def test_cut_short(tmp_path: Path, make_file: MakeFile) -> None:
    """The header promises 60 frames; what is there is right, what is half there raises."""
    made = make_file("h264_mkv")
    path = tmp_path / "short.mkv"
    path.write_bytes(made.path.read_bytes()[: made.path.stat().st_size * 2 // 3])
    with open_video(path) as reader:
        assert 20 < len(reader) < 60
        right = 0
        for number in range(len(reader)):
            try:
                frame = reader.frames([number])[0].numpy()
            except VideoError:
                continue
            assert np.array_equal(frame, made.truth[number])
            right += 1
        assert right >= len(reader) - 6


def test_a_file_that_changes_is_indexed_anew(tmp_path: Path, make_file: MakeFile) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, [painted(i) for i in range(10)], fps=30)
    with open_video(path) as reader:
        assert len(reader) == 10
    write_video(path, [painted(i) for i in range(20)], fps=30)
    with open_video(path) as reader:
        assert len(reader) == 20


def test_the_cache_is_bounded(make_file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    index.clear_index_cache()
    monkeypatch.setattr(index, "_CACHE_PACKETS", 100)
    paths = [make_file(name).path for name in ("h264_mkv", "h264_mov", "h264_bframes_mp4")]
    for path in paths:
        open_video(path).close()
    assert [index.cached_index(Source(path.name, str(path))) is not None for path in paths] == [
        False,
        False,
        True,
    ]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files through /proc")
def test_nothing_leaks_over_many_opens(tmp_path: Path, make_file: MakeFile) -> None:
    good = make_file("h264_bframes_mp4").path
    sound = tmp_path / "bad.mp4"
    sound.write_bytes(b"\0" * 3000)

    def rounds(count: int) -> None:
        for i in range(count):
            if i % 4 == 3:
                with pytest.raises(VideoError):
                    open_video(sound)
            elif i % 4 == 2:
                reader = open_video(good)  # not closed by hand: goes with its last reference
                reader.frames([i % 60])
                del reader
            else:
                if i % 4 == 1:
                    index.clear_index_cache()
                with open_video(good) as reader:
                    reader.frames([i % 60])

    rounds(100)
    gc.collect()
    files, memory = open_files(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rounds(200)
    gc.collect()
    assert open_files() == files
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20_000  # kB


def test_ffmpeg_keeps_quiet(tmp_path: Path, make_file: MakeFile, capfd: pytest.CaptureFixture[str]) -> None:
    test_cut_short(tmp_path, make_file)
    test_damage_in_the_middle(tmp_path, make_file)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "is broken")))
    assert (error.path, error.cause) == ("a.mp4", "is broken")


def test_folder_of_frames(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    pictures = [painted(i) for i in range(12)]
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"img_{i}.png")  # 10 sorts after 9, not after 1
    (folder / "notes.txt").write_text("ignored")
    with open_video(folder, fps=24) as reader:
        assert (len(reader), reader.fps, reader.size) == (12, 24, (64, 96))
        frames = reader.frames([11, 2, 2, 0])
        assert all(np.array_equal(f, pictures[i]) for f, i in zip(frames.numpy(), [11, 2, 2, 0], strict=True))
        with pytest.raises(VideoError, match="has no frame 12"):
            reader.frames([12])
    with open_video(folder, short_side=32) as reader:
        assert reader.fps == 30
        assert reader.frames([5]).shape == (1, 32, 48, 3)


def test_broken_folders_of_frames(tmp_path: Path) -> None:
    assert "holds no frames" in cause_of(tmp_path)
    for i in range(3):
        Image.fromarray(painted(i)).save(tmp_path / f"{i:05}.jpg")
    Image.fromarray(painted(3, 32, 48)).save(tmp_path / "00003.jpg")
    whole = (tmp_path / "00002.jpg").read_bytes()
    (tmp_path / "00002.jpg").write_bytes(whole[: len(whole) // 2])
    with open_video(tmp_path) as reader:
        assert reader.frames([0, 1]).shape == (2, 64, 96, 3)
        with pytest.raises(VideoError, match=r"frame 2 \(00002.jpg\) is damaged"):
            reader.frames([2])
        with pytest.raises(VideoError, match=r"frame 3 .* is \(32, 48\), the first frame \(64, 96\)"):
            reader.frames([3])
        (tmp_path / "00001.jpg").unlink()
        with pytest.raises(VideoError, match=r"frame 1 \(00001.jpg\) is missing"):
            reader.frames([1])


def test_write_video_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(ValueError, match="no frames"):
        write_video(path, [], fps=30)
    with pytest.raises(ValueError, match="uint8"):
        write_video(path, torch.zeros(4, 32, 32, 3), fps=30)
    with pytest.raises(ValueError, match="the first is"):
        write_video(path, [painted(0), painted(1, 32, 48)], fps=30)
    with pytest.raises(ValueError, match="rise"):
        write_video(path, [painted(0), painted(1)], fps=30, pts=[1, 1])
    with pytest.raises(ValueError, match="pts"):
        write_video(path, [painted(0), painted(1)], fps=30, pts=[1])
    with pytest.raises(VideoError, match="no encoder 'no_such_codec'"):
        write_video(path, [painted(0)], fps=30, codec="no_such_codec")
    with pytest.raises(VideoError, match="libx264"):
        write_video(path, [painted(0, 33, 45)], fps=30)  # yuv420p needs even sides
    assert list(tmp_path.iterdir()) == []  # nothing half written stays behind


def test_write_video_lossless(tmp_path: Path) -> None:
    frames = torch.from_numpy(np.stack([painted(i) for i in range(5)]))
    write_video(tmp_path / "a.mp4", frames, fps=10, codec="libx264rgb", crf=0, pix_fmt="rgb24")
    with open_video(tmp_path / "a.mp4") as reader:
        assert reader.fps == 10
        assert torch.equal(reader.frames(range(5)), frames)
