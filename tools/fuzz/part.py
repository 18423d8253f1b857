"""What the parts share: running their cases in children, and judging what a call made of damaged input."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tools.fuzz import children
from tools.fuzz.report import Summary

from saccade.cli import FAILED, PARTIAL, USAGE
from saccade.cli import main as saccade_command
from saccade.errors import SaccadeError

LOADED, REFUSED = "loaded", "refused"
SEVERAL_LINES = "message of several lines"


class Part(Protocol):
    """The cases of one part; a case's number says all about it.

    Attributes:
        good: the outcomes that are no failure, with what they mean.
    """

    good: Mapping[str, str]

    def run(self, case: int) -> dict[str, Any]:
        """What became of a case: ``outcome``, and whatever explains it. Runs in a child."""

    def describe(self, case: int) -> dict[str, Any]:
        """What a case does, for one that did not live to say it."""

    def keep(self, case: int) -> None:
        """Write the input of a failing case where it stays."""


def run_part(
    name: str,
    part: Part,
    folder: Path,
    cases: list[int],
    *,
    jobs: int,
    minutes: float | None,
    cpu_s: int = 10,
    wall_s: float = 600,
) -> Summary:
    """Run the cases of a part in children; see `tools.fuzz.children.run_cases` for the limits."""
    summary = Summary(name, folder, good=part.good, total=len(cases), minutes=minutes)
    outcomes = children.run_cases(summary.until_late(cases), part.run, jobs=jobs, cpu_s=cpu_s, wall_s=wall_s)
    for outcome in outcomes:
        if outcome.ended == "done":
            kind, detail = outcome.result["outcome"], outcome.result
        else:
            kind = f"{outcome.ended} ({outcome.stage.split(' ')[0]})"
            detail = {**part.describe(outcome.case), "stage": outcome.stage, "detail": outcome.detail}
        if summary.add(outcome.case, kind, detail):
            part.keep(outcome.case)
    return summary


def call(function: Callable[[], Any]) -> tuple[str, str]:
    """Whether a call succeeded or raised a `SaccadeError` of one line, and its message; others propagate."""
    try:
        with warnings.catch_warnings(action="ignore"):
            function()
    except SaccadeError as error:
        message = str(error)
        return (SEVERAL_LINES if "\n" in message.strip() or not message.strip() else REFUSED), message
    return LOADED, ""


def command(*args: str) -> tuple[str, str]:
    """The same for a command: it must succeed, or end with the exit code of an error and one line that
    says why."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = saccade_command(list(args))
    said = errors.getvalue()
    return judge_command(code, said), said[-800:]


def judge_command(code: int, errors: str) -> str:
    """The outcome of a command by its exit code and what it wrote to stderr."""
    lines = [line for line in errors.splitlines() if line.strip()]
    if "Traceback (most recent call last)" in errors:
        return "traceback"
    if code == 0:
        return LOADED
    found = [line for line in lines if line.startswith("saccade: error:")]
    if code not in (PARTIAL, USAGE, FAILED) or len(found) != 1 or lines[-1] != found[0]:
        return f"exit code {code} with {len(found)} error lines"
    return REFUSED
