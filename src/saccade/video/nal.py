"""Facts from the headers of a compressed packet: can decoding start here, does another frame refer to it?

Only headers are read, nothing is decoded. The rules are those of the standards: ITU-T H.264 7.4.1
(nal_ref_idc) and D.2.8 (recovery point); ITU-T H.265 7.4.2.2 (NAL unit types); ISO/IEC 14496-2 6.2.5
(B-VOPs); RFC 6386 9.1 (VP8 show_frame).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple
from zlib import crc32

Buffer = bytes | memoryview


class PacketFacts(NamedTuple):
    """Facts of one packet.

    Attributes:
        entry: decoding can start here and give the same pixels as decoding from the file's beginning.
        droppable: no other frame refers to this one.
        shown: the packet stands for exactly one frame; False when it is hidden, or when that is not certain.
        layer: temporal layer. Only packets of the highest layer may be dropped.
        reordered: whether the order of presentation may differ from that of decoding around this packet.
        parameters: checksum of the sequence parameter sets in the packet; 0: none.
    """

    entry: bool
    droppable: bool
    shown: bool = True
    layer: int = 0
    reordered: bool = False
    parameters: int = 0


PacketReader = Callable[[Buffer, bool], PacketFacts]


def packet_reader(codec: str, extradata: bytes | None) -> PacketReader | None:
    """The function that reads packets of ``codec``; None where one packet need not be one frame."""
    size = length_size(codec, extradata)
    if codec == "h264":
        return lambda data, key: _h264(data, key, size)
    if codec == "hevc":
        return lambda data, key: _hevc(data, key, size)
    if codec == "mpeg4":
        return _mpeg4
    if codec == "vp8":
        return lambda data, key: PacketFacts(key and not data[0] & 1, False, shown=bool(data[0] & 0x10))
    if codec == "mjpeg":
        return _mjpeg_reader()
    if codec == "ffv1":
        return lambda data, key: PacketFacts(_ffv1_key(data), False)
    if codec in _ONE_FRAME_A_PACKET:
        return lambda data, key: PacketFacts(key, False)
    return None


_ONE_FRAME_A_PACKET = {
    *("vp9", "av1", "libdav1d", "libaom-av1"),
    *(
        "png",
        "gif",
        "bmp",
        "webp",
        "tiff",
        "prores",
        "dnxhd",
        "huffyuv",
        "utvideo",
        "rawvideo",
    ),
}


def length_size(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length before each NAL unit (avcC, hvcC); 0: units stand between start codes."""
    if extradata and extradata[0] == 1:
        if codec == "h264" and len(extradata) > 4:
            return (extradata[4] & 3) + 1
        if codec == "hevc" and len(extradata) > 21:
            return (extradata[21] & 3) + 1
    return 0


def units(data: Buffer, prefix: int) -> Iterator[Buffer]:
    """The NAL units of a packet, each after its length of ``prefix`` bytes, or between start codes (0)."""
    if prefix:
        position, end = 0, len(data)
        while position + prefix < end:
            size = int.from_bytes(data[position : position + prefix], "big")
            position += prefix
            if size:
                yield data[position : position + size]
            position += size
        return
    raw = bytes(data)
    start = raw.find(b"\0\0\1")
    while start >= 0:
        following = raw.find(b"\0\0\1", start + 3)
        unit = raw[start + 3 : following if following >= 0 else None]
        if unit:
            yield unit
        start = following


def _h264(data: Buffer, key: bool, prefix: int) -> PacketFacts:
    idr = recovery = slices = reference = False
    parameters = 0
    for unit in units(data, prefix):
        kind = unit[0] & 31
        if 1 <= kind <= 5:
            slices = True
            idr = idr or kind == 5
            reference = reference or unit[0] & 0x60 != 0
            if not key and (reference or idr):
                break  # nothing further down changes the answer
        elif kind == 6 and key:
            recovery = recovery or _recovers_at_once(bytes(unit[:512]))
        elif kind == 7:
            parameters = crc32(unit, parameters)
    entry = key and (idr or recovery)
    return PacketFacts(entry, slices and not reference, reordered=True, parameters=parameters)


def _recovers_at_once(unit: bytes) -> bool:
    """Whether an SEI unit holds a recovery point with recovery_frame_cnt 0: the picture itself is exact."""
    payload = unit.replace(b"\0\0\3", b"\0\0")
    position = 1
    while position + 2 < len(payload):
        kind, position = _sei_number(payload, position)
        size, position = _sei_number(payload, position)
        if kind == 6:
            return position < len(payload) and payload[position] & 0x80 != 0  # ue(v): a leading 1 is zero
        position += size
    return False


def _sei_number(payload: bytes, position: int) -> tuple[int, int]:
    value = 0
    while position < len(payload) and payload[position] == 255:
        value += 255
        position += 1
    if position < len(payload):
        value += payload[position]
    return value, position + 1


def _hevc(data: Buffer, key: bool, prefix: int) -> PacketFacts:
    entry = slices = False
    droppable, layer, parameters = True, 0, 0
    for unit in units(data, prefix):
        kind = unit[0] >> 1 & 63
        if kind < 32 and len(unit) > 1:
            slices = True
            entry = entry or 16 <= kind <= 23
            droppable = droppable and kind < 16 and kind % 2 == 0  # the _N types
            layer = max(layer, (unit[1] & 7) - 1)
        elif kind == 33:
            parameters = crc32(unit, parameters)
    return PacketFacts(
        key and entry, slices and droppable, layer=layer, reordered=True, parameters=parameters
    )


_TABLES = (0xDB, 0xC4)  # quantisation, Huffman


def _mjpeg_reader() -> PacketReader:
    """JPEG pictures depend on no other, unless one lacks tables that the first has: it then uses those of the
    picture before. (In AVI all may lack the Huffman tables, for which there is a default.)
    """
    first: set[int] | None = None

    def read(data: Buffer, key: bool) -> PacketFacts:
        nonlocal first
        found = _jpeg_tables(data)
        if first is None:
            first = found
        return PacketFacts(key and found >= first, False)

    return read


def _ffv1_key(data: Buffer) -> bool:
    """Whether the first bit that the range coder gives is 1 (RFC 9043 3.8.1, 4.4: keyframe)."""
    return int.from_bytes(data[:2], "big") >= 0x7F80


def _jpeg_tables(data: Buffer) -> set[int]:
    """The kinds of tables in the header of a JPEG picture."""
    found: set[int] = set()
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] in _TABLES:
            found.add(data[position + 1])
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return found


def _mpeg4(data: Buffer, key: bool) -> PacketFacts:
    raw = bytes(data)
    start = raw.find(b"\0\0\1\xb6")
    if start < 0 or len(raw) < start + 5:
        return PacketFacts(key, False, shown=False)
    packed = raw.find(b"\0\0\1\xb6", start + 4) >= 0
    bidirectional = raw[start + 4] >> 6 == 2
    # A picture that is not coded takes a few bytes; whether it counts as a frame only the decoder knows.
    shown = not packed and len(raw) > 20
    entry = key and raw[start + 4] >> 6 == 0
    return PacketFacts(entry, bidirectional and not packed, shown=shown, reordered=packed or bidirectional)
