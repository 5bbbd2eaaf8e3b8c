"""The option --set of `descend train`: the hyperparameters of the chosen optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from descend.errors import HyperparameterError
from descend.spelling import meant

if TYPE_CHECKING:
    import torch

    from descend.engine.hyperparameters import Hyperparameter


def check_settings(
    rule: str, make: Callable[..., torch.optim.Optimizer], settings: Mapping[str, object]
) -> None:
    """Refuse what the optimizer does not take.

    Args:
        rule: how the optimizer is called.
        make: the optimizer.
        settings: values by name.

    Raises:
        HyperparameterError: names the value, what is allowed, and what to do.

    Example:
        >>> from descend.optimizers import SGD
        >>> check_settings("sgd", SGD, {"momentum": 0.9})
    """
    known = settable(make)
    for name, value in settings.items():
        if name == "lr":
            raise HyperparameterError("--set lr: the learning rate has an option of its own: --lr")
        if name not in known:
            close = meant(name, known)
            hint = f"did you mean {close}? " if close else ""
            raise HyperparameterError(
                f"--set {name}: {rule} has no such hyperparameter; {hint}allowed: "
                f"{', '.join(known) or 'none'}"
            )
        declared = known[name]
        if declared is not None and not declared.allowed.admits(value):
            such = f", such as --set {name}={_shown(declared.default)}"
            advice = declared.allowed.advice(value)
            raise HyperparameterError(
                f"--set {name}={_shown(value)}: it must be {declared.allowed}"
                f"{such if isinstance(declared.default, tuple) else ''}"
                f"{f'; {advice}' if advice else ''}"
            )


def settable(make: Callable[..., torch.optim.Optimizer]) -> dict[str, Hyperparameter | None]:
    """What an optimizer takes beside lr, by name; None for what it does not declare."""
    declared = getattr(make, "hyperparameters", {})
    _, *takes = inspect.signature(make).parameters.values()
    return {
        one.name: declared.get(one.name)
        for one in takes
        if one.name != "lr" and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }


def settings_lines(rule: str, make: Callable[..., torch.optim.Optimizer]) -> list[str]:
    """What --set takes with an optimizer, in text."""
    from descend.report.tables import screen, table

    rows = [
        [
            name,
            "" if declared is None else _shown(declared.default),
            "" if declared is None else f"{declared.meaning} ({declared.allowed})",
        ]
        for name, declared in settable(make).items()
    ]
    if not rows:
        return [f"{rule} has no hyperparameters beside lr"]
    header = [f"--set, with {rule}", "default", "what it is, and allowed"]
    return table(header, rows, screen(), left=(0, 1, 2))


def _shown(value: object) -> str:
    """A default as --set takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
