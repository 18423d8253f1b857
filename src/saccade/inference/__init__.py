"""Inference with a trained model: `Predictor`, `Localizer`, `Detector`, `load_for_inference`, `calibrate`."""

from __future__ import annotations

from saccade.inference.calibration import calibrate
from saccade.inference.detector import Detector, PeopleActions, Person
from saccade.inference.loading import LoadedModel, load_for_inference
from saccade.inference.localizer import Localizer
from saccade.inference.predictor import Prediction, Predictor, Window
from saccade.tasks import Failure
from saccade.tasks.timeline import Segment, Timeline

__all__ = [
    "Detector",
    "Failure",
    "LoadedModel",
    "Localizer",
    "PeopleActions",
    "Person",
    "Prediction",
    "Predictor",
    "Segment",
    "Timeline",
    "Window",
    "calibrate",
    "load_for_inference",
]
