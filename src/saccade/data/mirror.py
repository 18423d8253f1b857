"""What a horizontal flip makes of a label: pushed from left to right becomes pushed from right to left."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_SWAPS = {"left": "right", "right": "left", "anticlockwise": "clockwise", "counterclockwise": "clockwise"}
_AGAINST_THE_CLOCK = ("anticlockwise", "counterclockwise")  # either may stand beside "clockwise"
_WORD = re.compile(r"([^\W_]+)")


def mirrored_labels(class_names: Sequence[str]) -> tuple[int, ...]:
    """For every label the one that its clips have when they are flipped; mostly the same.

    Two classes belong together when their names differ in left and right alone, all of them swapped (or in
    clockwise and anticlockwise). A class without such a partner keeps its label: the "right" of "pulling it
    right out" is no side.
    """
    labels = {name.casefold(): label for label, name in enumerate(class_names)}
    return tuple(
        next((labels[other] for other in _mirrored(name) if other in labels and other != name), labels[name])
        for name in (name.casefold() for name in class_names)
    )


def tells_sides(class_names: Sequence[str]) -> bool:
    """Whether a flip turns clips of some class into clips of another."""
    return any(label != mirrored for label, mirrored in enumerate(mirrored_labels(class_names)))


def _mirrored(name: str) -> Iterator[str]:
    """The names that the mirror image of ``name`` may have."""
    parts = _WORD.split(name)
    for turn in _AGAINST_THE_CLOCK:
        swaps = {**_SWAPS, "clockwise": turn}
        yield "".join(swaps.get(part, part) for part in parts)
