"""The errors that Saccade raises on purpose, all under `SaccadeError`.

The message is one line that names the file or the field, what is wrong with it, and what would be right. The
command line prints it without a traceback and ends with the exit code in `saccade.cli.EXIT_CODES`: 2 for a
`UsageError`, 1 for the others. Anything else that escapes (a ``TypeError``, an ``IndexError``) is a bug.
"""

from __future__ import annotations


class SaccadeError(Exception):
    """Base class: ``except saccade.SaccadeError`` catches all that bad input can cause."""


class UsageError(SaccadeError):
    """The call is wrong: an unknown name, a bad flag, an argument out of range, a missing path."""


class ConfigError(UsageError):
    """A field of a recipe has a value that cannot work; the message begins with the field's name.

    Raised before a run folder is written.
    """


class DataError(SaccadeError):
    """A data set, list file or label is malformed, a listed file is missing, or too many cannot be read."""


class WeightsError(SaccadeError):
    """A checkpoint cannot be read, is of no known format, or does not fit the model."""


class TrainingError(SaccadeError):
    """Training cannot go on: the loss is not finite, or the device is out of memory."""


class VideoError(SaccadeError):
    """A video cannot be opened or decoded.

    Attributes:
        path: the file or folder of frames.
        cause: what is wrong with it.
    """

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)  # both in args: the error survives pickling between worker processes
        self.path = str(path)
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path}: {self.cause}"
