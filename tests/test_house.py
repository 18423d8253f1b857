"""Rules for the source tree."""

from __future__ import annotations

import ast
import csv
import inspect
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import saccade

SOURCE = Path(saccade.__file__).parent
ROOT = Path(__file__).parent.parent
FILES = sorted(SOURCE.rglob("*.py"))

# A package may import itself and packages with a lower level.
LEVELS = {
    "_version": 0,
    "errors": 0,
    "plugins": 0,
    "files": 0,
    "clip": 0,
    "runs": 0,
    "progress": 0,
    "ops": 1,
    "video": 1,
    "sampling": 2,
    "data": 3,
    "transforms": 4,
    "layers": 4,
    "models": 5,
    "tasks": 6,
    "evaluation": 7,
    "visualize": 8,
    "inference": 8,
    "training": 9,
    "recipes": 10,
    "expansion": 10,
    "fit": 11,
    "cli": 12,
}


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [node.module] if node.module != "saccade" else [f"saccade.{name.name}" for name in node.names]
            )
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("saccade.")}
    return found


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent != SOURCE], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_imports_go_in_one_direction(path: Path):
    home = path.relative_to(SOURCE).parts[0]
    upward = {name for name in imported_packages(path) if name != home and LEVELS[name] >= LEVELS[home]}
    assert not upward, f"{home} may not import {sorted(upward)}"


@pytest.mark.parametrize("package", ["expansion", "recipes"])
def test_modules_have_no_import_cycles(package: str):
    """Imports inside functions count too."""
    names = {path.stem for path in (SOURCE / package).glob("*.py")} - {"__init__"}
    imports = {
        name: {
            node.module.rpartition(".")[2]
            for node in ast.walk(ast.parse((SOURCE / package / f"{name}.py").read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"saccade.{package}.")
        }
        for name in names
    }
    assert tuple(TopologicalSorter(imports).static_order())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_file_is_too_long(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent != SOURCE / "cli"],
    ids=lambda p: str(p.relative_to(SOURCE)),
)
def test_only_the_command_line_prints(path: Path):
    """The library logs and calls its caller's ``progress``; the application chooses what is shown."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [getattr(node, "module", None) or "", *(name.name for name in node.names)]
            assert not any(module.split(".")[0] == "rich" for module in modules), f"line {node.lineno}"


PUBLIC = {
    "list_models": ["pattern"],
    "create_model": ["name", "num_classes", "overrides"],
    "model_info": ["name"],
    "register_model": ["build"],
    "load_model": ["path"],
    "load_weights": ["model", "path_or_state_dict", "strict"],
    "open_video": ["source", "backend"],
    "load_dataset": ["path", "split"],
    "evaluate": ["model", "dataset", "clip", "views"],
    "register_dataset": ["name", "recognises"],
    "get_recipe": ["name"],
    "register_recipe": ["function"],
    "train": ["config", "model", "train_set", "val_set", "transform"],
}

ERRORS = {
    "SaccadeError",
    "UsageError",
    "ConfigError",
    "DataError",
    "VideoError",
    "WeightsError",
    "TrainingError",
}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_are_public_and_documented(name: str):
    error = getattr(saccade, name)
    assert issubclass(error, saccade.SaccadeError)
    assert error.__doc__
    assert name in saccade.errors.__dict__


@pytest.mark.parametrize("name", PUBLIC)
def test_public_functions_keep_their_arguments(name: str):
    assert list(inspect.signature(getattr(saccade, name)).parameters)[: len(PUBLIC[name])] == PUBLIC[name]


def test_public_names_are_frozen():
    classes = {"Callback", "ClipSpec", "Detector", "Localizer", "Predictor", "Run", "TrainConfig"}
    assert {*PUBLIC, *ERRORS, *classes, "__version__"} == set(saccade.__all__)
    assert set(dir(saccade)) == set(saccade.__all__)
    assert saccade.VideoError("a.mp4", "is empty").path == "a.mp4"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = saccade.nonsense


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "results").glob("*.csv")), ids=lambda p: p.name
)
def test_recorded_results_have_their_context(path: Path):
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert rows
    for row in rows:
        assert None not in row, "a row with more cells than the header"
        for column in ("date", "commit", "machine", "threads", "python", "torch"):
            assert row[column], f"{column} is empty"
        assert all(value is not None for value in row.values()), "a row with fewer cells than the header"


def test_no_two_test_files_share_a_name():
    """pytest imports them by their names alone."""
    names = [path.name for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    assert sorted(set(names)) == sorted(names)


def test_the_readme_names_every_page_folder_and_extra():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.search(r"^docs/ +((?:.+\n)(?: {10,}.+\n)*)", readme, re.MULTILINE)
    assert listed is not None
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {name.strip() for name in listed[1].split(",")} == pages
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages == set(re.findall(r"^  (\w+)/ ", readme, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"dev", "bench"}
    assert all(f"`{name}`" in readme[readme.index("Extras:") :].partition("\n\n")[0] for name in extras)
