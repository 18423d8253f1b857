"""Fitting the classifier before the first step, and class weights."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import ConfigError
from saccade.models import create_model, save_weights
from saccade.runs import Run
from saccade.tasks.classify import Classify, class_weights
from saccade.training import train
from saccade.training.head import fit_classifier
from saccade.training.validate import validate

RUN = ("--model.drop-path", "0", "--model.dropout", "0", "--optim.lr", "1e-3", "--optim.clip-grad", "1")


def test_fit_is_that_of_scikit_learn():
    draw = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = draw.normal(size=(60, 8)) * np.linspace(0.1, 20, 8) + 5 + labels[:, None] * [0.05] * 8
    weight, bias = fit_classifier(
        torch.zeros(3, 8), None, torch.tensor(features, dtype=torch.float32), torch.tensor(labels)
    )
    scale = features.std(0)
    expected = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(
        (features - features.mean(0)) / scale, labels
    )
    logits = features @ weight.double().numpy().T + bias.double().numpy()
    probabilities = torch.softmax(torch.tensor(logits), 1).numpy()
    theirs = expected.predict_proba((features - features.mean(0)) / scale)
    np.testing.assert_allclose(probabilities, theirs, atol=1e-3)


def test_rows_of_earlier_training_are_a_prior():
    """Without any evidence about a class its row stays."""
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    before = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)) * 5
    labels = (features @ before.T).argmax(1)
    weight, bias = fit_classifier(before, torch.zeros(3), features, labels)
    assert ((features @ weight.T + bias).argmax(1) == labels).all()
    assert torch.nn.functional.cosine_similarity(weight.flatten(), before.flatten(), dim=0) > 0.99


def test_views_of_a_video_share_its_weight():
    """Each clip twice is no more evidence than each once."""
    features, labels = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2
    once = fit_classifier(torch.zeros(2, 5), None, features, labels)
    twice = fit_classifier(torch.zeros(2, 5), None, features.repeat(2, 1), labels.repeat(2), num_videos=12)
    torch.testing.assert_close(twice[0], once[0], atol=1e-3, rtol=1e-3)


def weights_of(tmp_path):
    torch.manual_seed(3)
    file = tmp_path / "start.safetensors"
    save_weights(create_model("x2d", 2, gamma_w=0.3, head_width=32), file, {"class_names": ["x", "y"]})
    return file


def test_the_fitted_head_is_validated_and_kept_if_training_spoils_it(tiny_config, tmp_path):
    """A learning rate that ruins the network: the best weights are those of step 0."""
    start = weights_of(tmp_path)
    flags = ("--model.weights", str(start), "--model.head-clips", "40", "--epochs", "1", *RUN)
    run = train(tiny_config("spoilt", *flags, "--ema", "0.9"))
    rows, _ = run.metrics()
    first = next(row for row in rows if "val_top1" in row)
    assert first["step"] == 0
    assert first["val_top1"] == pytest.approx(1.0)  # bright and dark clips are easy for any features
    assert run.best_score == pytest.approx(1.0)
    assert run.best_metrics["step"] == 0
    assert run.best_epoch == 0
    best, initial = load_file(run.best), load_file(start)
    trunk = [name for name in initial if not name.startswith("head.classifier") and "num_batches" not in name]
    assert all(torch.equal(best[name], initial[name]) for name in trunk)
    assert not torch.equal(best["head.classifier.weight"], initial["head.classifier.weight"])
    assert "40 clips of 20 videos" in run.log.read_text()


def test_a_resumed_run_does_not_fit_the_head_again(tiny_config, tmp_path):
    flags = ("--model.weights", str(weights_of(tmp_path)), "--model.head-clips", "20", *RUN)
    whole = train(tiny_config("whole", *flags, "--epochs", "2"))
    train(tiny_config("parts", *flags, "--epochs", "2"), fraction=0.5)
    parts = train(tiny_config("parts", *flags, "--epochs", "2"), resume=True)
    one, two = load_file(whole.best), load_file(parts.best)
    states = [torch.load(run.last, weights_only=True)["model"] for run in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert one.keys() == two.keys()
    assert parts.log.read_text().count("classifier fitted") == 1


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (("--model.head-clips", "20"), "model.head_clips"),
        (("--model.head-clips", "-1"), "model.head_clips"),
        (("--class-balance", "2"), "class_balance"),
    ],
)
def test_fields_that_do_not_fit_are_named(tiny_config, flags, field):
    with pytest.raises(ConfigError, match=field):
        train(tiny_config("refused", *flags))
    assert not Run(tiny_config("refused").out).exists()


def test_image_weights_are_initial_weights(tiny_config, monkeypatch):
    monkeypatch.setattr("saccade.training.validate.find_file", lambda *_: None)
    config = tiny_config("run", "--model.head-clips", "20", "--model.drop-path", "0")
    model = replace(config.model, name="tsm_efficientnet_lite0", overrides={}, pretrained="imagenet")
    validate(config.replace(model=model))


def dataset(*labels: int) -> VideoDataset:
    items = tuple(VideoItem(f"{number}.mp4", label) for number, label in enumerate(labels))
    return VideoDataset(items, ("a", "b", "c"), "train", "clips")


def test_class_weights():
    assert class_weights(dataset(0, 0, 0, 0, 1, 2), 0) is None
    weights = class_weights(dataset(0, 0, 0, 0, 1, 2), 1)
    assert weights.tolist() == pytest.approx([0.5, 2, 2])  # 6 / (3 * count)
    half = class_weights(dataset(0, 0, 0, 0, 1, 1, 1, 1, 2), 0.5)
    assert float(half[2] / half[0]) == pytest.approx(2)
    assert float((half * torch.tensor([4, 4, 1])).sum()) == pytest.approx(9)


def test_a_balanced_loss_counts_rare_classes_more(tiny_config):
    config = tiny_config("unused", "--class-balance", "1")
    data = dataset(0, 0, 0, 0, 1, 2)
    objective = Classify().objective(config, torch.nn.Linear(1, 1), data)
    logits = torch.tensor([[2.0, 0, 0], [2.0, 0, 0]])
    loss, _ = objective.loss(logits, torch.tensor([0, 1]), None)
    each = -torch.log_softmax(logits, 1)[[0, 1], [0, 1]]
    assert float(loss) == pytest.approx(float((0.5 * each[0] + 2 * each[1]) / 2.5))
    assert math.isfinite(float(loss))
