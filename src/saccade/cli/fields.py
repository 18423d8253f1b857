"""The fields of a recipe as flags: ``--epochs 20 --optim.lr 0.1 --model.overrides gamma_d 2``."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, get_type_hints

from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.training.config import TrainConfig

OVERRIDES = "--model.overrides"
_BOOLEANS = {"true": True, "false": False}


def parse_fields(config: TrainConfig, args: Sequence[str], *, prog: str) -> TrainConfig | None:
    """``config`` with the fields that ``args`` change; None after printing help.

    Raises:
        UsageError: an unknown flag (names the closest ones) or a value that does not fit the field.
    """
    import tyro

    from saccade.cli.flags import check_dashes

    check_dashes(args)
    rest, changes = take_overrides(args)
    kinds = field_types(type(config))
    for arg in rest:
        flag = dashed(arg.split("=", 1)[0])
        if flag.startswith("--") and flag != "--help" and flag not in flags_of(kinds):
            close = _close_flags(flag, flags_of(kinds))
            hint = f"did you mean {' or '.join(close)}?" if close else f"see {prog} --help"
            raise UsageError(f"unknown flag {arg.split('=', 1)[0]}; {hint}")
    overrides = config.model.overrides | changes
    shown = config.replace(model=replace(config.model, overrides={}))  # tyro cannot add keys to a dictionary
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(
                type(config), default=shown, args=_plain_switches(rest, kinds), prog=prog, description=" "
            )
    except SystemExit as end:
        if not end.code:
            return None
        raise UsageError(f"{condensed(errors.getvalue())} (see {prog} --help)") from None
    return parsed.replace(model=replace(parsed.model, overrides=overrides))


def take_overrides(args: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """``args`` without the overrides of the model, and these by name.

    All of these say the same; values are JSON, other words are strings::

        --model.overrides localization true gamma_d 2
        --model.overrides localization=true gamma_d=2
        --model.overrides '{"localization": true, "gamma_d": 2}'
        --model.overrides.localization true --model.overrides.gamma-d=2
    """
    from saccade.training.config import parse_override

    rest: list[str] = []
    changes: dict[str, Any] = {}
    words = list(args)
    while words:
        flag, equals, value = words.pop(0).partition("=")
        if flag != OVERRIDES and not dashed(flag).startswith(f"{OVERRIDES}."):
            rest.append(flag + equals + value)
            continue
        values = [value] if equals else []
        while not equals and words and not words[0].startswith("--"):
            values.append(words.pop(0))
        if flag == OVERRIDES:
            changes |= parse_overrides(values)
        elif len(values) > 1:
            raise UsageError(f"{flag} takes one value, got {' '.join(values)}")
        else:
            changes[flag.removeprefix(f"{OVERRIDES}.")] = parse_override(values[0]) if values else True
    return rest, {name.replace("-", "_"): value for name, value in changes.items()}


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """The words behind ``--model.overrides``: pairs, assignments or one JSON object.

    Raises:
        UsageError: they are none of these.
    """
    from saccade.training.config import parse_override

    if len(words) == 1 and words[0].lstrip().startswith("{"):
        found = parse_override(words[0])
        if isinstance(found, dict):
            return found
    elif words and all(re.match(r"[\w-]+=", word) for word in words):
        return {name: parse_override(value) for name, _, value in (word.partition("=") for word in words)}
    elif words and len(words) % 2 == 0:
        return {name: parse_override(value) for name, value in zip(words[::2], words[1::2], strict=True)}
    raise UsageError(
        f"{OVERRIDES} takes names and values, e.g. gamma_w 0.5 localization true, or a JSON object; "
        f"got {' '.join(words) or 'nothing'}"
    )


def field_types(config_type: type, prefix: str = "") -> dict[str, Any]:
    """The type of every flag of a config class, nested ones by their dotted names: ``--optim.lr``."""
    found: dict[str, Any] = {}
    types = get_type_hints(config_type)
    for entry in fields(config_type):
        kind, name = types[entry.name], f"{prefix}{dashed(entry.name)}"
        if is_dataclass(kind) and isinstance(kind, type):
            found |= field_types(kind, f"{name}.")
        else:
            found[f"--{name}"] = kind
    return found


def flags_of(kinds: dict[str, Any]) -> list[str]:
    """Every flag, the negated ones of booleans too."""
    return [*kinds, *(_negated(flag) for flag, kind in kinds.items() if kind in (bool, bool | None))]


def _negated(flag: str) -> str:
    group, dot, name = flag.removeprefix("--").rpartition(".")
    return f"--{group}{dot}no-{name}"


def _plain_switches(args: Sequence[str], kinds: dict[str, Any]) -> list[str]:
    """Booleans take ``--flag``, ``--no-flag``, ``--flag true`` and ``--flag=false``; here they become what
    tyro takes: the first two, or ``--flag True`` and ``--flag None`` where None is possible.
    """
    positive = {flag: flag for flag, kind in kinds.items() if kind in (bool, bool | None)}
    negative = {_negated(flag): flag for flag in positive}
    result: list[str] = []
    words = list(args)
    while words:
        word = words.pop(0)
        given, equals, value = word.partition("=")
        flag = positive.get(dashed(given)) or negative.get(dashed(given))
        if flag is None:
            result.append(word)
            continue
        if not equals:
            value = words.pop(0) if words and words[0].lower() in (*_BOOLEANS, "none") else "true"
        value, optional = value.lower(), kinds[flag] is not bool
        if value == "none" and optional and dashed(given) in positive:
            result += [flag, "None"]
        elif value not in _BOOLEANS:
            raise UsageError(f"{given}: {value!r} is neither true nor false")
        else:
            on = _BOOLEANS[value] == (dashed(given) in positive)
            result += [flag, str(on)] if optional else [flag if on else _negated(flag)]
    return result


def _close_flags(name: str, known: Sequence[str]) -> list[str]:
    """At most three flags that were perhaps meant: spelt alike, or whose last part begins with ``name``."""
    wanted = name.removeprefix("--")
    alike = difflib.get_close_matches(wanted, [flag[2:] for flag in known], n=2, cutoff=0.75)
    begun = [flag[2:] for flag in known if flag[2:].rpartition(".")[2].startswith(wanted)] if wanted else []
    begun.sort(key=lambda flag: flag.rpartition(".")[2] != wanted)  # the exact name first
    return [f"--{flag}" for flag in dict.fromkeys([*alike, *begun])][:3]


def condensed(message: str) -> str:
    """The first sentence of one of tyro's framed messages, on one line, without colours and frame."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", message)
    body: list[str] = []
    for line in plain.splitlines()[1:]:  # the first line is a title
        words = re.sub("[\u2500-\u257f]|^ *-{5,} *$", " ", line).strip()
        if words:
            body.append(words)
        elif body:
            break
    text = " ".join(body).rstrip(".") or " ".join(message.split())
    union = re.fullmatch(
        r"Error parsing (\S+): no type matching (.+) could be instantiated from (\[.*\])", text
    )
    if union is None:
        return text
    flag, kinds, values = union.groups()
    kinds = re.sub("[{}]", "", kinds).replace("|", " or ")
    given = " ".join(re.findall("'([^']*)'", values))
    return f"{flag} takes {kinds}, got {given}"


def dashed(name: str) -> str:
    """``clip.num_frames`` as flags spell it: ``clip.num-frames``."""
    return name.replace("_", "-")
