"""Cautious steps and cautious weight decay: around every oracle, by hand, in float64."""

import copy
import inspect

import numpy as np
import pytest
import torch

import descend
import oracles
from descend.engine import cautious, cpu
from descend.engine.rule import Rule, Variant
from descend.errors import GradientError, HyperparameterError, RuleError
from descend.optimizers import CATALOGUE
from descend.rules import Cautious, LearningRate, Measure, Optimizer, Params, WholeRule, sqrt
from optimizers.cases import (
    OPTIONS,
    RICH,
    assert_close,
    counts,
    give_gradients,
    ours,
    parameters,
    steps_on,
    tensor,
    threads,
    train,
)

SHAPE = (7, 5)  # 35 elements: two full AVX-512 vectors of float32 and a remainder
WITHOUT = {
    # not elementwise
    *("adafactor", "lbfgs", "muon", "soap"),
    # sparse gradients, in which no share can be counted
    "sparseadam",
    # whose parameter is no point that steps down a gradient, or whose decay goes by another rate
    *("prodigy", "schedulefreeadamw", "schedulefreesgd"),
}
NAMES = sorted({*OPTIONS} - WITHOUT)
BOTH = {"cautious": True, "cautious_weight_decay": True}
WAYS = {
    "step": {"cautious": True},
    "decay": {"cautious_weight_decay": True},
    "both": BOTH,
}
SHRINKING = {"adamw", "ademamix", "lion", "mars", "stableadamw"}
"""Their weight decay is always apart from the gradient."""


def default(name, option):
    return inspect.signature(ours(name)).parameters[option].default


def shrinks(name, options):
    """Whether the weight decay of an optimizer is apart from the gradient."""
    return name in SHRINKING or options.get("decoupled_weight_decay", False)


def rate(name, param, grad, state, t, options):
    """The lr of a step that an oracle takes: the tensor's own, where it has one."""
    oracle, lr = oracles.ORACLES[name], options.get("lr", default(name, "lr"))
    if name == "adopt" and t == 1:
        return 0.0
    if name == "stableadamw":
        # What a decay of 1 takes off ones is the rate.
        ones = np.ones_like(param)
        moved = [
            oracle.step(ones, grad, state, t, **{**options, "weight_decay": decay})[0]
            for decay in (0.0, 1.0)
        ]
        return float((moved[0] - moved[1]).mean())
    if name == "lamb":
        with_ratio, without = (
            param - oracle.step(param, grad, state, t, **{**options, "trust_ratio": ratio})[0]
            for ratio in (options.get("trust_ratio", True), False)
        )
        return lr * np.linalg.norm(with_ratio) / np.linalg.norm(without)
    return lr


def cautious_step(
    name, param, grad, state, t, cautious=False, cautious_weight_decay=False, **options
):
    """One step by hand: the oracle's without decay, masked and scaled, and then the decay."""
    oracle = oracles.ORACLES[name]
    decay = options.get("weight_decay", default(name, "weight_decay"))
    apart = cautious_weight_decay or shrinks(name, options)
    if apart:
        options["weight_decay"] = 0.0
    new, new_state = oracle.step(param, grad, state, t, **options)
    step = param - new
    if cautious:
        agrees = step * (-grad if options.get("maximize") else grad) > 0
        share = agrees.mean() if agrees.size else 0.0
        step = step * agrees / max(share, 1e-3)
    decayed = rate(name, param, grad, state, t, options) * decay * param if apart else 0.0
    if cautious_weight_decay:
        decayed = decayed * (step * param >= 0)
    return param - step - decayed, new_state


def run(name, grads, param, **options):
    """The parameter after each step, by hand."""
    start = {key: value for key, value in options.items() if key not in BOTH}
    state, found = oracles.ORACLES[name].start(param, **start), []
    for t, grad in enumerate(grads, start=1):
        param, state = cautious_step(name, param, grad, state, t, **options)
        found.append(oracles.Result(param, state))
    return found


# Everything turned on, decay too; and what else has a say in where a step goes.
CASES = [(name, {"weight_decay": 0.1, **RICH[name]}) for name in NAMES]
CASES += [
    ("sgd", {"lr": 0.02, "maximize": True}),
    ("lion", {"lr": 0.02, "betas": (0.8123, 0.7), "weight_decay": 0.2, "maximize": True}),
    ("radam", {"lr": 0.02, "weight_decay": 0.3, "decoupled_weight_decay": True}),
    ("adopt", {"lr": 0.02, "weight_decay": 0.3}),
    ("lamb", {"lr": 0.02, "weight_decay": 0.3, "trust_ratio": False}),
    ("rprop", {"lr": 0.02}),
]
IDS = [f"{name}-{index}" for index, (name, _) in enumerate(CASES)]
EVERY = [(way, torch.float64) for way in WAYS] + [("both", torch.float32)]


@pytest.mark.parametrize(("way", "dtype"), EVERY, ids=str)
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_agrees_with_the_papers(backend, device, name, options, way, dtype):
    steps = steps_on(backend, many=25)
    options = {**options, **WAYS[way]}
    grads = [tensor(seed, SHAPE, dtype) for seed in range(1, steps + 1)]
    param = torch.nn.Parameter(tensor(0, SHAPE, dtype, device))
    optimizer = ours(name)([param], **options)
    expected = run(
        name, [grad.double().numpy() for grad in grads], tensor(0, SHAPE, dtype).double().numpy(),
        **options,
    )  # fmt: skip
    for t, (grad, result) in enumerate(zip(grads, expected, strict=True), start=1):
        param.grad = grad.to(device, copy=True)
        optimizer.step()
        assert_close(param.cpu(), torch.from_numpy(result.param).to(dtype), f"step {t}")
        for key, value in result.state.items():
            kept = optimizer.state[param][key].cpu()
            wanted = torch.float64 if key in counts(name) else dtype
            assert_close(kept, torch.from_numpy(np.asarray(value)).to(wanted), f"{key}, step {t}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_caution_changes_something(name, way):
    """The comparison above is worth something only where the options do."""
    options = {"lr": 0.02, "weight_decay": 0.3, **WAYS[way]}
    grads = [tensor(seed, SHAPE).numpy() for seed in range(1, 6)]
    start = tensor(0, SHAPE).numpy()
    plain = oracles.run(name, grads, start, lr=0.02, weight_decay=0.3)[-1].param
    assert not np.allclose(run(name, grads, start, **options)[-1].param, plain, rtol=0, atol=2e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_rounds_once(backend, device, name, way):
    """Each step from where the optimizer is: float32 inside, and one rounding of the result."""
    options = {**RICH[name], **WAYS[way]}
    if name == "lion":  # or momentum and gradient may cancel exactly but for a rounding
        options["betas"] = (0.8123, 0.7)
    param = torch.nn.Parameter(tensor(0, SHAPE, torch.bfloat16, device))
    optimizer = ours(name)([param], **options)
    start = {key: value for key, value in options.items() if key not in BOTH}
    state = oracles.ORACLES[name].start(param.detach().cpu().double().numpy(), **start)
    for t in range(1, 6):
        before, grad = param.detach().cpu().double().numpy(), tensor(t, SHAPE, torch.bfloat16)
        expected, kept = cautious_step(name, before, grad.double().numpy(), state, t, **options)
        param.grad = grad.to(device)
        optimizer.step()
        assert_close(
            param.cpu(), torch.from_numpy(expected).to(torch.bfloat16), f"step {t}",
            rtol=2 * torch.finfo(torch.bfloat16).eps, atol=1e-4,
        )  # fmt: skip
        state = {key: optimizer.state[param][key].cpu().double().numpy() for key in kept}


@pytest.mark.parametrize("limits", [{"clip_norm": 2.0}, {"clip_value": 0.3}, {"maximize": True}])
@pytest.mark.parametrize("name", ["adamw", "lion", "sgd"])
def test_the_mask_sees_the_gradient_that_the_rule_sees(backend, name, limits):
    options = {"lr": 0.02, "weight_decay": 0.1, **BOTH}
    param = torch.nn.Parameter(tensor(0, SHAPE))
    optimizer = ours(name)([param], **options, **limits)
    given = [tensor(seed, SHAPE) for seed in range(1, 6)]
    seen = [grad.numpy() for grad in given]
    if "clip_norm" in limits:
        seen = [one * min(1.0, 2.0 / (np.linalg.norm(one) + 1e-6)) for one in seen]
    if "clip_value" in limits:
        seen = [one.clip(-0.3, 0.3) for one in seen]
    if "maximize" in limits:
        seen = [-one for one in seen]
    expected = run(name, seen, tensor(0, SHAPE).numpy(), **options)[-1].param
    for grad in given:
        param.grad = grad.clone()
        optimizer.step()
    assert_close(param, torch.from_numpy(expected))


@pytest.mark.parametrize("name", ["adamw", "nadam", "sgd"])
def test_groups_differ_in_it(backend, name):
    options = {"lr": 0.02, "weight_decay": 0.1}
    ways = [{}, *WAYS.values()]
    params = parameters([SHAPE] * len(ways))
    optimizer = ours(name)(
        [{"params": [param], **way} for param, way in zip(params, ways, strict=True)], **options
    )
    train(optimizer, params, 5)
    for index, (param, way) in enumerate(zip(params, ways, strict=True)):
        grads = [tensor(1000 * seed + index, SHAPE).numpy() for seed in range(1, 6)]
        expected = run(name, grads, tensor(index, SHAPE).numpy(), **options, **way)[-1].param
        assert_close(param, torch.from_numpy(expected), f"group {index}")
    assert "cautious" not in ours(name)(parameters([(2,)])).param_groups[0]


def test_it_may_be_turned_on_and_off_between_steps():
    options, start = {"lr": 0.02, "weight_decay": 0.1}, tensor(0, SHAPE)
    param = torch.nn.Parameter(start.clone())
    optimizer = descend.AdamW([param], **options, cautious=True)
    now, state = start.numpy(), oracles.ORACLES["adamw"].start(start.numpy())
    for t, way in enumerate([BOTH, {}, WAYS["decay"], WAYS["step"], {}], start=1):
        grad = tensor(t, SHAPE)
        group = optimizer.param_groups[0]
        group["cautious"] = way.get("cautious", False)
        group["cautious_weight_decay"] = way.get("cautious_weight_decay", False)
        param.grad = grad
        optimizer.step()
        now, state = cautious_step("adamw", now, grad.numpy(), state, t, **options, **way)
        assert_close(param, torch.from_numpy(now), f"step {t}")
        assert optimizer.explain()[0]["backend"] == "cpu"


@pytest.mark.parametrize("name", ["adam", "adopt", "nadam", "radam"])
@pytest.mark.parametrize("options", [{}, {"decoupled_weight_decay": True}])
def test_cautious_decay_is_apart_whichever_decay_it_takes_the_place_of(name, options):
    params = parameters([SHAPE]), parameters([SHAPE])
    both = [
        ours(name)(mine, lr=0.02, weight_decay=0.3, cautious_weight_decay=True, **more)
        for mine, more in zip(params, ({}, options), strict=True)
    ]
    for optimizer, mine in zip(both, params, strict=True):
        train(optimizer, mine, 5)
    assert torch.equal(params[0][0], params[1][0])


@pytest.mark.parametrize("way", WAYS)
def test_complex_numbers_are_pairs_of_real_ones(way):
    made = tensor(0, SHAPE, torch.complex128)
    param, real = torch.nn.Parameter(made), torch.nn.Parameter(torch.view_as_real(made).clone())
    mine = descend.AdamW([param], lr=0.02, weight_decay=0.1, **WAYS[way])
    theirs = descend.AdamW([real], lr=0.02, weight_decay=0.1, **WAYS[way])
    for seed in range(1, 6):
        param.grad = tensor(seed, SHAPE, torch.complex128)
        real.grad = torch.view_as_real(param.grad).clone()
        mine.step()
        theirs.step()
    assert_close(torch.view_as_real(param.detach()), real)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2)], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_few_elements_or_none(backend, shape, way):
    options = {"lr": 0.02, "weight_decay": 0.1, **WAYS[way]}
    params = parameters([shape, SHAPE])
    optimizer = descend.AdamW(params, **options)
    train(optimizer, params, 5)
    for index, param in enumerate(params):
        grads = [tensor(1000 * seed + index, param.shape).numpy() for seed in range(1, 6)]
        expected = run("adamw", grads, tensor(index, param.shape).numpy(), **options)[-1]
        assert_close(param, torch.from_numpy(np.asarray(expected.param)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_zeros_move_nothing(backend, name, way):
    """No element agrees, so that the share is 0; nothing becomes a NaN."""
    options = WAYS[way]
    param = torch.nn.Parameter(tensor(0, SHAPE))
    optimizer = ours(name)([param], lr=0.02, weight_decay=0, **options)
    for _ in range(3):
        param.grad = torch.zeros(SHAPE, dtype=torch.float64)
        optimizer.step()
    # ASGD shrinks the parameter by lr * lambd, which is a step as any other to it.
    if name != "asgd" or "cautious" in options:
        assert_close(param, tensor(0, SHAPE))


def test_a_share_of_nothing_is_scaled_by_no_more_than_1000(backend):
    """One element of 5000 agrees: 1 / 5000 counts as 1 / 1000."""
    param = torch.nn.Parameter(torch.zeros(5000, dtype=torch.float64))
    optimizer = descend.SGD([param], lr=1.0, momentum=0.9, cautious=True)
    param.grad = torch.ones(5000, dtype=torch.float64)
    optimizer.step()
    before = param.detach().clone()
    param.grad = torch.full((5000,), -0.1, dtype=torch.float64)
    param.grad[7] = 0.1
    optimizer.step()
    moved = before - param.detach()
    assert moved[7].item() == pytest.approx(1000 * (0.9 + 0.1))
    assert moved.count_nonzero().item() == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_nan_does_not_vanish(backend, way, poison):
    param = torch.nn.Parameter(tensor(0, SHAPE))
    optimizer = descend.AdamW([param], lr=0.02, **WAYS[way])
    train(optimizer, [param], 1)
    give_gradients([param], 2)
    param.grad[0, 0] = poison
    optimizer.step()
    assert param[0, 0].isnan()
    assert param.isnan().sum() == 1


def test_a_small_step_off_a_large_parameter_is_not_lost(backend):
    """In float32 alone 1 - 1e-8 is 1, and nothing would be left to be scaled."""
    param = torch.nn.Parameter(torch.ones(1000))
    optimizer = descend.SGD([param], lr=1e-8, momentum=0.9, cautious=True)
    param.grad = torch.ones(1000)
    optimizer.step()
    assert torch.equal(param.detach(), torch.ones(1000))
    param.grad = torch.full((1000,), -0.1)
    param.grad[7] = 0.1
    optimizer.step()
    assert param[7].item() == pytest.approx(1 - 1000 * 1e-8, abs=1e-7)
    assert (param.detach() != 1).sum() == 1


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "rprop", "nadam"])
def test_autograd_records_a_cautious_step(name):
    start = tensor(0, SHAPE).requires_grad_()
    grads = [tensor(seed, SHAPE).requires_grad_() for seed in (1, 2)]
    param = start.clone()
    options = {"lr": 0.02, "weight_decay": 0.1, **BOTH}
    optimizer = ours(name)([param], differentiable=True, **options)
    for grad in grads:
        param.grad = grad
        optimizer.step()
    expected = run(name, [one.detach().numpy() for one in grads], start.detach().numpy(), **options)
    assert_close(param, torch.from_numpy(expected[-1].param))
    param.sum().backward()
    assert start.grad.isfinite().all()
    # Where an element moved, the first gradient had a say in it by finite differences, too.
    if name == "sgd":
        agreed = torch.sign(grads[1].detach())  # without momentum all agree, and the scale is 1
        assert torch.equal(grads[1].grad, torch.full_like(agreed, -0.02))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_captured_numbers_stay_tensors(name, way):
    """As a CUDA graph takes the step: lr and counts are tensors."""
    options = {"weight_decay": 0.1, **WAYS[way]}
    (plain,), (captured,) = parameters([SHAPE]), parameters([SHAPE])
    lr = torch.tensor(0.02, dtype=torch.float64)
    train(ours(name)([plain], lr=0.02, **options), [plain], 4)
    train(ours(name)([captured], lr=lr, capturable=True, **options), [captured], 4)
    assert_close(captured, plain)


@pytest.mark.parametrize("way", WAYS)
def test_a_loaded_state_goes_on_with_the_same_bits(way):
    def made(params):
        return descend.AdamW(params, lr=0.02, weight_decay=0.1)

    params = parameters([SHAPE, (3,)], torch.float32)
    optimizer = descend.AdamW(params, lr=0.02, weight_decay=0.1, **WAYS[way])
    train(optimizer, params, 3)
    others = copy.deepcopy(params)
    other = made(others)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert {key: other.param_groups[0][key] for key in WAYS[way]} == WAYS[way]
    train(optimizer, params, 3, first=4)
    train(other, others, 3, first=4)
    for mine, its in zip(params, others, strict=True):
        assert torch.equal(mine, its)
    copied = copy.deepcopy(other)
    assert copied.param_groups[0]["params"] is not others
    # A state from before, without the options.
    old = copy.deepcopy(made(parameters([SHAPE, (3,)])).state_dict())
    other.load_state_dict(old)
    assert not other.options_of(other.param_groups[0])["cautious"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_one_and_two_threads_give_the_same_bits(backend, name, way):
    found = []
    for count in (1, 2, 1):
        with threads(count):
            params = parameters([(300, 301), (5,), (40_000,)], torch.float32)
            train(ours(name)(params, weight_decay=0.1, **WAYS[way]), params, 2)
            found.append([param.detach() for param in params])
    for first, *others in zip(*found, strict=True):
        assert all(torch.equal(first, other) for other in others)


# Beside code that others published.


@pytest.mark.parametrize(
    ("name", "mine", "its"),
    [
        ("Lion", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
        ("Lion", {}, {}),
        # Theirs masks the fast mean alone.
        ("AdEMAMix", {"alpha": 0.0}, {"alpha": 0.0}),
        (
            "AdEMAMix",
            {"alpha": 0.0, "weight_decay": 0.1},
            {"alpha": 0.0, "weight_decay": 0.1, "weight_decouple": True},
        ),
        ("ADOPT", {"clip_exponent": None}, {"clip_lambda": None}),
    ],
)
def test_200_steps_are_those_of_pytorch_optimizer(name, mine, its):
    published = pytest.importorskip("pytorch_optimizer")
    shape, lr = (200, 100), 0.01

    def trained(module, options):
        param = torch.nn.Parameter(tensor(0, shape))
        optimizer = getattr(module, name)([param], lr=lr, cautious=True, **options)
        for seed in range(1, 201):
            param.grad = tensor(seed, shape) + 0.3 * tensor(0, shape)
            optimizer.step()
        return param.detach()

    mine, theirs = trained(descend, mine), trained(published, its)
    # Their scale counts one element more among the thousands that agree: 1e-4 of each step.
    assert (mine - theirs).abs().max() < 2e-4 * (theirs - tensor(0, shape)).abs().max()
    plain = torch.nn.Parameter(tensor(0, shape))
    optimizer = getattr(descend, name)([plain], lr=lr)
    for seed in range(1, 201):
        plain.grad = tensor(seed, shape) + 0.3 * tensor(0, shape)
        optimizer.step()
    assert (mine - plain.detach()).abs().max() > 0.05


# Where there is no such option, or it cannot be.


def test_every_elementwise_optimizer_has_the_options():
    for name, cls in CATALOGUE.items():
        had = {"cautious", "cautious_weight_decay"} & set(inspect.signature(cls).parameters)
        assert had == (set() if name in WITHOUT else set(BOTH)), name
        if name not in WITHOUT:
            assert isinstance(cls.rule, Rule)


@pytest.mark.parametrize("name", sorted(WITHOUT & {*CATALOGUE}))
@pytest.mark.parametrize("option", BOTH)
def test_others_refuse_them(name, option):
    with pytest.raises(TypeError, match=option):
        ours(name)(parameters([(2, 2)]), **{option: True})


def test_a_misspelt_one_is_told():
    with pytest.raises(TypeError, match="did you mean"):
        descend.AdamW(parameters([(2,)]), cautios=True)
    with pytest.raises(HyperparameterError, match="cautious must be"):
        descend.AdamW(parameters([(2,)]), cautious=1.5)


def test_sparse_gradients_are_refused_where_a_share_is_counted():
    param = torch.nn.Parameter(tensor(0, SHAPE))
    param.grad = tensor(1, SHAPE).to_sparse()
    with pytest.raises(GradientError, match="cautious=True takes dense gradients"):
        descend.SGD([param], cautious=True).step()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_cautious_decay_of_sparse_gradients(decay):
    """Decay is that of all rows, also of those that the gradient does not hold."""
    dense, sparse = (torch.nn.Parameter(tensor(0, SHAPE)) for _ in range(2))
    grad = tensor(1, SHAPE)
    grad[::2] = 0
    dense.grad, sparse.grad = grad, grad.to_sparse(1)
    for param in (dense, sparse):
        descend.SGD([param], lr=0.1, weight_decay=decay, cautious_weight_decay=True).step()
    assert torch.equal(dense, sparse)
    assert torch.equal(dense[0], tensor(0, SHAPE)[0]) == (decay == 0)


# Rules of one's own.


def grad_squares(param, grad):
    return (grad * grad,)


def shared_update(param, grad, *, lr, squares):
    return (param - lr * grad / (1 + sqrt(squares)),)


class SharedLength(Optimizer):
    """Divided by the length of all gradients together."""

    rule = Rule(shared_update, measure=Measure(grad_squares, {"squares": "total"}))

    def __init__(
        self, params: Params, lr: LearningRate = 0.1, *, cautious: Cautious = False
    ) -> None:
        super().__init__(params, locals())


def test_a_total_is_over_cautious_groups_and_others(backend):
    """All steps go down the gradient, so that caution changes none."""
    found = []
    for ways in ((False, False), (False, True), (True, True)):
        params = parameters([SHAPE, (3,)])
        groups = [
            {"params": [param], "cautious": way} for param, way in zip(params, ways, strict=True)
        ]
        train(SharedLength(groups), params, 2)
        found.append(params)
    for plain, *others in zip(*found, strict=True):
        for other in others:
            assert_close(other, plain)


def flagged_update(param, grad, *, lr, cautious: bool):
    if cautious:
        lr = lr * 0.5
    return (param - lr * grad,)


def test_a_flag_of_the_rules_own_is_its_own():
    class Halved(Optimizer):
        rule = Rule(flagged_update)

        def __init__(
            self, params: Params, lr: LearningRate = 0.1, cautious: Cautious = False
        ) -> None:
            super().__init__(params, locals())

    param = torch.nn.Parameter(torch.ones(2))
    param.grad = torch.tensor([1.0, 0.0])
    Halved([param], cautious=True).step()
    assert param.tolist() == pytest.approx([0.95, 1.0])


def test_what_cannot_be_cautious_is_told():
    def whole(param, grad, state, options, step):
        param.sub_(grad)

    def update(param, grad, *, lr, cautious_scale):
        return (param - lr * grad * cautious_scale,)

    class Whole(Optimizer):
        rule = WholeRule(whole, shapes=lambda param, flags: {}, states=())

        def __init__(
            self, params: Params, lr: LearningRate = 0.1, cautious: Cautious = False
        ) -> None:
            super().__init__(params, locals())

    class Taken(Whole):
        rule = Rule(update, lambda options, step: {"lr": options["lr"], "cautious_scale": 2.0})

    Whole([torch.zeros(2)])
    Taken([torch.zeros(2)])
    with pytest.raises(RuleError, match="takes whole tensors"):
        Whole([torch.zeros(2)], cautious=True)
    with pytest.raises(RuleError, match="cautious_scale is a name of its own"):
        Taken([torch.zeros(2)], cautious=True)


def test_a_rule_without_a_weight_decay_has_none_to_be_cautious_with():
    class Plain(Optimizer):
        rule = Rule(shared_update, lambda options, step: {"lr": options["lr"], "squares": 0.0})

        def __init__(
            self, params: Params, lr: LearningRate = 0.1, cautious_weight_decay: Cautious = False
        ) -> None:
            super().__init__(params, locals())

    with pytest.raises(RuleError, match="weight_decay"):
        Plain([torch.zeros(2)], cautious_weight_decay=True)


@pytest.mark.filterwarnings("ignore:descend. the source of")
def test_a_rule_without_a_source_is_cautious_in_torch_operations():
    scope = {}
    exec("def update(param, grad, *, lr):\n    return (param - lr * grad,)", scope)

    class Typed(Optimizer):
        rule = Rule(scope["update"])

        def __init__(
            self, params: Params, lr: LearningRate = 0.1, *, cautious: Cautious = False
        ) -> None:
            super().__init__(params, locals())

    (plain,), (param,) = parameters([SHAPE]), parameters([SHAPE])
    train(descend.SGD([plain], lr=0.1), [plain], 2)
    optimizer = Typed([param], cautious=True)
    train(optimizer, [param], 2)
    assert optimizer.explain()[0]["backend"] == "eager"
    assert_close(param, plain)


# A kernel of a rule that is not cautious.


# The update of AdamW as the CPU's kernel has it.
ADAMW = """
v0_param = (u_param * literal((1.0 - (u_lr * u_weight_decay))))
v1_exp_avg = (u_exp_avg + ((u_grad - u_exp_avg) * literal((1.0 - u_beta1))))
v2_exp_avg_sq = ((u_exp_avg_sq * literal(u_beta2)) + ((u_grad * literal((1.0 - u_beta2))) * u_grad))
v3_root = sqrt(v2_exp_avg_sq)
v4_param = (v0_param - ((literal(u_step_size) * v1_exp_avg)
 / ((v3_root * literal(u_root_scale)) + literal(u_eps))))
store_param(at_param, i, v4_param)
store_exp_avg(at_exp_avg, i, v1_exp_avg)
store_exp_avg_sq(at_exp_avg_sq, i, v2_exp_avg_sq)
""".replace("\n /", " /")


@pytest.mark.parametrize("name", NAMES)
def test_kernels_without_caution_are_what_they_were(name):
    """The rule is the very same object, so kernels and the work of a step are."""
    optimizer = ours(name)(parameters([(2,)]), cautious=False, cautious_weight_decay=False)
    rule = optimizer.rule
    assert cautious.applied(rule, optimizer.options_of(optimizer.param_groups[0])) is rule
    if name == "adamw":
        flags = {"amsgrad": False, "coupled": False, "decoupled": True}
        variant = Variant(rule, tuple(flags.items()), (torch.float32,) * 4)
        lines = [line.strip() for line in cpu._source(variant).splitlines()]
        first, last = lines.index(ADAMW.split("\n")[1]), lines.index("if start == 0:")
        assert lines[first:last] == ADAMW.strip().splitlines()
