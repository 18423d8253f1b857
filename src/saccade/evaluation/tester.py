"""Testing a model: several view sets over a data set in one pass, each video opened and decoded once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.console import progress_bar, warn
from saccade.data.types import VideoDataset
from saccade.errors import DataError, UsageError
from saccade.evaluation.cutting import cut_views
from saccade.evaluation.decoding import DecodedVideo, UnreadVideo, VideosToTest, decoded_videos
from saccade.evaluation.result import Failure, TestResult
from saccade.evaluation.scoring import Precision, ViewScorer, evaluating, model_device, softmax
from saccade.models.counts import count_macs
from saccade.video.sampling import RULES
from saccade.video.segments import check_num_clips
from saccade.video.views import Average, Views, parse_views

_LOUD_FAILURES = 20  # each is named as it happens up to here; all of them are in the result


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
        views: ``CLIPSxCROPS`` or a protocol of `saccade.video.views.PROTOCOLS`, or several of them
            (``["1x1", "10x3", "ssv2-1clip"]``).
        device: default: where the model is.
        workers: decoding processes (per rank); 0 decodes in this one.
        batch_size: most views per forward pass; None chooses by memory.
        temporal_rule: one of `saccade.video.sampling.RULES`, for the views that are no protocol.
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
    sets = _view_sets(views)
    _check_protocol(dataset, clip, temporal_rule, list(sets.values()))
    home = torch.device(device) if device is not None else model_device(model)
    rank, world = (dist.get_rank(group), dist.get_world_size(group)) if distributed else (0, 1)
    videos = VideosToTest(
        dataset.items,
        range(rank, len(dataset), world),
        clip,
        list(sets.values()),
        rule=temporal_rule,
        shuffle_seed=seed if shuffle_frames else None,
    )
    scorer = ViewScorer(model, device=home, batch_size=batch_size, precision=precision, logits=True)
    macs = count_macs(model, (1, 3, clip.num_frames, clip.crop, clip.crop)) / 1e9
    with evaluating(model):
        share = _test_share(videos, scorer, workers, progress and rank == 0, on_video)
    whole = _gather(share, world, group)
    if not whole.scores:
        first = whole.failures[min(whole.failures)]
        raise DataError(
            f"none of the {len(dataset)} videos could be read; the first: {first.path}: {first.cause}"
        )
    common: dict[str, Any] = {
        "class_names": dataset.class_names,
        "shuffled": shuffle_frames,
        "failures": tuple(whole.failures[i] for i in sorted(whole.failures)),
        "pairs": dataset.pairs,
        "gmacs_per_view": macs,
        "num_params": sum(p.numel() for p in model.parameters()),
        "seconds": whole.seconds,
        "clips_per_second": whole.num_clips / max(whole.seconds, 1e-9),
        "data_wait": whole.waited / max(whole.seconds * world, 1e-9),
    }
    results = {}
    for place, (name, own) in enumerate(sets.items()):
        protocol = {
            "clip": clip.replace(short_side=own.decode_size(clip.short_side, clip.crop)),
            "temporal_rule": own.rule or temporal_rule,
        }
        results[name] = _result(own, place, whole, dataset, common | protocol)
    return results


@dataclass
class _Share:
    """What one rank has found. Scores by position in the data set: (num_view_sets, num_classes), the sum over
    the views of what the set averages.
    """

    scores: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    num_clips: int = 0
    seconds: float = 0.0
    waited: float = 0.0


def _test_share(
    videos: VideosToTest,
    scorer: ViewScorer,
    workers: int,
    progress: bool,
    on_video: Callable[[int, int], None] | None,
) -> _Share:
    share = _Share()
    if not len(videos):
        return share
    start = time.perf_counter()
    # The workers are started before the bar: forking a process that draws from a thread is asking for
    # trouble.
    stream = decoded_videos(videos, workers=workers, pin_memory=scorer.device.type == "cuda")
    bar = progress_bar(unit="videos") if progress else None
    with bar or nullcontext():
        task = bar.add_task("testing", total=len(videos)) if bar else None

        def done(count: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=count)
            if on_video is not None:
                on_video(count, len(videos))

        views = _views(stream, share, scorer, videos.clip, done)
        for (position, counts), logits in scorer.stream(views):
            weights = np.asarray(counts, np.float64)[:, None]
            own = np.stack([_averaged(logits, views.average) for views in videos.view_sets])
            share.scores[position] = share.scores.get(position, 0.0) + weights * own
            share.num_clips += 1
    share.seconds = time.perf_counter() - start
    return share


def _averaged(logits: NDArray[np.float32], average: Average) -> NDArray[np.float64]:
    """What is averaged over the views, for one of them: (num_classes,)."""
    return (logits if average == "logits" else softmax(logits)).astype(np.float64)


def _views(
    stream: Iterator[DecodedVideo | UnreadVideo],
    share: _Share,
    scorer: ViewScorer,
    clip: ClipSpec,
    done: Callable[[int], None],
) -> Iterator[tuple[tuple[int, tuple[int, ...]], Tensor]]:
    """Every view of every video, cut and normalised on the device just before it is needed."""
    for count, video in enumerate(_timed(stream, share), start=1):
        if isinstance(video, UnreadVideo):
            share.failures[video.position] = video.failure
            if len(share.failures) <= _LOUD_FAILURES:
                warn(f"{video.failure.path}: {video.failure.cause}: left out of the test")
        else:
            for size in video.sizes:
                frames = size.frames.to(scorer.device, non_blocking=True)
                for planned in size.clips:
                    views = cut_views(
                        frames[list(planned.frames)],
                        clip,
                        planned.crops,
                        short_side=planned.short_side,
                        grid=planned.grid,
                        like=scorer,
                    )
                    yield from (((video.position, planned.crops[crop]), view) for crop, view in views)
        done(count)


def _timed(
    stream: Iterable[DecodedVideo | UnreadVideo], share: _Share
) -> Iterator[DecodedVideo | UnreadVideo]:
    source = iter(stream)
    while True:
        start = time.perf_counter()
        try:
            video = next(source)
        except StopIteration:
            return
        finally:
            share.waited += time.perf_counter() - start
        yield video


def _gather(share: _Share, world: int, group: Any) -> _Share:
    if world == 1:
        return share
    shares: list[Any] = [None] * world
    dist.all_gather_object(shares, share, group=group)
    whole = _Share(seconds=max(part.seconds for part in shares))
    for part in shares:
        whole.scores |= part.scores
        whole.failures |= part.failures
        whole.num_clips += part.num_clips
        whole.waited += part.waited
    return whole


def _result(
    views: Views, place: int, whole: _Share, dataset: VideoDataset, common: dict[str, Any]
) -> TestResult:
    order = sorted(whole.scores)
    scores = np.stack([whole.scores[i][place] for i in order]) / len(views)
    if views.average == "logits":
        scores = softmax(scores)
    num_classes = len(dataset.class_names)
    if scores.shape[1] != num_classes:
        raise DataError(f"the model has {scores.shape[1]} classes, {dataset.root} has {num_classes}")
    return TestResult(
        scores=scores.astype(np.float32),
        labels=np.array([dataset.items[i].label for i in order], np.int64),
        paths=tuple(dataset.items[i].path for i in order),
        views=str(views),
        **common,
    )


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
