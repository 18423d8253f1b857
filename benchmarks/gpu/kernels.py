"""The operators on a GPU, Triton against PyTorch's own: checked, then timed, at the sizes of real models.

Depthwise convolution and batch norm at the stages of X3D-M, 16 clips, channels-last-3d; shift at those of
RubiksNet-tiny, 16 clips of 8 frames. A case is first held against the definition in float64; where the
result is more than twice as wrong as PyTorch's, nothing is timed. Times are medians, the cache emptied before
each. PyTorch's is the better of both memory layouts where it takes both. ``copy_share`` is the time that a
copy of as many bytes as the operator must read and write takes (measured in the same run), over the time it
took.

    python -m benchmarks.gpu kernels
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu._measure import Setting, Table, error_line, forget_tuning, seconds, setting
from saccade.ops import batch_norm_act, depthwise_conv3d, shift3d, use_backend

LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)
# channels and height: X3D-M's res2..res5, RubiksNet-tiny's 1..4
STAGES = ((54, 56), (108, 28), (216, 14), (432, 7))
DTYPES = (torch.float32, torch.bfloat16)


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


def main(here: Setting) -> None:
    """Check all cases, wait for the turn, time those that are right."""
    torch.manual_seed(0)
    checked = []
    for make in cases(here):
        case = make()
        try:
            checked.append((make, check(case)))
        except Exception as error:
            checked.append((make, f"no: {error_line(error)}"))
        del case
    print(f"{sum(problem is None for _, problem in checked)} of {len(checked)} cases are right", flush=True)
    for make, problem in checked:
        if problem:
            print(f"{make.__name__}: {problem}", flush=True)
    here.wait_for_turn()
    forget_tuning()
    bandwidth = copy_bandwidth(here)
    table = Table("kernels", here)
    for make, problem in checked:
        try:
            for row in measure(make(), problem, bandwidth):
                table.add(row)
        except Exception as error:
            table.add(_row(make(), "forward", f"no: {error_line(error)}"))
    ceilings(here, bandwidth)


def ceilings(here: Setting, bandwidth: float) -> None:
    """What the device can do at best: a copy, and a matrix product in bfloat16, both measured."""
    size = 64 if here.tiny else 8192
    a, b = (torch.randn(size, size, device=here.device).bfloat16() for _ in range(2))
    rate = 2 * size**3 / seconds(lambda: a @ b)
    name = torch.cuda.get_device_name() if here.device == "cuda" else "CPU"
    Table("ceilings", here).add(
        {
            "device": name,
            "copy_gb_per_s": f"{bandwidth / 1e9:.0f}",
            "bfloat16_tflop_per_s": f"{rate / 1e12:.0f}",
            "cuda": torch.version.cuda or "",
            "triton": _triton_version(),
        }
    )


def _triton_version() -> str:
    import triton

    return str(triton.__version__)


# -------------------------------------------------------------------------------------------------- the cases


def cases(here: Setting) -> Iterator[Callable[[], Case]]:
    """All of them, each made when it is asked for."""
    batch = 2 if here.tiny else 16
    stages = ((3, 2),) if here.tiny else STAGES
    first = stages[0]

    def later(make: Callable[..., Case], *args: object) -> Callable[[], Case]:
        def call() -> Case:
            return make(here, batch, *args)

        call.__name__ = f"{make.__name__}{args}"
        return call

    for dtype in DTYPES:
        for channels, height in stages:
            yield later(depthwise_case, channels, height, 1, (3, 3, 3), dtype)
        yield later(depthwise_case, first[0], 2 * first[1], 2, (3, 3, 3), dtype)
        yield later(depthwise_case, 3 if here.tiny else 24, 2 * first[1], 1, (5, 1, 1), dtype)
    for dtype in DTYPES:
        for channels, height in stages:
            yield later(shift_case, channels, height, 1, dtype)
        yield later(shift_case, first[0], 2 * first[1], 2, dtype)
    for dtype in DTYPES:
        for channels, height in stages:
            for kind in ("relu", "silu+se", "relu+residual"):
                yield later(batch_norm_case, channels, height, kind, dtype)


def depthwise_case(
    here: Setting,
    batch: int,
    channels: int,
    height: int,
    stride: int,
    kernel: tuple[int, int, int],
    dtype: torch.dtype,
) -> Case:
    frames = 2 if here.tiny else 16
    x = _input(here, batch, channels, frames, height, dtype, torch.channels_last_3d)
    weight = (torch.randn(channels, 1, *kernel, device=here.device) / 5).to(dtype)
    padding = tuple(k // 2 for k in kernel)

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_conv3d(x, weight, stride=(1, stride, stride), padding=padding)

    out = 1 / stride**2
    return Case(
        "depthwise_conv3d",
        f"{batch}x{channels}x{frames}x{height}x{height} kernel {'x'.join(map(str, kernel))} stride {stride}",
        function,
        [x, weight],
        forward_passes=1 + out,
        train_passes=(1 + out) + (2 + out),
        layouts=LAYOUTS,
    )


def shift_case(
    here: Setting, batch: int, channels: int, height: int, stride: int, dtype: torch.dtype
) -> Case:
    frames = 2 if here.tiny else 8
    x = _input(here, batch, channels, frames, height, dtype, torch.contiguous_format)
    shift = torch.rand(3, channels, device=here.device) * 2 - 1

    def function(x: Tensor, shift: Tensor) -> Tensor:
        return shift3d(x, shift, stride=(1, stride, stride))

    out = 1 / stride**2
    return Case(
        "shift3d",
        f"{batch}x{channels}x{frames}x{height}x{height} stride {stride}",
        function,
        [x, shift],
        forward_passes=1 + out,
        train_passes=(1 + out) + (2 + out),
        layouts=(torch.contiguous_format,),
    )


def batch_norm_case(
    here: Setting, batch: int, channels: int, height: int, kind: str, dtype: torch.dtype
) -> Case:
    """Training mode. x is read for its statistics and once more; so it is, with the gradient, backward."""
    frames = 2 if here.tiny else 16
    x = _input(here, batch, channels, frames, height, dtype, torch.channels_last_3d)
    inputs = [
        x,
        torch.rand(channels, device=here.device) + 0.5,
        torch.randn(channels, device=here.device),
    ]
    hidden = max(8, channels // 16)
    if kind == "silu+se":
        sizes = ((hidden, channels), (hidden,), (channels, hidden), (channels,))
        inputs += [(torch.randn(size, device=here.device) / 4).to(dtype) for size in sizes]
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
        f"{batch}x{channels}x{frames}x{height}x{height} {kind}",
        function,
        inputs,
        forward_passes=3 + extra,
        train_passes=3 + extra + 5 + 2 * extra,
        layouts=(torch.channels_last_3d,),
    )


def _input(
    here: Setting,
    batch: int,
    channels: int,
    frames: int,
    height: int,
    dtype: torch.dtype,
    layout: torch.memory_format,
) -> Tensor:
    x = torch.randn(batch, channels, frames, height, height, device=here.device).to(dtype)
    return x.contiguous(memory_format=layout)


# -------------------------------------------------------------------------------------- checked, then timed


def measure(case: Case, problem: str | None, bandwidth: float) -> Iterator[dict[str, object]]:
    """Two rows: the forward pass, and forward and backward. Without times where the result is wrong."""
    for mode, passes in (("forward", case.forward_passes), ("train", case.train_passes)):
        row = _row(case, mode, problem)
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
        yield row


def _row(case: Case, mode: str, problem: str | None) -> dict[str, object]:
    return {
        "operator": case.operator,
        "size": case.size,
        "dtype": str(case.inputs[0].dtype).removeprefix("torch."),
        "mode": mode,
        "correct": problem or "yes",
        "ms": "",
        "ms_torch": "",
        "speedup": "",
        "copy_share": "",
    }


def check(case: Case) -> str | None:
    """What is wrong with output or gradients, if anything: the tests' rule, at the size that is timed."""
    grad = torch.randn_like(_run(case, case.inputs, "torch")[0])
    ours, plain = (_run(case, case.inputs, backend, grad) for backend in ("triton", "torch"))
    exact = _run(case, [t.double() for t in case.inputs], "naive", grad.double())
    for index, (a, b, c) in enumerate(zip(ours, plain, exact, strict=True)):
        error, allowed = ((value.double() - c).abs().max().item() for value in (a, b))
        unit = max(torch.finfo(a.dtype).eps, 2**-20) * c.abs().max().item()
        if case.inputs[0].device.type == "cpu" and a.dtype == torch.bfloat16:
            unit *= 2  # Triton's interpreter does not round to bfloat16, it cuts off
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


def copy_bandwidth(here: Setting) -> float:
    """Bytes a second, those read and those written."""
    source = torch.zeros(2**20 if here.tiny else 2**30, dtype=torch.int8, device=here.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source))


if __name__ == "__main__":
    main(setting())
