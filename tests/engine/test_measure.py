"""Rules that measure before they update: sums, means and totals, on every backend."""

import copy
import math
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import numpy as np
import pytest
import torch

from checkpoint.bits import assert_same
from descend.engine import eager, forced_backend
from descend.errors import HyperparameterError, RuleError
from descend.rules import (
    Capturable,
    ClipNorm,
    ClipValue,
    Differentiable,
    LearningRate,
    Maximize,
    Measure,
    Optimizer,
    Params,
    Rule,
    Switch,
    WeightDecay,
    absolute,
    sqrt,
    where,
)

SHAPES = [(5, 3), (70_001,), (), (0,), (40, 30), (1,)]


def ratio_terms(param, grad, *, weight_decay):
    step = grad + param * weight_decay
    return param * param, step * step


def ratio_update(param, grad, *, lr, weight_decay, param_squares, step_squares):
    step = grad + param * weight_decay
    ratio = where(step_squares > 0, sqrt(param_squares) / sqrt(step_squares), 1.0)
    ratio = where(param_squares > 0, ratio, 1.0)
    return (param - lr * ratio * step,)


class TrustRatio(Optimizer):
    """Each tensor's step is as long as lr times the tensor."""

    rule = Rule(
        ratio_update,
        measure=Measure(ratio_terms, {"param_squares": "sum", "step_squares": "sum"}),
    )

    def __init__(
        self, params: Params, lr: LearningRate = 0.1, weight_decay: WeightDecay = 0.01
    ) -> None:
        super().__init__(params, locals())


def every_terms(param, grad, momentum, *, decay, flagged: bool):
    momentum = momentum * decay + grad
    if flagged:
        momentum = absolute(momentum)
    return momentum * momentum, absolute(grad), momentum * param


def every_update(
    param, grad, momentum, other, *, lr, size, decay, shift, flagged: bool, second: bool
):
    momentum = momentum * decay + grad
    if second:
        other = other + momentum
    return param - lr * size * momentum - shift * grad, momentum, other


def every_numbers(options, step, spent, squares, height, agreement):
    size = 1 / (1 + sqrt(squares) + height)
    return {
        "lr": options["lr"],
        "size": size,
        "decay": options["decay"] * (1 - 1 / (step + 1)),
        "shift": 0.01 * agreement / (1 + where(agreement < 0, -agreement, agreement)),
        "spent": spent + size,
    }


class Everything(Optimizer):
    """Sum, mean and total; a counter; a state under a flag; numbers of the terms by step."""

    rule = Rule(
        every_update,
        every_numbers,
        optional={"other": "second"},
        counters={"spent": 0.0},
        measure=Measure(
            every_terms,
            {"squares": "sum", "height": "mean", "agreement": "total"},
            lambda options, step, spent: {"decay": options["decay"] * (1 - 1 / (step + 1))},
        ),
    )

    def __init__(
        self,
        params: Params,
        lr: LearningRate = 0.1,
        decay: LearningRate = 0.9,
        flagged: Annotated[bool, Switch(), "take the momentum's size"] = False,
        second: Annotated[bool, Switch(), "keep another state"] = False,
        maximize: Maximize = False,
        capturable: Capturable = False,
        differentiable: Differentiable = False,
        clip_norm: ClipNorm = None,
        clip_value: ClipValue = None,
    ) -> None:
        super().__init__(params, locals())


def tensors(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            for shape in SHAPES]  # fmt: skip


@contextmanager
def backend_of(name):
    """The interpreter computes with NumPy, which warns of the NaNs that a GPU makes in silence."""
    with forced_backend(name), np.errstate(invalid="ignore", divide="ignore"):
        yield


def absent(step, index):
    """Which gradients are not there: another one in each step."""
    return index == step % len(SHAPES)


def stepped(make, steps=4, dtype=torch.float64, backend="cpu", groups=1):
    params = [torch.nn.Parameter(one) for one in tensors(dtype)]
    given = params if groups == 1 else [{"params": params[:2]}, {"params": params[2:], "lr": 0.02}]
    optimizer = make(given)
    with backend_of(backend):
        for step in range(steps):
            for index, (param, grad) in enumerate(
                zip(params, tensors(dtype, 10 + step), strict=True)
            ):
                param.grad = None if absent(step, index) else grad
            optimizer.step()
            assert {one["backend"] for one in optimizer.explain()} == {backend}
    return params, optimizer


def every_by_hand(steps, groups, second, flagged, sign=1.0):
    """`Everything` in plain loops over float64 numbers."""
    params = tensors()
    momenta = [torch.zeros_like(one) for one in params]
    counts, spent = [0] * len(params), [0.0] * len(params)
    for step in range(steps):
        grads = [sign * one for one in tensors(seed=10 + step)]
        live = [index for index in range(len(params)) if not absent(step, index)]
        decays = {index: 0.9 * (1 - 1 / (counts[index] + 2)) for index in live}
        new = {index: momenta[index] * decays[index] + grads[index] for index in live}
        shown = {index: new[index].abs() if flagged else new[index] for index in live}
        total = sum(float((shown[index] * params[index]).sum()) for index in live)
        for index in live:
            many = max(1, params[index].numel())
            height = float(grads[index].abs().sum()) / many
            size = 1 / (1 + math.sqrt(float((shown[index] ** 2).sum())) + height)
            lr = 0.1 if groups == 1 or index < 2 else 0.02
            params[index] = params[index] - lr * size * new[index]
            params[index] = params[index] - 0.01 * total / (1 + abs(total)) * grads[index]
            momenta[index] = new[index]
            counts[index] += 1
            spent[index] += size
    return params, spent


@pytest.mark.parametrize("backend", ["eager", "cpu", "gpu"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("options", [{}, {"flagged": True, "second": True}, {"maximize": True}])
def test_sum_mean_and_total_are_as_by_hand(backend, groups, options):
    params, optimizer = stepped(partial(Everything, **options), 7, backend=backend, groups=groups)
    flagged, second = options.get("flagged", False), options.get("second", False)
    sign = -1.0 if options.get("maximize") else 1.0
    wanted, spent = every_by_hand(7, groups, second, flagged, sign)
    for param, one in zip(params, wanted, strict=True):
        torch.testing.assert_close(param.detach(), one, rtol=1e-12, atol=1e-13)
    found = [float(optimizer.state[param]["spent"]) for param in params]
    assert found == pytest.approx(spent, rel=1e-12)
    assert ("other" in optimizer.state[params[0]]) == second


@pytest.mark.parametrize("backend", ["eager", "cpu", "gpu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("limits", [{}, {"clip_norm": 5.0}, {"clip_value": 0.3}])
def test_terms_see_the_gradient_as_the_update_does(backend, dtype, limits):
    params, _ = stepped(partial(Everything, **limits), 1, dtype, backend)
    start, grads = tensors(dtype), tensors(dtype, 10)
    grads[0] = torch.zeros_like(grads[0])  # it has none
    if "clip_norm" in limits:
        norm = math.sqrt(sum(float((one.double() ** 2).sum()) for one in grads))
        grads = [one.double() * min(1.0, 5.0 / (norm + 1e-6)) for one in grads]
    if "clip_value" in limits:
        grads = [one.double().clamp(-0.3, 0.3) for one in grads]
    grads = [one.double() for one in grads]
    total = sum(
        float((one * param.double()).sum()) for one, param in zip(grads, start, strict=True)
    )
    for index, param in enumerate(params):
        if index == 0:
            continue
        one = grads[index]
        size = 1 / (1 + float(one.norm()) + float(one.abs().sum()) / max(1, one.numel()))
        wanted = start[index].double() - (0.1 * size + 0.01 * total / (1 + abs(total))) * one
        # One rounding of the result, and of the terms' arithmetic in float32.
        torch.testing.assert_close(
            param.detach().double(), wanted, rtol=2 * torch.finfo(dtype).eps, atol=1e-6
        )


@pytest.mark.parametrize("backend", ["eager", "cpu", "gpu"])
@pytest.mark.parametrize("make", [TrustRatio, Everything])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_have_the_same_bits_on_one_and_on_two_threads(backend, make, dtype):
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            params, optimizer = stepped(make, 3, dtype, backend)
            found.append([[one.detach() for one in params], optimizer.state_dict()])
    finally:
        torch.set_num_threads(before)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


def test_a_sum_of_torchs_would_depend_on_the_threads():
    """Here it does not, whatever torch does with as many elements as it likes."""
    before = torch.get_num_threads()
    generator = torch.Generator().manual_seed(5)
    term = torch.randn(3_000_001, generator=generator, dtype=torch.float64)
    found, theirs = set(), set()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            found.add(eager._added_up(term).item())
            theirs.add(term.sum().item())
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
    assert len(theirs) > 1  # else there would be nothing to see to


def ones_terms(param, grad):
    return (where(grad == grad, 1.0, 0.0),)  # noqa: PLR0124


def ones_update(param, grad, *, ones):
    return (param * 0.0 + grad * 0.0 + ones,)


class Ones(Optimizer):
    """Puts the mean of ones into every element."""

    rule = Rule(ones_update, measure=Measure(ones_terms, {"ones": "mean"}))

    def __init__(self, params: Params, lr: LearningRate = 0.1) -> None:
        super().__init__(params, locals())


@pytest.mark.parametrize("backend", ["eager", "cpu", "gpu"])
def test_nothing_beyond_the_end_of_a_tensor_is_measured(backend):
    params = [torch.nn.Parameter(torch.zeros(size)) for size in (1, 3, 1023, 1024, 1025, 40_000)]
    for param in params:
        param.grad = torch.ones_like(param)
    with backend_of(backend):
        Ones(params).step()
    for param in params:
        assert torch.equal(param.detach(), torch.ones_like(param))


def test_a_sum_does_not_depend_on_what_else_is_summed():
    """The chunks of all tensors together are larger than those of one alone; blocks are not."""
    generator = torch.Generator().manual_seed(3)
    values = [torch.randn(size, generator=generator) for size in (100_003, 5_000_000, 7)]
    grads = [torch.randn(one.shape, generator=generator) for one in values]

    def moved(indices):
        params = [torch.nn.Parameter(values[index].clone()) for index in indices]
        for param, index in zip(params, indices, strict=True):
            param.grad = grads[index]
        TrustRatio(params).step()
        return [param.detach() for param in params]

    together = moved([0, 1, 2])
    for index in range(3):
        assert torch.equal(moved([index])[0], together[index])


@pytest.mark.parametrize("make", [TrustRatio, Everything])
def test_the_backends_agree(make):
    cpu, *others = [stepped(make, 5, torch.float32, one)[0] for one in ("cpu", "eager", "gpu")]
    for other in others:
        for a, b in zip(cpu, other, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-6)


def test_float64_sums_keep_what_float32_loses():
    """A hundred million ones and a little: float32 would stop counting at 2**24."""
    param = torch.nn.Parameter(torch.ones(2**24 + 1000, dtype=torch.float32))
    param.grad = torch.ones_like(param)
    TrustRatio([param], lr=1.0, weight_decay=0.0).step()
    assert torch.equal(param.detach(), torch.zeros_like(param))


def test_a_loaded_state_goes_on_with_the_same_bits():
    params, optimizer = stepped(Everything, 3)

    def go_on(params, optimizer):
        for step in range(2):
            for param, grad in zip(params, tensors(seed=20 + step), strict=True):
                param.grad = grad
            optimizer.step()
        return [param.detach().clone() for param in params], optimizer.state_dict()

    others = copy.deepcopy(params)
    other = Everything(others)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert_same(go_on(others, other), go_on(params, optimizer))


def test_what_autograd_records_is_recorded_through_the_sums():
    start = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    param = start.clone()
    param.grad = torch.tensor([0.5, -0.5], dtype=torch.float64, requires_grad=True)
    optimizer = Everything([param], differentiable=True)
    optimizer.step()
    param.sum().backward()

    def by_hand(param, grad):
        momentum = grad
        total = (momentum * param).sum()
        size = 1 / (1 + momentum.norm() + grad.abs().mean())
        return param - 0.1 * size * momentum - 0.01 * total / (1 + total.abs()) * grad

    again = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    by_hand(again, param.grad.detach()).sum().backward()
    torch.testing.assert_close(start.grad, again.grad, rtol=1e-12, atol=1e-12)


def test_captured_numbers_stay_tensors():
    wanted, _ = stepped(Everything, 3)
    params, _ = stepped(partial(Everything, capturable=True), 3, backend="eager")
    for a, b in zip(params, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_failed_step_changes_nothing():
    params, optimizer = stepped(Everything, 2)
    before = copy.deepcopy([[one.detach() for one in params], optimizer.state_dict()["state"]])
    for param, grad in zip(params, tensors(seed=30), strict=True):
        param.grad = grad
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(HyperparameterError):
        optimizer.step()
    assert_same([[one.detach() for one in params], optimizer.state_dict()["state"]], before)


@pytest.mark.parametrize("backend", ["eager", "cpu", "gpu"])
@pytest.mark.parametrize("size", [1e20, 1e-30])
def test_a_square_that_float32_cannot_hold_is_measured(backend, size):
    param = torch.nn.Parameter(torch.full((4,), size))
    param.grad = torch.full((4,), -size)
    optimizer = TrustRatio([param], lr=0.5, weight_decay=0.0)
    with backend_of(backend):
        optimizer.step()
    torch.testing.assert_close(param.detach(), torch.full((4,), 1.5 * size), rtol=1e-6, atol=0)


def test_zeros_everywhere_divide_nothing_by_nothing():
    for backend in ("eager", "cpu", "gpu"):
        param = torch.nn.Parameter(torch.zeros(3))
        param.grad = torch.zeros(3)
        optimizer = TrustRatio([param])
        with backend_of(backend):
            optimizer.step()
        assert param.tolist() == [0.0, 0.0, 0.0]


# What cannot be measured, and is told.


def good_terms(param, grad):
    return param * grad, grad


def other_state(param, grad, momentun):
    return momentun, grad


def numbers_alone(param, grad):
    return 1.0, grad


def whole(param, grad):
    return grad.sum(), grad


def plain_update(param, grad, momentum, *, lr):
    return param - lr * grad, momentum


@pytest.mark.parametrize(
    ("terms", "kinds", "told"),
    [
        (good_terms, {}, 'name each term: {"param_squares": "sum"}'),
        (good_terms, {"a": "sum", "b": "max"}, "take one of sum, mean, total"),
        (good_terms, {"a": "sum"}, "must return a tuple of 1: the terms a"),
        (good_terms, {"a": "sum", "momentum": "sum"}, "is a name that the update has already"),
        (other_state, {"a": "sum", "b": "sum"}, "did you mean momentum?"),
        (numbers_alone, {"a": "sum", "b": "sum"}, "the term a would be one number"),
        (whole, {"a": "sum", "b": "sum"}, "cannot be compiled"),
        (good_terms, {"a b": "sum", "b": "sum"}, "is no name"),
    ],
)
def test_a_measure_that_cannot_be_is_refused(terms, kinds, told):
    with pytest.raises(RuleError) as caught:
        Rule(plain_update, lambda options, step, **measured: {"lr": 0.1},
             measure=Measure(terms, kinds))  # fmt: skip
    assert told in str(caught.value)


@pytest.mark.parametrize("wrong", ["max", "if", "math", "item", "missing"])
def test_scalars_that_only_a_single_number_admits_are_refused(wrong):
    def scalars(options, step, a, b):
        if wrong == "max":
            return {"lr": max(a, 1.0)}
        if wrong == "if":
            return {"lr": 1.0 if a > 0 else 2.0}
        if wrong == "math":
            return {"lr": math.sqrt(a)}
        return {"lr": a.item()}

    def unnamed(options, step, a):
        return {"lr": a}

    class Wrong(Optimizer):
        rule = Rule(
            plain_update,
            unnamed if wrong == "missing" else scalars,
            measure=Measure(good_terms, {"a": "sum", "b": "mean"}),
        )

        def __init__(self, params: Params, lr: LearningRate = 0.1) -> None:
            super().__init__(params, locals())

    with pytest.raises(RuleError, match="what is measured comes as a tensor"):
        Wrong([torch.zeros(2)])


def test_a_measure_goes_with_no_sparse_gradients():
    with pytest.raises(RuleError, match="leave sparse out"):
        Rule(
            plain_update,
            sparse=lambda flags: True,
            measure=Measure(good_terms, {"a": "sum", "b": "sum"}),
        )
