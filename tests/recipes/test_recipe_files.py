"""Recipes in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saccade.cli import main
from saccade.errors import ConfigError, UsageError
from saccade.recipes import get_recipe


def test_a_json_file_holds_a_config_or_has_it_under_config(tmp_path: Path):
    config = get_recipe("x3d_motion").replace(epochs=3)
    path = tmp_path / "mine.json"
    for values in (config.to_dict(), {"config": config.to_dict(), "versions": {}}):
        path.write_text(json.dumps(values))
        assert get_recipe(str(path)) == config


def test_a_python_file_has_a_function_that_returns_the_config(tmp_path: Path):
    path = tmp_path / "mine.py"
    source = "from saccade.recipes import x3d_motion\n\ndef helper(x):\n    return x\n\n"
    path.write_text(f"{source}def mine():\n    return x3d_motion().replace(epochs=2)\n")
    assert get_recipe(str(path)).epochs == 2
    path.write_text(f"{source}def other():\n    return x3d_motion().replace(epochs=4)\n")
    assert get_recipe(str(path)).epochs == 4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "a.json: not readable as a recipe"),
        ("a.json", "[1]", "a.json: not readable as a recipe"),
        ("a.json", '{"recipe": "x"}', "a.json: clip: missing"),
        ("a.py", "x = 1", "has no function without arguments; name the recipe's function a"),
        ("a.py", "def b():\n    pass\n\ndef c():\n    pass\n", "has b, c; name the recipe's function a"),
        ("a.py", "def a():\n    return 1\n", r"a\(\) returned int, not a TrainConfig"),
        ("a.py", "1 / 0", "running it failed: ZeroDivisionError"),
    ],
)
def test_a_file_without_a_recipe_is_one_error(tmp_path: Path, name: str, text: str, message: str):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        get_recipe(str(path))


def test_an_unknown_field_is_named_with_its_file(tmp_path: Path):
    values = get_recipe("x3d_motion").to_dict()
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**values, "colour": 1}))
    with pytest.raises(ConfigError, match=r"a\.json: colour: not a field"):
        get_recipe(str(path))
    with pytest.raises(UsageError, match=r"'b\.json': no such file"):
        get_recipe("b.json")


def test_train_takes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(get_recipe("x3d_motion").to_dict()))
    assert main(["train", str(path), "--epochs", "5", "--num-clips", "64", "--dry-run"]) == 0
    assert "20 steps of 16 clips x 8 frames x 64 pixels" in capsys.readouterr().out
