"""The heads of X3D: logits of a clip, of every frame, or of people in boxes.

Shape letters: B clips, C channels, T frames, H and W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.layers import PointwiseConv3d, norm_act, streaming
from saccade.layers.roi_align import RoIPool
from saccade.models.base import NormLayer

HeadPool = Literal["pyslowfast", "pytorchvideo", "global"]
HeadScores = Literal["softmax", "sigmoid"]


class X3DHead(nn.Module):
    """1x1x1 convolution, norm, ReLU, average pool, linear, ReLU, dropout, linear classifier.

    A map up to the size of the training window is pooled as a whole. For larger maps, as from the test crop,
    implementations differ, and ``pool`` selects the rule:

    * ``pyslowfast``: windows of the training size slide over the map; the softmax of each, or the sigmoid
      if set by ``scores``, is averaged. In eval mode the result is the logarithm of that mean (of its odds),
      so that ``softmax(logits)`` (``sigmoid(logits)``) equals PySlowFast's output. In training mode the
      logits of the windows are averaged instead.
    * ``pytorchvideo``: the same windows; their logits are averaged.
    * ``global``: the whole map is pooled, whatever its size (X3D-Multigrid, MMAction2).

    With ``causal`` the mean over time is that of the last frames, as many as the window has.

    Shapes: (B, C, T, H, W) -> (B, K), or (B, K, T) with ``localization``; causal, also the next frame of a
    stream, (B, C, H, W) -> (B, K). Without a classifier
    (``num_classes`` 0), the features (B, hidden) or (B, hidden, T), averaged over windows.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        hidden: int,
        num_classes: int,
        *,
        window: tuple[int, int, int],
        pool: HeadPool,
        scores: HeadScores = "softmax",
        localization: bool,
        dropout: float,
        norm_layer: NormLayer,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.window, self.pool, self.scores, self.localization = window, pool, scores, localization
        self.causal = causal
        if causal:
            self.register_buffer("is_causal", torch.ones((), dtype=torch.bool))
        self.conv = PointwiseConv3d(in_channels, inner)
        self.norm = norm_layer(inner)
        self.hidden = nn.Linear(inner, hidden, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Module = nn.Linear(hidden, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.window_logits(x)
        if self.localization:
            return logits[:, 0, 0, 0] if x.ndim == 4 else logits[:, :, 0, 0].transpose(1, 2)
        logits = logits.flatten(1, 3)
        num_windows = logits.shape[1]
        if num_windows == 1:
            return logits[:, 0]
        if self.pool != "pyslowfast" or self.training or isinstance(self.classifier, nn.Identity):
            return logits.mean(1)
        if self.scores == "sigmoid":
            return F.logsigmoid(logits).logsumexp(1) - F.logsigmoid(-logits).logsumexp(1)
        return logits.log_softmax(2).logsumexp(1) - math.log(num_windows)

    def window_logits(self, x: Tensor) -> Tensor:
        """Logits of every window: (B, C, T, H, W) -> (B, windows in T, in H, in W, K)."""
        x = norm_act(self.conv(self._last_frames(x)), self.norm, "relu")
        x = (self._pool_frame(x) if x.ndim == 4 else self._pool(x)).permute(0, 2, 3, 4, 1)
        x = self.dropout(F.relu(self.hidden(x), inplace=True))
        logits: Tensor = self.classifier(x)
        return logits

    def _pool(self, x: Tensor) -> Tensor:
        if self.localization:
            return x.mean((3, 4), keepdim=True)
        kernel = [min(window, size) for window, size in zip(self.window, x.shape[2:], strict=True)]
        if self.pool == "global" or kernel == list(x.shape[2:]):
            return x.mean((2, 3, 4), keepdim=True)
        return F.avg_pool3d(x, kernel, stride=1)

    def _last_frames(self, x: Tensor) -> Tensor:
        """Those of a clip that count, if causal."""
        return x[:, :, -self.window[0] :] if self.causal and x.ndim == 5 and not self.localization else x

    def _pool_frame(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, windows in H, in W)."""
        if self.localization:
            return x.mean((2, 3), keepdim=True).unsqueeze(2)
        kernel = [min(window, size) for window, size in zip(self.window[1:], x.shape[2:], strict=True)]
        whole = self.pool == "global" or kernel == list(x.shape[2:])
        means = x.mean((2, 3), keepdim=True) if whole else F.avg_pool2d(x, kernel, stride=1)
        if self.window[0] > 1:
            mean = streaming.memory().window_mean(means.flatten(1), self.window[0])
            means = mean.view(means.shape)
        return means.unsqueeze(2)


class X3DRoIHead(X3DHead):
    """Head for action detection: convolution, mean over time, RoIAlign to 7x7 cells, max over the cells, and
    the linear layers for each person.

    The pooling follows the paper (section 4.4) and PySlowFast's other models; PySlowFast has none for X3D.
    The layers are the same as in `X3DHead`, so that Kinetics weights fit except for the classifier.

    Shapes: (B, C, T, H, W) and for each clip boxes (N_i, 4), x1, y1, x2, y2 in pixels of the clip ->
    (sum of N_i, K).
    """

    def __init__(self, *args: Any, roi_stride: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.people = RoIPool(roi_stride)

    def forward(self, x: Tensor, boxes: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        x = self.people(norm_act(self.conv(self._last_frames(x)), self.norm, "relu"), boxes)
        logits: Tensor = self.classifier(self.dropout(F.relu(self.hidden(x), inplace=True)))
        return logits
