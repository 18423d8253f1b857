"""`evaluate`: test a model on a data set, for every task."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from saccade.clip import ClipSpec
from saccade.data.types import VideoDataset
from saccade.data.workers import loader_options, lost_worker, num_processes, worker_died, workers_for
from saccade.errors import DataError, UsageError, VideoError
from saccade.evaluation.controls import ORDERED, Arrangement, ControlPass, Controls, arrange
from saccade.evaluation.reading import Chunk, VideoSource, cut_views, prefetch_decode
from saccade.evaluation.scorer import Precision, Scorer, evaluating, model_device
from saccade.models.counts import count_macs, count_params
from saccade.progress import Progress, ignore
from saccade.sampling.plan import PlannedClip
from saccade.sampling.segments import check_num_clips
from saccade.sampling.temporal import RULES
from saccade.sampling.timing import FrameTimes
from saccade.tasks import get_task, with_metrics
from saccade.tasks.base import Outcome, Task, View
from saccade.tasks.result import Failure
from saccade.tasks.time_use import TimeUse
from saccade.video import Backend

_NAMED_FAILURES = 20  # failures that are logged as they happen; the result lists all of them

logger = logging.getLogger(__name__)


def evaluate(
    model: nn.Module,
    dataset: VideoDataset | Dataset[Any],
    clip: ClipSpec | None = None,
    views: str | Sequence[str] = "1x1",
    *,
    task: str | Task = "single-label",
    device: torch.device | str | None = None,
    workers: int = 2,
    batch_size: int | None = None,
    temporal_rule: str = "saccade",
    shuffle_frames: bool = False,
    seed: int = 0,
    controls: Controls | None = None,
    precision: Precision = "float32",
    backend: Backend = "auto",
    frames_fps: float | None = None,
    progress: Progress = ignore,
    distributed: bool = False,
    group: Any = None,
) -> dict[str, Any]:
    """Test ``model`` on every item of ``dataset``: one result per view set.

    A video is opened and decoded once for all view sets (once for each decoding size), a chunk at a time.
    The model's mode and weights and the caller's random state do not change.

    >>> results = saccade.evaluate(model, saccade.load_dataset("clips/", "val"), clip, "1x1,10x3")
    >>> results["10x3"].top1, results["10x3"].per_class
    >>> saccade.evaluate(any_module, any_dataset)["1x1"].top1      # items: (clip (3, T, H, W), label)

    Args:
        model: (B, 3, T, H, W) float -> (B, num_classes) logits, or what the task needs.
        dataset: a `VideoDataset`, or any map-style data set of (clip, label): float clips (3, T, H, W) as the
            model takes them, or uint8 frames (T, H, W, 3), cut at the centre and normalised as ``clip`` says.
            A label is a class index, or for multi-label a vector (num_classes,). An item that raises
            `VideoError` counts as an unreadable video.
        clip: the clip specification of the test; not needed for float clips.
        views: ``CLIPSxCROPS`` or a protocol of `saccade.sampling.views.PROTOCOLS`, or several of them
            (``["1x1", "10x3", "ssv2-1clip"]``, or with commas). Ignored by tasks that test whole videos.
        task: a name (`saccade.tasks.list_tasks`), or a task with options, e.g. ``Localize(overlap=0.75)``.
        device: default: that of the model.
        workers: decoding threads (per rank; processes for a data set of your own); 0 decodes in the calling
            thread.
        batch_size: maximum number of views per forward pass; None chooses by memory.
        temporal_rule: one of `saccade.sampling.temporal.RULES`, for views without a protocol.
        shuffle_frames: permute the frames of every view with ``seed``, as a control without temporal order.
        controls: also test the same clips with their frames shuffled, repeated and reversed, for
            `Result.time_use`. Not made of clips of one frame.
        backend: decoder, see `saccade.open_video`.
        frames_fps: frame rate of folders of frames if the data set has none; None: 30.
        progress: called with (videos done, videos in all) of this rank, at the start and after each video.
        distributed: split the videos over the ranks of ``torch.distributed``: rank r reads the videos i with
            i % world == r, and every rank returns the same results. Every rank must call.
        group: process group for gathering; default: the default group.

    Returns:
        Results by view set, in the given order. Unreadable videos are listed in ``failures``, counted in no
        metric, and logged as warnings.

    Raises:
        UsageError: invalid views, rule or sizes.
        DataError: no video, none that can be read, labels of another task, or labels the model does not have.
        WeightsError: the model's output has the wrong shape or is not finite.
    """
    chosen = get_task(task)() if isinstance(task, str) else task
    workers = num_processes(workers)
    sets = chosen.view_sets(views)
    home = torch.device(device) if device is not None else model_device(model)
    rank, world = (dist.get_rank(group), dist.get_world_size(group)) if distributed else (0, 1)
    scorer = Scorer(model, chosen, clip, device=home, batch_size=batch_size, precision=precision)
    source: Videos | Tensors
    if isinstance(dataset, VideoDataset):  # videos to decode
        if clip is None:
            raise UsageError("clip: a data set of videos needs clip=ClipSpec(...)")
        _check_protocol(dataset, clip, temporal_rule, sets, chosen)
    elif not hasattr(dataset, "__len__"):
        raise UsageError("evaluate() needs a map-style data set, with __getitem__ and __len__")
    control = None
    if controls and not shuffle_frames and (clip is None or clip.num_frames > 1):
        control = ControlPass(controls, scorer, sets, len(cast(Any, dataset)))
    if isinstance(dataset, VideoDataset):
        videos = VideoSource(
            dataset,
            chosen,
            cast(ClipSpec, clip),
            control.decoded_sets if control else tuple(sets.values()),
            temporal_rule,
            backend=backend,
            frames_fps=frames_fps,
            pin_memory=home.type == "cuda",
        )
        source = Videos(videos, home)
    else:
        chosen.items_of(())  # raises if tensors cannot have the labels of the task
        source = Tensors(dataset, clip, home, sets)
    positions = range(rank, len(cast(Any, dataset)), world)
    with evaluating(model):
        partial = run_pass(
            source,
            positions,
            scorer,
            workers,
            progress,
            sets=tuple(sets.values()),
            shuffle_seed=seed if shuffle_frames else None,
            controls=control,
        )
    whole = _gather(partial, world, group)
    if not whole.scores:
        if not whole.failures:
            raise DataError(f"{type(dataset).__name__}: the data set is empty")
        first = whole.failures[min(whole.failures)]
        raise DataError(
            f"none of the {len(dataset)} videos could be read; the first: {first.path}: {first.cause}"
        )
    tested = source.labelled(whole, chosen)
    shape = source.input_shape(whole)
    common = {
        **whole.protocol(tested, world),
        "gmacs_per_view": _gmacs(model, shape),
        "num_params": count_params(model),
        "shuffled": shuffle_frames,
    }
    size = clip or ClipSpec(num_frames=shape[1], stride=1, crop=shape[2], short_side=shape[2])
    outcome = Outcome(whole.scores, whole.videos, sets, common, size, temporal_rule)
    results = {name: with_metrics(result) for name, result in chosen.results(tested, outcome).items()}
    if control is None or not whole.controls:
        return results
    time_use = _time_use(chosen, tested, control, whole, outcome)
    return {name: replace(result, time_use=time_use) for name, result in results.items()}


def _time_use(
    task: Task, dataset: VideoDataset, control: ControlPass, whole: PartialScores, outcome: Outcome
) -> TimeUse:
    """The results of the controls, compared with those of the ordered frames."""
    found: dict[str, list[Any]] = {}
    for (name, _), scores in whole.controls.items():
        paths = tuple(dataset.items[i].path for i in sorted(scores))
        common = {**outcome.common, "paths": paths}
        arranged = replace(outcome, scores=scores, sets=control.wanted, common=common)
        found.setdefault(name, []).extend(task.results(dataset, arranged).values())
    (ordered,) = found.pop(ORDERED)
    return TimeUse.of(ordered, found, num_tested=len(whole.scores))


# --- the pass over the items -----------------------------------------------------------------------------


@dataclass
class PartialScores:
    """The results of one process of a test, by position in the data set. ``controls``: by arrangement."""

    scores: dict[int, Any] = field(default_factory=dict)
    videos: dict[int, FrameTimes] = field(default_factory=dict)
    labels: dict[int, Any] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    controls: dict[Arrangement, dict[int, Any]] = field(default_factory=dict)
    num_clips: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def protocol(self, dataset: VideoDataset, world: int) -> dict[str, Any]:
        """The fields that every result of the test has."""
        return {
            "class_names": dataset.class_names,
            "failures": tuple(self.failures[i] for i in sorted(self.failures)),
            "pairs": dataset.pairs,
            "seconds": self.seconds,
            "clips_per_second": self.num_clips / max(self.seconds, 1e-9),
            "data_wait": self.waited / max(self.seconds * world, 1e-9),
            "paths": tuple(dataset.items[i].path for i in sorted(self.scores)),
        }


def run_pass(
    source: Videos | Tensors,
    positions: Sequence[int],
    scorer: Scorer,
    workers: int,
    progress: Progress = ignore,
    *,
    sets: tuple[Any, ...] = (),
    shuffle_seed: int | None = None,
    controls: ControlPass | None = None,
) -> PartialScores:
    """Run the items at ``positions`` through the model and merge their views as the task does.

    Args:
        sets: the view sets to merge.
        shuffle_seed: seed of a permutation of the frames of every view; None keeps their order.
        controls: also run with the frames rearranged.
    """
    partial = PartialScores()
    if not positions:
        return partial
    start = time.perf_counter()
    progress(0, len(positions))
    with closing(source.views(positions, partial, workers, progress)) as read:  # ends the threads on errors
        views: Iterable[View] = read
        if shuffle_seed is not None:
            views = (arrange(view, ("shuffle", shuffle_seed)) for view in read)
        if controls is not None:
            views = controls.watch(read)
        for view, output in scorer.stream(views):
            before = partial.scores.get(view.position)
            partial.scores[view.position] = scorer.task.merge(before, output, view, sets)
            partial.num_clips += 1
    partial.seconds = time.perf_counter() - start
    if controls is not None:
        partial.controls = controls.scores
        partial.seconds -= controls.seconds
    for position in partial.failures:  # a video may fail after some of its views
        for scores in (partial.scores, *partial.controls.values()):
            scores.pop(position, None)
    return partial


@dataclass(frozen=True)
class Videos:
    """The views of a `VideoDataset`."""

    source: VideoSource
    device: torch.device

    def views(
        self, positions: Sequence[int], partial: PartialScores, workers: int, progress: Progress
    ) -> Generator[View, None, None]:
        with closing(prefetch_decode(positions, self.source, min(workers, len(positions)))) as stream:
            for count, (position, chunks) in enumerate(stream, start=1):
                try:
                    timed = self._timed(chunks, position, partial)
                    yield from cut_views(timed, self.source.clip, self.device, position)
                except VideoError as error:
                    _note(partial, position, Failure(self.source.dataset.items[position].path, error.cause))
                progress(count, len(positions))

    def _timed(self, chunks: Iterator[Chunk], position: int, partial: PartialScores) -> Iterator[Chunk]:
        while True:
            start = time.perf_counter()
            chunk = next(chunks, None)
            partial.waited += time.perf_counter() - start
            if chunk is None:
                return
            partial.videos.setdefault(position, chunk.video)
            yield chunk

    def labelled(self, whole: PartialScores, task: Task) -> VideoDataset:
        return self.source.dataset

    def input_shape(self, whole: PartialScores) -> tuple[int, ...]:
        clip = self.source.clip
        return 3, clip.num_frames, clip.crop, clip.crop


class Tensors:
    """The clips of a map-style data set of (clip, label)."""

    def __init__(
        self, dataset: Dataset[Any], clip: ClipSpec | None, device: torch.device, sets: Mapping[str, Any]
    ) -> None:
        if list(sets) != ["1x1"]:
            raise UsageError("a data set of clips has one view per clip; use views='1x1'")
        self.dataset, self.clip, self.device = dataset, clip, device

    def views(
        self, positions: Sequence[int], partial: PartialScores, workers: int, progress: Progress
    ) -> Generator[View, None, None]:
        items = self._items(positions, workers_for(self.dataset, min(workers, len(positions))))
        for count, (position, item) in enumerate(zip(positions, items, strict=True), start=1):
            if isinstance(item, VideoError):
                _note(partial, position, Failure(item.path, item.cause))
                progress(count, len(positions))
                continue
            if not isinstance(item, tuple | list) or len(item) != 2:
                raise DataError(f"{self._name}: item {position} must be a pair (clip, label)")
            pixels, partial.labels[position] = item
            view = self._view(position, torch.as_tensor(pixels).to(self.device))
            shape = tuple(view.pixels.shape)
            partial.shape = (3, *shape[:3]) if view.pixels.dtype == torch.uint8 else shape
            yield view
            progress(count, len(positions))

    @property
    def _name(self) -> str:
        return type(self.dataset).__name__

    def _items(self, positions: Sequence[int], workers: int) -> Iterator[Any]:
        loader = DataLoader(
            _ItemOrError(self.dataset),
            sampler=cast(Any, positions),
            batch_size=None,
            **loader_options(workers),
            generator=torch.Generator(),  # so that the caller's random state does not change
        )
        try:
            yield from loader
        except (RuntimeError, OSError, EOFError) as error:
            if workers and lost_worker(error):
                raise worker_died(error) from error
            raise

    def _view(self, position: int, pixels: Tensor) -> View:
        if pixels.ndim != 4:
            raise DataError(
                f"{self._name}: clips are floats (3, T, H, W) or uint8 frames (T, H, W, 3); item {position} "
                f"is {tuple(pixels.shape)}"
            )
        if pixels.dtype != torch.uint8:
            return View(position, 0, (1,), pixels.float())
        if self.clip is None or pixels.shape[3] != 3:
            raise UsageError(
                f"uint8 clips are frames (T, H, W, 3) and need clip=ClipSpec(...); got {tuple(pixels.shape)}"
            )
        planned = PlannedClip(tuple(range(len(pixels))), self.clip.short_side, "pyslowfast", {1: (1,)})
        rows = torch.arange(len(pixels)).numpy()
        chunk = Chunk(FrameTimes(len(pixels), 30.0), pixels, ((planned, rows),), rows)
        return next(cut_views([chunk], self.clip, self.device, position))

    def labelled(self, whole: PartialScores, task: Task) -> VideoDataset:
        names = getattr(self.dataset, "class_names", None) or getattr(self.dataset, "classes", None)
        num_classes = len(next(iter(whole.scores.values()))[0])
        some = next(iter(whole.labels.values()))  # a placeholder for items that could not be read
        labels = [whole.labels.get(i, some) for i in range(len(cast(Any, self.dataset)))]
        names = tuple(names or map(str, range(num_classes)))
        try:
            items = task.items_of(labels)
            wrong = [len(label) for label in labels if len(label) != len(names)] if task.multi_label else []
            if wrong:
                raise ValueError(f"{wrong[0]} numbers, and there are {len(names)} classes")
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{self._name}: its labels do not fit task {task.name}: {error}") from error
        return VideoDataset(
            items=items,
            class_names=names,
            split="val",
            root=self._name,
            multi_label=task.multi_label,
        )

    def input_shape(self, whole: PartialScores) -> tuple[int, ...]:
        return whole.shape


class _ItemOrError(Dataset[Any]):
    """The items of a data set, or the `VideoError` of one that cannot be read: a loader with workers would
    raise it as a RuntimeError.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except VideoError as error:
            return error


def _note(partial: PartialScores, position: int, failure: Failure) -> None:
    partial.failures[position] = failure
    if len(partial.failures) <= _NAMED_FAILURES:
        logger.warning(f"{failure.path}: {failure.cause}: left out of the test")


def _gather(partial: PartialScores, world: int, group: Any) -> PartialScores:
    """The results of all processes merged, on every rank."""
    if world == 1:
        return partial
    parts: list[Any] = [None] * world
    dist.all_gather_object(parts, partial, group=group)
    whole = PartialScores(seconds=max(part.seconds for part in parts))
    for part in parts:
        whole.scores |= part.scores
        whole.videos |= part.videos
        whole.labels |= part.labels
        whole.failures |= part.failures
        for arrangement, scores in part.controls.items():
            whole.controls.setdefault(arrangement, {}).update(scores)
        whole.shape = whole.shape or part.shape
        whole.num_clips += part.num_clips
        whole.waited += part.waited
    return whole


def _gmacs(model: nn.Module, shape: Sequence[int]) -> float:
    """Multiply-adds of one view in 1e9; NaN if the module does not run on the meta device."""
    try:
        return count_macs(model, (1, *shape)) / 1e9
    except Exception as error:
        logger.debug(f"cannot count the multiply-adds of {type(model).__name__}: {error!r}")
        return math.nan


def _check_protocol(
    dataset: VideoDataset, clip: ClipSpec, rule: str, sets: dict[str, Any], task: Task
) -> None:
    task.check_dataset(dataset)
    if rule not in RULES:
        raise UsageError(f"temporal rule {rule!r} is unknown; known are {', '.join(RULES)}")
    for views in sets.values():
        check_num_clips(views.rule or rule, views.num_clips)
    if clip.short_side < clip.crop:
        raise UsageError(f"a crop of {clip.crop} does not fit into frames of short side {clip.short_side}")
    if not len(dataset):
        raise DataError(f"{dataset.root}: no videos in split {dataset.split!r}")
