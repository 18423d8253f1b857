"""The command line. Each command is a module of this package with ``run(args) -> exit code``.

Heavy imports happen inside the commands, so help is quick. Results go to stdout, log messages and errors to
stderr. An error is one line, and the exit code gives its kind (`EXIT_CODES`).
"""

from __future__ import annotations

import difflib
import importlib
import io
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from saccade._version import __version__
from saccade.cli.console import logs_on_console
from saccade.cli.signals import stopped_by_signals
from saccade.errors import SaccadeError, TrainingError, UsageError, VideoError, is_out_of_memory

COMMANDS = {
    "quickstart": "train, test and predict on synthetic clips, end to end",
    "models": "list the models: parameters, GMACs, clip, published accuracy, latency",
    "fit": "train a classifier on your clips: checks, chooses, trains, tests, without a question",
    "train": "train, fine-tune or resume a model from a recipe",
    "expand": "search a network for a data set and a budget by expanding X2D",
    "test": "measure the accuracy of a run or checkpoint under a named protocol",
    "reproduce": "measure a published checkpoint by its published protocol",
    "predict": "classify videos, localize actions in time, or classify the actions of people",
    "convert": "convert a checkpoint of another code base to safetensors",
    "pareto": "compare trained runs: accuracy against cost, as a table and a chart",
    "bench": "measure the speed of models on this machine",
    "visualize": "visualize models: gradcam, attention, hog, embedding, shifts, timeline",
    "data": "check a data set, preview training batches, make synthetic clips, list class names",
}

OK, PARTIAL, USAGE, FAILED, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 70, 130
EXIT_CODES = {
    OK: "success",
    PARTIAL: "some videos could not be read (they are listed); everything else was done",
    USAGE: "usage error, or an invalid data set, weights file or run folder",
    FAILED: "runtime failure: disk full or not writable, out of memory, loss not finite",
    INTERNAL: "internal error; please report it with the traceback",
    INTERRUPTED: "interrupted by Ctrl-C, SIGTERM or SIGHUP; train and expand continue with --resume",
}
_CODES = {  # the first match applies
    UsageError: USAGE,
    VideoError: PARTIAL,
    TrainingError: FAILED,
    SaccadeError: USAGE,
}
_PLUGIN = "--plugin"
_LOG_LEVELS = {
    "-q": logging.WARNING,
    "--quiet": logging.WARNING,
    "-v": logging.DEBUG,
    "--verbose": logging.DEBUG,
}

# Iterations for which an idle thread of GNU OpenMP spins before it sleeps. The default is milliseconds, which
# slows down all threads when other programs compete for the cores.
_SPIN_COUNT = "2000"


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _limit_spinning()
    args = sys.argv[1:] if argv is None else argv
    level = next((_LOG_LEVELS[arg] for arg in args if arg in _LOG_LEVELS), logging.INFO)
    args = [arg for arg in args if arg not in _LOG_LEVELS]
    args, plugins = _take_plugins(args)
    if not args or args[0] in ("-h", "--help", "help"):
        print(_help())
        return OK
    if args[0] in ("-V", "--version"):
        print(f"saccade {__version__}")
        return OK
    _keep_printing()
    try:
        with stopped_by_signals(), logs_on_console(level):
            _import_plugins(plugins)
            code = _dispatch(args[0], args[1:])
            _flush()
            return code
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") == "0":  # under torchrun only one process prints
            _say(str(stop) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has exited
        _drop_output()
        return OK
    except Exception as error:
        return _report(error, args)


def _report(error: Exception, args: Sequence[str]) -> int:
    """Print an error as one line; returns the exit code."""
    with suppress(OSError):
        _flush()
    hints = [*getattr(error, "__notes__", ()), *_missing_plugins(error, args)]
    if isinstance(error, SaccadeError):
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        text = str(error)
    elif isinstance(error, OSError):  # the disk is full, a folder is not writable
        path = f"{error.filename}: " if error.filename is not None else ""
        code, text = FAILED, f"{path}{error.strerror or error}"
    elif is_out_of_memory(error):
        code, text = FAILED, f"out of memory ({str(error).splitlines()[0] if str(error) else 'no details'})"
        hints.append("lower --batch-size, --workers, --frames or --crop")
    else:
        traceback.print_exception(error)
        code, text = INTERNAL, f"internal error: {type(error).__name__}: {error}"
        hints.append("please report it with the command and the lines above")
    _say("; ".join([f"error: {text}", *hints]))
    return code


def _flush() -> None:
    """Write what was printed; a full disk, or a reader that has gone, is noticed here."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        error.filename = error.filename or "stdout"
        _drop_output()
        raise


def _drop_output() -> None:
    """Write the rest of stdout nowhere: Python would try to write it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    print(f"saccade: {' '.join(text.splitlines())}", file=sys.stderr)


def _missing_plugins(error: Exception, args: Sequence[str]) -> list[str]:
    """A hint if a run folder among the arguments was made with plug-ins that are not imported.

    They are not imported automatically, since a run folder from elsewhere must not execute code.
    """
    if not isinstance(error, SaccadeError):
        return []
    from saccade.plugins import imported_files
    from saccade.runs import Run

    values = [arg.partition("=")[2] if arg.startswith("-") else arg for arg in args]
    if args[0] == "train" and len(args) > 1:
        values.append(os.path.join("runs", args[1]))  # the default of --out
    files = [file for value in values if value for file in Run(value).plugins]
    missing = dict.fromkeys(file for file in files if file not in imported_files())
    flags = " ".join(f"{_PLUGIN} {shlex.quote(file)}" for file in missing)
    return [f"the run was made with {flags}; add it to this command"] if missing else []


def _keep_printing() -> None:
    """Print "?" for characters that the terminal's encoding does not support, and for undecodable paths."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _limit_spinning() -> None:
    """Make idle OpenMP threads of this process and its children sleep instead of spin, unless the user has
    configured them. OpenMP reads the setting when PyTorch is imported.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)


def _take_plugins(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split ``args`` into other arguments and the files of ``--plugin FILE``; "" for a missing file."""
    rest, files = [], []
    words = iter(args)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag == _PLUGIN:
            files.append(value if equals else next(words, ""))
        else:
            rest.append(word)
    return rest, files


def _import_plugins(files: Sequence[str]) -> None:
    """Import the user's files, which register models, data sets etc."""
    if not files:
        return
    from saccade.plugins import import_file

    for file in files:
        if not file:
            raise UsageError(f"{_PLUGIN} needs a Python file")
        import_file(file)


def _dispatch(command: str, args: list[str]) -> int:
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; commands are {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command {command!r}{hint}")
    module = importlib.import_module(f"saccade.cli.{command}")
    code: int = module.run(args)
    return code


def _help() -> str:
    width = max(map(len, (*COMMANDS, "-v, --verbose")))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    codes = "\n".join(f"  {code:<{width}}  {meaning}" for code, meaning in EXIT_CODES.items())
    return (
        "usage: saccade [-q | -v] [--plugin FILE.py] COMMAND [ARGUMENTS]\n\n"
        "Efficient video recognition in PyTorch.\n\n"
        f"commands:\n{commands}\n\n"
        "options of all commands:\n"
        f"  {'-q, --quiet':<{width}}  show only warnings and errors\n"
        f"  {'-v, --verbose':<{width}}  also show debug messages\n"
        f"  {'--plugin FILE':<{width}}  import a Python file that registers models, data sets etc.\n\n"
        f"exit codes:\n{codes}\n\n"
        "Messages go to stderr, results to stdout. See saccade COMMAND --help."
    )
