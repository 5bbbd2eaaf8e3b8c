"""However a batch is cut into chunks, every element is stepped once."""

import pytest
import torch

import descend
from descend.engine import cpu, forced_backend
from optimizers.cases import parameters, threads, train


@pytest.mark.parametrize(
    ("elements", "length"),
    [
        (0, 32_768),
        (1, 32_768),
        (2_500_000, 32_768),
        (12_600_000, 131_072),
        (42_000_000, 262_144),
        (10**9, 262_144),
    ],
)
def test_length_follows_the_number_of_elements(elements, length):
    assert cpu._chunk(elements) == length


@pytest.mark.parametrize("limits", [(1, 1), (8, 8), (8, 64), (1024, 1024)])
def test_any_length_gives_the_same_bits(monkeypatch, limits):
    shapes = [(3, 5), (1,), (0, 4), (1000,), (8,), (9,)]
    expected, cut = parameters(shapes, torch.float32), parameters(shapes, torch.float32)
    with forced_backend("cpu"):
        train(descend.AdamW(expected), expected, 3)
        monkeypatch.setattr(cpu, "CHUNKS", limits)
        monkeypatch.setattr(cpu, "SERIAL", 0)
        with threads(3):
            optimizer = descend.AdamW(cut)
            train(optimizer, cut, 3)
    for mine, theirs in zip(cut, expected, strict=True):
        assert torch.equal(mine, theirs)
        assert optimizer.state[mine]["step"].item() == 3
