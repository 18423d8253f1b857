"""What slice headers say: lost reference pictures, and the order of pictures where time stamps are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from painted_files import MadeFile, painted, sequential

from saccade.errors import VideoError
from saccade.video import open_video, write_video
from saccade.video.checks import packet_check
from saccade.video.slices import picture_orders

MakeFile = Callable[[str], MadeFile]


@pytest.mark.parametrize(
    "name", ["h264_bframes_mp4", "h264_open_gop_mkv", "h264_ts", "h264_444_mp4", "hevc_mp4", "hevc_10bit_mkv"]
)
def test_slice_headers_order_pictures_as_they_are_shown(name: str, make_file: MakeFile) -> None:
    with av.open(str(make_file(name).path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        decoder = stream.codec_context
        orders = picture_orders(decoder.name, decoder.extradata, map(memoryview, packets), [0] * len(packets))
        check = packet_check(decoder.name, decoder.extradata)
        if check is not None:  # an undamaged file lacks no reference picture
            assert not any(check.damage(memoryview(packet), packet.is_keyframe) for packet in packets)
    assert orders is not None
    shown = np.argsort([packet.pts for packet in packets])
    assert sorted(range(len(orders)), key=lambda i: orders[i]) == shown.tolist()
    assert shown.tolist() != list(range(len(orders)))


@pytest.mark.parametrize("name", ["h264_bframes_mp4", "hevc_mp4"])
def test_mp4_without_composition_times_is_read_in_the_order_of_the_decoder(
    name: str, make_file: MakeFile, tmp_path: Path
) -> None:
    data = make_file(name).path.read_bytes()
    assert data.count(b"ctts") == data.count(b"elst") == 1
    path = tmp_path / "no_ctts.mp4"
    path.write_bytes(
        data.replace(b"ctts", b"free").replace(b"elst", b"free")
    )  # the list of cuts counts on it
    with open_video(path) as reader:
        assert np.array_equal(reader.frames(range(60)).numpy(), np.stack(make_file(name).truth))
        assert np.allclose(np.diff(reader.times), 1 / 30, atol=1e-3)


def _without_packet(source: Path, target: Path, dropped: int) -> None:
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        packets = (packet for packet in reading.demux(reading.streams.video[0]) if packet.size)
        for number, packet in enumerate(packets):
            if number != dropped:
                packet.stream = stream
                writing.mux(packet)


def test_a_lost_reference_picture_is_damage_until_the_next_key_frame(
    make_file: MakeFile, tmp_path: Path
) -> None:
    """Key frames at 0, 12, 24 ...; FFmpeg goes on from packet 16 with what its memory holds."""
    made = make_file("h264_no_bframes_mp4")
    path = tmp_path / "lost.mkv"
    _without_packet(made.path, path, 15)
    truth = made.truth[:15] + made.truth[16:]
    with open_video(path) as reader:
        frames, undecodable = reader.try_frames(range(59))
        assert undecodable.keys() == set(range(15, 23))
        for number in range(59):
            if number not in undecodable:
                assert np.array_equal(frames[number].numpy(), truth[number])
        with pytest.raises(VideoError, match="frame 20 of 59"):
            reader.frames([20])


def test_ffv1_slices_with_a_wrong_checksum_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "whole.mkv"
    options = {"level": "3", "slicecrc": "1", "slices": "4"}
    write_video(path, (painted(i) for i in range(6)), fps=10, codec="ffv1", gop=1, options=options)
    with open_video(path) as reader:
        position, size = reader.index.identity[3].tolist()  # type: ignore[attr-defined]
        assert np.array_equal(reader.frames(range(6)).numpy(), np.stack(sequential(path)))
    data = bytearray(path.read_bytes())
    data[position + size // 2] ^= 255
    (tmp_path / "damaged.mkv").write_bytes(data)
    with open_video(tmp_path / "damaged.mkv") as reader:
        assert reader.try_frames(range(6))[1].keys() == {3}


def test_mpeg4_key_frames_that_only_the_container_marks(make_file: MakeFile, tmp_path: Path) -> None:
    """Without its table of key frames an MP4 marks all packets as such."""
    made = make_file("mpeg4_bframes_mp4")
    path = tmp_path / "no_stss.mp4"
    path.write_bytes(made.path.read_bytes().replace(b"stss", b"free"))
    with open_video(path) as reader:
        for number in (1, 30, 17, 59):
            assert np.array_equal(reader.frames([number])[0].numpy(), made.truth[number]), number
