"""The errors that Saccade raises on purpose, all under `SaccadeError`.

The message is one line that names the file or the field, what is wrong with it, and what would be right. The
command line prints it without a traceback and ends with an exit code of `saccade.cli.EXIT_CODES`: 3 for a
`TrainingError`, 1 for a `VideoError`, 2 for the others. Anything else that escapes (a ``TypeError``, an
``IndexError``) is a bug.
"""

from __future__ import annotations

# what PyTorch says on a CPU, and cuDNN and cuBLAS on a GPU, when there is no memory left
_NO_MEMORY = ("t allocate memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or PyTorch means that the memory of the machine or the device is short."""
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY))


class SaccadeError(Exception):
    """Base class of all errors that bad input can cause."""


class UsageError(SaccadeError):
    """Wrong usage: an unknown name, a bad flag, an argument out of range, a missing path."""


class ConfigError(UsageError):
    """A field of a recipe has an invalid value; the message begins with the name of the field.

    It is raised before a run folder is written.
    """


class DataError(SaccadeError):
    """A data set, list file or label is malformed, a listed file is missing, or too many are unreadable."""


class WeightsError(SaccadeError):
    """A checkpoint cannot be read, has an unknown format, or does not fit the model."""


class TrainingError(SaccadeError):
    """Training cannot continue: the loss is not finite, or memory is short."""


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
