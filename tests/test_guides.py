"""Every block of Python in the guides runs as it stands: alone, and in an empty folder."""

import re
import runpy
from pathlib import Path

import pytest

from descend.schedules.schedule import SHAPES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {
    f"{page.name}, line {text[: found.start()].count(chr(10)) + 2}": found[1]
    for page in PAGES
    for text in [page.read_text(encoding="utf-8")]
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
}


def test_the_blocks_are_found():
    assert len(BLOCKS) >= 23
    fences = sum(page.read_text(encoding="utf-8").count("```py") for page in PAGES)
    assert len(BLOCKS) == fences


@pytest.mark.parametrize("place", BLOCKS)
def test_a_block_runs_as_it_stands(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(SHAPES)
    (tmp_path / "block.py").write_text(BLOCKS[place], encoding="utf-8")
    try:
        runpy.run_path("block.py")
    finally:
        SHAPES.clear()
        SHAPES.update(before)
