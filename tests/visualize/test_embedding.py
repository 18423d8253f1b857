"""Maps of clips: features, principal components, t-SNE, the page and the chart."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from saccade.cli import main
from saccade.clip import ClipSpec
from saccade.data import load_dataset
from saccade.errors import DataError, UsageError
from saccade.evaluation.features import clip_features, mean_features
from saccade.models import VideoModel, create_model, save_weights
from saccade.sampling.temporal import sample_test
from saccade.transforms import test_transform
from saccade.video import open_video, write_video
from saccade.visualize.embedding import (
    _gradient,
    class_colours,
    divergence,
    embed,
    embedding_chart,
    joint_probabilities,
    principal_components,
    squared_distances,
    tsne,
    write_embedding,
)

SPEC = ClipSpec(num_frames=4, stride=2, crop=32, short_side=36, target_fps=20.0)


def clusters(num: int = 3, each: int = 20, dim: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = 8 * torch.randn(num, dim, generator=generator)
    points = centres.repeat_interleave(each, 0) + torch.randn(num * each, dim, generator=generator)
    return points, torch.arange(num).repeat_interleave(each)


# --------------------------------------------------------------------------------------------------- t-SNE


def test_tsne_separates_clusters_and_is_deterministic():
    points, labels = clusters()
    places = tsne(points, perplexity=10, steps=400)
    assert torch.equal(places, tsne(points, perplexity=10, steps=400))
    distances = squared_distances(places).sqrt()
    same = labels[:, None] == labels
    assert distances[same].max() < 0.7 * distances[~same].min()


def test_the_gradient_is_that_of_the_divergence():
    points, _ = clusters(each=5)
    p = joint_probabilities(points, 4)
    y = torch.randn(15, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (expected,) = torch.autograd.grad(divergence(y, p), y)
    torch.testing.assert_close(_gradient(y.detach(), p), expected)


def test_descent_makes_the_divergence_small():
    points, _ = clusters(each=8)
    p = joint_probabilities(points, 7)
    first, last = tsne(points, perplexity=7, steps=1), tsne(points, perplexity=7)
    assert divergence(last, p) < 0.35 * divergence(first, p)


def test_joint_probabilities_match_the_perplexity():
    points, _ = clusters(each=10)
    squares = squared_distances(points.double())
    p = joint_probabilities(points, 6)
    assert p.sum().item() == pytest.approx(1)
    assert torch.equal(p, p.T)
    assert not p.diagonal().any()
    # p is the symmetrised conditional probabilities, which are Gaussian in the distance
    for row in (0, 17):
        others = torch.arange(30) != row
        low, high = 1e-6, 1e6
        for _ in range(200):
            sharp = (low * high) ** 0.5
            shares = torch.softmax(-squares[row, others] * sharp, 0)
            entropy = -(shares * shares.clamp(min=1e-300).log()).sum()
            low, high = (sharp, high) if entropy > np.log(6) else (low, sharp)
        assert p[row, others].sum() >= shares.sum() / (2 * 30) - 1e-9
        assert (p[row, others] >= shares / (2 * 30) - 1e-9).all()


def test_few_points_equal_points_and_invalid_arguments():
    assert tsne(torch.ones(1, 3)).tolist() == [[0, 0]]
    assert tsne(torch.eye(3)).shape == (3, 2)
    assert tsne(torch.ones(12, 4), steps=20).isfinite().all()
    with pytest.raises(UsageError, match=r"perplexity must be at least 1, got 0\.5"):
        tsne(torch.eye(9), perplexity=0.5)
    with pytest.raises(UsageError, match="no points"):
        tsne(torch.empty(0, 3))


def outlying() -> Tensor:
    tight = 1e-3 * torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    return torch.cat([tight, torch.ones(1, 8)])


@pytest.mark.parametrize("points", [torch.eye(5), torch.eye(6), clusters(2, 3)[0], outlying()])
def test_few_points_and_outliers_have_finite_coordinates(points: Tensor):
    perplexity = min(30.0, (len(points) - 1) / 5)
    p = joint_probabilities(points, max(1.0, perplexity))
    assert p.isfinite().all()
    assert p.sum().item() == pytest.approx(1)
    assert not p.diagonal().any()
    places = tsne(points, perplexity=max(1.0, perplexity), steps=300)
    assert places.isfinite().all()
    assert squared_distances(places).max() > 0


def test_principal_components_are_the_axes_of_most_variance():
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(200, 2, generator=generator) * torch.tensor([5.0, 2.0])
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q[:2]
    axes, shares = principal_components(plane @ turn + 3)
    assert shares.sum().item() == pytest.approx(1)
    assert shares[0] > 3 * shares[1]
    centred = plane.double() - plane.double().mean(0)
    torch.testing.assert_close(squared_distances(axes), squared_distances(centred), rtol=1e-4, atol=1e-3)
    assert (axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all()
    alone, share = principal_components(torch.tensor([[1.0], [3.0]]))
    assert alone.tolist() == [[pytest.approx(-1), 0], [pytest.approx(1), 0]] or alone[0, 0] == 1
    assert share.tolist() == pytest.approx([1, 0])


# ------------------------------------------------------------------------------------------------ features


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of two classes, dark and bright."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name, low in (("dark ones", 0), ("bright", 128)):
        for number in range(3):
            frames = random.integers(low, low + 128, (12, 40, 50, 3)).astype(np.uint8)
            write_video(folder / "val" / name / f"{name} {number}.mp4", frames, fps=20)
    return folder


def tiny(num_classes: int = 2, **more: Any) -> VideoModel:
    torch.manual_seed(0)
    return create_model("x2d", num_classes, gamma_w=0.3, head_width=8, head_pool="global", **more).eval()


def test_features_are_the_input_of_the_classifier(data: Path):
    model = tiny()
    dataset = load_dataset(str(data), "val")
    found = clip_features(model, dataset, SPEC, workers=0)
    assert found.features.shape == (6, 8)
    assert found.logits.shape == (6, 2)
    linear: Any = model.head.classifier
    with torch.no_grad():
        expected = linear(torch.from_numpy(found.features)).numpy()
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-5)
    with open_video(found.items[4].path, short_side=36) as reader, torch.no_grad():
        (middle,) = sample_test(len(reader), 20.0, num_frames=4, stride=2, num_clips=1, target_fps=20.0)
        view = test_transform(reader.frames(middle.tolist()), SPEC)
        np.testing.assert_allclose(found.logits[4], model(view)[0].numpy(), rtol=1e-3, atol=1e-4)
    assert found.failures == ()
    model.reset_classifier(0)
    bare = clip_features(model, dataset, SPEC, workers=0)
    assert bare.logits.shape == (6, 0)
    np.testing.assert_allclose(bare.features, found.features, rtol=1e-4, atol=1e-5)
    assert not linear._forward_pre_hooks


def test_features_per_frame_or_token_are_averaged(data: Path):
    dataset = load_dataset(str(data), "val")
    found = clip_features(tiny(localization=True), dataset, SPEC, workers=0)
    assert found.features.shape == (6, 8)
    assert found.logits.shape == (6, 2)
    maps = torch.randn(2, 5, 3, 4, 4)
    torch.testing.assert_close(mean_features(maps), maps.mean((2, 3, 4)))
    tokens = torch.randn(2, 7, 5)
    torch.testing.assert_close(mean_features(tokens), tokens[:, 1:].mean(1))


def test_unreadable_videos_are_named(data: Path, tmp_path: Path):
    (tmp_path / "val" / "dark ones").mkdir(parents=True)
    (tmp_path / "val" / "bright").mkdir()
    (tmp_path / "val" / "dark ones" / "broken.mp4").write_bytes(b"none")
    dataset = load_dataset(str(tmp_path), "val")
    with pytest.raises(DataError, match="none of the 1 videos can be read"):
        clip_features(tiny(), dataset, SPEC, workers=0)


# --------------------------------------------------------------------------------------- map, page, picture


def test_neighbours_and_predictions():
    points, labels = clusters(each=8)
    scores = np.eye(3, dtype=np.float32)[labels] * 0.8 + 0.1
    scores[0] = [0.2, 0.7, 0.1]
    paths = [f"{i}.mp4" for i in range(24)]
    found = embed(points.numpy(), paths, labels.tolist(), ["a", "b", "c"], scores=scores)
    assert found.neighbour_accuracy == 1.0
    assert found.neighbours.shape == (24, 5)
    unit = points / points.norm(dim=1, keepdim=True)
    closest = (unit[3] @ unit.T).argsort(descending=True)[1:6]
    assert found.neighbours[3].tolist() == closest.tolist()
    assert found.predictions[:2].tolist() == [1, 0]
    assert found.scores[:2] == pytest.approx([0.7, 0.9])
    assert found.notes["t-SNE"].startswith("perplexity 4.6:")  # at most a fifth of 24 points


def test_each_class_has_a_different_colour():
    for num in (1, 12, 13, 101):
        assert len(set(class_colours(num))) == num


class Scripts(HTMLParser):
    """The URLs that a page loads, and its data."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.data = ""
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._inside = found.get("id") == "data"
        if tag != "a":
            self.addresses += [value for key in ("src", "href") if (value := found.get(key))]

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.data += data


def test_the_page_has_every_clip_and_loads_nothing_from_the_network(data: Path, tmp_path: Path):
    dataset = load_dataset(str(data), "val")
    paths = [item.path for item in dataset.items]
    names = ["</script>dark", "bright"]
    features = np.random.default_rng(0).random((7, 4), np.float32)
    found = embed(features, [*paths, "gone.mp4"], [0, 0, 0, 1, 1, 1, -1], names)
    page = write_embedding(found, tmp_path / "map.html", title="A <title>").read_text(encoding="utf-8")
    assert "A &lt;title&gt;" in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    parser = Scripts()
    parser.feed(page)
    assert parser.addresses == []
    page_data = json.loads(parser.data)
    assert page_data["classes"] == names
    assert set(page_data["maps"]) == {"t-SNE", "PCA"}
    for places in page_data["maps"].values():
        assert np.shape(places) == (7, 2)
        assert np.min(places) >= 0
        assert np.max(places) <= 1
    clips = page_data["clips"]
    assert [clip["label"] for clip in clips] == [0, 0, 0, 1, 1, 1, -1]
    assert all(clip["frames"].startswith("data:image/jpeg;base64,") for clip in clips[:6])
    assert clips[6]["frames"] == ""
    assert (tmp_path / clips[0]["src"].replace("%20", " ")).resolve() == Path(paths[0]).resolve()
    assert " " not in clips[0]["src"]
    assert len(page) < 120_000  # about 10 kB per clip, even for noise


def test_the_chart_has_a_dot_for_each_clip(tmp_path: Path):
    points, labels = clusters(num=2, each=6)
    scores = np.eye(2, dtype=np.float32)[labels]
    scores[0] = [0, 1]
    found = embed(points.numpy(), ["x.mp4"] * 12, labels.tolist(), ["a", "b"], scores=scores)
    figure = embedding_chart(found, "PCA", title="Title", subtitle="twelve clips")
    (axes,) = figure.axes
    assert [len(dots.get_offsets()) for dots in axes.collections] == [6, 6, 1]  # a, b, the wrong one's ring
    np.testing.assert_allclose(axes.collections[2].get_offsets(), found.maps["PCA"][:1])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["a", "b", "misclassified"]
    figure.canvas.draw()
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def test_clips_without_labels_need_no_legend():
    points, _ = clusters(num=2, each=6)
    figure = embedding_chart(embed(points.numpy(), ["x.mp4"] * 12, [-1] * 12, []), title="Title")
    assert [len(dots.get_offsets()) for dots in figure.axes[0].collections] == [12]
    assert not figure.legends


def test_the_command_maps_a_run_and_its_report_shows_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    clip = {"num_frames": 4, "stride": 2, "crop": 32, "short_side": 36, "target_fps": 20.0}
    metadata = {
        "class_names": ["bright", "dark ones"],
        "clip": {**clip, "mean": [0.45] * 3, "std": [0.2] * 3},
    }
    run = tmp_path / "run"
    save_weights(tiny(), run / "best.safetensors", metadata=metadata)
    (run / "config.json").write_text(json.dumps({"config": {"recipe": "r", "data": str(data)}}))
    (run / "report.html").write_text("old")
    assert main(["visualize", "embedding", str(run), "--workers", "0", "--most", "5"]) == 0
    captured = capsys.readouterr()
    files = [str(run / name) for name in ("embedding.html", "embedding.png", "report.html")]
    assert captured.out.split()[-3:] == files
    with Image.open(files[1]) as picture:
        assert min(picture.size) > 700
    page = Path(files[0]).read_text(encoding="utf-8")
    assert "5 clips of data" in page
    assert "srcdoc" in Path(files[2]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "classes", "labels", "predicted"),
    [
        (["dark ones", "bright"], ["dark ones", "bright"], [1, 0], True),  # in the model's order
        (["dark ones", "bright", "dim"], ["dark ones", "bright", "dim"], [1, 0], True),
        (["left", "right"], ["bright", "dark ones"], [0, 1], False),  # the same number of other classes
        (None, ["bright", "dark ones"], [0, 1], False),
    ],
)
def test_predictions_need_the_class_names_of_the_data_set(
    names: list[str] | None,
    classes: list[str],
    labels: list[int],
    predicted: bool,
    data: Path,
    tmp_path: Path,
):
    clip = {"num_frames": 4, "stride": 2, "crop": 32, "short_side": 36, "target_fps": 20.0}
    metadata: dict[str, Any] = {"clip": {**clip, "mean": [0.45] * 3, "std": [0.2] * 3}}
    if names:
        metadata["class_names"] = names
    save_weights(tiny(len(names or "ab")), tmp_path / "w.safetensors", metadata=metadata)
    args = ["visualize", "embedding", str(tmp_path / "w.safetensors"), "--data", str(data), "--workers", "0"]
    assert main([*args, "--out", str(tmp_path)]) == 0
    parser = Scripts()
    parser.feed((tmp_path / "embedding.html").read_text(encoding="utf-8"))
    page_data = json.loads(parser.data)
    assert page_data["classes"] == classes
    assert [clip["label"] for clip in sorted(page_data["clips"], key=lambda clip: clip["file"])] == [
        *[labels[0]] * 3,
        *[labels[1]] * 3,
    ]
    assert all((clip["prediction"] >= 0) == predicted for clip in page_data["clips"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--most", "0"], "--most: must be at least 1, got 0"),
        (["--perplexity", "0.5"], "--perplexity must be at least 1, got 0.5"),
        ([], "give --data"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, flags: list[str], words: str, capsys: Any):
    save_weights(tiny(), tmp_path / "w.safetensors")
    assert main(["visualize", "embedding", str(tmp_path / "w.safetensors"), *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_features_of_a_module_without_a_head(data: Path):
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward_features(self, x: Tensor) -> Tensor:
            return x * self.scale

    found = clip_features(Bare(), load_dataset(str(data), "val"), SPEC, workers=0)
    assert found.features.shape == (6, 3)
    by_name = dict(zip([Path(item.path).parent.name for item in found.items], found.features, strict=True))
    assert by_name["bright"].mean() > by_name["dark ones"].mean() + 1
