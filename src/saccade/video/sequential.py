"""Decoding a file from its first packet on, as the ffmpeg command does: slow, and right for every file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import av

from saccade.video.index import VideoIndex
from saccade.video.packets import PacketSource

Deliver = Callable[[int, av.VideoFrame], None]
Reopen = Callable[[int], tuple[av.container.InputContainer, av.VideoStream]]

_KEEP_BYTES = 64 << 20  # of the last frames decoded, because to go back is to begin again
_MOST_DELAY = 64  # packets after which a decoder in one thread has given the picture of one


class SequentialDecoder:
    """Decodes frames by number, each with all that precede it, by a decoder that has seen nothing else.

    For files whose frames are known by their order only (``counted``), and for damaged ones of codecs whose
    decoders do not forget at a key frame what preceded it.

    Args:
        index: of the file.
        source: its packets.
        reopen: opens the file once more, given the number of threads.
    """

    def __init__(self, index: VideoIndex, source: PacketSource, reopen: Reopen) -> None:
        self._index = index
        self._source = source
        self._reopen = reopen
        self._counted = index.method == "counted"
        self._kept: dict[int, av.VideoFrame] = {}  # the last pictures by frame, in the order received
        self._most_kept = max(16, _KEEP_BYTES // (index.height * index.width * 3 // 2 + 1))
        self._bad: dict[int, str] = {}  # packets (where counted: frames) with damage, and what it is
        self._container: av.container.InputContainer | None = None
        self._decoder: av.VideoCodecContext | None = None

    def decode(self, frames: Sequence[int], deliver: Deliver) -> dict[int, str]:
        """See `FrameDecoder.decode`."""
        need = set(frames)
        for frame in sorted(need & self._kept.keys()):
            deliver(frame, self._kept[frame])
        need -= self._kept.keys()
        if need and (self._decoder is None or min(need) < self._received):
            self._begin()
        try:
            self._decode_until(need, deliver)
        except BaseException:
            self.close()  # the state of the decoder is unknown
            raise
        causes = {frame: self._cause(frame) for frame in frames}
        causes |= {frame: causes[frame] or "the decoder gives no picture" for frame in need}
        return {frame: cause for frame, cause in causes.items() if cause is not None}

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
        self._container = self._decoder = None
        self._kept = {}

    def _begin(self) -> None:
        self.close()
        self._container, stream = self._reopen(1)
        self._decoder = stream.codec_context
        self._next = 0  # the next packet
        self._received = 0  # the frame after the last one received
        self._pending: set[int] = set()  # packets whose pictures have not been received

    def _decode_until(self, need: set[int], deliver: Deliver) -> None:
        """Decode on until the frames ``need`` have been delivered or cannot come; what is left are those."""
        num_packets = len(self._index.when)
        end = num_packets if self._counted or not need else self._packet(max(need)) + _MOST_DELAY
        while need and self._decoder is not None and self._next <= min(end, num_packets):
            number = self._next
            self._next += 1
            packet = self._source.packet(number) if number < num_packets else None
            if packet is not None and not self._counted and self._index.frame_of[number] >= 0:
                self._pending.add(number)
            try:
                pictures = self._decoder.decode(packet)
            except av.FFmpegError as error:
                self._mark(self._received if self._counted else number, f"{error.strerror} (packet {number})")
                continue
            for picture in pictures:
                self._take(picture, need, deliver)

    def _take(self, picture: av.VideoFrame, need: set[int], deliver: Deliver) -> None:
        if self._counted:
            place = frame = self._received
            if picture.is_corrupt:
                self._mark(place, f"the picture is damaged (frame {frame})")
        else:
            if picture.pts not in self._pending:
                return
            place = picture.pts
            frame = int(self._index.frame_of[place])
            when = self._index.when
            for lost in [number for number in self._pending if when[number] < when[place]]:
                self._pending.discard(lost)  # pictures come in the order of presentation
                self._mark(lost, f"the decoder gives no picture (packet {lost})")
            self._pending.discard(place)
            if picture.is_corrupt:
                self._mark(place, f"the picture is damaged (packet {place})")
        self._received = frame + 1
        self._kept[frame] = picture
        if len(self._kept) > self._most_kept:
            del self._kept[next(iter(self._kept))]
        if frame in need:
            deliver(frame, picture)
            need.discard(frame)

    def _mark(self, place: int, cause: str) -> None:
        self._bad.setdefault(place, cause)

    def _packet(self, frame: int) -> int:
        return int(self._index.packet_of[frame])

    def _cause(self, frame: int) -> str | None:
        """The first damage on which the frame rests."""
        place, entry = frame, 0
        if not self._counted:
            place = self._packet(frame)
            entry = self._index.entry_for(place)
        bad = [number for number in self._bad if entry <= number <= place]
        return self._bad[min(bad)] if bad else None
