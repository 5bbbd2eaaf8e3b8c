"""The arguments of an update rule: its states, scalars and flags."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from descend.engine.vocabulary import WORDS
from descend.errors import RuleError

EXAMPLE = "def update(param, grad, momentum_buffer, *, lr, momentum, nesterov: bool): ..."

FIRST = ("param", "grad")
"""The names of the first two arguments of every update."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of an update rule after `param` and `grad`, each kind in order.

    Args:
        states: positional: the state tensors.
        scalars: keyword-only: numbers that depend on step and options.
        flags: keyword-only and annotated `bool`: constants of a compiled kernel.
    """

    states: tuple[str, ...]
    scalars: tuple[str, ...]
    flags: tuple[str, ...]


def where_written(update: Callable[..., Any]) -> str:
    """File, line and name of a function, for messages."""
    code = update.__code__
    return f"{code.co_filename}:{code.co_firstlineno}: {update.__name__}()"


def arguments(update: object) -> Arguments:
    """Read the arguments of an update rule.

    Args:
        update: anything that was given as an update rule.

    Raises:
        RuleError: it is no plain function, or its arguments are not those of an update rule.
    """
    if not inspect.isfunction(update) or inspect.iscoroutinefunction(update):
        kind = type(update).__name__
        raise RuleError(
            f"an update rule must be a plain function, got {update!r} ({kind}); "
            f"write one: {EXAMPLE}"
        )
    if update.__name__ == "<lambda>":
        raise _refused(update, "is a lambda", "write a function with a name", EXAMPLE)
    every = inspect.signature(update, follow_wrapped=False).parameters
    for parameter in every.values():
        _refuse_unnamed(update, parameter)
    first = tuple(every)[:2]
    if first != FIRST:
        raise _refused(
            update,
            f"its first two arguments must be param and grad, not {', '.join(first) or 'none'}",
            "begin with them",
            EXAMPLE,
        )
    for parameter in every.values():
        _refuse_unusable(update, parameter)
    positional = [p for p in every.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    keyword = [p for p in every.values() if p.kind is p.KEYWORD_ONLY]
    flags = tuple(p.name for p in keyword if _is_flag(update, p.annotation))
    return Arguments(
        states=tuple(p.name for p in positional[2:]),
        scalars=tuple(p.name for p in keyword if p.name not in flags),
        flags=flags,
    )


def _refuse_unnamed(update: Callable[..., Any], parameter: inspect.Parameter) -> None:
    """Refuse an argument that stands for several, or that has no name for its caller."""
    name, kind = parameter.name, parameter.kind
    if kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        stars = "*" if kind is parameter.VAR_POSITIONAL else "**"
        raise _refused(
            update,
            f"takes {stars}{name}, which says neither how many values come nor what they are",
            "name each state tensor, then *, then each number and flag",
            EXAMPLE,
        )
    if kind is parameter.POSITIONAL_ONLY:
        raise _refused(
            update,
            f"its argument {name} is positional-only, but backends pass arguments by name too",
            "leave out the /",
            EXAMPLE,
        )


def _refuse_unusable(update: Callable[..., Any], parameter: inspect.Parameter) -> None:
    """Refuse an argument with a default, of a word's name, or a flag among the tensors."""
    name, default = parameter.name, parameter.default
    if default is not parameter.empty:
        raise _refused(
            update,
            f"its argument {name} has a default ({default!r}), which a kernel would never use: "
            "every value comes from the optimizer",
            "put the default into the optimizer's constructor",
            f"def __init__(self, params, {name}: LearningRate = {default!r}): ...",
        )
    if name in WORDS:
        raise _refused(
            update,
            f"its argument {name} hides the word {name}() of the vocabulary",
            "give it another name",
        )
    if parameter.kind is not parameter.KEYWORD_ONLY and _is_flag(update, parameter.annotation):
        raise _refused(
            update,
            f"its argument {name} is annotated bool but stands among the tensors",
            "put flags and numbers behind a *",
            EXAMPLE,
        )


def _is_flag(update: Callable[..., Any], annotation: object) -> bool:
    """Whether an annotation is bool; it is a text under `from __future__ import annotations`."""
    if isinstance(annotation, str):
        text = annotation.strip("'\" ")
        return text == "bool" or update.__globals__.get(text) is bool
    return annotation is bool


def _refused(update: Callable[..., Any], why: str, instead: str, example: str = "") -> RuleError:
    shown = f": {example}" if example else ""
    return RuleError(f"{where_written(update)} cannot be an update rule: {why}; {instead}{shown}")
