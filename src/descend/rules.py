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
start from zero, unless `Rule(..., initial=...)` says from what. Behind the `*` come numbers, and
flags, which are annotated `bool`; each is the option of its name, unless
`Rule(update, scalars, flags)` says how to compute it:

    >>> def scalars(options, step):
    ...     beta = options["beta"]
    ...     return {"lr": options["lr"] / (1 - beta**step), "beta": beta, "weight_decay": 0.0}
    >>> rule = Rule(update, scalars)

`update` returns the new parameter and the new states, in the order of its arguments. It may use
local variables, `+ - * /`, comparisons (for `where`), `if` on flags, numbers, and the words
`absolute`, `maximum`, `minimum`, `sign`, `sqrt` and `where`. Anything else is refused when the rule
is made, with file, line, and what to write instead. What needs a sum over the tensor first (a norm,
a mean) has a `Measure`; what needs whole tensors (a matrix product) is a `WholeRule`.
"""

# ruff: noqa: PLC0414 - every name is passed on
from descend.base.base_class import Optimizer as Optimizer
from descend.base.base_class import Params as Params
from descend.engine.hyperparameters import Betas as Betas
from descend.engine.hyperparameters import Capturable as Capturable
from descend.engine.hyperparameters import Cautious as Cautious
from descend.engine.hyperparameters import CautiousWeightDecay as CautiousWeightDecay
from descend.engine.hyperparameters import Choice as Choice
from descend.engine.hyperparameters import ClipNorm as ClipNorm
from descend.engine.hyperparameters import ClipValue as ClipValue
from descend.engine.hyperparameters import DecoupledWeightDecay as DecoupledWeightDecay
from descend.engine.hyperparameters import Differentiable as Differentiable
from descend.engine.hyperparameters import Epsilon as Epsilon
from descend.engine.hyperparameters import Foreach as Foreach
from descend.engine.hyperparameters import Fused as Fused
from descend.engine.hyperparameters import LearningRate as LearningRate
from descend.engine.hyperparameters import Maximize as Maximize
from descend.engine.hyperparameters import Options as Options
from descend.engine.hyperparameters import Pair as Pair
from descend.engine.hyperparameters import Range as Range
from descend.engine.hyperparameters import SkipNonfinite as SkipNonfinite
from descend.engine.hyperparameters import Switch as Switch
from descend.engine.hyperparameters import WeightDecay as WeightDecay
from descend.engine.measure import Measure as Measure
from descend.engine.rule import Flags as Flags
from descend.engine.rule import Rule as Rule
from descend.engine.rule import State as State
from descend.engine.rule import WholeRule as WholeRule
from descend.engine.vocabulary import absolute as absolute
from descend.engine.vocabulary import maximum as maximum
from descend.engine.vocabulary import minimum as minimum
from descend.engine.vocabulary import sign as sign
from descend.engine.vocabulary import sqrt as sqrt
from descend.engine.vocabulary import where as where
from descend.errors import RuleError as RuleError
from descend.spelling import suggest as _suggest

_suggest(globals())
