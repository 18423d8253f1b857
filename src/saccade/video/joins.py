"""Recordings joined one after the other in one file, as downloads of HLS and recorders make them.

The time stamps of each begin anew. Frames are shown in the order of the joined recordings, and by time stamp
within each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saccade.video.nal import PacketFacts

_WRAP = 1 << 33  # MPEG time stamps have 33 bits


def joined_parts(
    pts: Sequence[int | None], dts: Sequence[int | None], facts: Sequence[PacketFacts]
) -> np.ndarray:
    """(num_packets,) int32: which of the joined recordings each packet belongs to, from 0 on.

    A recording begins where decoding time stamps fall, or with a packet from which decoding can start and
    that is shown before an earlier one: within one recording none is.
    """
    parts = np.zeros(len(pts), np.int32)
    part = 0
    last: int | None = None  # decoding time stamp of the packet before
    latest: int | None = None  # latest presentation time stamp of the recording
    for i, (shown, decoded, fact) in enumerate(zip(pts, dts, facts, strict=True)):
        falls = last is not None and decoded is not None and decoded < last
        early = fact.entry and latest is not None and shown is not None and shown < latest
        if falls or early:
            part += 1
            latest = None
        parts[i] = part
        last = decoded if decoded is not None else last
        if shown is not None and (latest is None or shown > latest):
            latest = shown
    return parts


def unwrapped(pts: Sequence[int | None], parts: np.ndarray) -> list[int | None]:
    """The time stamps with 2^33 added wherever their counter has begun again."""
    result: list[int | None] = []
    offset = 0
    last: int | None = None
    for i, stamp in enumerate(pts):
        if stamp is None:
            result.append(None)
            continue
        if i and parts[i] != parts[i - 1] and last is not None and stamp + offset < last - _WRAP // 2:
            offset += _WRAP
        last = stamp + offset
        result.append(last)
    return result


def are_whole(pts: np.ndarray, parts: np.ndarray, facts: Sequence[PacketFacts]) -> bool:
    """Whether each recording begins with a packet from which decoding can start and that is shown first, and
    all have the same parameter sets: then the decoder shows all frames of one before those of the next.
    """
    starts = np.flatnonzero(np.diff(parts, prepend=-1))
    earliest = np.minimum.reduceat(pts, starts)
    parameters = facts[0].parameters
    return all(
        facts[start].entry and pts[start] == first and facts[start].parameters == parameters
        for start, first in zip(starts.tolist(), earliest.tolist(), strict=True)
    )


def is_order_doubtful(
    when: np.ndarray, seconds: np.ndarray, parts: np.ndarray, facts: Sequence[PacketFacts], delay: int
) -> bool:
    """Whether the order of presentation that time stamps give may not be that of the pictures: gaps and
    leaps in the stamps, more pictures overtaken than the codec's header states, or, where it states that
    pictures are reordered, a group of pictures that is not.

    Args:
        when: (num_packets,) rank of each packet in order of presentation.
        seconds: (num_packets,) time stamps in that order.
        parts: (num_packets,) of `joined_parts`.
        facts: of each packet.
        delay: how many pictures may overtake one, as the codec's header states.
    """
    if len(when) < 3:
        return False
    if int((np.arange(len(when)) - when).max()) > delay:
        return True
    steps = np.diff(seconds)[np.diff(parts) == 0]
    if len(steps):
        usual = float(np.median(steps))
        if (steps > 1.5 * usual).any() or (steps < 0.5 * usual).any():
            return True
    if not delay:
        return False
    ends = [*np.flatnonzero([fact.entry for fact in facts])[1:].tolist(), len(when)]
    overtakes = np.flatnonzero(np.diff(when) < 0)
    start = 0
    for end in ends:
        first = np.searchsorted(overtakes, start)
        if end - start > 2 and not (first < len(overtakes) and overtakes[first] < end - 1):
            return True
        start = end
    return False
