"""A kernel never sees an address whose tensor was not checked in the same step.

Each case changes one thing behind the optimizer's back, between two steps. What is only at another
address, or in another layout, is taken in, and the plan stays; everything else is noticed, and the
plan is made anew. The step after it must be right in any case.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import descend
from descend.engine.pointers import Found
from descend.errors import GradientError, StateError


@pytest.fixture
def stepped():
    """An optimizer that has taken two steps on the CPU backend, and its plan's only batch."""
    params = [Parameter(torch.arange(12.0).view(3, 4)), Parameter(torch.ones(1))]
    optimizer = descend.Adam(params, lr=0.1)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    optimizer.step()
    (batch,) = optimizer._stepper._plan.batches
    return optimizer, batch


def found(optimizer, batch):
    """What the batch finds when it looks at its tensors."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return batch.look(params, [param.grad for param in params])


def test_unchanged_tensors_hold(stepped):
    assert found(*stepped) is Found.SAME


def test_a_new_gradient_of_the_same_kind_holds_and_its_address_is_taken(stepped):
    optimizer, batch = stepped
    param = optimizer.param_groups[0]["params"][0]
    param.grad = torch.full_like(param, 2.0)
    assert found(optimizer, batch) is Found.SAME
    assert batch.pointers[1] == param.grad.data_ptr()


def test_a_parameter_without_a_gradient_is_a_row_that_the_kernel_skips(stepped):
    optimizer, batch = stepped
    first, second = optimizer.param_groups[0]["params"]
    plan, before, still = optimizer._stepper._plan, second.item(), first.detach().clone()
    for seen in (second, None, second):
        for param in (first, second):
            param.grad = None if param is not seen else torch.ones_like(param)
        optimizer.step()
    assert optimizer._stepper._plan is plan
    assert batch.active == 1
    assert [optimizer.state[param]["step"].item() for param in (first, second)] == [2, 4]
    assert second.item() != before
    assert torch.equal(first, still)


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


def gradient_partly_over_parameter(param, state):
    memory = torch.zeros(20)
    param.data = memory[:12].view(3, 4)
    param.grad = memory[8:].view(3, 4)


def gradient_negated(param, state):
    param.grad = torch._neg_view(param.grad)


CHANGES = {
    replace_data: Found.MOVED,
    shrink: Found.CHANGED,
    transpose_in_place: Found.CHANGED,
    gradient_transposed: Found.SAME,
    gradient_expanded: Found.SAME,
    gradient_negated: Found.SAME,
    gradient_of_another_dtype: Found.CHANGED,
    gradient_over_parameter: Found.TOUCHED,
    gradient_over_state: Found.TOUCHED,
    gradient_partly_over_state: Found.MOVED,
    gradient_partly_over_parameter: Found.MOVED,
    state_replaced: Found.MOVED,
    state_resized: Found.CHANGED,
    step_changed: Found.SAME,
    step_replaced: Found.MOVED,
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_noticed(stepped, change):
    optimizer, batch = stepped
    param = optimizer.param_groups[0]["params"][0]
    if change is gradient_of_another_dtype and not hasattr(param, "grad_dtype"):
        pytest.skip("this torch ties the gradient's dtype to the parameter's")
    change(param, optimizer.state[param])
    assert found(optimizer, batch) is CHANGES[change]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_plan_is_made_anew_only_where_it_must_be(stepped, change):
    optimizer, _ = stepped
    param = optimizer.param_groups[0]["params"][0]
    plan = optimizer._stepper._plan
    change(param, optimizer.state[param])
    overlaps = change in (gradient_partly_over_state, gradient_partly_over_parameter)
    stays = CHANGES[change] in (Found.MOVED, Found.SAME) and not overlaps
    if change in (shrink, state_resized):
        with pytest.raises(StateError, match="shape"):
            optimizer.step()
        return
    optimizer.step()
    assert (optimizer._stepper._plan is plan) == stays


def test_a_lazy_negation_of_one_element_is_taken_with_its_sign(stepped):
    optimizer, _ = stepped
    param = optimizer.param_groups[0]["params"][1]
    param.grad = torch.tensor([1 + 200j]).conj().imag
    assert param.grad.is_neg()
    before = param.item()
    optimizer.step()
    assert param.item() > before


def shrunk(tensor):
    tensor.untyped_storage().resize_(tensor.nbytes - 1)


@pytest.mark.parametrize("what", ["param", "grad", "exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("steps", [0, 2])
def test_memory_behind_a_tensor_that_is_too_short_is_refused(what, steps, backend):
    param, other = Parameter(torch.ones(1000)), Parameter(torch.ones(3))
    optimizer = descend.Adam([other, param], lr=0.1)
    for _ in range(steps):
        other.grad, param.grad = torch.ones(3), torch.ones(1000)
        optimizer.step()
    if not steps:
        optimizer.state[param] = {
            "step": torch.tensor(1.0),
            "exp_avg": torch.zeros(1000),
            "exp_avg_sq": torch.zeros(1000),
        }
    other.grad, param.grad = torch.ones(3), torch.ones(1000)
    before = other.clone()
    where = {"param": param, "grad": param.grad}
    shrunk(where[what] if what in where else optimizer.state[param][what])
    with pytest.raises((GradientError, StateError), match="smaller storage"):
        optimizer.step()
    assert torch.equal(other, before)


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("count", [math.nan, -1.0, math.inf])
def test_a_step_count_that_is_none_is_refused(count, steps, backend):
    param, other = Parameter(torch.ones(4)), Parameter(torch.ones(3))
    optimizer = descend.Adam([other, param], lr=0.1)
    for _ in range(max(steps, 1)):
        other.grad, param.grad = torch.ones(3), torch.ones(4)
        optimizer.step()
    if not steps:
        optimizer.load_state_dict(optimizer.state_dict())  # a new plan
    optimizer.state[param]["step"].fill_(count)
    before = other.clone()
    with pytest.raises(StateError, match=r"'step' is .*but it must be a count of steps"):
        optimizer.step()
    assert torch.equal(other, before)


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
def test_the_step_after_a_change_is_right(change):
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


def test_the_address_of_freed_memory_is_never_used():
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


def test_parameters_that_share_memory_no_more_are_a_kernels_again():
    memory = torch.ones(6)
    first, second = Parameter(memory[:4]), Parameter(memory[2:])
    optimizer = descend.AdamW([first, second], lr=0.1)
    backends = []
    for step in range(4):
        if step == 2:
            second.data = second.detach().clone()
        first.grad, second.grad = torch.ones(4), torch.ones(4)
        optimizer.step()
        backends.append([record["backend"] for record in optimizer.explain()])
    assert backends == [["eager"], ["eager"], ["cpu"], ["cpu"]]
