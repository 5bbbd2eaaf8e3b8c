"""Your own update rule: what you need to write one, in one place.

An optimizer is a function that updates one element, and a class that declares its hyperparameters:

    >>> from typing import Annotated
    >>> from descend.rules import LearningRate, Optimizer, Params, Range, Rule, WeightDecay, sign
    >>> def update(param, grad, momentum_buffer, *, lr, beta, weight_decay):
    ...     momentum_buffer = momentum_buffer * beta + grad * (1 - beta)
    ...     param = param - lr * (sign(momentum_buffer) + param * weight_decay)
    ...     return param, momentum_buffer
    >>> class Signum(Optimizer):
    ...     rule = Rule(update)
    ...     def __init__(
    ...         self,
    ...         params: Params,
    ...         lr: LearningRate = 1e-3,
    ...         beta: Annotated[float, Range(0, 1), "decay of the mean gradient"] = 0.9,
    ...         weight_decay: WeightDecay = 0.0,
    ...     ) -> None:
    ...         super().__init__(params, locals())

The base class takes from `locals()` what the signature declares. It is an optimizer like any other:
one compiled pass over memory on every backend, validation, groups, state, saving and loading.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = Signum([weight], lr=0.5)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> weight.tolist(), optimizer.explain()[0]["backend"]
    ([0.5, 0.5, 0.5], 'cpu')
    >>> Signum([weight], beta=2)
    Traceback (most recent call last):
    descend.errors.HyperparameterError: Signum: beta=2 is not allowed: beta must be a finite ...

The arguments of `update` say what it needs. After `param` and `grad` come the state tensors, which
start from zero. Behind the `*` come numbers, and flags, which are annotated `bool`; each is the
option of its name, unless `Rule(update, scalars, flags)` says how to compute it:

    >>> def scalars(options, step):
    ...     beta = options["beta"]
    ...     return {"lr": options["lr"] / (1 - beta**step), "beta": beta, "weight_decay": 0.0}
    >>> rule = Rule(update, scalars)

`update` returns the new parameter and the new states, in the order of its arguments. It may use
local variables, `+ - * /`, comparisons (for `where`), `if` on flags, numbers, and the words
`absolute`, `maximum`, `minimum`, `sign`, `sqrt` and `where`. Anything else is refused when the rule
is made, with file, line, and what to write instead. What needs whole tensors (a norm, a matrix
product) is a `WholeRule`.
"""

from descend.base.base_class import Optimizer, Params
from descend.engine.hyperparameters import (
    Betas,
    Capturable,
    Choice,
    ClipNorm,
    ClipValue,
    DecoupledWeightDecay,
    Differentiable,
    Epsilon,
    Foreach,
    Fused,
    LearningRate,
    Maximize,
    Options,
    Pair,
    Range,
    SkipNonfinite,
    Switch,
    WeightDecay,
)
from descend.engine.rule import Flags, Rule, State, WholeRule
from descend.engine.vocabulary import absolute, maximum, minimum, sign, sqrt, where
from descend.errors import RuleError
from descend.spelling import suggest as _suggest

__all__ = [
    "Betas",
    "Capturable",
    "Choice",
    "ClipNorm",
    "ClipValue",
    "DecoupledWeightDecay",
    "Differentiable",
    "Epsilon",
    "Flags",
    "Foreach",
    "Fused",
    "LearningRate",
    "Maximize",
    "Optimizer",
    "Options",
    "Pair",
    "Params",
    "Range",
    "Rule",
    "RuleError",
    "SkipNonfinite",
    "State",
    "Switch",
    "WeightDecay",
    "WholeRule",
    "absolute",
    "maximum",
    "minimum",
    "sign",
    "sqrt",
    "where",
]

_suggest(globals())
