"""Using a trained model: `Predictor`, and loading a model from wherever it is."""

from __future__ import annotations

from saccade.evaluation.result import Failure
from saccade.inference.predictor import Prediction, Predictor, Window
from saccade.inference.source import LoadedModel, load_for_use

__all__ = ["Failure", "LoadedModel", "Prediction", "Predictor", "Window", "load_for_use"]
