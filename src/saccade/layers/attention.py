"""Multi-head attention whose weights can be recorded.

Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from saccade.errors import UsageError


class RecordableAttention(nn.Module):
    """Base class of all attention layers, whose weights `record_attention` can record.

    A subclass computes queries, keys and values (pooled, shifted, ...) and calls ``self.attend``.
    """

    _keep: Callable[[Tensor], None] | None = None

    @property
    def keep_weights(self) -> bool:
        """Whether the attention weights are computed explicitly and recorded."""
        return self._keep is not None

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, dropout: float = 0.0
    ) -> Tensor:
        """softmax(q kᵀ / √D + bias) v.

        Shapes: q (B, heads, N, D); k (B, heads, M, D); v (B, heads, M, E); ``bias`` broadcasts to (B,
        heads, N, M) -> (B, heads, N, E). ``dropout`` is the rate on the weights in training. With
        ``keep_weights`` the N x M weights are held in memory; else PyTorch's fused attention is used.
        """
        rate = dropout if self.training else 0.0
        if self._keep is None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=rate)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        weights = (scores if bias is None else scores + bias).softmax(-1)
        self._keep(weights.detach())
        output: Tensor = F.dropout(weights, rate) @ v
        return output


class Attention(RecordableAttention):
    """Multi-head self-attention: one linear layer for queries, keys and values, and one after the heads.

    Parameters: ``qkv`` (rows q, k, v; within each, head by head) and ``proj``, as in timm's ViT.
    Shapes: (B, N, dim) -> (B, N, dim).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        *,
        attn_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        """Args:
        attn_dropout: rate on the attention weights; dropout: on the output.
        """
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got {num_heads} heads for {dim}")
        self.num_heads = num_heads
        self.attn_dropout = attn_dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, heads, D)
        q, k, v = qkv.movedim((2, 3), (0, 2))
        x = self.attend(q, k, v, dropout=self.attn_dropout).transpose(1, 2).flatten(2)
        output: Tensor = self.dropout(self.proj(x))
        return output

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, attn_dropout={self.attn_dropout:g}"


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the attention weights of every forward pass of ``model`` within the ``with`` block.

    Yields a dict, empty at first: name of the attention layer -> the weights of its last call (B, heads, N,
    M), which sum to 1 over the M keys, without gradient. B counts sequences: a layer that attends frame by
    frame has B x T of them.

    Raises:
        UsageError: the model has no attention.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, RecordableAttention)}
    if not layers:
        name = getattr(model, "model_name", type(model).__name__)
        raise UsageError(f"{name} has no attention to record")
    records: dict[str, Tensor] = {}
    before = {name: layer._keep for name, layer in layers.items()}
    for name, layer in layers.items():
        layer._keep = partial(records.__setitem__, name)
    try:
        yield records
    finally:
        for name, layer in layers.items():
            layer._keep = before[name]
