"""The timetable of a multigrid plan."""

from __future__ import annotations

from saccade.data.sampler import BatchShape
from saccade.training.multigrid.plan import Phase, Plan
from saccade.training.multigrid.sampler import CycleSampler
from saccade.training.schedule import Timetable


class MultigridTimetable(Timetable):
    """The steps of a plan. Epochs are counted in clips."""

    def __init__(self, plan: Plan, *, rank: int = 0, world_size: int = 1) -> None:
        self.plan = plan
        self.sampler = self._sampler = CycleSampler(
            plan.num_clips,
            [phase.cycle for phase in plan.phases],
            seed=plan.config.seed,
            rank=rank,
            world_size=world_size,
            repeats=plan.config.augment.repeats,
        )
        self.total_steps, self.epochs = plan.total_steps, plan.epochs
        self.clips_per_epoch = plan.num_clips

    def shape(self, step: int) -> BatchShape:
        return self._sampler.shape(step)

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        phases = [phase for phase in self.plan.phases if phase.cycle.num_steps]
        return tuple(shape for phase in phases for shape in phase.cycle.shapes)

    def num_clips(self, step: int) -> int:
        return self._sampler.num_clips(step)

    def epoch(self, step: int) -> float:
        return self.num_clips(step) / self.clips_per_epoch

    def rate(self, step: int) -> float:
        return self.plan.rate(step, self.epoch(step))

    def validates(self, step: int) -> bool:
        return step in self.plan.validations

    def phase(self, step: int) -> Phase | None:
        return self.plan.phase_at(step)
