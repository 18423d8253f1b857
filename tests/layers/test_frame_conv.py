"""FrameConv3d: a convolution of each frame, with PyTorch's padding or TensorFlow's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from saccade.layers import FrameConv3d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 1, 1), (3, 2, 1), (5, 1, 8), (3, 2, 8)])
def test_symmetric_padding_is_conv3d(
    kernel: int, stride: int, groups: int, layout: torch.memory_format
) -> None:
    conv = FrameConv3d(8, 16, kernel, spatial_stride=stride, groups=groups)
    x = torch.randn(2, 8, 3, 9, 12).to(memory_format=layout)
    y = conv(x)
    pad = kernel // 2
    wanted = F.conv3d(x, conv.weight, None, (1, stride, stride), (0, pad, pad), 1, groups)
    torch.testing.assert_close(y, wanted)
    assert y.transpose(1, 2).flatten(0, 1).data_ptr() == y.data_ptr()  # what follows needs no copy


@pytest.mark.parametrize(
    ("size", "kernel", "before", "after"), [(8, 3, 0, 1), (9, 3, 1, 1), (8, 5, 1, 2), (9, 5, 2, 2)]
)
def test_same_padding_follows_the_size(size: int, kernel: int, before: int, after: int) -> None:
    """tf.nn.conv2d(padding="SAME"), stride 2: ceil(size / 2) outputs, the larger half at the end."""
    conv = FrameConv3d(3, 4, kernel, spatial_stride=2, padding_rule="same")
    x = torch.randn(1, 3, 2, size, size)
    padded = F.pad(x, (before, after, before, after))
    wanted = F.conv3d(padded, conv.weight, None, (1, 2, 2))
    assert conv(x).shape[3:] == (-(-size // 2), -(-size // 2))
    torch.testing.assert_close(conv(x), wanted)
