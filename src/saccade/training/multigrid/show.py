"""A multigrid plan as a table, and the data of its chart."""

from __future__ import annotations

from typing import Any

from saccade.training.multigrid.plan import Phase
from saccade.training.multigrid.timetable import MultigridTimetable

_TITLES = (
    "phase",
    "epochs",
    "steps",
    "clips x frames x pixels",
    "stride",
    "rate",
    "per device",
    "batch norm",
)


def plan_text(timetable: MultigridTimetable) -> str:
    """The plan as a text table with a row per phase, and a summary."""
    plan = timetable.plan
    rows = [_TITLES, *(_row(timetable, phase) for phase in plan.phases)]
    if all(phase.norm.kind == "none" for phase in plan.phases):
        rows = [row[:-1] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([*lines, "", *_summary(timetable)])


def _row(timetable: MultigridTimetable, phase: Phase) -> tuple[str, ...]:
    start, end = phase.first_step, phase.end_step
    stride = phase.shape.stride
    every = f" by {phase.shape.stride_step}" if phase.shape.stride_step > 1 and stride[0] < stride[1] else ""
    rates = [timetable.rate(start), timetable.rate(end - 1)] if end > start else []
    shown = [f"{rate:.3g}" for rate in rates]
    return (
        str(phase.number),
        f"{phase.start_epoch:.4g} - {phase.end_epoch:.4g}",
        f"{start} - {end}" if rates else "none",
        "  ".join(f"{s.batch_size}x{s.num_frames}x{s.crop}" for s in phase.cycle.shapes),
        f"{stride[0]} - {stride[1]}{every}" if stride[0] < stride[1] else str(stride[0]),
        " - ".join(dict.fromkeys(shown)),
        str(phase.clips_per_device),
        str(phase.norm),
    )


def _summary(timetable: MultigridTimetable) -> list[str]:
    plan, config = timetable.plan, timetable.plan.config
    steps = round(config.epochs * (plan.num_clips // config.batch_size))
    more = plan.total_clips / (steps * config.batch_size) if steps else 0.0
    return [
        f"{plan.total_steps} steps (without multigrid {steps}); {plan.total_clips} clips in "
        f"{plan.epochs:.4g} epochs ({more:.2f} x as many); {plan.cost:.2f} x the frames times pixels",
        f"validated {len(plan.validations)} times, always with {config.clip.num_frames} frames x "
        f"{config.clip.crop} pixels",
    ]


def chart_data(timetable: MultigridTimetable, points: int = 400) -> dict[str, Any]:
    """The arguments of `saccade.visualize.charts.plan_chart`."""
    plan = timetable.plan
    phases = [phase for phase in plan.phases if phase.cycle.num_steps]
    every = max(1, plan.total_steps // points)
    steps = range(0, plan.total_steps, every)
    return {
        "edges": [timetable.epoch(phase.first_step) for phase in phases]
        + [timetable.epoch(plan.total_steps)],
        "batches": [[shape.batch_size for shape in phase.cycle.shapes] for phase in phases],
        "crops": [[shape.crop for shape in phase.cycle.shapes] for phase in phases],
        "frames": [phase.shape.num_frames for phase in phases],
        "rates": ([timetable.epoch(step) for step in steps], [timetable.rate(step) for step in steps]),
        "validations": [timetable.epoch(step) for step in sorted(plan.validations)],
        "title": f"{plan.config.recipe}: multigrid {plan.config.multigrid}, {plan.num_clips} clips",
    }
