"""Damage to the bytes of a file, drawn from a seeded generator.

`mutate` applies one to four of the functions below. Each damages the bytes in place, given the suffix (which
tells the container) and the generator, and returns a few words that say what was done.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tools.fuzz.containers import Piece, pieces_of

Mutation = Callable[[bytearray, str, random.Random], str]

# Tables and headers of MP4 whose numbers decide which bytes are a frame and when it is shown.
_TABLES = {
    *("stts", "ctts", "stss", "stco", "co64", "stsz", "stsc", "elst", "mdhd", "mvhd", "tkhd", "hdlr"),
    *("stsd", "trun", "tfhd", "tfdt", "mfhd", "trex", "sdtp"),
}
_WORDS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _length(rng: random.Random, size: int) -> int:
    """A length from 1 to ``size``, short ones more often."""
    return max(1, min(size, int(size ** rng.random())))


def _region(data: bytearray, rng: random.Random) -> tuple[int, int]:
    """All of the file, or its head, or its tail, where headers stand."""
    size = len(data)
    return rng.choice([(0, size), (0, size), (0, min(2048, size)), (max(0, size - 2048), size)])


def flip_bytes(data: bytearray, suffix: str, rng: random.Random) -> str:
    low, high = _region(data, rng)
    count = rng.choice((1, 1, 2, 4, 8, 32, max(1, len(data) // 500)))
    for _ in range(count):
        data[rng.randrange(low, high)] = rng.randrange(256)
    return f"{count} bytes changed in {low}..{high}"


def flip_bits(data: bytearray, suffix: str, rng: random.Random) -> str:
    low, high = _region(data, rng)
    count = rng.choice((1, 1, 2, 5, 20))
    for _ in range(count):
        data[rng.randrange(low, high)] ^= 1 << rng.randrange(8)
    return f"{count} bits flipped in {low}..{high}"


def cut_tail(data: bytearray, suffix: str, rng: random.Random) -> str:
    count = _length(rng, len(data) - 1)
    del data[len(data) - count :]
    return f"last {count} bytes cut"


def cut_head(data: bytearray, suffix: str, rng: random.Random) -> str:
    count = _length(rng, len(data) - 1)
    del data[:count]
    return f"first {count} bytes cut"


def cut_middle(data: bytearray, suffix: str, rng: random.Random) -> str:
    start = rng.randrange(len(data))
    count = _length(rng, len(data) - start)
    del data[start : start + count]
    return f"bytes {start}..{start + count} cut"


def fill(data: bytearray, suffix: str, rng: random.Random) -> str:
    start = rng.randrange(len(data))
    count = _length(rng, min(8192, len(data) - start))
    value = rng.choice((b"\0", b"\xff", rng.randbytes(1), None))
    data[start : start + count] = rng.randbytes(count) if value is None else value * count
    return f"bytes {start}..{start + count} overwritten with {value!r}"


def insert(data: bytearray, suffix: str, rng: random.Random) -> str:
    start, count = rng.randrange(len(data) + 1), rng.choice((1, 3, 16, 188, 1000))
    data[start:start] = rng.randbytes(count) if rng.random() < 0.5 else bytes(count)
    return f"{count} bytes put in at {start}"


def _pieces(data: bytearray, suffix: str) -> list[Piece]:
    return pieces_of(bytes(data), suffix)


def drop_pieces(data: bytearray, suffix: str, rng: random.Random) -> str:
    pieces = _pieces(data, suffix)
    start = rng.randrange(len(pieces))
    dropped = pieces[start : start + rng.choice((1, 1, 1, 2, 5))]
    for piece in sorted(dropped, reverse=True):
        del data[piece.start : piece.end]
    return "dropped " + _listed(dropped)


def repeat_piece(data: bytearray, suffix: str, rng: random.Random) -> str:
    pieces = _pieces(data, suffix)
    piece, target = rng.choice(pieces), rng.choice(pieces)
    place = rng.choice((piece.end, target.start))
    data[place:place] = bytes(data[piece.start : piece.end])
    return f"repeated {_listed([piece])} at {place}"


def swap_pieces(data: bytearray, suffix: str, rng: random.Random) -> str:
    pieces = _pieces(data, suffix)
    first, second = sorted(rng.choices(pieces, k=2))
    if second.start < first.end:
        return flip_bytes(data, suffix, rng)
    a, b = bytes(data[first.start : first.end]), bytes(data[second.start : second.end])
    data[first.start : second.end] = b + bytes(data[first.end : second.start]) + a
    return "swapped " + _listed([first, second])


def shuffle_pieces(data: bytearray, suffix: str, rng: random.Random) -> str:
    """Reorder a run of neighbours, as packets that overtake each other."""
    pieces = _pieces(data, suffix)
    start = rng.randrange(len(pieces))
    run = [pieces[start]]
    for piece in pieces[start + 1 :]:
        if piece.start == run[-1].end and len(run) < 8:
            run.append(piece)
    parts = [bytes(data[piece.start : piece.end]) for piece in run]
    rng.shuffle(parts)
    data[run[0].start : run[-1].end] = b"".join(parts)
    return "shuffled " + _listed(run)


def edit_header(data: bytearray, suffix: str, rng: random.Random) -> str:
    """Change a number in the header of a piece, or among the first bytes of its content."""
    pieces = _pieces(data, suffix)
    tables = [piece for piece in pieces if piece.kind in _TABLES]
    piece = rng.choice(tables if tables and rng.random() < 0.7 else pieces)
    width = rng.choice((1, 2, 4, 4, 4, 8))
    in_header = piece.kind not in _TABLES and rng.random() < 0.6
    low, high = (piece.start, piece.body) if in_header else (piece.body, min(piece.end, piece.body + 400))
    if high - low < width:
        low, high = piece.start, piece.end
    steps = max(1, (high - low) // width)
    place = min(low + width * rng.randrange(steps), len(data) - width)
    if place < 0:
        return flip_bytes(data, suffix, rng)
    order = "little" if suffix in (".avi", ".wmv", ".ivf") else "big"
    old = int.from_bytes(data[place : place + width], order)
    near = old + rng.choice((-2, -1, 1, 2, old, -old // 2, 100, 0x10000))
    new = rng.choice((rng.choice(_WORDS), near, near, rng.getrandbits(8 * width))) % (1 << 8 * width)
    data[place : place + width] = new.to_bytes(width, order)
    return f"{width} bytes at {place} ({_listed([piece])}): {old} became {new}"


def _listed(pieces: list[Piece]) -> str:
    return ", ".join(f"{piece.kind}@{piece.start}+{piece.end - piece.start}" for piece in pieces[:4])


MUTATIONS: tuple[tuple[Mutation, int], ...] = (
    (flip_bytes, 3),
    (flip_bits, 2),
    (cut_tail, 2),
    (cut_head, 1),
    (cut_middle, 2),
    (fill, 2),
    (insert, 1),
    (drop_pieces, 3),
    (repeat_piece, 2),
    (swap_pieces, 2),
    (shuffle_pieces, 2),
    (edit_header, 8),
)


def mutate(data: bytes, suffix: str, rng: random.Random) -> tuple[bytes, list[str]]:
    """``data`` damaged in one to four steps, and what they were; it keeps at least one byte."""
    damaged, steps = bytearray(data), []
    functions, weights = zip(*MUTATIONS, strict=True)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        (function,) = rng.choices(functions, weights)
        if len(damaged) > 1:
            steps.append(function(damaged, suffix, rng))
    return bytes(damaged) or b"\0", steps


def splice(first: bytes, second: bytes, suffix: str, rng: random.Random) -> tuple[bytes, str]:
    """The head of one file and the tail of another, cut at their ends, at pieces, or anywhere."""
    kind = rng.choice(("joined", "at pieces", "anywhere"))
    if kind == "joined":
        return first + second, "joined end to end"
    if kind == "anywhere":
        head, tail = rng.randrange(1, len(first) + 1), rng.randrange(len(second))
    else:
        head = rng.choice(pieces_of(first, suffix)).start
        tail = rng.choice(pieces_of(second, suffix)).start
    return (first[:head] + second[tail:]) or b"\0", f"bytes 0..{head} of it, then {tail}.. of the other"
