"""clip_norm, clip_value, skip_nonfinite: as torch's utilities before the step, in the step."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimizers.cases import (
    IN_TORCH,
    NAMES,
    RICH,
    TORCH,
    assert_close,
    assert_same_training,
    give_gradients,
    ours,
    parameters,
    state_of,
    steps_on,
    tensor,
    train,
)

SHAPES = [(5, 3), (7,), (), (0,)]


def _clip_and_train(optimizer, params, steps, clip, first=1):
    for seed in range(first, first + steps):
        give_gradients(params, seed)
        clip(params)
        optimizer.step()


@pytest.mark.parametrize("limit", [0.01, 1.0, 4.5, 1e6])
@pytest.mark.parametrize("name", IN_TORCH)
def test_clip_norm_is_torchs_over_all_groups(backend, name, limit):
    mine, theirs = parameters(SHAPES), parameters(SHAPES)
    my_groups = [{"params": mine[:1]}, {"params": mine[1:], "lr": 0.05}]
    their_groups = [{"params": theirs[:1]}, {"params": theirs[1:], "lr": 0.05}]
    my_optimizer = ours(name)(my_groups, **RICH[name], clip_norm=limit)
    their_optimizer = TORCH[name](their_groups, **RICH[name])
    steps = steps_on(backend, few=3)
    train(my_optimizer, mine, steps)
    _clip_and_train(
        their_optimizer, theirs, steps, lambda params: torch.nn.utils.clip_grad_norm_(params, limit)
    )
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("limit", [0.01, 0.5, 1e6])
@pytest.mark.parametrize("name", IN_TORCH)
def test_clip_value_is_torchs(backend, name, limit):
    mine, theirs = parameters(SHAPES), parameters(SHAPES)
    my_optimizer = ours(name)(mine, **RICH[name], clip_value=limit)
    their_optimizer = TORCH[name](theirs, **RICH[name])
    steps = steps_on(backend, few=3)
    train(my_optimizer, mine, steps)
    _clip_and_train(
        their_optimizer,
        theirs,
        steps,
        lambda params: torch.nn.utils.clip_grad_value_(params, limit),
    )
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", IN_TORCH)
def test_clip_norm_then_clip_value(backend, name, maximize):
    mine, theirs = parameters(SHAPES), parameters(SHAPES)
    my_optimizer = ours(name)(mine, **RICH[name], maximize=maximize, clip_norm=2.0, clip_value=0.3)
    their_optimizer = TORCH[name](theirs, **RICH[name], maximize=maximize)

    def clip(params):
        torch.nn.utils.clip_grad_norm_(params, 2.0)
        torch.nn.utils.clip_grad_value_(params, 0.3)

    steps = steps_on(backend, few=3)
    train(my_optimizer, mine, steps)
    _clip_and_train(their_optimizer, theirs, steps, clip)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_clip_norm_over_mixed_dtypes_and_layouts(backend, name):
    """The norm is over everything: float64, float32, bfloat16 and complex, dense or not."""
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.complex64, torch.float64]

    def each():
        params = [torch.nn.Parameter(tensor(i, (6, 4), dtype)) for i, dtype in enumerate(dtypes)]
        params[-1] = torch.nn.Parameter(params[-1].data[:, ::2])
        return params

    mine, theirs = each(), each()
    my_optimizer = ours(name)(mine, **RICH[name], clip_norm=0.7)
    their_optimizer = ours(name)(theirs, **RICH[name])  # the update itself is tested elsewhere
    for seed in range(1, 4):
        give_gradients(mine, seed)
        give_gradients(theirs, seed)
        wide = [
            torch.view_as_real(param.grad).double() if param.is_complex() else param.grad.double()
            for param in theirs
        ]
        norm = torch.sqrt(sum((grad**2).sum() for grad in wide)).item()
        factor = min(1.0, 0.7 / (norm + 1e-6))
        for param in theirs:
            clipped = param.grad * factor
            if param.dtype == torch.bfloat16:  # clipped without another rounding
                clipped, param.grad = param.grad.float() * factor, None
                param.grad_dtype = torch.float32
            param.grad = clipped
        my_optimizer.step()
        their_optimizer.step()
        for param in theirs:
            param.grad = None
            param.grad_dtype = param.dtype
    for my_param, their_param in zip(mine, theirs, strict=True):
        if my_param.dtype == torch.bfloat16:
            # A float32 rounding of the factor may round to the neighbouring bfloat16, three times.
            assert_close(my_param, their_param, rtol=3 * 2.0**-8, atol=1e-4)
        elif my_param.dtype == torch.float64:
            # The norm of low-precision gradients is summed in float32 at the least.
            assert_close(my_param, their_param, rtol=1e-6, atol=1e-7)
        else:
            assert_close(my_param, their_param)


def test_clip_norm_of_a_gradient_too_large_to_square(backend):
    """1e30 squared overflows float32; the norm does not."""
    (param,) = parameters([(4,)], torch.float32)
    before = param.detach().clone()
    optimizer = ours("sgd")([param], lr=1.0, clip_norm=1.0)
    param.grad = torch.full((4,), 1e30)
    optimizer.step()
    assert_close(param, before - 0.5)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_clip_norm_of_nonfinite_gradients_is_torchs(backend, poison):
    (mine,), (theirs,) = parameters([(4,)]), parameters([(4,)])
    my_optimizer = ours("sgd")([mine], lr=1.0, clip_norm=1.0)
    their_optimizer = torch.optim.SGD([theirs], lr=1.0)
    for param in (mine, theirs):
        give_gradients([param], 1)
        param.grad[1] = poison
    torch.nn.utils.clip_grad_norm_([theirs], 1.0)
    my_optimizer.step()
    their_optimizer.step()
    assert_same_training(my_optimizer, [mine], their_optimizer, [theirs])


@given(
    limit=st.floats(1e-3, 1e3),
    sizes=st.lists(st.sampled_from([0, 1, 7, 16, 17, 33]), min_size=1, max_size=5),
    scale=st.sampled_from([0.0, 1e-20, 1e-3, 1.0, 1e10]),
)
def test_clip_norm_at_any_limit_and_scale(backend, limit, sizes, scale):
    mine, theirs = parameters([(n,) for n in sizes]), parameters([(n,) for n in sizes])
    my_optimizer = ours("sgd")(mine, lr=1.0, clip_norm=limit)
    their_optimizer = torch.optim.SGD(theirs, lr=1.0)
    for params in (mine, theirs):
        give_gradients(params, 1)
        for param in params:
            param.grad *= scale
    torch.nn.utils.clip_grad_norm_(theirs, limit)
    my_optimizer.step()
    their_optimizer.step()
    # Relative to the clipped gradient, which may be 1e3 times the parameter.
    assert_same_training(my_optimizer, mine, their_optimizer, theirs, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_skip_nonfinite_leaves_the_whole_step_out(backend, name, poison):
    params = parameters([(5, 3), (33,)])
    optimizer = ours(name)(params, **RICH[name], skip_nonfinite=True)
    assert optimizer.skipped_steps == 0
    train(optimizer, params, 2)
    values = [param.detach().clone() for param in params]
    states = [
        {key: value.clone() for key, value in state.items()}
        for state in state_of(optimizer, params)
    ]
    for count, index in ((1, 0), (2, 1), (3, 1)):
        give_gradients(params, 10 + count)
        params[index].grad.view(-1)[-1] = poison
        optimizer.step()
        assert optimizer.skipped_steps == count
    for param, value, state, kept in zip(
        params, values, state_of(optimizer, params), states, strict=True
    ):
        assert_close(param, value, rtol=0, atol=0)
        assert state.keys() == kept.keys()
        for key, expected in kept.items():
            assert_close(state[key], expected, key, rtol=0, atol=0)

    plain = parameters([(5, 3), (33,)])
    uninterrupted = ours(name)(plain, **RICH[name])
    train(uninterrupted, plain, 2)
    train(optimizer, params, 2, first=20)
    train(uninterrupted, plain, 2, first=20)
    assert_same_training(optimizer, params, uninterrupted, plain, rtol=0, atol=0)
    assert optimizer.skipped_steps == 3


@pytest.mark.parametrize("name", NAMES)
def test_skip_nonfinite_at_the_very_first_step(backend, name):
    params = parameters([(5,)])
    optimizer = ours(name)(params, **RICH[name], skip_nonfinite=True)
    give_gradients(params, 1)
    params[0].grad[0] = math.nan
    optimizer.step()
    assert optimizer.skipped_steps == 1
    expected = parameters([(5,)])
    assert_close(params[0], expected[0], rtol=0, atol=0)
    other = ours(name)(expected, **RICH[name])
    train(optimizer, params, 2)
    train(other, expected, 2)
    assert_same_training(optimizer, params, other, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64])
def test_skip_nonfinite_in_every_dtype(backend, dtype):
    params = parameters([(9,)], dtype)
    before = params[0].detach().clone()
    optimizer = ours("sgd")(params, lr=0.1, skip_nonfinite=True)
    give_gradients(params, 1)
    params[0].grad[4] = math.inf
    optimizer.step()
    assert optimizer.skipped_steps == 1
    assert_close(params[0], before, rtol=0, atol=0)
    give_gradients(params, 2)
    optimizer.step()
    assert optimizer.skipped_steps == 1
    assert not torch.equal(params[0], before)


def test_a_large_finite_gradient_is_not_skipped(backend):
    """Its square overflows float32, its sum would too; every number is finite."""
    params = parameters([(9,)], torch.float32)
    optimizer = ours("sgd")(params, lr=0.0, skip_nonfinite=True)
    params[0].grad = torch.full((9,), torch.finfo(torch.float32).max)
    optimizer.step()
    assert optimizer.skipped_steps == 0


@pytest.mark.parametrize("option", [{"clip_norm": 1.0}, {"clip_value": 0.1}])
@pytest.mark.parametrize("name", NAMES)
def test_skip_nonfinite_with_clipping(backend, name, option):
    params = parameters([(5,), (3,)])
    optimizer = ours(name)(params, **RICH[name], skip_nonfinite=True, **option)
    train(optimizer, params, 1)
    kept = [param.detach().clone() for param in params]
    give_gradients(params, 2)
    params[1].grad[0] = math.inf
    optimizer.step()
    assert optimizer.skipped_steps == 1
    for param, value in zip(params, kept, strict=True):
        assert_close(param, value, rtol=0, atol=0)
