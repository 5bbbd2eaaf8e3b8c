"""Every word of the vocabulary means the same on every backend, down to NaN and zero."""

import math
from typing import Annotated

import pytest
import torch
from torch import Tensor

from descend import engine
from descend.engine import vocabulary
from descend.engine.hyperparameters import Range, Switch, declared
from descend.engine.plan import Clipping, Stepper
from descend.engine.rule import Rule
from descend.engine.vocabulary import absolute, maximum, minimum, sign, sqrt, where


def update(
    param: Tensor,
    grad: Tensor,
    rooted: Tensor,
    sized: Tensor,
    signed: Tensor,
    larger: Tensor,
    smaller: Tensor,
    chosen: Tensor,
    counted: Tensor,
    *,
    limit: float,
    doubled: bool,
) -> tuple[Tensor, ...]:
    rooted = sqrt(absolute(grad))
    sized = absolute(grad)
    signed = sign(grad)
    larger = maximum(grad, param)
    smaller = minimum(grad, param)
    chosen = where(grad > limit, grad, param)
    if doubled:  # noqa: SIM108 - a flag's branch is what is tested
        counted = counted + 2 * grad + 0.5
    else:
        counted = counted + 0.1
    return param, rooted, sized, signed, larger, smaller, chosen, counted


RULE = Rule(
    update,
    lambda options, step: {"limit": options["limit"]},
    lambda options: {"doubled": options["doubled"]},
)


def options(
    limit: Annotated[float, Range(), "a threshold"] = 0.3,
    doubled: Annotated[bool, Switch(), "twice the gradient"] = False,
) -> None:
    """The hyperparameters of the rule above."""


VALUES = [0.0, -0.0, 1.0, -1.0, 2.5, -3.0, math.inf, -math.inf, math.nan, 1e-30, -7.0, 0.1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("doubled", [True, False])
def test_words_mean_what_torch_means(backend, dtype, doubled):
    param = torch.tensor(VALUES, dtype=dtype).roll(3)
    param.requires_grad_()
    param.grad = torch.tensor(VALUES, dtype=dtype)
    grad, start = param.grad.clone(), param.detach().clone()
    state: dict[Tensor, dict[str, Tensor]] = {}
    stepper = Stepper("Words", RULE, declared(options))
    group = {"params": [param], "limit": 0.3, "doubled": doubled}
    with engine.forced_backend(backend):
        stepper.step([group], state, Clipping())
    assert [record["backend"] for record in stepper.explain()] == [backend]
    expected = {
        "rooted": grad.abs().sqrt(),
        "sized": grad.abs(),
        "signed": grad.sign(),
        "larger": torch.maximum(grad, start),
        "smaller": torch.minimum(grad, start),
        "chosen": torch.where(grad > 0.3, grad, start),
        "counted": 2 * grad + 0.5 if doubled else torch.full_like(grad, 0.1),
    }
    assert set(expected) == set(RULE.states)
    for name, value in expected.items():
        torch.testing.assert_close(
            state[param][name], value, rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: n + m
        )


NUMBERS = [0.0, -0.0, 1.0, -1.0, 2.5, math.inf, -math.inf, math.nan, 1e-30]


def _same(number, tensor):
    assert not isinstance(number, Tensor)
    torch.testing.assert_close(
        torch.tensor(number, dtype=torch.float64), tensor, rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("x", NUMBERS)
def test_words_of_one_plain_number_mean_the_same(x):
    tensor = torch.tensor(x, dtype=torch.float64)
    _same(absolute(x), tensor.abs())
    _same(sign(x), tensor.sign())
    if not x < 0:
        _same(sqrt(x), tensor.sqrt())


@pytest.mark.parametrize("y", NUMBERS)
@pytest.mark.parametrize("x", NUMBERS)
def test_words_of_two_plain_numbers_mean_the_same(x, y):
    tensors = torch.tensor([x, y], dtype=torch.float64)
    _same(maximum(x, y), torch.maximum(*tensors))
    _same(minimum(x, y), torch.minimum(*tensors))
    _same(where(x > y, x, y), torch.where(tensors[0] > tensors[1], *tensors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("word", "meaning"), [(maximum, torch.maximum), (minimum, torch.minimum)])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_may_stand_on_either_side_of_a_tensor(word, meaning, number, dtype):
    tensor = torch.tensor(VALUES, dtype=dtype)
    wanted = meaning(tensor, torch.full_like(tensor, number))
    for found in (word(tensor, number), word(number, tensor)):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


def test_where_keeps_the_precision_of_plain_numbers():
    condition = torch.tensor([True, False])
    assert where(condition, 0.1, 0.2).tolist() == [0.1, 0.2]


@pytest.mark.parametrize("yes", [True, False])
def test_where_with_one_truth_for_all_gives_a_tensor_if_either_is_one(yes):
    tensor = torch.tensor([1.0, 2.0])
    assert where(yes, tensor, 3.0).tolist() == ([1.0, 2.0] if yes else [3.0, 3.0])
    assert where(yes, 3.0, tensor).tolist() == ([3.0, 3.0] if yes else [1.0, 2.0])


def test_every_word_is_tested_and_no_other_exists():
    used = {"absolute", "maximum", "minimum", "sign", "sqrt", "where"}
    assert set(vocabulary.WORDS) == used
    defined = {
        name
        for name, value in vars(vocabulary).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", "") == vocabulary.__name__
    }
    assert defined == used
