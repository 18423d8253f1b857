"""Run views through a model in batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.tasks.base import Task, View
from saccade.transforms.normalize import affine, batch_layout

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]

# Upper estimate of the bytes of activations per byte of input: X3D's largest map (54 channels at half the
# side) is 4.5 times its input; attention models need more.
_ACTIVATIONS_PER_INPUT = 60
_CPU_BUDGET = 1 << 30
_MAX_BATCH = 64


class Scorer:
    """Runs a model on views in batches. Use it with the model in evaluation mode (`evaluating`).

    Args:
        task: computes the outputs of the views (`Task.forward`).
        clip: gives mean and std of the normalisation.
        device: device of the model; default: that of its first parameter.
        batch_size: maximum number of views per forward pass; None: the task's default, else by memory. If a
            GPU runs out of memory it is halved, with a warning.
        precision: ``bfloat16`` uses autocast.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        clip: ClipSpec | None,
        *,
        device: torch.device | str | None = None,
        batch_size: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}")
        if precision not in ("float32", "bfloat16"):
            raise UsageError(f"precision {precision!r} is unknown; it is float32 or bfloat16")
        self.model, self.task = model, task
        self.device = torch.device(device) if device is not None else model_device(model)
        self.batch_size = batch_size or task.default_batch
        self.precision = precision
        self.channels_last = is_channels_last(model) if task.channels_last is None else task.channels_last
        if clip is not None:
            mean, std = (torch.tensor(value, dtype=torch.float64) for value in (clip.mean, clip.std))
            self._scale, self._offset = batch_layout(1.0 / (255.0 * std)), batch_layout(-mean / std)

    def __call__(self, views: Sequence[View]) -> list[Any]:
        """The model's outputs for views of one size."""
        size = self.size_for(views[0].pixels)
        outputs: list[Any] = []
        while len(outputs) < len(views):
            try:
                outputs.extend(self._forward(views[len(outputs) : len(outputs) + size]))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size = self.batch_size = size // 2
                torch.cuda.empty_cache()
                logger.warning(f"out of GPU memory: continuing with batches of {size} views")
        return outputs

    def stream(self, views: Iterable[View]) -> Iterator[tuple[View, Any]]:
        """Each view with the model's output for it, in order. Consecutive views of one size are batched."""
        waiting: list[View] = []
        for view in views:
            if waiting and waiting[0].pixels.shape != view.pixels.shape:
                yield from zip(waiting, self(waiting), strict=True)
                waiting = []
            waiting.append(view)
            if len(waiting) >= self.size_for(view.pixels):
                yield from zip(waiting, self(waiting), strict=True)
                waiting = []
        if waiting:
            yield from zip(waiting, self(waiting), strict=True)

    def size_for(self, pixels: Tensor) -> int:
        """Views of this shape per forward pass."""
        if self.batch_size is None:
            need = 4 * pixels.numel() * _ACTIVATIONS_PER_INPUT
            budget = _CPU_BUDGET
            if self.device.type == "cuda":
                budget = torch.cuda.mem_get_info(self.device)[0] // 2
            self.batch_size = int(np.clip(budget // need, 1, _MAX_BATCH))
        return self.batch_size

    def _forward(self, views: Sequence[View]) -> Sequence[Any]:
        x = torch.stack([view.pixels for view in views])
        if x.dtype == torch.uint8:
            x = affine(x, self._scale, self._offset, channels_last=self.channels_last)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        with torch.no_grad(), self._autocast():
            return self.task.forward(self.model, x, views)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode of every module is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def model_device(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; CPU if it has none."""
    sources: tuple[Callable[[], Iterator[Tensor]], ...] = (model.parameters, model.buffers)
    for source in sources:
        for tensor in source():
            return tensor.device
    return torch.device("cpu")


def is_channels_last(model: nn.Module) -> bool:
    """Whether the model's convolutions are stored channels-last."""
    for weight in model.parameters():
        if weight.ndim == 5 and not weight.is_contiguous():
            return weight.is_contiguous(memory_format=torch.channels_last_3d)
    return False


def pick_device(name: str | torch.device) -> torch.device:
    """The device called ``name``; ``auto`` is CUDA if available.

    Raises:
        UsageError: the device does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r} is unknown; try auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device
