"""The small task as a fixture."""

import pytest

from search.small_tasks import RULES, SMALL, written


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The small task, in the current folder; with rules beside it."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "rules.py", RULES)
    written(tmp_path, "small.py", SMALL)
    return "small.py"
