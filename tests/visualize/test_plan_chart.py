from __future__ import annotations

from pathlib import Path

import pytest

from saccade.recipes import get_recipe
from saccade.training.multigrid import MultigridTimetable, make_plan
from saccade.training.multigrid.show import chart_data, plan_text
from saccade.visualize.charts import plan_chart, save_figure


def table() -> MultigridTimetable:
    return MultigridTimetable(make_plan(get_recipe("x3d_motion").replace(multigrid="both"), 800))


def test_plan_chart(tmp_path: Path):
    figure = plan_chart(**chart_data(table()))
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["batch size", "frames", "crop (pixels)", "learning rate"]
    assert [f"{tick:g}" for tick in figure.axes[1].get_yticks()] == ["2", "4", "8"]
    assert [f"{tick:g}" for tick in figure.axes[2].get_yticks()] == ["32", "45", "64"]
    save_figure(figure, tmp_path / "plan.png", dpi=60)
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_the_learning_rate_axis_is_logarithmic_if_needed():
    rates = chart_data(table())["rates"][1]
    axis = plan_chart(**chart_data(table())).axes[3]
    assert axis.get_yscale() == "log"
    assert axis.get_ylim()[0] == pytest.approx(max(rates) / 2e4)  # the cosine's last steps are next to 0
    assert axis.get_ylim()[1] > max(rates)
    flat = {**chart_data(table()), "rates": ([0, 1, 2], [0.1, 0.3, 0.2])}
    axis = plan_chart(**flat).axes[3]
    assert axis.get_yscale() == "linear"
    assert axis.get_ylim()[0] == 0


def test_no_batch_norm_column_for_models_without_it():
    plan = make_plan(get_recipe("timesformer_motion").replace(multigrid="both"), 800)
    text = plan_text(MultigridTimetable(plan))
    assert text.splitlines()[0].split()[-2:] == ["per", "device"]
    assert "BN" not in text
    assert not any("BN" in str(phase) or "none" in str(phase) for phase in plan.phases)


def test_the_table_has_a_line_for_each_phase():
    lines = plan_text(table()).splitlines()
    assert " ".join(lines[0].split()) == (
        "phase epochs steps clips x frames x pixels stride rate per device batch norm"
    )
    assert lines[1].split()[0] == "1"
    assert "256x2x32  128x2x45  128x2x45" in lines[1]
    assert "sub-BN, 16 splits" in lines[1]
    assert lines[13].split()[0] == "13"
    assert lines[-2].startswith("658 steps (without multigrid 2250)")
    assert lines[-1] == "validated 32 times, always with 8 frames x 64 pixels"
