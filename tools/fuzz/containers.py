"""Where the pieces of a video file lie: boxes, elements, chunks, tags, packets, pages, units.

A parser gives the pieces of one family of containers, outer ones before those inside them. It stops where the
file makes no sense: its only use is to tell `tools.fuzz.mutations` where to damage a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class Piece(NamedTuple):
    """One piece: ``data[start:end]``, whose content begins at ``body``."""

    start: int
    body: int
    end: int
    kind: str


_BOXES_WITH_BOXES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex", b"dinf"}


def _boxes(data: bytes, start: int = 0, end: int | None = None) -> list[Piece]:
    end = len(data) if end is None else end
    pieces = []
    while start + 8 <= end:
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        body = start + 8
        if size == 1:
            size, body = int.from_bytes(data[start + 8 : start + 16], "big"), start + 16
        if size < 8 or start + size > end:
            break
        pieces.append(Piece(start, body, start + size, kind.decode("latin-1")))
        if kind in _BOXES_WITH_BOXES:
            pieces += _boxes(data, body, start + size)
        start += size
    return pieces


_MASTERS = {
    *("18538067", "1f43b675", "1654ae6b", "ae", "e0", "1549a966", "114d9b74", "4dbb"),
    *("1c53bb6b", "bb", "b7", "a0"),
}


def _vint(data: bytes, position: int) -> tuple[int, int]:
    """Length in bytes and value without the marker of an EBML number; 0 bytes where there is none."""
    if position >= len(data) or not data[position]:
        return 0, 0
    length = 9 - data[position].bit_length()
    value = int.from_bytes(data[position : position + length], "big")
    return length, value & ((1 << 7 * length) - 1)


def _elements(data: bytes, start: int = 0, end: int | None = None) -> list[Piece]:
    end = len(data) if end is None else end
    pieces = []
    while start < end:
        id_length, _ = _vint(data, start)
        size_length, size = _vint(data, start + id_length)
        if not id_length or not size_length:
            break
        body = start + id_length + size_length
        stop = end if size == (1 << 7 * size_length) - 1 else body + size
        if stop > end:
            break
        kind = data[start : start + id_length].hex()
        pieces.append(Piece(start, body, stop, kind))
        if kind in _MASTERS:
            pieces += _elements(data, body, stop)
        start = stop
    return pieces


def _chunks(data: bytes, start: int = 0, end: int | None = None) -> list[Piece]:
    end = len(data) if end is None else end
    pieces = []
    while start + 8 <= end:
        kind, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        stop = start + 8 + size + size % 2
        if stop > end:
            break
        pieces.append(Piece(start, start + 8, stop, kind.decode("latin-1")))
        if kind in (b"RIFF", b"LIST"):
            pieces += _chunks(data, start + 12, stop)
        start = stop
    return pieces


def _flv_tags(data: bytes) -> list[Piece]:
    pieces, start = [Piece(0, 0, min(13, len(data)), "header")], 13
    while start + 11 < len(data):
        stop = start + 15 + int.from_bytes(data[start + 1 : start + 4], "big")
        if stop > len(data):
            break
        pieces.append(Piece(start, start + 11, stop, f"tag{data[start]}"))
        start = stop
    return pieces


def _every(size: int, header: int, kind: str) -> Callable[[bytes], list[Piece]]:
    def pieces(data: bytes) -> list[Piece]:
        starts = range(0, len(data), size)
        return [Piece(s, min(s + header, len(data)), min(s + size, len(data)), kind) for s in starts]

    return pieces


def _marked(pattern: bytes, header: int, kind: str) -> Callable[[bytes], list[Piece]]:
    expression = re.compile(pattern, re.DOTALL)

    def pieces(data: bytes) -> list[Piece]:
        starts = [match.start() for match in expression.finditer(data)]
        ends = [*starts[1:], len(data)]
        return [Piece(s, min(s + header, e), e, kind) for s, e in zip(starts, ends, strict=True)]

    return pieces


def _ivf_frames(data: bytes) -> list[Piece]:
    pieces, start = [Piece(0, 0, min(32, len(data)), "header")], 32
    while start + 12 < len(data):
        stop = start + 12 + int.from_bytes(data[start : start + 4], "little")
        if stop > len(data):
            break
        pieces.append(Piece(start, start + 12, stop, "frame"))
        start = stop
    return pieces


def _klvs(data: bytes) -> list[Piece]:
    pieces, start = [], 0
    while start + 17 < len(data):
        size, body = data[start + 16], start + 17
        if size & 0x80:
            body += size & 0x7F
            size = int.from_bytes(data[start + 17 : body], "big")
        if body + size > len(data):
            break
        pieces.append(Piece(start, body, body + size, data[start + 4 : start + 16].hex()))
        start = body + size
    return pieces


def _asf_objects(data: bytes, start: int = 0, end: int | None = None) -> list[Piece]:
    end = len(data) if end is None else end
    pieces = []
    while start + 24 <= end:
        stop = start + int.from_bytes(data[start + 16 : start + 24], "little")
        if stop > end or stop < start + 24:
            break
        kind = data[start : start + 4].hex()
        pieces.append(Piece(start, start + 24, stop, kind))
        if kind == "3026b275":  # the header
            pieces += _asf_objects(data, start + 30, stop)
        start = stop
    return pieces


_PARSERS: dict[str, Callable[[bytes], list[Piece]]] = {
    **dict.fromkeys((".mp4", ".mov", ".3gp"), _boxes),
    **dict.fromkeys((".mkv", ".webm"), _elements),
    ".avi": _chunks,
    ".flv": _flv_tags,
    ".ts": _every(188, 4, "packet"),
    ".m2ts": _every(192, 8, "packet"),
    **dict.fromkeys((".mpg", ".vob"), _marked(rb"\x00\x00\x01[\xba-\xff]", 20, "pack")),
    ".ogv": _marked(rb"OggS", 27, "page"),
    ".nut": _marked(rb"N[XMSK][\x00-\xff]{6}", 12, "packet"),
    ".wmv": _asf_objects,
    ".mxf": _klvs,
    **dict.fromkeys((".h264", ".hevc", ".m4v", ".m2v"), _marked(rb"\x00\x00\x01", 8, "unit")),
    ".mjpeg": _marked(rb"\xff[\xd8\xc0\xc4\xdb\xda]", 20, "segment"),
    ".ivf": _ivf_frames,
    ".y4m": _marked(rb"YUV4|FRAME\n", 60, "frame"),
    ".gif": _marked(rb"\x21[\xf9\xff]|\x2c", 18, "block"),
}


def pieces_of(data: bytes, suffix: str) -> list[Piece]:
    """The pieces of a file in the container that ``suffix`` names; even stretches where none is known."""
    pieces = _PARSERS.get(suffix, _every(512, 16, "stretch"))(data)
    return pieces or _every(512, 16, "stretch")(data)
