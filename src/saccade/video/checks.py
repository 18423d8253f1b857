"""Damage in compressed packets that FFmpeg's decoders pass over or conceal without a word.

H.264: every reference picture counts on by one (ITU-T H.264 7.4.3, frame_num); where one is missing the
decoder goes on with what its memory holds. FFV1: slices that carry a checksum (RFC 9043 4.9.3).
"""

from __future__ import annotations

from typing import Protocol
from zlib import crc32

from saccade.video.nal import Buffer
from saccade.video.slices import SliceReader


class PacketCheck(Protocol):
    """Finds damage in the packets of a stream, given in decoding order."""

    def reset(self) -> None:
        """Decoding begins anew with the next packet."""

    def damage(self, data: Buffer, entry: bool) -> str:
        """What is wrong with a packet, or with what precedes it; empty: nothing that can be noticed.

        Args:
            data: the packet.
            entry: whether decoding can start with it.
        """


def packet_check(codec: str, extradata: bytes | None) -> PacketCheck | None:
    """The check for packets of ``codec``, if there is one."""
    if codec == "h264":
        return _FrameNumbers(extradata)
    if codec == "ffv1" and extradata:  # version 3 and above
        return _SliceChecksums()
    return None


class _FrameNumbers:
    """H.264: whether a reference picture is missing before a picture."""

    def __init__(self, extradata: bytes | None) -> None:
        self._reader = SliceReader("h264", extradata)
        self._last: int | None = None

    def reset(self) -> None:
        self._last = None

    def damage(self, data: Buffer, entry: bool) -> str:
        facts = self._reader.read(data)
        if facts is None:
            return ""
        number, last = facts.frame_num, self._last
        if facts.reference or entry:
            self._last = number
        # After a picture that resets the counter (operation 5) comes 0 or 1.
        if number is None or last is None or entry or number <= 1:
            return ""
        return "" if number in (last, (last + 1) % facts.size) else "a reference picture is missing before it"


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_TRAILER = 8  # bytes: size, status and checksum of a slice


class _SliceChecksums:
    """FFV1: whether the checksum of every slice is right. That slices carry one shows in a packet whose
    checksums are all right.
    """

    def __init__(self) -> None:
        self._carried = False

    def reset(self) -> None:
        pass

    def damage(self, data: Buffer, entry: bool) -> str:
        right = _slices_are_right(bytes(data))
        self._carried = self._carried or right
        return "the checksum of a slice is wrong" if self._carried and not right else ""


def _slices_are_right(data: bytes) -> bool:
    end = len(data)
    while end >= _TRAILER:
        start = end - _TRAILER - int.from_bytes(data[end - _TRAILER : end - _TRAILER + 3], "big")
        # zlib reads the bits of a byte the other way round, and inverts; a right checksum leaves 0
        if start < 0 or crc32(data[start:end].translate(_MIRRORED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = start
    return end == 0
