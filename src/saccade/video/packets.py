"""The packets of an open file, from any number on, verified against the index."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import av
import numpy as np

from saccade.errors import VideoError
from saccade.video.container import demux, open_container
from saccade.video.index import UNKNOWN, VideoIndex
from saccade.video.source import Source


class PacketSource:
    """Gives packets in decoding order from a number on, each tagged with its number as its time stamp.

    ``packets`` that indexing kept are given from memory. Otherwise the container seeks; the packets that
    follow are compared with the index by byte position and size, and where they differ the file is read from
    its start.
    """

    def __init__(
        self,
        file: Source,
        index: VideoIndex,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        packets: list[av.Packet] | None,
        *,
        unread: bool,
    ) -> None:
        self._file = file
        self._index = index
        self._container = container
        self._stream = stream
        self._in_memory = packets
        self._running: Iterator[tuple[int, av.Packet]] | None = None
        self._next = -1
        self._unread = unread  # nothing has been read since opening
        # Seeking needs byte positions that identify packets.
        positions = index.identity[:, 0]
        self._seekable = bool((positions >= 0).all()) and len(set(positions.tolist())) == len(positions)
        # Where recordings are joined a time stamp names several packets.
        known = index.stamps[index.stamps != UNKNOWN]
        self._by_position = container.format.name == "mpegts" and bool((np.diff(known) < 0).any())
        if packets is not None:
            for number, packet in enumerate(packets):
                packet.pts = number

    def packet(self, number: int) -> av.Packet:
        """Packet ``number``; fast in rising order."""
        if self._in_memory is not None:
            return self._in_memory[number]
        if self._running is None or number < self._next or self._jump_helps(number):
            self._running = self._start(number)
        assert self._running is not None
        for found, packet in self._running:
            self._next = found + 1
            if found == number:
                packet.pts = number
                return packet
        raise VideoError(
            self._file.name, f"ends before packet {number} of {len(self._index.when)}: changed since opened?"
        )

    def close(self) -> None:
        """Stop reading and free the packets in memory."""
        if self._running is not None:
            _close(self._running)
        self._running = None
        self._in_memory = None

    def _jump_helps(self, number: int) -> bool:
        entries = self._index.entries
        return self._seekable and bool(((entries > self._next) & (entries <= number)).any())

    def _start(self, number: int) -> Iterator[tuple[int, av.Packet]]:
        if self._running is not None:
            _close(self._running)
        if number > 0 and self._seekable and self._index.stamps[number] != UNKNOWN:
            running = self._seek_to(number)
            if running is not None:
                return running
        if self._unread:
            self._unread = False
            return self._numbered(demux(self._container, self._stream), 0)
        return self._numbered(self._reopen(), 0)

    def _seek_to(self, number: int) -> Iterator[tuple[int, av.Packet]] | None:
        self._unread = False
        try:
            if self._by_position:
                position = int(self._index.identity[number, 0])
                self._container.seek(position, stream=self._stream, unsupported_byte_offset=True)
            else:
                self._container.seek(int(self._index.stamps[number]), stream=self._stream, backward=True)
        except av.FFmpegError:
            return None
        demuxed = demux(self._container, self._stream)
        first = next(demuxed, None)
        if first is None or not first.size:
            return None
        identity = self._index.identity
        matches = ((identity[:, 0] == first.pos) & (identity[:, 1] == first.size)).nonzero()[0]
        if len(matches) != 1 or matches[0] > number:
            _close(demuxed)
            return None
        return self._numbered(_chain(first, demuxed), int(matches[0]), after_seek=True)

    def _reopen(self) -> Iterator[av.Packet]:
        """All packets of the file, opened again: some containers cannot seek back to their start."""
        container, stream = open_container(self._file)
        with container:
            yield from demux(container, stream)

    def _numbered(
        self, packets: Iterator[av.Packet], number: int, *, after_seek: bool = False
    ) -> Iterator[tuple[int, av.Packet]]:
        """Packets with their numbers, each compared with the index."""
        sizes = self._index.identity[:, 1]
        try:
            for packet in packets:
                if not packet.size:
                    continue
                if number >= len(sizes) or packet.size != sizes[number]:
                    break
                yield number, packet
                number += 1
        finally:
            _close(packets)
        if number < len(sizes):
            if not after_seek:
                raise VideoError(self._file.name, f"packet {number} is not as indexed: changed since opened?")
            self._seekable = False  # what follows a seek is not what follows in the file
            yield from (found for found in self._numbered(self._reopen(), 0) if found[0] >= number)


def _chain(first: av.Packet, rest: Iterator[av.Packet]) -> Iterator[av.Packet]:
    yield first
    yield from rest


def _close(iterator: Iterator[object]) -> None:
    """End a generator now, so that its files are closed now."""
    if isinstance(iterator, Generator):
        iterator.close()
