"""The 1x1x1 convolution equals PyTorch's, however it is computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
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
@pytest.mark.parametrize("channels", range(1, 9))
def test_few_channels_with_a_stride_train_without_a_crash(channels, monkeypatch) -> None:
    """oneDNN's strided 2-D convolution of under 8 channels corrupts the heap without AVX-512."""
    strides = []
    conv2d = F.conv2d

    def recorded(images, *args, stride):
        strides.append((images.shape[1], *stride))
        return conv2d(images, *args, stride=stride)

    monkeypatch.setattr(F, "conv2d", recorded)
    torch.manual_seed(0)
    layer = PointwiseConv3d(channels, 8, spatial_stride=2)
    clips = torch.randn(2, channels, 4, 20, 28).contiguous(memory_format=torch.channels_last_3d)
    weight = layer.weight.detach().double().requires_grad_()
    doubles = clips.double().requires_grad_()
    expected = torch.einsum("oi,bithw->bothw", weight[..., 0, 0, 0], doubles[..., ::2, ::2])
    grad = torch.randn(expected.shape)
    expected.backward(grad.double())
    for _ in range(3):
        layer.zero_grad()
        x = clips.clone(memory_format=torch.preserve_format).requires_grad_()
        y = layer(x)
        y.backward(grad)
        pairs = (y, expected), (x.grad, doubles.grad), (layer.weight.grad, weight.grad)
        for got, want in pairs:
            torch.testing.assert_close(got, want.float(), rtol=1e-4, atol=1e-4)
    assert set(strides) <= {(8, 2, 2)}


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
