"""The streaming limit does the reads, writes and additions that it claims, in packed arithmetic."""

import gc
import platform
import re
import threading
import time
import weakref
from contextlib import suppress

import numpy as np
import pytest
import torch

from descend.bench import limit
from descend.bench.limit import kernel, limits, moved_bytes, read_before, shares, streams
from descend.optimizers import CATALOGUE

MOST_STATES = 5  # of no rule so far, and of some future one
SIZES = (1, 63, 64, 1000, 70_001)


def groups_of(states, sizes=SIZES):
    return [tuple(torch.rand(size) for _ in range(2 + states)) for size in sizes]


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("states", range(MOST_STATES + 1))
def test_a_sweep_adds_the_scaled_gradient_to_every_value_once(states, narrow):
    groups = groups_of(states)
    before = [[tensor.clone() for tensor in group] for group in groups]
    for table in shares(groups, 3):
        kernel(states, narrow=narrow)(table, np.float32(2), 1)
    for group, old in zip(groups, before, strict=True):
        param, grad, *rest = group
        assert torch.equal(grad, old[1])
        torch.testing.assert_close(param, old[0] + 2 * grad)
        for state, old_state in zip(rest, old[2:], strict=True):
            torch.testing.assert_close(state, old_state + 2 * grad)


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("read", [(1,), (1, 3), (0, 1, 2, 3)])
def test_a_sweep_reads_first_what_is_measured_and_returns_its_sum(read, narrow):
    groups = groups_of(2)
    wanted = sum(float(group[i].double().sum()) for group in groups for i in read)
    found = sum(kernel(2, read, narrow=narrow)(one, np.float32(0), 2) for one in shares(groups, 3))
    assert found == pytest.approx(2 * wanted, rel=1e-4)


def test_sweeps_repeat():
    groups = [(torch.zeros(10), torch.ones(10))]
    kernel(0)(shares(groups, 1)[0], np.float32(1), 5)
    assert groups[0][0].tolist() == [5.0] * 10


def test_measuring_changes_no_value():
    groups = groups_of(2)
    before = [[tensor.clone() for tensor in group] for group in groups]
    found = limits(groups, threads=2, read=(0, 3))
    assert list(found) == ["limit wide", "limit narrow", "limit torch"]
    assert all(run(3) > 0 for run in found.values())
    for group, old in zip(groups, before, strict=True):
        assert all(map(torch.equal, group, old))


@pytest.mark.parametrize("threads", [1, 2, 5, 5000])
def test_shares_hold_every_element_once(threads):
    groups = groups_of(1)
    tables = shares(groups, threads)
    assert len(tables) <= threads
    begun = sorted(
        (int(address), int(size))
        for table in tables
        for size, *addresses in table
        for address in addresses
        if address
    )
    merged = []
    for address, size in begun:
        if merged and sum(merged[-1]) == address:
            merged[-1] = (merged[-1][0], merged[-1][1] + 4 * size)
        else:
            merged.append((address, 4 * size))
    wanted = [(t.data_ptr(), 4 * t.numel()) for group in groups for t in group]
    assert sum(size for _, size in merged) == sum(size for _, size in wanted)
    assert {address for address, _ in merged} <= {address for address, _ in wanted}


def test_shares_are_equal():
    tables = shares(groups_of(0, (100_000, 28_000)), 4)
    assert [int(table[:, 0].sum()) for table in tables] == [32_000] * 4


@pytest.mark.parametrize(("states", "moved"), [(0, 3), (1, 5), (2, 7)])
def test_bytes_are_one_read_per_stream_and_one_write_per_stream_but_the_gradient(states, moved):
    assert moved_bytes(groups_of(states, (10, 5))) == 15 * 4 * moved
    assert moved_bytes(groups_of(states, (10, 5)), (0, 1)) == 15 * 4 * (moved + 2)


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="reads x86 assembly")
@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("read", [(), (0, 1)], ids=["one pass", "two passes"])
@pytest.mark.parametrize("states", range(MOST_STATES + 1))
def test_the_loops_are_vectorized(states, read, narrow):
    compiled = kernel(states, read, narrow=narrow)
    groups = groups_of(states)  # alive while the kernel writes to their addresses
    compiled(shares(groups, 1)[0], np.float32(0), 1)
    (assembly,) = compiled.inspect_asm().values()
    packed = re.findall(r"v?(?:addps|fmadd\d+ps)\s.*%([xyz])mm", assembly)
    assert len(packed) >= 1 + states + len(read)
    if narrow:
        assert "z" not in packed


def stepped(kind, parameter, **options):
    parameter.grad = torch.ones_like(parameter)
    optimizer = kind([parameter], **options)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("kind", "options", "count"),
    [
        (torch.optim.SGD, {}, 2),
        (torch.optim.SGD, {"momentum": 0.9}, 3),
        (torch.optim.RMSprop, {}, 3),
        (torch.optim.AdamW, {}, 4),
        (torch.optim.AdamW, {"amsgrad": True}, 5),
    ],
)
def test_streams_are_the_parameter_its_gradient_and_its_full_size_states(kind, options, count):
    parameter = torch.nn.Parameter(torch.ones(4))
    (group,) = streams(stepped(kind, parameter, **options), [parameter])
    assert len(group) == count
    assert group[0].data_ptr() == parameter.data_ptr()
    assert group[1] is parameter.grad


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("adamw", []),
        ("adafactor", []),
        ("lamb", ["param", "grad", "exp_avg", "exp_avg_sq"]),
        ("mars", ["grad", "previous_grad"]),
        ("prodigy", ["param", "grad", "weighted_sum", "start"]),
        ("stableadamw", ["grad", "debiased_avg_sq"]),
    ],
)
def test_what_is_read_before_is_what_the_terms_name(name, read):
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = stepped(CATALOGUE[name], parameter)
    places = read_before(CATALOGUE[name].rule, optimizer)
    (group,) = streams(optimizer, [parameter])
    operands = {"param": parameter, "grad": parameter.grad, **optimizer.state[parameter]}
    assert [group[i].data_ptr() for i in places] == [operands[one].data_ptr() for one in read]


@pytest.mark.parametrize(
    "value", [torch.ones(4, dtype=torch.float64), torch.ones(4, 2).t()], ids=["float64", "strided"]
)
def test_there_is_no_limit_for_other_dtypes_and_layouts(value):
    parameter = torch.nn.Parameter(value)
    assert streams(stepped(torch.optim.SGD, parameter), [parameter]) is None


def test_there_is_no_limit_without_gradients_or_with_states_for_some_parameters_only():
    parameters = [torch.nn.Parameter(torch.ones(4)) for _ in range(2)]
    for parameter in parameters:
        parameter.grad = torch.ones(4)
    optimizer = torch.optim.SGD(parameters)
    assert streams(optimizer, parameters) is not None
    optimizer.state[parameters[0]] = {"momentum_buffer": torch.ones(4)}
    assert streams(optimizer, parameters) is None
    parameters[0].grad = None
    optimizer.state.clear()
    assert streams(optimizer, parameters) is None


def test_buffers_outlive_a_sweep_that_was_interrupted():
    """After Ctrl-C in the calling thread the others still sweep: their memory has to be there."""
    groups = [(torch.zeros(1000), torch.ones(1000))]
    alive = weakref.ref(groups[0][0])
    begun, go, seen = threading.Event(), threading.Event(), []
    first = threading.get_ident()

    def sweep(table, scale, count):
        if threading.get_ident() == first:
            begun.wait(10)
            raise KeyboardInterrupt
        begun.set()
        go.wait(10)
        seen.append(alive() is not None)

    run = limit._sweeps(groups, sweep, shares(groups, 2), time.perf_counter_ns)
    del groups
    with suppress(KeyboardInterrupt):  # pytest.raises would keep the frames, and with them all
        run(1)
    del run
    gc.collect()
    go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("descend-bench"):
            thread.join(10)
    assert seen == [True]
