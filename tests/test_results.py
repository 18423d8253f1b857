"""RESULTS.md: every figure says where it comes from, and what the recipes refer to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from saccade.recipes import describe, list_recipes

TEXT = (Path(__file__).parent.parent / "RESULTS.md").read_text(encoding="utf-8")
ORIGIN = ("command", "commit", "machine", "date")


def tables() -> list[list[list[str]]]:
    """Cells of every table, the header first."""
    blocks = re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE)
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()]
        for block in blocks
    ]


RESULTS = [table for table in tables() if table[0][0] != "machine"]


@pytest.mark.parametrize("table", RESULTS, ids=[table[0][0] + "-" + table[2][0][:30] for table in RESULTS])
def test_every_row_says_where_it_comes_from(table):
    header, _, *rows = table
    assert set(ORIGIN) <= set(header)
    for row in rows:
        assert len(row) == len(header), row
        cells = dict(zip(header, row, strict=True))
        assert all(row), f"empty cells in {row}; write 'not recorded' or '–'"
        assert re.search(r"\b[0-9a-f]{7}\b|not recorded|not kept", cells["commit"]), row
        assert re.fullmatch(r"\d{4}-\d\d-\d\d|not recorded", cells["date"]), row


def test_rows_are_newest_first():
    for table in RESULTS:
        at = table[0].index("date")
        dates = [row[at] for row in table[2:] if row[at] != "not recorded"]
        assert dates == sorted(dates, reverse=True), table[0]


def test_machines_are_described():
    described = {row[0] for row in tables()[0][2:]}
    used = {row[table[0].index("machine")].split(",")[0] for table in RESULTS for row in table[2:]}
    assert used - {"not recorded"} <= described


@pytest.mark.parametrize("name", list_recipes())
def test_what_a_recipe_refers_to_is_there(name):
    if "RESULTS.md" in describe(name):
        assert f"`{name}`" in TEXT
