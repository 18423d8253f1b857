"""Worker processes that cannot start, or that die: one error that says what to change."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from saccade.data.workers import end_processes, loader_options, lost_worker, process_pool, worker_died
from saccade.errors import DataError, TrainingError, UsageError

GUARDED = 'def main(): ...\n\nif __name__ == "__main__":\n    main()\n'


def script(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    main.__file__, main.__spec__ = file, None
    monkeypatch.setitem(sys.modules, "__main__", main)


@pytest.mark.parametrize(
    "source", ["train()\n", '"""Without `if __name__ == "__main__":`."""\ntrain()\n', "# __main__\ntrain()\n"]
)
def test_a_script_without_a_main_guard(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.py").write_text(source)
    script(str(tmp_path / "job.py"), monkeypatch)
    with pytest.raises(UsageError) as caught:
        loader_options(2)
    assert str(caught.value).startswith(str(tmp_path / "job.py"))
    assert 'def main(): ... and then if __name__ == "__main__": main()' in str(caught.value)
    assert loader_options(0) == {}


@pytest.mark.parametrize("source", [GUARDED, "if '__main__' == __name__:\n    main()\n", "echo $HOME\n"])
def test_a_script_with_one(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.py").write_text(source)
    script(str(tmp_path / "job.py"), monkeypatch)
    assert loader_options(2)["num_workers"] == 2


def test_a_script_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(str(tmp_path / "<stdin>"), monkeypatch)
    with pytest.raises(UsageError, match=r"stdin.*save it as a file"):
        loader_options(2)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that",
            TrainingError,
            "shm-size",
        ),
        (
            "Caught RuntimeError in DataLoader worker process 0.\nTraceback ...\n"
            "RuntimeError: unable to write to file </torch_7_1_0>: No space left on device (28)",
            TrainingError,
            "shm-size",
        ),
        ("received 0 items of ancdata", TrainingError, "ulimit -n"),
        ("[Errno 24] Too many open files", TrainingError, "ulimit -n"),
        ("DataLoader worker (pid(s) 7) exited unexpectedly", DataError, "memory"),
    ],
)
def test_a_lost_worker(text: str, kind: type[Exception], words: str) -> None:
    error = RuntimeError(text)
    assert lost_worker(error)
    found = worker_died(error)
    assert type(found) is kind
    assert words in str(found)
    assert "\n" not in str(found)


def test_an_error_of_the_data_set_is_none() -> None:
    assert not lost_worker(RuntimeError("Caught ValueError in DataLoader worker process 0.\nValueError: bad"))
    assert not lost_worker(RuntimeError("size mismatch"))


def test_processes_end_in_the_middle_of_what_they_do() -> None:
    pool = process_pool(1)
    future = pool.submit(time.sleep, 600)
    while not future.running():
        time.sleep(0.02)
    (process,) = pool._processes.values()
    end_processes(pool)
    process.join(60)
    assert process.exitcode == -signal.SIGTERM
