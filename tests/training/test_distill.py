"""Distillation from a teacher, and pseudo-labels of unlabelled clips."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_processes import start
from test_train import assert_same, lines, untimed, weights
from torch import Tensor, nn

from saccade import ClipSpec
from saccade.data.types import ClipBatch, VideoDataset, VideoItem
from saccade.errors import ConfigError, DataError, UsageError, WeightsError
from saccade.evaluation.features import logits_and_features
from saccade.layers import SubBatchNorm3d
from saccade.models import create_model, load_model, save_weights
from saccade.tasks import Classify, MultiLabel
from saccade.training import TrainConfig, train
from saccade.training.checkpoint import load_checkpoint
from saccade.training.config import DistillConfig
from saccade.training.distill import Distillation, make_objective
from saccade.training.processes import Processes
from saccade.training.step import GradientStep
from saccade.training.teacher import as_seen_by
from saccade.training.timetable import make_timetable

MakeConfig = Callable[..., TrainConfig]
CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)
NAMES = ("brightening", "darkening")
CLIP = ClipSpec(num_frames=3, stride=2, crop=40, short_side=40, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
"""Of the teacher: more frames and pixels and another normalisation than the student's."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained teacher, with its classes in another order than the data set's."""
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors", NAMES[::-1])


def write_teacher(file: Path, names: tuple[str, ...], task: str = "single-label") -> Path:
    torch.manual_seed(1)
    model = create_model("x2d", len(names), gamma_w=0.3, head_width=24, gamma_t=3)
    clips = as_seen_by(CLIP, torch.cat([uniform_clips(16), uniform_clips(16)], 2) / 255, CLIP)
    with torch.no_grad():
        for _ in range(30):  # statistics of batch norm
            model(clips)
        model.eval().head.classifier.weight.normal_()
        logits = model(clips)
        model.head.classifier.weight *= 3 / logits.std()
        model.head.classifier.bias -= 3 * logits.mean(0) / logits.std()
    metadata = {"class_names": list(names), "clip": asdict(CLIP), "task": task, "licence": "CC-BY-4.0"}
    save_weights(model, file, metadata)
    return file


def uniform_clips(number: int, *, seed: int = 0) -> Tensor:
    """Clips of one colour each with noise on it: (B, 3, 2, 36, 40), 0 to 255."""
    random = torch.Generator().manual_seed(seed)
    colours = 200 * torch.rand(number, 3, 1, 1, 1, generator=random)
    return colours + 50 * torch.rand(number, 3, 2, 36, 40, generator=random)


class Net(nn.Module):
    """Two frames of 32 pixels to classes, by a hidden layer with dropout after it."""

    def __init__(self, num_classes: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(3 * 2 * 4 * 4, 16)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(16, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.hidden(nn.functional.adaptive_avg_pool3d(x, (2, 4, 4)).flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.features(x)))


def dataset(num_labelled: int, num_unlabelled: int, names: tuple[str, ...] = NAMES) -> VideoDataset:
    labels = [number % len(names) for number in range(num_labelled)] + [-1] * num_unlabelled
    items = tuple(VideoItem(f"{number}.mp4", label) for number, label in enumerate(labels))
    return VideoDataset(items, names, "train", "clips", num_unlabelled=num_unlabelled)


def batch_of(data: VideoDataset, indices: list[int], *, seed: int = 0) -> ClipBatch:
    clips = uniform_clips(len(indices), seed=seed).to(torch.uint8).permute(0, 2, 3, 4, 1)
    return ClipBatch(
        clips=list(clips.contiguous()),
        labels=torch.tensor([data.items[index].label for index in indices]),
        seeds=tuple(range(seed, seed + len(indices))),
        indices=tuple(indices),
        crop=32,
    )


def step_of(config: TrainConfig, model: nn.Module, data: VideoDataset) -> GradientStep:
    objective = make_objective(config, model, data, CPU)
    return GradientStep(config, model, ALONE, data.class_names, objective=objective)


# ------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("feature_loss", ["cosine", "mse"])
def test_the_loss_is_that_of_a_calculation_by_hand(
    tiny_config: MakeConfig, teacher: Path, feature_loss: str, accumulate: int
):
    flags = ("--teacher", str(teacher), "--unlabelled", "clips", "--distill.pseudo-labels", "teacher")
    flags += ("--distill.threshold", "0.7", "--distill.temperature", "3", "--distill.soft-weight", "0.5")
    flags += ("--distill.feature-weight", "0.25", "--distill.feature-loss", feature_loss)
    flags += ("--distill.label-weight", "2", "--distill.pseudo-weight", "1.5")
    config = tiny_config("run", *flags).replace(accumulate=accumulate)
    data, model = dataset(4, 6), Net()
    step = step_of(config, model, data)
    batch = batch_of(data, [0, 5, 6, 2, 1, 7, 8, 3])
    loss, correct = step(batch)

    assert isinstance(step.objective, Distillation)
    plain, strong = (step.prepare(batch, made) for made in (step.objective._plain, step.objective._strong))
    known = np.array(batch.indices) < 4
    labelled = step.transform(batch)
    seen = torch.where(torch.tensor(known).view(-1, 1, 1, 1, 1), labelled, strong)
    shown = torch.where(torch.tensor(known).view(-1, 1, 1, 1, 1), labelled, plain)
    assert not torch.equal(plain, strong)
    with torch.no_grad():
        logits, features = model(seen).double().numpy(), model.features(seen)
        projected = step.objective.module(features).double().numpy()
        network = load_model(teacher)[0].eval()
        given = as_seen_by(CLIP, shown, config.clip)
        # the classes of the teacher are in the other order
        soft = network(given).double().numpy()[:, ::-1]
        wanted = logits_and_features(network, network.head.classifier, given)[1].double().numpy()

    def log_softmax(values: np.ndarray) -> np.ndarray:
        return values - np.log(np.exp(values).sum(1, keepdims=True))

    labels = np.array([index % 2 for index in batch.indices])
    label = -log_softmax(logits)[known, labels[known]].mean()
    p, q = log_softmax(logits / 3), log_softmax(soft / 3)
    divergence = 9 * (np.exp(q) * (q - p)).sum(1).mean()
    if feature_loss == "mse":
        distance = ((projected - wanted) ** 2).mean()
    else:
        norms = np.linalg.norm(projected, axis=1) * np.linalg.norm(wanted, axis=1)
        distance = (1 - (projected * wanted).sum(1) / norms).mean()
    scores = np.exp(log_softmax(soft))
    used = (scores.max(1) >= 0.7) & ~known
    assert 0 < used.sum() < 4
    pseudo = -(log_softmax(logits)[np.arange(8), scores.argmax(1)] * used).sum() / 4
    hand = {"loss_label": label, "loss_soft": divergence, "loss_feature": distance, "loss_pseudo": pseudo}
    assert {name: value / 8 for name, value in step.terms.items()} == pytest.approx(
        {**hand, "pseudo_used": used.sum() / 4}, rel=1e-4
    )
    total = 2 * label + 0.5 * divergence + 0.25 * distance + 1.5 * pseudo
    assert loss / 8 == pytest.approx(total, rel=1e-4)
    # of the four labelled clips, as a fraction of all eight
    assert correct / 8 == pytest.approx((logits.argmax(1) == labels)[known].mean())


def test_accumulation_gives_the_gradients_of_the_batch(tiny_config: MakeConfig, teacher: Path):
    config = tiny_config(
        "run", "--teacher", str(teacher), "--unlabelled", "c", "--distill.feature-weight", "1"
    )
    config, data, gradients = config.replace(batch_size=4), dataset(4, 4), []
    for accumulate in (1, 2, 3):
        torch.manual_seed(0)
        step = step_of(config.replace(accumulate=accumulate), Net(), data)
        step(batch_of(data, [0, 4, 5, 2, 6, 1]))
        modules = (step.model, step.objective.module)
        gradients.append(torch.cat([p.grad.flatten() for module in modules for p in module.parameters()]))
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


def test_the_teacher_has_no_gradients_and_stays_as_it_is(tiny_config: MakeConfig, teacher: Path):
    config = tiny_config("run", "--teacher", str(teacher), "--distill.feature-weight", "1")
    data = dataset(4, 0)
    step = step_of(config, Net(), data)
    network = step.objective.teacher.model
    before = copy.deepcopy(network.state_dict())
    step(batch_of(data, [0, 1, 2, 3]))
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert not any(module.training for module in network.modules())
    assert_same(network.state_dict(), before)  # statistics of batch norm included
    assert all(p.grad is not None for p in step.model.parameters())


def test_a_student_learns_the_teachers_labels_from_unlabelled_clips_alone(
    tiny_config: MakeConfig, teacher: Path
):
    config = tiny_config("run", "--teacher", str(teacher), "--unlabelled", "clips")
    data = dataset(0, 8)
    torch.manual_seed(0)
    model = Net()
    step = step_of(config, model, data)
    batch = batch_of(data, list(range(8)))
    clips = step.prepare(batch)
    wanted = step.objective.teacher(clips, step.autocast())[0].flip(1).softmax(1)
    assert 2 <= int(wanted.argmax(1).sum()) <= 6
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(60):
        step(batch)
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(model(clips).softmax(1), wanted, rtol=0, atol=0.1)
    assert step.terms["loss_label"] == 0


def test_features_are_those_before_the_dropout():
    model = Net(dropout=0.9).train()
    x = torch.randn(3, 3, 2, 32, 32)
    logits, features = logits_and_features(model, model.fc, x, dropouts=[model.dropout])
    torch.testing.assert_close(features, model.features(x))
    assert not logits.isclose(model.fc(features)).all()
    assert not logits_and_features(model, model.fc, x)[1].isclose(features).all()
    assert not model.dropout._forward_hooks
    assert not model.fc._forward_pre_hooks
    frames = create_model("rubiksnet_tiny", 5, width=8, depths=(1, 1, 1, 1), dropout=0.5).train()
    clips, dropouts = torch.randn(2, 3, 4, 32, 32), [frames.head.dropout]  # its classifier sees every frame
    features = logits_and_features(frames, frames.head.classifier, clips, dropouts=dropouts)[1]
    assert features.shape == (2, frames.num_features)


def test_the_teacher_sees_the_clip_in_its_own_form():
    given = ClipSpec(num_frames=8, stride=1, crop=16, short_side=16, mean=(0.1,) * 3, std=(0.5,) * 3)
    pixels = torch.rand(2, 3, 8, 16, 16)
    own = CLIP.replace(num_frames=4, crop=16)
    mean, std = (torch.tensor(value).view(3, 1, 1, 1) for value in (own.mean, own.std))
    x = (pixels - 0.1) / 0.5
    torch.testing.assert_close(as_seen_by(own, x, given), (pixels[:, :, 1::2] - mean) / std)
    repeated = as_seen_by(
        given.replace(num_frames=4), as_seen_by(given.replace(num_frames=2), x, given), given
    )
    assert repeated.equal(x[:, :, [2, 2, 6, 6]])
    assert as_seen_by(given, x, given) is x
    flat = torch.full((1, 3, 8, 16, 16), 0.25)
    resized = as_seen_by(given.replace(crop=24), flat, given)
    assert resized.shape == (1, 3, 8, 24, 24)
    torch.testing.assert_close(resized, torch.full_like(resized, 0.25))


def test_soft_losses():
    logits, teacher = torch.tensor([[0.0, 0.0], [1.0, 3.0]]), torch.tensor([[0.0, math.log(3)], [1.0, 3.0]])
    # KL of (1/4, 3/4) from (1/2, 1/2)
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert Classify.soft_loss(logits, teacher, 1.0).tolist() == pytest.approx([expected, 0.0], abs=1e-6)
    # at temperature 2 of (0, ln 3): odds of sqrt(3)
    q = math.sqrt(3) / (1 + math.sqrt(3))
    expected = 4 * (q * math.log(2 * q) + (1 - q) * math.log(2 * (1 - q)))
    assert Classify.soft_loss(logits, teacher, 2.0)[0].item() == pytest.approx(expected, rel=1e-5)
    # binary: (1/2, 3/4) from (1/2, 1/2), mean over the classes
    expected = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    assert MultiLabel.soft_loss(logits, teacher, 1.0).tolist() == pytest.approx([expected, 0.0], abs=1e-6)


def test_classes_are_matched_by_name(tiny_config: MakeConfig, tmp_path: Path):
    names = ("a", "b", "c")
    data, batch = dataset(6, 0, names), [0, 1, 2, 3]
    larger = write_teacher(tmp_path / "larger.safetensors", ("x", "c", "A", "b", "y"))
    step = step_of(tiny_config("run", "--teacher", str(larger)), Net(3), data)
    assert step.objective.teacher.classes == ([0, 1, 2], [2, 3, 1])
    # a teacher of two of three classes: nothing is learned from it of clips of the third
    smaller = write_teacher(tmp_path / "smaller.safetensors", ("c", "a"))
    step = step_of(tiny_config("run", "--teacher", str(smaller)), Net(3), data)
    assert step.objective.teacher.classes == ([0, 2], [1, 0])
    step(batch_of(data, batch))
    clips = step.prepare(batch_of(data, batch))
    with torch.no_grad():
        logits, soft = step.model(clips), step.objective.teacher(clips, step.autocast())[0]
    each = Classify.soft_loss(logits[:, [0, 2]], soft[:, [1, 0]], 2.0)
    labels = torch.tensor([0, 1, 2, 0])
    assert step.terms["loss_soft"] == pytest.approx(float((each * (labels != 1)).sum()), rel=1e-5)


def test_labels_of_the_network_itself(tiny_config: MakeConfig):
    """The label of the plain view, in eval mode, which leaves batch norm and the mode as they were."""
    config = tiny_config("run", "--unlabelled", "clips", "--distill.threshold", "0.5")
    data = dataset(4, 4)
    model = create_model("x2d", 2, gamma_w=0.3, head_width=24, gamma_t=2, dropout=0.0)
    step = step_of(config, model, data)
    batch = batch_of(data, [0, 4, 5, 1, 2, 6])
    views = step.objective._views(step, batch)
    before = copy.deepcopy(model.state_dict())
    scores, classes = step.objective._pseudo_labels(step, views, None)
    assert_same(model.state_dict(), before)
    assert model.training
    with torch.no_grad():
        expected = model.eval()(step.prepare(batch.select([1, 2, 5]), step.objective._plain)).softmax(1)
    torch.testing.assert_close(scores, expected.amax(1))
    assert classes.equal(expected.argmax(1))
    model.train()
    step(batch)
    assert step.terms["pseudo_used"] == pytest.approx(6.0)  # two classes: every score is 0.5 or more
    config = config.replace(distill=replace(config.distill, threshold=1.0))
    step = step_of(config, model, data)
    step(batch)
    assert step.terms["pseudo_used"] == step.terms["loss_pseudo"] == 0


def test_the_licence_of_a_run_is_that_of_what_it_started_from(tiny_config: MakeConfig, tmp_path: Path):
    data, run = dataset(4, 0), tmp_path / "run"
    run.mkdir()
    model, metadata = load_model(write_teacher(run / "best.safetensors", NAMES))
    for stated, image, expected in (
        ({}, None, "not stated"),
        ({}, {"licence": "Apache-2.0"}, "Apache-2.0"),
        ({"teacher": {"licence": "MIT"}}, None, "MIT"),
        ({"licence": "CC-BY-4.0"}, {"licence": "Apache-2.0"}, "CC-BY-4.0"),
    ):
        others = {key: metadata[key] for key in ("class_names", "clip", "task")}
        save_weights(model, run / "best.safetensors", {**others, **stated})
        (run / "image_weights.json").unlink(missing_ok=True)
        if image:
            (run / "image_weights.json").write_text(json.dumps(image), encoding="utf-8")
        step = step_of(tiny_config("student", "--teacher", str(run)), Net(), data)
        assert step.objective.record["teacher"]["licence"] == expected


def test_an_image_network_by_name(tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch):
    """Its features alone, of the frames of the student at their size, without shifts."""
    name = "tsm_efficientnet_lite0"
    config, data = tiny_config("run", "--teacher", name), dataset(4, 0)
    with pytest.raises(WeightsError, match=r"^teacher: .*pip install"):
        step_of(config, Net(), data)
    monkeypatch.setattr("saccade.models.pretrained.load_pretrained", lambda model, name: None)
    step = step_of(config, Net(), data)
    teacher = step.objective.teacher
    assert not teacher.model.shifts()
    assert (teacher.loaded.clip.num_frames, teacher.loaded.clip.crop) == (2, 32)
    assert teacher.loaded.clip.mean == (127 / 255,) * 3
    assert teacher.record["licence"] == "Apache-2.0"
    assert step.objective.module.out_features == 1280
    step(batch_of(data, [0, 1]))
    assert step.terms.keys() == {"loss_label", "loss_feature"}


# ------------------------------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module")
def loose_clips(tiny_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven training clips in a folder of their own, without labels."""
    folder = tmp_path_factory.mktemp("loose")
    for number, file in enumerate(sorted((tiny_clips / "train").rglob("*.mp4"))[::3]):
        (folder / f"{number}.mp4").write_bytes(file.read_bytes())
    return folder


def flags_for(teacher: Path, loose: Path) -> tuple[str, ...]:
    flags = ("--teacher", str(teacher), "--unlabelled", str(loose), "--distill.feature-weight", "0.5")
    flags += ("--distill.pseudo-labels", "teacher", "--distill.threshold", "0.6", "--epochs", "1")
    return (*flags, "--ema", "0.9", "--log-every", "1", "--val-every", "0")


def test_a_run_records_its_teacher_and_resumes_bit_for_bit(
    tiny_config: MakeConfig, teacher: Path, loose_clips: Path, tmp_path: Path
):
    flags = flags_for(teacher, loose_clips)
    whole, paused = train(tiny_config("whole", *flags)).run_dir, tiny_config("paused", *flags)
    train(paused, fraction=0.6)
    assert load_checkpoint(Path(paused.out) / "last.pt")["progress"]["step"] == 3
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(teacher.read_bytes())
    resumed = train(paused.replace(teacher=str(moved)), resume=True).run_dir
    records = lines(whole)
    assert untimed(records) == untimed(lines(resumed))
    one, other = load_checkpoint(whole / "last.pt"), load_checkpoint(resumed / "last.pt")
    for part in ("model", "objective"):
        assert_same(flat(one[part]), flat(other[part]))
    assert_same(one["average"]["model"], other["average"]["model"])
    digest = hashlib.sha256(teacher.read_bytes()).hexdigest()
    expected = {"path": str(teacher), "model": "x2d", "sha256": digest, "licence": "CC-BY-4.0"}
    assert json.loads((whole / "config.json").read_text())["teacher"] == expected
    assert load_model(whole / "best.safetensors")[1]["teacher"] == expected
    assert f"{digest[:12]}" in (whole / "log.txt").read_text()
    record = records[-1]
    parts = [record[f"loss_{name}"] for name in ("label", "soft", "feature", "pseudo")]
    assert record["loss"] == pytest.approx(parts[0] + parts[1] + 0.5 * parts[2] + parts[3], rel=1e-5)
    assert 0 < record["pseudo_used"] <= 1
    with pytest.raises(ConfigError, match=r"teacher \(was .*, now \)"):
        train(paused.replace(teacher="", unlabelled="", distill=DistillConfig()), resume=True)
    other_teacher = write_teacher(tmp_path / "other.safetensors", (*NAMES, "third"))
    with pytest.raises(ConfigError, match=rf"teacher: .*other\.safetensors has the sha256.*{digest[:12]}"):
        train(paused.replace(teacher=str(other_teacher)), resume=True)


def flat(state: dict) -> dict[str, Tensor]:
    return {
        key: value for key, value in (state | state.pop("module", {})).items() if isinstance(value, Tensor)
    }


def test_the_unlabelled_videos_and_all_networks_take_part(
    tiny_config: MakeConfig, teacher: Path, loose_clips: Path
):
    """Other unlabelled clips, and their number, change the weights; so does the teacher."""
    plain = train(tiny_config("plain", "--epochs", "1", "--val-every", "0")).run_dir
    found = [weights(plain)]
    for name, flags in {
        "teacher": ("--teacher", str(teacher)),
        "loose": ("--teacher", str(teacher), "--unlabelled", str(loose_clips)),
        "twice": (
            *("--teacher", str(teacher), "--unlabelled", str(loose_clips)),
            *("--distill.unlabelled-ratio", "2"),
        ),
        "self": ("--unlabelled", str(loose_clips), "--distill.threshold", "0.5"),
    }.items():
        config = tiny_config(name, "--epochs", "1", "--val-every", "0", *flags)
        found.append(weights(train(config).run_dir))
    for number, one in enumerate(found):
        for other in found[:number]:
            with pytest.raises(AssertionError):
                assert_same(one, other)


def test_multigrid(
    tiny_config: MakeConfig, teacher: Path, loose_clips: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every batch has as many unlabelled clips as labelled ones, of its shape; sub-BN has complete splits."""
    monkeypatch.setattr("saccade.training.run.draw_plan", lambda *_: None)
    flags = ("--multigrid", "both", "--batch-size", "2", "--clip.stride", "1", "--grid.bn-base-size", "2")
    flags += ("--grid.cycle-ends", "0.7", "--precision", "bfloat16", *flags_for(teacher, loose_clips))
    flags += ("--epochs", "4")
    config = tiny_config("run", *flags)
    table, seen, plain = make_timetable(config, 20), [], GradientStep.__call__

    def noting(self: GradientStep, batch: ClipBatch) -> tuple[float, float]:
        labelled = sum(index < 20 for index in batch.indices)
        assert len(batch) == 2 * labelled
        norms = [m for m in self.model.modules() if isinstance(m, SubBatchNorm3d)]
        assert all(norm.divides(len(batch)) for norm in norms)
        seen.append((labelled, len(batch.clips[0]), batch.crop))
        return plain(self, batch)

    monkeypatch.setattr(GradientStep, "__call__", noting)
    train(config, fraction=0.4)
    run = train(config, resume=True).run_dir
    shapes = [table.shape(step) for step in range(table.total_steps)]
    assert seen == [(shape.batch_size, shape.num_frames, shape.crop) for shape in shapes]
    assert len(set(seen)) > 2
    assert all(math.isfinite(record["loss_feature"]) for record in lines(run))


@pytest.mark.slow
def test_two_processes_train_as_one(
    tiny_config: MakeConfig, teacher: Path, loose_clips: Path, tmp_path: Path
):
    flags = flags_for(teacher, loose_clips)
    flags += ("--model.dropout", "0", "--model.drop-path", "0", "--sync-bn", "--optim.lr", "0.02")
    one, two = tiny_config("one", *flags), tiny_config("two", *flags)
    train(one)
    code = tmp_path / "two.py"
    code.write_text(
        "import json, sys\nfrom saccade.training import TrainConfig, train\n"
        "if __name__ == '__main__':\n    train(TrainConfig.from_dict(json.loads(sys.argv[1])))\n"
    )
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    process: subprocess.Popen[str] = start([*launch, str(code), json.dumps(two.to_dict())])
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    for a, b in zip(lines(Path(one.out)), lines(Path(two.out)), strict=True):
        for name in ("loss", "loss_soft", "loss_feature", "loss_pseudo", "pseudo_used", "top1"):
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-6), (name, a["step"])
    single, double = (flat(load_checkpoint(Path(c.out) / "last.pt")["objective"]) for c in (one, two))
    for name, value in single.items():
        torch.testing.assert_close(double[name], value, rtol=1e-3, atol=1e-4)


# --------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("flags", "error", "match"),
    [
        (("--teacher", "nowhere"), UsageError, r"^teacher: nowhere: no such run folder"),
        (("--teacher", "x3d_xs"), UsageError, r"^teacher: x3d_xs: no weights of images"),
        (("--unlabelled", "nowhere"), UsageError, r"nowhere"),
        (("--unlabelled", "LOOSE", "--distill.pseudo-labels", "off"), ConfigError, r"^unlabelled: "),
        (
            ("--unlabelled", "LOOSE", "--distill.pseudo-labels", "teacher"),
            ConfigError,
            r"^distill\.pseudo_labels: .*--teacher",
        ),
        (
            ("--teacher", "TEACHER", "--distill.pseudo-labels", "self"),
            ConfigError,
            r"^distill\.pseudo_labels: .*--unlabelled",
        ),
        (("--teacher", "TEACHER", "--distill.temperature", "0"), ConfigError, r"^distill\.temperature: "),
        (("--teacher", "TEACHER", "--task", "multi-label"), DataError, r"multi-label"),
        (
            (
                *("--teacher", "TEACHER", "--unlabelled", "LOOSE"),
                *("--multigrid", "short", "--distill.unlabelled-ratio", "1.5"),
            ),
            ConfigError,
            r"^distill\.unlabelled_ratio: .*1\.5",
        ),
        (("--unlabelled", "VAL"), DataError, r"^unlabelled: .*val.*5 of 5 files"),
    ],
)
def test_bad_input(
    tiny_config: MakeConfig,
    tiny_clips: Path,
    teacher: Path,
    loose_clips: Path,
    flags: tuple[str, ...],
    error: type[Exception],
    match: str,
):
    places = {"TEACHER": str(teacher), "LOOSE": str(loose_clips), "VAL": str(tiny_clips / "val")}
    config = tiny_config("run", *(places.get(flag, flag) for flag in flags))
    with pytest.raises(error, match=match):
        train(config)
    assert not Path(config.out).exists()


def test_teachers_that_do_not_fit(tiny_config: MakeConfig, tmp_path: Path):
    data = dataset(4, 0)
    other = write_teacher(tmp_path / "other.safetensors", ("cat", "dog"))
    with pytest.raises(
        ConfigError, match=r"^teacher: none of the 2 classes .*cat, dog.*--distill.soft-weight 0"
    ):
        step_of(tiny_config("run", "--teacher", str(other)), Net(), data)
    flags = ("--teacher", str(other), "--distill.soft-weight", "0", "--distill.feature-weight", "1")
    step = step_of(tiny_config("run", *flags), Net(), data)
    step(batch_of(data, [0, 1]))
    assert step.terms.keys() == {"loss_label", "loss_feature"}
    task = write_teacher(tmp_path / "task.safetensors", NAMES, "multi-label")
    with pytest.raises(ConfigError, match=r"^teacher: .* task multi-label, this run is of task single-label"):
        step_of(tiny_config("run", "--teacher", str(task)), Net(), data)
    own = tiny_config("run")
    with pytest.raises(ConfigError, match=r"^teacher: .*run is the folder of this run.*--out"):
        train(own.replace(teacher=own.out))


@pytest.mark.parametrize("task", ["masked", "localization", "detection"])
def test_tasks_without_distillation(tiny_config: MakeConfig, task: str):
    from saccade.training.validate import validate

    name = "maskfeat_mvit_base" if task == "masked" else "x3d_xs"
    config = tiny_config("run", "--teacher", "runs/a")
    model = replace(config.model, name=name, overrides={}, drop_path=0.0)
    config = config.replace(task=task, model=model, label_smoothing=0.0)
    with pytest.raises(ConfigError, match=f"^teacher: is not supported by task {task}"):
        validate(config)
