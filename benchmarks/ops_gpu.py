"""The operators on a GPU, Triton against PyTorch's own: checked, then timed, at the sizes of real models.

Depthwise convolution and batch norm at the stages of X3D-M, batch 16, channels-last-3d; shift at those of
RubiksNet-tiny, batch 16 of 8 frames. A case is first held against the definition in float64; where the
result is more than twice as wrong as PyTorch's, nothing is timed, and the run fails. Times are medians, the
cache emptied before each. PyTorch's is the better of both memory layouts where it takes both.
``copy_share`` is the time that a copy of as many bytes as the operator must read and write takes (measured
in the same run), over the time it took.

    python -m benchmarks ops_gpu --gpu
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from benchmarks._record import write_results
from saccade.ops import batch_norm_act, depthwise_conv3d, shift3d, use_backend

LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)
STAGES = (
    (54, 56),
    (108, 28),
    (216, 14),
    (432, 7),
)  # channels and height: X3D-M's res2..res5, RubiksNet-tiny's 1..4


@dataclass
class Case:
    """An operator at one size.

    Attributes:
        function: from the inputs to the output; the inputs: those that have gradients, x first.
        forward_passes, train_passes: how often x's bytes must be moved at least, as multiples of them.
        layouts: what PyTorch may choose from.
    """

    operator: str
    size: str
    function: Callable[..., Tensor]
    inputs: list[Tensor]
    forward_passes: float
    train_passes: float
    layouts: Sequence[torch.memory_format]


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks ops_gpu", description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args(args)
    bandwidth = copy_bandwidth()
    print(f"copy: {bandwidth / 1e9:.0f} GB/s, read and written")
    rows: list[dict[str, object]] = []
    for case in cases(options.batch):
        rows += measure(case, bandwidth)
    wrong = sum(row["correct"] != "yes" for row in rows)
    print(f"wrote {write_results('ops_gpu', rows, device='cuda').name}")
    if wrong:
        raise SystemExit(f"{wrong} cases give wrong results; they were not timed")


def cases(batch: int) -> Iterator[Case]:
    for channels, height in STAGES:
        yield depthwise_case(batch, channels, height, 1)
    yield depthwise_case(batch, 54, 112, 2)
    for dtype in (torch.float32, torch.bfloat16):
        for channels, height in STAGES:
            yield shift_case(batch, channels, height, 1, dtype)
        yield shift_case(batch, 54, 112, 2, dtype)
    for channels, height in STAGES:
        for kind in ("relu", "silu+se", "relu+residual"):
            yield batch_norm_case(batch, channels, height, kind)


def depthwise_case(batch: int, channels: int, height: int, stride: int) -> Case:
    x = _input(batch, channels, 16, height, torch.bfloat16, torch.channels_last_3d)
    weight = torch.randn(channels, 1, 3, 3, 3, device="cuda").bfloat16() / 5

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_conv3d(x, weight, stride=(1, stride, stride), padding=(1, 1, 1))

    out = 1 / stride**2
    return Case(
        "depthwise_conv3d",
        f"{batch}x{channels}x16x{height}x{height} stride {stride}",
        function,
        [x, weight],
        forward_passes=1 + out,
        train_passes=(1 + out) + (2 + out),
        layouts=LAYOUTS,
    )


def shift_case(batch: int, channels: int, height: int, stride: int, dtype: torch.dtype) -> Case:
    x = _input(batch, channels, 8, height, dtype, torch.contiguous_format)
    shift = torch.rand(3, channels, device="cuda") * 2 - 1

    def function(x: Tensor, shift: Tensor) -> Tensor:
        return shift3d(x, shift, stride=(1, stride, stride))

    out = 1 / stride**2
    return Case(
        "shift3d",
        f"{batch}x{channels}x8x{height}x{height} stride {stride}",
        function,
        [x, shift],
        forward_passes=1 + out,
        train_passes=(1 + out) + (2 + out),
        layouts=(torch.contiguous_format,),
    )


def batch_norm_case(batch: int, channels: int, height: int, kind: str) -> Case:
    """Training mode. x is read for its statistics and once more; so it is, with the gradient, backward."""
    x = _input(batch, channels, 16, height, torch.bfloat16, torch.channels_last_3d)
    inputs = [x, torch.rand(channels, device="cuda") + 0.5, torch.randn(channels, device="cuda")]
    hidden = max(8, channels // 16)
    if kind == "silu+se":
        sizes = ((hidden, channels), (hidden,), (channels, hidden), (channels,))
        inputs += [(torch.randn(size, device="cuda") / 4).bfloat16() for size in sizes]
    if kind == "relu+residual":
        inputs.append(torch.randn_like(x))

    def function(x: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> Tensor:
        return batch_norm_act(
            *(x, weight, bias, torch.zeros_like(weight), torch.ones_like(weight)),
            training=True,
            activation="silu" if kind == "silu+se" else "relu",
            squeeze_excite=rest if len(rest) == 4 else None,  # type: ignore[arg-type]
            residual=rest[0] if len(rest) == 1 else None,
        )

    extra = kind == "relu+residual"
    return Case(
        "batch_norm_act",
        f"{batch}x{channels}x16x{height}x{height} {kind}",
        function,
        inputs,
        forward_passes=3 + extra,
        train_passes=3 + extra + 5 + 2 * extra,
        layouts=(torch.channels_last_3d,),
    )


def _input(
    batch: int, channels: int, frames: int, height: int, dtype: torch.dtype, layout: torch.memory_format
) -> Tensor:
    x = torch.randn(batch, channels, frames, height, height, device="cuda").to(dtype)
    return x.contiguous(memory_format=layout)


# -------------------------------------------------------------------------------------- checked, then timed


def measure(case: Case, bandwidth: float) -> list[dict[str, object]]:
    """Two rows: the forward pass, and forward and backward. Without times where the result is wrong."""
    problem = check(case)
    rows = []
    for mode, passes in (("forward", case.forward_passes), ("train", case.train_passes)):
        row: dict[str, object] = {
            "operator": case.operator,
            "size": case.size,
            "dtype": str(case.inputs[0].dtype).removeprefix("torch."),
            "mode": mode,
            "triton": triton.__version__,
            "correct": problem or "yes",
            "ms": "",
            "ms_torch": "",
            "speedup": "",
            "copy_share": "",
        }
        if not problem:
            ours = _time(case, "triton", mode)
            torchs = min(_time(case, "torch", mode, layout) for layout in case.layouts)
            floor = case.inputs[0].numel() * case.inputs[0].element_size() * passes / bandwidth
            row |= {
                "ms": f"{ours * 1e3:.4f}",
                "ms_torch": f"{torchs * 1e3:.4f}",
                "speedup": f"{torchs / ours:.2f}",
                "copy_share": f"{floor / ours:.2f}",
            }
        print("  ".join(f"{value:>12}" for value in row.values()), flush=True)
        rows.append(row)
    return rows


def check(case: Case) -> str | None:
    """What is wrong with output or gradients, if anything: the tests' rule, at the size that is timed."""
    torch.manual_seed(0)
    grad = torch.randn_like(_run(case, case.inputs, "torch")[0])
    ours, plain = (_run(case, case.inputs, backend, grad) for backend in ("triton", "torch"))
    exact = _run(case, [t.double() for t in case.inputs], "naive", grad.double())
    for index, (a, b, c) in enumerate(zip(ours, plain, exact, strict=True)):
        error, allowed = ((value.double() - c).abs().max().item() for value in (a, b))
        unit = max(torch.finfo(a.dtype).eps, 2**-20) * c.abs().max().item()
        if not error <= max(2 * allowed, unit):
            return f"no: result {index} is off by {error:.3g}; PyTorch by {allowed:.3g}"
    return None


def _run(case: Case, inputs: list[Tensor], backend: str, grad: Tensor | None = None) -> tuple[Tensor, ...]:
    inputs = [t.detach().requires_grad_() for t in inputs]
    with use_backend(backend):  # type: ignore[arg-type]
        y = case.function(*inputs)
        return (y.detach(), *(torch.autograd.grad(y, inputs, grad) if grad is not None else ()))


def _time(case: Case, backend: str, mode: str, layout: torch.memory_format | None = None) -> float:
    inputs = [t.detach().requires_grad_(mode == "train") for t in case.inputs]
    if layout is not None:
        inputs[0] = inputs[0].detach().contiguous(memory_format=layout).requires_grad_(mode == "train")
    with use_backend(backend):  # type: ignore[arg-type]
        grad = torch.ones_like(case.function(*inputs))

        def step() -> None:
            y = case.function(*inputs)
            if mode == "train":
                torch.autograd.grad(y, inputs, grad)

        return seconds(step)


def seconds(step: Callable[[], object], repeats: int = 30) -> float:
    """Median on the GPU's clock, with nothing of use in its cache.

    The GPU is given something to do before, so that it does not wait for the processor to hand out the work.
    """
    cache = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    for _ in range(3):
        step()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, end in marks:
        for _ in range(10):
            cache.zero_()
        start.record()
        step()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in marks) / 1e3


def copy_bandwidth() -> float:
    """Bytes a second, those read and those written."""
    source = torch.zeros(2**30, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source))
