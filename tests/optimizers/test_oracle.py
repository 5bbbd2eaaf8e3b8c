"""Every optimizer, every option, every backend, against the papers in float64 NumPy."""

from itertools import pairwise

import pytest
import torch

import oracles
from optimizers.cases import CASE_IDS, CASES, assert_close, ours, steps_on, tensor

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
            assert_close(kept, torch.from_numpy(value).to(dtype), f"{key} at step {t}")
        if name != "sgd":
            assert optimizer.state[param]["step"].item() == t


@pytest.mark.parametrize(("name", "options"), CASES, ids=CASE_IDS)
def test_the_oracle_moves(name, options):
    """The comparison above is worth something only while the numbers change at every step."""
    grads = [tensor(seed, SHAPE).numpy() for seed in range(1, 51)]
    results = oracles.run(name, grads, tensor(0, SHAPE).numpy(), **options)
    for before, after in pairwise(results):
        assert (before.param != after.param).all()
