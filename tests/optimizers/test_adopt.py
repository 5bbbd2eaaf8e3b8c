"""ADOPT where it divides by what it has not seen yet."""

import pytest
import torch

import descend


@pytest.mark.parametrize("clip_exponent", [0.25, None])
def test_a_gradient_of_zeros_moves_nothing_even_without_eps(backend, device, clip_exponent):
    param = torch.nn.Parameter(torch.ones(5, device=device))
    optimizer = descend.ADOPT([param], lr=0.1, eps=0.0, clip_exponent=clip_exponent)
    for _ in range(3):
        param.grad = torch.zeros_like(param)
        optimizer.step()
    assert param.tolist() == [1.0] * 5
    assert not optimizer.state[param]["exp_avg_normed"].any()


def test_the_first_step_only_begins_the_mean_square(backend, device):
    param = torch.nn.Parameter(torch.ones(5, device=device))
    optimizer = descend.ADOPT(
        [param], lr=0.1, eps=0.0, weight_decay=0.5, decoupled_weight_decay=True, clip_exponent=None
    )
    param.grad = torch.full_like(param, 3.0)
    optimizer.step()
    assert param.tolist() == [1.0] * 5
    assert optimizer.state[param]["exp_avg_normed"].tolist() == [0.0] * 5
    assert optimizer.state[param]["exp_avg_sq"].tolist() == [9.0] * 5
