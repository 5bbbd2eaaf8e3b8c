"""Every optimizer, every option, every backend, against the papers in float64 NumPy."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import oracles
from optimizers.cases import (
    CASE_IDS,
    CASES,
    IN_TORCH,
    RICH,
    TORCH,
    assert_close,
    counts,
    ours,
    steps_on,
    tensor,
)

SHAPE = (7, 5)  # 35 elements: two full AVX-512 vectors of float32 and a remainder


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=CASE_IDS)
def test_agrees_with_the_paper(backend, device, name, options, dtype):
    steps = steps_on(backend)
    grads = [tensor(seed, SHAPE, dtype) for seed in range(1, steps + 1)]
    param = torch.nn.Parameter(tensor(0, SHAPE, dtype, device))
    optimizer = ours(name)([param], **options)
    expected = oracles.run(
        name, [grad.double().numpy() for grad in grads], tensor(0, SHAPE, dtype).numpy(), **options
    )

    for t, (grad, result) in enumerate(zip(grads, expected, strict=True), start=1):
        param.grad = grad.to(device, copy=True)
        optimizer.step()
        assert_close(param.cpu(), torch.from_numpy(result.param).to(dtype), f"step {t}")
        for key, value in result.state.items():
            kept = optimizer.state[param][key].cpu()
            expected_dtype = torch.float64 if key in counts(name) else dtype
            assert_close(kept, torch.from_numpy(value).to(expected_dtype), f"{key} at step {t}")
        if counts(name):
            assert optimizer.state[param]["step"].item() == t


@pytest.mark.parametrize(("name", "options"), CASES, ids=CASE_IDS)
def test_the_oracle_moves(name, options):
    """The comparison above is worth something only while the numbers change at every step."""
    grads = [tensor(seed, SHAPE).numpy() for seed in range(1, 51)]
    results = oracles.run(name, grads, tensor(0, SHAPE).numpy(), **options)
    for before, after in pairwise(results):
        moved = before.param != after.param
        if name == "rprop":  # but for the elements whose gradient has just changed its sign
            moved |= (after.state["prev"] == 0) & (before.state["prev"] != 0)
        assert moved.all()


def _error(make, start, grads, exact, options):
    """The root mean square error of a parameter after all steps, relative to its magnitude."""
    param = torch.nn.Parameter(start.clone())
    optimizer = make([param], **options)
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    error = param.detach().numpy() - exact
    return float(np.sqrt((error**2).mean() / (exact**2).mean()))


@pytest.mark.parametrize("name", IN_TORCH)
def test_float64_after_1000_steps_is_no_further_from_the_paper_than_torchs(name):
    """The oracle computes in extended precision, so that its own roundings do not count.

    For float32 and bfloat16 see test_accuracy.py.
    """
    if np.finfo(np.longdouble).eps > np.finfo(np.float64).eps / 100:
        pytest.skip("no extended precision on this machine")
    options, start = RICH[name], tensor(0, (16, 16))
    drift = tensor(77, start.shape)
    grads = [tensor(seed, start.shape) + 0.5 * drift for seed in range(1, 1001)]
    numbers = [grad.numpy() for grad in grads]
    exact = oracles.run(name, numbers, start.numpy(), np.longdouble, **options)[-1].param
    mine = _error(ours(name), start, grads, exact, options)
    theirs = _error(getattr(torch.optim, TORCH[name].__name__), start, grads, exact, options)
    # Over 256 elements the ratio of two such errors is 1 give or take 4 % by chance.
    assert mine <= 1.2 * theirs
    if name in ("asgd", "nadam"):  # torch has float32 scalars there
        assert mine < 1e-3 * theirs
