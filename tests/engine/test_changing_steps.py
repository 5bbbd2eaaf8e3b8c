"""Steps between which something changes end where an optimizer without a history ends."""

import copy
import random
import weakref

import pytest
import torch
from torch import Tensor

import descend
from descend.engine import eager, forced_backend, pointers, tensor_layout


def stepped(optimizer, params, backend=None):
    """The parameters after a step of a deep copy, which has no plan yet."""
    other, copies = copy.deepcopy((optimizer, params))
    if backend is None:
        other.step()
    else:
        with forced_backend(backend):
            other.step()
    return [param.detach().clone() for param in copies]


def trained(cls=descend.AdamW, shapes=((4, 5),) * 3, **options):
    """An optimizer after one step, its parameters, and a function that sets new gradients."""
    torch.manual_seed(0)
    params = [torch.randn(shape, requires_grad=True) for shape in shapes]
    optimizer = cls(params, **options)

    def new_gradients():
        for param in params:
            param.grad = torch.randn(param.shape, dtype=param.dtype)

    new_gradients()
    optimizer.step()
    new_gradients()
    return optimizer, params, new_gradients


def negated(tensor: Tensor) -> Tensor:
    """The same values, lazily negated."""
    return torch._neg_view(-tensor.detach())


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("what", ["param", "exp_avg", "step"])
def test_a_lazy_negation_of_what_is_written_is_stepped_with_its_sign(what, steps):
    optimizer, params, _ = trained()
    if not steps:
        optimizer = copy.deepcopy(optimizer)
        params = optimizer.param_groups[0]["params"]
        if what == "param":
            optimizer.state.clear()
    expected = stepped(optimizer, params, "eager")
    if what == "param":
        params[1].data = negated(params[1])
        assert params[1].is_neg()
    else:
        state = optimizer.state[params[1]]
        state[what] = negated(state[what])
    for param, before in zip(params, [param.grad.clone() for param in params], strict=True):
        param.grad = before
    optimizer.step()
    for param, value in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), value)


def test_a_hyperparameter_that_goes_while_another_key_comes_has_its_default():
    optimizer, params, _ = trained(lr=0.5)
    group = optimizer.param_groups[0]
    del group["lr"]
    group["note"] = 1
    before = params[0].detach().clone()
    optimizer.step()
    assert (params[0] - before).abs().max() < 0.01  # the default lr is 0.001


def test_a_hyperparameter_that_comes_while_another_key_goes_is_seen():
    optimizer, params, new_gradients = trained()
    group = optimizer.param_groups[0]
    del group["amsgrad"]
    group["note"] = 1
    optimizer.step()
    new_gradients()
    del group["note"]
    group["amsgrad"] = True
    optimizer.step()
    assert "max_exp_avg_sq" in optimizer.state[params[0]]


@pytest.mark.parametrize("size", [20, 40_000])
def test_gradients_in_another_layout_under_another_default_device(size):
    optimizer, params, _ = trained(shapes=((size, 5), (4, 5)))
    for param in params:
        param.grad = torch.randn(param.shape).t().contiguous().t()
    expected = stepped(optimizer, params, "eager")
    with torch.device("meta"):
        optimizer.step()
    for param, value in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), value)


def overlapping_later(base):
    """A parameter that no kernel walks, in the memory of one that has been stepped."""
    first = base[::2].requires_grad_()
    return [first, base.detach().requires_grad_()], lambda: None


def overlapping_after_a_swap(base):
    """A parameter that no kernel walks, which is laid over one that a kernel updates."""
    first = torch.randn(8)[::2].requires_grad_()
    second = base.detach().requires_grad_()

    def swap():
        first.data = second.detach()[::2]

    return [first, second], swap


@pytest.mark.parametrize("make", [overlapping_later, overlapping_after_a_swap])
def test_parameters_that_share_memory_are_taken_in_their_order_whoever_takes_them(make):
    torch.manual_seed(0)
    params, change = make(torch.randn(8))
    optimizer = descend.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.5)
    for param in params if make is overlapping_after_a_swap else params[1:]:
        param.grad = torch.ones(param.shape)
    optimizer.step()
    change()
    for param in params:
        param.grad = torch.randn(param.shape)
    expected = stepped(optimizer, params, "eager")
    optimizer.step()
    for param, value in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), value)


def test_a_step_that_fails_keeps_no_gradient_alive(monkeypatch):
    params = [torch.randn(4, requires_grad=True), torch.randn(2, dtype=torch.complex64)]
    optimizer = descend.SGD([params[0], params[1].requires_grad_()])

    def new_gradients():
        for param in params:
            param.grad = torch.ones(param.shape, dtype=param.dtype)

    new_gradients()
    optimizer.step()
    new_gradients()

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(eager, "_numbers", fail)
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    kept = [weakref.ref(param.grad) for param in params]
    for param in params:
        param.grad = None
    assert [ref() for ref in kept] == [None, None]
    assert optimizer.explain() == []


def test_a_usual_layout_is_seen_in_the_step_in_which_another_parameter_comes():
    torch.manual_seed(0)
    params = [torch.randn(20, 2)[:, 0].requires_grad_(), torch.randn(3, requires_grad=True)]
    optimizer = descend.AdamW(params)
    params[0].grad = torch.randn(20)
    optimizer.step()
    params[0].data = params[0].detach().contiguous()
    optimizer.state[params[0]] = {k: v.contiguous() for k, v in optimizer.state[params[0]].items()}
    optimizer.step()
    assert [call["backend"] for call in optimizer.explain()] == ["cpu"]
    params[0].data = torch.randn(20, 2)[:, 0]
    optimizer.step()
    assert [call["backend"] for call in optimizer.explain()] == ["eager"]
    params[0].data = params[0].detach().contiguous()
    params[1].grad = torch.randn(3)
    optimizer.step()
    assert [call["backend"] for call in optimizer.explain()] == ["cpu"]


@pytest.mark.parametrize("what", ["param", "exp_avg"])
def test_a_gradient_of_torch_operations_is_read_before_a_kernel_writes_there(what):
    torch.manual_seed(0)
    params = [torch.randn(8)[::2].requires_grad_(), torch.randn(4, requires_grad=True)]
    optimizer = descend.AdamW(params, lr=0.1)
    for param in params:
        param.grad = torch.randn(4)
    optimizer.step()
    other = params[1].detach() if what == "param" else optimizer.state[params[1]][what]
    params[0].grad, params[1].grad = other, torch.randn(4)
    expected = stepped(optimizer, params, "eager")
    optimizer.step()
    for param, value in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), value)


def test_a_shared_step_count_is_parted_whenever_its_parameters_come(backend):
    optimizer, params, new_gradients = trained(shapes=((3,), (3,)))
    optimizer.state[params[1]]["step"] = optimizer.state[params[0]]["step"]
    params[1].grad = None
    optimizer.param_groups[0]["maximize"] = True  # another plan, of the first parameter alone
    optimizer.step()
    new_gradients()
    optimizer.step()
    assert [optimizer.state[param]["step"].item() for param in params] == [3, 3]


def test_a_step_count_shared_by_a_kernel_and_torch_operations_is_parted():
    params = [torch.randn(8)[::2].requires_grad_(), torch.randn(4, requires_grad=True)]
    optimizer = descend.AdamW(params)
    for param in params:
        param.grad = torch.randn(4)
    optimizer.step()
    optimizer.state[params[1]]["step"] = optimizer.state[params[0]]["step"]
    optimizer.step()
    assert [optimizer.state[param]["step"].item() for param in params] == [2, 2]


OPTIMIZERS = {
    "AdamW": {"lr": 0.01},
    "SGD": {"lr": 0.01, "momentum": 0.9},
    "RMSprop": {"lr": 0.01, "centered": True},
    "NAdam": {"lr": 0.01},
}
SHAPES = ((), (0,), (3,), (4, 5), (33, 17), (2, 3, 4, 5))


def in_another_layout(rng: random.Random, tensor: Tensor) -> Tensor:
    """The same values elsewhere: transposed, with gaps, or a piece of something larger."""
    tensor = tensor.detach()
    kind = rng.randrange(3)
    if tensor.ndim > 1 and kind == 0:
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    if tensor.ndim and kind == 1:
        return torch.stack([tensor, tensor], -1)[..., 0]
    return torch.cat([tensor.new_zeros(3), tensor.reshape(-1)])[3:].view(tensor.shape)


def change(rng: random.Random, optimizer: descend.Optimizer, params: list[Tensor]) -> None:
    """Something that may happen between two steps."""
    param, group = rng.choice(params), rng.choice(optimizer.param_groups)
    state = optimizer.state.get(param)
    kind = rng.randrange(8)
    if kind == 0:
        param.data = param.detach().clone()
    elif kind == 1:
        param.data = in_another_layout(rng, param)
    elif kind == 2 and state:
        name = rng.choice([*state])
        state[name] = state[name].clone()
    elif kind == 3 and state:
        del optimizer.state[param]
    elif kind == 4:
        optimizer.load_state_dict(optimizer.state_dict())
    elif kind == 5:
        group["lr"] = torch.tensor(0.02) if rng.random() < 0.5 else 0.9 * float(group["lr"])
    elif kind == 6:
        group["maximize"] = not group["maximize"]
    elif kind == 7:
        param.requires_grad_(not param.requires_grad)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("seed", range(4))
def test_what_happened_before_a_step_leaves_no_trace_in_it(name, seed):
    rng = random.Random(f"{name} {seed}")
    torch.manual_seed(seed)
    params = [torch.randn(rng.choice(SHAPES), requires_grad=True) for _ in range(6)]
    groups = [{"params": params[:4]}, {"params": params[4:], "lr": 0.03}]
    clip = {"clip_norm": 1.0, "skip_nonfinite": True} if seed % 2 else {}
    optimizer = getattr(descend, name)(groups, **OPTIMIZERS[name], **clip)
    ever = set()
    for _ in range(30):
        for _ in range(rng.randrange(3)):
            change(rng, optimizer, params)
        for param in params:
            grad = torch.randn(param.shape)
            if rng.random() < 0.3:
                grad = in_another_layout(rng, grad)
            if grad.ndim and rng.random() < 0.1:
                grad = grad[:1].expand(param.shape)
            if clip and grad.numel() and rng.random() < 0.01:
                grad = grad * torch.nan
            param.grad = grad if param.requires_grad and rng.random() < 0.7 else None
            ever |= {param} if param.grad is not None else set()
        before = [(param._version, param.detach().clone()) for param in params]
        grads = [None if param.grad is None else param.grad.clone() for param in params]
        alike, close = stepped(optimizer, params), stepped(optimizer, params, "eager")
        optimizer.step()
        for param, same, near, grad, old in zip(params, alike, close, grads, before, strict=True):
            assert torch.equal(param, same)
            torch.testing.assert_close(param.detach(), near, rtol=1e-4, atol=1e-5)
            if grad is None:
                assert (param._version, param.tolist()) == (old[0], old[1].tolist())
            else:
                torch.testing.assert_close(param.grad, grad, rtol=0, atol=0, equal_nan=True)
        assert set(optimizer.state) <= ever


class Marked(Tensor):
    """A tensor of another type, with operations of its own for all that the engine knows."""


def test_a_gradient_of_another_type_is_left_to_torch_operations():
    optimizer, params, _ = trained(shapes=((3,), (3,)))
    params[1].grad = params[1].grad.as_subclass(Marked)
    optimizer.step()
    assert [call["backend"] for call in optimizer.explain()] == ["cpu", "eager"]


def sgd_steps_as_it_should(param: Tensor, optimizer: descend.Optimizer) -> None:
    expected = param.detach() - param.grad
    optimizer.step()
    torch.testing.assert_close(param.detach(), expected)


def test_parameters_without_state_may_change_their_layout_and_size():
    param = torch.randn(4, requires_grad=True)
    optimizer = descend.SGD([param], lr=1.0)
    param.grad = torch.randn(4)
    sgd_steps_as_it_should(param, optimizer)
    gaps = torch.randn(8)
    before = gaps[1::2].clone()
    param.data, param.grad = gaps[::2], torch.randn(8)[::2]
    sgd_steps_as_it_should(param, optimizer)
    assert torch.equal(gaps[1::2], before)
    param.grad = None
    param.data = torch.randn(4)
    param.grad = torch.randn(4)
    sgd_steps_as_it_should(param, optimizer)
    param.grad = None
    param.data = torch.randn(9)
    param.grad = torch.randn(9)
    sgd_steps_as_it_should(param, optimizer)


def test_a_gradient_of_another_shape_and_as_many_elements_is_refused():
    param = torch.randn(2, 3, requires_grad=True)
    optimizer = descend.SGD([param], lr=1.0)
    param.grad = torch.randn(2, 3)
    optimizer.step()
    param.data = torch.randn(3, 2)
    before = param.detach().clone()
    with pytest.raises(descend.errors.GradientError, match="shape"):
        optimizer.step()
    assert torch.equal(param, before)


def test_memory_of_a_parameter_without_a_gradient_may_become_anothers():
    optimizer, params, _ = trained()
    plan = optimizer._stepper._plan
    params[0].grad, memory = None, params[0].detach()
    params[0].data = torch.randn(4, 5)
    params[1].data = memory
    expected = stepped(optimizer, params)
    optimizer.step()
    assert all(map(torch.equal, params, expected))
    assert optimizer._stepper._plan is plan
    params[0].grad = torch.randn(4, 5)
    expected = stepped(optimizer, params)
    optimizer.step()
    assert all(map(torch.equal, params, expected))
    assert optimizer._stepper._plan is plan


def test_copies_of_gradients_are_gone_after_the_step(monkeypatch):
    copies = []

    def laid_out(grad, param):
        copy = tensor_layout.laid_out(grad, param)
        copies.append(weakref.ref(copy))
        return copy

    optimizer, params, _ = trained(shapes=((200, 300),))
    monkeypatch.setattr(pointers, "laid_out", laid_out)
    params[0].grad = torch.randn(300, 200).t()
    optimizer.step()
    assert [ref() for ref in copies] == [None]


def test_gradients_that_share_memory_are_looked_for_in_every_step():
    optimizer, params, new_gradients = trained()
    params[0].grad = params[1].detach()
    optimizer.step()
    new_gradients()
    params[2].grad = params[0].detach()
    expected = stepped(optimizer, params, "eager")
    optimizer.step()
    for param, value in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), value)


def test_a_state_that_is_replaced_is_the_one_that_is_updated():
    optimizer, params, _ = trained()
    new = {name: value.clone() for name, value in optimizer.state[params[0]].items()}
    optimizer.state[params[0]] = new
    optimizer.step()
    assert next(iter(new.values())).item() == 2
    assert optimizer.state[params[0]] is new


@pytest.mark.usefixtures("backend")
def test_a_step_count_without_memory_is_refused():
    optimizer, params, _ = trained()
    optimizer.state[params[0]]["step"].untyped_storage().resize_(0)
    before = params[1].detach().clone()
    with pytest.raises(descend.errors.StateError, match="step"):
        optimizer.step()
    assert torch.equal(params[1], before)
