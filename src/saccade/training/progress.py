"""Where a run stands, and which of its weights are the best so far."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from saccade.training.metrics import Window
from saccade.training.schedule import Plateau


@dataclass
class Progress:
    """Where a run stands. All of it is in the checkpoint.

    ``validation_due`` is true from the step after which a validation belongs until it is done, so that a run
    stopped in a validation begins with it again. ``best_score`` is the best of the figure ``score_name``.
    ``best_is_final``: see `VideoModel.in_final_form`. ``best_is_pause``: see `see_score`.
    """

    step: int = 0
    validation_due: bool = False
    best_score: float = -1.0
    score_name: str = ""
    best_step: int = 0
    best_is_final: bool = False
    best_is_pause: bool = False
    epoch_failures: int = 0
    window: Window = field(default_factory=Window)
    plateau: Plateau = field(default_factory=Plateau)

    def see_score(self, score: float, *, final: bool, pause: bool) -> bool:
        """Whether the weights just validated are the best so far.

        A pause does not compete, so that a run that pauses keeps the weights it would have kept without: what
        it is validated at stands in for the best only until a validation of the run's own.

        Args:
            score: of the present step; nan, where the videos tell none, is less than any.
            final: the model is in its final form.
            pause: the validation is not one of the run's own: it is there because the run pauses.
        """
        if math.isnan(score):
            score = -math.inf
        if pause:
            better = self.best_is_pause or not self.best_step
        else:
            better = self.best_is_pause or score > self.best_score or (final and not self.best_is_final)
        if better:
            self.best_score, self.best_step = score, self.step
            self.best_is_final, self.best_is_pause = final, pause
        return better

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """From what `to_dict` gave."""
        parts = {"window": Window(**values["window"]), "plateau": Plateau(**values["plateau"])}
        return cls(**{**values, **parts})
