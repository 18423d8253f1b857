"""The 1x1x1 convolution equals PyTorch's, however it is computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.layers import PointwiseConv3d
from saccade.layers.pointwise_conv import _better_as_images


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 24, 5, 7, 9), (1, 54, 1, 1, 1), (3, 7, 2, 6, 1)])
def test_outputs_and_gradients_are_those_of_the_plain_convolution(shape, stride, bias) -> None:
    torch.manual_seed(0)
    clips = torch.randn(shape).contiguous(memory_format=torch.channels_last_3d)
    ours = PointwiseConv3d(shape[1], 13, spatial_stride=stride, bias=bias)
    plain = nn.Conv3d(shape[1], 13, 1, stride=(1, stride, stride), bias=bias)
    plain.load_state_dict(ours.state_dict())
    outcomes = []
    for layer in (ours, plain):
        x = clips.clone(memory_format=torch.preserve_format).requires_grad_()
        y = layer(x)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        outcomes.append((y, x.grad, *(p.grad for p in layer.parameters())))
    for got, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    if clips.shape[3] > 1:
        assert outcomes[0][0].is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.usefixtures("one_thread")
def test_frames_become_images_only_where_that_is_free_and_faster() -> None:
    clips = torch.randn(2, 4, 3, 5, 5)
    channels_last = clips.contiguous(memory_format=torch.channels_last_3d)
    assert _better_as_images(channels_last)
    assert not _better_as_images(clips)
    assert not _better_as_images(channels_last.double())
    assert not _better_as_images(
        channels_last.repeat(8, 1, 1, 1, 1).contiguous(memory_format=torch.channels_last_3d)
    )
    torch.set_num_threads(2)
    assert not _better_as_images(channels_last)
