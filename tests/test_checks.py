"""The declarations of what an argument may be: what they admit, say, read and give back."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from descend.checks import COUNT, FINITE, Choice, Pair, Range, Switch, plain_number
from descend.errors import DescendError, HyperparameterError, RunError

SHARE = Range(0, 1, closed=True)
WORDS = {
    Range(): "a finite number",
    Range(0): "a finite number of at least 0",
    Range(0, positive=True): "a finite number above 0",
    Range(0, 1): "a finite number of at least 0 and below 1",
    Range(0.6, 1, positive=True): "a finite number above 0.6 and below 1",
    Range(0, 1, positive=True, closed=True): "a finite number above 0 and at most 1",
    Range(high=0, closed=True): "a finite number at most 0",
    Range(high=0): "a finite number below 0",
    SHARE: "a finite number from 0 to 1",
    COUNT: "a whole number of at least 1",
    Range(0, 2**32 - 1, closed=True, whole=True): "a whole number from 0 to 4294967295",
    Range(0, 1, count=2, tensor=True): "2 finite numbers, each at least 0 and below 1",
    Range(0, infinite=True): "a number of at least 0, which may be infinite",
    Range(0, optional=True, tensor=True): "a finite number of at least 0, or a tensor of one such "
    "number, or None",
    Pair(Range(0), Range(1)): "a pair: a finite number of at least 0; then a finite number of at "
    "least 1",
    Switch(optional=True): "True, False or None",
    Choice((None, "cosine", "linear")): "None or 'cosine' or 'linear'",
}


@pytest.mark.parametrize("allowed", WORDS, ids=WORDS.get)
def test_a_declaration_in_words(allowed):
    assert str(allowed) == WORDS[allowed]


NUMBERS = [
    (3, 3), (0.5, 0.5), (np.int64(3), 3), (np.float32(0.5), 0.5), (np.array(0.5), 0.5),
    (np.array(3), 3), (torch.tensor(0.5), 0.5), (torch.tensor([3]), 3), (Fraction(1, 2), 0.5),
    (math.inf, math.inf),
]  # fmt: skip


@pytest.mark.parametrize(("value", "plain"), NUMBERS, ids=repr)
def test_a_number_of_any_kind_is_pythons_own(value, plain):
    found = plain_number(value)
    assert (type(found), found) == (type(plain), plain)
    if math.isfinite(plain):
        assert FINITE.check("x", value, RunError) == plain


@pytest.mark.parametrize(
    "value",
    [True, np.True_, torch.tensor(True), "1", None, 1j, [1], np.ones(1), torch.ones(2), 10**400],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_number_is_none(value):
    assert plain_number(value) is None
    assert not FINITE.admits(value)


@pytest.mark.parametrize(
    ("allowed", "text", "value"),
    [
        (COUNT, "12", 12), (COUNT, "1.5", "1.5"), (COUNT, "", ""), (SHARE, "0.5", 0.5),
        (SHARE, "much", "much"), (Range(0, 1, count=2), "0.9,0.95", (0.9, 0.95)),
        (Range(optional=True), "none", None), (Choice(("a", "b")), "b", "b"),
    ],
)  # fmt: skip
def test_the_text_of_an_option_is_read(allowed, text, value):
    assert allowed.read(text) == value
    assert allowed.admits(allowed.read(text)) is (value in (12, 0.5, (0.9, 0.95), None, "b"))


def test_a_refusal_names_the_place_the_value_what_is_allowed_and_what_to_do():
    def told(allowed, value, error: type[DescendError] = HyperparameterError):
        with pytest.raises(error) as caught:
            allowed.check("mine: x", value, error)
        return str(caught.value)

    assert told(COUNT, 0) == "mine: x must be a whole number of at least 1, got 0"
    assert told(COUNT, 1.0, RunError) == "mine: x must be a whole number of at least 1, got 1.0"
    assert told(Range(0, hint="pass maximize=True"), -1.0).endswith("got -1.0; pass maximize=True")
    assert told(SHARE, torch.ones(2)).endswith("from 0 to 1, got a tensor of shape (2,)")
    assert told(Choice(("cosine", "linear")), "cosin").endswith("did you mean 'cosine'?")


@pytest.mark.parametrize(
    ("allowed", "yes", "no"),
    [
        (Range(0, 1), [0, 0.999, -0.0], [1, -5e-324, math.nan, math.inf]),
        (Range(0, 1, positive=True, closed=True), [5e-324, 1], [0, 1.1]),
        (Range(infinite=True), [math.inf, -math.inf, 0], [math.nan, None]),
        (Range(0, 1, count=2), [(0, 0.5), [0.5, 0], torch.zeros(2), np.zeros(2)], [0.5, (0,)]),
        (Pair(Range(0, optional=True), Range(0)), [(None, 1), (0, 0)], [(0, None), (0,), 0]),
        (Switch(), [True, False], [1, 0, None]),
        (Choice((None, "a")), [None, "a"], ["A", 0, ["a"]]),
    ],
    ids=str,
)  # fmt: skip
def test_bounds(allowed, yes, no):
    assert all(map(allowed.admits, yes))
    assert not any(map(allowed.admits, no))
