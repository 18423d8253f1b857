"""Every error a user can cause. The command line prints them as one line, without a traceback.

The message names the file or the field, what was wrong, and what would be right.
"""

from __future__ import annotations


class SaccadeError(Exception):
    """Base of all errors that bad input can cause. The command line ends with exit code 1."""


class UsageError(SaccadeError):
    """The call itself is wrong: an unknown name, a bad flag. The command line ends with exit code 2."""


class ConfigError(UsageError):
    """A field of a recipe holds a value that cannot work. The message begins with the field's name."""


class DataError(SaccadeError):
    """A data set, list file or label is malformed, or too many of its videos cannot be read."""


class WeightsError(SaccadeError):
    """A checkpoint cannot be read, recognised or fitted to the model."""


class VideoError(SaccadeError):
    """A video cannot be read.

    Attributes:
        path: the file or folder.
        cause: what was wrong with it, in words.
    """

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)  # both in args: the error survives pickling between worker processes
        self.path = str(path)
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path}: {self.cause}"
