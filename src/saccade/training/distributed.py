"""One process or several: the same code, started by ``torchrun`` in the second case."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from saccade.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: 0 is the one that writes files and speaks.
        device: where this process computes.
        control: a gloo group for the few numbers the processes tell each other at every step; None
            when alone. It is apart from the gradients' group so that no message has to pass through the
            accelerator.
    """

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over the processes, in float64."""
        if self.control is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        summed: list[float] = total.tolist()
        return summed

    def gather(self, value: Any) -> list[Any]:
        """What each process holds, in the order of ranks, on every process."""
        if self.control is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def agree(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give every process the values that the first has."""
        if self.control is not None:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.control is not None:
            dist.barrier(group=self.control)


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started (gloo on CPU, nccl on CUDA), or stand alone.

    Raises:
        ConfigError: the device does not exist here.
    """
    rank, local_rank = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    chosen = pick_device(device, local_rank if world_size > 1 else None)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world_size == 1:
        yield Processes(0, 1, chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(rank, world_size, chosen, dist.new_group(backend="gloo"))
    finally:
        dist.destroy_process_group()


def pick_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device called ``name``; ``auto`` is CUDA where there is one. Each local process gets its own GPU.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device: {name!r} is not a device; try auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device: {name}, but PyTorch sees no CUDA device here; use cpu")
        index = device.index if device.index is not None else local_rank or 0
        if local_rank is not None:
            index = local_rank
        if index >= torch.cuda.device_count():
            raise ConfigError(
                f"device: cuda:{index}, but there are only {torch.cuda.device_count()} CUDA devices"
            )
        return torch.device("cuda", index)
    return device
