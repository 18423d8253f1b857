"""Decoding exactly the requested frames.

Every packet goes to the decoder with its number as its time stamp, so that every decoded frame carries the
number of its packet. A frame counts as decoded only if all frames decoded before it since the key frame are
intact. What is intact the decoder says: a container marks packets as corrupt at every join of two recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import av

from saccade.video.checks import packet_check
from saccade.video.index import VideoIndex
from saccade.video.packets import PacketSource
from saccade.video.sequential import Deliver, Reopen, SequentialDecoder

# FFmpeg's decoders of the MPEG-4 family: what they make of a frame depends on damage before its key frame.
_KEEP_STATE = {
    *("mpeg1video", "mpeg2video", "mpeg4", "h263", "flv", "msmpeg4v1", "msmpeg4v2", "msmpeg4"),
    *("wmv1", "wmv2", "rv10", "rv20"),
}


@dataclass
class _Run:
    """The state of the decoder since it was last flushed.

    Attributes:
        entry: the packet it started with.
        next: the next packet.
        pending: packets sent whose frames have not been received.
        kept: frames received and not requested, for later calls.
        bad: the packets that failed, and why; later ones may depend on them.
        drained: the end of the stream was signalled; the decoder must be flushed before it goes on.
    """

    entry: int
    next: int
    pending: set[int] = field(default_factory=set)
    kept: dict[int, av.VideoFrame] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)
    drained: bool = False


class FrameDecoder:
    """Decodes frames by number through an index.

    Args:
        index: of the file.
        source: its packets.
        decoder: an open codec context, used by nobody else.
        reopen: opens the file once more, for a decoder that has seen nothing, given its number of threads.
    """

    def __init__(
        self,
        index: VideoIndex,
        source: PacketSource,
        decoder: av.VideoCodecContext,
        reopen: Reopen,
    ) -> None:
        self._index = index
        self._source = source
        self._decoder = decoder
        self._reopen = reopen
        self._reopened: av.container.InputContainer | None = None
        self._damaged = index.damaged  # then `flush_buffers` is not enough
        self._run: _Run | None = None
        self._last_entry = self._last_frame = -1
        self._streaming = False
        self._start_may_help = True  # until decoding from the start has not helped once
        self._damage: dict[int, str] = {}  # the packets that fail however they are reached, and why
        self._entries = set(index.entries.tolist())
        self._check = packet_check(decoder.name, decoder.extradata)
        self._keeps_state = decoder.name in _KEEP_STATE
        self._sequential: SequentialDecoder | None = None
        if index.method == "counted" or (self._damaged and self._keeps_state):
            self._sequential = SequentialDecoder(index, source, reopen)

    def decode(self, frames: Sequence[int], deliver: Deliver) -> dict[int, str]:
        """Decode ``frames`` (rising, no duplicates); returns those that cannot be decoded, with the cause.

        ``deliver`` may be called for a frame that is returned as undecodable.
        """
        if not len(frames):
            return {}
        if self._sequential is not None:
            return self._sequential.decode(frames, deliver)
        try:
            undecodable = self._decode(frames, deliver)
            if self._damaged and self._keeps_state:
                self._run = None
                self._sequential = SequentialDecoder(self._index, self._source, self._reopen)
                return self._sequential.decode(frames, deliver)
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
            entry = self._index.entry_for(packet)
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

    def _decode_group(
        self, entry: int, wanted: list[int], deliver: Deliver, *, last: bool, drop: bool = True
    ) -> dict[int, str]:
        frame_of, droppable = self._index.frame_of, self._index.droppable
        first_frame, last_frame = int(frame_of[wanted].min()), int(frame_of[wanted].max())
        run = self._continued(entry, wanted)
        if run is None:
            if entry == self._last_entry and first_frame > self._last_frame:
                self._streaming = True  # the caller reads forward: do not drain the decoder after each call
            run = self._run = self._start(entry)
        self._last_entry, self._last_frame = entry, last_frame
        need, end = set(wanted), max(wanted)
        for number in need & run.kept.keys():
            deliver(int(frame_of[number]), run.kept.pop(number))
        while run.next <= end:
            number = run.next
            run.next += 1
            if not drop or number in need or not droppable[number]:
                self._feed(run, number, need, deliver)
            elif self._check is not None:
                self._check_packet(run, number, self._source.packet(number))
        if last and self._streaming:
            while run.next < len(droppable) and any(number <= end for number in run.pending):
                run.next += 1
                self._feed(run, run.next - 1, need, deliver)
        if not run.drained and (not self._streaming or not last or run.next >= len(droppable)):
            self._drain(run, need, deliver)
        run.kept = {number: frame for number, frame in run.kept.items() if frame_of[number] > last_frame}
        return self._undecodable(run, need)

    def _start(self, entry: int) -> _Run:
        """Decoding begun at ``entry``.

        By a new decoder where the old one may pass on more than it should: after damage (those of the MPEG-4
        family give other frames after `flush_buffers`), where a strict decoder refuses the first frame, and
        where the file begins with a packet that uses what earlier ones hold (the tables of Motion JPEG,
        parameter sets).
        """
        if self._damaged or not self._index.strict or (entry == 0 and not self._index.begins_with_entry):
            self._decoder = self._new_decoder()
        else:
            self._decoder.flush_buffers()
        if self._check is not None:
            self._check.reset()
        return _Run(entry, entry)

    def _new_decoder(self) -> av.VideoCodecContext:
        if self._reopened is not None:
            self._reopened.close()
        self._reopened, stream = self._reopen(self._decoder.thread_count)
        return stream.codec_context

    def close(self) -> None:
        """Close the files that were opened for new decoders."""
        if self._sequential is not None:
            self._sequential.close()
        if self._reopened is not None:
            self._reopened.close()
        self._reopened = None

    def _continued(self, entry: int, wanted: list[int]) -> _Run | None:
        """The current run if it reaches all of ``wanted`` with less work than a start at ``entry``."""
        run = self._run
        if run is None or entry > run.next or run.entry > entry or any(bad >= entry for bad in run.bad):
            return None
        at_hand = run.kept.keys() | run.pending
        if all(packet in at_hand or (packet >= run.next and not run.drained) for packet in wanted):
            return run
        return None

    def _feed(self, run: _Run, number: int, need: set[int], deliver: Deliver) -> None:
        packet = self._source.packet(number)
        index = self._index
        # Frames shown from the entry on must be received; those before it (open GOP) may be missing.
        if index.frame_of[number] >= 0 and index.when[number] >= index.when[run.entry]:
            run.pending.add(number)
        self._check_packet(run, number, packet)
        if packet.is_corrupt and number == len(index.when) - 1:
            self._mark_corrupt(run, number, "the file ends within the packet")
        try:
            frames = self._decoder.decode(packet)
        except av.FFmpegError as error:
            self._mark_corrupt(run, number, str(error.strerror))
            return
        for frame in frames:
            self._take(run, frame, need, deliver)

    def _check_packet(self, run: _Run, number: int, packet: av.Packet) -> None:
        if self._check is not None:
            cause = self._check.damage(memoryview(packet), number in self._entries)
            if cause:
                self._mark_corrupt(run, number, cause)

    def _drain(self, run: _Run, need: set[int], deliver: Deliver) -> None:
        run.drained = True
        try:
            for frame in self._decoder.decode(None):
                self._take(run, frame, need, deliver)
        except av.FFmpegError as error:
            self._mark_corrupt(run, min(run.pending, default=run.next), str(error.strerror))
        if run.pending:
            self._mark_corrupt(run, min(run.pending), "the decoder gives no picture")

    def _take(self, run: _Run, frame: av.VideoFrame, need: set[int], deliver: Deliver) -> None:
        number = frame.pts
        if number is None or number not in run.pending:
            return
        run.pending.discard(number)
        if frame.is_corrupt:
            self._mark_corrupt(run, number, "the picture is damaged")
        elif number in need:
            deliver(int(self._index.frame_of[number]), frame)
        elif self._streaming:
            run.kept[number] = frame

    def _undecodable(self, run: _Run, need: set[int]) -> dict[int, str]:
        undecodable = {}
        for number in need if run.bad else ():
            cause = _first_damage(run.bad, max(run.entry, self._index.entry_for(number)), number)
            if cause is not None:
                undecodable[int(self._index.frame_of[number])] = cause
        return undecodable

    def _mark_corrupt(self, run: _Run, number: int, cause: str) -> None:
        self._damaged = True
        run.bad.setdefault(number, f"{cause} (packet {number})")


def _first_damage(bad: dict[int, str], entry: int, number: int) -> str | None:
    """Why the packet cannot be decoded from ``entry`` on: the first packet of ``bad`` in between."""
    return next((bad[packet] for packet in sorted(bad) if entry <= packet <= number), None)
