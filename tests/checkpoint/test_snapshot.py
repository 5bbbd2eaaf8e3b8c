"""Snapshots: what is written later is the state as it was, each tensor once."""

import pytest
import torch

from checkpoint.bits import DTYPES, assert_same, random_tensor
from descend.checkpoint.snapshot import Staging, distinct_tensors, snapshot_of
from descend.checkpoint.storage_key import bytes_of
from descend.checkpoint.tree import unflatten
from descend.errors import CheckpointError


def values(snapshot):
    """The state that a snapshot holds."""
    tensors = {}
    for name, stored in snapshot.values.items():
        dtype, shape = snapshot.kinds[name]
        tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype))
        bytes_of(tensors[name])[:] = stored
    tensors |= {name: tensors[one] for name, one in snapshot.same.items()}
    return unflatten(snapshot.text, tensors)


def address(stored):
    return stored.__array_interface__["data"][0]


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_holds_the_state_of_every_dtype(dtype, staged):
    wide = random_tensor(dtype, (4, 6))
    state = {"x": wide, "t": wide.t(), "part": wide[1:3, ::2], "scalar": wide[0, 0], "n": 1}
    snapshot = snapshot_of(state, Staging() if staged else None)
    assert_same(values(snapshot), state)
    for name in snapshot.values:
        assert snapshot.kinds[name] == (str(dtype).removeprefix("torch."), state[name].shape)


def test_without_staging_dense_tensors_are_not_copied():
    x = torch.ones(3)
    snapshot = snapshot_of({"x": x, "t": torch.ones(2, 3).t()})
    assert address(snapshot.values["x"]) == x.data_ptr()


def test_the_same_memory_is_taken_once():
    x = torch.ones(3)
    state = {
        "a": x, "b": x, "c": x.view(3), "detached": x.detach(), "p": torch.nn.Parameter(x),
        "shorter": x[:2], "wider": x.expand(2, 3), "bits": x.view(torch.int32),
        "column": x.view(3, 1), "equal": x.clone(),
    }  # fmt: skip
    for staging in (None, Staging()):
        snapshot = snapshot_of(state, staging)
        assert snapshot.same == {"b": "a", "c": "a", "detached": "a", "p": "a"}
        assert_same(values(snapshot)["bits"], state["bits"])
    assert distinct_tensors(state).keys() == snapshot.values.keys()


def test_the_same_memory_read_otherwise_is_another_tensor():
    z = torch.tensor([1 + 2j, 3 - 4j])
    state = {"z": z, "conj": z.conj(), "imag": z.imag, "neg": z.conj().imag}
    for staging in (None, Staging()):
        snapshot = snapshot_of(state, staging)
        assert snapshot.same == {}
        assert_same(values(snapshot), state)


def test_empty_tensors_are_never_the_same_memory():
    snapshot = snapshot_of({"a": torch.empty(0), "b": torch.empty(0, 3), "c": torch.empty(0)})
    assert snapshot.same == {}
    assert_same(values(snapshot)["b"], torch.empty(0, 3))


def test_a_staged_snapshot_does_not_follow_the_state():
    state = {"x": torch.zeros(3), "t": torch.zeros(2, 3).t(), "c": torch.zeros(2).cfloat(),
             "list": [1], "dict": {"a": 1}}  # fmt: skip
    before = {"x": torch.zeros(3), "t": torch.zeros(3, 2), "c": torch.zeros(2).cfloat(),
              "list": [1], "dict": {"a": 1}}  # fmt: skip
    snapshot = snapshot_of(state, Staging())
    for name in ("x", "t", "c"):
        state[name].fill_(7)
    state["list"].append(2)
    state["dict"].clear()
    assert_same(values(snapshot), before)


def test_memory_is_used_again_and_given_back():
    staging = Staging()
    first = snapshot_of({"a": torch.zeros(300), "b": torch.zeros(400)}, staging)
    second = snapshot_of({"a": torch.ones(300), "b": torch.ones(20, 20)}, staging)
    assert address(second.values["a"]) == address(first.values["a"])
    assert_same(values(second), {"a": torch.ones(300), "b": torch.ones(20, 20)})
    before = staging._room.numel()
    snapshot_of({"b": torch.ones(2, 2)}, staging)
    assert staging._room.numel() < before / 2
    assert_same(values(snapshot_of({"c": torch.ones(500)}, staging)), {"c": torch.ones(500)})


@pytest.mark.parametrize(
    "changed",
    [torch.ones(4), torch.ones(3, dtype=torch.float64), torch.ones(3).int(), torch.ones(3, 1)],
)
def test_a_tensor_that_has_changed_its_kind_gets_new_memory(changed):
    staging = Staging()
    snapshot_of({"x": torch.zeros(3)}, staging)
    assert_same(values(snapshot_of({"x": changed}, staging)), {"x": changed})


def test_reserving_memory_reads_no_values():
    staging = Staging()
    x = torch.full((3,), 5.0)
    staging.reserve(distinct_tensors({"x": x}))
    room = staging._room.data_ptr()
    snapshot = snapshot_of({"x": x}, staging)
    assert address(snapshot.values["x"]) == room
    assert_same(values(snapshot), {"x": x})
    assert x.eq(5).all()


def test_a_refused_state_leaves_the_staging_usable():
    staging = Staging()
    with pytest.raises(CheckpointError, match="cannot save f: it is a"):
        snapshot_of({"x": torch.ones(3), "f": print}, staging)
    assert_same(values(snapshot_of({"x": torch.ones(3)}, staging)), {"x": torch.ones(3)})
