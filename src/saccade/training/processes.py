"""Distributed processes, malloc settings, and signals.

The same code runs in one process and in several that ``torchrun`` started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from saccade.errors import ConfigError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


@dataclass(frozen=True)
class Processes:
    """Rank, world size and device of this process.

    Attributes:
        rank: rank 0 writes files and logs.
        control: a gloo group for the few numbers exchanged at every step; None with one process. It is
            separate from the group of the gradients so that these messages bypass the accelerator.
    """

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which writes files and logs."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over the processes, in float64."""
        if self.control is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        summed: list[float] = total.tolist()
        return summed

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace the tensors by their means over the processes."""
        if self.control is not None:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor /= self.world_size

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes by rank, on every process."""
        if self.control is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def broadcast_from_rank0(self, tensors: Iterable[torch.Tensor]) -> None:
        """Broadcast the tensors of rank 0 to all processes."""
        if self.control is not None:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.control is not None:
            dist.barrier(group=self.control)


_num_groups = 0  # process groups that this process has created


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Initialise the process group of ``torchrun`` (gloo on CPU, nccl on CUDA); none for a single process.

    Raises:
        ConfigError: the device does not exist.
    """
    rank, local_rank = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    chosen = pick_device(device, local_rank if world_size > 1 else None)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world_size == 1:
        yield Processes(0, 1, chosen)
        return
    # a prefix of its own, since an earlier run in these processes has left its addresses in the store
    global _num_groups
    _num_groups += 1
    store, _, _ = next(rendezvous("env://"))
    dist.init_process_group(
        "nccl" if chosen.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"saccade {_num_groups}", store),
        rank=rank,
        world_size=world_size,
    )
    try:
        yield Processes(rank, world_size, chosen, dist.new_group(backend="gloo"))
    finally:
        dist.destroy_process_group()


def pick_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device called ``name``; ``auto`` is CUDA if available. Each local process gets a different GPU.

    Raises:
        ConfigError: the device does not exist.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device: {name!r} is unknown; use auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device: {name}, but PyTorch finds no CUDA device; use cpu")
        index = device.index if device.index is not None else local_rank or 0
        if local_rank is not None:
            index = local_rank
        if index >= torch.cuda.device_count():
            raise ConfigError(
                f"device: cuda:{index}, but there are only {torch.cuda.device_count()} CUDA devices"
            )
        return torch.device("cuda", index)
    return device


@cache
def keep_freed_memory() -> bool:
    """Set malloc to reuse freed memory instead of returning it to the system.

    By default glibc allocates every block above 32 MiB with mmap and unmaps it when it is freed. The page
    faults of the next allocation took a quarter of a training step of X3D-S. The setting applies to the
    process, which keeps the memory of its largest step.

    Returns:
        Whether it was set: False without glibc, or if environment variables set the options of malloc.
    """
    if not sys.platform.startswith("linux"):
        return False
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or "MALLOC_MMAP_MAX_" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    options = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
    done = [mallopt(option, value) for option, value in options]
    return all(done)


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped by a signal after saving its state; the message says how to resume it."""


class Interrupts:
    """Context manager in which SIGTERM, SIGHUP and Ctrl-C request a stop after the current step.

    A second signal, and any signal inside `immediate`, raises KeyboardInterrupt. Has no effect outside the
    main thread, where Python allows no signal handlers.
    """

    def __init__(self) -> None:
        self.requested = False
        self._immediate = False
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGTERM, signal.SIGINT]
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # not under nohup
                numbers.append(signal.SIGHUP)
            for number in numbers:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Context manager in which a signal raises KeyboardInterrupt, for code that may be interrupted."""
        if self.requested:
            raise KeyboardInterrupt
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker inherits the handler
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return  # Ctrl-C reaches all processes of the group; the main process ends its workers
        if self.requested or self._immediate:
            self.requested = True
            raise KeyboardInterrupt
        self.requested = True
