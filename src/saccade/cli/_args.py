"""Argument parsing shared by the commands: errors of use are one line and leave with exit code 2."""

from __future__ import annotations

import argparse
from typing import NoReturn

from saccade.errors import UsageError


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` whose errors are `UsageError`s; flags may not be abbreviated."""

    def __init__(self, command: str, summary: str = "", *, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"saccade {command}",
            description=summary,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")
