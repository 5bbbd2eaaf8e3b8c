"""What docs/checkpoints.md says: its code runs, its commands exist."""

import re
from pathlib import Path
from typing import Any

from descend.cli import COMMANDS

DOCUMENT = Path(__file__).parents[1] / "docs" / "checkpoints.md"


def test_the_code_of_the_guide_runs_twice_and_the_second_time_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 4
    for _ in range(2):
        ran = [dict[str, Any]() for _ in blocks]
        for block, names in zip(blocks, ran, strict=True):
            exec(block, names)
        assert ran[0]["run"].is_over
        assert ran[1]["run"].is_over
        assert str(ran[2]["report"]).startswith(
            "2 loaded\nmissed: 2.weight (shape (1, 16) in the checkpoint, (3, 16) in the model), "
        )
    lines = (tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 5 * 4
    lines = (tmp_path / "runs" / "nested" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2


ELSEWHERE = {"bench", "compare", "find-lr", "new", "plot", "report", "tune", "watch"}
"""The commands that have nothing to do with checkpoints."""


def test_the_commands_of_the_guide_are_there():
    named = set(re.findall(r"^\| `descend ([\w-]+)", DOCUMENT.read_text(), re.MULTILINE))
    assert named == {*COMMANDS} - ELSEWHERE
