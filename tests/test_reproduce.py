"""The table of published results, and measuring a checkpoint against it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from saccade.cli import main
from saccade.models import create_model, list_models, model_info, published_results, save_weights
from saccade.models.published import DATA_SETS, NOTES, PublishedResult
from saccade.sampling.temporal import RULES
from saccade.sampling.views import parse_views
from saccade.tasks.result import is_figure
from saccade.video import write_video

ROWS = published_results()
OURS = [row for row in ROWS if row.model]


def test_the_rows_are_complete_and_of_known_things() -> None:
    for row in ROWS:
        assert row.data in DATA_SETS, row
        assert 0 < row.value < 100, row
        assert is_figure(row.metric), row
        assert row.source, row
        assert not row.note or row.note in NOTES, row
        assert math.isnan(row.top5) or row.value < row.top5 < 100, row
    assert {row.note for row in ROWS} - {""} == set(NOTES)


@pytest.mark.parametrize("row", OURS, ids=lambda row: f"{row.model}-{row.data}-{row.views}-{row.value}")
def test_a_row_of_ours_can_be_measured(row: PublishedResult) -> None:
    assert row.model in list_models()
    assert row.clip.num_frames == row.frames
    assert not row.rule or row.rule in RULES
    if row.task not in ("localization", "detection"):
        views = parse_views(row.views)
        assert views.decode_size(row.clip.short_side, row.clip.crop) >= row.clip.crop


@pytest.mark.parametrize(
    ("model", "options"), sorted({(row.model, tuple(row.options.items())) for row in OURS if row.options})
)
def test_options_of_a_row_build_its_model(model: str, options: tuple[tuple[str, object], ...]) -> None:
    with torch.device("meta"):
        config = create_model(model, **dict(options)).config
    assert [(name, getattr(config, name)) for name, _ in options] == list(options)


@pytest.mark.parametrize(
    ("model", "data", "views", "source", "values"),
    [
        ("x3d_m", "k400", "10x3", "PySlowFast", [76.2]),
        ("x3d_m", "k400", "3x1", "X3D-Multigrid", [62.62, 71.48]),
        ("x3d_xl", "charades", "10x3", "paper", [43.4, 47.1]),
        ("vov3d_m", "ssv2", "6-view", "second", [63.6, 64.3, 65.8]),
        ("vov3d_m_v1", "ssv1", "6-view", "first", [48.1, 49.8, 52.6]),
        ("rubiksnet_large", "ssv2", "ssv2-2clip-3crop", "RubiksNet", [61.73]),
        ("vivit_base", "k400", "1x1", "VideoTransformer", [75.2]),
        ("x3d_xs", "k400", "1x1", "CoX3D", [59.37]),
    ],
)
def test_published_values(model: str, data: str, views: str, source: str, values: list[float]) -> None:
    found = [r.value for r in published_results(model, data) if r.views == views and source in r.source]
    assert found == values


def test_model_info_and_the_table_agree() -> None:
    for name in list_models():
        for views, value in model_info(name).top1:
            found = [row.value for row in published_results(name) if row.views.endswith(views)]
            assert any(abs(other - value) < 0.1 for other in found) or not found, (name, views, value)


@pytest.mark.slow
def test_counts_are_ours_unless_a_note_says_why_not() -> None:
    for row in OURS:
        params, gmacs = row.counts()
        if not math.isnan(row.gflops) and not row.note:
            digits = len(str(row.gflops).partition(".")[2])
            assert round(gmacs, digits) == pytest.approx(row.gflops, abs=1.01 * 10**-digits), row
        if not math.isnan(row.params):
            assert params == pytest.approx(row.params, rel=0.02), row


# ------------------------------------------------------------------------------------------------- reproduce


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of one video each and an X3D-XS with new weights for them."""
    root = tmp_path_factory.mktemp("reproduce")
    noise = torch.Generator().manual_seed(0)
    for name in ("a", "b", "c"):
        for split in ("train", "val"):
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            frames = torch.randint(0, 255, (60, 48, 64, 3), generator=noise, dtype=torch.uint8)
            write_video(folder / "clip.mp4", frames, fps=30, options={"preset": "ultrafast"})
    torch.manual_seed(0)
    save_weights(create_model("x3d_xs", 3), root / "weights.safetensors")
    (root / "names.txt").write_text("a\nb\nc\n")
    return root


def flags(miniature: Path, *more: str) -> list[str]:
    weights, data, names = (str(miniature / name) for name in ("weights.safetensors", "data", "names.txt"))
    return ["--weights", weights, "--data", data, "--num-classes", "3", "--labels", names, *more]


def test_a_checkpoint_is_measured_by_the_published_protocol(
    miniature: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    args = flags(miniature, "--on", "k400", "--source", "PySlowFast", "--workers", "0")
    assert main(["reproduce", "x3d_xs", *args, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["views"], row["published"]) for row in rows] == [("10x1", 68.7), ("10x3", 69.5)]
    weights, data = str(miniature / "weights.safetensors"), str(miniature / "data")
    clip = ["--crop", "182", "--short-side", "182", "--temporal-rule", "pyslowfast", "--workers", "0"]
    test = ["test", weights, "--data", data, "--views", "10x1,10x3", *clip, "--json", "--out", str(tmp_path)]
    assert main(test) == 0
    expected = json.loads(capsys.readouterr().out)["results"]
    for row, result in zip(rows, expected, strict=True):
        top1 = result["top1"]
        assert row["measured"] == pytest.approx(100 * top1)
        assert row["num_videos"] == 3
        error = 100 * math.sqrt(top1 * (1 - top1) / 3)
        assert (row["standard_error"] or 0) == pytest.approx(error)


def test_measured_stands_beside_published(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = flags(miniature, "--on", "k400", "--source", "CoX3D", "--workers", "0")
    assert main(["reproduce", "x3d_xs", *args]) == 0
    shown = capsys.readouterr().out
    assert "Kinetics-400: 3 videos" in shown
    assert "59.37" in shown
    assert " ± " in shown or "0.00" in shown


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["x2d"], "classifier"),
        (["x3d_xs", "--on", "ava"], "x3d_m"),
        (["x3d_xs", "--num-classes", "3", "--source", "nobody"], "nobody"),
        (["x3d_nothing"], "x3d_nothing"),
        (["x3d_m", "--num-classes", "3"], "--on"),
    ],
)
def test_what_cannot_be_reproduced_is_said(
    miniature: Path, args: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    save_weights(create_model(args[0] if args[0] in list_models() else "x2d", 3), tmp_path / "w.safetensors")
    files = ["--weights", str(tmp_path / "w.safetensors"), "--data", str(miniature / "data")]
    assert main(["reproduce", *args, *files]) in (1, 2)
    assert named in capsys.readouterr().err
