"""Damaged checkpoints: loaded, or refused with one error and the model as it was. Code in them never runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from tools.fuzz import children
from tools.fuzz.mutations import mutate
from tools.fuzz.part import LOADED, REFUSED, SEVERAL_LINES, call
from torch import nn

from saccade.models import create_model, load_model, load_weights, save_weights

_GOOD = {
    LOADED: "the tensors fit the model",
    REFUSED: "one error of one line, and the model as it was",
    "code refused": "a pickle with code, refused without running it",
}
_MODEL = {"num_classes": 5, "gamma_w": 0.3, "head_width": 32}


class _Code:
    """Pickles to a call that creates a file."""

    def __init__(self, function: Any, *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> Any:
        return self._call


def _payloads(marker: Path) -> list[Any]:
    """Objects whose unpickling would create ``marker``."""
    code = f"open({str(marker)!r}, 'w').close()"
    return [
        _Code(os.system, f"touch {marker}"),
        _Code(exec, code),
        _Code(eval, code),
        _Code(open, str(marker), "w"),
        _Code(Path.touch, marker),
        _Code(os.mkdir, str(marker)),
        _Code(np.save, str(marker), np.zeros(1)),
        _Code(torch.save, torch.zeros(1), str(marker)),
        _Code(__import__("subprocess").call, ["touch", str(marker)]),
    ]


class Cases:
    """Checkpoint files damaged as bytes, edited in their content, or with code in them."""

    good = _GOOD

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        torch.manual_seed(0)
        self._model = create_model("x2d", **_MODEL).eval()
        self._state = {key: value.clone() for key, value in self._model.state_dict().items()}
        self._seeds = self._made_seeds()
        unfit = {**self._state, "stem.unknown": torch.zeros(1)}
        call(lambda: load_weights(self._model, unfit))  # fills the caches that all cases then have

    def _made_seeds(self) -> dict[str, bytes]:
        state, seeds = self._state, {}
        wrapped = {
            "state_dict": {f"module.{key}": value for key, value in state.items()},
            "epoch": 3,
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
            "best": np.float64(0.5),
        }
        lightning = {
            "state_dict": {f"model.{key}": value for key, value in state.items()},
            "hyper_parameters": {"lr": 0.1, "name": "x2d"},
            "pytorch-lightning_version": "2.0",
            "callbacks": {},
        }
        seeds["plain.pth"] = _saved(state)
        seeds["plain_old.pth"] = _saved(state, old=True)
        seeds["wrapped.pth.tar"] = _saved(wrapped)
        seeds["wrapped_old.pt"] = _saved(wrapped, old=True)
        seeds["lightning.ckpt"] = _saved(lightning)
        seeds["pyslowfast.pyth"] = _saved(
            {"model_state": state, "epoch": 1, "cfg": "TRAIN:\n  ENABLE: True\n"}
        )
        seeds["half.bin"] = _saved({key: value.half() for key, value in state.items()})
        seeds["foreign.safetensors"] = safetensors.torch.save(state)
        own = self._folder / "own.safetensors"
        save_weights(self._model, own, {"class_names": list("abcde"), "metrics": {"epoch": 1}})
        seeds["own.safetensors"] = own.read_bytes()
        return seeds

    def _damaged(self, case: int) -> tuple[str, bytes, list[str]]:
        rng = random.Random(case)
        kind = rng.choices(("bytes", "content", "code"), (4, 4, 2))[0]
        if kind == "code":
            name, data, step = self._with_code(rng)
            return name, data, [step]
        name = rng.choice(list(self._seeds))
        if kind == "bytes":
            data, steps = mutate(self._seeds[name], Path(name).suffix, rng)
            return name, data, steps
        if name.endswith(".safetensors"):
            return _edited_safetensors(name, self._seeds[name], rng)
        content = torch.load(io.BytesIO(self._seeds[name]), weights_only=False)
        step = _edit(content, rng)
        return name, _saved(content, old="old" in name), [step]

    def _with_code(self, rng: random.Random) -> tuple[str, bytes, str]:
        payloads = _payloads(self._marker())
        number = rng.randrange(len(payloads))
        payload = payloads[number]
        content: Any = rng.choice(
            (
                payload,
                {**self._state, "extra": payload},
                {"state_dict": dict(self._state), "hyper_parameters": [1, {"deep": payload}]},
                {"state_dict": dict(self._state), payload if number == 1 else "key": payload},
                [payload, dict(self._state)],
            )
        )
        form = rng.choice(("zip", "old", "pickle", "module", "pickle in zip"))
        name = rng.choice(("code.pth", "code.pt", "code.bin", "code.ckpt", "code.safetensors", "code.tar"))
        if form == "module":
            module = nn.Linear(2, 2)
            module.extra = payload  # type: ignore[assignment]
            content, form = module, rng.choice(("zip", "old"))
        try:
            data = _with_form(content, form, rng)
        except (TypeError, AttributeError):  # torch.save cannot pickle this one
            data = pickle.dumps(payload)
        return name, data, f"code: payload {number} in a {form}"

    def _marker(self) -> Path:
        return self._folder / f"code_ran_{os.getpid()}"

    def run(self, case: int) -> dict[str, Any]:
        """Load the file of a case as weights, and as a model."""
        name, data, steps = self._damaged(case)
        path = self._folder / f"{case}_{name}"
        path.write_bytes(data)
        marker = self._marker()
        try:
            children.stage("load_weights")
            outcome, message = call(lambda: load_weights(self._model, path))
            if outcome != LOADED and not _equal(self._model.state_dict(), self._state):
                outcome = "refused, and the model changed"
            children.stage("load_model")
            other, other_message = call(lambda: load_model(path))
            if other == SEVERAL_LINES:
                outcome, message = other, other_message
            if any(self._folder.glob(f"{marker.name}*")):
                outcome = "CODE RAN"
            elif steps and steps[0].startswith("code"):
                outcome = "code refused" if outcome == REFUSED else f"code: {outcome}"
        finally:
            path.unlink()
        return {"file": name, "steps": steps, "outcome": outcome, "detail": message[-500:]}

    def describe(self, case: int) -> dict[str, Any]:
        name, _, steps = self._damaged(case)
        return {"file": name, "steps": steps}

    def keep(self, case: int) -> None:
        name, data, _ = self._damaged(case)
        path = self._folder / "failures" / f"{case}_{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def _saved(content: Any, *, old: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def _with_form(content: Any, form: str, rng: random.Random) -> bytes:
    if form == "pickle":
        return pickle.dumps(content, protocol=rng.randrange(6))
    if form == "pickle in zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
            archive.writestr("archive/version", "3\n")
        return file.getvalue()
    return _saved(content, old=form == "old")


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items())


def _edit(content: Any, rng: random.Random) -> str:
    """Change entries of a checkpoint's dict, or of the state dict in it."""
    state = next((content[key] for key in ("state_dict", "model_state") if key in content), content)
    target = content if rng.random() < 0.15 else state
    steps = []
    for _ in range(rng.choice((1, 1, 2, 5))):
        key = rng.choice(list(target))
        kind = rng.choice(("drop", "rename", "shape", "type", "value", "value"))
        if kind == "drop" and len(target) > 1:
            del target[key]
        elif kind == "rename":
            names = (
                f"net.{key}",
                f"{key}.x",
                "",
                "a\nb",
                "\x1b[31m",
                "x" * 5000,
                7,
                ("a", 1),
                b"bytes",
                None,
            )
            target[rng.choice(names)] = target.pop(key)
        else:
            target[key] = _odd_value(target[key], rng) if kind != "shape" else _odd_shape(target[key], rng)
        steps.append(f"{kind} {key!r}"[:80])
    return ", ".join(steps)


def _is_ordinary(value: Any) -> bool:
    """A dense tensor with data: what an earlier edit has made of it can neither be reshaped nor converted."""
    return type(value) in (torch.Tensor, nn.Parameter) and not (
        value.is_quantized or value.is_sparse or value.is_meta or value.is_nested
    )


def _odd_shape(value: Any, rng: random.Random) -> Any:
    if not _is_ordinary(value):
        return None
    shapes: list[Any] = [
        lambda: value.reshape(-1),
        lambda: value[None],
        lambda: value.new_zeros(0),
        lambda: value.new_zeros(()),
        lambda: torch.zeros(1).expand(1 << 40),
        lambda: torch.zeros(1).expand(1 << 20, 1 << 20, 4),
        lambda: torch.cat([value.reshape(-1)] * 2),
        lambda: value.transpose(0, -1) if value.ndim > 1 else value,
    ]
    return rng.choice(shapes)()


def _odd_value(value: Any, rng: random.Random) -> Any:
    nested: Any = {"a": 1}
    for _ in range(200):
        nested = {"a": nested}
    tensor = value if _is_ordinary(value) else torch.zeros(2, 2)
    values: list[Any] = [
        *(None, "text", 3, 2.5, [], {}, [tensor], {"w": tensor}, nested, True, b"\0\1", 10**30, float("nan")),
        *(
            tensor.to(torch.int8),
            tensor.to(torch.complex64),
            tensor.bool(),
            tensor.double(),
            tensor.bfloat16(),
        ),
        torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor,
        torch.zeros(3, 3).to_sparse(),
        torch.quantize_per_tensor(torch.zeros(3, 3), 0.1, 0, torch.qint8),
        nn.Parameter(torch.zeros(3)),
        torch.zeros(2, device="meta"),
        np.zeros(3),
        np.float32(1.5),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    ]
    return rng.choice(values)


def _edited_safetensors(name: str, data: bytes, rng: random.Random) -> tuple[str, bytes, list[str]]:
    """A safetensors file with another header."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    key = rng.choice([key for key in header if key != "__metadata__"])
    entry, step = header[key], ""
    kind = rng.choice(("dtype", "shape", "offsets", "drop", "rename", "metadata", "metadata", "length"))
    length = None
    if kind == "dtype":
        entry["dtype"] = rng.choice(("F64", "I8", "BOOL", "F8_E4M3", "X", "", 3, None))
    elif kind == "shape":
        entry["shape"] = rng.choice(
            ([], [0], [-1], [1 << 62], [1 << 62, 4], "x", None, [1.5], [*entry["shape"], 2])
        )
    elif kind == "offsets":
        first, last = entry["data_offsets"]
        entry["data_offsets"] = rng.choice(
            (
                [last, first],
                [first, last + 4],
                [0, 1 << 62],
                [-4, last],
                [],
                None,
                [first, last, last],
                [0, last - first],
            )
        )
    elif kind == "drop":
        del header[key]
    elif kind == "rename":
        header[rng.choice(("", "a\nb", "x" * 3000, "net." + key, "__metadata__"))] = header.pop(key)
    elif kind == "metadata":
        step = _edit_metadata(header, rng)
    else:
        length = rng.choice((0, 1, 7, size - 1, size + 1, 1 << 20, 1 << 40, (1 << 64) - 1))
    text = json.dumps(header).encode()
    length = len(text) if length is None else length
    return name, length.to_bytes(8, "little") + text + body, [f"header: {kind} {step or key}"[:120]]


def _edit_metadata(header: dict[str, Any], rng: random.Random) -> str:
    odd = rng.choice(
        (None, [], {}, 3, -1, "", "text", "\x1b]0;title", 1e300, 10**12, {"name": "x2d"}, [[1]], True)
    )
    metadata = json.loads(header.get("__metadata__", {}).get("saccade", "{}"))
    where = rng.choice(("saccade", "whole", "entry", "entry", "model", "model"))
    if where == "whole":
        header["__metadata__"] = odd
        return f"__metadata__ became {odd!r}"
    if where == "entry":
        key = rng.choice((*metadata, "clip", "task", "class_names", "pairs", "model"))
        metadata[key] = odd
    elif where == "model":
        key = rng.choice(("name", "num_classes", "gamma_w", "gamma_d", "head_width", "unknown"))
        metadata.setdefault("model", {"name": "x2d"})
        if isinstance(metadata["model"], dict):
            metadata["model"][key] = odd
    else:
        header["__metadata__"] = {"saccade": odd if isinstance(odd, str) else json.dumps(odd)}
        return f"saccade became {odd!r}"
    header["__metadata__"] = {"saccade": json.dumps(metadata)}
    return f"{where} {key} became {odd!r}"
