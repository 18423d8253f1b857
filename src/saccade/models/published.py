"""Results that the authors of the models published, each with the protocol that it was measured by.

The table is ``published.csv``, beside this file: one row for each figure. None of it was measured by this
project. docs/results.md shows the table with our own counts of parameters and operations beside theirs.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.models.counts import count_macs, count_params
from saccade.models.registry import create_on_meta, model_info

DATA_SETS = {
    "k400": "Kinetics-400",
    "k600": "Kinetics-600",
    "ssv1": "Something-Something v1",
    "ssv2": "Something-Something v2",
    "charades": "Charades, classification",
    "charades-loc": "Charades, localisation",
    "ava": "AVA v2.2",
}
"""The data sets of the table, and their names in print."""

_TASKS = {"charades": "multi-label", "charades-loc": "localization", "ava": "detection"}


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """One published figure.

    Attributes:
        name: the model as its authors call it.
        model: our model of it; empty: Saccade does not have it.
        options: what `create_model` is given besides.
        data: one of `DATA_SETS`; classes: how many it has.
        pretrain: data set that the training started from; empty: from scratch.
        frames, stride: of a clip; 0: not stated. stride 1: the rule takes segments.
        crop, short_side: of the test, in pixels.
        mean, std: of the test clips, where they are not those of the model.
        views: CLIPSxCROPS or a protocol's name, in words for models that we do not have.
        rule: temporal rule of the test; empty: that of the protocol.
        metric: name in `saccade.tasks.Result.figures`; value: in percent.
        top5: in percent; NaN: not stated.
        params: as printed, in 10⁶; gflops: as printed for one view, in 10⁹; NaN: not stated.
        counted_at: the crop that ``gflops`` is for, in pixels.
        source: where it is published.
        note: why ``gflops`` or ``params`` differ from our counts, a key of `NOTES`.
    """

    name: str
    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    data: str = "k400"
    classes: int = 400
    pretrain: str = ""
    frames: int = 0
    stride: int = 0
    crop: int = 0
    short_side: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    views: str = ""
    rule: str = ""
    metric: str = "top1"
    value: float = math.nan
    top5: float = math.nan
    params: float = math.nan
    gflops: float = math.nan
    counted_at: int = 0
    source: str = ""
    note: str = ""

    @property
    def task(self) -> str:
        """The task that gives the metric, one of `saccade.tasks.list_tasks`."""
        return _TASKS.get(self.data, "single-label")

    @property
    def clip(self) -> ClipSpec:
        """The clip of the test."""
        clip = model_info(self.model).clip_spec()
        own = {"mean": self.mean, "std": self.std} if self.mean else {}
        return clip.replace(
            num_frames=self.frames, stride=self.stride, crop=self.crop, short_side=self.short_side, **own
        )

    def counts(self) -> tuple[float, float]:
        """Our counts: parameters in 10⁶, and multiply-adds of a view in 10⁹ at ``counted_at``, or at the test
        crop where the source states none.
        """
        model = create_on_meta(self.model, self.classes, **self.options).eval()
        crop = self.counted_at or self.crop
        return count_params(model) / 1e6, count_macs(model, (1, 3, self.frames, crop, crop)) / 1e9


NOTES = {
    "cut": "the authors cut the figure after the last digit they print, they do not round it",
    "bn5": "theirs has five operations for each value of a batch norm besides the multiply-adds",
    "rubiks": "theirs has two operations for each value of a batch norm and eight for each value that is "
    "shifted in three dimensions",
    "rubiks-aq": "theirs has two operations for each value of a batch norm and four for each value that is "
    "shifted in two dimensions, none for the choice among frames",
    "20.9": "unexplained: 32 frames are 18.61 GMACs at 224 pixels and 24.31 at 256",
    "x2d": "the paper gives X2D no test crop; the figure is of its expansion, 10 clips of one centre crop",
    "clips": "4 to 6 % above our count, unexplained (norms and activations would account for it)",
    "ava": "the paper's figure; no public config or weights",
    "vt": "the source does not say how many views were tested",
    "mvitv2": "4.4 GMACs (S) and 28 GMACs (B) below our count, unexplained; parameters agree",
    "other": "PyTorchVideo's MViT, whose pooling and class token differ slightly from PySlowFast's",
}
"""Why a published count differs from ours."""


def published_results(model: str = "", data: str = "") -> tuple[PublishedResult, ...]:
    """The published figures of a model and a data set; by default all, rivals without a model of ours too.

    Raises:
        UsageError: unknown data set.

    Example:
        >>> [(result.views, result.value, result.source[:10]) for result in published_results("x3d_xs")][:2]
        [('10x1', 68.7, 'PySlowFast'), ('10x3', 69.5, 'PySlowFast')]
    """
    if data and data not in DATA_SETS:
        raise UsageError(f"data set {data!r} is unknown; known are {', '.join(DATA_SETS)}")
    return tuple(
        result
        for result in _table()
        if (not model or result.model == model) and (not data or result.data == data)
    )


@cache
def _table() -> tuple[PublishedResult, ...]:
    text = resources.files("saccade.models").joinpath("published.csv").read_text(encoding="utf-8")
    types = {item.name: item.type for item in fields(PublishedResult)}
    return tuple(
        PublishedResult(**{name: _value(str(types[name]), cell) for name, cell in row.items() if cell})
        for row in csv.DictReader(text.splitlines())
    )


def _value(kind: str, cell: str) -> Any:
    if kind in ("int", "float"):
        return {"int": int, "float": float}[kind](cell)
    if kind.startswith("tuple"):
        return tuple(map(float, cell.split()))
    if kind.startswith("dict"):
        pairs = (pair.partition("=") for pair in cell.split())
        return {name: _option(value) for name, _, value in pairs}
    return cell


def _option(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdecimal() else text
