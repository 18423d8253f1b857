"""``expansion.jsonl``, the append-only journal of a search, and the lock of the search's folder.

Each line is a JSON object. Its ``kind`` is one of:

* ``search``: the settings; the first line, and again if the search is resumed with changed settings.
* ``candidate``: a network that a step trains, with its factors and its complexity.
* ``outcome``: one trial of a candidate, with accuracy, seconds, seed and status. It repeats the candidate's
  fields, so that these lines form a table. ``run_dir`` is relative to the journal.
* ``choice``: the candidate that a step selected, all mean accuracies, and which are within noise.
* ``latencies``: latencies measured at the end of the search (`saccade.expansion.counting.Latencies`).
* ``result``: the network that the search ended with.
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
from saccade.files import json_text

logger = logging.getLogger(__name__)

JOURNAL, LOCK = "expansion.jsonl", "expansion.lock"
CANDIDATES = "candidates"
"""Folder of the candidates' runs, inside the folder of the search."""
Record = dict[str, Any]

_FACTORS = [field.name for field in fields(Factors)]
_COMPLEXITY = [field.name for field in fields(Complexity)]
_CANDIDATE = ["step", "axis", "contracted", "parent"]
_TRIAL = [field.name for field in fields(Trial) if field.name != "candidate"]


class Journal:
    """The open journal of one search.

    `append` returns after its lines are flushed to the disk. Opening a journal removes an incomplete last
    line, as left by a crash.

    Raises:
        DataError: a line other than the last is damaged.
        UsageError: the folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        _make_folder(folder)
        if self.path.exists():
            content = _read_bytes(self.path)
            end = content.rfind(b"\n") + 1
            if end != len(content):
                os.truncate(self.path, end)
        self.records = read_journal(folder) if self.path.exists() else []

    def append(self, *records: Record) -> None:
        """Append records with the current time."""
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        text = "".join(json_text({**record, "time": stamp}) + "\n" for record in records)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            data = text.encode()
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
        except OSError as error:  # a full disk names nothing
            error.filename = str(self.path)
            raise
        finally:
            os.close(handle)
        self.records += records

    def candidates(self, step: int, *, contracted: bool = False) -> list[Candidate]:
        """The candidates of a step; empty if not all of them are in the journal."""
        found = {
            record["name"]: record
            for record in self.records
            if record["kind"] == "candidate" and record["step"] == step and record["contracted"] == contracted
        }
        if any(record["of"] != len(found) for record in found.values()):
            return []
        return [parse_candidate(record) for record in found.values()]

    def trials(self) -> list[Trial]:
        """All trials, in the order in which they finished."""
        folder = self.path.parent
        return [parse_trial(record, folder) for record in self.records if record["kind"] == "outcome"]

    def has_choice(self, step: int, *, contracted: bool = False) -> bool:
        """Whether a step, or its contraction, has selected a candidate."""
        return any(
            record["kind"] == "choice" and record["step"] == step and record["contracted"] == contracted
            for record in self.records
        )

    def add_trial(self, trial: Trial) -> None:
        """Append a trial."""
        fields = {name: getattr(trial, name) for name in _TRIAL}
        fields["run_dir"] = relative_run_dir(trial.run_dir, self.path.parent)
        self.append({"kind": "outcome", **candidate_record(trial.candidate), **fields})

    def add_candidates(self, candidates: Sequence[Candidate]) -> None:
        """Append the candidates of a step."""
        num = len(candidates)
        self.append(*({"kind": "candidate", **candidate_record(one), "of": num} for one in candidates))

    def add_latencies(self, latencies: Latencies) -> None:
        """Append the latencies measured at the end of the search."""
        self.append({"kind": "latencies", **asdict(latencies)})


def read_journal(folder: Path) -> list[Record]:
    """The records of a journal, without an incomplete last line.

    Raises:
        UsageError: there is no journal.
        DataError: a line other than the last is damaged.
    """
    path = folder / JOURNAL
    lines = _read_bytes(path).split(b"\n")
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
            raise DataError(f"{path}:{number}: not a journal line: {line[:60]!r}") from None
        records.append(record)
    return records


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path.parent}: not the folder of a search ({path.name} is missing)") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def settings_in(records: Sequence[Record]) -> Record | None:
    """The latest settings in a journal; None if there are none."""
    return next((record["settings"] for record in reversed(records) if record["kind"] == "search"), None)


def steps_in(records: Sequence[Record]) -> int:
    """Number of the last step that selected a candidate."""
    return max((record["step"] for record in records if record["kind"] == "choice"), default=0)


def result_in(records: Sequence[Record]) -> Record | None:
    """The result of the search; None if it has not ended, or was resumed since."""
    return _last(records, "result")


def latencies_in(records: Sequence[Record]) -> Latencies | None:
    """The latencies measured at the end; None if the search has not ended, or was resumed since."""
    record = _last(records, "latencies")
    return Latencies(**_pick(record, [field.name for field in fields(Latencies)])) if record else None


def _last(records: Sequence[Record], kind: str) -> Record | None:
    """The last record of a kind, or None if records of a step follow it."""
    for record in reversed(records):
        if record["kind"] in ("candidate", "outcome", "choice"):
            return None
        if record["kind"] == kind:
            return record
    return None


def candidate_record(candidate: Candidate) -> Record:
    """A candidate's fields together with those of its factors and its complexity."""
    fields = {name: getattr(candidate, name) for name in _CANDIDATE}
    return {"name": candidate.name, **fields, **asdict(candidate.factors), **asdict(candidate.complexity)}


def parse_candidate(record: Record) -> Candidate:
    """The inverse of `candidate_record`."""
    return Candidate(
        factors=Factors(**_pick(record, _FACTORS)),
        complexity=Complexity(**_pick(record, _COMPLEXITY)),
        **_pick(record, _CANDIDATE),
    )


def parse_trial(record: Record, folder: Path) -> Trial:
    """The trial of an ``outcome`` record, with the absolute path of its run folder."""
    values = {**_pick(record, _TRIAL), "run_dir": absolute_run_dir(record.get("run_dir", ""), folder)}
    return Trial(candidate=parse_candidate(record), **values)


def _pick(record: Record, names: Iterable[str]) -> Record:
    return {name: record[name] for name in names if name in record}


def relative_run_dir(run_dir: str, folder: Path) -> str:
    """A run folder relative to the search's ``folder``, or absolute if outside it; empty stays empty."""
    if not run_dir:
        return ""
    run, search = Path(os.path.abspath(run_dir)), Path(os.path.abspath(folder))
    return run.relative_to(search).as_posix() if run.is_relative_to(search) else str(run)


def absolute_run_dir(run_dir: str, folder: Path) -> str:
    """The inverse of `relative_run_dir`.

    Journals of older versions have paths relative to the working directory of the command. These are wrong in
    another working directory or after moving the search, so runs inside ``folder`` take precedence.
    """
    if not run_dir:
        return ""
    paths = [folder / CANDIDATES / Path(run_dir).name, folder / run_dir, Path(run_dir)]
    return os.path.abspath(next((path for path in paths if path.is_dir()), folder / run_dir))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _folder_error(folder, error) from None


def _folder_error(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"{folder}: cannot be used as the folder of a search ({error.strerror})")


# ------------------------------------------------------------------------------------------------------ lock


class FolderLock:
    """Locks the folder of a search, and creates it if needed. The kernel releases the lock when the process
    ends, even if killed; the file that remains then can be locked again.

    Raises:
        UsageError: another search holds the lock, or the folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        _make_folder(folder)
        try:
            self._descriptor = self._acquire()
        except OSError as error:
            raise _folder_error(folder, error) from None

    def release(self) -> None:
        """Release the lock and remove its file."""
        self.path.unlink(missing_ok=True)  # while still locked, so that no other process's file is removed
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
                    f"{self.path}: cannot be locked ({error.strerror}); run only one search in this folder"
                )
                return descriptor
            if self._is_current(descriptor):
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
            os.close(descriptor)  # the previous process was just removing it

    def _is_current(self, descriptor: int) -> bool:
        """Whether the open file is still the one at the path."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False
