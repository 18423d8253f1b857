"""How worker processes are started: never forked from a process that may have threads or a GPU.

A fork copies the locks of threads that do not exist in the child, which may then wait forever. So data
loaders use ``forkserver`` (quick, from a clean process) and pools ``spawn``; a script that uses workers needs
the usual ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import ast
import logging
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from saccade.errors import DataError, SaccadeError, TrainingError, UsageError

_log = logging.getLogger(__name__)

# what PyTorch says where /dev/shm is full, in the worker and where it is read
_SHARED_MEMORY = ("Bus error", "out of shared memory", "write to file </torch_", "shared memory object")
_OPEN_FILES = ("Too many open files", "received 0 items of ancdata")


def num_processes(workers: int | None) -> int:
    """``workers``, or one per available CPU where it is None.

    Raises:
        UsageError: it is negative.
    """
    if workers is not None and workers < 0:
        raise UsageError(f"workers: must not be negative, got {workers}")
    return len(os.sched_getaffinity(0)) if workers is None else workers


def process_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of ``workers`` processes.

    Raises:
        UsageError: the main script has no main guard.
    """
    _check_main_guard()
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_ignore_interrupts)


def end_processes(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool at once, in the middle of what they do: for a command that is stopped."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def workers_for(source: Any, workers: int) -> int:
    """``workers``, or 0 with a warning if a data set of the user's cannot be handed to worker processes.

    They start from a clean process, so it must be picklable and its class importable; one that a notebook
    defines is not.
    """
    if not workers or source is None:
        return workers
    module = type(source).__module__
    if module == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        problem = "its class is defined in a notebook or a console, which worker processes cannot import"
    else:
        try:
            pickle.Pickler(_Discard()).dump(source)
        except Exception as error:
            problem = f"it cannot be pickled ({error})"
        else:
            return workers
    _log.warning("%s is read in the main process, without workers: %s", type(source).__name__, problem)
    return 0


class _Discard:
    """A file that keeps nothing."""

    def write(self, data: bytes) -> int:
        return len(data)


def loader_options(
    workers: int, *, prefetch: int = 2, persistent: bool = False, preload: Sequence[str] = ()
) -> dict[str, Any]:
    """Arguments of a PyTorch DataLoader that decodes in ``workers`` processes; none of them for 0 workers.

    Args:
        prefetch: items that each worker prepares ahead.
        persistent: the workers live as long as the loader, not as one pass over it.
        preload: modules that the fork server imports once for all workers.

    Raises:
        UsageError: the main script has no main guard.
    """
    if not workers:
        return {}
    _check_main_guard()
    context = get_context("forkserver")
    context.set_forkserver_preload(list(preload) or ["saccade.data.clips"])
    return {
        "num_workers": workers,
        "prefetch_factor": prefetch,
        "persistent_workers": persistent,
        "worker_init_fn": _start_worker,
        "multiprocessing_context": context,
    }


def lost_worker(error: Exception) -> bool:
    """Whether an error of a data loader with workers means that one of them died or could not hand over what
    it had read; else it was raised by the data set.
    """
    text = str(error)
    if any(words in text for words in (*_SHARED_MEMORY, *_OPEN_FILES)):
        return True
    raised_inside = text.startswith("Caught ")
    return not raised_inside and (not isinstance(error, RuntimeError) or "DataLoader worker" in text)


def worker_died(error: Exception) -> SaccadeError:
    """The error for a loader that lost a worker."""
    text = str(error)
    reason = next(
        (line.strip() for line in reversed(text.splitlines()) if line.strip()), type(error).__name__
    )
    if any(words in text for words in _SHARED_MEMORY):
        return TrainingError(
            f"shared memory is short ({reason}): workers hand over frames through /dev/shm, of which a "
            "container has 64 MB; start it with --shm-size=2g (or --ipc=host), or use workers 0"
        )
    if any(words in text for words in _OPEN_FILES):
        return TrainingError(
            f"too many open files ({reason}): raise the limit (ulimit -n 4096) or lower workers"
        )
    return DataError(
        f"a worker process ended unexpectedly ({reason}). The usual cause is lack of memory: lower workers, "
        "batch_size or cache_mb; workers 0 shows where a decoder crashes. In a script, keep the call under "
        'if __name__ == "__main__":'
    )


def _check_main_guard() -> None:
    """Raise `UsageError` if the main script would run as a whole in each worker, which imports it."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None:  # a notebook, or python -m
        return
    if not os.path.isfile(file):
        if os.path.basename(file) == "<stdin>":
            raise UsageError(
                "the script is read from stdin, so worker processes cannot import it; save it as a file, or "
                "use workers=0"
            )
        return
    try:
        source = ast.parse(Path(file).read_bytes())
    except (OSError, ValueError, SyntaxError):  # not a script of Python's
        return
    names = {
        node.id
        for test in ast.walk(source)
        if isinstance(test, ast.Compare)
        for node in ast.walk(test)
        if isinstance(node, ast.Name)
    }
    if "__name__" not in names:
        raise UsageError(
            f"{file}: worker processes import this script, which would start again in each; move its code "
            "into a function and call that under a main guard: def main(): ... and then "
            'if __name__ == "__main__": main()  (or use workers=0)'
        )


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends the workers


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    _ignore_interrupts()
    parent = parent_process()
    if parent is not None:
        Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: BaseProcess) -> None:
    """End this worker when the main process is gone, however it ended.

    PyTorch's own watchdog looks at the worker's parent, which is the fork server, which lives as long as any
    of its workers.
    """
    parent.join()
    os._exit(1)
