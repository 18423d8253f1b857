"""Argument parsing shared by the commands: errors of use are one line and leave with exit code 2."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from saccade.errors import UsageError


def check_score(flag: str, value: float | None) -> None:
    """Refuse a score that is none."""
    if value is not None and not 0 <= value <= 1:
        raise UsageError(f"{flag} must be a score, 0 to 1, got {value}")


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` whose errors are `UsageError`s and whose flags may not be abbreviated."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` with the message and where to look."""
        raise UsageError(f"{message} (see {self.prog} --help)")
