"""Scores as the text files that the official evaluation of Charades reads.

Charades_v1_classify.m: a line for every video, its id and the score of each class. Charades_v1_localize.m: a
line for each of 25 moments of every video, its id, the number of the moment from 1 on, and the scores.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.localization import LocalizationResult
from saccade.evaluation.multilabel import MultiLabelResult
from saccade.evaluation.points import CHARADES_POINTS
from saccade.evaluation.scoring import sigmoid
from saccade.files import write_text


def write_submission(result: MultiLabelResult | LocalizationResult, path: str | os.PathLike[str]) -> None:
    """Write the scores of a test in the official format of its task."""
    write_text(path, "".join(f"{line}\n" for line in _lines(result)))


def _lines(result: MultiLabelResult | LocalizationResult) -> Iterable[str]:
    ids = [Path(name).stem for name in result.paths]
    if isinstance(result, MultiLabelResult):
        for video, scores in zip(ids, result.scores, strict=True):
            yield f"{video} {_numbers(scores)}"
        return
    moments = sigmoid(result.points).reshape(len(ids), CHARADES_POINTS, -1)
    for video, rows in zip(ids, moments, strict=True):
        for number, scores in enumerate(rows, start=1):
            yield f"{video} {number} {_numbers(scores)}"


def _numbers(scores: NDArray[np.float32]) -> str:
    return " ".join(f"{score:.6g}" for score in scores.tolist())
