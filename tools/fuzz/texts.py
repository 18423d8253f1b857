"""Damage to text files: lists, tables, JSON, lines of JSON."""

from __future__ import annotations

import json
import random
from typing import Any

_CELLS = (
    *("", " ", "-1", "0", "1.5", "1e9", "99999999999999999999", "nan", "inf", "0x10", "true", "null", "None"),
    *('"', "'", "a,b", "a;b", "a b", "a\tb", "..", "/", "/etc/passwd", "~", "*", "%s", "{}", "\\", "#", "//"),
    *("\0", "\x1b[31m", "\r", "é", "日本語", "²", "２", "\u202e", "\ufeff", "\ud800", "x" * 5000, "-" * 40),
)
"""What may stand in a cell."""


def damage_text(text: str, rng: random.Random) -> tuple[str, str]:
    """Text with lines or cells changed, and what was done."""
    steps = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        kind, function = rng.choice(list(_DAMAGES.items()))
        text = function(text, rng)
        steps.append(kind)
    return text, ", ".join(steps)


def damage_json(text: str, rng: random.Random) -> tuple[str, str]:
    """JSON with one to three of its values or keys replaced, or damaged as text."""
    try:
        content = json.loads(text)
    except ValueError:
        return damage_text(text, rng)
    if rng.random() < 0.2:
        return damage_text(text, rng)
    steps = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        content, step = _damaged_node(content, rng)
        steps.append(step)
    return json.dumps(content), ", ".join(steps)


def _odd(rng: random.Random) -> Any:
    return rng.choice(
        (
            None,
            True,
            0,
            -1,
            1.5,
            10**30,
            1e308,
            float("nan"),
            [],
            {},
            [[]],
            {"a": 1},
            rng.choice(_CELLS),
            "text",
        )
    )


def _damaged_node(content: Any, rng: random.Random) -> tuple[Any, str]:
    """Walk down to a random node and replace, remove or rename it."""
    if isinstance(content, dict | list) and content and rng.random() < 0.9:
        key = rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
        kind = rng.choice(("down", "down", "down", "remove", "rename", "replace"))
        copied: Any = dict(content) if isinstance(content, dict) else list(content)
        if kind == "remove":
            del copied[key]
            return copied, f"removed {key!r}"
        if kind == "rename" and isinstance(copied, dict):
            name = rng.choice(_CELLS[:40])
            copied[name] = copied.pop(key)
            return copied, f"renamed {key!r} to {name!r}"
        copied[key], step = _damaged_node(content[key], rng)
        return copied, f"{key!r}: {step}"
    value = _odd(rng)
    return value, f"became {str(value)[:40]!r}"


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True) or [""]


def _drop_line(text: str, rng: random.Random) -> str:
    lines = _lines(text)
    del lines[rng.randrange(len(lines))]
    return "".join(lines)


def _repeat_line(text: str, rng: random.Random) -> str:
    lines = _lines(text)
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return "".join(lines)


def _swap_lines(text: str, rng: random.Random) -> str:
    lines = _lines(text)
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return "".join(lines)


def _change_cell(text: str, rng: random.Random) -> str:
    lines = _lines(text)
    number = rng.randrange(len(lines))
    separator = next((mark for mark in ("\t", ";", ",", " ") if mark in lines[number]), " ")
    cells = lines[number].rstrip("\n").split(separator)
    column = rng.randrange(len(cells))
    if rng.random() < 0.2:
        del cells[column]
    else:
        cells[column] = rng.choice(_CELLS)
    lines[number] = separator.join(cells) + "\n"
    return "".join(lines)


def _change_column(text: str, rng: random.Random) -> str:
    """The same cell in every line."""
    lines = [line.rstrip("\n") for line in _lines(text)]
    separator = next((mark for mark in ("\t", ";", ",", " ") if mark in lines[0]), " ")
    column, value = rng.randrange(lines[0].count(separator) + 1), rng.choice((*_CELLS, "7", "1000000000"))
    changed = []
    for line in lines:
        cells = line.split(separator)
        if column < len(cells):
            cells[column] = value
        changed.append(separator.join(cells))
    return "\n".join(changed) + "\n"


def _cut(text: str, rng: random.Random) -> str:
    return text[: rng.randrange(len(text) + 1)]


def _insert(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text) + 1)
    return text[:place] + rng.choice(_CELLS) + text[place:]


def _other_separator(text: str, rng: random.Random) -> str:
    return text.replace(rng.choice(",; \t:"), rng.choice((",", ";", " ", "\t", "|", "")))


def _line_ends(text: str, rng: random.Random) -> str:
    return text.replace("\n", rng.choice(("\r\n", "\r", "\n\n", "\u2028", "\x0c")))


def _upper(text: str, rng: random.Random) -> str:
    return text.upper() if rng.random() < 0.5 else text.title()


def _letters(text: str, rng: random.Random) -> str:
    letters = list(text)
    for _ in range(rng.choice((1, 3, 10))):
        if letters:
            letters[rng.randrange(len(letters))] = chr(rng.randrange(256))
    return "".join(letters)


_DAMAGES = {
    "line dropped": _drop_line,
    "line repeated": _repeat_line,
    "lines swapped": _swap_lines,
    "cell changed": _change_cell,
    "another cell changed": _change_cell,
    "column changed": _change_column,
    "cut": _cut,
    "text put in": _insert,
    "other separator": _other_separator,
    "other line ends": _line_ends,
    "upper case": _upper,
    "letters changed": _letters,
}
