"""The command line: a thin edge. Each command is a module beside this file with ``run(args) -> exit code``.

Nothing heavy is imported before the command is known, so help is quick. Errors a user can cause are printed
as one line: exit code 2 for a wrong call, 1 for anything else.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys

from saccade._version import __version__
from saccade.errors import SaccadeError, UsageError

COMMANDS = {
    "quickstart": "the main job, end to end, on clips it makes itself",
    "models": "table of models: parameters, GMACs, clip, published accuracy, latency",
    "train": "train, fine-tune or resume a recipe",
    "expand": "search the network for a data set and a budget, by expanding X2D",
    "test": "accuracy of a run or of weights, with named views",
    "predict": "what happens in videos: files, folders, globs",
    "convert": "a checkpoint of another code base into safetensors",
    "pareto": "accuracy of trained models against what they cost: picture, table, Pareto front",
    "bench": "speed of models on this machine, and what runs their operators",
    "visualize": "pictures of what a model sees and has learned: gradcam, attention, hog, embedding ...",
    "data": "check a data set, look at training batches, make the motion clips, list class names",
}


# Turns a thread of GNU's OpenMP waits for the others before it sleeps. By default it turns for milliseconds,
# and where another program has one of the cores all threads wait for the one without.
_SPINS = "2000"


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _share_the_cores()
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if args[0] in ("-V", "--version"):
        print(f"saccade {__version__}")
        return 0
    try:
        return _dispatch(args[0], args[1:])
    except SaccadeError as error:
        print(f"saccade: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("saccade: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a disk that is full, a folder that may not be written to
        place = f"{error.filename}: " if error.filename is not None else ""
        print(f"saccade: error: {place}{error.strerror or error}", file=sys.stderr)
        return 1


def _share_the_cores() -> None:
    """Ask the threads of this process and of those it starts to sleep rather than wait awake; what the user
    has set stays. PyTorch's OpenMP reads it as it is loaded, so later it is of no use.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def _dispatch(command: str, args: list[str]) -> int:
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; commands are {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command {command!r}{hint}")
    module = importlib.import_module(f"saccade.cli.{command}")
    code: int = module.run(args)
    return code


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    return (
        "usage: saccade COMMAND [ARGUMENTS]\n\n"
        "Efficient video recognition: small networks that tell what happens in a video.\n\n"
        f"commands:\n{rows}\n\n"
        "saccade COMMAND --help tells the rest."
    )
