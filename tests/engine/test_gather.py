"""A kernel never sees an address whose tensor was not checked in the same step.

Each case changes one thing behind the optimizer's back, between two steps; both checks (the
compiled one and the one in Python) must notice, and the step after it must be right.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import descend
from descend.engine import gather


@pytest.fixture(params=["compiled", "python"])
def check(request, monkeypatch):
    """Which of the two checks is used."""
    if request.param == "python":
        monkeypatch.setattr(gather, "_exchange", lambda: None)
    return request.param


@pytest.fixture
def stepped(check):
    """An optimizer that has taken one step on the CPU backend, and its plan's only table."""
    params = [Parameter(torch.arange(12.0).view(3, 4)), Parameter(torch.ones(1))]
    optimizer = descend.Adam(params, lr=0.1)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    optimizer.step()
    (batch,) = optimizer._stepper._plan.batches
    kind = type(batch.table.check).__name__
    assert kind == {"compiled": "_NativeCheck", "python": "_PythonCheck"}[check]
    return optimizer, batch.table


def holds(optimizer, table):
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return table.check(params, [param.grad for param in params])


def test_unchanged_tensors_hold(stepped):
    assert holds(*stepped)


def test_a_new_gradient_of_the_same_kind_holds_and_its_address_is_taken(stepped):
    optimizer, table = stepped
    param = optimizer.param_groups[0]["params"][0]
    param.grad = torch.full_like(param, 2.0)
    assert holds(optimizer, table)
    assert table.pointers[1] == param.grad.data_ptr()


def replace_data(param, state):
    param.data = param.data.clone()


def shrink(param, state):
    param.data = param.data[:2]
    param.grad = param.grad[:2].clone()


def transpose_in_place(param, state):
    param.data = param.data.t().contiguous().t()


def gradient_transposed(param, state):
    param.grad = param.grad.t().contiguous().t()


def gradient_expanded(param, state):
    param.grad = torch.ones(()).expand_as(param)


def gradient_of_another_dtype(param, state):
    param.grad = None
    param.grad_dtype = torch.float64
    param.grad = torch.ones_like(param, dtype=torch.float64)


def gradient_over_parameter(param, state):
    param.grad = param.detach()


def gradient_over_state(param, state):
    param.grad = state["exp_avg"]


def gradient_partly_over_state(param, state):
    memory = torch.zeros(20)
    state["exp_avg"] = memory[:12].view(3, 4)
    param.grad = memory[8:].view(3, 4)


def state_replaced(param, state):
    state["exp_avg_sq"] = state["exp_avg_sq"].clone()


def state_resized(param, state):
    state["exp_avg_sq"].resize_(2)


def step_changed(param, state):
    state["step"] += 1


def step_replaced(param, state):
    state["step"] = torch.tensor(7.0)


CHANGES = [
    replace_data,
    shrink,
    transpose_in_place,
    gradient_transposed,
    gradient_expanded,
    gradient_of_another_dtype,
    gradient_over_parameter,
    gradient_over_state,
    gradient_partly_over_state,
    state_replaced,
    state_resized,
    step_changed,
    step_replaced,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_noticed(stepped, change):
    optimizer, table = stepped
    param = optimizer.param_groups[0]["params"][0]
    if change is gradient_of_another_dtype and not hasattr(param, "grad_dtype"):
        pytest.skip("this torch ties the gradient's dtype to the parameter's")
    change(param, optimizer.state[param])
    assert not holds(optimizer, table)


def test_a_lazy_negation_of_one_element_is_noticed(stepped):
    optimizer, table = stepped
    param = optimizer.param_groups[0]["params"][1]
    param.grad = torch.tensor([1 + 2j]).conj().imag
    assert param.grad.is_neg()
    assert not holds(optimizer, table)
    before = param.item()
    optimizer.step()
    assert param.item() != before


def reference(param: Tensor, grads: list[Tensor], lr: float) -> Tensor:
    """Adam without any engine, in float64."""
    x, m, v = param.double().clone(), 0.0, 0.0
    for t, grad in enumerate(grads, 1):
        g = grad.double()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return x


@pytest.mark.parametrize(
    "change",
    [replace_data, transpose_in_place, gradient_transposed, gradient_expanded, state_replaced],
    ids=lambda change: change.__name__,
)
def test_the_step_after_a_change_is_right(check, change):
    start = torch.linspace(-1, 1, 12).view(3, 4)
    param = Parameter(start.clone())
    optimizer = descend.Adam([param], lr=0.1)
    grads = []
    for index in range(6):
        param.grad = torch.full((3, 4), math.sin(index + 1.0))
        if index == 3:
            change(param, optimizer.state[param])
        grads.append(param.grad.clone())
        optimizer.step()
    torch.testing.assert_close(
        param.detach().double(), reference(start, grads, 0.1), rtol=1e-5, atol=1e-6
    )


def test_the_address_of_freed_memory_is_never_used(check):
    """New parameters of other sizes at every step: addresses come back, sizes do not."""
    for size in (5, 3, 8, 2, 30, 1, 0, 4):
        param = Parameter(torch.ones(10))
        optimizer = descend.Adam([param], lr=0.1)
        param.grad = torch.ones(10)
        optimizer.step()
        param.data = torch.ones(size)
        param.grad = torch.ones(size)
        with pytest.raises(descend.errors.StateError, match="shape"):
            optimizer.step()
        assert param.tolist() == [1.0] * size
        del optimizer.state[param]
        optimizer.step()
        torch.testing.assert_close(param.detach(), torch.full((size,), 0.9))
