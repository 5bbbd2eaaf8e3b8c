"""A rule in a user's own file is an optimizer like any other."""

import copy
import importlib
import itertools
import math
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch

import descend
from children import python
from descend.errors import HyperparameterError, RuleError
from optimizers.cases import assert_same_training, give_gradients, parameters, steps_on, train

DOCUMENT = Path(__file__).parents[1] / "docs" / "your-own-rule.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
SHAPES = [(5, 3), (7,), ()]

_count = itertools.count()


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Write a file and import it, as its user would."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def write(text):
        name = f"my_rule_{next(_count)}"
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        made.append(name)
        return importlib.import_module(name)

    yield write
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def signum(imported):
    """The optimizer of the first example of the documentation."""
    return imported(EXAMPLES[0]).Signum


def _reference(params, grads, lr, beta, weight_decay):
    """Signum by hand, in float64."""
    values = [param.detach().double().cpu() for param in params]
    means = [torch.zeros_like(value) for value in values]
    for one in grads:
        for i, grad in enumerate(one):
            means[i] = means[i] * beta + grad.double().cpu() * (1 - beta)
            values[i] = values[i] - lr * (means[i].sign() + values[i] * weight_decay)
    return values, means


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_example_does_what_it_says(signum, backend, device, dtype):
    params = parameters(SHAPES, dtype, device=device)
    options = {"lr": 0.0625, "beta": 0.75, "weight_decay": 0.25}
    begun = [param.detach().clone() for param in params]
    optimizer = signum(params, **options)
    steps = steps_on(backend, 6)
    grads = []
    for step in range(1, steps + 1):
        give_gradients(params, step)
        grads.append([param.grad.clone() for param in params])
        optimizer.step()
    values, means = _reference(begun, grads, **options)
    # 16-bit tensors are rounded to their 8 or 11 bits at every one of the steps.
    rounding = {torch.bfloat16: 6 * 2**-8, torch.float16: 6 * 2**-11, torch.float32: 2e-6}
    tolerance = rounding.get(dtype, 1e-14)
    for param, value, mean in zip(params, values, means, strict=True):
        buffer = optimizer.state[param]["momentum_buffer"]
        assert buffer.dtype == dtype
        torch.testing.assert_close(buffer.double().cpu(), mean, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            param.detach().double().cpu(), value, rtol=tolerance, atol=2 * tolerance
        )
        assert list(optimizer.state[param]) == ["step", "momentum_buffer"]
    assert {record["backend"] for record in optimizer.explain()} == {backend}
    assert sum(record["tensors"] for record in optimizer.explain()) == len(SHAPES)


def test_its_options_are_checked(signum):
    params = parameters(SHAPES)
    with pytest.raises(HyperparameterError, match=r"Signum: beta=2 is not allowed: beta must be"):
        signum(params, beta=2)
    with pytest.raises(HyperparameterError, match=r"no 'weight_deacy' .*did you mean weight_decay"):
        signum([{"params": params, "weight_deacy": 0.1}])
    with pytest.raises(HyperparameterError, match=r"lr=-1 in group 0 is not allowed"):
        signum([{"params": params, "lr": -1}])
    with pytest.raises(TypeError, match="momentum"):
        signum(params, momentum=0.9)
    optimizer = signum(params)
    optimizer.param_groups[0]["beta"] = 1.5
    give_gradients(params, 1)
    before = [param.detach().clone() for param in params]
    with pytest.raises(HyperparameterError, match=r"beta=1.5 in group 0"):
        optimizer.step()
    assert all(map(torch.equal, before, params))


def test_it_takes_groups_now_and_later(signum, backend, device):
    params = parameters(SHAPES, device=device)
    optimizer = signum([{"params": params[:1], "lr": 0.5}, {"params": params[1:2]}], lr=0.25)
    begun = [param.detach().clone() for param in params]
    train(optimizer, params, 1)
    optimizer.add_param_group({"params": params[2:], "lr": 0.125})
    train(optimizer, params, 1, first=2)
    for param, start, moved in zip(params, begun, (1.0, 0.5, 0.125), strict=True):
        distance = (param - start).abs()
        assert distance.max().item() <= moved + 1e-12
        assert distance.max().item() > 0
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle"])
def test_it_continues_after_it_was_saved_and_loaded(signum, backend, device, way):
    params = parameters(SHAPES, device=device)
    optimizer = signum(params, lr=0.1, weight_decay=0.5)
    train(optimizer, params, 3)
    if way == "state_dict":
        theirs = [torch.nn.Parameter(param.detach().clone()) for param in params]
        other = signum(theirs, lr=0.7)
        other.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    else:
        both = (params, optimizer)
        theirs, other = (
            copy.deepcopy(both) if way == "deepcopy" else pickle.loads(pickle.dumps(both))
        )
    train(optimizer, params, 3, first=4)
    train(other, theirs, 3, first=4)
    assert_same_training(other, theirs, optimizer, params, rtol=0, atol=0)
    assert other.param_groups[0]["lr"] == 0.1


def test_it_clips_where_it_declares_to(signum, backend, device):
    params, clipped = parameters(SHAPES, device=device), parameters(SHAPES, device=device)
    optimizer, other = signum(params, lr=0.1), signum(clipped, lr=0.1, clip_norm=0.5)
    for seed in (1, 2):
        give_gradients(params, seed)
        give_gradients(clipped, seed)
        torch.nn.utils.clip_grad_norm_(params, 0.5)
        optimizer.step()
        other.step()
    for mine, theirs in zip(clipped, params, strict=True):
        kept = other.state[mine]["momentum_buffer"]
        torch.testing.assert_close(kept, optimizer.state[theirs]["momentum_buffer"])
    assert "clip_norm" not in optimizer.param_groups[0]


# The other examples of the documentation, as one file.


@pytest.fixture
def documented(imported):
    return imported("\n\n".join(EXAMPLES))


def test_the_documentation_has_the_examples_that_are_tested():
    classes = re.findall(r"^class (\w+)", "\n".join(EXAMPLES), re.MULTILINE)
    assert classes == ["Signum", "MyAdam", "LARS", "WarmAdam", "CentredSGD"]


@pytest.mark.parametrize("peaked", [False, True])
def test_an_adam_of_ones_own_is_adam(documented, backend, device, peaked):
    params, theirs = parameters(SHAPES, device=device), parameters(SHAPES, device=device)
    mine = documented.MyAdam(params, lr=0.02, betas=(0.8, 0.7), peaked=peaked)
    other = torch.optim.Adam(theirs, lr=0.02, betas=(0.8, 0.7), amsgrad=peaked)
    steps = steps_on(backend, 20)
    train(mine, params, steps)
    train(other, theirs, steps)
    for param, reference in zip(params, theirs, strict=True):
        torch.testing.assert_close(param, reference, rtol=1e-12, atol=1e-13)
        assert list(mine.state[param]) == ["step", "mean", "square"] + ["peak"] * peaked
    assert {record["backend"] for record in mine.explain()} == {backend}


def test_a_rule_on_top_of_an_optimizer_that_is_there(documented, backend, device):
    params, theirs = parameters(SHAPES, device=device), parameters(SHAPES, device=device)
    mine = documented.WarmAdam(params, lr=0.02, amsgrad=True)
    other = descend.Adam(theirs, lr=0.02, amsgrad=True)
    for step in range(1, steps_on(backend, 20) + 1):
        train(mine, params, 1, first=step)
        other.param_groups[0]["lr"] = 0.02 * step / 100
        train(other, theirs, 1, first=step)
    assert_same_training(mine, params, other, theirs, rtol=1e-13, atol=1e-14)
    assert mine.param_groups[0].keys() == descend.Adam(parameters(SHAPES)).param_groups[0].keys()
    with pytest.raises(HyperparameterError, match="WarmAdam: betas"):
        documented.WarmAdam(params, betas=(2, 3))


def test_a_rule_that_measures(documented, backend, device):
    params = parameters(SHAPES, device=device)
    values = [param.detach().clone() for param in params]
    optimizer = documented.LARS(params, lr=0.5, weight_decay=0.1)
    for seed in (1, 2, 3):
        give_gradients(params, seed)
        for i, param in enumerate(params):
            step = param.grad + 0.1 * values[i]
            ratio = values[i].norm() / step.norm() if values[i].any() and step.any() else 1.0
            values[i] = values[i] - 0.5 * ratio * step
        optimizer.step()
    assert {record["backend"] for record in optimizer.explain()} == {backend}
    for param, value in zip(params, values, strict=True):
        torch.testing.assert_close(param.detach(), value, rtol=1e-11, atol=1e-12)


def test_a_rule_for_whole_tensors(documented):
    params = parameters(SHAPES)
    values = [param.detach().clone() for param in params]
    optimizer = documented.CentredSGD(params, lr=0.5)
    momenta = [torch.zeros_like(value) for value in values]
    for seed in (1, 2, 3):
        give_gradients(params, seed)
        for i, param in enumerate(params):
            momenta[i] = 0.9 * momenta[i] + param.grad - param.grad.mean(0)
            values[i] = values[i] - 0.5 * momenta[i]
        optimizer.step()
    for param, value in zip(params, values, strict=True):
        torch.testing.assert_close(param.detach(), value, rtol=1e-11, atol=1e-12)


# What goes wrong

HEAD = """\
from typing import Annotated
from descend.rules import LearningRate, Betas, Optimizer, Range, Rule, Switch, WeightDecay, sqrt

"""


def _mine(rule="Rule(update)", update="param, grad, *, lr", options='"lr": lr', more=""):
    return f"""{HEAD}
def update({update}):
    return (param - lr * grad,)

{more}
class Mine(Optimizer):
    rule = {rule}

    def __init__(self, params, lr: LearningRate = 0.5):
        super().__init__(params, {{{options}}})
"""


def test_what_cannot_be_compiled_is_refused_when_the_file_is_imported(imported):
    text = _mine().replace("param - lr * grad", "param - lr * grad ** 2")
    with pytest.raises(RuleError, match=r"my_rule_\d+\.py:6: in update\(\), `grad \*\* 2` cannot"):
        imported(text)


WRONG = {
    "a number that is no option": (
        _mine(update="param, grad, *, lr, beta"),
        "it takes beta, and the optimizer has no option of that name (lr); put beta into the "
        "constructor and its defaults, or compute it in `scalars` (a number) or `flags` (a bool)",
    ),
    "a misspelt option": (
        _mine(update="param, grad, *, lr, weight_decay", options='"lr": lr, "weigth_decay": 0'),
        "it takes weight_decay, and the optimizer has no option of that name (lr, weigth_decay); "
        "did you mean weigth_decay?",
    ),
    "a flag that is no option": (
        _mine(update="param, grad, *, lr, nesterov: bool"),
        "it takes nesterov, and the optimizer has no option of that name (lr); put nesterov into",
    ),
    "a pair": (
        _mine(update="param, grad, *, lr, betas", options='"lr": lr, "betas": (0.9, 0.99)'),
        "the scalar betas is (0.9, 0.99), and must be a number; compute one in `scalars`: "
        "{'betas': ...}",
    ),
    "a missing scalar": (
        _mine("Rule(update, scalars)", more="def scalars(options, step):\n    return {}\n"),
        "its scalars come without lr; they must be exactly lr",
    ),
    "a misnamed scalar": (
        _mine("Rule(update, lambda options, step: {'rate': 1.0})"),
        "its scalars come without lr and with rate, which it does not take; they must be exactly "
        "lr",
    ),
    "a scalar too many": (
        _mine("Rule(update, lambda options, step: {'lr': 1.0, 'eps': 1.0})"),
        "its scalars come with eps, which it does not take; they must be exactly lr",
    ),
    "a scalar that is no number": (
        _mine("Rule(update, lambda options, step: {'lr': None})"),
        "the scalar lr is None, and must be a number",
    ),
    "an option that scalars ask for": (
        _mine("Rule(update, lambda options, step: {'lr': options['lrs']})"),
        "its scalars or flags ask for options['lrs'], and the optimizer has no such option (lr); "
        "did you mean lr?",
    ),
    "a missing flag": (
        _mine("Rule(update, None, lambda options: {})", "param, grad, *, lr, heavy: bool"),
        "its flags come without heavy; they must be exactly heavy",
    ),
    "a flag too many": (
        _mine("Rule(update, None, lambda options: {'heavy': True})"),
        "its flags come with heavy, which it does not take; they must be exactly none",
    ),
    "a flag that is no bool": (
        _mine(
            "Rule(update, None, lambda o: {'heavy': o['lr']})", "param, grad, *, lr, heavy: bool"
        ),
        "the flag heavy is 0.5; a flag is True or False: bool(...)",
    ),
    "a missing counter": (
        _mine(
            "Rule(update, lambda options, step, eta: {'lr': 1.0}, counters={'eta': 1.0})",
        ),
        "its scalars come without eta; they must be exactly lr, eta",
    ),
    "a counter that starts from nothing": (
        _mine("Rule(update, lambda options, step, eta: {'lr': eta}, counters={'eta': 'rl'})"),
        "it takes rl, and the optimizer has no option of that name (lr); put rl into the",
    ),
    "a state that starts from nothing": (
        _mine("Rule(update, initial={'kept': 'start'})", "param, grad, kept, *, lr").replace(
            "grad,)", "grad, kept)"
        ),
        "it takes start, and the optimizer has no option of that name (lr); put start into the",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_rule_needs_is_missed_when_the_optimizer_is_made(imported, name):
    text, why = WRONG[name]
    module = imported(text)
    with pytest.raises(RuleError) as caught:
        module.Mine(parameters(SHAPES))
    place = f"{module.__file__}:5: update() cannot be used: "
    assert str(caught.value).startswith(place + why)


def test_a_group_that_lacks_what_the_rule_needs_is_not_added(imported):
    module = imported(_mine("Rule(update, lambda o, step: {'lr': o['lr'] if o.get('ok') else ''})"))
    params = parameters(SHAPES)
    optimizer = module.Mine([{"params": params[:1], "ok": True}])
    with pytest.raises(RuleError, match="the scalar lr is ''"):
        optimizer.add_param_group({"params": params[1:]})
    assert len(optimizer.param_groups) == 1
    train(optimizer, params, 1)


def test_numbers_may_come_in_any_order(imported, backend, device):
    module = imported(
        HEAD
        + """
def update(param, grad, *, first, second, flag: bool, other: bool):
    if flag and not other:
        param = param * first
    return (param - second * grad,)

def flags(options):
    return {"other": False, "flag": True}

def scalars(options, step):
    return {"second": 0.25, "first": 3.0} if step > 1 else {"first": 3.0, "second": 0.25}

class Mine(Optimizer):
    rule = Rule(update, scalars, flags)
    def __init__(self, params, lr=0.5):
        super().__init__(params, {"lr": lr})
"""
    )
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], device=device))
    optimizer = module.Mine([weight])
    for _ in range(2):
        weight.grad = torch.tensor([4.0, 8.0], device=device)
        optimizer.step()
    assert weight.tolist() == [(3 - 1) * 3 - 1, (-6 - 2) * 3 - 2]
    assert optimizer.explain()[0]["backend"] == backend


def test_counters_and_starting_values(imported, backend, device):
    module = imported(
        HEAD
        + """
def update(param, grad, total, *, rate):
    total = total + grad * grad
    return param - rate * grad / sqrt(total), total

def scalars(options, step, product):
    product = product * 0.5
    return {"product": product, "rate": options["lr"] * product}

class Mine(Optimizer):
    rule = Rule(update, scalars, counters={"product": 1.0}, initial={"total": "start"})
    def __init__(
        self, params, lr: LearningRate = 0.5, start: Annotated[float, Range(0), "of total"] = 4.0
    ):
        super().__init__(params, {"lr": lr, "start": start})
"""
    )
    weight = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64, device=device))
    optimizer = module.Mine([weight])
    expected, total, product = 1.0, 4.0, 1.0
    for _ in range(3):
        weight.grad = torch.full_like(weight, 2.0)
        optimizer.step()
        product, total = product * 0.5, total + 4.0
        expected -= 0.5 * product * 2.0 / math.sqrt(total)
    state = optimizer.state[weight]
    assert weight.item() == pytest.approx(expected, rel=1e-14)
    assert list(state) == ["step", "product", "total"]
    assert (state["product"].item(), state["total"].item()) == (0.125, 16.0)
    assert state["product"].dtype == torch.float64


def test_a_file_with_postponed_annotations(imported, backend, device):
    module = imported(
        "from __future__ import annotations\n"
        + HEAD
        + """
def update(param: Tensor, grad: Tensor, *, lr: float, doubled: bool) -> tuple[Tensor]:
    return (param - (2 * lr if doubled else lr) * grad,)

class Mine(Optimizer):
    rule = Rule(update)
    def __init__(
        self,
        params,
        lr: LearningRate = 0.5,
        doubled: Annotated[bool, Switch(), "twice the step"] = True,
    ):
        super().__init__(params, {"lr": lr, "doubled": doubled})
"""
    )
    assert module.Mine.rule.arguments.flags == ("doubled",)
    weight = torch.nn.Parameter(torch.ones(3, device=device))
    optimizer = module.Mine([weight])
    weight.grad = torch.ones(3, device=device)
    optimizer.step()
    assert weight.tolist() == [0.0] * 3
    with pytest.raises(HyperparameterError, match="doubled=1 is not allowed"):
        module.Mine([weight], doubled=1)


OWN = """
import torch
from descend.rules import LearningRate, Optimizer, Params, Rule

def update(param, grad, *, lr):
    return (param - lr * grad,)

class Plain(Optimizer):
    rule = Rule(update)

    def __init__(self, params: Params, lr: LearningRate = 0.1) -> None:
        super().__init__(params, locals())

optimizer = Plain([torch.ones(1)])
optimizer.load_state_dict(Plain([torch.ones(1)], lr=0.5).state_dict())
print(optimizer.param_groups[0]["lr"])
"""


def test_a_state_is_loaded_where_no_optimizer_but_ones_own_was_imported(tmp_path):
    script = tmp_path / "own.py"
    script.write_text(OWN)
    assert python(script).stdout.strip() == "0.5"


def test_a_state_may_start_from_the_parameter(backend, device, imported):
    """As it is before its first step: of one that joins later, and of one that was loaded."""
    mine = imported(
        "from descend.rules import LearningRate, Optimizer, Params, Rule\n"
        "def update(param, grad, anchor, *, lr):\n"
        "    return param - lr * (grad + param - anchor), anchor\n"
        "class Anchored(Optimizer):\n"
        "    rule = Rule(update, initial={'anchor': 'param'})\n"
        "    def __init__(self, params: Params, lr: LearningRate = 0.1) -> None:\n"
        "        super().__init__(params, locals())\n"
    ).Anchored
    params = parameters(SHAPES, torch.float32, device=device)
    optimizer = mine(params)
    first = [param.detach().clone() for param in params]
    for late in (False, True):
        for index, param in enumerate(params):
            param.grad = None if index == 1 and not late else torch.ones_like(param)
        optimizer.step()
    for param, before in zip(params, first, strict=True):
        anchor = optimizer.state[param]["anchor"]
        assert torch.equal(anchor, before)
        assert anchor.data_ptr() != param.data_ptr()
        assert not anchor.requires_grad
    others = parameters(SHAPES, torch.float32, seed=7, device=device)
    other = mine(others)
    other.load_state_dict(optimizer.state_dict())
    for param in others:
        param.grad = torch.ones_like(param)
    other.step()
    for param, before in zip(others, first, strict=True):
        assert torch.equal(other.state[param]["anchor"], before)
    del other.state[others[0]]
    started = others[0].detach().clone()
    other.step()
    assert torch.equal(other.state[others[0]]["anchor"], started)
