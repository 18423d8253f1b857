"""One page that tells a search: report.html, and its pictures as files of their own."""

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

from saccade.expansion.output import FRONT, PICTURE, REPORT
from saccade.expansion.story import (
    Story,
    Tried,
    compare_stories,
    cost_of,
    multigrid_shares,
    options_text,
    path_of,
    read_story,
)
from saccade.expansion.types import accuracy_name
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

Row = dict[str, Any]


def write_report(folder: str | os.PathLike[str], *, against: Sequence[str | os.PathLike[str]] = ()) -> Path:
    """Write report.html, expansion.svg/.png and pareto.svg/.png into the folder of a search, from its
    journal, and return the path of the page. A search that has not ended is told as far as it has come.

    Args:
        against: folders of other searches over the same data, to tell what their shortcuts saved and whether
            they chose otherwise.

    Raises:
        UsageError: a folder holds no search.
        DataError: a journal is damaged.
    """
    story = read_story(Path(folder))
    others = [read_story(Path(other)) for other in against]
    path, front = path_chart(story), front_chart(story)
    for name, figure in ((PICTURE, path), (FRONT, front)):
        if figure is not None:
            save_figure(figure, story.folder / f"{name}.svg")
            save_figure(figure, story.folder / f"{name}.png", dpi=200)
    page = render_page(
        "saccade.expansion",
        "report.html",
        title=f"Expansion on {_data_name(story)}",
        headline=_headline(story),
        facts=_facts(story),
        path=inline_svg(path, label="Path of the search") if path is not None else "",
        front=inline_svg(front, label="Pareto fronts") if front is not None else "",
        notes=_notes(story),
        steps=[_step_rows(step) for step in story.steps],
        figure=_figure_name(story),
        measured=_measured(story),
        savings=_savings(story),
        rivals=_rivals(story, others),
        recipe=str(story.folder / "recipe.json") if (story.folder / "recipe.json").is_file() else "",
        settings=json.dumps(story.settings, indent=2, ensure_ascii=False),
        written=datetime.now().strftime("%d %B %Y, %H:%M"),
    )
    target = story.folder / REPORT
    write_text(target, page)
    return target


# -------------------------------------------------------------------------------------------------- pictures


def path_chart(story: Story) -> Figure | None:
    """The X3D paper's Figure 2 for this search; None before the first network has an accuracy. Candidates
    that were not trained to the end are not in it.
    """
    cost = story.settings.get("cost", "gmacs")
    rejected: list[Dot] = []
    steps: list[Step] = []
    for group in story.steps:
        kept = next((tried for tried in group if tried.fate == "kept"), None)
        lost = [tried for tried in group if tried.fate in ("rejected", "left")]
        rejected += [_dot(tried, cost) for tried in lost if _has(tried, cost)]
        if kept is None:
            continue
        label = "X2D" if _is_x2d(kept) else kept.candidate.axis
        steps.append(
            Step(
                chosen=_dot(kept, cost),
                label=f"{label}, contracted" if kept.candidate.contracted else label,
                rejected=tuple(rejected),
                close=any(tried.in_noise for tried in _rivals_of(story, kept)),
            )
        )
        rejected = []
    if not steps:
        return None
    target = story.target
    return expansion_chart(
        steps,
        cost=_label(story, cost),
        target=target / 1e6 if target and cost == "params" else target,
        figure_name=_figure_name(story),
        title=f"Progressive expansion on {_data_name(story)}",
        beyond=rejected,
        result=story.final.candidate.name if story.final else "",
    )


def front_chart(story: Story) -> Figure | None:
    """All networks trained to the end with the Pareto front of each cost; None if fewer than two are."""
    ended = story.finished
    if len(ended) < 2:
        return None
    panels = []
    for cost in _PANELS:
        dots = [_dot(tried, cost) for tried in ended if _has(tried, cost)]
        if dots:
            panels.append((_label(story, cost), dots))
    return pareto_chart(
        panels,
        figure_name=_figure_name(story),
        title="Everything that was trained, and what nothing beats",
        named=[story.final.candidate.name] if story.final else [],
        styles=AXIS_STYLES,
    )


def _label(story: Story, cost: str) -> str:
    """What a chart calls its costs: those that cannot be compared say so."""
    apart = cost == "latency_ms" and story.timed is None
    return "latency (ms), measured in different steps" if apart else cost


def _dot(tried: Tried, cost: str) -> Dot:
    value = cost_of(tried.candidate.complexity, cost)
    assert value is not None
    assert tried.mean is not None
    return Dot(
        name=tried.candidate.name,
        cost=value,
        accuracy=tried.mean,
        spread=tried.error,
        group=tried.candidate.axis,
    )


def _rivals_of(story: Story, kept: Tried) -> list[Tried]:
    """The candidates among which ``kept`` was chosen: those of its step, the contraction's included."""
    return [t for group in story.steps for t in group if t.candidate.step == kept.candidate.step]


def _is_x2d(tried: Tried) -> bool:
    """Whether it is the network the paper begins with, and not another start."""
    from saccade.expansion.types import Factors

    return tried.candidate.factors == Factors()


# ---------------------------------------------------------------------------------------------------- words


def _data_name(story: Story) -> str:
    return Path(str(story.settings.get("base", {}).get("data", ""))).stem or "replayed scores"


def _figure_name(story: Story) -> str:
    return accuracy_name(story.settings.get("base", {}).get("task", ""))


def _has(tried: Tried, cost: str) -> bool:
    return cost_of(tried.candidate.complexity, cost) is not None


def _measured(story: Story) -> str:
    """How the latencies were taken; empty: there are none."""
    if not any(_has(tried, "latency_ms") for step in story.steps for tried in step):
        return ""
    if story.timed:
        return "ms is the latency, timed in turns at the end of the search; - where a network was left out."
    return "ms is the latency as it was measured before each step: steps may differ by the machine's load."


def _headline(story: Story) -> list[tuple[str, str, str]]:
    final = story.final or (story.way[-1] if story.way else None)
    if final is None or final.mean is None:
        return []
    complexity = final.candidate.complexity
    seeds = f"mean of {final.seeds} seeds" if final.seeds > 1 else "one seed"
    state = "the network found" if story.final else "so far: the search has not ended"
    cards = [
        (
            f"{100 * final.mean:.1f} %",
            _figure_name(story),
            f"{state}; {f'± {100 * final.error:.1f} (one standard error), ' if final.error else ''}{seeds}",
        ),
        (plain_number(complexity.gmacs), "GMACs", "per clip, counted"),
        (
            f"{complexity.params / 1e6:.3g} M",
            "parameters",
            f"{plain_number(complexity.memory_mb)} MB to run one clip",
        ),
    ]
    if complexity.latency_ms is not None:
        where = [story.settings.get("device", ""), story.settings.get("runtime", "")]
        how = "measured"
        if story.timed:
            where, how = [story.timed.device, story.timed.runtime], "timed in turns with the others"
        told = f"one clip, {how}, {', '.join(where)}"
        cards.append((f"{plain_number(complexity.latency_ms)} ms", "latency", told))
    spent = format_seconds(story.seconds)
    num = len({(outcome.candidate.name, outcome.seed) for outcome in story.outcomes})
    cards.append((spent, "of training", f"{_trainings(num)}, one after another"))
    return cards


def _facts(story: Story) -> list[tuple[str, str]]:
    settings = story.settings
    final = story.final or (story.way[-1] if story.way else None)
    targets = ", ".join(
        f"at most {t['value'] / (1e6 if t['kind'] == 'params' else 1):g} {_UNITS[t['kind']]}"
        for t in settings.get("targets", ())
    )
    facts = [
        ("network", str(final.candidate.factors) if final else ""),
        ("path", " → ".join(path_of(story))),
        ("target", targets),
        ("each candidate", options_text(settings)),
        ("kept", f"by {settings.get('criterion', 'accuracy')}"),
        ("rate", f"{settings.get('rate', 2):g} times the {_UNITS[settings.get('cost', 'gmacs')]} a step"),
        ("data", str(settings.get("base", {}).get("data", ""))),
    ]
    return [(name, value) for name, value in facts if value]


def _notes(story: Story) -> list[str]:
    """What the search itself had to say, from its summary if it has ended, else of each choice."""
    path = story.folder / "search.json"
    if path.is_file() and story.result:
        noted = json.loads(path.read_text(encoding="utf-8")).get("notes")
        if noted:
            return [str(note) for note in noted]
    return list(story.notes)


_FATES = {
    "kept": "kept",
    "left": "over the target, taken back",
    "rejected": "rejected",
    "dropped": "dropped after {share:.0f} % of the training",
    "failed": "failed: {reason}",
    "open": "not decided",
}


def _step_rows(step: Sequence[Tried]) -> list[Row]:
    """The candidates of a step for the table, the best first."""
    order = sorted(step, key=lambda t: (t.fate not in ("kept", "left"), -t.share, -(t.mean or 0)))
    return [
        {
            "step": tried.candidate.step,
            "axis": tried.candidate.axis + (" (contracted)" if tried.candidate.contracted else ""),
            "colour": AXIS_STYLES.get(tried.candidate.axis, ("", ""))[0],
            **asdict(tried.candidate.factors),
            "accuracy": _accuracy(tried),
            "gmacs": f"{tried.candidate.complexity.gmacs:.3g}",
            "params": f"{tried.candidate.complexity.params / 1e6:.3g}",
            "latency": _number(tried.candidate.complexity.latency_ms),
            "seconds": format_seconds(tried.seconds),
            "fate": _FATES[tried.fate].format(share=100 * tried.share, reason=tried.reason)
            + (", within noise of the chosen" if tried.in_noise else ""),
            "kept": tried.fate == "kept",
        }
        for tried in order
    ]


def _trainings(num: int) -> str:
    return f"{num} training" + ("s" if num != 1 else "")


def _accuracy(tried: Tried | None) -> str:
    if tried is None or tried.mean is None:
        return "-"
    return f"{100 * tried.mean:.1f}" + (f" ± {100 * tried.error:.1f}" if tried.error else "")


def _number(value: float | None) -> str:
    return "-" if value is None else plain_number(value)


def _savings(story: Story) -> list[str]:
    """What each shortcut of this search saved, as far as one search can tell."""
    told = []
    halved = story.savings
    if halved.dropped:
        told.append(
            f"Successive halving ended {_trainings(halved.dropped)} early: "
            f"{format_seconds(halved.seconds)} instead of about {format_seconds(halved.seconds_without)}, "
            f"{100 * halved.share:.1f} % less (the rest of each is estimated from its own speed)."
        )
    shares = multigrid_shares(story)
    if shares:
        told.append(
            f"Multigrid: {100 * fmean(shares):.0f} % of the frames times pixels of the same "
            f"trainings without it (counted, mean of {len(shares)})."
        )
    starts = [_warm_start(Path(o.run_dir)) for o in story.outcomes if o.status == "done" and o.rung == 0]
    warm = [start for start in starts if start]
    if warm:
        exact = sum(bool(start["exact"]) for start in warm)
        told.append(
            f"{_trainings(len(warm))} began with the parent's weights, {exact} of them with exactly its "
            "function. What that saved, only a search without it can tell."
        )
    return told


def _warm_start(run: Path) -> Row | None:
    try:
        report: Row = json.loads((run / "warm_start.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report


def _rivals(story: Story, others: Sequence[Story]) -> list[Row]:
    if not others:
        return []
    rows = [_rival_row(story, "", "")]
    for rival in compare_stories(story, others):
        steps = f"{rival.same} step{'s' * (rival.same > 1)}"
        if rival.same < rival.shared:
            choice = f"the same {steps}, then another" if rival.same else "another path"
        else:
            choice = "the same path" if rival.whole else f"the same in the {steps} that both made"
        saved = f"{100 * rival.saved:.0f} %" if rival.saved >= 0 else f"none, {-100 * rival.saved:.0f} % more"
        rows.append(_rival_row(rival.story, saved, choice))
    return rows


def _rival_row(story: Story, saved: str, choice: str) -> Row:
    final = story.final or (story.way[-1] if story.way else None)
    return {
        "name": story.folder.resolve().name,
        "options": options_text(story.settings),
        "path": " → ".join(path_of(story)) or "-",
        "seconds": format_seconds(story.seconds),
        "saved": saved,
        "choice": choice,
        "accuracy": _accuracy(final),
        "gmacs": f"{final.candidate.complexity.gmacs:.3g}" if final else "-",
    }
