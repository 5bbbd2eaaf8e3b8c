"""Nested states: one walk, and two states walked at once."""

import collections
import doctest

import pytest
import torch

from descend import states
from descend.states import ABSENT, beside, joined, leaves, mapped, walk


def test_the_examples_run():
    result = doctest.testmod(states)
    assert result.failed == 0
    assert result.attempted


def test_every_kind_of_collection_is_walked():
    state = {"a": [1, (2, {3})], 4: collections.OrderedDict(b=frozenset([5])), "": {}}
    assert {joined(place): leaf for place, leaf in leaves(state)} == {
        "a.0": 1, "a.1.0": 2, "a.1.1.0": 3, "4.b.0": 5
    }  # fmt: skip
    assert [place for place, _ in walk(state)][:3] == [(), ("a",), ("a", 0)]


@pytest.mark.parametrize("leaf", [torch.ones(2), "text", b"bytes", None, torch.nn.Linear])
def test_a_leaf_holds_nothing(leaf):
    assert [*leaves(leaf)] == [*walk(leaf)] == [((), leaf)]


def test_a_state_that_is_mapped_is_another():
    state = {"a": [1, 2], "b": (3,)}
    assert mapped(state, str) == {"a": ["1", "2"], "b": ["3"]}
    assert state == {"a": [1, 2], "b": (3,)}


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ({"x": 1, "y": 2}, {"y": 3, "z": 4}, [("x", 1, ABSENT), ("y", 2, 3), ("z", ABSENT, 4)]),
        ([1, 2], [1], [("0", 1, 1), ("1", 2, ABSENT)]),
        ({"x": [1]}, {"x": (1,)}, [("x", [1], (1,))]),
        ({"x": {"y": 1}}, collections.OrderedDict(x={"y": 2}), [("x.y", 1, 2)]),
        ({"x": {}}, {"x": None}, [("x", {}, None)]),
        ({}, {}, []),
    ],
)
def test_two_states_are_walked_at_once(a, b, found):
    assert [(joined(place), one, other) for place, one, other in beside(a, b)] == found


def test_what_has_a_state_is_taken_for_it():
    model = torch.nn.Linear(1, 1)
    pairs = [*beside({"m": model}, {"m": model.state_dict()})]
    assert [joined(place) for place, _, _ in pairs] == ["m.weight", "m.bias"]
    assert all(torch.equal(one, other) for _, one, other in pairs)
