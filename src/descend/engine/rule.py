"""What an optimizer is to the engine: one elementwise update, and its host-side scalars."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from descend.engine.hyperparameters import Options

Flags = Mapping[str, bool]


def _no_flags(options: Options) -> Flags:
    return {}


def _never(flags: Flags) -> bool:
    return False


@dataclass(frozen=True, eq=False)
class Rule:
    """One update rule, written once and compiled by every backend.

    `update(param, grad, *states, *, scalars..., flags...)` is pure and elementwise: one element
    in, one element out, in the words of `descend.engine.vocabulary`. The names of its positional
    arguments after `param` and `grad` are the names of the state tensors. Its keyword-only
    arguments are the host-side scalars, and those annotated `bool` are flags: constants of the
    compiled kernel. It returns `(param, *states)`.

    Args:
        update: the elementwise function.
        scalars: `(options, step) -> {name: number}`, in the order of update's keyword arguments;
            called once per group and step count, in float64. `step` counts from 1.
        flags: `options -> {name: bool}`.
        optional: the state tensors that exist only under a flag: `{state: flag}`.
        initial: the hyperparameter that a state tensor starts from, where that is not zero.
        counts_steps: whether the state holds `step`. Without it, `scalars` gets 1 at the first
            step of a parameter and 2 later.
        sparse: `flags -> bool`: whether a zero gradient leaves parameter and state as they are, so
            that a sparse gradient needs its own rows only. None: sparse gradients are refused.
    """

    update: Callable[..., tuple[Any, ...]]
    scalars: Callable[[Options, Any], dict[str, Any]]
    flags: Callable[[Options], Flags] = _no_flags
    optional: Mapping[str, str] = field(default_factory=dict)
    initial: Mapping[str, str] = field(default_factory=dict)
    counts_steps: bool = True
    sparse: Callable[[Flags], bool] | None = None

    @cached_property
    def states(self) -> tuple[str, ...]:
        """The names of all state tensors, those under a flag included."""
        return tuple(
            name
            for name, parameter in inspect.signature(self.update).parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name not in ("param", "grad")
        )

    @cached_property
    def scalar_names(self) -> tuple[str, ...]:
        """The names of the host-side scalars, in the order of update's keyword arguments."""
        return tuple(
            name
            for name, parameter in inspect.signature(self.update).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.annotation is not bool
        )

    @cached_property
    def readable(self) -> bool:
        """Whether the update's source can be read, which the compiled backends need."""
        try:
            return bool(inspect.getsource(self.update))
        except OSError:
            return False

    def present(self, flags: Flags) -> tuple[str, ...]:
        """The state tensors that these flags ask for, in order."""
        return tuple(s for s in self.states if s not in self.optional or flags[self.optional[s]])


@dataclass(frozen=True)
class Variant:
    """One kernel's worth of a rule: everything that is constant while it runs.

    Args:
        rule: the rule.
        flags: its flags, as sorted pairs.
        dtypes: of the parameter, the gradient and each state tensor present.
        scaled: the gradient is multiplied by a factor (clipping by norm, unscaling, maximize).
        limited: the gradient is then cut to a largest magnitude.
    """

    rule: Rule
    flags: tuple[tuple[str, bool], ...]
    dtypes: tuple[torch.dtype, ...]
    scaled: bool = False
    limited: bool = False

    @cached_property
    def states(self) -> tuple[str, ...]:
        """The names of the state tensors present, in order."""
        return self.rule.present(dict(self.flags))

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """The names of all tensors that the kernel reads, in the order of their addresses."""
        return ("param", "grad", *self.states)

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """The names of the rule's state tensors that these flags leave out."""
        return tuple(state for state in self.rule.states if state not in self.states)

    @cached_property
    def columns(self) -> int:
        """How many addresses one member has: its operands and, if there is one, its step count."""
        return len(self.operands) + int(self.rule.counts_steps)

    @cached_property
    def compute(self) -> torch.dtype:
        """The dtype of the arithmetic: float64 for float64 parameters, float32 for all others."""
        return torch.float64 if self.dtypes[0] == torch.float64 else torch.float32

    @cached_property
    def row(self) -> tuple[str, ...]:
        """The names of one row of scalars: the rule's, then the gradient's factor and limit."""
        return (
            self.rule.scalar_names
            + (("grad_factor",) if self.scaled else ())
            + (("grad_limit",) if self.limited else ())
        )
