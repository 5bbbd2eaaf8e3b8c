"""Every dtype: one rounding per step in low precision, complex as pairs, mixtures."""

import pytest
import torch

import oracles
from optimizers.cases import (
    CASE_IDS,
    CASES,
    IN_TORCH,
    INTERPRETED,
    NAMES,
    RICH,
    TORCH,
    TORCH_CASE_IDS,
    TORCH_CASES,
    assert_close,
    assert_same_training,
    beside_torch,
    counts,
    give_gradients,
    ours,
    parameters,
    state_of,
    steps_on,
    tensor,
    train,
)

LOW = [torch.bfloat16, torch.float16]
COMPLEX = [torch.complex64, torch.complex128]
FLOAT16_SAFE = {"eps": 1e-3}  # 1e-8 squared gradients underflow in float16 state


def _id(dtype):
    return str(dtype).removeprefix("torch.")


def _spacing(values, dtype):
    """The distance between neighbouring numbers of `dtype` around float64 values (one ulp)."""
    info = torch.finfo(dtype)
    exponent = torch.floor(torch.log2(values.abs().clamp(min=info.smallest_normal)))
    return info.eps * 2.0**exponent


def _start(name, param, options):
    """The oracle's state before the first step, in the precision that a state of `param` has."""
    start = oracles.ORACLES[name].start(param.detach().double().numpy(), **options)
    return {
        key: value
        if key in counts(name)
        else torch.from_numpy(value).to(param.dtype).double().numpy()
        for key, value in start.items()
    }


def assert_rounded_once(actual, exact, magnitude, what, backend):
    """Raise unless `actual` is `exact` computed in float32 and rounded once to its own dtype.

    Half the distance between neighbours for the rounding (Triton's interpreter cuts bfloat16 off
    where a GPU rounds it: the whole distance there), and 16 roundings of float32 (relative
    2^-24) of the largest number that took part for the arithmetic before it.
    """
    cut_off = backend == "gpu" and INTERPRETED and actual.dtype == torch.bfloat16
    allowed = (1.0 if cut_off else 0.5) * _spacing(exact, actual.dtype) + 16 * 2.0**-24 * magnitude
    excess = ((actual.double() - exact).abs() - allowed).max().item()
    assert excess <= 0, f"{what} is off by {excess} more than one rounding allows"


@pytest.mark.parametrize("dtype", LOW, ids=_id)
@pytest.mark.parametrize(("name", "options"), CASES, ids=CASE_IDS)
def test_low_precision_is_rounded_once_per_step(backend, name, options, dtype):
    """Each step, from the state it really started from, is the float64 step rounded once."""
    if dtype == torch.float16 and "eps" in ours(name).hyperparameters:
        options = {**options, **FLOAT16_SAFE}
    (param,) = parameters([(7, 5)], dtype)
    optimizer = ours(name)([param], **options)
    for t in range(1, steps_on(backend) + 1):
        give_gradients([param], t)
        before, grad = param.detach().double().numpy(), param.grad.double().numpy()
        (state,) = state_of(optimizer, [param])
        oracle = oracles.ORACLES[name]
        started = {
            key: state[key].double().numpy() if key in state else value
            for key, value in _start(name, param, options).items()
        }
        if name == "sgd" and "momentum_buffer" in state:
            started = {"momentum_buffer": state["momentum_buffer"].double().numpy()}
        exact, exact_state = oracle.step(before, grad, started, t, **options)
        optimizer.step()

        exact = torch.from_numpy(exact)
        magnitude = torch.from_numpy(before).abs() + (exact - torch.from_numpy(before)).abs()
        assert_rounded_once(param.detach(), exact, magnitude, f"parameter at step {t}", backend)
        for key, value in exact_state.items():
            kept = optimizer.state[param][key]
            exact = torch.from_numpy(value)
            if key in counts(name):
                if key != "step" and ours(name).rule.measure is not None:
                    # As exact as the terms, which are computed in float32 and may cancel.
                    assert_close(kept, exact, key, rtol=1e-5, atol=1e-6)
                else:
                    assert_close(kept, exact, key)
                continue
            assert kept.dtype == dtype
            assert_rounded_once(kept, exact, exact.abs() + 1, f"{key} at step {t}", backend)


@pytest.mark.parametrize("dtype", LOW, ids=_id)
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_low_precision_against_torchs_fused_kernel(backend, name, dtype):
    """Adam and AdamW only: measured by the oracle above, torch 2.13's other fused CPU kernels

    are not rounded once (Adagrad rounds the decayed gradient) or not right at all (SGD).
    """
    options = {**RICH[name], "eps": 1e-3} if dtype == torch.float16 else RICH[name]
    mine, theirs = parameters([(7, 5)], dtype), parameters([(7, 5)], dtype)
    my_optimizer = ours(name)(mine, **options)
    their_optimizer = TORCH[name](theirs, **options, fused=True)
    info = torch.finfo(dtype)
    for t in range(1, steps_on(backend) + 1):
        train(my_optimizer, mine, 1, t)
        train(their_optimizer, theirs, 1, t)
        # Numbers one float32 rounding apart may round to neighbours: one unit in the last place.
        # Each step starts both from torch's numbers, or that unit would be carried on.
        # And 2^-22, four float32 roundings of terms near 1, where terms cancel.
        assert_same_training(
            my_optimizer, mine, their_optimizer, theirs, rtol=info.eps, atol=2.0**-22
        )
        with torch.no_grad():
            mine[0].copy_(theirs[0])
            for key, value in their_optimizer.state[theirs[0]].items():
                my_optimizer.state[mine[0]][key].copy_(value)


@pytest.mark.parametrize("dtype", COMPLEX, ids=_id)
@pytest.mark.parametrize(("name", "options"), TORCH_CASES, ids=TORCH_CASE_IDS)
def test_complex(backend, name, options, dtype):
    mine, theirs = parameters([(7, 5), ()], dtype), parameters([(7, 5), ()], dtype)
    my_optimizer, their_optimizer = ours(name)(mine, **options), TORCH[name](theirs, **options)
    steps = steps_on(backend)
    train(my_optimizer, mine, steps)
    train(their_optimizer, theirs, steps)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "prodigy"])
def test_mixed_dtypes_in_one_optimizer(backend, name):
    """Each tensor comes out bit for bit as from an optimizer of its own.

    Prodigy's estimate is one of all tensors together.
    """
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.float32]
    options = RICH[name]

    def each():
        return [torch.nn.Parameter(tensor(seed, (9,), dtype)) for seed, dtype in enumerate(dtypes)]

    together, alone = each(), each()
    one = ours(name)(together, **options)
    several = [ours(name)([param], **options) for param in alone]
    for seed in range(1, steps_on(backend) + 1):
        give_gradients(together, seed)
        give_gradients(alone, seed)
        one.step()
        for optimizer in several:
            optimizer.step()
    for param, other, optimizer in zip(together, alone, several, strict=True):
        assert_same_training(one, [param], optimizer, [other], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_float32_gradient_of_a_bfloat16_parameter(backend, name):
    """`param.grad_dtype` lets a gradient be kept in higher precision; torch's Adam fails there."""
    (mine,) = parameters([(33,)], torch.bfloat16)
    if not hasattr(mine, "grad_dtype"):
        pytest.skip("this torch has no grad_dtype")
    mine.grad_dtype = torch.float32
    optimizer = ours(name)([mine], **RICH[name])
    grad = tensor(1, (33,), torch.float32)
    before, started = mine.detach().double(), _start(name, mine, RICH[name])
    mine.grad = grad.clone()
    optimizer.step()
    exact, _ = oracles.ORACLES[name].step(
        before.numpy(),
        grad.double().numpy(),
        started,
        1,
        **RICH[name],
    )
    exact = torch.from_numpy(exact)
    assert_rounded_once(
        mine.detach(), exact, before.abs() + (exact - before).abs(), "parameter", backend
    )
    assert mine.dtype == torch.bfloat16
    assert torch.equal(mine.grad, grad)


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_bfloat16_gradient_of_a_float32_parameter(backend, name):
    (mine,), (theirs,) = parameters([(33,)], torch.float32), parameters([(33,)], torch.float32)
    if not hasattr(mine, "grad_dtype"):
        pytest.skip("this torch has no grad_dtype")
    mine.grad_dtype = torch.bfloat16
    my_optimizer, their_optimizer = beside_torch(name, [mine], [theirs])
    for seed in range(1, 4):
        mine.grad = tensor(seed, (33,), torch.bfloat16)
        theirs.grad = mine.grad.float()
        my_optimizer.step()
        their_optimizer.step()
    assert_same_training(my_optimizer, [mine], their_optimizer, [theirs])


@pytest.mark.parametrize("name", NAMES)
def test_p3_float32_state_of_a_bfloat16_parameter(backend, name):
    """State given in float32 is kept and used in float32."""
    (param,) = parameters([(9,)], torch.bfloat16)
    optimizer = ours(name)([param], **RICH[name])
    train(optimizer, [param], 2)
    state = optimizer.state[param]
    for key in list(state):
        state[key] = state[key].float()
    saved = optimizer.state_dict()
    other = ours(name)([param], **RICH[name])
    other.load_state_dict(saved)
    kept = [key for key in other.state[param] if key not in counts(name)]
    assert {other.state[param][key].dtype for key in kept} == {torch.float32}
    before = {key: other.state[param][key].clone() for key in kept}
    train(other, [param], 1, first=3)
    start = ours(name).rule.copies
    for key in {*kept}.difference(start):
        assert other.state[param][key].dtype == torch.float32, key
        assert not torch.equal(other.state[param][key], before[key]), key
