"""Read checkpoint files of any code base without executing code from them, and write our own."""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
import zipfile
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
from saccade.models.checkpoints.content import Content, unwrap
from saccade.runs import BEST

METADATA_KEY = "saccade"
# Learning rates and losses are often saved as numpy scalars, some weights as numpy arrays; making one runs no
# code of the file's. NumPy 1 had another name for the module.
_NUMPY: list[Any] = [
    np.dtype,
    np.ndarray,
    *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"),
    *(
        (function, f"{module}.{function.__name__}")
        for function in (np._core.multiarray.scalar, np._core.multiarray._reconstruct)  # type: ignore[attr-defined]
        for module in ("numpy._core.multiarray", "numpy.core.multiarray")
    ),
]
_PICKLE, _MAGIC = b"\x80", b"l\xfc\x9cF\xf9 j\xa8P\x19"  # how files of torch.save began before PyTorch 1.6
_OTHER_FILES = {
    b"\x89HDF": "an HDF5 file (Keras)",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"GGUF": "a GGUF file",
    b"{": "a JSON file",
}


def save_weights(
    model: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a model's state dict and JSON metadata to a safetensors file, atomically.

    The entry ``model`` of the metadata holds the arguments that `load_model` builds the model with; it is
    added if the model has ``build_args``.

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
    """State dict and metadata of a safetensors file; {} as metadata if `save_weights` did not write it."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY, "{}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = json.loads(text)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except PermissionError:
        raise WeightsError(f"{path}: permission denied") from None
    except Exception as error:  # of a damaged header: nearly anything
        if Path(path).is_file() and (problem := _not_weights(Path(path))):
            raise WeightsError(f"{path}: {problem}") from error
        raise WeightsError(
            f"{path}: not a readable safetensors file ({_first_line(error)}); it is damaged or incomplete"
        ) from error
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path}: its metadata should be a JSON object")
    return tensors, metadata


def content_of(source: str | os.PathLike[str] | Mapping[str, Any]) -> Content:
    """The tensors of a file, or of what a training script saved in it."""
    if isinstance(source, Mapping):
        return unwrap(source)
    return unwrap(_read(source), str(source))


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict of a checkpoint file of any format; see `unwrap`."""
    return content_of(path).state


def _read(path: str | os.PathLike[str]) -> Any:
    """Read a checkpoint file. Its first bytes, not its suffix, decide how."""
    file = Path(path)
    if file.is_dir():
        file = file / BEST
        if not file.is_file():
            raise WeightsError(f"{path}: {_describe_folder(Path(path))}")
    if not file.exists():
        raise WeightsError(f"{path}: no such file")
    try:
        if _is_safetensors(file):
            return read_weights(file)[0]
        if problem := _not_weights(file):
            raise WeightsError(f"{path}: {problem}")
        with (
            torch.serialization.safe_globals(_NUMPY),
            warnings.catch_warnings(action="ignore"),  # of another version of pickle
            file.open("rb") as opened,  # given a path, torch.load goes by its suffix
        ):
            return torch.load(opened, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)|(?:class|function) ([\w.]+\.\w+)", str(error))
        if named is None:
            raise WeightsError(
                f"{path}: not a PyTorch checkpoint; it is damaged, or holds more than tensors and numbers"
            ) from error
        what = named[1] or named[2]
        raise WeightsError(
            f"{path}: holds a Python object ({what}) besides tensors, and reading one can run code. Save "
            "its state dict alone in the code base it comes from, then load that"
        ) from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # torch.load raises nearly anything on a damaged file
        raise WeightsError(
            f"{path}: not readable as a PyTorch checkpoint: it is damaged or incomplete "
            f"({_first_line(error)}); copy or download it again"
        ) from error


def _is_safetensors(file: Path) -> bool:
    """Whether a file is to be read as safetensors: it begins with the length of a header, which is a JSON
    object; or its name says so and it begins as no file of PyTorch does.
    """
    with file.open("rb") as opened:
        head = opened.read(9)
    if _begins_as_safetensors(head):
        return True
    return file.suffix == ".safetensors" and head[:2] != b"PK" and head[:1] != _PICKLE


def _begins_as_safetensors(head: bytes) -> bool:
    """Whether the first bytes are the length of a header, which is any number (one in 32 begins as a pickle
    does), and the header's first one.
    """
    return head[6:9] == b"\0\0{"


def _not_weights(file: Path) -> str:
    """What a file is, if it is known not to be a checkpoint; else empty."""
    with file.open("rb") as opened:
        head = opened.read(512)
    start = head.lstrip().lower()
    if not head:
        return "is empty (0 bytes)"
    if _begins_as_safetensors(head):
        return ""
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights; fetch them with: git lfs pull"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<error")):
        return "is a web page, not a checkpoint; the download failed or needs a login, so download it again"
    if head.startswith(b"PK"):
        return _not_weights_zip(file)
    for magic, what in _OTHER_FILES.items():
        if head.startswith(magic):
            return f"is {what}, not a PyTorch or safetensors file"
    if head[:1] == _PICKLE and _MAGIC not in head:
        return "is a plain pickle, which torch.save did not write; load it where it comes from and save it so"
    if head[:1] == _PICKLE or head[257:262] == b"ustar" or b"\0" in head:
        return ""
    return "not a PyTorch checkpoint, nor a safetensors file"


def _not_weights_zip(file: Path) -> str:
    """Why a zip archive is no checkpoint; empty if it is one."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # of a damaged archive: nearly anything
        return "is damaged or incomplete (a zip archive without its end); copy or download it again"
    tops = [name.partition("/")[2] for name in names]
    if "constants.pkl" in tops or any(name.startswith("code/") for name in tops):
        return "is a TorchScript archive, which holds code; save its state_dict() with torch.save"
    if "data.pkl" not in tops:
        return f"is a zip archive without a checkpoint; it holds {', '.join(names[:3]) or 'nothing'}"
    return ""


def _describe_folder(folder: Path) -> str:
    """Why a folder cannot be loaded, and what to do."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return "this folder cannot be read"
    names = {path.name for path in folder.iterdir()}
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return (
            "a sharded checkpoint of torch.distributed.checkpoint (FSDP); join it with "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER OUT.pt, then load OUT.pt"
        )
    if "zero_to_fp32.py" in names or any(name.endswith("_model_states.pt") for name in names):
        return "a sharded checkpoint of DeepSpeed; join it with its zero_to_fp32.py, then load the result"
    if any(name.endswith(".index.json") for name in names):
        return "a checkpoint in several files; save it as one"
    weights = sorted(name for name in names if name.endswith((".safetensors", ".pt", ".pth", ".bin")))
    hint = f"; name the file in it: {', '.join(weights[:3])}" if weights else ""
    return f"a folder without {BEST}, which a run has after its first validation{hint}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
