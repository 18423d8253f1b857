"""The packets of an open file, from any number on, known for certain to be those of the index."""

from __future__ import annotations

from collections.abc import Iterator

import av

from saccade.errors import VideoError
from saccade.video.index import _UNKNOWN, VideoIndex, open_container


class PacketSource:
    """Gives packets in decoding order from a number on, each tagged with its number as its time stamp.

    Packets kept from indexing are given from memory. Otherwise the container is sought to; what it then gives is compared
    with the index by byte position and size, and when it is not recognised the file is read from its beginning.
    """

    def __init__(
        self,
        path: str,
        index: VideoIndex,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        kept: list[av.Packet] | None,
    ) -> None:
        self._path = path
        self._index = index
        self._container = container
        self._stream = stream
        self._kept = kept
        self._running: Iterator[tuple[int, av.Packet]] | None = None
        self._next = -1
        # In memory the positions are not needed; a file is only sought in when they tell packets apart.
        positions = index.identity[:, 0]
        self._seekable = bool((positions >= 0).all()) and len(set(positions.tolist())) == len(positions)
        if kept is not None:
            for number, packet in enumerate(kept):
                packet.pts = number

    def packet(self, number: int) -> av.Packet:
        """Packet ``number``. Cheap when asked for in rising order."""
        if self._kept is not None:
            return self._kept[number]
        if self._running is None or number < self._next or self._jump_helps(number):
            self._running = self._start(number)
        assert self._running is not None
        for found, packet in self._running:
            self._next = found + 1
            if found == number:
                packet.pts = number
                return packet
        raise VideoError(
            self._path, f"ends before packet {number} of {len(self._index.when)}: changed since opened?"
        )

    def close(self) -> None:
        if isinstance(self._running, Iterator) and hasattr(self._running, "close"):
            self._running.close()
        self._running = None
        self._kept = None

    def _jump_helps(self, number: int) -> bool:
        entries = self._index.entries
        return self._seekable and bool(((entries > self._next) & (entries <= number)).any())

    def _start(self, number: int) -> Iterator[tuple[int, av.Packet]]:
        if self._running is not None and hasattr(self._running, "close"):
            self._running.close()
        if number > 0 and self._seekable and self._index.stamps[number] != _UNKNOWN:
            running = self._sought(number)
            if running is not None:
                return running
        return self._numbered(self._rewound(), 0)

    def _sought(self, number: int) -> Iterator[tuple[int, av.Packet]] | None:
        try:
            self._container.seek(int(self._index.stamps[number]), stream=self._stream, backward=True)
        except av.FFmpegError:
            return None
        demuxed = self._container.demux(self._stream)
        first = next(demuxed, None)
        if first is None or not first.size:
            return None
        identity = self._index.identity
        matches = ((identity[:, 0] == first.pos) & (identity[:, 1] == first.size)).nonzero()[0]
        if len(matches) != 1 or matches[0] > number:
            demuxed.close()
            return None
        return self._numbered(_chain(first, demuxed), int(matches[0]))

    def _rewound(self) -> Iterator[av.Packet]:
        """The file from its beginning, opened anew: some containers do not seek back to their very start."""
        container, stream = open_container(self._path)
        with container:
            yield from container.demux(stream)

    def _numbered(self, packets: Iterator[av.Packet], number: int) -> Iterator[tuple[int, av.Packet]]:
        identity = self._index.identity
        try:
            for packet in packets:
                if not packet.size:
                    continue
                if number >= len(identity) or packet.size != identity[number, 1]:
                    raise VideoError(
                        self._path, f"packet {number} is not the one indexed: changed since opened?"
                    )
                yield number, packet
                number += 1
        finally:
            if hasattr(packets, "close"):
                packets.close()


def _chain(first: av.Packet, rest: Iterator[av.Packet]) -> Iterator[av.Packet]:
    yield first
    yield from rest
