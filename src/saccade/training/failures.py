"""Files that cannot be read: tolerated while few, never silently."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.data.types import ReadFailure
from saccade.errors import DataError
from saccade.training.distributed import Processes

TOLERATED = 3
LISTED = 3


class FailureLimit:
    """Counts the unreadable files of an epoch over all processes and ends the run when they are too many."""

    def __init__(self, share: float, clips_per_epoch: int, processes: Processes) -> None:
        self.share, self.clips = share, clips_per_epoch
        self.limit = max(share * clips_per_epoch, TOLERATED) if share > 0 else 0
        self._processes = processes
        self._first: list[str] = []

    def see(self, failures: Sequence[ReadFailure]) -> None:
        """Remember the first of this process's own failures, for the message."""
        for failure in failures[: LISTED - len(self._first)]:
            self._first.append(f"{failure.path} ({failure.cause})")

    def check(self, count: int) -> None:
        """``count`` failures in this epoch so far, over all processes. Every process must call this.

        Raises:
            DataError: above the limit; names share, limit and the first files.
        """
        if count <= self.limit:
            return
        files = [file for part in self._processes.gather(self._first) for file in part][:LISTED]
        raise DataError(
            f"{count} of {self.clips} clips of the epoch could not be read "
            f"({count / self.clips:.1%}; max_failures allows {self.share:.1%}): {'; '.join(files)}"
            f"{'; ...' if count > len(files) else ''}. Run `saccade data check` on the data set, "
            "or raise --max-failures"
        )
