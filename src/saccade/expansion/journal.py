"""``expansion.jsonl``: every candidate of a search, written as it happens, and the lock of its folder.

Each line is one JSON object whose ``kind`` says what it is:

* ``search``: the settings, the first line; again where the search was resumed with others.
* ``candidate``: a network that a step tries, with its factors and its complexity.
* ``outcome``: one trial of it, with accuracy, seconds, seed and status; the candidate's fields are repeated,
  so that these lines alone are a table. ``run_dir`` is relative to the journal's folder, so that the folder
  can be moved.
* ``choice``: which candidate a step selected, the mean accuracy of each, and whether the difference is noise.
* ``latencies``: of the networks, timed in turns at the end (`saccade.expansion.counting.Latencies`).
* ``result``: the network the search ended with.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from saccade.errors import DataError, UsageError
from saccade.expansion.candidate import Candidate, Trial
from saccade.expansion.config import Complexity, Factors
from saccade.expansion.counting import Latencies

logger = logging.getLogger(__name__)

JOURNAL, LOCK = "expansion.jsonl", "expansion.lock"
CANDIDATES = "candidates"
"""Folder of the runs, in that of the search."""
Record = dict[str, Any]

_FACTORS = [field.name for field in fields(Factors)]
_COMPLEXITY = [field.name for field in fields(Complexity)]
_CANDIDATE = ["step", "axis", "contracted", "parent"]
_TRIAL = [field.name for field in fields(Trial) if field.name != "candidate"]


class Journal:
    """The open journal of one search.

    Lines are appended whole and flushed to the disk before `append` returns. An incomplete last line, as a
    crash leaves it, is removed when the journal is opened again.
    """

    def __init__(self, folder: Path) -> None:
        """Raises:
        DataError: a line that is not the last is damaged.
        UsageError: the folder cannot be made.
        """
        self.path = folder / JOURNAL
        _make_folder(folder)
        if self.path.exists():
            content = self.path.read_bytes()
            end = content.rfind(b"\n") + 1
            if end != len(content):
                os.truncate(self.path, end)
        self.records = read_journal(folder) if self.path.exists() else []

    def append(self, *records: Record) -> None:
        """Write lines, all at once."""
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        text = "".join(json.dumps({**record, "time": stamp}, ensure_ascii=False) + "\n" for record in records)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            data = text.encode()
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        self.records += records

    def candidates(self, step: int, *, contracted: bool = False) -> list[Candidate]:
        """The candidates that were written for a step; empty if none or not all of them were."""
        found = {
            record["name"]: record
            for record in self.records
            if record["kind"] == "candidate" and record["step"] == step and record["contracted"] == contracted
        }
        if any(record["of"] != len(found) for record in found.values()):
            return []
        return [candidate_of(record) for record in found.values()]

    def trials(self) -> list[Trial]:
        """All trials, in the order in which they ended."""
        folder = self.path.parent
        return [trial_of(record, folder) for record in self.records if record["kind"] == "outcome"]

    def has_chosen(self, step: int, *, contracted: bool = False) -> bool:
        """Whether that step, or its contraction, has selected a candidate."""
        return any(
            record["kind"] == "choice" and record["step"] == step and record["contracted"] == contracted
            for record in self.records
        )

    def add_trial(self, trial: Trial) -> None:
        """Write a trial."""
        self.append(_trial_record(trial, self.path.parent))

    def add_candidates(self, candidates: Sequence[Candidate]) -> None:
        """Write the candidates of a step."""
        self.append(*({"kind": "candidate", **flat(one), "of": len(candidates)} for one in candidates))

    def add_latencies(self, latencies: Latencies) -> None:
        """Write what was timed at the end."""
        self.append({"kind": "latencies", **asdict(latencies)})


def read_journal(folder: Path) -> list[Record]:
    """The lines of a search's journal, without an incomplete last line.

    Raises:
        UsageError: there is no journal.
        DataError: another line is damaged.
    """
    path = folder / JOURNAL
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder}: holds no search ({JOURNAL} is missing)") from None
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            record["kind"]
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            raise DataError(f"{path}:{number}: not a line of a journal: {line[:60]!r}") from None
        records.append(record)
    return records


def settings_in(records: Sequence[Record]) -> Record | None:
    """The last settings of a journal; None if it has none."""
    return next((record["settings"] for record in reversed(records) if record["kind"] == "search"), None)


def steps_in(records: Sequence[Record]) -> int:
    """Number of steps of a journal that selected a candidate."""
    return max((record["step"] for record in records if record["kind"] == "choice"), default=0)


def result_in(records: Sequence[Record]) -> Record | None:
    """The result of a journal's search; None while it has not ended, or continues."""
    return _last(records, "result")


def latencies_in(records: Sequence[Record]) -> Latencies | None:
    """The latencies that were timed at the end; None while the search has not ended, or continues."""
    record = _last(records, "latencies")
    return Latencies(**_pick(record, [field.name for field in fields(Latencies)])) if record else None


def _last(records: Sequence[Record], kind: str) -> Record | None:
    """The last record of a kind, if no step's record follows it."""
    for record in reversed(records):
        if record["kind"] in ("candidate", "outcome", "choice"):
            return None
        if record["kind"] == kind:
            return record
    return None


def flat(candidate: Candidate) -> Record:
    """A candidate's fields, with those of its factors and its complexity."""
    own = {name: getattr(candidate, name) for name in _CANDIDATE}
    return {"name": candidate.name, **own, **asdict(candidate.factors), **asdict(candidate.complexity)}


def candidate_of(record: Record) -> Candidate:
    """The inverse of `flat`."""
    return Candidate(
        factors=Factors(**_pick(record, _FACTORS)),
        complexity=Complexity(**_pick(record, _COMPLEXITY)),
        **_pick(record, _CANDIDATE),
    )


def _trial_record(trial: Trial, folder: Path) -> Record:
    own = {name: getattr(trial, name) for name in _TRIAL}
    return {"kind": "outcome", **flat(trial.candidate), **own, "run_dir": portable(trial.run_dir, folder)}


def trial_of(record: Record, folder: Path) -> Trial:
    """The trial of a journal's line; its run folder is an absolute path, see `located`."""
    values = {**_pick(record, _TRIAL), "run_dir": located(record.get("run_dir", ""), folder)}
    return Trial(candidate=candidate_of(record), **values)


def _pick(record: Record, names: Iterable[str]) -> Record:
    return {name: record[name] for name in names if name in record}


def portable(run_dir: str, folder: Path) -> str:
    """A run's folder relative to that of its search, absolute if it is elsewhere; empty stays empty."""
    if not run_dir:
        return ""
    run, home = Path(os.path.abspath(run_dir)), Path(os.path.abspath(folder))
    return run.relative_to(home).as_posix() if run.is_relative_to(home) else str(run)


def located(run_dir: str, folder: Path) -> str:
    """The absolute path of a run that a journal in ``folder`` names; the inverse of `portable`.

    Older journals have the path as the command line had it, which is wrong in another working directory and
    after the search was moved: the run in the search's own folder comes first.
    """
    if not run_dir:
        return ""
    paths = [folder / CANDIDATES / Path(run_dir).name, folder / run_dir, Path(run_dir)]
    return os.path.abspath(next((path for path in paths if path.is_dir()), folder / run_dir))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_a_folder(folder, error) from None


def _not_a_folder(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"{folder}: cannot hold a search ({error.strerror}); name a folder")


# ------------------------------------------------------------------------------------------------------ lock


class FolderLock:
    """A file in the folder of a search that one process at a time can hold. The kernel releases it when that
    process ends, however it ends; the file that a killed process leaves is taken over.
    """

    def __init__(self, folder: Path) -> None:
        """Lock the folder, which is made if need be.

        Raises:
            UsageError: another search holds the lock, or the folder cannot be made.
        """
        self.path = folder / LOCK
        _make_folder(folder)
        try:
            self._descriptor = self._acquire()
        except OSError as error:
            raise _not_a_folder(folder, error) from None

    def release(self) -> None:
        """Release the lock and remove its file."""
        self.path.unlink(missing_ok=True)  # while it is held, so that nobody else's is removed
        os.close(self._descriptor)

    def _acquire(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode(errors="replace")
                os.close(descriptor)
                raise UsageError(
                    f"{self.path.parent}: another search is running there (process {holder or 'unknown'}); "
                    "wait for it, or choose another folder with --out"
                ) from None
            except OSError as error:  # a file system without locks
                logger.warning(
                    f"{self.path}: cannot be locked ({error.strerror}); run one search at a time there"
                )
                return descriptor
            if self._is_current(descriptor):
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
            os.close(descriptor)  # the process before was about to remove it

    def _is_current(self, descriptor: int) -> bool:
        """Whether the open file is still the one at the path."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False
