"""Decoding exactly the requested frames.

Every packet goes to the decoder with its number as its time stamp, so that every decoded frame carries the
number of its packet. A frame counts as decoded only if all frames decoded before it since the key frame are
intact. What is intact the decoder says: a container marks packets as corrupt at every join of two recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import av
import numpy as np

from saccade.video.index import VideoIndex
from saccade.video.packets import PacketSource

Deliver = Callable[[int, av.VideoFrame], None]


@dataclass
class _Run:
    """The state of the decoder since it was last flushed.

    Attributes:
        entry: the packet it started with.
        next: the next packet.
        pending: packets sent whose frames have not been received.
        ahead: frames received before they are requested, while reading forward.
        bad: the packets that failed, and why; later ones may depend on them.
        drained: the end of the stream was signalled; the decoder must be flushed before it goes on.
    """

    entry: int
    next: int
    pending: set[int] = field(default_factory=set)
    ahead: dict[int, av.VideoFrame] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)
    drained: bool = False


class FrameDecoder:
    """Decodes frames by number through an index.

    Args:
        index: of the file.
        source: its packets.
        decoder: an open codec context, used by nobody else.
        reopen: opens the file once more, for a decoder that has seen nothing.
    """

    def __init__(
        self,
        index: VideoIndex,
        source: PacketSource,
        decoder: av.VideoCodecContext,
        reopen: Callable[[], tuple[av.container.InputContainer, av.VideoStream]],
    ) -> None:
        self._index = index
        self._source = source
        self._decoder = decoder
        self._reopen = reopen
        self._entries = index.entries
        self._run: _Run | None = None
        self._last_entry = self._last_frame = -1
        self._streaming = False
        self._start_may_help = True  # until decoding from the start has not helped once
        self._damage: dict[int, str] = {}  # the packets that fail however they are reached, and why

    def decode(self, frames: Sequence[int], deliver: Deliver) -> dict[int, str]:
        """Decode ``frames`` (rising, no duplicates); returns those that cannot be decoded, with the cause.

        ``deliver`` may be called for a frame that is returned as undecodable.
        """
        if not len(frames):
            return {}
        if self._index.method == "counted":
            return self._decode_counted(frames, deliver)
        try:
            undecodable = self._decode(frames, deliver)
            if undecodable and self._start_may_help:
                rest = self._decode_from_start(sorted(undecodable), deliver)
                self._start_may_help = len(rest) < len(undecodable)
                return rest
            return undecodable
        except BaseException:
            self._run = None  # the state of the decoder is unknown
            raise

    def _decode(self, frames: Sequence[int], deliver: Deliver) -> dict[int, str]:
        packets = self._index.packet_of[list(frames)]
        groups: dict[int, list[int]] = {}
        undecodable: dict[int, str] = {}
        for frame, packet in zip(frames, packets.tolist(), strict=True):
            entry = self._entry_for(packet)
            cause = _first_damage(self._damage, entry, packet)
            if cause is None:
                groups.setdefault(entry, []).append(packet)
            else:
                undecodable[frame] = cause
        for i, entry in enumerate(sorted(groups)):
            undecodable |= self._decode_group(entry, groups[entry], deliver, last=i == len(groups) - 1)
            if self._run is not None and not self._start_may_help:
                self._damage |= self._run.bad
        return undecodable

    def _decode_from_start(self, frames: Sequence[int], deliver: Deliver) -> dict[int, str]:
        """Like `decode`, but every packet from the first on: slow, for files whose key frames are wrong."""
        wanted = self._index.packet_of[list(frames)].tolist()
        self._run = None
        undecodable = self._decode_group(0, wanted, deliver, last=True, drop=False)
        if self._run is not None:
            self._damage |= self._run.bad
        self._run = None
        return undecodable

    def _decode_counted(self, frames: Sequence[int], deliver: Deliver) -> dict[int, str]:
        """Decode from the start and count the frames, for files whose frames do not carry packet numbers.

        By a new decoder: those of the MPEG-4 family give other frames after `flush_buffers`.
        """
        container, stream = self._reopen()
        with container:
            return self._count_with(stream.codec_context, frames, deliver)

    def _count_with(
        self, decoder: av.VideoCodecContext, frames: Sequence[int], deliver: Deliver
    ) -> dict[int, str]:
        need, end = set(frames), max(frames)
        decoder.thread_count = 1
        cause, count = "the decoder gives no picture", 0
        damaged = False
        for number in [*range(len(self._index.when)), None]:
            try:
                pictures = decoder.decode(None if number is None else self._source.packet(number))
            except av.FFmpegError as error:
                damaged, cause = True, f"{error.strerror} (packet {number})"
                continue
            for picture in pictures:
                if picture.is_corrupt:
                    damaged, cause = True, f"the picture is damaged (frame {count})"
                if count in need and not damaged:
                    deliver(count, picture)
                    need.discard(count)
                count += 1
            if count > end:
                break
        return dict.fromkeys(need, cause)

    def _entry_for(self, packet: int) -> int:
        """The last entry that precedes the packet in both decoding and presentation order.

        A frame shown before a key frame but decoded after it (open GOP) may refer to frames before that.
        """
        when = self._index.when
        i = int(np.searchsorted(self._entries, packet, side="right")) - 1
        while i > 0 and when[self._entries[i]] > when[packet]:
            i -= 1
        return int(self._entries[i])

    def _decode_group(
        self, entry: int, wanted: list[int], deliver: Deliver, *, last: bool, drop: bool = True
    ) -> dict[int, str]:
        frame_of, droppable = self._index.frame_of, self._index.droppable
        first_frame, last_frame = int(frame_of[wanted].min()), int(frame_of[wanted].max())
        run = self._continued(entry, wanted)
        if run is None:
            if entry == self._last_entry and first_frame > self._last_frame:
                self._streaming = True  # the caller reads forward: do not drain the decoder after each call
            self._decoder.flush_buffers()
            run = self._run = _Run(entry, entry)
        self._last_entry, self._last_frame = entry, last_frame
        need, end = set(wanted), max(wanted)
        for number in need & run.ahead.keys():
            deliver(int(frame_of[number]), run.ahead.pop(number))
        while run.next <= end:
            number = run.next
            run.next += 1
            if not drop or number in need or not droppable[number]:
                self._feed(run, number, need, deliver)
        if last and self._streaming:
            while run.next < len(droppable) and any(number <= end for number in run.pending):
                run.next += 1
                self._feed(run, run.next - 1, need, deliver)
        if not self._streaming or not last or run.next >= len(droppable):
            self._drain(run, need, deliver)
        run.ahead = {number: frame for number, frame in run.ahead.items() if frame_of[number] > last_frame}
        return self._undecodable(run, need)

    def _continued(self, entry: int, wanted: list[int]) -> _Run | None:
        """The current run if it reaches all of ``wanted`` with less work than a start at ``entry``."""
        run = self._run
        if run is None or entry > run.next or run.entry > entry or any(bad >= entry for bad in run.bad):
            return None
        at_hand = run.ahead.keys() | run.pending
        if all(packet in at_hand or (packet >= run.next and not run.drained) for packet in wanted):
            return run
        return None

    def _feed(self, run: _Run, number: int, need: set[int], deliver: Deliver) -> None:
        packet = self._source.packet(number)
        index = self._index
        # Frames shown from the entry on must be received; those before it (open GOP) may be missing.
        if index.frame_of[number] >= 0 and index.when[number] >= index.when[run.entry]:
            run.pending.add(number)
        if packet.is_corrupt and number == len(index.when) - 1:
            _mark_corrupt(run, number, "the file ends within the packet")
        try:
            frames = self._decoder.decode(packet)
        except av.FFmpegError as error:
            _mark_corrupt(run, number, str(error.strerror))
            return
        for frame in frames:
            self._take(run, frame, need, deliver)

    def _drain(self, run: _Run, need: set[int], deliver: Deliver) -> None:
        run.drained = True
        try:
            for frame in self._decoder.decode(None):
                self._take(run, frame, need, deliver)
        except av.FFmpegError as error:
            _mark_corrupt(run, min(run.pending, default=run.next), str(error.strerror))
        if run.pending:
            _mark_corrupt(run, min(run.pending), "the decoder gives no picture")

    def _take(self, run: _Run, frame: av.VideoFrame, need: set[int], deliver: Deliver) -> None:
        number = frame.pts
        if number is None or number not in run.pending:
            return
        run.pending.discard(number)
        if frame.is_corrupt:
            _mark_corrupt(run, number, "the picture is damaged")
        elif number in need:
            deliver(int(self._index.frame_of[number]), frame)
        elif self._streaming:
            run.ahead[number] = frame

    def _undecodable(self, run: _Run, need: set[int]) -> dict[int, str]:
        undecodable = {}
        for number in need if run.bad else ():
            cause = _first_damage(run.bad, max(run.entry, self._entry_for(number)), number)
            if cause is not None:
                undecodable[int(self._index.frame_of[number])] = cause
        return undecodable


def _first_damage(bad: dict[int, str], entry: int, number: int) -> str | None:
    """Why the packet cannot be decoded from ``entry`` on: the first packet of ``bad`` in between."""
    return next((bad[packet] for packet in sorted(bad) if entry <= packet <= number), None)


def _mark_corrupt(run: _Run, number: int, cause: str) -> None:
    run.bad.setdefault(number, f"{cause} (packet {number})")
