"""What tests of optimizers that step whole tensors share."""

import pytest

from descend.optimizers import blocks


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut every tensor of more than eight elements into blocks."""
    monkeypatch.setitem(blocks.BLOCK, "cpu", 8)
