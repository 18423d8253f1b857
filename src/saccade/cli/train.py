"""``saccade train RECIPE``: the recipe's fields become flags."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, get_type_hints

from saccade.cli._args import Parser
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.training.config import TrainConfig

USAGE = """usage: saccade train RECIPE [--data PATH] [--field value ...] [--resume | --overwrite]

  --data PATH   the clips: a folder of class folders, a list file, or Something-Something (docs/data.md)
  --root DIR    where the files of a list lie, if not beside it
  --out DIR     the run folder; default runs/RECIPE
  --resume      go on with the run in that folder, with the settings it has
  --overwrite   replace the run in that folder
  --dry-run     print the plan of the run as a table and draw it, and stop there; no clips are read.
                [--num-clips N] instead of --data, [--devices N], [--picture FILE.png]

RECIPE is a name of those below or a file: .json, as `saccade expand` writes one, or .py with a function that
returns a TrainConfig. saccade train RECIPE --help shows every field of a recipe with its value.
With several GPUs: torchrun --nproc_per_node N -m saccade train RECIPE ...
"""


def run(args: list[str]) -> int:
    """The command; returns its exit code."""
    if not args or args[0] in ("-h", "--help"):
        print(f"{USAGE}\nrecipes:\n{_recipes()}")
        return 0 if args else 2
    from saccade.recipes import get_recipe

    if args[0].startswith("-"):
        raise UsageError(f"the recipe comes first: saccade train RECIPE {args[0]} ...")
    config = get_recipe(args[0])
    rest, plan = _split_plan_flags(args[1:])
    rest, flags = _split_flags(rest)
    if flags["resume"]:
        config = _settings_of_run(config, rest)
    parsed = parse_fields(config, rest, prog=f"saccade train {args[0]}")
    if parsed is None:
        return 0
    if plan is not None:
        from saccade.cli._plan import show_plan

        return show_plan(parsed, **plan)
    from saccade.training import train
    from saccade.training.reporting import ProgressBar

    with ProgressBar() as bar:
        train(parsed, callbacks=[bar], resume=flags["resume"], overwrite=flags["overwrite"])
    return 0


def parse_fields(config: TrainConfig, args: list[str], *, prog: str) -> TrainConfig | None:
    """``config`` with the fields that ``args`` change; None after printing help.

    Raises:
        UsageError: an unknown flag (names the closest ones) or a value that does not fit the field.
    """
    import tyro

    config, args = _with_overrides(config, args)
    known = known_flags(type(config)) + [
        f"--model.overrides.{_dashed(key)}" for key in config.model.overrides
    ]
    for arg in args:
        name = _dashed(arg.split("=", 1)[0])
        if name.startswith("--") and name != "--help" and name not in known:
            close = _close_flags(name, known)
            hint = f"did you mean {' or '.join(close)}?" if close else f"see {prog} --help"
            raise UsageError(f"unknown flag {arg.split('=', 1)[0]}; {hint}")
    args = _answered(type(config), args)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(type(config), default=config, args=args, prog=prog)
    except SystemExit as end:
        if not end.code:
            return None
        raise UsageError(f"{condensed(errors.getvalue())} (see {prog} --help)") from None


def _close_flags(name: str, known: list[str]) -> list[str]:
    """At most three flags that were perhaps meant: spelt alike, or whose last part begins with ``name``."""
    wanted = name.removeprefix("--")
    alike = difflib.get_close_matches(wanted, [flag[2:] for flag in known], n=2, cutoff=0.75)
    begun = [flag[2:] for flag in known if flag[2:].rpartition(".")[2].startswith(wanted)] if wanted else []
    begun.sort(key=lambda flag: flag.rpartition(".")[2] != wanted)  # the very name first
    return [f"--{flag}" for flag in dict.fromkeys([*alike, *begun])][:3]


def known_flags(config_type: type, prefix: str = "") -> list[str]:
    """Every flag of a config class, the negated ones of switches too."""
    flags = []
    types = get_type_hints(config_type)
    for entry in fields(config_type):
        kind, name = types[entry.name], _dashed(entry.name)
        if is_dataclass(kind) and isinstance(kind, type):
            flags += known_flags(kind, f"{prefix}{name}.")
            continue
        flags.append(f"--{prefix}{name}")
        if kind in (bool, bool | None):
            flags.append(f"--{prefix}no-{name}")
    return flags


def _answered(config_type: type, args: list[str]) -> list[str]:
    """Switches that may also be None, given like any other: ``--name`` and ``--no-name``.

    (tyro wants a value behind those.)
    """
    kinds = get_type_hints(config_type)
    names = [_dashed(entry.name) for entry in fields(config_type) if kinds[entry.name] == bool | None]
    values = {f"--{name}": [f"--{name}", "True"] for name in names}
    values |= {f"--no-{name}": [f"--{name}", "False"] for name in names}
    following = [*args[1:], ""][: len(args)]
    return [
        word
        for arg, after in zip(args, following, strict=True)
        for word in ([arg] if after in ("True", "False", "None") else values.get(_dashed(arg), [arg]))
    ]


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
    return " ".join(body).rstrip(".") or " ".join(message.split())


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _with_overrides(config: TrainConfig, args: list[str]) -> tuple[TrainConfig, list[str]]:
    """Takes ``--model.overrides NAME VALUE ...`` out of ``args`` and adds it to what the recipe overrides.

    (tyro gives a dictionary with values one flag per key and no way to add a key.)
    """
    if "--model.overrides" not in args:
        return config, args
    start = args.index("--model.overrides")
    end = next((i for i in range(start + 1, len(args)) if args[i].startswith("--")), len(args))
    words = args[start + 1 : end]
    from saccade.training.config import parse_override

    if not words or len(words) % 2:
        raise UsageError("--model.overrides takes names and values in turn, e.g. gamma_w 0.5 gamma_d 1")
    changes = {
        key.replace("-", "_"): parse_override(value)
        for key, value in zip(words[::2], words[1::2], strict=True)
    }
    model = replace(config.model, overrides={**config.model.overrides, **changes})
    return config.replace(model=model), args[:start] + args[end:]


def _split_flags(args: list[str]) -> tuple[list[str], dict[str, bool]]:
    flags = {name: f"--{name}" in args for name in ("resume", "overwrite")}
    return [arg for arg in args if arg not in ("--resume", "--overwrite")], flags


def _split_plan_flags(args: list[str]) -> tuple[list[str], dict[str, Any] | None]:
    """The other arguments; what --dry-run shows, None without it."""
    parser = Parser(prog="saccade train RECIPE --dry-run", add_help=False)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--num-clips", type=int)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--picture", default="")
    if "--dry-run" not in args:
        return args, None
    known, rest = parser.parse_known_args(args)
    for name, value in (("--num-clips", known.num_clips), ("--devices", known.devices)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    picture = {"num_clips": known.num_clips, "num_devices": known.devices, "picture": known.picture}
    return rest, picture


def _settings_of_run(config: TrainConfig, args: list[str]) -> TrainConfig:
    """The settings the run to resume was started with, so that they need not be repeated."""
    from saccade.runs import Run

    out = _value_of("--out", args) or config.out
    name = _value_of("--recipe", args) or config.recipe
    saved = Run(config.replace(out=out, recipe=name).run_dir).config
    if saved.recipe != name:
        raise UsageError(f"{saved.run_dir}: holds a run of {saved.recipe}, not of {name}")
    return saved


def _value_of(flag: str, args: list[str]) -> str:
    for position, arg in enumerate(args):
        if arg.startswith(f"{flag}="):
            return arg.split("=", 1)[1]
        if arg == flag and position + 1 < len(args):
            return args[position + 1]
    return ""


def _recipes() -> str:
    from saccade.recipes import RECIPES, summary

    width = max(map(len, RECIPES))
    rows: list[Any] = [f"  {name:<{width}}  {summary(name)}" for name in RECIPES]
    return "\n".join(rows)
