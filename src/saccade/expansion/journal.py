"""``expansion.jsonl``: every candidate of a search, written as it happens.

Each line is one JSON object whose ``kind`` says what it is:

* ``search``: the settings, the first line; again where the search went on with others (see
  `saccade.expansion.settings`).
* ``candidate``: a network that a step tries, with its factors and its complexity.
* ``outcome``: one training of it, with accuracy, seconds, seed and status; the candidate's fields are there
  again, so that these lines alone are a table. ``run_dir`` is relative to the journal's folder, so that the
  folder may be moved.
* ``choice``: which candidate a step kept, the mean score of each, and whether the difference is noise.
* ``latencies``: of the networks, timed in turns once the last was trained (`saccade.expansion.timing`).
* ``result``: the network the search ended with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from saccade.errors import DataError, UsageError
from saccade.expansion.types import Candidate, Complexity, Factors, Outcome

JOURNAL = "expansion.jsonl"
CANDIDATES = "candidates"
"""Folder of the runs, in that of the search."""
Record = dict[str, Any]

_FACTORS = [field.name for field in fields(Factors)]
_COMPLEXITY = [field.name for field in fields(Complexity)]
_CANDIDATE = ["step", "axis", "contracted", "parent"]
_OUTCOME = [field.name for field in fields(Outcome) if field.name != "candidate"]


class Journal:
    """The open journal of one search.

    Lines are appended whole and flushed to the disk before `append` returns. What a crash tore off at the end
    is cut away when the journal is opened again.
    """

    def __init__(self, folder: Path) -> None:
        """Raises:
        DataError: a line that is not the last is damaged.
        UsageError: the folder cannot be made.
        """
        self.path = folder / JOURNAL
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot hold a search ({error.strerror}); name a folder") from None
        if self.path.exists():
            whole = self.path.read_bytes()
            kept = whole[: whole.rfind(b"\n") + 1]
            if kept != whole:
                os.truncate(self.path, len(kept))
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

    def settings(self) -> Record | None:
        """The settings this search goes on with; None in a new journal."""
        return settings_in(self.records)

    def steps_made(self) -> int:
        """Steps that came to their choice."""
        return steps_in(self.records)

    def candidates(self, step: int, *, contracted: bool = False) -> list[Candidate]:
        """The candidates a step was laid out with, empty if it was not, or not to the end."""
        found = {
            record["name"]: record
            for record in self.records
            if record["kind"] == "candidate" and record["step"] == step and record["contracted"] == contracted
        }
        if any(record["of"] != len(found) for record in found.values()):
            return []
        return [candidate_of(record) for record in found.values()]

    def outcomes(self) -> list[Outcome]:
        """All trainings, in the order in which they ended."""
        folder = self.path.parent
        return [outcome_of(record, folder) for record in self.records if record["kind"] == "outcome"]

    def chosen(self, step: int, *, contracted: bool = False) -> bool:
        """Whether that step, or its contraction, came to its choice."""
        return any(
            record["kind"] == "choice" and record["step"] == step and record["contracted"] == contracted
            for record in self.records
        )

    def add(self, outcome: Outcome) -> None:
        """Write a training."""
        self.append(flat_outcome(outcome, self.path.parent))

    def lay_out(self, candidates: Sequence[Candidate]) -> None:
        """Write the candidates of a step."""
        self.append(*({"kind": "candidate", **flat(entry), "of": len(candidates)} for entry in candidates))


def read_journal(folder: Path) -> list[Record]:
    """The lines of a search's journal; a last line that a crash tore is left out.

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
    """Steps of a journal that came to their choice."""
    return max((record["step"] for record in records if record["kind"] == "choice"), default=0)


def result_in(records: Sequence[Record]) -> Record | None:
    """The result of a journal's search; None while it has not ended, or goes on."""
    for record in reversed(records):
        if is_progress(record):
            return None
        if record["kind"] == "result":
            return record
    return None


def is_progress(record: Record) -> bool:
    """Whether a search that writes such a record has not come to its end."""
    return record["kind"] in ("candidate", "outcome", "choice")


def flat(candidate: Candidate) -> Record:
    """A candidate's fields, those of its factors and its complexity among them."""
    own = {name: getattr(candidate, name) for name in _CANDIDATE}
    return {"name": candidate.name, **own, **asdict(candidate.factors), **asdict(candidate.complexity)}


def flat_outcome(outcome: Outcome, folder: Path) -> Record:
    """An outcome's line in the journal of the search in ``folder``."""
    own = {name: getattr(outcome, name) for name in _OUTCOME}
    return {
        "kind": "outcome",
        **flat(outcome.candidate),
        **own,
        "run_dir": portable(outcome.run_dir, folder),
    }


def candidate_of(record: Record) -> Candidate:
    """The inverse of `flat`."""
    return Candidate(
        factors=Factors(**_pick(record, _FACTORS)),
        complexity=Complexity(**_pick(record, _COMPLEXITY)),
        **_pick(record, _CANDIDATE),
    )


def outcome_of(record: Record, folder: Path) -> Outcome:
    """The inverse of `flat_outcome`; the run's folder is an absolute path, see `located`."""
    values = {**_pick(record, _OUTCOME), "run_dir": located(record.get("run_dir", ""), folder)}
    return Outcome(candidate=candidate_of(record), **values)


def portable(run_dir: str, folder: Path) -> str:
    """A run's folder relative to that of its search, absolute if it is elsewhere; empty stays empty."""
    if not run_dir:
        return ""
    run, home = Path(os.path.abspath(run_dir)), Path(os.path.abspath(folder))
    return run.relative_to(home).as_posix() if run.is_relative_to(home) else str(run)


def located(run_dir: str, folder: Path) -> str:
    """The absolute path of a run that a journal in ``folder`` names; the inverse of `portable`.

    Older journals have the path as the command line had it, which means nothing from another place or once
    the search was moved: the run in the search's own folder comes first.
    """
    if not run_dir:
        return ""
    own = folder / CANDIDATES / Path(run_dir).name
    places = [own, folder / run_dir, Path(run_dir)]
    found = next((place for place in places if place.is_dir()), folder / run_dir)
    return os.path.abspath(found)


def _pick(record: Record, names: Iterable[str]) -> Record:
    return {name: record[name] for name in names if name in record}
