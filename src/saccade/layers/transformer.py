"""Parts of video transformers: embedding of clips, blocks and head.

Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", arXiv 2010.11929; Bertasius et al. 2021, "Is
Space-Time Attention All You Need for Video Understanding?", arXiv 2102.05095 (`DividedBlock`).

Shape letters: B clips, T time steps (frames or tubelets), P patches per time step, C width, N tokens, K
classes. The first token is the class token. Tokens have shape (B, 1 + T P, C), time slowest, or, where time
steps do not interact, (B, T, 1 + P, C) with a class token for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.errors import UsageError
from saccade.layers.attention import Attention
from saccade.layers.drop_path import DropPath
from saccade.layers.position import resize_space, resize_time

HeadPool = Literal["class", "mean"]


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Settings shared by all blocks of a transformer.

    ``dropout`` applies after attention and in the MLP, ``attn_dropout`` to the attention weights.
    """

    width: int
    num_heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    attn_dropout: float = 0.0
    norm_eps: float = 1e-5

    def norm(self) -> nn.LayerNorm:
        """A new layer norm."""
        return nn.LayerNorm(self.width, eps=self.norm_eps)

    def attention(self) -> Attention:
        """A new self-attention."""
        return Attention(self.width, self.num_heads, attn_dropout=self.attn_dropout, dropout=self.dropout)

    def mlp(self) -> Mlp:
        """A new MLP."""
        return Mlp(self.width, int(self.width * self.mlp_ratio), dropout=self.dropout)


class Mlp(nn.Module):
    """Linear, GELU, linear: (..., C) -> (..., C)."""

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))
        return output


class TransformerBlock(nn.Module):
    """Pre-norm block: attention among all tokens, then an MLP, both residual.

    Shapes: (B, N, C) -> (B, N, C); (B, T, N, C) -> (B, T, N, C), attention within each time step.
    """

    def __init__(self, shape: BlockShape, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = shape.norm()
        self.attn = shape.attention()
        self.norm2 = shape.norm()
        self.mlp = shape.mlp()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        y = self.attn(y.flatten(0, -3)).reshape(y.shape)
        x = x + self.drop_path(y)
        total: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return total


class DividedBlock(nn.Module):
    """Pre-norm block of divided attention: in time, then in space, then an MLP, all residual.

    In time, a patch attends to the same patch of all time steps, without the class token. In space, the
    patches of a time step and a copy of the class token attend to each other; the copies are averaged.
    ``time_fc`` starts at zero, so that a block with the weights of an image model starts as in that model.

    Shapes: (B, 1 + T P, C) and T -> (B, 1 + T P, C).
    """

    def __init__(self, shape: BlockShape, drop_path: float = 0.0) -> None:
        super().__init__()
        self.time_norm = shape.norm()
        self.time_attn = shape.attention()
        self.time_fc = nn.Linear(shape.width, shape.width)
        self.norm1 = shape.norm()
        self.attn = shape.attention()
        self.norm2 = shape.norm()
        self.mlp = shape.mlp()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, num_times: int) -> Tensor:
        token, patches = x[:, :1], x[:, 1:].unflatten(1, (num_times, -1))
        patches = patches + self.drop_path(self._in_time(patches))
        x = torch.cat((token, patches.flatten(1, 2)), 1)
        x = x + self.drop_path(self._in_space(token, patches))
        total: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return total

    def _in_time(self, patches: Tensor) -> Tensor:
        """(B, T, P, C) -> (B, T, P, C)."""
        columns = patches.transpose(1, 2)
        y = self.time_fc(self.time_attn(self.time_norm(columns.flatten(0, 1))))
        return y.reshape(columns.shape).transpose(1, 2)

    def _in_space(self, token: Tensor, patches: Tensor) -> Tensor:
        """(B, 1, C) and (B, T, P, C) -> (B, 1 + T P, C)."""
        copies = token.unsqueeze(1).expand(-1, patches.shape[1], -1, -1)
        frames = torch.cat((copies, patches), 2)
        y = self.attn(self.norm1(frames).flatten(0, 1)).reshape(frames.shape)
        return torch.cat((y[:, :, 0].mean(1, keepdim=True), y[:, :, 1:].flatten(1, 2)), 1)


# ------------------------------------------------------------------------------------------ clips to tokens


class ClipEmbedding(nn.Module):
    """Embed the tubelets of a clip, with a class token and learned positions in space and time.

    Parameters: ``patch.weight`` (C, 3, frames, side, side) and ``patch.bias``; ``cls_token`` (1, 1, C);
    ``pos_embed`` (1, 1 + P, C), for the class token, then the patches row by row; ``time_embed`` (1, T, C),
    if ``in_time``. Positions are interpolated for clips of other sizes.

    Shapes: (B, 3, T frames, H, W) -> (B, 1 + T P, C), or (B, T, 1 + P, C) with ``per_step``.
    """

    time_embed: nn.Parameter | None

    def __init__(
        self,
        width: int,
        *,
        tubelet: tuple[int, int],
        grid: tuple[int, int],
        in_time: bool,
        per_step: bool,
        dropout: float = 0.0,
    ) -> None:
        """Args:
        tubelet: (frames, side in pixels).
        grid: (time steps, patches along a side) for which positions are learned.
        in_time: learn positions in time.
        per_step: return a class token for every time step.
        """
        super().__init__()
        self.tubelet, self.grid, self.per_step = tubelet, grid, per_step
        frames, side = tubelet
        self.patch = nn.Conv3d(3, width, (frames, side, side), stride=(frames, side, side))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid[1] ** 2, width))
        time_embed = nn.Parameter(torch.zeros(1, grid[0], width)) if in_time else None
        self.register_parameter("time_embed", time_embed)
        self.dropout = nn.Dropout(dropout)

    def forward(self, clips: Tensor) -> Tensor:
        num_times, height, width = self.token_grid(clips)
        x = self._patches(clips)  # (B, T, P, C)
        side = self.grid[1]
        x = x + resize_space(self.pos_embed[:, 1:], (side, side), (height, width)).unsqueeze(1)
        if self.time_embed is not None:
            x = x + resize_time(self.time_embed, num_times).unsqueeze(2)
        token = self.cls_token + self.pos_embed[:, :1]
        if self.per_step:
            tokens = torch.cat((token.unsqueeze(1).expand(*x.shape[:2], -1, -1), x), 2)
        else:
            tokens = torch.cat((token.expand(x.shape[0], -1, -1), x.flatten(1, 2)), 1)
        output: Tensor = self.dropout(tokens)
        return output

    def token_grid(self, clips: Tensor) -> tuple[int, int, int]:
        """(time steps, rows, columns) of the tokens of clips (B, 3, T, H, W).

        Raises:
            UsageError: the size is no multiple of the tubelet's.
        """
        frames, side = self.tubelet
        num_frames, height, width = clips.shape[2:]
        if num_frames % frames or height % side or width % side or 0 in (num_frames, height, width):
            parts = f"{frames}×{side}×{side}" if frames > 1 else f"{side}×{side}"
            multiples = f"frames must be a multiple of {frames}, " if frames > 1 else ""
            raise UsageError(
                f"clips of {num_frames}×{height}×{width} (frames, height, width) do not divide into "
                f"{parts} patches: {multiples}height and width must be multiples of {side}"
            )
        return num_frames // frames, height // side, width // side

    def _patches(self, clips: Tensor) -> Tensor:
        """The patch convolution as a matrix product, as patches do not overlap."""
        frames, side = self.tubelet
        x = clips.unflatten(4, (-1, side)).unflatten(3, (-1, side)).unflatten(2, (-1, frames))
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7)  # (B, T, rows, columns, 3, frames, side, side)
        return F.linear(x.flatten(4).flatten(2, 3), self.patch.weight.flatten(1), self.patch.bias)


class TemporalTokens(nn.Module):
    """Average the patches of each time step; add the class token and learned positions in time.

    Parameter: ``time_embed`` (1, 1 + T, C), for the class token, then the time steps.
    Shapes: (B, T, 1 + P, C) -> (B, 1 + T, C).
    """

    def __init__(self, width: int, num_times: int, *, dropout: float = 0.0, leak: bool = False) -> None:
        """Args:
        leak: select class tokens as VideoTransformer-pytorch does, for its published weights: clip i gets
            token i of all (clip, time step) pairs instead of that of its own first time step, so that the
            output depends on the batch.
        """
        super().__init__()
        self.leak = leak
        self.time_embed = nn.Parameter(torch.zeros(1, 1 + num_times, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        token = x[:, :, 0].flatten(0, 1)[: x.shape[0]] if self.leak else x[:, 0, 0]
        steps = x[:, :, 1:].mean(2)
        positions = resize_time(self.time_embed[:, 1:], steps.shape[1])
        tokens = torch.cat((token.unsqueeze(1), steps), 1)
        output: Tensor = self.dropout(tokens + torch.cat((self.time_embed[:, :1], positions), 1))
        return output


# --------------------------------------------------------------------------------------------------- head


class TokenHead(nn.Module):
    """Norm and classifier, on the class token or on the mean of the other tokens after the norm.

    Shapes: (B, N, C), or (B, T, N, C), averaged over T first -> (B, K), or (B, C) without a classifier.
    """

    def __init__(
        self, width: int, num_classes: int, *, pool: HeadPool = "class", dropout: float, norm_eps: float
    ) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Module = nn.Linear(width, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1) if x.ndim == 4 else x
        x = self.norm(x[:, 0]) if self.pool == "class" else self.norm(x[:, 1:]).mean(1)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits
