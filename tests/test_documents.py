"""Pages: their links lead somewhere, the index has them all, examples in Python are Python."""

from __future__ import annotations

import ast
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def anchor(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(page)))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if fragment:
            headings = re.findall(r"^#+ +(.+)$", prose(target), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, link


def test_the_index_has_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        if page.stem != "index":
            assert f"({page.name})" in index, page.name
            assert re.search(rf"^{page.stem}$", index, re.MULTILINE), f"{page.stem} is in no toctree"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_in_python_are_python(page):
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^ *```python\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        ast.parse(textwrap.dedent(block))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_of_the_library_exist(page):
    text = page.read_text(encoding="utf-8")
    named = {name.rstrip(".") for name in re.findall(r"`(saccade\.[\w.]+)", text)}
    for block in re.findall(r"^ *```python\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(textwrap.dedent(block))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("saccade"):
                named |= {f"{node.module}.{alias.name}" for alias in node.names}
        named |= set(re.findall(r"\bsaccade(?:\.\w+)+", block))
    missing = sorted(name for name in named if not exists(name))
    assert not missing


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or can be reached from one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return bool(re.search(r"\.(safetensors|tasks|models|datasets|transforms|metrics|recipes)$", name))
    return True
