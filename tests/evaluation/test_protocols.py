"""Protocols by name: the views of RubiksNet / TSM and of VoV3D on Something-Something."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import UsageError
from saccade.evaluation import evaluate
from saccade.inference import load_for_inference
from saccade.sampling.plan import decode_sizes, plan_video
from saccade.sampling.temporal import sample_test
from saccade.sampling.views import PROTOCOLS, crop_box, parse_views
from saccade.tasks import TestResult
from saccade.transforms import test_transform as cut
from saccade.video import open_video, write_video

GOLDEN = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden" / "ssv_sampling.json.gz").read_bytes())
)["rubiks"]
CLIP = ClipSpec(num_frames=4, stride=2, crop=28, short_side=30)  # a protocol cuts from 28 * 256 / 224 = 32


class Sharp(nn.Module):
    """Logits far apart that depend on the order of the frames and the place of the crop."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3 * 4 * 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        places = nn.functional.adaptive_avg_pool3d(x, (4, 2, 2)).flatten(1)
        return 6 * places @ self.weight.T


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    items = []
    for number, (height, width) in enumerate([(36, 58), (58, 36), (40, 40)]):
        coarse = rng.integers(0, 255, (20 + 7 * number, 4, 4, 3)).astype(np.uint8)
        frames = np.kron(coarse, np.ones((1, 16, 16, 1), np.uint8))[:, :height, :width]
        write_video(folder / f"{number}.mp4", frames, fps=12, crf=10)
        items.append(VideoItem(str(folder / f"{number}.mp4"), number))
    return VideoDataset(tuple(items), ("a", "b", "c"), "val", str(folder))


def test_three_crops_as_recorded_from_rubiksnet() -> None:
    for case in GOLDEN["three_crop"]:
        size, width, height = case["crop"], case["width"], case["height"]
        boxes = []
        for which in (0, 2, 1):  # recorded as left, right, centre
            top, left = crop_box(height, width, size, which, "tsm")
            boxes.append([left, top, left + size, top + size])
        assert boxes == case["boxes_left_right_center_x0_y0_x1_y1"]


def test_the_centre_of_torchvision_rounds_to_the_even_pixel() -> None:
    assert [crop_box(256, width, 224, 1, "torchvision") for width in (340, 341, 343)] == [
        (16, 58),
        (16, 58),
        (16, 60),
    ]


def test_frames_of_the_protocols_are_the_recorded_ones() -> None:
    clip = ClipSpec(num_frames=8, stride=1, crop=224, short_side=256)
    for case in GOLDEN["cases"]:
        if case["num_segments"] != 8:
            continue
        for name, key in (("ssv2-1clip", "test_1clip"), ("ssv2-2clip-3crop", "test_2clip")):
            plan = plan_video(case["video_frames"], 12, clip, [parse_views(name)])
            recorded = np.atleast_2d(case[key]) - 1
            planned = {tuple(plan.indices[list(one.frames)]): one for one in plan.clips}
            assert set(planned) == {tuple(row) for row in recorded}
            for one in plan.clips:
                assert one.short_side == 256
                times = len(recorded) // len(planned)  # both clips of a short video can be the same frames
                assert one.crops == dict.fromkeys([1] if key == "test_1clip" else [0, 1, 2], (times,))


@pytest.mark.parametrize(
    ("name", "frames", "sizes"),
    [
        ("ssv2-1clip", "tsm", (256, 256)),
        ("ssv2-2clip-3crop", "tsm", (256, 256)),
        ("6-view", "vov3d-ssv", (300, 224)),
    ],
)
def test_what_a_protocol_fixes(name: str, frames: str, sizes: tuple[int, int]) -> None:
    views = parse_views(f" {name} ")
    assert (str(views), views.rule) == (name, frames)
    assert (views.decode_size(300, 224), views.cut_size(300, 224)) == sizes
    assert len(views) == {"ssv2-1clip": 1, "ssv2-2clip-3crop": 6, "6-view": 6}[name]


def test_sizes_scale_with_the_crop() -> None:
    views = parse_views("ssv2-1clip")
    assert [views.decode_size(999, crop) for crop in (112, 160, 224, 256)] == [128, 183, 256, 293]


def by_hand(model: nn.Module, path: str, name: str) -> np.ndarray:
    """The score of a video without the tester."""
    views = PROTOCOLS[name]
    size = CLIP.crop if name == "6-view" else 32
    with open_video(path, short_side=size) as reader:
        clips = sample_test(
            len(reader), 12, num_frames=4, stride=9, num_clips=views.num_clips, rule=str(views.rule)
        )
        frames = torch.stack([reader.frames(row.tolist()) for row in clips])
    with torch.no_grad():
        logits = model(cut(frames, CLIP, views.num_crops, grid=views.grid))
    if name == "6-view":
        return logits.softmax(1).mean(0).numpy()
    return logits.mean(0).softmax(0).numpy()


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_scores_as_by_hand(dataset: VideoDataset, name: str) -> None:
    model = Sharp()
    clip = CLIP.replace(short_side=28) if name == "6-view" else CLIP
    result = evaluate(model, dataset, clip, name, workers=0)[name]
    expected = [by_hand(model, item.path, name) for item in dataset.items]
    np.testing.assert_allclose(result.scores, expected, atol=1e-5)
    if name == "ssv2-2clip-3crop":  # the average of probabilities is another figure
        assert result.average == "logits"
        with open_video(dataset.items[0].path, short_side=32) as reader:
            rows = sample_test(len(reader), 12, num_frames=4, stride=1, num_clips=2, rule="tsm")
            frames = torch.stack([reader.frames(row.tolist()) for row in rows])
        with torch.no_grad():
            probabilities = model(cut(frames, CLIP, 3, grid="tsm")).softmax(1).mean(0)
        assert np.abs(probabilities.numpy() - result.scores[0]).max() > 0.01


def test_protocols_and_other_views_do_not_disturb_each_other(dataset: VideoDataset) -> None:
    model = Sharp()
    names = ["2x3", "ssv2-1clip", "6-view", "ssv2-2clip-3crop", "1x1"]
    assert decode_sizes(CLIP, [parse_views(name) for name in names]) == (30, 32)
    together = evaluate(model, dataset, CLIP, names, workers=0, temporal_rule="segments")
    again = evaluate(model, dataset, CLIP, ",".join(names), workers=2, temporal_rule="segments")
    assert list(together) == names
    for name, result in together.items():
        alone = evaluate(model, dataset, CLIP, name, workers=0, temporal_rule="segments")[name]
        np.testing.assert_array_equal(result.scores, again[name].scores)
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-6)
        np.testing.assert_allclose(result.scores.sum(1), 1, atol=1e-5)


def test_the_result_says_what_was_measured(dataset: VideoDataset, tmp_path: Path) -> None:
    results = evaluate(Sharp(), dataset, CLIP, ["ssv2-2clip-3crop", "2x1"], workers=0)
    result = results["ssv2-2clip-3crop"]
    assert (result.num_views, result.temporal_rule, result.average) == (6, "tsm", "logits")
    assert result.clip is not None
    assert result.clip.short_side == 32
    assert result.gmacs_per_video == 6 * result.gmacs_per_view
    result.save(tmp_path / "scores.npz")
    loaded = TestResult.load(tmp_path / "scores.npz")
    assert loaded.summary() == result.summary()
    assert loaded.summary()["average"] == "logits"
    assert loaded.protocol_text() == (
        "protocol ssv2-2clip-3crop: clips of 4 frames, one from each of 4 segments of the video, "
        "2 clips x 3 crops, short side 32, crop 28, temporal rule tsm, "
        "softmax of the mean of the views' logits"
    )
    other = results["2x1"]
    assert (other.temporal_rule, other.average, other.clip) == ("saccade", "softmax", CLIP)
    assert "4 frames x stride 2" in other.protocol_text()


def test_views_that_cannot_be(dataset: VideoDataset) -> None:
    with pytest.raises(
        UsageError, match=r"10x2.*nor one of the protocols ssv2-1clip, ssv2-2clip-3crop, 6-view"
    ):
        parse_views("10x2")
    with pytest.raises(UsageError, match="'tsm' knows one or two test clips, not 10"):
        evaluate(Sharp(), dataset, CLIP, "10x1", workers=0, temporal_rule="tsm")


def test_a_model_that_gives_no_number_is_refused(dataset: VideoDataset) -> None:
    from saccade.errors import WeightsError

    class Broken(Sharp):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float("nan")

    with pytest.raises(WeightsError, match="not finite"):
        evaluate(Broken(), dataset, CLIP, "ssv2-1clip", workers=0)


def test_to_predict_takes_no_protocol() -> None:
    from saccade.inference import Predictor
    from saccade.models import create_model

    model = create_model("x2d", num_classes=3, gamma_w=0.25, head_width=32)
    assert load_for_inference(model).clip is not None
    with pytest.raises(
        UsageError, match=r"views 6-view: a protocol is for measuring .* such as 2x3, or auto"
    ):
        Predictor(model, views="6-view")
