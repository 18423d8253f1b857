"""Weights of MViT and MaskFeat: the checkpoints of other code bases, and pre-training that is fine-tuned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.tiny_mvit import clips, tiny, tiny_maskfeat
from saccade.errors import WeightsError
from saccade.models import create_model, load_model, load_weights, save_weights
from saccade.models.checkpoints import guess_models, num_classes_of

_PYSLOWFAST = {
    "stem.patches.": "patch_embed.proj.",
    "stem.cls_token": "cls_token",
    "stem.mask_token": "mask_token",
    "stem.space": "pos_embed_spatial",
    "stem.time": "pos_embed_temporal",
    "stem.cls_position": "pos_embed_class",
    "head.classifier.": "head.projection.",
    "head.decoder.": "pred_head.projections.0.",
}
_PYTORCHVIDEO = {
    "stem.patches.": "patch_embed.patch_model.",
    "stem.cls_token": "cls_positional_encoding.cls_token",
    "stem.space": "cls_positional_encoding.pos_embed_spatial",
    "stem.time": "cls_positional_encoding.pos_embed_temporal",
    "stem.cls_position": "cls_positional_encoding.pos_embed_class",
    "head.norm.": "norm_embed.",
    "head.classifier.": "head.proj.",
}
_BLOCK = {
    "layers.": "blocks.",
    ".pool_q.conv.": ".pool_q.",
    ".pool_k.conv.": ".pool_k.",
    ".pool_v.conv.": ".pool_v.",
    ".pool_q.norm.": ".norm_q.",
    ".pool_k.norm.": ".norm_k.",
    ".pool_v.norm.": ".norm_v.",
    ".relative.time": ".rel_pos_t",
    ".relative.height": ".rel_pos_h",
    ".relative.width": ".rel_pos_w",
    ".mlp.0.": ".mlp.fc1.",
    ".mlp.2.": ".mlp.fc2.",
    ".widen.": ".proj.",
}


def theirs(state: dict[str, Tensor], names: dict[str, str], *, separate: bool) -> dict[str, Tensor]:
    """Our weights under the names of another code base, with one linear layer before the heads or three."""
    renamed = {}
    for key, value in state.items():
        name = key
        for ours, other in (_BLOCK if key.startswith("layers.") else names).items():
            name = name.replace(ours, other)
        if separate and ".attn.qkv." in name:
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace("qkv", part)] = rows
        else:
            renamed[name] = value
    return renamed


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(
    ("format_name", "model_name"),
    [
        ("PySlowFast", "mvit_base_16x4"),
        ("PySlowFast", "mvit_base_32x3"),
        ("PySlowFast", "mvitv2_small"),
        ("PySlowFast", "mvitv2_small_maskfeat"),
        ("PyTorchVideo", "mvit_base_16x4"),
    ],
)
def test_checkpoints_of_pyslowfast_and_pytorchvideo(
    format_name: str, model_name: str, separate: bool, tmp_path: Path
) -> None:
    model = tiny(model_name)
    names = {**_PYSLOWFAST, "head.norm.": "norm."} if format_name == "PySlowFast" else _PYTORCHVIDEO
    state = theirs(model.state_dict(), names, separate=separate)
    torch.save({"model_state": state, "epoch": 200, "cfg": "MVIT:\n"}, tmp_path / "k400.pyth")
    other = tiny(model_name)
    nn.init.zeros_(other.head.norm.weight)
    report = load_weights(other, tmp_path / "k400.pyth")
    assert report.format == format_name
    assert report.num_loaded == len(model.state_dict())
    assert set(report.mapped) == set(state)
    assert not report.left_out
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_other_classes_leave_out_the_classifier_alone() -> None:
    state = theirs(tiny().state_dict(), {**_PYSLOWFAST, "head.norm.": "norm."}, separate=True)
    report = load_weights(tiny(num_classes=7), state)
    counts = "5 classes in the file, 7 in the model"
    assert report.left_out == {"head.projection.weight": counts, "head.projection.bias": counts}


def test_weights_that_do_not_fit() -> None:
    state = theirs(tiny().state_dict(), {**_PYSLOWFAST, "head.norm.": "norm."}, separate=True)
    state.pop("blocks.1.attn.v.weight")
    with pytest.raises(WeightsError, match=r"missing: layers\.1\.attn\.qkv\.weight; 2 unexpected"):
        load_weights(tiny(), state)
    with pytest.raises(WeightsError, match="checkpoint format of mvit_base_16x4"):
        load_weights(tiny(), {"conv1.weight": torch.zeros(1)})


def test_maskfeat_of_pyslowfast_is_fine_tuned(caplog: pytest.LogCaptureFixture) -> None:
    """Mask token, decoder and its norm stay behind; the last block's smaller map has smaller tables."""
    deep = {"depth": 4, "widen_at": (1,), "kv_stride": 4}
    pretrained = tiny_maskfeat("maskfeat_mvitv2_small", **deep, pool_q_at=(1,))
    names = {**_PYSLOWFAST, "head.norm.": "pred_head.transforms.0.0."}
    state = theirs(pretrained.state_dict(), names, separate=False)
    state |= {f"hogs.0.weight_{axis}": torch.zeros(3, 1, 3, 3) for axis in "xy"}
    again = tiny_maskfeat("maskfeat_mvitv2_small", **deep, pool_q_at=(1,))
    report = load_weights(again, {"model_state": state})
    assert report.format == "PySlowFast MaskFeat"
    assert report.num_loaded == len(pretrained.state_dict())
    assert set(report.left_out) == {"hogs.0.weight_x", "hogs.0.weight_y"}

    model = tiny("mvitv2_small_maskfeat", **deep, pool_q_at=(1, 2))
    report = load_weights(model, {"model_state": state})
    head = ("mask_token", "pred_head", "hogs")
    assert set(report.left_out) == {name for name in state if name.startswith(head)}
    kept = {name for name in model.state_dict() if name.startswith("head.")}
    assert set(report.filled) == kept
    assert report.num_loaded == len(model.state_dict()) - len(kept)
    assert not report.missing
    said = caplog.text
    assert "mask token and decoder are left out, the classifier is new" in said
    assert "position tensors were interpolated" in said
    before = pretrained.get_parameter("layers.3.attn.relative.height")
    after = model.get_parameter("layers.3.attn.relative.height")
    assert (len(before), len(after)) == (7, 3)
    torch.testing.assert_close(after, F.interpolate(before.t()[None], size=3, mode="linear")[0].t())


def test_our_own_pre_training_is_fine_tuned(tmp_path: Path) -> None:
    pretrained = tiny_maskfeat()
    save_weights(pretrained, tmp_path / "best.safetensors")
    model = tiny("mvit_base_maskfeat")
    report = load_weights(model, tmp_path / "best.safetensors")
    assert report.format == "Saccade MaskFeat"
    assert set(report.left_out) == {"stem.mask_token", "head.decoder.weight", "head.decoder.bias"}
    assert set(report.filled) == {"head.classifier.weight", "head.classifier.bias"}
    assert torch.equal(model.head.norm.weight, pretrained.head.norm.weight)
    x = clips()
    with torch.no_grad():
        tokens = pretrained._through_blocks(pretrained.stem(x)).x
        assert torch.equal(model.forward_features(x), tokens)
    again, _ = load_model(tmp_path / "best.safetensors")
    assert again.build_args == pretrained.build_args


def test_which_model_a_checkpoint_is_of() -> None:
    """A pre-trained network is the one with the decoder, not the one it is fine-tuned as."""
    with torch.device("meta"):
        pretrained = create_model("maskfeat_mvit_base").state_dict()
        tuned = create_model("mvit_base_maskfeat", 30)
    assert guess_models(pretrained) == ["maskfeat_mvit_base"]
    assert num_classes_of(pretrained, "maskfeat_mvit_base") == 0
    assert num_classes_of(pretrained, "mvit_base_maskfeat") == 0
    assert guess_models(tuned.state_dict()) == ["mvit_base_maskfeat"]
    assert num_classes_of(tuned.state_dict(), "mvit_base_maskfeat") == 30
    with pytest.raises(WeightsError, match="They are those of mvit_base_maskfeat"):
        load_weights(tiny_maskfeat(), tuned.state_dict())
