"""What docs/checkpoints.md says: its code runs, its commands exist."""

import re
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from descend.cli import COMMANDS

DOCUMENT = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def test_the_code_of_the_guide_runs_twice_and_the_second_time_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 4
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    given = {
        "dataset": TensorDataset(x, x.sum(1, keepdim=True)),
        "validation_x": x[:10], "validation_y": x[:10, :1],
    }  # fmt: skip
    for _ in range(2):
        names = dict(given)
        for block in blocks:
            exec(block, names)
        assert names["run"].is_over
        assert str(names["report"]).startswith(
            "2 loaded\nmissed: 2.weight (shape (1, 16) in the checkpoint, (3, 16) in the model), "
        )
    lines = (tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 5 * 4


def test_the_commands_of_the_guide_are_there():
    named = set(re.findall(r"^\| `descend ([\w-]+)", DOCUMENT.read_text(), re.MULTILINE))
    assert named == {*COMMANDS} - {"plot"}
