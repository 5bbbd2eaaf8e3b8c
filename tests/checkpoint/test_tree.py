"""Nested states taken apart and put back: equal bit for bit, or refused by name."""

import collections
import enum
import json
import math
import random
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoint.bits import DTYPES, assert_same, random_tensor, states
from descend.checkpoint import digest
from descend.checkpoint.tree import flatten, unflatten
from descend.errors import CheckpointError
from descend.optimizers import CATALOGUE


def back(state):
    text, tensors = flatten(state)
    json.loads(text, parse_constant=pytest.fail)  # no NaN or Infinity, which are no JSON
    return unflatten(text, tensors)


@given(states())
def test_any_state_comes_back_bit_for_bit(state):
    again = back(state)
    assert_same(again, state)
    assert digest(again) == digest(state)


@given(st.floats(width=64))
def test_any_float64_comes_back_bit_for_bit(value):
    assert_same(back({"x": value}), {"x": value})


FLOATS = [0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 1.0,
          1e16, 1e22, math.inf, -math.inf, math.nan, math.pi, 1 / 3, 2.0**53 + 2]  # fmt: skip


@pytest.mark.parametrize("value", FLOATS)
def test_floats_of_every_kind(value):
    assert_same(
        back({"x": value, "z": complex(value, -value)}), {"x": value, "z": complex(value, -value)}
    )


@given(st.integers(-(2**70), 2**70))
def test_any_whole_number(value):
    assert_same(back({"x": value}), {"x": value})


@pytest.mark.parametrize("value", [2**63 - 1, 2**63, -(2**63), 2**64, 10**1000, -(10**1000)])
def test_whole_numbers_that_other_readers_of_json_cannot_take_are_kept_as_text(value):
    assert_same(back({"x": [value]}), {"x": [value]})
    text, _ = flatten({"x": value})
    assert all(abs(n) < 2**63 for n in json.loads(text).values() if isinstance(n, int))


def test_a_whole_number_of_any_length():
    value = 7**9000  # longer than what Python turns into decimal digits
    assert back({"x": value})["x"] == value


ODD_KEYS = ["", "$", "$tensor", "$array", "$pairs", "$tuple", "$x", "a.b", "a#2", "Ä", "日本", "\n",
            "\x00", "'", '"', " ", "0", "__proto__"]  # fmt: skip


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys(key):
    for value in (1, None, [1], torch.ones(2), {key: torch.zeros(1)}, "name"):
        state = {key: value}
        assert_same(back(state), state)
        assert_same(back({"a": {key: value, "b": 1}}), {"a": {key: value, "b": 1}})


def test_whole_numbers_beside_strings_as_keys():
    state = {"m": {0: torch.ones(1), "0": torch.zeros(1), -1: {}, 2**40: "x"}}
    assert_same(back(state), state)
    assert list(back(state)["m"]) == [0, "0", -1, 2**40]


def test_two_paths_that_read_the_same_are_two_tensors():
    state = {
        "a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), "a.b#2": torch.full((1,), 2.0),
        "": {"": torch.full((1,), 3.0)},
    }  # fmt: skip
    assert_same(back(state), state)
    assert len(flatten(state)[1]) == 4


def test_half_a_surrogate_in_the_name_of_a_tensor():
    state = {"\ud800": torch.ones(1)}
    digest(state)
    _, tensors = flatten(state)
    assert [name.encode() for name in tensors]


def test_containers_keep_their_kind():
    state = {
        "list": [1, [2.5, [None]]], "tuple": (0.9, (0.999, [])), "set": {1, "a", (2,), None},
        "frozen": frozenset({b"x", 1.5}), "empty": [{}, [], (), set(), frozenset(), "", b""],
        "bytes": b"\x00\xff", "bytearray": bytearray(b"\x01"),
    }  # fmt: skip
    assert_same(back(state), state)


def test_counters_stay_counters():
    """As in the state of torch's MultiStepLR."""
    state = {"milestones": collections.Counter({30: 2, 80: 1}), "c": collections.Counter("aab")}
    assert_same(back(state), state)


def test_the_versions_of_modules_stay_with_their_states():
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    state = {"model": module.state_dict(), "empty": torch.nn.ReLU().state_dict()}
    again = back(state)
    assert again["model"]._metadata == state["model"]._metadata
    assert_same(dict(again["model"]), dict(state["model"]))
    assert again["empty"] == {}
    module.load_state_dict(again["model"])
    assert digest(state) == digest(again) == digest({**state, "model": dict(state["model"])})


def test_a_list_of_equal_containers_is_no_cycle():
    inner = [1]
    assert_same(back({"x": [inner, inner], "y": inner}), {"x": [[1], [1]], "y": [1]})


def test_what_is_like_a_plain_value_comes_back_as_that():
    """Documented: every mapping is a dict; subclasses of plain types are those types."""
    Point = collections.namedtuple("Point", "x y")

    class Kind(enum.IntEnum):
        ONE = 1

    class Word(str, enum.Enum):
        A = "a"

    state = {
        "ordered": collections.OrderedDict(b=1, a=2), "default": collections.defaultdict(int, a=1),
        "point": Point(1, 2), "size": torch.Size([2, 3]), "kind": Kind.ONE, "word": Word.A,
        "double": np.float64(0.1), Kind.ONE: 3,
    }  # fmt: skip
    assert_same(
        back(state),
        {
            "ordered": {"b": 1, "a": 2},
            "default": {"a": 1},
            "point": (1, 2),
            "size": (2, 3),
            "kind": 1,
            "word": "a",
            "double": 0.1,
            1: 3,
        },
    )


NUMPY = {
    "0-d": np.array(3.5), "empty": np.zeros((0, 3), "f4"), "bool": np.array([True, False]),
    "fortran": np.asfortranarray(np.arange(6, dtype="i2").reshape(2, 3)),
    "backwards": np.arange(4)[::-1], "strided": np.arange(6)[::2],
    "expanded": np.broadcast_to(1, (2, 2)),
    "f2": np.array([1, np.nan], "f2"), "c8": np.array([1j], "c8"),
    "u8": np.array([2**64 - 1], "u8"),
    "f4 scalar": np.float32(0.1), "i8 scalar": np.int64(-1), "u2 scalar": np.uint16(9),
    "bool scalar": np.True_, "c16 scalar": np.complex128(1 - 0j), "f2 scalar": np.float16("nan"),
}  # fmt: skip


@pytest.mark.parametrize("value", NUMPY.values(), ids=NUMPY)
def test_numpy_values_keep_type_dtype_shape_and_bits(value):
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    again = back({"a": {"x": value}})["a"]["x"]
    assert_same(again, value)
    if isinstance(again, np.ndarray):
        again[...] = 0  # a read-only array comes back as one that can be changed


def test_numpy_arrays_in_the_other_order_of_bytes_keep_their_values():
    again = back({"a": {"x": np.arange(3, dtype=">f8")}})["a"]["x"]
    assert_same(again, np.arange(3.0))


def test_a_copy_is_taken_of_numpy_arrays():
    array = np.zeros(3)
    text, tensors = flatten({"x": array})
    array[:] = 7
    assert_same(unflatten(text, tensors), {"x": np.zeros(3)})


def test_dtypes_and_devices():
    state = {"a": torch.bfloat16, "b": [torch.device("cuda:3"), torch.device("meta")]}
    assert_same(back(state), state)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_by_name_and_as_a_tensor(dtype):
    state = {"d": dtype, "x": random_tensor(dtype, (2, 3))}
    assert_same(back(state), state)


def test_random_states_come_back_as_what_their_owners_take():
    state = {
        "python": random.getstate(), "legacy": np.random.get_state(),
        "numpy": np.random.default_rng(3).bit_generator.state, "torch": torch.get_rng_state(),
        "philox": np.random.Philox(3).state, "generator": torch.Generator().get_state(),
    }  # fmt: skip
    again = back(state)
    assert_same(again, state)
    random.setstate(again["python"])
    np.random.set_state(again["legacy"])
    np.random.default_rng().bit_generator.state = again["numpy"]
    torch.set_rng_state(again["torch"])


REFUSED = {
    "function": ({"a": {"f": print}}, r"cannot save a\.f: it is a builtin_function_or_method"),
    "object": ({"a": [1, object()]}, r"cannot save a\.1: it is a object"),
    "class of a module": ({"a": (torch.nn.Linear,)}, r"cannot save a\.0: it is a type"),
    "generator": ({"g": torch.Generator()}, "cannot save g: it is a Generator"),
    "class": ({"c": int}, "cannot save c: it is a type"),
    "range": ({"r": range(3)}, "cannot save r: it is a range"),
    "float key": ({"a": {1.5: 0}}, r"cannot save a: its key 1\.5 is a float"),
    "bool key": ({"a": {"b": {True: 0}}}, r"cannot save a\.b: its key True is a bool"),
    "None key": ({"a": {None: 0}}, "cannot save a: its key None is a NoneType"),
    "tuple key": ({"a": {(1,): 0}}, r"cannot save a: its key \(1,\) is a tuple"),
    "key at the top": ({1.5: 0}, r"cannot save the state: its key 1\.5 is a float"),
    "sparse": (
        {"s": {"t": torch.zeros(2).to_sparse()}},
        r"cannot save s\.t: the tensor is stored as",
    ),
    "meta": (
        {"m": torch.zeros(2, device="meta")},
        "cannot save m: the tensor is on the meta device",
    ),
    "in an array": ({"x": {"y": np.array([1, None])}}, r"cannot save x\.y: .*dtype object"),
    "text array": ({"x": np.array(["a"])}, r"cannot save x: .*dtype <U1"),
    "dates": ({"x": np.datetime64("2020")}, r"cannot save x: .*dtype datetime64"),
    "records": ({"x": np.zeros(2, [("a", "i4")])}, r"cannot save x: .*NumPy"),
    "longdouble": ({"x": np.zeros(2, np.clongdouble)}, r"cannot save x: .*dtype complex"),
    "not a state": (object(), "cannot save the state: it is a object"),
}  # fmt: skip


@pytest.mark.parametrize(("state", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_saved_is_refused_by_its_path(state, message):
    for refuses in (flatten, digest):
        with pytest.raises(CheckpointError, match=message):
            refuses(state)


@pytest.mark.filterwarnings("ignore::UserWarning")  # quantized tensors are deprecated
def test_quantized_tensors_are_refused_by_their_path():
    state = {"q": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}
    with pytest.raises(CheckpointError, match="cannot save q: the tensor is quantized"):
        flatten(state)


def test_lazy_parameters_are_refused_by_their_path():
    model = torch.nn.LazyLinear(2)
    with pytest.raises(CheckpointError, match=r"cannot save model\.weight: the tensor is not init"):
        flatten({"model": model.state_dict()})


@pytest.mark.filterwarnings("ignore::UserWarning")  # they are a prototype
def test_nested_tensors_are_refused_by_their_path():
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    with pytest.raises(CheckpointError, match=r"cannot save a\.n: the tensor is nested"):
        flatten({"a": {"n": nested}})


def test_a_tensor_whose_memory_was_given_back_is_refused_by_its_path():
    tensor = torch.ones(300)
    tensor.untyped_storage().resize_(0)  # as sharded training does
    with pytest.raises(CheckpointError, match=r"cannot save m\.w: the tensor is without"):
        flatten({"m": {"w": tensor}})


def test_masked_arrays_are_refused_by_their_path():
    with pytest.raises(CheckpointError, match=r"cannot save a\.m: .*masked"):
        flatten({"a": {"m": np.ma.masked_array([1, 2], [False, True])}})


def test_a_state_that_holds_itself_is_refused():
    state = {"a": []}
    state["a"].append(state)
    with pytest.raises(CheckpointError, match=r"nested .* deep, or holds itself"):
        flatten(state)


KINDS = {
    "lists": lambda inner: [inner],
    "tuples": lambda inner: (inner,),
    "dicts": lambda inner: {"a": inner},
    "numbered dicts": lambda inner: {1: inner},
}


def deep(levels, kind):
    value = torch.ones(1)
    for _ in range(levels):
        value = kind(value)
    return {"x": value}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_deep_states_come_back(kind):
    assert_same(back(deep(50, kind)), deep(50, kind))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_too_deep_states_are_refused(kind):
    with pytest.raises(CheckpointError, match="nested more than"):
        flatten(deep(10_000, kind))


def test_names_of_tensors_are_their_paths():
    state = {
        "model": {"conv.weight": torch.ones(1)},
        "list": [{"x": torch.ones(1)}],
        "n": np.ones(1),
    }
    assert set(flatten(state)[1]) == {"model.conv.weight", "list.0.x", "n"}


def test_the_state_of_an_optimizer_is_named_after_its_parameters():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    optimizer = CATALOGUE["adam"](model.named_parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict()}
    assert "optimizer.state.1.weight.exp_avg" in flatten(state)[1]
    assert_same(back(state), state)


ODD_OPTIMIZERS = [
    {"state": 3, "param_groups": [{"params": [0], "param_names": ["a"]}]},
    {"state": {5: torch.ones(1)}, "param_groups": [{"params": [0], "param_names": ["a"]}]},
    {"state": {0: torch.ones(1), 1: torch.zeros(1)},
     "param_groups": [{"params": [0, 1], "param_names": ["a", "a"]}]},
    {"state": {0: 1}, "param_groups": [{"params": [0]}, 3, {"params": [], "param_names": []}]},
    {"state": {"a": torch.ones(1)}, "param_groups": []},
    {"state": {}, "param_groups": {}},
]  # fmt: skip


@pytest.mark.parametrize("state", ODD_OPTIMIZERS)
def test_what_only_looks_like_an_optimizer(state):
    assert_same(back({"o": state}), {"o": state})


@pytest.mark.parametrize("params", [[[1]], 3, None])
def test_params_that_are_no_numbers(params):
    state = {"o": {"state": {}, "param_groups": [{"params": params, "param_names": ["a"]}]}}
    assert_same(back(state), state)


BASE = {"w": torch.tensor([0.0, 1.0]), "lr": 0.1, "n": np.float32([1])}


@pytest.mark.parametrize(
    "change",
    [
        {"w": torch.tensor([-0.0, 1.0])},
        {"w": torch.tensor([0.0, 1.0], dtype=torch.float64)},
        {"w": torch.tensor([0.0, 1.0]).view(torch.int32)},
        {"w": torch.tensor([[0.0, 1.0]])},
        {"w": torch.tensor([1.0, 0.0])},
        {"w": np.array([0.0, 1.0], "f4")},
        {"lr": 0.2}, {"lr": 0}, {"lr": "0.1"}, {"lr": None}, {"lr": [0.1]}, {"lr": (0.1,)},
        {"n": np.float32([-1])}, {"n": np.float32(1)}, {"n": np.float64([1])}, {"v": 1},
    ],
)  # fmt: skip
def test_a_digest_tells_any_difference(change):
    assert digest(BASE | change) != digest(BASE)
    assert digest({key: BASE[key] for key in ("w", "lr")}) != digest(BASE)


@given(states(), states())
def test_two_states_have_one_digest_only_if_they_are_equal(a, b):
    if digest(a) == digest(b):
        assert_same(a, b)


def test_a_digest_sees_values_not_memory():
    wide = torch.tensor([[0.0, 5.0], [1.0, 5.0]])
    assert digest(BASE | {"w": wide[:, 0]}) == digest(BASE)
    x = torch.ones(3)
    assert digest({"a": x, "b": x}) == digest({"a": x, "b": x.clone()})
    z = torch.tensor([1 + 2j])
    assert digest({"z": z.conj()}) == digest({"z": torch.tensor([1 - 2j])})
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert digest({"i": image.contiguous(memory_format=torch.channels_last)}) == digest(
        {"i": image}
    )


@pytest.mark.parametrize(
    "tensor",
    [torch.arange(4.0)[::2][:1], torch.arange(6.0).reshape(2, 3)[:1, ::3], torch.tensor([1j]).imag],
)
def test_one_element_with_a_stride(tensor):
    assert tensor.numel() == 1
    assert digest({"x": tensor}) == digest({"x": torch.empty(tensor.shape).copy_(tensor)})


def test_a_digest_does_not_see_the_order_of_keys():
    assert digest({"a": 1, "b": {"x": 2, "y": 3}}) == digest({"b": {"y": 3, "x": 2}, "a": 1})


def test_a_digest_does_not_see_the_order_of_numbers_as_keys():
    one = {"state": {0: torch.ones(1), 1: torch.zeros(1)}}
    assert digest(one) == digest({"state": {1: torch.zeros(1), 0: torch.ones(1)}})


def test_a_digest_does_not_see_the_order_of_paths_that_read_the_same():
    assert digest({"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)}) == digest(
        {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    )


def test_a_digest_does_not_see_the_order_of_sets():
    one, other = frozenset([0, 8]), frozenset([8, 0])  # which collide: equal, and shown otherwise
    assert one == other
    assert repr(one) != repr(other)
    four = frozenset([4])
    assert digest({"s": {one, four}}) == digest({"s": {other, four}})


def test_the_order_of_keys_is_kept():
    state = {"b": 1, "a": {"z": 1, "y": torch.ones(1)}}
    assert list(back(state)) == ["b", "a"]
    assert list(back(state)["a"]) == ["z", "y"]


def test_other_nans_are_nans():
    """Of Python's floats, only that they are NaN is kept; of arrays and tensors, all bits are."""
    (other,) = struct.unpack("d", struct.pack("Q", 0xFFF8000000000123))
    assert math.isnan(back({"x": other})["x"])
    assert_same(back({"x": np.array([other])}), {"x": np.array([other])})
