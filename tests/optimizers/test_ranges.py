"""Gradients whose squares leave the range of their dtype, or cancel to nothing."""

import numpy as np
import pytest
import torch

import oracles
from descend.errors import ParameterError
from descend.optimizers import CATALOGUE
from optimizers.any_optimizer import IN_TORCH, torchs
from optimizers.cases import IDLE, ours, tensor

OPTIONS = [
    *((name, {}) for name in IN_TORCH if name != "lbfgs"),
    ("adam", {"amsgrad": True}),
    ("nadam", {"weight_decay": 0.1}),
    ("rmsprop", {"centered": True}),
    ("rmsprop", {"momentum": 0.9}),
]


def spiked(cls, options, size, device):
    """A parameter, and its state, after three steps of which the first two are huge."""
    param = torch.nn.Parameter(torch.ones(3, 2, device=device))
    optimizer = cls([param], **options)
    for grad in (size, size, 0.5):
        param.grad = torch.full_like(param, grad)
        if cls.__name__ == "SparseAdam":
            param.grad = param.grad.to_sparse(1)
        optimizer.step()
    return param, optimizer.state[param]


@pytest.mark.parametrize("size", [1e19, 1e20, 4e20])
@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_what_torch_can_step_with_is_stepped_with(backend, device, name, options, size):
    """Torch multiplies by 1 - beta before it squares, so its means hold what a square does not."""
    mine, state = spiked(CATALOGUE[name], options, size, device)
    theirs, their_state = spiked(torchs(name), options, size, "cpu")
    for key, value in {"param": theirs, **their_state}.items():
        if isinstance(value, torch.Tensor) and torch.isfinite(value).all():
            kept = mine if key == "param" else state[key]
            assert torch.isfinite(kept).all(), key
    if name != "adagrad" and torch.isfinite(theirs).all():  # its sum is of the squares themselves
        assert (mine != 1).all() or (theirs == 1).all()


@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_variance_is_never_below_zero(backend, device, dtype, momentum):
    """Of gradients that differ by a thousandth the variance is a millionth of their squares."""
    steps, shape = {"cpu": 3_000, "eager": 300, "gpu": 60}[backend], 64
    options = {"centered": True, "momentum": momentum}
    grads = [
        1 + 1e-3 * (2 * torch.rand(shape, dtype=torch.float64, generator=numbers) - 1)
        for numbers in [torch.Generator().manual_seed(0)]
        for _ in range(steps)
    ]
    param = torch.nn.Parameter(torch.ones(shape, dtype=dtype, device=device))
    optimizer = ours("rmsprop")([param], lr=1e-3, **options)
    for grad in grads:
        param.grad = grad.to(device, dtype)
        optimizer.step()
        assert torch.isfinite(param).all()
    if dtype in (torch.float64, torch.float32):
        rounded = [grad.to(dtype).double().numpy() for grad in grads]
        exact = oracles.run("rmsprop", rounded, np.ones(shape), np.longdouble, lr=1e-3, **options)
        expected = torch.from_numpy(exact[-1].param.astype(np.float64))
        # float32 holds a mean square of 1 to a tenth of that variance.
        tolerance = 1e-6 if dtype is torch.float64 else 1.0
        torch.testing.assert_close(param.detach().cpu().double(), expected, rtol=tolerance, atol=0)


def test_a_variance_is_more_exact_than_torchs():
    """Of gradients that differ by a hundredth torch's float32 is off by a hundredth."""
    grads = [1 + 1e-2 * tensor(seed, (256,), torch.float32) for seed in range(1_000)]
    exact = oracles.run(
        "rmsprop", [grad.double().numpy() for grad in grads], np.ones(256), centered=True
    )[-1]

    def error(cls):
        param = torch.nn.Parameter(torch.ones(256))
        optimizer = cls([param], centered=True)
        for grad in grads:
            param.grad = grad.clone()
            optimizer.step()
        return float(np.abs(param.detach().double().numpy() / exact.param - 1).max())

    assert error(ours("rmsprop")) < error(torchs("rmsprop")) / 2


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool], ids=str)
@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_whole_numbers_are_refused_where_they_have_a_gradient(backend, name, dtype):
    """Quantized weights are among a model's parameters, and have none."""
    whole = torch.nn.Parameter(torch.ones(3, 2, dtype=dtype), requires_grad=False)
    param = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = CATALOGUE[name]([param, whole])

    def closure():
        param.grad = torch.ones(3, 2)
        if name == "sparseadam":
            param.grad = param.grad.to_sparse(1)
        return 1.0

    arguments = [closure] if name == "lbfgs" else []
    closure()
    if name != "lbfgs":  # which moves all parameters together
        for _ in range(1 + IDLE.get(name, 0)):
            optimizer.step(*arguments)
        assert (whole == 1).all()
        assert (param != 1).all()
    before = param.detach().clone()
    whole.grad = torch.ones_like(whole)
    closure()
    with pytest.raises(ParameterError, match=r"parameter 1: the parameter is of torch\..*cut off"):
        optimizer.step(*arguments)
    assert (whole == 1).all()
    assert torch.equal(param.detach(), before)
