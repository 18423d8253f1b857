"""Files of weights: reading those of any code base, without running code from them, and writing ours."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from saccade.errors import WeightsError
from saccade.files import atomic_path
from saccade.models import contract
from saccade.runs import BEST

METADATA_KEY = "saccade"
_WRAPPERS = ("model_state", "model_state_dict", "state_dict", "model")
# Learning rates and losses are often saved as numpy scalars; making one runs no code of the file's.
_NUMPY_SCALARS = [
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
]
_PREFIXES = ("module.", "_orig_mod.", "model.")


def save_weights(
    model: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a model's state dict as safetensors, atomically, with JSON metadata beside it.

    The metadata's entry ``model`` holds what `load_model` needs; it is added if absent and the model says it.

    Example:
        >>> import tempfile
        >>> from saccade.models import create_model, load_model
        >>> path = tempfile.mkdtemp() + "/x2d.safetensors"
        >>> save_weights(create_model("x2d", num_classes=5), path, {"dataset": "mine"})
        >>> model, metadata = load_model(path)
        >>> model.num_classes, metadata["dataset"]
        (5, 'mine')
    """
    model = contract.unwrap(model)
    details = dict(metadata or {})
    build_args = contract.build_args(model)
    if "model" not in details and build_args is not None:
        details["model"] = build_args
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    text = json.dumps(details, ensure_ascii=False)
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={METADATA_KEY: text, "format": "pt"})


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and metadata of a safetensors file; no metadata if `save_weights` did not write it."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY, "{}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = json.loads(text)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({_first_line(error)})") from error
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path}: its metadata should be a JSON object")
    return tensors, metadata


def state_of(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, dict[str, Tensor]]:
    """The name to report, and the state dict, of a file or of what a training script saved in it."""
    if isinstance(source, Mapping):
        return "state dict", unwrap(source, "state dict")
    return str(source), read_state(source)


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict of a checkpoint file of any format; see `unwrap`."""
    return unwrap(_read(path), str(path))


def _read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The content of a checkpoint file."""
    file = Path(path)
    if file.is_dir():
        file = file / BEST
        if not file.is_file():
            raise WeightsError(f"{path}: a folder without {BEST}, which a run has after its first validation")
    if not file.exists():
        raise WeightsError(f"{path}: no such file")
    if file.suffix == ".safetensors":
        return read_weights(file)[0]
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None or not _looks_like_pickle(file):
            raise WeightsError(f"{path}: not a PyTorch checkpoint") from error
        raise WeightsError(
            f"{path}: holds a Python object ({named[1]}) besides tensors, and reading one can run code. "
            "Save its state dict alone in the code base it comes from, then load that"
        ) from error
    except Exception as error:  # torch.load raises nearly anything on a damaged file
        raise WeightsError(
            f"{path}: cannot be read as a PyTorch checkpoint ({_first_line(error)})"
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def _looks_like_pickle(file: Path) -> bool:
    """Whether a file begins as PyTorch's do: a zip archive, or a pickle of protocol 2 or later."""
    with file.open("rb") as opened:
        return opened.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def unwrap(content: Mapping[str, Any], source: str = "state dict") -> dict[str, Tensor]:
    """The state dict inside what a training script saved, without the prefixes of wrappers."""
    inner: Any = content
    for name in _WRAPPERS:
        if isinstance(content.get(name), Mapping):
            inner = content[name]
            break
    state = {key: value for key, value in inner.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not state:
        raise WeightsError(
            f"{source}: no tensors found; expected a state dict, or one under {', '.join(_WRAPPERS)}"
        )
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
