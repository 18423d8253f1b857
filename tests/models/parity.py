"""Building a model from a recording of upstream code by the production converter; comparing with a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from golden import rule
from saccade.models import LoadReport, VideoModel, create_model, load_weights


@dataclass(frozen=True)
class Case:
    """A recording, the model of ours it is of, which of our modules gives the output of theirs, and which of
    our parameters they lack.
    """

    recording: str
    model: str
    num_classes: int = 400
    overrides: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    not_theirs: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.recording

    def build(self, dtype: torch.dtype = torch.float64) -> tuple[VideoModel, LoadReport]:
        names = rule.load(self.recording)["state_dict"]
        state = {name: torch.from_numpy(rule.param(name, shape)) for name, shape in names}
        model = create_model(self.model, self.num_classes, **self.overrides).to(dtype)
        report = load_weights(model, state)
        return model.eval(), report

    def run(self, run: str) -> dict[str, Any]:
        recorded: dict[str, Any] = rule.load(self.recording)["runs"][run]
        return recorded

    def clip(self, run: str, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.from_numpy(rule.input_clip(self.recording, self.run(run)["input_shape"])).to(dtype)


_SLOWFAST = {
    "s1": "stem",
    "s2": "res2",
    "s3": "res3",
    "s4": "res4",
    "s5": "res5",
    "head.conv_5": "head.conv",
    "head.conv_5_bn": "head.norm",
    "head.lin_5": "head.hidden",
    "head.projection": "head.classifier",
}
_PTV = {
    "blocks.0": "stem",
    "blocks.1": "res2",
    "blocks.2": "res3",
    "blocks.3": "res4",
    "blocks.4": "res5",
    "blocks.5.proj": "head.classifier",
}
_MULTIGRID = {
    "conv1_s": "stem.conv_s",
    "conv1_t": "stem.conv_t",
    "bn1": "stem.norm",
    "layer1": "res2",
    "layer2": "res3",
    "layer3": "res4",
    "layer4": "res5",
    "conv5": "head.conv",
    "bn5": "head.norm",
    "fc1": "head.hidden",
    "fc2": "head.classifier",
}

XS = Case("x3d_xs", "x3d_xs", modules=_SLOWFAST)
S = Case("x3d_s", "x3d_s", modules=_SLOWFAST)
M = Case("x3d_m", "x3d_m", modules=_SLOWFAST)
S_PTV = Case(
    "x3d_s_ptv",
    "x3d_s",
    overrides={"head_pool": "pytorchvideo"},
    modules=_PTV,
    not_theirs=frozenset({"res2.0.shortcut_norm.weight", "res2.0.shortcut_norm.bias"}),
)
KK_CLASS = Case("x3d_kk_m_class", "x3d_m", 157, {"head_pool": "global"}, _MULTIGRID)
VOV_M = Case("vov3d_m_k400", "vov3d_m", modules=_SLOWFAST)
VOV_M_SSV2 = Case("vov3d_m_ssv2", "vov3d_m", 174, modules=_SLOWFAST)
KK_LOC = Case("x3d_kk_m_loc", "x3d_m", 157, {"localization": True}, _MULTIGRID)


def assert_close(actual: Tensor, expected: Any, rtol: float, atol: float = 0.0) -> None:
    """``atol`` is relative to the largest expected value."""
    wanted = torch.as_tensor(np.asarray(expected, dtype=np.float64))
    got = actual.detach().double().reshape(wanted.shape)
    torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol * float(wanted.abs().max()))


def assert_statistics(actual: Tensor, recorded: dict[str, Any], rtol: float) -> None:
    """Mean, standard deviation, norm and first values of a tensor, its axes perhaps in another order."""
    assert actual.numel() == int(np.prod(recorded["shape"]))
    if actual.ndim == 5 and list(actual.shape) != recorded["shape"]:
        moved = actual.permute(0, 4, 1, 2, 3)
        actual = moved if list(moved.shape) == recorded["shape"] else actual
    flat = actual.detach().double().flatten()
    scale = recorded["l2"] / flat.numel() ** 0.5
    got = [flat.mean(), flat.std(correction=0), flat.norm(), *flat[:8]]
    wanted = [recorded["mean"], recorded["std"], recorded["l2"], *recorded["first8"]]
    torch.testing.assert_close(
        torch.stack(got), torch.tensor(wanted, dtype=torch.float64), rtol=rtol, atol=rtol * scale
    )


def record_outputs(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """A dict that the next forward pass fills with the outputs of the named modules."""
    outputs: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    for name in names:

        def keep(_module: nn.Module, _inputs: Any, output: Tensor, name: str = name) -> None:
            outputs[name] = output.detach().clone()  # what follows may change it in place

        modules[name].register_forward_hook(keep)
    return outputs


def check_stages(case: Case, outputs: dict[str, Tensor], recorded: dict[str, Any]) -> None:
    """The outputs of `record_outputs` have the recorded statistics."""
    compared = 0
    for stage in recorded["stages"]:
        if stage["module"] in case.modules:
            assert_statistics(outputs[case.modules[stage["module"]]], stage, rtol=1e-9)
            compared += 1
    assert compared == len(case.modules)


def check_gradients(
    case: Case,
    model: VideoModel,
    mapped: dict[str, str],
    x: Tensor,
    logits: Tensor,
    recorded: dict[str, Any],
    *,
    rtol: float = 1e-8,
) -> None:
    """Backward of the rule's loss; the gradients of every parameter and of the input are as recorded."""
    r = rule.loss_vector(case.recording, recorded["logits_shape"])
    (logits * torch.from_numpy(r).to(logits.dtype).reshape(logits.shape)).sum().backward()
    parameters = dict(model.named_parameters())
    got = {key: parameters[mapped[key]].grad.double().norm() for key in recorded["grad_norm"]}
    wanted = {key: torch.tensor(value, dtype=torch.float64) for key, value in recorded["grad_norm"].items()}
    torch.testing.assert_close(got, wanted, rtol=rtol, atol=1e-4 * rtol)
    compared = {mapped[key] for key in recorded["grad_norm"]}
    assert {name for name in parameters if name not in compared} == case.not_theirs
    assert x.grad is not None
    assert_statistics(x.grad, recorded["input_grad"], rtol=rtol)


def check_running_statistics(
    mapped: dict[str, str], before: dict[str, Tensor], after: dict[str, Tensor], recorded: dict[str, Any]
) -> None:
    """Running statistics after one forward pass are as recorded.

    X3D-Multigrid trains on the statistics of its splits, which start from other values than ours.
    """
    norms = recorded["running_stats_l2_after_one_forward"]
    split = any(".split_bn." in name for name in norms)
    compared = 0
    for name, norm in norms.items():
        if split and ".split_bn." not in name:
            continue
        key = mapped[name.replace(".split_bn.", ".bn.")]
        value = after[key]
        if split:
            start = torch.from_numpy(rule.param(name, before[key].shape))
            value = value - 0.9 * before[key] + 0.9 * start
        assert float(value.norm()) == pytest.approx(norm, rel=1e-9), name
        compared += 1
    assert compared == 2 * sum(key.endswith("num_batches_tracked") for key in after)


def dropout_off(model: VideoModel) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
