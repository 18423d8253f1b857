"""Using a trained model: `Predictor`, `Localizer`, and loading a model from wherever it is."""

from __future__ import annotations

from saccade.evaluation.result import Failure
from saccade.evaluation.timeline import Segment, Timeline
from saccade.inference.localizer import Localizer
from saccade.inference.predictor import Prediction, Predictor, Window
from saccade.inference.source import LoadedModel, load_for_use

__all__ = [
    "Failure",
    "LoadedModel",
    "Localizer",
    "Prediction",
    "Predictor",
    "Segment",
    "Timeline",
    "Window",
    "load_for_use",
]
