"""When an operator may run without the dispatcher, which costs more than the arithmetic of a small tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode


def plain(x: Tensor) -> bool:
    """Whether nothing but autograd looks on: no compiler, exporter, counter, fake tensor, function transform.

    The registered operator is then a detour through PyTorch's dispatcher, a `torch.autograd.Function` of the
    same kernels the short way.
    """
    return (
        not torch.compiler.is_compiling()
        and type(x) in (Tensor, nn.Parameter)
        and _get_current_dispatch_mode() is None
        and torch._C._functorch.peek_interpreter_stack() is None
    )
