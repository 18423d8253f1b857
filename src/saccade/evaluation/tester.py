"""Testing a model: several view sets over a data set in one pass, each video opened and decoded once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.actions import active_at
from saccade.data.types import VideoDataset
from saccade.errors import DataError, UsageError
from saccade.evaluation.decoding import DecodedVideo, VideosToTest, read_ahead
from saccade.evaluation.multilabel import Ensemble, MultiLabelResult
from saccade.evaluation.points import charades_times
from saccade.evaluation.result import TestResult
from saccade.evaluation.scoring import Precision, ViewScorer, evaluating, model_device, sigmoid, softmax
from saccade.evaluation.share import Share, check_classes, counted, gather, ranks
from saccade.models.counts import count_macs
from saccade.sampling.segments import check_num_clips
from saccade.sampling.temporal import RULES
from saccade.sampling.views import Views, parse_views
from saccade.transforms.views import cut_views

Scores = NDArray[np.float64]
Merge = Callable[[Scores | None, NDArray[np.float32], tuple[int, ...], Sequence[Views]], Scores]


def evaluate(
    model: nn.Module,
    dataset: VideoDataset,
    clip: ClipSpec,
    views: str | Sequence[str] = "1x1",
    *,
    device: torch.device | str | None = None,
    workers: int = 2,
    batch_size: int | None = None,
    temporal_rule: str = "saccade",
    shuffle_frames: bool = False,
    seed: int = 0,
    precision: Precision = "float32",
    progress: bool = False,
    on_video: Callable[[int, int], None] | None = None,
    distributed: bool = False,
    group: Any = None,
) -> dict[str, TestResult]:
    """Scores of ``model`` on every video of ``dataset``, one result per view set.

    A video is opened and decoded once for all view sets (once for each size that they decode at). Softmax
    per view, then the mean over views, as PySlowFast; a protocol may average logits instead.

    Args:
        model: (B, 3, T, H, W) float -> (B, num_classes) logits. Its mode and weights are left as they are.
        clip: the clip of the test.
        views: ``CLIPSxCROPS`` or a protocol of `saccade.sampling.views.PROTOCOLS`, or several of them
            (``["1x1", "10x3", "ssv2-1clip"]``).
        device: default: where the model is.
        workers: decoding processes (per rank); 0 decodes in this one.
        batch_size: most views per forward pass; None chooses by memory.
        temporal_rule: one of `saccade.sampling.temporal.RULES`, for the views that are no protocol.
        shuffle_frames: permute the frames of every view, by ``seed``: a control that takes the order of
            time away.
        progress: show a bar on stderr (rank 0).
        on_video: called with (videos done, videos in all) of this rank after each video.
        distributed: share the videos among the ranks of ``torch.distributed``: rank r reads the videos i
            with i % world == r, and all of them return the same results. Every rank must call.
        group: process group for gathering; default: the default group.

    Returns:
        Results by view set, in the order asked for. Unreadable videos are in ``failures``, in no figure,
        and told on stderr.

    Raises:
        UsageError: views, rule or sizes that cannot work.
        DataError: no video, none that can be read, or labels the model does not have.
    """
    if dataset.multi_label:
        raise DataError(
            f"{dataset.root}: has any number of actions a video; a model of one label is tested on others"
        )
    tested = _tested(
        model,
        dataset,
        clip,
        views,
        _sum_of_means,
        device=device,
        workers=workers,
        batch_size=batch_size,
        temporal_rule=temporal_rule,
        shuffle_frames=shuffle_frames,
        seed=seed,
        precision=precision,
        progress=progress,
        on_video=on_video,
        distributed=distributed,
        group=group,
    )
    results = {}
    for place, (name, own) in enumerate(tested.sets.items()):
        scores = tested.scores(place) / len(own)
        if own.average == "logits":
            scores = softmax(scores)
        results[name] = TestResult(
            scores=scores.astype(np.float32),
            labels=np.array([dataset.items[i].label for i in tested.order], np.int64),
            **tested.protocol(name),
        )
    return results


def evaluate_multilabel(
    model: nn.Module,
    dataset: VideoDataset,
    clip: ClipSpec,
    views: str | Sequence[str] = "1x1",
    *,
    ensemble: Ensemble = "max",
    **options: Any,
) -> dict[str, MultiLabelResult]:
    """`evaluate` where a video has any number of labels: sigmoid per view, and of each class the largest over
    the views (``max``, as PySlowFast on Charades) or the mean.

    Raises:
        UsageError: the ensemble is unknown, or the views average logits.
        DataError: the data set has one label a video.
    """
    if ensemble not in get_args(Ensemble):
        raise UsageError(f"ensemble {ensemble!r} is unknown; it is one of {', '.join(get_args(Ensemble))}")
    if not dataset.multi_label:
        raise DataError(f"{dataset.root}: has one label a video; a model of several is tested on others")
    wrong = next((own for own in _view_sets(views).values() if own.average == "logits"), None)
    if wrong is not None:
        raise UsageError(f"views {wrong}: this protocol is for one label a video; give CLIPSxCROPS")
    merge = _highest_sigmoid if ensemble == "max" else _sum_of_sigmoids
    tested = _tested(model, dataset, clip, views, merge, **options)
    num_classes = len(dataset.class_names)
    items = [dataset.items[i] for i in tested.order]
    durations = [
        item.duration or tested.whole.durations[i] for i, item in zip(tested.order, items, strict=True)
    ]
    truth = [
        active_at(item.actions, charades_times(duration), num_classes).T
        for item, duration in zip(items, durations, strict=True)
    ]
    positives = np.zeros((len(items), num_classes), np.bool_)
    for row, item in zip(positives, items, strict=True):
        row[[action.label for action in item.actions]] = True
    results = {}
    for place, (name, own) in enumerate(tested.sets.items()):
        scores = tested.scores(place) / (1 if ensemble == "max" else len(own))
        results[name] = MultiLabelResult(
            scores=scores.astype(np.float32),
            positives=positives,
            truth=np.stack(truth),
            ensemble=ensemble,
            **tested.protocol(name),
        )
    return results


# --- what is made of the views' logits -------------------------------------------------------------------


def _sum_of_means(
    before: Scores | None, logits: NDArray[np.float32], counts: tuple[int, ...], sets: Sequence[Views]
) -> Scores:
    own = [(logits if views.average == "logits" else softmax(logits)) for views in sets]
    return _added(before, np.stack(own), counts)


def _sum_of_sigmoids(
    before: Scores | None, logits: NDArray[np.float32], counts: tuple[int, ...], sets: Sequence[Views]
) -> Scores:
    return _added(before, np.stack([sigmoid(logits)] * len(sets)), counts)


def _added(before: Scores | None, own: NDArray[np.float32], counts: tuple[int, ...]) -> Scores:
    weights = np.asarray(counts, np.float64)[:, None]
    return (0.0 if before is None else before) + weights * own.astype(np.float64)


def _highest_sigmoid(
    before: Scores | None, logits: NDArray[np.float32], counts: tuple[int, ...], sets: Sequence[Views]
) -> Scores:
    has = np.asarray(counts)[:, None] > 0
    own: Scores = np.where(has, sigmoid(logits).astype(np.float64), -np.inf)
    return own if before is None else np.maximum(before, own)


# --- the pass over the videos ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tested:
    """A finished pass. ``whole.scores`` has (num_view_sets, num_classes) for every video that was read."""

    sets: dict[str, Views]
    whole: Share[Scores]
    common: dict[str, Any]
    clip: ClipSpec
    rule: str

    @property
    def order(self) -> list[int]:
        return sorted(self.whole.scores)

    def scores(self, place: int) -> Scores:
        """What the views of one set add up to: (num_videos, num_classes)."""
        return np.stack([self.whole.scores[i][place] for i in self.order])

    def protocol(self, name: str) -> dict[str, Any]:
        """What the result of one view set says of the test."""
        own = self.sets[name]
        size = own.decode_size(self.clip.short_side, self.clip.crop)
        return self.common | {
            "views": name,
            "clip": self.clip.replace(short_side=size),
            "temporal_rule": own.rule or self.rule,
        }


def _tested(
    model: nn.Module,
    dataset: VideoDataset,
    clip: ClipSpec,
    views: str | Sequence[str],
    merge: Merge,
    *,
    device: torch.device | str | None = None,
    workers: int = 2,
    batch_size: int | None = None,
    temporal_rule: str = "saccade",
    shuffle_frames: bool = False,
    seed: int = 0,
    precision: Precision = "float32",
    progress: bool = False,
    on_video: Callable[[int, int], None] | None = None,
    distributed: bool = False,
    group: Any = None,
) -> _Tested:
    sets = _view_sets(views)
    _check_protocol(dataset, clip, temporal_rule, list(sets.values()))
    home = torch.device(device) if device is not None else model_device(model)
    rank, world = ranks(distributed, group)
    videos = VideosToTest(
        dataset.items,
        range(rank, len(dataset), world),
        clip,
        list(sets.values()),
        rule=temporal_rule,
        shuffle_seed=seed if shuffle_frames else None,
    )
    scorer = ViewScorer(model, device=home, batch_size=batch_size, precision=precision, logits=True)
    cost = {
        "gmacs_per_view": count_macs(model, (1, 3, clip.num_frames, clip.crop, clip.crop)) / 1e9,
        "num_params": sum(p.numel() for p in model.parameters()),
        "shuffled": shuffle_frames,
    }
    with evaluating(model):
        share = _test_share(videos, scorer, merge, workers, progress and rank == 0, on_video)
    whole = gather(share, dataset, world, group)
    check_classes(next(iter(whole.scores.values())).shape[1], dataset)
    return _Tested(sets, whole, whole.protocol(dataset, world) | cost, clip, temporal_rule)


def _test_share(
    videos: VideosToTest,
    scorer: ViewScorer,
    merge: Merge,
    workers: int,
    progress: bool,
    on_video: Callable[[int, int], None] | None,
) -> Share[Scores]:
    share: Share[Scores] = Share()
    if not len(videos):
        return share
    start = time.perf_counter()
    # The workers are started before the bar: forking a process that draws from a thread is asking for
    # trouble.
    stream = read_ahead(videos, workers=workers, pin_memory=scorer.device.type == "cuda")
    with counted(len(videos), progress=progress, on_video=on_video) as done:
        views = _views(share.readable(stream, done), share, scorer, videos.clip)
        for (position, counts), logits in scorer.stream(views):
            before = share.scores.get(position)
            share.scores[position] = merge(before, logits, counts, videos.view_sets)
            share.num_clips += 1
    share.seconds = time.perf_counter() - start
    return share


def _views(
    stream: Iterator[DecodedVideo], share: Share[Scores], scorer: ViewScorer, clip: ClipSpec
) -> Iterator[tuple[tuple[int, tuple[int, ...]], Tensor]]:
    """Every view of every video, cut and normalised on the device just before it is needed."""
    for video in stream:
        share.durations[video.position] = video.duration
        for size in video.sizes:
            frames = size.frames.to(scorer.device, non_blocking=True)
            for planned in size.clips:
                views = cut_views(
                    frames[list(planned.frames)],
                    clip,
                    planned.crops,
                    short_side=planned.short_side,
                    grid=planned.grid,
                    channels_last=scorer.channels_last,
                )
                yield from (((video.position, planned.crops[crop]), view) for crop, view in views)


def _view_sets(views: str | Sequence[str]) -> dict[str, Views]:
    texts = views.split(",") if isinstance(views, str) else list(views)
    parsed = [parse_views(text) for text in texts]
    if not parsed:
        raise UsageError("no views given; 10x3 means 10 clips of 3 crops")
    return {str(one): one for one in parsed}


def _check_protocol(dataset: VideoDataset, clip: ClipSpec, rule: str, sets: Sequence[Views]) -> None:
    if rule not in RULES:
        raise UsageError(f"temporal rule {rule!r} is unknown; known are {', '.join(RULES)}")
    for views in sets:
        check_num_clips(views.rule or rule, views.num_clips)
    if clip.short_side < clip.crop:
        raise UsageError(f"a crop of {clip.crop} does not fit into frames of short side {clip.short_side}")
    if not len(dataset):
        raise DataError(f"{dataset.root}: no videos in split {dataset.split!r}")
