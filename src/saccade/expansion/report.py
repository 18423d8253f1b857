"""The report of a search: report.html, and its two charts as image files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from saccade.expansion.config import Complexity, Factors, accuracy_name
from saccade.expansion.halving import savings
from saccade.expansion.history import Entry, History, compare, multigrid_fractions, options_text, read_history
from saccade.expansion.result import FRONT_PICTURE, PATH_PICTURE, RECIPE, REPORT, SUMMARY
from saccade.expansion.worker import WARM_START
from saccade.files import write_text
from saccade.training.reporting import format_seconds
from saccade.visualize.charts import inline_svg, save_figure
from saccade.visualize.frontier import AXIS_STYLES, Dot, Step, expansion_chart, pareto_chart, plain_number
from saccade.visualize.pages import render_page

_PANELS = ("gmacs", "latency_ms", "params")
_UNITS = {
    "gmacs": "GMACs",
    "params": "M parameters",
    "latency_ms": "ms latency",
    "memory_mb": "MB memory",
}
_STATUS = {
    "selected": "selected",
    "over target": "over the target, contracted",
    "rejected": "rejected",
    "dropped": "dropped after {fraction:.0f} % of the training",
    "failed": "failed: {reason}",
    "undecided": "step not finished",
}

Row = dict[str, Any]


def write_report(folder: str | os.PathLike[str], *, against: Sequence[str | os.PathLike[str]] = ()) -> Path:
    """Write report.html, expansion.svg/.png and pareto.svg/.png into the folder of a search, finished or not,
    and return the path of the page.

    Args:
        against: folders of other searches on the same data, to compare training time and choices with.

    Raises:
        UsageError: a folder is not that of a search.
        DataError: a journal is damaged.
    """
    history = read_history(Path(folder))
    others = [read_history(Path(other)) for other in against]
    path, front = path_chart(history), front_chart(history)
    for name, figure in ((PATH_PICTURE, path), (FRONT_PICTURE, front)):
        if figure is not None:
            save_figure(figure, history.folder / f"{name}.svg")
            save_figure(figure, history.folder / f"{name}.png", dpi=200)
    recipe = history.folder / RECIPE
    page = render_page(
        "saccade.expansion",
        "report.html",
        title=f"Expansion on {_data_name(history)}",
        headline=_headline(history),
        facts=_facts(history),
        path=inline_svg(path, label="Path of the search") if path is not None else "",
        front=inline_svg(front, label="Pareto fronts") if front is not None else "",
        notes=_notes(history),
        steps=[_step_rows(step) for step in history.steps],
        figure=_figure_name(history),
        measured=_how_measured(history),
        savings=_savings(history),
        comparisons=_comparison_rows(history, others),
        recipe=str(recipe) if recipe.is_file() else "",
        settings=json.dumps(history.settings, indent=2, ensure_ascii=False),
        written=datetime.now().strftime("%d %B %Y, %H:%M"),
    )
    target = history.folder / REPORT
    write_text(target, page)
    return target


# -------------------------------------------------------------------------------------------------- pictures


def path_chart(history: History) -> Figure | None:
    """Figure 2 of the X3D paper for this search, without candidates that were not trained to the end. None if
    no candidate has an accuracy yet.
    """
    cost = history.settings.get("cost", "gmacs")
    rejected: list[Dot] = []
    steps: list[Step] = []
    for group in history.steps:
        selected = next((entry for entry in group if entry.status == "selected"), None)
        others = [entry for entry in group if entry.status in ("rejected", "over target")]
        rejected += [_dot(entry, cost) for entry in others if _is_measured(entry, cost)]
        if selected is None:
            continue
        candidate = selected.candidate
        label = "X2D" if candidate.factors == Factors() else candidate.axis
        same_step = [e for step in history.steps for e in step if e.candidate.step == candidate.step]
        steps.append(
            Step(
                selected=_dot(selected, cost),
                label=f"{label}, contracted" if candidate.contracted else label,
                rejected=tuple(rejected),
                in_noise=any(entry.in_noise for entry in same_step),
            )
        )
        rejected = []
    if not steps:
        return None
    target = history.target
    return expansion_chart(
        steps,
        cost=_label(history, cost),
        target=target / 1e6 if target and cost == "params" else target,
        figure_name=_figure_name(history),
        title=f"Progressive expansion on {_data_name(history)}",
        last_rejected=rejected,
        result=history.final.candidate.name if history.final else "",
    )


def front_chart(history: History) -> Figure | None:
    """All networks trained to the end, with the Pareto front of each cost; None if fewer than two."""
    if len(history.finished) < 2:
        return None
    panels = []
    for cost in _PANELS:
        dots = [_dot(entry, cost) for entry in history.finished if _is_measured(entry, cost)]
        if dots:
            panels.append((_label(history, cost), dots))
    return pareto_chart(
        panels,
        figure_name=_figure_name(history),
        title="All trained networks and their Pareto front",
        named=[history.final.candidate.name] if history.final else [],
        styles=AXIS_STYLES,
    )


def _label(history: History, cost: str) -> str:
    """The axis label of a cost, with a warning if latencies were measured at different times."""
    incomparable = cost == "latency_ms" and history.latencies is None
    return "latency (ms), measured in different steps" if incomparable else cost


def _dot(entry: Entry, cost: str) -> Dot:
    value = _cost_of(entry.candidate.complexity, cost)
    assert value is not None
    assert entry.accuracy is not None
    return Dot(
        name=entry.candidate.name,
        cost=value,
        accuracy=entry.accuracy,
        spread=entry.error,
        group=entry.candidate.axis,
    )


def _cost_of(complexity: Complexity, kind: str) -> float | None:
    """The cost in the unit of `saccade.visualize.frontier.COST_LABELS`; None if not measured."""
    value = getattr(complexity, kind)
    return None if value is None else value / 1e6 if kind == "params" else float(value)


def _is_measured(entry: Entry, cost: str) -> bool:
    return getattr(entry.candidate.complexity, cost) is not None


# ---------------------------------------------------------------------------------------------------- text


def _data_name(history: History) -> str:
    return Path(str(history.settings.get("base", {}).get("data", ""))).stem or "replayed accuracies"


def _figure_name(history: History) -> str:
    return accuracy_name(history.settings.get("base", {}).get("task", ""))


def _how_measured(history: History) -> str:
    """How the latencies were measured; empty if there are none."""
    if not any(_is_measured(entry, "latency_ms") for step in history.steps for entry in step):
        return ""
    if history.latencies:
        return "ms is the latency, timed in turns at the end of the search; - if a network was not timed."
    return "ms is the latency, measured before each step; the load of the machine may differ between steps."


def _last_or_final(history: History) -> Entry | None:
    return history.final or (history.path[-1] if history.path else None)


def _headline(history: History) -> list[tuple[str, str, str]]:
    """The cards at the top: (value, label, note)."""
    final = _last_or_final(history)
    if final is None or final.accuracy is None:
        return []
    cost = final.candidate.complexity
    state = "result of the search" if history.final else "so far; the search has not ended"
    error = f"± {100 * final.error:.1f} (one standard error), " if final.error else ""
    seeds = f"mean of {final.seeds} seeds" if final.seeds > 1 else "one seed"
    params, memory = f"{cost.params / 1e6:.3g} M", f"{plain_number(cost.memory_mb)} MB memory per clip"
    cards = [
        (f"{100 * final.accuracy:.1f} %", _figure_name(history), f"{state}; {error}{seeds}"),
        (plain_number(cost.gmacs), "GMACs", "per clip"),
        (params, "parameters", memory),
    ]
    if cost.latency_ms is not None:
        source: Any = history.latencies
        device = source.device if source else history.settings.get("device", "")
        runtime = source.runtime if source else history.settings.get("runtime", "")
        how = "timed in turns with the others" if source else "measured"
        note = f"one clip, {how}, {device}, {runtime}"
        cards.append((f"{plain_number(cost.latency_ms)} ms", "latency", note))
    num = len({(trial.candidate.name, trial.seed) for trial in history.trials})
    cards.append((format_seconds(history.seconds), "training time", f"sum over {_trainings(num)}"))
    return cards


def _facts(history: History) -> list[tuple[str, str]]:
    settings = history.settings
    final = _last_or_final(history)
    targets = ", ".join(
        f"at most {t['value'] / (1e6 if t['kind'] == 'params' else 1):g} {_UNITS[t['kind']]}"
        for t in settings.get("targets", ())
    )
    facts = [
        ("network", str(final.candidate.factors) if final else ""),
        ("path", " → ".join(history.axes)),
        ("target", targets),
        ("each candidate", options_text(settings)),
        ("selected", f"by {settings.get('criterion', 'accuracy')}"),
        ("rate", f"{settings.get('rate', 2):g} times the {_UNITS[settings.get('cost', 'gmacs')]} per step"),
        ("data", str(settings.get("base", {}).get("data", ""))),
    ]
    return [(name, value) for name, value in facts if value]


def _notes(history: History) -> list[str]:
    """The remarks in the summary of a finished search, otherwise the remarks on each choice."""
    path = history.folder / SUMMARY
    if path.is_file() and history.result:
        notes = json.loads(path.read_text(encoding="utf-8")).get("notes")
        if notes:
            return [str(note) for note in notes]
    return list(history.notes)


def _step_rows(step: Sequence[Entry]) -> list[Row]:
    """The table rows of a step's candidates, best first."""
    best = ("selected", "over target")
    rows = []
    for entry in sorted(step, key=lambda e: (e.status not in best, -e.fraction, -(e.accuracy or 0))):
        candidate, cost = entry.candidate, entry.candidate.complexity
        status = _STATUS[entry.status].format(fraction=100 * entry.fraction, reason=entry.reason)
        rows.append(
            {
                "step": candidate.step,
                "axis": candidate.axis + (" (contracted)" if candidate.contracted else ""),
                "colour": AXIS_STYLES.get(candidate.axis, ("", ""))[0],
                **asdict(candidate.factors),
                "accuracy": _accuracy(entry),
                "gmacs": f"{cost.gmacs:.3g}",
                "params": f"{cost.params / 1e6:.3g}",
                "latency": "-" if cost.latency_ms is None else plain_number(cost.latency_ms),
                "seconds": format_seconds(entry.seconds),
                "status": status + (", within noise of the selected one" if entry.in_noise else ""),
                "selected": entry.status == "selected",
            }
        )
    return rows


def _trainings(num: int) -> str:
    return f"{num} training" + ("s" if num != 1 else "")


def _accuracy(entry: Entry | None) -> str:
    if entry is None or entry.accuracy is None:
        return "-"
    return f"{100 * entry.accuracy:.1f}" + (f" ± {100 * entry.error:.1f}" if entry.error else "")


def _savings(history: History) -> list[str]:
    """The savings of each option that makes a search cheaper, as far as a single search shows them."""
    lines = []
    halved = savings(history.trials, float(history.settings["epochs"]))
    if halved["dropped"]:
        lines.append(
            f"Successive halving stopped {_trainings(halved['dropped'])} early: "
            f"{format_seconds(halved['seconds'])} instead of about "
            f"{format_seconds(halved['seconds_without'])} (extrapolated), {100 * halved['share']:.1f} % less."
        )
    fractions = multigrid_fractions(history)
    if fractions:
        lines.append(
            f"Multigrid processes {100 * fmean(fractions):.0f} % of the frames x pixels of the same "
            f"trainings without it (computed, mean of {len(fractions)})."
        )
    starts = [_warm_start(Path(t.run_dir)) for t in history.trials if t.status == "done" and t.rung == 0]
    warm = [start for start in starts if start]
    if warm:
        exact = sum(bool(start["exact"]) for start in warm)
        lines.append(
            f"{_trainings(len(warm))} started from the parent's weights, {exact} of them with exactly the "
            "parent's outputs. Only a comparison with a search without warm start shows the savings."
        )
    return lines


def _warm_start(run: Path) -> Row | None:
    try:
        report: Row = json.loads((run / WARM_START).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report


def _comparison_rows(history: History, others: Sequence[History]) -> list[Row]:
    """The table rows of this search and the others; empty without others."""
    if not others:
        return []
    rows = [_comparison_row(history, "", "")]
    for other in others:
        result = compare(history, other)
        steps = f"{result.num_same} step{'s' * (result.num_same > 1)}"
        if result.num_same < result.num_common:
            choice = f"same first {steps}, then different" if result.num_same else "different path"
        else:
            choice = "same path" if result.same_length else f"same in the {steps} that both made"
        percent = 100 * result.saved
        saved = f"{percent:.0f} %" if percent >= 0 else f"none, {-percent:.0f} % more"
        rows.append(_comparison_row(other, saved, choice))
    return rows


def _comparison_row(history: History, saved: str, choice: str) -> Row:
    final = _last_or_final(history)
    return {
        "name": history.folder.resolve().name,
        "options": options_text(history.settings),
        "path": " → ".join(history.axes) or "-",
        "seconds": format_seconds(history.seconds),
        "saved": saved,
        "choice": choice,
        "accuracy": _accuracy(final),
        "gmacs": f"{final.candidate.complexity.gmacs:.3g}" if final else "-",
    }
