"""The command line's edge: quick help, one-line errors, exit codes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

import pytest

import saccade
from saccade.cli import COMMANDS, EXIT_CODES, main


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "saccade", *args], capture_output=True, text=True, check=False
    )


def test_help_names_every_command_within_a_second():
    start = time.perf_counter()
    answer = run("--help")
    assert time.perf_counter() - start < 1.0
    assert answer.returncode == 0
    for command in COMMANDS:
        assert f"  {command} " in answer.stdout


@pytest.mark.parametrize(
    "statement", ["import saccade", "import saccade.cli", "import saccade; saccade.VideoError"]
)
def test_import_is_light(statement: str):
    heavy = "('torch', 'numpy', 'av', 'matplotlib')"
    code = f"{statement}; import sys; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_an_unknown_command_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]):
    assert main(["tranz"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "saccade: error: unknown command 'tranz'; did you mean 'train'?\n"
    assert captured.out == ""


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "train"])
def test_an_unknown_flag_is_one_line_and_exit_code_2(command: str, capsys: pytest.CaptureFixture[str]):
    assert main([command, "--no-such-flag"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("saccade: error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str):
    answer = run(command, "--help")
    assert answer.returncode == 0, answer.stderr
    assert "usage" in answer.stdout.lower()


def test_version():
    assert run("--version").stdout.strip() == f"saccade {saccade.__version__}"


@pytest.mark.parametrize(
    ("said", "expected"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_idle_openmp_threads_sleep(said: dict[str, str], expected: str):
    code = "import os, saccade.cli; saccade.cli.main(['--version']); print(os.environ.get('GOMP_SPINCOUNT'))"
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean | said
    )
    assert answer.stdout.split()[-1] == expected


def test_help_lists_every_exit_code():
    text = run("--help").stdout
    for code, meaning in EXIT_CODES.items():
        assert f"{code}" in text
        assert meaning in text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (saccade.UsageError("x"), 2),
        (saccade.ConfigError("x"), 2),
        (saccade.DataError("x"), 2),
        (saccade.VideoError("a.mp4", "x"), 1),
        (saccade.WeightsError("x"), 2),
        (saccade.TrainingError("x"), 3),
        (OSError(28, "No space left on device", "a.npz"), 3),
        (MemoryError(), 3),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 3),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("saccade.cli._dispatch", fail)
    assert main(["models"]) == code
    assert code in EXIT_CODES
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "shown"),
    [([], {"info", "warning"}), (["-q"], {"warning"}), (["--verbose"], {"debug", "info", "warning"})],
)
def test_log_records_are_shown_on_stderr(
    flags: list[str], shown: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def log(*_: object) -> int:
        logger = logging.getLogger("saccade.anything")
        logger.debug("record of debug [x]")
        logger.info("record of info [x]")
        logger.warning("record of %s [x]", "warning")
        return 0

    monkeypatch.setattr("saccade.cli._dispatch", log)
    assert main([*flags, "models"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    for level in ("debug", "info", "warning"):
        assert (f"record of {level} [x]" in captured.err) == (level in shown)
    assert ("warning: record of warning" in captured.err) == ("warning" in shown)
    logging.getLogger("saccade.anything").warning("after the command")
    assert "after" not in capsys.readouterr().err


def test_the_library_prints_nothing_without_logging_handlers():
    code = (
        "import logging, saccade; logger = logging.getLogger('saccade.video'); logger.warning('one'); "
        "logging.basicConfig(format='%(name)s:%(levelname)s:%(message)s'); logger.warning('two')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ("", "saccade.video:WARNING:two\n")
