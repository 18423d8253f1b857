"""Calibrate the rejection of a run, "none of these", on clips that show a class and clips that show none."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from saccade.data.datasets import load_dataset, with_default_reader
from saccade.data.entries import first_few
from saccade.data.folders import background_folder
from saccade.data.motion import MOTION_CLASSES, make_motion
from saccade.data.types import VideoDataset
from saccade.errors import UsageError
from saccade.evaluation.rejection import ACCEPT, Rejection, choose_rejection
from saccade.inference.predictor import Logits, Predictor
from saccade.progress import Progress, ignore
from saccade.runs import Run, data_of_run, held_out_by
from saccade.tasks import Classify, Failure

logger = logging.getLogger(__name__)

_SEED = 1  # of the motion films: not those that `saccade data motion` makes
_FILMS = "motion films"


def calibrate(
    run: str | os.PathLike[str] | Run,
    *,
    background: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | VideoDataset | None = None,
    root: str | os.PathLike[str] | None = None,
    accept: float = ACCEPT,
    device: str = "auto",
    workers: int = 2,
    progress: Progress = ignore,
    write: bool = True,
) -> Rejection:
    """Choose the score and the threshold below which `Predictor` says "none of these", and keep them in the
    run folder.

    Every video is shown to the network as `Predictor` shows it. The clips without any class only choose the
    score and measure how many of such clips are rejected; the threshold follows from the validation clips.

    Args:
        run: the run folder.
        background: folder of videos that show none of the classes. Default: the folder ``background`` beside
            the classes, else synthetic films of moving shapes (`motion`), which are easier to reject than
            what a camera sees.
        data: clips that show a class and were not trained on: a data set, whose validation split is used, or
            that split. Default: what the run was validated on.
        root: folder that relative paths of ``data`` start from.
        accept: fraction of those clips to accept.
        device: as of `Predictor`.
        workers: decoding threads.
        progress: called with (videos done, videos in all).
        write: write rejection.json.

    Raises:
        UsageError: no run, no data, ``accept`` is out of range, or the task is not single-label.
        DataError: a data set cannot be used, or none of its videos can be read.
        WeightsError: the weights cannot be loaded.
    """
    run = run if isinstance(run, Run) else Run(run)
    if not 0 < accept <= 1:
        raise UsageError(f"accept: must be in (0, 1] (is {accept})")
    settings = run.settings
    predictor = Predictor(run.folder, device=device, reject=False, frames_fps=settings.get("frames_fps"))
    if not isinstance(predictor.task, Classify):
        raise UsageError(
            f"{run.folder}: was trained for {predictor.task.name}, which scores each class by itself; only "
            "single-label models need to reject"
        )
    val_set = data if isinstance(data, VideoDataset) else _validation(run, predictor, data, root)
    places = [Path(place) for place in (settings.get("data"), val_set.root) if place]
    with _negatives(predictor, background, places) as (name, negatives):
        num_negatives = len(negatives) if negatives else 0

        def shifted(by: int) -> Progress:
            return lambda done, _: progress(by + done, len(val_set) + num_negatives)

        known = predictor.dataset_logits(val_set, workers=workers, progress=shifted(0))
        unknown = []
        if negatives:
            unknown = predictor.dataset_logits(negatives, workers=workers, progress=shifted(len(val_set)))
    rejection = choose_rejection(
        _readable(known),
        _readable(unknown),
        accept=accept,
        negatives=name,
        step=predictor.loaded.step,
    )
    if write:
        run.write_rejection(rejection)
    return rejection


def _validation(
    run: Run, predictor: Predictor, data: str | os.PathLike[str] | None, root: str | os.PathLike[str] | None
) -> VideoDataset:
    """The split of a data set that the run did not train on."""
    settings = run.settings
    if data is None:
        data, own_root, split = data_of_run(settings, None)
        root = root or own_root
        if not data:
            raise UsageError(f"{run.folder}: does not name its data set; give the clips to calibrate on")
    else:
        split = "val"
    return load_dataset(
        data,
        split,
        class_names=predictor.class_names if predictor.loaded.named else None,
        **held_out_by(settings, data),
        root=root,
        allow_missing=settings.get("allow_missing", False),
    )


@contextmanager
def _negatives(
    predictor: Predictor, background: str | os.PathLike[str] | None, places: Sequence[Path]
) -> Iterator[tuple[str, VideoDataset | None]]:
    """Videos that show none of the classes, and what they are.

    Args:
        places: the data sets of the run, beside whose classes there may be a folder of such videos.
    """
    folder = background or next(filter(None, map(background_folder, places)), None)
    if folder is not None:
        named = with_default_reader(folder, "unlabelled") if Path(folder).is_dir() else folder
        yield os.fspath(folder), load_dataset(named, "all", labelled=False)
    elif set(predictor.class_names) & set(MOTION_CLASSES):
        logger.warning(
            f"{predictor.loaded.origin}: its classes are those of the motion films, so nothing measures how "
            "many clips without any class are rejected; give a folder of such clips (--background)"
        )
        yield "", None
    else:
        with TemporaryDirectory() as temporary:
            films = make_motion(
                Path(temporary) / "films", clips_per_class=1, val_per_class=1, seed=_SEED, workers=0
            )
            yield _FILMS, load_dataset(films, "all", labelled=False)


def _readable(found: list[Logits | Failure]) -> list[Logits]:
    """The logits of the videos that could be read, (num_views, K) of each; a warning names the others."""
    failed = [each for each in found if isinstance(each, Failure)]
    if failed:
        logger.warning(
            f"{len(failed)} of {len(found)} videos could not be read and are not used to calibrate: "
            f"{first_few([f'{each.path} ({each.cause})' for each in failed])}"
        )
    return [each.reshape(-1, each.shape[-1]) for each in found if not isinstance(each, Failure)]
