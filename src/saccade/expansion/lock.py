"""One search at a time in a folder."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from saccade.errors import UsageError

logger = logging.getLogger(__name__)

LOCK = "expansion.lock"


class FolderLock:
    """A file in the folder of a search that one process alone can hold. The kernel releases it when that
    process ends, however it ends; what a killed one leaves is taken over.
    """

    def __init__(self, folder: Path) -> None:
        """Take it.

        Raises:
            UsageError: another search holds it, or the folder cannot be made.
        """
        self.path = folder / LOCK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._taken()
        except OSError as error:
            raise UsageError(f"{folder}: cannot hold a search ({error.strerror}); name a folder") from None

    def release(self) -> None:
        """Give it back."""
        self.path.unlink(missing_ok=True)  # while it is held: nobody else's is removed
        os.close(self._descriptor)

    def _taken(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode(errors="replace")
                os.close(descriptor)
                raise UsageError(
                    f"{self.path.parent}: another search is under way there (process {holder or 'unknown'}); "
                    "wait for it, or choose another folder with --out"
                ) from None
            except OSError as error:  # a file system without locks
                logger.warning(
                    f"{self.path}: cannot be locked ({error.strerror}); start one search alone there"
                )
                return descriptor
            if self._is_current(descriptor):
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
            os.close(descriptor)  # the one before was about to remove it

    def _is_current(self, descriptor: int) -> bool:
        """Whether the open file is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False
