"""Reading a tensor's memory: its bytes, no mark on its storage, and not one byte beyond it."""

import gc
import os
import random
import time

import numpy as np
import pytest
import torch

import descend
from checkpoint.bits import DTYPES, assert_same, random_tensor
from descend.checkpoint import diff, digest, load, restore, save, save_torch, verify
from descend.checkpoint.randomness import random_states, restore_random_states
from descend.checkpoint.snapshot import Staging, distinct_tensors, snapshot_of
from descend.checkpoint.storage_key import bytes_of
from descend.errors import CheckpointError
from descend.swa_utils import EMA, AveragedModel
from run.small import loader


def trained():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def state_of(model, optimizer):
    wide = torch.arange(6.0)
    odd = {"bf16": wide.bfloat16(), "t": wide.view(2, 3).t(), "part": wide[2:4],
           "conj": (wide * 1j).conj(), "none": torch.empty(0), "one": torch.tensor(3)}  # fmt: skip
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "odd": odd}


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        yield value
        if value.grad is not None:
            yield value.grad
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(one)


def assert_unmarked(*states):
    count = 0
    for tensor in tensors_in(states):
        storage = tensor.untyped_storage()
        assert storage.resizable(), tensor
        size = storage.nbytes()
        storage.resize_(0)  # what FSDP does
        storage.resize_(size)
        count += 1
    assert count


READERS = {
    "save": lambda state, path: save(path / "c", state),
    "save_torch": lambda state, path: save_torch(path / "x.pth", state),
    "digest": lambda state, path: digest(state),
    "diff": lambda state, path: diff(state, state),
    "diff of others": lambda state, path: diff(state, {**state, "odd": {"bf16": torch.ones(6)}}),
    "take": lambda state, path: snapshot_of(state),
    "take to a staging": lambda state, path: snapshot_of(state, Staging()),
    "reserve": lambda state, path: Staging().reserve(distinct_tensors(state)),
}


@pytest.mark.parametrize("name", READERS)
def test_reading_leaves_no_mark(tmp_path, name):
    state = state_of(*trained())
    versions = [tensor._version for tensor in tensors_in(state)]
    READERS[name](state, tmp_path)
    assert [tensor._version for tensor in tensors_in(state)] == versions
    assert_unmarked(state)


def test_the_mark_is_found_where_there_is_one():
    """So that the tests here can fail."""
    state = {"x": torch.ones(2)}
    state["x"].numpy()
    with pytest.raises(AssertionError):
        assert_unmarked(state)


def test_what_was_loaded_has_no_mark(tmp_path):
    state = state_of(*trained())
    save(tmp_path / "c", state)
    assert_unmarked(load(tmp_path / "c"))
    model, optimizer = trained()
    restore(tmp_path / "c", model=model, optimizer=optimizer)
    assert_unmarked(list(model.parameters()), optimizer.state_dict())


def test_a_run_leaves_no_mark(tmp_path):
    """Its saves in the background, and its looks at gradients and generators."""
    for _ in range(2):  # the second goes on
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.AdamW(model.parameters())
        ema = EMA(model)
        run = descend.Run(tmp_path / "run", loader=loader(), every_steps=1, model=model,
                          optimizer=optimizer, ema=ema)  # fmt: skip
        for batch in run:
            model(batch[0]).sum().backward()  # gradients that wait, too
            if run.step % 2:
                optimizer.step()
            ema.update_parameters(model)
            run.log(loss=model.weight.sum())
            if run.step == 3:
                break
        assert_unmarked(list(model.parameters()), optimizer.state_dict(), ema.state_dict())


def test_averages_and_generators_leave_no_mark():
    model, _ = trained()
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    restore_random_states(random_states())
    assert_unmarked(list(model.parameters()), list(model.buffers()), list(averaged.parameters()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bytes_are_those_of_the_values_in_their_order(dtype):
    wide = random_tensor(dtype, (4, 6))
    for tensor in (wide, wide.t(), wide[1:3, ::2], wide[0, 0], wide[:0], wide[None, :, None]):
        expected = tensor.clone(memory_format=torch.contiguous_format).reshape(-1)
        whole = (
            expected.view(torch.uint8) if expected.numel() else torch.empty(0, dtype=torch.uint8)
        )
        assert bytes_of(tensor).tolist() == whole.tolist()


def test_the_bytes_outlive_the_tensor():
    content = bytes_of(torch.arange(1000))
    gc.collect()
    filler = [torch.zeros(1000, dtype=torch.int64) for _ in range(10)]
    assert content.view(np.int64).tolist() == [*range(1000)]
    del filler


def shrunk(tensor, count):
    tensor.untyped_storage().resize_(count)
    return tensor


class Hollow(torch.Tensor):
    """A tensor that stands for another one, as those of torch.distributed do."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return function(*[getattr(one, "inner", one) for one in args], **(kwargs or {}))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: shrunk(torch.ones(4), 0), "without memory"),
        (lambda: shrunk(torch.ones(4), 12), "without memory"),
        (lambda: shrunk(torch.ones(4, 4).t(), 60), "without memory"),
        (lambda: shrunk(torch.ones(4, 4)[2:], 60), "without memory"),
        (lambda: Hollow(torch.ones(3)), "a Hollow, which has no memory of its own"),
    ],
)
def test_no_byte_beyond_the_storage_is_read(tmp_path, make, what):
    tensor = make()
    for read in (lambda s: save(tmp_path / "c", s), digest, snapshot_of):
        with pytest.raises(CheckpointError, match=f"cannot save x: the tensor is {what}"):
            read({"x": tensor})
    assert not os.listdir(tmp_path)


def test_what_is_left_of_a_shrunk_storage_is_saved(tmp_path):
    base = torch.arange(4.0)
    part = base[:2]
    shrunk(base, 8)
    save(tmp_path / "c", {"x": part, "again": part.t()})
    assert_same(load(tmp_path / "c")["x"], torch.arange(2.0))


def least(*functions, rounds=5):
    """The least processor time of each function in turns."""
    times = [[] for _ in functions]
    for _ in range(rounds):
        for one, function in zip(times, functions, strict=True):
            begun = time.thread_time()
            function()
            one.append(time.thread_time() - begun)
    return [min(one) for one in times]


def test_many_small_tensors_are_saved_about_as_fast_as_torch_does(tmp_path):
    chance = random.Random(0)
    parameters = [torch.randn(chance.randrange(1, 64)) for _ in range(2000)]
    state = {
        "model": {f"layers.{i}.weight": one for i, one in enumerate(parameters)},
        "optimizer": {
            "state": {i: {"exp_avg": one + 1, "step": torch.tensor(1.0)}
                      for i, one in enumerate(parameters)},
            "param_groups": [{"lr": 0.1, "params": [*range(len(parameters))]}],
        },
    }  # fmt: skip
    ours, theirs, reading, theirs_reading = least(
        lambda: save(tmp_path / "c", state),
        lambda: torch.save(state, tmp_path / "x.pth"),
        lambda: load(tmp_path / "c"),
        lambda: torch.load(tmp_path / "x.pth", weights_only=True),
    )
    assert ours <= 1.2 * theirs
    assert reading <= 1.2 * theirs_reading
    assert verify(tmp_path / "c") == []
