"""Learning from a teacher and from clips without labels: one `Objective` for both.

The loss of a batch of labelled and unlabelled clips is a sum with the weights of `DistillConfig`:

    label     the loss of the labels                                       mean over the labelled clips
    soft      the divergence from the teacher's scores (`Task.soft_loss`)  mean over all clips
    feature   the distance from the teacher's pooled features              mean over all clips
    pseudo    the cross entropy with pseudo-labels of sufficient score     mean over the unlabelled clips

Soft targets: Hinton et al. 2015, arXiv 1503.02531. Features through a linear projection: Romero et al. 2015,
arXiv 1412.6550. The teacher sees the crop, flip and augmentation that the student sees: Beyer et al. 2022,
arXiv 2106.05237. Pseudo-labels: Sohn et al. 2020, arXiv 2001.07685 (FixMatch): the label is the class of a
plain view of the clip, and the strongly augmented view of it is trained. Here both views have the same crop
and flip, and the network that labels is in eval mode.

Shape letters: B clips, C channels, T frames, H and W pixels, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.data.types import ClipBatch, VideoDataset
from saccade.errors import ConfigError
from saccade.evaluation.features import logits_and_features
from saccade.models import contract
from saccade.tasks import Objective, get_task
from saccade.tasks.objective import ClipObjective, Step
from saccade.training.config import TrainConfig
from saccade.training.optim import set_train_mode
from saccade.training.step import train_transform
from saccade.training.teacher import Teacher, find_classifier


def make_objective(
    config: TrainConfig, model: nn.Module, dataset: VideoDataset, device: torch.device
) -> Objective:
    """The loss of a run: that of its task, with a teacher and unlabelled clips if the config has them.

    Raises:
        ConfigError: the teacher does not fit the run.
        UsageError, WeightsError: the teacher cannot be loaded.
    """
    plain = get_task(config.task).from_config(config).objective(config, model, dataset.labelled)
    if not (config.teacher or config.unlabelled):
        return plain
    if not isinstance(plain, ClipObjective):
        field = "teacher" if config.teacher else "unlabelled"
        raise ConfigError(f"{field}: is not supported by task {config.task}, which has a loss of its own")
    teacher = Teacher(config, dataset.class_names, device) if config.teacher else None
    return Distillation(config, model, dataset, plain, teacher, device)


@dataclass(frozen=True)
class _Views:
    """The clips of a part: what the student sees, labelled clips first, and what is labelled.

    Attributes:
        student, plain: (B, 3, T, H, W); they differ in the unlabelled clips if these get pseudo-labels.
        labels: of the labelled clips, None without any; ``inside``: see `ClipBatch`.
        num_labelled: number of labelled clips.
    """

    student: Tensor
    plain: Tensor
    labels: Tensor | None
    inside: Tensor | None
    num_labelled: int


class Distillation(Objective):
    """The loss of a run with a teacher or with unlabelled clips; see the head of this module."""

    takes_clips: ClassVar[bool] = True

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        dataset: VideoDataset,
        labels: ClipObjective,
        teacher: Teacher | None,
        device: torch.device,
    ) -> None:
        self.options, self.teacher, self._labels = config.distill, teacher, labels
        self._task, self._pseudo = get_task(config.task), config.pseudo_labels
        self._num_labelled, self._num_unlabelled = dataset.num_labelled, dataset.num_unlabelled
        self.record = {"teacher": teacher.record} if teacher else {}
        self._batch = (1, 1, 0)  # clips, labelled and unlabelled clips of the batch
        layout = contract.memory_format(model, config.channels_last) == torch.channels_last_3d
        self._plain, self._strong = (
            train_transform(each, dataset.class_names, channels_last=layout)
            for each in _augmentations(config)
        )
        weight = self.options.feature_weight
        has_classes = bool(teacher and teacher.classes)
        self.feature_weight = (0.0 if has_classes else 1.0) if weight is None else weight
        self.soft_weight = self.options.soft_weight if has_classes else 0.0
        self._classifier: nn.Module | None = None
        if teacher and self.feature_weight:
            self._classifier = find_classifier(model)
            self._dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                width = self._student_width(config, model, device)
                self.module = nn.Linear(width, teacher.width).to(device)

    def _student_width(self, config: TrainConfig, model: nn.Module, device: torch.device) -> int:
        assert self._classifier is not None
        clip = torch.zeros(1, 3, config.clip.num_frames, config.train_crop, config.train_crop, device=device)
        with torch.no_grad():
            return logits_and_features(model.eval(), self._classifier, clip)[1].shape[1]

    # ------------------------------------------------------------------------------------------ the run

    def notes(self) -> list[str]:
        lines = []
        if self.teacher:
            lines.append(self._teacher_note(self.teacher))
        if self._num_unlabelled:
            ratio = self.options.unlabelled_ratio
            line = (
                f"unlabelled: {self._num_unlabelled} videos, {ratio:g} of their clips for each labelled one"
            )
            if self._pseudo != "off":
                giver = "the network itself" if self._pseudo == "self" else "the teacher"
                line += f"; pseudo-labels of {giver} with scores from {self.options.threshold:g}"
            lines.append(line)
        return lines

    def _teacher_note(self, teacher: Teacher) -> str:
        clip = teacher.loaded.clip
        line = (
            f"teacher {teacher.source}: {teacher.loaded.name}, licence {teacher.record['licence']}, sha256 "
            f"{teacher.digest[:12]}, sees {clip.num_frames} frames of {clip.crop} pixels"
        )
        if self.soft_weight and teacher.classes:
            line += (
                f"; soft targets of {len(teacher.classes[0])} classes by name, weight {self.soft_weight:g}, "
                f"temperature {self.options.temperature:g}"
            )
        if self.feature_weight:
            line += f"; {teacher.width} features, weight {self.feature_weight:g}, {self.options.feature_loss}"
        return line

    def state_dict(self) -> dict[str, Any]:
        return {
            "teacher": self.teacher.digest if self.teacher else "",
            "module": self.module.state_dict() if self.module else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.teacher and state["teacher"] != self.teacher.digest:
            raise ConfigError(
                f"teacher: {self.teacher.source} has the sha256 {self.teacher.digest[:12]}, but this run was "
                f"started with the teacher {state['teacher'][:12]}"
            )
        if self.module:
            self.module.load_state_dict(state["module"])

    # ----------------------------------------------------------------------------------------- the loss

    def begin(self, step: Step, batch: ClipBatch) -> None:
        labelled = sum(index < self._num_labelled for index in batch.indices)
        self._batch = (len(batch), labelled, len(batch) - labelled)

    def __call__(self, step: Step, part: ClipBatch) -> tuple[Tensor, Tensor]:
        views = self._views(step, part)
        soft, features = self.teacher(views.plain, step.autocast()) if self.teacher else (None, None)
        pseudo = self._pseudo_labels(step, views, soft) if self._pseudo != "off" else None
        logits, seen = self._forward(step, views.student)
        options, terms = self.options, dict[str, Tensor]()
        label, correct = self._label_loss(logits, views)
        loss = options.label_weight * label
        terms["loss_label"] = label
        if self.soft_weight and soft is not None:
            terms["loss_soft"] = self._soft_loss(logits, soft, views)
            loss = loss + self.soft_weight * terms["loss_soft"]
        if seen is not None and features is not None:
            terms["loss_feature"] = self._feature_loss(seen, features)
            loss = loss + self.feature_weight * terms["loss_feature"]
        if pseudo is not None:
            terms["loss_pseudo"], terms["pseudo_used"] = self._pseudo_loss(logits, *pseudo, views)
            loss = loss + options.pseudo_weight * terms["loss_pseudo"]
        self.terms = {name: value.detach() for name, value in terms.items()}
        return loss, correct

    def _forward(self, step: Step, x_BCTHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and features if they are compared."""
        with step.autocast():
            if self._classifier is None:
                return step.network(x_BCTHW).float(), None
            logits, features = logits_and_features(
                step.network, self._classifier, x_BCTHW, dropouts=self._dropouts
            )
        return logits.float(), features.float()

    def _views(self, step: Step, part: ClipBatch) -> _Views:
        known = [row for row, index in enumerate(part.indices) if index < self._num_labelled]
        unknown = [row for row, index in enumerate(part.indices) if index >= self._num_labelled]
        student, plain, labels, inside = [], [], None, None
        if known:
            labelled = part.select(known)
            x_BCTHW, labels = step.inputs(labelled)
            student.append(x_BCTHW)
            plain.append(x_BCTHW)
            inside = None if part.inside is None else labelled.inside
        if unknown:
            unlabelled, is_pseudo = part.select(unknown), self._pseudo != "off"
            student.append(step.prepare(unlabelled, self._strong if is_pseudo else None))
            plain.append(step.prepare(unlabelled, self._plain) if is_pseudo else student[-1])
        seen = torch.cat(student)
        return _Views(seen, torch.cat(plain) if self._pseudo != "off" else seen, labels, inside, len(known))

    def _label_loss(self, logits: Tensor, views: _Views) -> tuple[Tensor, Tensor]:
        """The mean over the labelled clips, and the number of correct ones, both of the batch as a whole:
        scaled so that the means over the clips of all parts are those over the labelled clips.
        """
        if views.labels is None:
            nothing = 0.0 * logits.sum()
            return nothing, nothing.detach()
        num_clips, num_labelled, _ = self._batch
        inside = None if views.inside is None else views.inside.to(logits.device)
        loss, correct = self._labels.loss(logits[: views.num_labelled], views.labels, inside)
        scale = num_clips / num_labelled
        return loss * (scale * views.num_labelled / len(logits)), correct * scale

    def _soft_loss(self, logits: Tensor, soft: Tensor, views: _Views) -> Tensor:
        """Over the classes that the teacher knows, without labelled clips of others."""
        assert self.teacher is not None
        assert self.teacher.classes is not None
        assert self._task.soft_loss is not None
        own, theirs = self.teacher.classes
        losses_B = self._task.soft_loss(logits[:, own], soft[:, theirs], self.options.temperature)
        if len(own) < logits.shape[1] and views.labels is not None and not self._task.multi_label:
            fractions_BK = views.labels
            if fractions_BK.ndim == 1:
                fractions_BK = F.one_hot(fractions_BK, logits.shape[1]).float()
            known = fractions_BK[:, own].sum(1)
            losses_B = losses_B * torch.cat([known, known.new_ones(len(logits) - len(known))])
        return losses_B.mean()

    def _feature_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        assert self.module is not None
        projected = self.module(student)
        if self.options.feature_loss == "mse":
            return F.mse_loss(projected, teacher)
        return 1 - F.cosine_similarity(projected, teacher).mean()

    @torch.no_grad()
    def _pseudo_labels(self, step: Step, views: _Views, soft: Tensor | None) -> tuple[Tensor, Tensor]:
        """Score and class of each unlabelled clip."""
        if self._pseudo == "teacher":
            assert soft is not None
            assert self.teacher is not None
            assert self.teacher.classes is not None
            own, theirs = self.teacher.classes
            scores, best = soft[views.num_labelled :].softmax(1)[:, theirs].max(1)
            return scores, torch.tensor(own, device=best.device)[best]
        plain = views.plain[views.num_labelled :]
        if not len(plain):
            return plain.new_zeros(0), plain.new_zeros(0, dtype=torch.long)
        try:
            with step.autocast():
                logits = step.model.eval()(plain)
        finally:
            set_train_mode(step.model)
        scores, best = logits.float().softmax(1).max(1)
        return scores, best

    def _pseudo_loss(
        self, logits: Tensor, scores: Tensor, classes: Tensor, views: _Views
    ) -> tuple[Tensor, Tensor]:
        """The mean over the unlabelled clips, scaled as in `_label_loss`, and the fraction with a label."""
        num_clips, _, num_unlabelled = self._batch
        used = (scores >= self.options.threshold).float()
        losses = F.cross_entropy(logits[views.num_labelled :], classes, reduction="none") * used
        scale = num_clips / max(num_unlabelled, 1) / len(logits)
        return losses.sum() * scale, used.sum() * scale


def _augmentations(config: TrainConfig) -> tuple[TrainConfig, TrainConfig]:
    """The config with the augmentation of the plain and of the strong view."""
    options = config.distill
    plain = replace(config.augment, brightness=0.0, contrast=0.0, saturation=0.0, rand_ops=0, erasing=0.0)
    strong = replace(
        config.augment,
        rand_ops=options.rand_ops,
        rand_magnitude=options.rand_magnitude,
        erasing=options.erasing,
    )
    return config.replace(augment=plain), config.replace(augment=strong)
