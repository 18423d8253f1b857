"""When an operator may bypass the dispatcher, which costs more than the arithmetic of a small tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode


def plain(x: Tensor) -> bool:
    """Whether only autograd is active: no compiler, exporter, counter, fake tensor or function transform.

    Then a `torch.autograd.Function` with the same kernels is faster than the registered operator.
    """
    return (
        not torch.compiler.is_compiling()
        and type(x) in (Tensor, nn.Parameter)
        and _get_current_dispatch_mode() is None
        and torch._C._functorch.peek_interpreter_stack() is None
    )
