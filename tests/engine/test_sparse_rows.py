"""The kernel on the rows of a sparse gradient: the dense step's numbers, and no other memory."""

import pytest
import torch
from torch.nn import Parameter

from descend import SGD, Adagrad, SparseAdam
from descend.engine import forced_backend
from descend.errors import GradientError
from optimizers.cases import tensor, threads

KINDS = {
    "sgd": lambda params: SGD(params, lr=0.1),
    "adagrad": lambda params: Adagrad(params, lr=0.1, lr_decay=0.1),
    "sparseadam": lambda params: SparseAdam(params, lr=0.1, weight_decay=0.1),
    "clipped": lambda params: SparseAdam(params, lr=0.1, clip_norm=0.5, clip_value=0.1),
}


def gradient(seed, shape, rows, dtype=torch.float32):
    """A gradient that holds these rows, in this order, some perhaps twice."""
    values = tensor(seed, (len(rows), *shape[1:]), dtype)
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, shape, check_invariants=True)


def backends(optimizer):
    """What took the last step's tensors."""
    return [record["backend"] for record in optimizer.explain()]


def both(make, shape, rows, dtype=torch.float32, steps=4):
    """The parameter and state after a few steps by the kernel, and by torch operations."""
    results = []
    for backend in ("cpu", "eager"):
        param = Parameter(tensor(0, shape, dtype))
        optimizer = make([param])
        with forced_backend(backend):
            for seed in range(1, steps + 1):
                param.grad = gradient(seed, shape, rows, dtype)
                optimizer.step()
        assert backends(optimizer) == [backend]
        results.append([param.detach(), *optimizer.state[param].values()])
    return results


ROWS = {
    "one": [3],
    "first and last": [0, 49],
    "neighbours": [4, 5, 6, 20, 21, 49],
    "all": list(range(50)),
    "not in order": [30, 2, 31, 1],
    "twice": [7, 8, 7, 40, 7],
    "none": [],
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_kernel_agrees_with_torch_operations(kind, rows, dtype):
    mine, reference = both(KINDS[kind], (50, 6), ROWS[rows], dtype)
    for one, other in zip(mine, reference, strict=True):
        # Fused multiply-adds round once where torch rounds twice; bfloat16, the last bit.
        tolerance = {"rtol": 8e-3, "atol": 1e-3} if one.dtype == torch.bfloat16 else {}
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("shape", "rows"), [((40, 40_000), [0, 1, 7, 39]), ((9000, 16), range(0, 9000, 2))]
)
def test_large_rows_and_many_rows_on_several_threads(shape, rows, count):
    with threads(count):
        mine, reference = both(KINDS["sparseadam"], shape, list(rows), torch.float64, steps=2)
    for one, other in zip(mine, reference, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_other_rows_and_other_memory_stay(kind):
    """A parameter in the middle of a larger tensor."""
    around = tensor(0, (30, 6), torch.float32)
    before = around.clone()
    param = Parameter(around[10:20])
    optimizer = KINDS[kind]([param])
    for seed in (1, 2):
        param.grad = gradient(seed, (10, 6), [0, 4, 5, 9])
        optimizer.step()
    assert backends(optimizer) == ["cpu"]
    changed = (around != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == [10, 14, 15, 19]


@pytest.mark.parametrize("index", [[[3, 10]], [[-1, 3]], [[3, 2**40]]])
@pytest.mark.parametrize("stepped", [False, True])
def test_an_index_beyond_the_parameter_is_refused_and_changes_nothing(index, stepped):
    param = Parameter(tensor(0, (10, 6), torch.float32))
    optimizer = SparseAdam([param])
    if stepped:
        param.grad = gradient(1, (10, 6), [1, 2])
        optimizer.step()
    before = [param.detach().clone(), *(v.clone() for v in optimizer.state[param].values())]
    param.grad = torch.sparse_coo_tensor(
        torch.tensor(index), torch.ones(2, 6), (10, 6), check_invariants=False
    )
    with pytest.raises(GradientError, match=r"group 0, parameter 0: .*indices beyond .*\(10, 6\)"):
        optimizer.step()
    after = [param.detach(), *optimizer.state[param].values()]
    assert all(map(torch.equal, before, after))


def test_gradient_values_that_lie_in_the_parameter():
    """They are read before anything is written."""
    results = []
    for backend in ("cpu", "eager"):
        param = Parameter(tensor(0, (10, 6), torch.float64))
        optimizer = SGD([param], lr=0.5)
        param.grad = torch.sparse_coo_tensor(
            torch.tensor([[5, 6, 7]]), param.detach()[4:7], (10, 6), is_coalesced=True,
            check_invariants=True,
        )  # fmt: skip
        with forced_backend(backend):
            optimizer.step()
        results.append(param.detach())
    assert torch.equal(*results)


def _dtype(param, state):
    param.grad = None
    param.data = param.data.double()


def _moved(param, state):
    param.data = param.data.clone()


def _transposed(param, state):
    param.data = param.data.t().contiguous().t()


def _state_replaced(param, state):
    state["exp_avg"] = state["exp_avg"].clone()


def _state_deleted(param, state):
    del state["exp_avg"]


def _state_in_parameter(param, state):
    """One row further on: a row of the state is the next row of the parameter."""
    memory = torch.cat([param.detach().flatten(), torch.zeros(6)])
    param.data, state["exp_avg"] = memory[:60].view(10, 6), memory[6:].view(10, 6)


CHANGES = [_moved, _transposed, _state_replaced, _state_deleted, _state_in_parameter, _dtype]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_steps_is_seen(change):
    results = []
    for backend in ("cpu", "eager"):
        param = Parameter(tensor(0, (10, 6), torch.float32))
        optimizer = SparseAdam([param], lr=0.1)
        with forced_backend(backend):
            for seed in range(1, 6):
                if seed == 3:
                    change(param, optimizer.state[param])
                param.grad = gradient(seed, (10, 6), [seed, seed + 1, 8], param.dtype)
                optimizer.step()
        results.append([param.detach(), *optimizer.state[param].values()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_dense_and_sparse_parameters_in_one_step():
    dense, sparse = (Parameter(tensor(0, shape, torch.float32)) for shape in ((3,), (10, 6)))
    optimizer = Adagrad([dense, sparse], lr=0.1)
    for seed in (1, 2):
        dense.grad, sparse.grad = torch.ones(3), gradient(seed, (10, 6), [2, 3])
        optimizer.step()
    assert backends(optimizer) == ["cpu", "cpu"]


def test_autograd_sees_that_rows_have_changed():
    param = Parameter(tensor(0, (10, 6), torch.float32))
    optimizer = SparseAdam([param])
    loss = (param**3).sum()
    param.grad = gradient(1, (10, 6), [2, 3])
    optimizer.step()
    param.grad = None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
