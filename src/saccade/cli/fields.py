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
CAUSAL = "--causal"  # a switch: a network that streams, see docs/streaming.md
_BOOLEANS = {"true": True, "false": False}


def parse_fields(config: TrainConfig, args: Sequence[str], *, prog: str) -> TrainConfig | None:
    """``config`` changed by the flags in ``args``; None after printing help.

    Raises:
        UsageError: an unknown flag or an invalid value.
    """
    import tyro

    from saccade.cli.flags import check_dashes

    check_dashes(args)
    rest, changes = take_overrides(args)
    types = field_types(type(config))
    for arg in rest:
        flag = dashed(arg.split("=", 1)[0])
        if flag.startswith("--") and flag != "--help" and flag not in flags_of(types):
            close = _close_flags(flag, flags_of(types))
            hint = f"did you mean {' or '.join(close)}?" if close else f"see {prog} --help"
            raise UsageError(f"unknown flag {arg.split('=', 1)[0]}; {hint}")
    overrides = config.model.overrides | changes
    default = config.replace(model=replace(config.model, overrides={}))  # tyro cannot add keys to a dict
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(
                type(config),
                default=default,
                args=_normalise_booleans(rest, types),
                prog=prog,
                description=" ",
            )
    except SystemExit as exit_:
        if not exit_.code:
            return None
        raise UsageError(f"{condensed(errors.getvalue())} (see {prog} --help)") from None
    return parsed.replace(model=replace(parsed.model, overrides=overrides))


def take_overrides(args: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Split ``args`` into the other arguments and the overrides of the model.

    Values are JSON, or strings if they are not valid JSON. These are equivalent::

        --model.overrides localization true gamma_d 2
        --model.overrides localization=true gamma_d=2
        --model.overrides '{"localization": true, "gamma_d": 2}'
        --model.overrides.localization true --model.overrides.gamma-d=2

    ``--causal`` is short for ``--model.overrides causal=true``.
    """
    from saccade.training.config import parse_override

    rest: list[str] = []
    changes: dict[str, Any] = {}
    words = list(args)
    while words:
        flag, equals, value = words.pop(0).partition("=")
        if flag == CAUSAL and not equals:
            changes["causal"] = True
            continue
        if flag != OVERRIDES and not dashed(flag).startswith(f"{OVERRIDES}."):
            rest.append(flag + equals + value)
            continue
        values = [value] if equals else []
        while not equals and words and not words[0].startswith("--"):
            values.append(words.pop(0))
        if flag == OVERRIDES:
            changes |= parse_overrides(values)
        elif len(values) > 1:
            raise UsageError(f"{flag}: needs one value, got {' '.join(values)}")
        else:
            changes[flag.removeprefix(f"{OVERRIDES}.")] = parse_override(values[0]) if values else True
    return rest, {name.replace("-", "_"): value for name, value in changes.items()}


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Parse the values of ``--model.overrides``: names and values, assignments, or one JSON object.

    Raises:
        UsageError: another syntax.
    """
    from saccade.training.config import parse_override

    if len(words) == 1 and words[0].lstrip().startswith("{"):
        value = parse_override(words[0])
        if isinstance(value, dict):
            return value
    elif words and all(re.match(r"[\w-]+=", word) for word in words):
        return {name: parse_override(value) for name, _, value in (word.partition("=") for word in words)}
    elif words and len(words) % 2 == 0:
        return {name: parse_override(value) for name, value in zip(words[::2], words[1::2], strict=True)}
    raise UsageError(
        f"{OVERRIDES}: needs names and values, e.g. gamma_w 0.5 localization true, or a JSON object; "
        f"got {' '.join(words) or 'nothing'}"
    )


def field_types(config_type: type, prefix: str = "") -> dict[str, Any]:
    """Flag -> type of all fields of a config class, including nested ones such as ``--optim.lr``."""
    flags: dict[str, Any] = {}
    types = get_type_hints(config_type)
    for entry in fields(config_type):
        kind, name = types[entry.name], f"{prefix}{dashed(entry.name)}"
        if is_dataclass(kind) and isinstance(kind, type):
            flags |= field_types(kind, f"{name}.")
        else:
            flags[f"--{name}"] = kind
    return flags


def flags_of(types: dict[str, Any]) -> list[str]:
    """All flags, including the negated flags of booleans."""
    return [*types, *(_negated(flag) for flag, kind in types.items() if kind in (bool, bool | None))]


def _negated(flag: str) -> str:
    group, dot, name = flag.removeprefix("--").rpartition(".")
    return f"--{group}{dot}no-{name}"


def _normalise_booleans(args: Sequence[str], types: dict[str, Any]) -> list[str]:
    """Convert boolean flags (``--flag``, ``--no-flag``, ``--flag true``, ``--flag=false``) to tyro's syntax:
    ``--flag`` and ``--no-flag``, or for optional booleans ``--flag True`` and ``--flag None``.
    """
    positive = {flag: flag for flag, kind in types.items() if kind in (bool, bool | None)}
    negative = {_negated(flag): flag for flag in positive}
    result: list[str] = []
    words = list(args)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        flag = positive.get(dashed(name)) or negative.get(dashed(name))
        if flag is None:
            result.append(word)
            continue
        if not equals:
            value = words.pop(0) if words and words[0].lower() in (*_BOOLEANS, "none") else "true"
        value, optional = value.lower(), types[flag] is not bool
        if value == "none" and optional and dashed(name) in positive:
            result += [flag, "None"]
        elif value not in _BOOLEANS:
            raise UsageError(f"{name}: must be true or false, got {value!r}")
        else:
            on = _BOOLEANS[value] == (dashed(name) in positive)
            result += [flag, str(on)] if optional else [flag if on else _negated(flag)]
    return result


def _close_flags(name: str, known: Sequence[str]) -> list[str]:
    """At most three similar flags: similar spelling, or a last part that starts with ``name``."""
    wanted = name.removeprefix("--")
    similar = difflib.get_close_matches(wanted, [flag[2:] for flag in known], n=2, cutoff=0.75)
    prefixed = [f[2:] for f in known if f[2:].rpartition(".")[2].startswith(wanted)] if wanted else []
    prefixed.sort(key=lambda flag: flag.rpartition(".")[2] != wanted)  # the exact name first
    return [f"--{flag}" for flag in dict.fromkeys([*similar, *prefixed])][:3]


def condensed(message: str) -> str:
    """The first sentence of a message of tyro on one line, without colours and frame."""
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
    flag, types, values = union.groups()
    types = re.sub("[{}]", "", types).replace("|", " or ")
    given = " ".join(re.findall("'([^']*)'", values))
    return f"{flag}: must be {types}, got {given}"


def dashed(name: str) -> str:
    """``clip.num_frames`` -> ``clip.num-frames``, as in flags."""
    return name.replace("_", "-")
