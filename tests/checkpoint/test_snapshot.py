"""Snapshots: what is written later is the state as it was, each tensor once."""

import pytest
import torch

from checkpoint.bits import DTYPES, assert_same, random_tensor
from descend.checkpoint.snapshot import STORABLE, Staging, distinct_tensors, take
from descend.checkpoint.tree import unflatten
from descend.errors import CheckpointError


def values(snapshot):
    """The state that a snapshot holds."""
    tensors = {}
    for name, stored in snapshot.tensors.items():
        dtype, shape = snapshot.kinds[name]
        kind = getattr(torch, dtype)
        same = stored.dtype == kind
        tensors[name] = stored if same else stored.view(kind).reshape(shape)
    tensors |= {name: tensors[one] for name, one in snapshot.same.items()}
    return unflatten(snapshot.text, tensors)


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_holds_the_state_of_every_dtype(dtype, staged):
    wide = random_tensor(dtype, (4, 6))
    state = {"x": wide, "t": wide.t(), "part": wide[1:3, ::2], "scalar": wide[0, 0], "n": 1}
    snapshot = take(state, Staging() if staged else None)
    assert_same(values(snapshot), state)
    for name, tensor in snapshot.tensors.items():
        assert tensor.is_contiguous()
        assert tensor.dtype in STORABLE
        assert snapshot.kinds[name] == (str(dtype).removeprefix("torch."), list(state[name].shape))


def test_each_tensor_has_a_storage_of_its_own():
    wide = torch.arange(12.0)
    for staging in (None, Staging()):
        tensors = take({"a": wide[:6], "b": wide[6:], "all": wide}, staging).tensors
        storages = [tensor.untyped_storage() for tensor in tensors.values()]
        assert len({storage.data_ptr() for storage in storages}) == 3
        assert sorted(storage.nbytes() for storage in storages) == [24, 24, 48]


def test_without_staging_dense_tensors_are_not_copied():
    x = torch.ones(3)
    snapshot = take({"x": x, "t": torch.ones(2, 3).t()})
    assert snapshot.tensors["x"].data_ptr() == x.data_ptr()


def test_the_same_memory_is_taken_once():
    x = torch.ones(3)
    state = {
        "a": x, "b": x, "c": x.view(3), "detached": x.detach(), "p": torch.nn.Parameter(x),
        "shorter": x[:2], "wider": x.expand(2, 3), "bits": x.view(torch.int32),
        "column": x.view(3, 1), "equal": x.clone(),
    }  # fmt: skip
    for staging in (None, Staging()):
        snapshot = take(state, staging)
        assert snapshot.same == {"b": "a", "c": "a", "detached": "a", "p": "a"}
        assert_same(values(snapshot)["bits"], state["bits"])
    assert distinct_tensors(state).keys() == snapshot.tensors.keys()


def test_the_same_memory_read_otherwise_is_another_tensor():
    z = torch.tensor([1 + 2j, 3 - 4j])
    state = {"z": z, "conj": z.conj(), "imag": z.imag, "neg": z.conj().imag}
    for staging in (None, Staging()):
        snapshot = take(state, staging)
        assert snapshot.same == {}
        assert_same(values(snapshot), state)


def test_empty_tensors_are_never_the_same_memory():
    snapshot = take({"a": torch.empty(0), "b": torch.empty(0, 3), "c": torch.empty(0)})
    assert snapshot.same == {}
    assert_same(values(snapshot)["b"], torch.empty(0, 3))


def test_a_staged_snapshot_does_not_follow_the_state():
    state = {"x": torch.zeros(3), "t": torch.zeros(2, 3).t(), "c": torch.zeros(2).cfloat(),
             "list": [1], "dict": {"a": 1}}  # fmt: skip
    before = {"x": torch.zeros(3), "t": torch.zeros(3, 2), "c": torch.zeros(2).cfloat(),
              "list": [1], "dict": {"a": 1}}  # fmt: skip
    snapshot = take(state, Staging())
    for name in ("x", "t", "c"):
        state[name].fill_(7)
    state["list"].append(2)
    state["dict"].clear()
    assert_same(values(snapshot), before)


def test_memory_is_used_again_and_given_back():
    staging = Staging()
    first = take({"a": torch.zeros(3), "b": torch.zeros(4)}, staging)
    second = take({"a": torch.ones(3), "b": torch.ones(2, 2)}, staging)
    assert second.tensors["a"].data_ptr() == first.tensors["a"].data_ptr()
    assert_same(second.tensors["b"], torch.ones(2, 2))
    take({"b": torch.ones(2, 2)}, staging)
    assert staging._buffers.keys() == {"b"}


@pytest.mark.parametrize(
    "changed",
    [torch.ones(4), torch.ones(3, dtype=torch.float64), torch.ones(3).int(), torch.ones(3, 1)],
)
def test_a_tensor_that_has_changed_its_kind_gets_new_memory(changed):
    staging = Staging()
    take({"x": torch.zeros(3)}, staging)
    assert_same(values(take({"x": changed}, staging)), {"x": changed})


def test_reserving_memory_reads_no_values():
    staging = Staging()
    x = torch.full((3,), 5.0)
    staging.reserve(distinct_tensors({"x": x}))
    buffer = staging._buffers["x"].data_ptr()
    snapshot = take({"x": x}, staging)
    assert snapshot.tensors["x"].data_ptr() == buffer
    assert_same(snapshot.tensors["x"], x)
    assert x.eq(5).all()


def test_a_refused_state_leaves_the_staging_usable():
    staging = Staging()
    with pytest.raises(CheckpointError, match="cannot save f: it is a"):
        take({"x": torch.ones(3), "f": print}, staging)
    assert_same(values(take({"x": torch.ones(3)}, staging)), {"x": torch.ones(3)})
