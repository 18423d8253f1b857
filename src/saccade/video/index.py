"""The index of a file: which packet holds which frame, where decoding can start, what can be skipped.

The packets are read once, without decoding. Where that is not enough (no time stamps, hidden frames, an
unknown codec, fields), the file is decoded once and the frames are counted.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import av
import numpy as np

from saccade.errors import VideoError
from saccade.video.colour import is_plain
from saccade.video.container import demux, open_container, stated_rate
from saccade.video.joins import are_whole, is_order_doubtful, joined_parts, unwrapped
from saccade.video.nal import PacketFacts, packet_reader
from saccade.video.sizes import Turn, display_turn
from saccade.video.slices import picture_orders
from saccade.video.source import Source
from saccade.video.times import mean_rate, presentation_times, usual_rate

# Compressed packets up to this many bytes a file stay in memory while the reader that made the index is open.
KEEP_BYTES = 48 << 20
_CACHE_FILES = 20_000
_CACHE_PACKETS = 8_000_000  # about 30 bytes each
_NAMED_VARYING = 20  # files of varying rate that a process warns of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoIndex:
    """What is known of a file before a frame is decoded. Packets are numbered in decoding order.

    Attributes:
        method: ``packets``: from time stamps; ``decoded``: by decoding once, frames known by their packet;
            ``counted``: by decoding once, frames known by their order only.
        packet_of: (num_frames,) the packet of each frame in order of presentation; empty where ``counted``.
        frame_of: (num_packets,) the frame of each packet, or -1 for one that shows nothing.
        when: (num_packets,) rank of each packet in order of presentation, hidden ones included.
        entries: packets from which decoding can start; the first packet always counts as one.
        begins_with_entry: whether decoding can really start with the first packet.
        num_marked: packets the container marks as key frames, correctly or not.
        droppable: (num_packets,) whether nothing refers to the frame.
        identity: (num_packets, 2) byte position and size, to recognise a packet after seeking.
        stamps: (num_packets,) decoding time stamps, for seeking.
        seconds: (num_frames,) presentation time of each frame; NaN where the file states none.
        num_frames: frames of the video.
        fps: frames per second, see `usual_rate`.
        height, width: as stored, before rotation.
        turn: how to show it upright.
        stream: index of the video stream in its container.
        strict: whether decoders report all damage that they can notice, see `open_container`.
        damaged: whether damage was met when the file was decoded to index it.
        plain_colour: what `saccade.video.colour.is_plain` says of the first frame.
    """

    method: Literal["packets", "decoded", "counted"]
    packet_of: np.ndarray
    frame_of: np.ndarray
    when: np.ndarray
    entries: np.ndarray
    begins_with_entry: bool
    num_marked: int
    droppable: np.ndarray
    identity: np.ndarray
    stamps: np.ndarray
    seconds: np.ndarray
    num_frames: int
    fps: float
    height: int
    width: int
    turn: Turn
    stream: int
    strict: bool
    damaged: bool
    plain_colour: bool

    @cached_property
    def times(self) -> np.ndarray:
        """(num_frames,) presentation time of each frame in seconds, rising; ``frame / fps`` where the file
        states none (AVI, raw streams).
        """
        return presentation_times(self.seconds, self.fps)

    def entry_for(self, packet: int) -> int:
        """The last entry that precedes the packet in both decoding and presentation order.

        A frame shown before a key frame but decoded after it (open GOP) may refer to frames before that.
        """
        i = int(np.searchsorted(self.entries, packet, side="right")) - 1
        while i > 0 and self.when[self.entries[i]] > self.when[packet]:
            i -= 1
        return int(self.entries[i])


class _Cache:
    """Indexes by file identity; the least recently used is dropped first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: OrderedDict[tuple[Any, ...], VideoIndex] = OrderedDict()
        self._packets = 0

    def get(self, key: tuple[Any, ...]) -> VideoIndex | None:
        with self._lock:
            index = self._indexes.get(key)
            if index is not None:
                self._indexes.move_to_end(key)
            return index

    def put(self, key: tuple[Any, ...], index: VideoIndex) -> bool:
        """Whether it is new."""
        with self._lock:
            if key in self._indexes:
                return False
            self._indexes[key] = index
            self._packets += len(index.when)
            while len(self._indexes) > 1 and (
                len(self._indexes) > _CACHE_FILES or self._packets > _CACHE_PACKETS
            ):
                self._packets -= len(self._indexes.popitem(last=False)[1].when)
            return True

    def clear(self) -> None:
        with self._lock:
            self._indexes.clear()
            self._packets = 0


_cache = _Cache()
clear_index_cache = _cache.clear


def cached_index(source: Source) -> VideoIndex | None:
    """The index of an unchanged file that was indexed before in this process, else None."""
    key = source.key()
    return None if key is None else _cache.get(key)


def build_index(
    source: Source, container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[VideoIndex, list[av.Packet] | None]:
    """The index, and the packets themselves if they are few enough to keep in memory.

    Afterwards the container is at its end and the decoder must be flushed.
    """
    kept, table = _read_packets(source, container, stream)
    first, strict = _first_frame(source, stream, kept)
    index = _index_by_stamps(source, stream, table, first, strict)
    ordered = index is None or _is_order_right(source, stream, table, index, kept)
    if index is None or not ordered:
        ordered = ordered and stream.container.format.name in _STAMPED
        index = _index_by_decoding(source, stream, table, strict, ordered=ordered)
    key = source.key()
    if key is None or _cache.put(key, index):
        _warn_of_varying_rate(source.name, index)
    return index, kept


_varying: set[str] = set()


def _warn_of_varying_rate(path: str, index: VideoIndex) -> None:
    """Warn where the usual rate does not describe the file, once a file; after some files no more."""
    times = index.times
    if len(times) < 3 or abs(mean_rate(times) / index.fps - 1) <= 0.02:
        return
    _varying.add(path)
    if len(_varying) <= _NAMED_VARYING:
        logger.warning(
            f"{path}: the frame rate varies: usually {index.fps:.4g} frames a second, {mean_rate(times):.4g} "
            "on average; clips are taken by time"
        )
    if len(_varying) == _NAMED_VARYING:
        logger.warning("further files whose frame rate varies are not named")


# Containers that store presentation times. The others store at best the order of decoding.
_STAMPED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "flv"}


@dataclass
class _Table:
    pts: list[int | None]
    dts: list[int | None]
    identity: list[tuple[int, int]]
    facts: list[PacketFacts]
    hidden: list[bool]
    marked: list[bool]
    understood: bool
    parts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))


def _read_packets(
    source: Source, container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[list[av.Packet] | None, _Table]:
    read = packet_reader(stream.codec_context.name, stream.codec_context.extradata)
    kept: list[av.Packet] | None = []
    table = _Table([], [], [], [], [], [], read is not None)
    total = 0
    for packet in demux(container, stream):
        if not packet.size:
            continue
        key = packet.is_keyframe
        facts = read(memoryview(packet), key) if read else PacketFacts(key, False, shown=False)
        if packet.is_disposable and not facts.droppable:
            facts = facts._replace(droppable=True)
        table.pts.append(packet.pts)
        table.dts.append(packet.dts)
        table.identity.append((-1 if packet.pos is None else packet.pos, packet.size))
        table.facts.append(facts)
        table.hidden.append(packet.is_discard)
        table.marked.append(key)
        total += packet.size
        if kept is not None:
            kept.append(packet)
            if total > KEEP_BYTES:
                kept = None
    if not table.pts:
        raise VideoError(source.name, "holds no video packets")
    table.parts = joined_parts(table.pts, table.dts, table.facts)
    return kept, table


def _trustworthy(stream: av.VideoStream, table: _Table) -> bool:
    """Whether every packet is one frame that is shown at its time stamp, after all frames of joined
    recordings that precede its own.
    """
    if not table.understood or any(p is None for p in table.pts):
        return False
    pts = np.array(table.pts, dtype=np.int64)
    if len(set(zip(table.parts.tolist(), table.pts, strict=True))) != len(pts):
        return False
    if not all(facts.shown for facts in table.facts):
        return False
    if stream.container.format.name not in _STAMPED and any(facts.reordered for facts in table.facts):
        return False
    # 2 and above: interlaced, where two packets may be the two fields of one frame.
    if stream.codec_context.field_order > 1:
        return False
    # A decoder may or may not show what precedes the first key frame, in either order.
    return are_whole(pts, table.parts, table.facts)


def _index_by_stamps(
    source: Source, stream: av.VideoStream, table: _Table, first: av.VideoFrame, strict: bool
) -> VideoIndex | None:
    if not _trustworthy(stream, table):
        return None
    pts = np.array(unwrapped(table.pts, table.parts), dtype=np.int64)
    order = np.lexsort((pts, table.parts))
    when = np.empty(len(pts), dtype=np.int32)
    when[order] = np.arange(len(pts))
    packet_of = order[~np.array(table.hidden)[order]].astype(np.int32)
    if not len(packet_of):
        raise VideoError(source.name, "marks all its frames as not to be shown")
    frame_of = np.full(len(pts), -1, dtype=np.int32)
    frame_of[packet_of] = np.arange(len(packet_of))
    seconds = pts[packet_of] * float(stream.time_base or 0)
    num_frames = len(packet_of)
    return _assemble(stream, table, first, strict, "packets", packet_of, frame_of, when, seconds, num_frames)


def _is_order_right(
    source: Source, stream: av.VideoStream, table: _Table, index: VideoIndex, kept: list[av.Packet] | None
) -> bool:
    """Whether time stamps order the frames as the decoder does; looked at where that is in doubt."""
    decoder = stream.codec_context
    if decoder.name not in ("h264", "hevc"):
        return True
    shown = np.argsort(index.when)
    scale = float(stream.time_base or 0)
    seconds = np.array(unwrapped(table.pts, table.parts), dtype=np.float64)[shown] * scale
    if not is_order_doubtful(index.when, seconds, table.parts[shown], table.facts, decoder.has_b_frames):
        return True
    parts = table.parts.tolist()
    if kept is not None:
        orders = picture_orders(decoder.name, decoder.extradata, map(memoryview, kept), parts)
    else:
        container, again = open_container(source)
        with container:
            packets = (memoryview(packet) for packet in demux(container, again) if packet.size)
            orders = picture_orders(decoder.name, decoder.extradata, packets, parts)
    if orders is None:
        return True
    return all(orders[a] < orders[b] for a, b in pairwise(shown.tolist()))


def _first_frame(
    source: Source, stream: av.VideoStream, kept: list[av.Packet] | None
) -> tuple[av.VideoFrame, bool]:
    """The first frame that can be decoded, for size and rotation, and whether the decoder may be strict: not
    if it refuses what a lenient one decodes at once. The decoder of ``stream`` must be flushed afterwards.
    """
    try:
        if kept is not None:
            for packet in [*kept, None]:
                for frame in stream.codec_context.decode(packet):
                    return frame, True
        else:  # a fresh container rather than a seek: the file may not be seekable
            container, again = open_container(source, strict=True)
            with container:
                for packet in demux(container, again):
                    for frame in again.codec_context.decode(packet if packet.size else None):
                        return frame, True
    except av.FFmpegError:
        pass
    failure = ""
    container, again = open_container(source)
    with container:
        for packet in demux(container, again):
            try:
                for frame in again.codec_context.decode(packet if packet.size else None):
                    return frame, bool(failure)
            except av.FFmpegError as error:
                failure = failure or str(error.strerror)
    raise VideoError(source.name, f"gives no frame when decoded ({failure or 'no error reported'})")


def _index_by_decoding(
    source: Source, stream: av.VideoStream, table: _Table, strict: bool, *, ordered: bool
) -> VideoIndex:
    """``ordered``: whether time stamps are those of the packets' own frames, whatever their order."""
    tags: list[int | None] = []
    keys: set[int | None] = set()
    first: av.VideoFrame | None = None
    container, again = open_container(source)
    failure, damaged = "", False
    with container:
        decoder = again.codec_context
        decoder.thread_count = 1
        number = 0
        for packet in demux(container, again):
            if packet.size:
                packet.pts = number
                number += 1
            try:
                frames = decoder.decode(packet if packet.size else None)
            except av.FFmpegError as error:
                failure = failure or str(error.strerror)
                continue
            for frame in frames:
                first = first or frame
                damaged = damaged or frame.is_corrupt
                tags.append(frame.pts)
                if frame.key_frame:
                    keys.add(frame.pts)
    if first is None:
        raise VideoError(source.name, f"gives no frame when decoded ({failure or 'no error reported'})")
    num_packets = len(table.pts)
    known = [tag for tag in tags if tag is not None and 0 <= tag < num_packets]
    by_tag = len(set(known)) == len(tags)
    packet_of = np.array(known if by_tag else [], dtype=np.int32)
    frame_of = np.full(num_packets, -1, dtype=np.int32)
    frame_of[packet_of] = np.arange(len(packet_of))
    # Packets that show nothing have no rank.
    when = np.where(frame_of >= 0, frame_of, np.int32(-1)).astype(np.int32)
    scale = float(stream.time_base or 0)
    pts = unwrapped(table.pts, table.parts)
    stamps = [pts[packet] for packet in packet_of] if by_tag else [None] * len(tags)
    if by_tag and not ordered and None not in stamps:
        # AVI, and MP4 without ctts, count in decoding order: the same times, in order of presentation
        parts = table.parts[packet_of]
        stamps = [stamps[i] for i in np.lexsort((np.array(stamps, dtype=np.int64), parts))]
    seconds = np.array([np.nan if stamp is None else stamp * scale for stamp in stamps])
    method: Literal["decoded", "counted"] = "decoded" if by_tag else "counted"
    if not table.understood:  # what the container marks as key frames need not be any
        table.facts = [fact._replace(entry=fact.entry and i in keys) for i, fact in enumerate(table.facts)]
    strict = strict and by_tag  # a strict decoder gives fewer pictures, and their count is all there is
    damaged = damaged or bool(failure)
    num_frames = len(tags)
    return _assemble(
        stream, table, first, strict, method, packet_of, frame_of, when, seconds, num_frames, damaged
    )


def _assemble(
    stream: av.VideoStream,
    table: _Table,
    first: av.VideoFrame,
    strict: bool,
    method: Literal["packets", "decoded", "counted"],
    packet_of: np.ndarray,
    frame_of: np.ndarray,
    when: np.ndarray,
    seconds: np.ndarray,
    num_frames: int,
    damaged: bool = False,
) -> VideoIndex:
    top = max(facts.layer for facts in table.facts)
    entries = [i for i, facts in enumerate(table.facts) if facts.entry and (i == 0 or when[i] >= 0)]
    if method == "counted" or not table.understood:
        entries = entries if entries[:1] == [0] and method != "counted" else [0]
    elif entries[:1] != [0]:  # the first packets are damaged, or the stream begins between key frames
        entries = [0, *entries]
    return VideoIndex(
        method=method,
        packet_of=packet_of,
        frame_of=frame_of,
        when=when,
        entries=np.array(entries, dtype=np.int32),
        begins_with_entry=table.facts[0].entry,
        num_marked=sum(table.marked),
        droppable=np.array([facts.droppable and facts.layer == top for facts in table.facts]),
        identity=np.array(table.identity, dtype=np.int64),
        stamps=np.array([UNKNOWN if d is None else d for d in table.dts], dtype=np.int64),
        seconds=seconds,
        num_frames=num_frames,
        fps=usual_rate(seconds, stated_rate(stream)),
        height=first.height,
        width=first.width,
        turn=display_turn(first),
        stream=stream.index,
        strict=strict,
        damaged=damaged,
        plain_colour=is_plain(first),
    )


UNKNOWN = np.iinfo(np.int64).min
