"""X3D with a RoI head: its last stage dilated, people in boxes, weights of a classifier."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from saccade.errors import ConfigError, UsageError
from saccade.layers.dilated_conv import DilatedDepthwiseConv3d
from saccade.layers.roi_align import roi_align
from saccade.models import count_macs, create_model, load_model, load_weights, save_weights

SMALL = {"gamma_w": 0.3, "head_width": 32, "detection": True}


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 2)])
@pytest.mark.parametrize("dilation", [2, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_dilated_convolution(size: tuple[int, int], dilation: int, layout: torch.memory_format):
    torch.manual_seed(0)
    conv = DilatedDepthwiseConv3d(6, spatial_dilation=dilation)
    x = torch.randn(2, 6, 3, *size).contiguous(memory_format=layout).requires_grad_()
    x2 = x.detach().clone().requires_grad_()
    got = conv(x)
    d = (1, dilation, dilation)
    expected = F.conv3d(x2, conv.weight, padding=d, dilation=d, groups=6)
    torch.testing.assert_close(got, expected)
    grad = torch.randn_like(expected)
    ours = torch.autograd.grad(got, [x, conv.weight], grad)
    theirs = torch.autograd.grad(expected, [x2, conv.weight], grad)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_last_map_has_stride_16_or_that_of_a_classifier():
    torch.manual_seed(0)
    options = {"gamma_w": 0.3, "head_width": 32}
    plain = create_model("x2d", 5, **options).eval()
    model = create_model("x2d", 5, **options, detection=True).eval()
    load_weights(model, plain.state_dict())
    x = torch.randn(1, 3, 1, 96, 96)
    fine, coarse = model.forward_features(x), plain.forward_features(x)
    assert fine.shape[3:] == (6, 6)
    assert coarse.shape[3:] == (3, 3)
    same = create_model("x2d", 5, **options, detection=True, roi_stride=32).eval()
    load_weights(same, plain.state_dict())
    torch.testing.assert_close(same.forward_features(x), coarse)


def test_logits_of_people():
    torch.manual_seed(0)
    model = create_model("x2d", 80, **SMALL).eval()
    x = torch.randn(2, 3, 3, 64, 96)
    boxes = [
        torch.tensor([[4.0, 8.0, 40.0, 60.0], [50.0, 0.0, 96.0, 64.0]]),
        torch.tensor([[0.0, 0.0, 96.0, 64.0]]),
    ]
    logits = model(x, boxes)
    assert logits.shape == (3, 80)
    torch.testing.assert_close(model(x), torch.cat([model(x[:1], [boxes[1]]), logits[2:]]))
    # by hand, from the map that the head sees
    features = F.relu(model.head.norm(model.head.conv(model.forward_features(x)))).mean(2)
    cells = roi_align(features, boxes, spatial_scale=1 / 16).amax((2, 3))
    torch.testing.assert_close(logits, model.head.classifier(F.relu(model.head.hidden(cells))))


def test_people_learn_by_their_own_boxes():
    torch.manual_seed(0)
    model = create_model("x2d", 3, **SMALL)
    x = torch.randn(2, 3, 2, 64, 64, requires_grad=True)
    model(x, [torch.tensor([[0.0, 0.0, 32.0, 64.0]]), torch.empty(0, 4)]).sum().backward()
    assert model.stem.conv_s.weight.grad.abs().sum() > 0
    assert model.head.classifier.weight.grad.abs().sum() > 0
    assert model(x.detach(), [torch.empty(0, 4)] * 2).shape == (0, 3)


def test_a_classifier_s_weights_load_but_for_the_classes(tmp_path):
    trained = create_model("x3d_xs", 400, gamma_w=0.5)
    save_weights(trained, tmp_path / "kinetics.safetensors")
    model = create_model("x3d_xs", 80, gamma_w=0.5, detection=True)
    report = load_weights(model, tmp_path / "kinetics.safetensors")
    assert sorted(report.missing) == ["head.classifier.bias", "head.classifier.weight"]
    torch.testing.assert_close(model.head.hidden.weight, trained.head.hidden.weight)
    save_weights(model, tmp_path / "ava.safetensors")
    again, _ = load_model(tmp_path / "ava.safetensors")
    assert again.config.detection
    x, boxes = torch.randn(1, 3, 2, 64, 64), [torch.tensor([[3.0, 3.0, 60.0, 50.0]])]
    torch.testing.assert_close(again(x, boxes), model.eval()(x, boxes))


def test_the_dilated_stage_costs_more():
    shape = (1, 3, 16, 224, 224)
    with torch.device("meta"):
        models = [create_model("x3d_m", 80, detection=True, roi_stride=stride) for stride in (16, 32)]
    fine, coarse = (count_macs(model, shape) / 1e9 for model in models)
    assert coarse == pytest.approx(4.73, abs=0.02)
    assert fine > coarse * 1.3


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="detection and localization"):
        create_model("x2d", 80, detection=True, localization=True)
    with pytest.raises(ConfigError, match="roi_stride must be 16 or 32, got 8"):
        create_model("x2d", 80, detection=True, roi_stride=8)
    with pytest.raises(UsageError, match="boxes: x2d was built without detection"):
        create_model("x2d", 5, gamma_w=0.3)(torch.zeros(1, 3, 1, 32, 32), [torch.zeros(1, 4)])
