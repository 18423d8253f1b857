from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from saccade.errors import UsageError
from saccade.plugins import Registry, import_file


def install(folder: Path, name: str, source: str, group: str, points: dict[str, str]) -> None:
    """A package as pip would leave it: a module and its metadata."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point} = {value}" for point, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")


def test_names_are_found_listed_and_defended() -> None:
    registry = Registry[int]("thing", group="saccade.test.nothing")
    registry.add("one", 1, owner="a")
    registry.add("two", 2, owner="a")
    registry.add("two", 22, owner="a")
    assert list(registry) == ["one", "two"]
    assert registry["two"] == 22
    assert "one" in registry
    assert "three" not in registry
    with pytest.raises(UsageError, match="'two'"):
        registry.add("two", 3, owner="b")
    with pytest.raises(UsageError, match="two"):
        registry["twoo"]
    with pytest.raises(UsageError, match="one, two"):
        registry["zzz"]


def test_entry_points_are_adopted_and_a_broken_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    group = "saccade.test.things"
    install(tmp_path, "plug_good", "value = 7\n", group, {"seven": "plug_good:value"})
    install(tmp_path, "plug_bad", "raise RuntimeError('no such luck')\n", group, {"bad": "plug_bad:value"})
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry[int]("thing", group=group, adopt=lambda name, found: registry.add(name, found))
    with caplog.at_level(logging.WARNING):
        assert list(registry) == ["seven"]
    assert "plug_bad" in caplog.text
    assert registry["seven"] == 7
    with pytest.raises(UsageError, match="no such luck"):
        registry["bad"]


def test_a_file_is_imported_under_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_own_things.py").write_text("value = 3\n")
    assert import_file(tmp_path / "my_own_things.py").value == 3
    with pytest.raises(UsageError, match=r"absent\.py"):
        import_file(tmp_path / "absent.py")
    (tmp_path / "json.py").write_text("")
    with pytest.raises(UsageError, match="json"):
        import_file(tmp_path / "json.py")


def test_an_entry_point_does_not_replace_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    group = "saccade.test.taken"
    install(tmp_path, "plug_taken", "value = 7\n", group, {"one": "plug_taken:value"})
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry[int]("thing", group=group, adopt=lambda name, found: registry.add(name, found))
    registry.add("one", 1, owner="here")
    assert list(registry) == ["one"]
    assert registry["one"] == 1
    assert "plug_taken" in caplog.text


def test_a_file_that_fails_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "broken_things.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(UsageError, match="no_such_module_at_all"):
        import_file(tmp_path / "broken_things.py")
