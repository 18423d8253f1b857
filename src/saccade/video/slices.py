"""Slice headers of H.264 and HEVC: which picture of its sequence a packet holds.

ITU-T H.264 7.3.2.1 (parameter sets), 7.3.3 (slice header), 8.2.1 (picture order count); ITU-T H.265 7.3.2.2,
7.3.6.1, 8.3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from saccade.video.nal import Buffer, length_size, units

_MOST_BYTES = 96  # of a parameter set; what is read stands well before
_SLICE_BYTES = 24


class Bits:
    """The bits of the first bytes of a NAL unit, after its header."""

    def __init__(self, unit: Buffer, header: int, most: int) -> None:
        payload = bytes(unit[header : header + most]).replace(b"\0\0\3", b"\0\0")
        self._value = int.from_bytes(payload, "big")
        self._left = 8 * len(payload)

    def number(self, size: int) -> int:
        """``size`` bits, u(n)."""
        self._left -= size
        if self._left < 0:
            raise ValueError("ends early")
        return self._value >> self._left & ((1 << size) - 1)

    def code(self) -> int:
        """An Exp-Golomb code, ue(v)."""
        rest = self._value & ((1 << self._left) - 1)
        zeros = self._left - rest.bit_length()
        self._left -= zeros
        return self.number(zeros + 1) - 1


class Slice(NamedTuple):
    """Facts of a packet from the header of its first slice.

    Attributes:
        resets: counting begins anew with it (IDR picture).
        reference: other pictures may refer to it.
        frame_num: of H.264, None where it need not count on by one.
        size: frame_num is counted modulo this.
        order: picture order count, modulo ``order_size``; None if it cannot be known.
        order_size: 0 where order is None.
    """

    resets: bool
    reference: bool
    frame_num: int | None
    size: int
    order: int | None
    order_size: int


class _Sequence(NamedTuple):
    """What a sequence parameter set says of slice headers; sizes in bits."""

    planes: int
    frame_num: int
    gaps: bool
    fields: bool
    order: int


class _Picture(NamedTuple):
    """What a picture parameter set says of slice headers."""

    sequence: int
    output_flag: bool = False
    extra: int = 0


class SliceReader:
    """Reads the first slice header of each packet of a stream, given in decoding order.

    Args:
        codec: ``h264`` or ``hevc``.
        extradata: of the stream.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._hevc = codec == "hevc"
        self._prefix = length_size(codec, extradata)
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, _Picture] = {}
        for unit in _parameter_sets(extradata or b"", self._hevc):
            self._read(unit)

    def read(self, data: Buffer) -> Slice | None:
        """The facts of a packet; None if it has no slice, or one that cannot be read."""
        for unit in units(data, self._prefix):
            found = self._read(unit)
            if found is not None:
                return found
        return None

    def _read(self, unit: Buffer) -> Slice | None:
        try:
            return self._read_hevc(unit) if self._hevc else self._read_h264(unit)
        except (ValueError, KeyError):  # damaged; the decoder will say so
            return None

    def _read_h264(self, unit: Buffer) -> Slice | None:
        kind = unit[0] & 31
        if kind == 7:
            bits = Bits(unit, 1, _MOST_BYTES)
            profile = bits.number(8)
            bits.number(16)
            number = bits.code()
            self._sequences[number] = _h264_sequence(bits, profile)
        elif kind == 8:
            bits = Bits(unit, 1, _MOST_BYTES)
            self._pictures[bits.code()] = _Picture(bits.code())
        elif kind in (1, 5):
            bits = Bits(unit, 1, _SLICE_BYTES)
            bits.code()
            bits.code()
            sequence = self._sequences[self._pictures[bits.code()].sequence]
            bits.number(sequence.planes)
            frame_num = bits.number(sequence.frame_num)
            if sequence.fields and bits.number(1):
                bits.number(1)
            if kind == 5:
                bits.code()
            order = bits.number(sequence.order) if sequence.order else None
            return Slice(
                kind == 5,
                unit[0] & 0x60 != 0,
                None if sequence.gaps else frame_num,
                1 << sequence.frame_num,
                order,
                1 << sequence.order if sequence.order else 0,
            )
        return None

    def _read_hevc(self, unit: Buffer) -> Slice | None:
        kind = unit[0] >> 1 & 63
        if kind == 33:
            bits = Bits(unit, 2, _MOST_BYTES)
            self._sequences.update([_hevc_sequence(bits)])
        elif kind == 34:
            bits = Bits(unit, 2, _MOST_BYTES)
            number, sequence_number = bits.code(), bits.code()
            bits.number(1)
            self._pictures[number] = _Picture(sequence_number, bool(bits.number(1)), bits.number(3))
        elif kind < 32 and unit[2] & 0x80:  # the first slice of its picture
            bits = Bits(unit, 2, _SLICE_BYTES)
            bits.number(1)
            if 16 <= kind <= 23:
                bits.number(1)
            picture = self._pictures[bits.code()]
            sequence = self._sequences[picture.sequence]
            bits.number(picture.extra)
            bits.code()
            bits.number(picture.output_flag + sequence.planes)
            order = 0 if kind in (19, 20) else bits.number(sequence.order)
            counted = unit[1] & 7 == 1 and (kind % 2 == 1 or kind > 15) and not 6 <= kind <= 9
            resets = 16 <= kind <= 20
            return Slice(resets, counted, None, 0, order, 1 << sequence.order)
        return None


# Profiles of H.264 whose parameter set states chroma format and depth.
_HIGH = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}


def _h264_sequence(bits: Bits, profile: int) -> _Sequence:
    planes = 0
    if profile in _HIGH:
        if bits.code() == 3 and bits.number(1):
            planes = 2
        bits.code()
        bits.code()
        bits.number(1)
        if bits.number(1):
            raise ValueError("scaling matrices, which hardly anybody writes")
    frame_num = bits.code() + 4
    kind, order = bits.code(), 0
    if kind == 0:
        order = bits.code() + 4
    elif kind == 1:
        bits.number(1)
        bits.code()
        bits.code()
        for _ in range(bits.code()):
            bits.code()
    bits.code()
    gaps = bool(bits.number(1))
    bits.code()
    bits.code()
    return _Sequence(planes, frame_num, gaps, not bits.number(1), order)


def _hevc_sequence(bits: Bits) -> tuple[int, _Sequence]:
    bits.number(4)
    layers = bits.number(3)
    bits.number(1 + 88 + 8)
    present = [(bits.number(1), bits.number(1)) for _ in range(layers)]
    if layers:
        bits.number(2 * (8 - layers))
    for profile, level in present:
        bits.number(88 * profile + 8 * level)
    number, planes = bits.code(), 0
    if bits.code() == 3:
        planes = 2 * bits.number(1)
    bits.code()
    bits.code()
    if bits.number(1):
        for _ in range(4):
            bits.code()
    bits.code()
    bits.code()
    return number, _Sequence(planes, 0, True, False, bits.code() + 4)


def _parameter_sets(extradata: bytes, hevc: bool) -> Iterator[Buffer]:
    """The units of avcC, hvcC, or between start codes."""
    if not extradata or extradata[0] != 1:
        yield from units(extradata, 0)
        return
    position = 22 if hevc else 5
    for mask in (255,) if hevc else (31, 255):
        groups = extradata[position] & mask if position < len(extradata) else 0
        position += 1
        for _ in range(groups):
            count = 1
            if hevc:
                count = int.from_bytes(extradata[position + 1 : position + 3], "big")
                position += 3
            for _ in range(count):
                size = int.from_bytes(extradata[position : position + 2], "big")
                if size > 2:
                    yield extradata[position + 2 : position + 2 + size]
                position += 2 + size
                if position > len(extradata):
                    return


def picture_orders(
    codec: str, extradata: bytes | None, packets: Iterable[Buffer], parts: Sequence[int]
) -> list[tuple[int, int]] | None:
    """For each packet, in decoding order, what sorts it for presentation; None if that cannot be known.

    Args:
        codec: ``h264`` or ``hevc``.
        extradata: of the stream.
        packets: all of the stream.
        parts: which of the recordings joined in the file each packet belongs to.
    """
    reader, found = SliceReader(codec, extradata), []
    period, last_part = 0, -1
    above = last = 0  # of the last reference picture: the multiple of order_size, and the order
    for data, part in zip(packets, parts, strict=True):
        facts = reader.read(data)
        if facts is None or facts.order is None:
            return None
        if facts.resets or part != last_part:
            period, last_part = period + 1, part
            above, last = 0, 0 if facts.resets else facts.order
        base, half = above, facts.order_size // 2
        if last - facts.order >= half:
            base += facts.order_size
        elif facts.order - last > half:
            base -= facts.order_size
        found.append((period, base + facts.order))
        if facts.reference:
            above, last = base, facts.order
    return found
