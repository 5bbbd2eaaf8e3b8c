"""Two states beside each other: every bit that differs is told, and by how much."""

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoint.bits import DTYPES, assert_same, from_bytes, random_tensor, raw, states
from descend.checkpoint import diff, digest, load, save

INF, NAN = math.inf, math.nan


def one(a, b):
    """The only difference of two values."""
    (found,) = diff({"x": a}, {"x": b})
    assert found.name == "x"
    (backwards,) = diff({"x": b}, {"x": a})
    assert backwards.count == found.count
    assert (backwards.largest, backwards.relative) == pytest.approx(
        (found.largest, found.relative), nan_ok=True
    ) or found.largest is None
    return found


@given(states())
def test_a_state_does_not_differ_from_itself(state):
    assert diff(state, state) == []


@given(states())
def test_a_state_does_not_differ_from_what_is_loaded_of_it(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("any") / "c"
    state.pop("__metadata__", None)
    save(path, state)
    assert diff(state, load(path)) == []


@pytest.mark.parametrize("b", [np.zeros((2, 2), "f4"), np.zeros(2, "f8"), np.zeros(4, "i4")])
def test_arrays_differ_by_shape_and_dtype(b):
    assert diff({"x": np.zeros(4, "f4")}, {"x": b})


@given(states(), states())
def test_two_states_do_not_differ_only_if_they_are_equal(a, b):
    if diff(a, b) == []:
        assert_same(a, b)
    else:
        assert digest(a) != digest(b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_bit_in_a_tensor_of_any_dtype(dtype):
    tensor = random_tensor(dtype, (3, 4))
    content = bytearray(raw(tensor))
    content[-1] ^= 1
    found = one(tensor, from_bytes(bytes(content), dtype, (3, 4)))
    assert (found.count, found.elements) == (1, 12)
    assert found.what.startswith("1 of 12 elements, by up to")


def test_it_says_how_far_elements_are_apart():
    found = one(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1.0, 2.5, 4.0, 7.0]))
    assert (found.count, found.elements) == (2, 4)
    assert found.largest == 1.0
    assert found.relative == 0.2
    assert found.what == "2 of 4 elements, by up to 1 (0.2 relative)"


NUMBERS = {
    "zeros": ([0.0], [-0.0], 0.0, 0.0),
    "infinities": ([INF, 1.0], [INF, 2.0], 1.0, 0.5),
    "negative zeros elsewhere": ([0.0, 1.0], [-0.0, 3.0], 2.0, 2 / 3),
    "a NaN": ([1.0], [NAN], NAN, NAN),
    "signs": ([3.0], [-3.0], 6.0, 2.0),
    "zero and one": ([0.0], [1.0], 1.0, 1.0),
    "the largest": ([3e38], [-3e38], 6e38, 2.0),
}


@pytest.mark.parametrize(("a", "b", "largest", "relative"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_every_kind(a, b, largest, relative):
    found = one(torch.tensor(a), torch.tensor(b))
    assert (found.largest, found.relative) == pytest.approx((largest, relative), nan_ok=True)


def test_an_infinity_is_infinitely_far():
    assert one(torch.tensor([INF]), torch.tensor([1.0])).largest == INF
    assert one(torch.tensor([INF]), torch.tensor([-INF])).largest == INF
    assert one(torch.tensor([1e308]).double(), torch.tensor([-1e308]).double()).largest == INF


def test_two_nans_of_other_bits_differ():
    a = from_bytes(struct.pack("<2I", 0x7FC00000, 0x3F800000), torch.float32, (2,))
    b = from_bytes(struct.pack("<2I", 0x7FC00001, 0x3F800000), torch.float32, (2,))
    found = one(a, b)
    assert found.count == 1
    assert math.isnan(found.largest)


def test_a_nan_in_both_does_not_hide_how_far_others_are_apart():
    found = one(torch.tensor([NAN, 1.0]), torch.tensor([NAN, 3.0]))
    assert (found.count, found.largest) == (1, 2.0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64])
def test_large_whole_numbers(dtype):
    a, b = torch.tensor([2**62, 5], dtype=dtype), torch.tensor([2**62 + 1, 5], dtype=dtype)
    assert one(a, b).largest == 1.0


def test_whole_numbers_at_the_ends_of_their_ranges():
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        ends = torch.iinfo(dtype)
        found = one(torch.tensor([ends.min], dtype=dtype), torch.tensor([ends.max], dtype=dtype))
        assert found.largest == float(ends.max - ends.min)
    for dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        high = torch.tensor([torch.iinfo(dtype).max], dtype=dtype)
        found = one(torch.tensor([0], dtype=dtype), high)
        assert (found.largest, found.relative) == (float(torch.iinfo(dtype).max), 1.0)


def test_the_smallest_numbers_are_relative_to_themselves():
    tiny = torch.tensor([5e-324], dtype=torch.float64)
    found = one(tiny, torch.zeros(1, dtype=torch.float64))
    assert (found.largest, found.relative) == (5e-324, 1.0)


def test_booleans_and_complex_numbers():
    found = one(torch.tensor([True, False]), torch.tensor([False, False]))
    assert (found.count, found.largest, found.relative) == (1, 1.0, 1.0)
    found = one(torch.tensor([3 + 4j]), torch.tensor([0j]))
    assert (found.largest, found.relative) == (5.0, 1.0)
    assert diff({"x": torch.tensor([1j]).conj()}, {"x": torch.tensor([-1j])}) != []  # the real -0.0
    assert diff({"x": torch.tensor([1 + 1j]).conj()}, {"x": torch.tensor([1 - 1j])}) == []


def test_layout_and_gradients_do_not_count():
    x = torch.arange(6.0).reshape(2, 3)
    for other in (x.t().contiguous().t(), x.clone().requires_grad_(), torch.nn.Parameter(x)):
        assert diff({"x": x}, {"x": other}) == []
    found = one(x.t(), x.t() + torch.tensor([[0, 0], [0, 1], [0, 0]]))
    assert (found.count, found.largest) == (1, 1.0)


def test_scalars_empty_tensors_shapes_and_dtypes():
    found = one(torch.tensor(1.0), torch.tensor(2.0))
    assert (found.count, found.elements) == (1, 1)
    assert diff({"x": torch.empty(0)}, {"x": torch.empty(0)}) == []
    assert one(torch.empty(0), torch.empty(0, 3)).what == (
        "float32 of shape (0,) and float32 of shape (0, 3)"
    )
    assert one(torch.ones(2), torch.ones(2, 1)).count is None
    found = one(torch.zeros(2), torch.zeros(2, dtype=torch.int32))
    assert found.what == "float32 of shape (2,) and int32 of shape (2,)"
    assert one(torch.zeros(1), 0.0).what == "a Tensor and a float"


VALUES = [
    (1, 2, "1 and 2"), (0.0, -0.0, "0.0 and -0.0"), (1, 1.0, "a int and a float"),
    (True, 1, "a bool and a int"), ("a", "b", "'a' and 'b'"), (b"a", b"b", "b'a' and b'b'"),
    (None, 0, "a NoneType and a int"), ([1], (1,), "a list and a tuple"),
    ({1}, {2}, "{1} and {2}"), ({}, [], "a dict and a list"),
    (torch.float32, torch.float64, "torch.float32 and torch.float64"), (1j, -1j, "1j and (-0-1j)"),
    (NAN, 1.0, "nan and 1.0"), (INF, -INF, "inf and -inf"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "what"), VALUES)
def test_values_that_are_no_tensors(a, b, what):
    found = one(a, b)
    assert found.what == what
    assert (found.count, found.largest) == (None, None)


def test_lists_of_other_lengths():
    for a, b in (([1, 5], [1]), ((1, 5), (1,))):
        (found,) = diff({"x": a}, {"x": b})
        assert (found.name, found.what) == ("x.1", "only in the first")


def test_numpy_values_are_compared_as_tensors_are():
    found = one(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    assert (found.count, found.elements, found.largest) == (1, 2, 1.0)
    assert one(np.float32(1), np.float32(2)).largest == 1.0
    assert one(np.array([1]), np.array([[1]])).count is None
    assert one(np.zeros(1), torch.zeros(1)).count is None


def test_a_scalar_of_numpy_is_no_array():
    assert diff({"x": np.float32(1)}, {"x": np.array(1, "f4")}) != []


def test_arrays_of_words_differ_by_shape():
    """Which no checkpoint holds, but files of torch do."""
    assert diff({"x": np.array(["a", "b"])}, {"x": np.array([["a"], ["b"]])}) != []


def test_equal_values_that_are_no_tensors():
    for value in (NAN, INF, None, "x", b"x", {1, "a"}, frozenset(), torch.device("cpu"), [NAN]):
        assert diff({"x": value}, {"x": value}) == []
    assert diff({"x": {1, "a", "b"}}, {"x": {"b", "a", 1}}) == []


def test_a_long_value_is_cut_short():
    assert len(one("a" * 1000, "b" * 1000).what) < 130


def test_names_order_and_what_is_missing():
    a = {"m": {"w": torch.ones(1), "gone": 1}, "l": [1, {"x": 2}], 3: 0, "same": 1}
    b = {"same": 1, "m": {"new": 1, "w": torch.zeros(1)}, "l": [1, {"x": 3}], 3: 1}
    assert [(found.name, found.what.split(",")[0]) for found in diff(a, b)] == [
        ("m.w", "1 of 1 elements"), ("m.gone", "only in the first"),
        ("m.new", "only in the second"), ("l.1.x", "2 and 3"), ("3", "0 and 1"),
    ]  # fmt: skip


def test_keys_of_other_types_are_others():
    assert [found.what for found in diff({1: 0}, {"1": 0})] == [
        "only in the first", "only in the second"
    ]  # fmt: skip


@given(st.floats(width=32), st.floats(width=32))
def test_any_two_numbers(a, b):
    found = diff({"x": torch.tensor([a])}, {"x": torch.tensor([b])})
    x, y = torch.tensor([a]), torch.tensor([b])
    assert (found == []) == (raw(x) == raw(y))
    if found and not math.isnan(a) and not math.isnan(b):
        assert found[0].largest == (abs(a - b) if a != b else 0.0)
