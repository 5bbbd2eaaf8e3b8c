"""The random generators: their states saved and put back, so that the same numbers follow."""

import random

import numpy as np
import pytest
import torch

from checkpoint.bits import assert_same
from descend.checkpoint import load, save
from descend.checkpoint.randomness import random_states, restore_random_states, seed_everything


@pytest.fixture(autouse=True)
def as_it_was():
    before = random_states()
    yield
    restore_random_states(before)


def draws():
    """Numbers of all three generators, and of all their ways to draw."""
    return {
        "python": [random.random(), random.gauss(0, 1), random.randrange(10**30),
                   random.sample(range(9), 4)],
        "numpy": [np.random.rand(3), np.random.randn(3), np.random.permutation(5)],
        "torch": [torch.rand(3), torch.randn(5), torch.randperm(5), torch.randn(40),
                  torch.empty(3).bernoulli_(0.5)],
    }  # fmt: skip


@pytest.mark.parametrize("before", [0, 1, 7])
def test_the_same_numbers_follow(tmp_path, before):
    seed_everything(3)
    for _ in range(before):  # gauss and randn keep a second number for the next call
        random.gauss(0, 1)
        np.random.randn()
        torch.randn(1)
    save(tmp_path / "c", {"random": random_states()})
    expected = draws()
    draws()
    restore_random_states(load(tmp_path / "c")["random"])
    assert_same(draws(), expected)


def test_states_are_copies():
    seed_everything(3)
    states = random_states()
    expected = draws()
    restore_random_states(states)
    draws()
    restore_random_states(states)
    assert_same(draws(), expected)


def test_taking_the_states_draws_nothing():
    seed_everything(3)
    expected = draws()
    seed_everything(3)
    random_states()
    assert_same(draws(), expected)


def test_a_seed_decides_all_numbers():
    seed_everything(3)
    expected = draws()
    seed_everything(3)
    assert_same(draws(), expected)
    seed_everything(4)
    other = draws()
    for name, numbers in expected.items():
        with pytest.raises(AssertionError):
            assert_same(other[name], numbers)


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_smallest_and_the_largest_seed(seed):
    seed_everything(seed)
    assert torch.initial_seed() == seed


def test_states_of_cuda_devices_that_are_not_here_are_left_out():
    states = random_states() | {"cuda": [torch.zeros(16, dtype=torch.uint8)] * 64}
    if torch.cuda.device_count() < 64 and not torch.cuda.is_available():
        restore_random_states(states)
    assert "cuda" not in random_states() or torch.cuda.is_initialized()


@pytest.mark.gpu
def test_cuda_draws_the_same_numbers(tmp_path):
    torch.zeros(1, device="cuda")
    save(tmp_path / "c", {"random": random_states()})
    expected = torch.rand(5, device="cuda").cpu()
    restore_random_states(load(tmp_path / "c")["random"])
    assert_same(torch.rand(5, device="cuda").cpu(), expected)
