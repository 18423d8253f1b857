from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from saccade.visualize.charts import inline_svg, save_figure
from saccade.visualize.frontier import AXIS_STYLES, Dot, Step, expansion_chart, pareto_chart, plain_number

ORDER = ("start", "bottleneck", "fast", "spatial", "depth", "fast", "temporal", "spatial", "depth", "width")


def steps(flat: bool = False) -> list[Step]:
    result = []
    for number, axis in enumerate(ORDER):
        cost, accuracy = 0.02 * 2**number, 0.75 if flat else 0.8 - 0.4 / (number + 1)
        rejected = [
            Dot(name=name, cost=cost * (1 + 0.02 * place), accuracy=accuracy - 0.01 * place, group=name)
            for place, name in enumerate(AXIS_STYLES)
            if number and name not in (axis, "start")
        ]
        selected = Dot(name=axis, cost=cost, accuracy=accuracy, spread=0.004, group=axis)
        result.append(
            Step(selected=selected, label=axis if number else "X2D", rejected=rejected, in_noise=number == 3)
        )
    return result


def names(figure: Figure) -> list[Annotation]:
    return [
        text
        for axes in figure.axes
        for text in axes.texts
        if isinstance(text, Annotation) and text.get_text() != "target"
    ]


def overlaps(texts: list[Annotation]) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [(a, b) for i, (a, one) in enumerate(boxes) for b, other in boxes[:i] if one.overlaps(other)]


@pytest.mark.parametrize("flat", [False, True])
def test_the_path_is_labelled_with_the_expanded_axes(flat: bool) -> None:
    figure = expansion_chart(steps(flat), target=12.0, title="motion")
    texts = names(figure)
    assert [text.get_text() for text in texts] == [
        "X2D",
        *(f"{number} {axis}" + ("*" if number == 3 else "") for number, axis in enumerate(ORDER) if number),
    ]
    assert not overlaps(texts)
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "motion"
    path = axes.lines[0]
    np.testing.assert_allclose(path.get_xdata(), [0.02 * 2**number for number in range(10)])
    np.testing.assert_allclose(path.get_ydata()[0], 75 if flat else 40)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == [*list(AXIS_STYLES)[1:], "faint: rejected", "* within noise of another"]
    faint = [line for line in axes.lines if line.get_alpha() == 0.45 and line.get_linestyle() == "None"]
    assert len(faint) == 9 * 5


@pytest.mark.parametrize("target", [None, 0.5, 12.0])
def test_the_legend_is_next_to_the_axes_and_inside_the_figure(target: float | None) -> None:
    figure = expansion_chart(steps(), target=target)
    (axes,) = figure.axes
    box = axes.get_legend().get_window_extent()
    assert box.x0 >= axes.bbox.x1
    assert box.x1 <= figure.bbox.x1
    assert axes.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
    assert axes.bbox.width > 0.6 * figure.bbox.width


def test_labels_are_inside_the_axes_and_cover_no_dots() -> None:
    figure = expansion_chart(steps())
    (axes,) = figure.axes
    dots = axes.transData.transform([(step.selected.cost, 100 * step.selected.accuracy) for step in steps()])
    for text in names(figure):
        box = text.get_window_extent()
        assert not any(box.contains(*dot) for dot in dots), text.get_text()
        assert box.x0 > axes.bbox.x0 - 3
        assert box.x1 < figure.bbox.x1


def test_plain_number() -> None:
    assert [plain_number(value) for value in (0.02067, 35.84, 999.4, 12440.0)] == [
        "0.0207",
        "35.8",
        "999",
        "12,400",
    ]


def test_pareto_panels() -> None:
    dots = [
        Dot(name="small", cost=1.0, accuracy=0.5, group="X3D", spread=0.01),
        Dot(name="beaten", cost=3.0, accuracy=0.45, group="VoV3D", spread=0.01),
        Dot(name="large", cost=2.0, accuracy=0.6, group="X3D", spread=0.01),
    ]
    figure = pareto_chart([("gmacs", dots), ("seconds by hand", dots[:2])], figure_name="mAP")
    first, second = figure.axes
    assert first.get_xlabel() == "GMACs per clip, log scale"
    assert second.get_xlabel() == "seconds by hand, log scale"
    assert first.get_ylabel() == "mAP (%)"
    assert not overlaps(names(figure))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["X3D", "VoV3D"]
    staircase = next(line for line in first.lines if len(line.get_xdata()) == 4)
    np.testing.assert_allclose(staircase.get_ydata(), [50, 50, 60, 60])


def test_many_models_are_named_on_the_front_only() -> None:
    dots = [Dot(name=f"m{i}", cost=1.0 + i, accuracy=0.5 + 0.01 * (i % 5), group="a") for i in range(30)]
    figure = pareto_chart([("params", dots)])
    assert [text.get_text() for text in names(figure)] == ["m0", "m1", "m2", "m3", "m4"]
    assert not figure.legends


def test_one_network_alone_and_files(tmp_path: Path) -> None:
    figure = expansion_chart(steps()[:1])
    save_figure(figure, tmp_path / "path.png")
    save_figure(figure, tmp_path / "path.svg")
    assert (tmp_path / "path.png").stat().st_size > 5000
    assert 'aria-label="Path"' in inline_svg(figure, label="Path")
