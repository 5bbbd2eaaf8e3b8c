"""L-BFGS with every kind of parameter and gradient."""

import pytest
import torch
from torch.nn import Parameter

from descend import LBFGS
from optimizers.cases import tensor
from optimizers.minimizing import DOUBLE, SEARCHES, START, Run, rosenbrock


def _image(weight):
    return ((weight - 0.3) ** 4 * torch.arange(weight.numel()).view(weight.shape)).sum()


@SEARCHES
def test_p12_channels_last(search):
    """torch cannot view such a gradient as a vector."""
    start = tensor(0, (2, 3, 4, 5))
    last = start.to(memory_format=torch.channels_last)
    plain = Run(LBFGS, _image, start, lr=0.1, line_search_fn=search).steps(3)
    other = Run(LBFGS, _image, last, lr=0.1, line_search_fn=search).steps(3)
    assert not other.param.grad.is_contiguous()
    assert len(set(plain.losses)) > 20
    assert other.losses == pytest.approx(plain.losses, rel=1e-9)
    torch.testing.assert_close(other.param, plain.param, rtol=1e-6, atol=1e-6)
    assert other.param.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        Run(torch.optim.LBFGS, _image, last).steps(1)


KINDS = {
    "transposed": lambda x: x.t().contiguous().t(),
    "every second column": lambda x: torch.empty(6, 8, dtype=x.dtype)[:, ::2].copy_(x),
    "negated lazily": lambda x: torch._neg_view(-x),
}


@SEARCHES
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_gradients_of_any_layout(search, kind):
    start = tensor(0, (6, 4))
    plain = Run(LBFGS, _image, start, lr=0.1, line_search_fn=search).steps(3)
    other = Run(LBFGS, _image, start, lr=0.1, line_search_fn=search)
    other.param.data = KINDS[kind](start)

    def closure():
        loss = other.closure()
        other.param.grad = KINDS[kind](other.param.grad)
        return loss

    for _ in range(3):
        other.optimizer.step(closure)
    assert len(set(plain.losses)) > 20
    # The closure's own sums are taken in another order.
    assert other.losses == pytest.approx(plain.losses, rel=1e-9)


def test_an_expanded_gradient():
    run = Run(LBFGS, lambda x: x.sum() ** 2, torch.ones(4).double(), lr=0.1)

    def closure():
        run.param.grad = (2 * run.param.detach().sum()).expand(4)
        return run.param.detach().sum() ** 2

    before = closure()
    run.optimizer.step(closure)
    assert closure() < 0.1 * before


@SEARCHES
def test_a_conjugated_parameter_and_gradient(search):
    target = tensor(3, (6,), torch.complex128)

    def function(x):
        return ((x - target).abs() ** 2 * torch.arange(1.0, 7)).sum()

    start = tensor(4, (6,), torch.complex128)
    plain = Run(LBFGS, function, start, lr=0.1, line_search_fn=search).steps(3)
    other = Run(LBFGS, function, start, lr=0.1, line_search_fn=search)
    other.param.data = start.conj().resolve_conj().conj()

    def closure():
        loss = other.closure()
        other.param.grad = other.param.grad.conj().resolve_conj().conj()
        assert other.param.grad.is_conj()
        return loss

    assert other.param.is_conj()
    for _ in range(3):
        other.optimizer.step(closure)
    assert other.losses == plain.losses
    assert torch.equal(other.param.detach().resolve_conj(), plain.param.detach())


@SEARCHES
def test_a_sparse_gradient(search):
    def run(sparse):
        torch.manual_seed(0)
        layer = torch.nn.Embedding(8, 3, sparse=sparse, dtype=DOUBLE)
        optimizer = LBFGS(layer.parameters(), lr=0.1, line_search_fn=search)
        losses = []

        def closure():
            optimizer.zero_grad()
            loss = (layer(torch.tensor([1, 5, 1])) - 2).pow(4).sum()
            loss.backward()
            assert layer.weight.grad.is_sparse == sparse
            losses.append(loss.item())
            return loss

        for _ in range(3):
            optimizer.step(closure)
        return losses

    assert run(True) == run(False)


@SEARCHES
def test_parameters_without_gradient_and_without_elements(search):
    used, unused, empty = (Parameter(t) for t in (START.clone(), torch.ones(3), torch.ones(0, 2)))
    optimizer = LBFGS([unused, empty, used], lr=0.3, line_search_fn=search)
    alone = Run(LBFGS, rosenbrock, lr=0.3, line_search_fn=search).steps(2)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = rosenbrock(used)
        loss.backward()
        losses.append(loss.item())
        return loss

    for _ in range(2):
        optimizer.step(closure)
    # Zeros are added to the dot products, in another order.
    assert losses == pytest.approx(alone.losses, rel=1e-7)
    assert torch.equal(unused.detach(), torch.ones(3))


def test_nothing_to_optimize():
    """torch fails at the maximum of nothing."""
    empty = Parameter(torch.ones(0, 2))
    optimizer = LBFGS([empty])
    assert optimizer.step(lambda: 3.0) == 3.0
    assert optimizer.state[empty]["func_evals"] == 1
    optimizer = LBFGS([{"params": []}])
    assert optimizer.step(lambda: 3.0) == 3.0
    assert optimizer.explain() == []


@SEARCHES
def test_mixed_dtypes_are_computed_in_the_widest(search):
    parts = [Parameter(START[:5].float()), Parameter(START[5:].clone())]
    optimizer = LBFGS(parts, lr=0.3, line_search_fn=search)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = rosenbrock(torch.cat([parts[0].double(), parts[1]]))
        loss.backward()
        losses.append(loss.item())
        return loss

    exact = Run(LBFGS, rosenbrock, lr=0.3, line_search_fn=search).steps(1)
    for _ in range(10):
        optimizer.step(closure)
    assert optimizer.state[parts[0]]["d"].dtype == DOUBLE
    assert [part.dtype for part in parts] == [torch.float32, DOUBLE]
    # Half of the point is rounded to float32.
    assert losses[:4] == pytest.approx(exact.losses[:4], rel=1e-5)
    assert losses[-1] < (1e-6 if search else 0.1) * losses[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_are_computed_in_float32(dtype):
    """The square of a gradient of 300 elements near 1000 is beyond float16."""
    start = torch.linspace(-1000, 1000, 300).to(dtype)
    run = Run(LBFGS, lambda x: (x.float() ** 2).sum() / 2, start, line_search_fn="strong_wolfe")
    run.steps(2)
    assert run.param.dtype == dtype
    assert run.state["d"].dtype == torch.float32
    assert run.param.abs().max() < 1


def test_a_parameter_that_becomes_another_dtype_in_the_middle_of_training():
    """As after `model.double()`."""
    run = Run(LBFGS, rosenbrock, START.float(), line_search_fn="strong_wolfe", max_iter=5).steps(2)
    run.param.grad = None
    run.param.data = run.param.data.double()
    before = run.losses[-1]
    run.steps(20)
    assert run.state["old_dirs"][0].dtype == run.state["ro"][0].dtype == DOUBLE
    assert run.losses[-1] < 1e-6 * before


def test_state_on_another_device_follows_its_parameters():
    run = Run(LBFGS, rosenbrock, line_search_fn="strong_wolfe", max_iter=5).steps(2)
    kept = {key: value for key, value in run.state.items() if isinstance(value, torch.Tensor)}
    assert run.optimizer.to("meta") is run.optimizer
    assert {run.state[key].device.type for key in kept} == {"meta"}
    assert run.state["old_dirs"][0].device.type == "meta"
