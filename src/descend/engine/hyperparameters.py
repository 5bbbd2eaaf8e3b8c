"""Hyperparameters, declared once: in the signature of an optimizer's constructor.

    def __init__(self, params, lr: LearningRate = 1e-3, betas: Betas = (0.9, 0.999)): ...

Name and default are the signature's; the allowed range and one line of documentation are the
annotation's (`typing.Annotated`). Validation, error messages and the documentation of the
arguments all read that one declaration.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from torch import Tensor

from descend import checks
from descend.errors import HyperparameterError
from descend.spelling import closest

Choice, Pair, Range, Switch = checks.Choice, checks.Pair, checks.Range, checks.Switch

CLOSE_ENOUGH = 0.85
"""How alike an unknown key must be to a hyperparameter to count as misspelt."""


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter of one optimizer: its name, default, allowed values and meaning."""

    name: str
    default: Any
    allowed: checks.Allowed
    meaning: str


Options = Mapping[str, Any]
"""The values of one parameter group: `group["lr"]` and the rest."""

LearningRate = Annotated[
    float | Tensor,
    Range(0, tensor=True, hint="to climb the gradient, pass maximize=True"),
    "step size, in units of the parameter (per unit of gradient for SGD)",
]
Betas = Annotated[
    tuple[float | Tensor, float | Tensor],
    Range(0, 1, count=2, tensor=True),
    "decay per step of the running means of the gradient and of its square",
]
Epsilon = Annotated[float, Range(0), "added to the denominator, against division by zero"]
WeightDecay = Annotated[float, Range(0), "strength of the pull of every parameter towards zero"]
DecoupledWeightDecay = Annotated[bool, Switch(), "shrink the parameter itself, as AdamW does"]
Maximize = Annotated[bool, Switch(), "climb the gradient instead of descending it"]
Foreach = Annotated[
    bool | None, Switch(optional=True), "accepted as a hint, as in torch; every step is one pass"
]
Fused = Annotated[
    bool | None,
    Switch(optional=True),
    "every step is fused; True: GradScaler leaves the unscaling to the step, as in torch",
]
Capturable = Annotated[
    bool, Switch(), "keep step counts on the parameter's device, for CUDA graph capture"
]
Differentiable = Annotated[bool, Switch(), "let autograd record the step; takes the eager path"]
ClipNorm = Annotated[
    float | None,
    Range(0, optional=True, positive=True, infinite=True),
    "largest global norm of all gradients of the step; larger ones are scaled down to it",
]
ClipValue = Annotated[
    float | None,
    Range(0, optional=True, positive=True, infinite=True),
    "largest magnitude of one gradient element, after clip_norm; larger ones are cut to it",
]
Cautious = Annotated[
    bool,
    Switch(),
    "move only elements whose step goes down their gradient, and those by as much more "
    "(see descend.Optimizer)",
]
CautiousWeightDecay = Annotated[
    bool,
    Switch(),
    "decay apart from the gradient, and only where the step does not lead away from zero "
    "(see descend.Optimizer)",
]
SkipNonfinite = Annotated[
    bool, Switch(), "leave out, and count, a step whose gradients hold an infinity or a NaN"
]


def declared(constructor: Callable[..., object]) -> dict[str, Hyperparameter]:
    """The hyperparameters that a constructor declares, or a function, in their order."""
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except NameError:  # a subclass of the user's, with names that only a type checker knows
        hints = inspect.get_annotations(constructor)
    table = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        allowed, meaning = getattr(hints.get(name), "__metadata__", (None, None))[:2]
        if isinstance(allowed, checks.Allowed):
            table[name] = Hyperparameter(name, parameter.default, allowed, str(meaning))
    return table


def validate(owner: str, table: Mapping[str, Hyperparameter], values: Options, where: str) -> None:
    """Refuse values outside their range and misspelt names; other keys are the user's own.

    Args:
        owner: the optimizer's name, for the message.
        table: what it declares.
        values: what it got; a declared name may be missing.
        where: the place of the values, for the message: "group 0", or "" for the constructor.

    Raises:
        HyperparameterError: names the value, what is allowed, and what to do.
    """
    place = f" in {where}" if where else ""
    for name, value in values.items():
        known = table.get(name)
        if known is None:
            _refuse_misspelling(owner, table, name, place)
        elif not known.allowed.admits(value):
            advice = known.allowed.advice(value)
            raise HyperparameterError(
                f"{owner}: {name}={checks.shown(value)}{place} is not allowed: "
                f"{name} must be {known.allowed}{f'; {advice}' if advice else ''}"
            )


def _refuse_misspelling(
    owner: str, table: Mapping[str, Hyperparameter], name: str, place: str
) -> None:
    close = closest(name, table, CLOSE_ENOUGH)
    if name == "learning_rate" and "lr" in table:
        close = "lr"
    if close and close not in name:  # "no_weight_decay" is a key of the user's own
        raise HyperparameterError(
            f"{owner}: there is no {name!r}{place}; did you mean {close}? "
            f"(known: {', '.join(table)})"
        )
