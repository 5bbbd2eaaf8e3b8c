"""What an optimizer is to the engine: one elementwise update, and its host-side scalars."""

import inspect
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from descend.engine.hyperparameters import Options

Flags = Mapping[str, bool]
State: TypeAlias = MutableMapping[str, Any]
"""What an optimizer keeps of one parameter: `{name: tensor}`."""


def _no_flags(options: Options) -> Flags:
    return {}


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
        scalars: `(options, step, **counters) -> {name: number}`, in the order of update's keyword
            arguments, then the new value of each counter; called once per group and step count, in
            float64. `step` counts from 1. None: each is the option of that name.
        flags: `options -> {name: bool}`.
        optional: the state tensors that exist only under a flag: `{state: flag}`.
        initial: the hyperparameter that a state tensor starts from, where that is not zero.
        counts_steps: whether the state holds `step`. Without it, `scalars` gets 1 at the first
            step of a parameter and 2 later.
        counters: numbers beside `step` that the state of each parameter holds, and what each
            starts from: a number, or the name of a hyperparameter.
        sparse: `flags -> bool`: whether a zero gradient leaves parameter and state as they are, so
            that a sparse gradient needs its own rows only. None: sparse gradients are refused.
    """

    update: Callable[..., tuple[Any, ...]]
    scalars: Callable[..., dict[str, Any]] | None = None
    flags: Callable[[Options], Flags] = _no_flags
    optional: Mapping[str, str] = field(default_factory=dict)
    initial: Mapping[str, str] = field(default_factory=dict)
    counts_steps: bool = True
    counters: Mapping[str, str | float] = field(default_factory=dict)
    sparse: Callable[[Flags], bool] | None = None

    def __post_init__(self) -> None:
        """Refuse what the kernels could not tell apart."""
        assert self.counts_steps or not self.counters, "counters go with a step count"
        assert not set(self.counters) & set(self.scalar_names), "a counter is no scalar of update"

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

    @cached_property
    def counts(self) -> tuple[str, ...]:
        """The names of what the state counts: `step`, then the counters."""
        return ("step", *self.counters) if self.counts_steps else ()

    def present(self, flags: Flags) -> tuple[str, ...]:
        """The state tensors that these flags ask for, in order."""
        return tuple(s for s in self.states if s not in self.optional or flags[self.optional[s]])

    def shapes(self, param: Tensor, flags: Flags) -> dict[str, torch.Size]:
        """The shapes of the state tensors that these flags ask for: the parameter's own."""
        return dict.fromkeys(self.present(flags), param.shape)

    def needed(self, param: Tensor, flags: Flags) -> tuple[str, ...]:
        """What a state must hold; what a flag asks for may be missing, and is then made."""
        return (*self.counts, *(state for state in self.states if state not in self.optional))

    def start(self, name: str, options: Options) -> Any:
        """What a counter or a state tensor starts from."""
        origin = self.counters.get(name, self.initial.get(name, 0.0))
        return options[origin] if isinstance(origin, str) else origin

    def numbers(self, options: Options, counts: tuple[Any, ...]) -> dict[str, Any]:
        """The host-side scalars of a step, then the new values of the counters.

        Args:
            options: the group's.
            counts: the number of this step, counted from 1, then the counters as they are.
        """
        if self.scalars is None:
            return {name: options[name] for name in self.scalar_names}
        step, *counters = counts
        return self.scalars(options, step, **dict(zip(self.counters, counters, strict=True)))


@dataclass(frozen=True, eq=False)
class WholeRule:
    """An update rule that needs whole tensors: reductions, matrix products. Torch does the work.

    Args:
        update: `(param, grad, state, options, step)` changes the parameter and the tensors of its
            state in place. The gradient is the user's: it is only read. `step` counts from 1. What
            autograd records (`differentiable`) are clones, so an operation must not overwrite what
            an earlier one of the same step needs for its derivative.
        shapes: `(param, flags) -> {name: shape}`: the state tensors, which start from zero.
        flags: `options -> {name: bool}`.
        states: the names of all of them.
        counts_steps: whether the state holds `step`.
    """

    update: Callable[[Tensor, Tensor, State, Options, Any], None]
    shapes: Callable[[Tensor, Flags], Mapping[str, tuple[int, ...]]]
    states: tuple[str, ...]
    flags: Callable[[Options], Flags] = _no_flags
    counts_steps: bool = True

    sparse: ClassVar[None] = None
    readable: ClassVar[bool] = False

    @cached_property
    def counts(self) -> tuple[str, ...]:
        """The names of what the state counts."""
        return ("step",) if self.counts_steps else ()

    def needed(self, param: Tensor, flags: Flags) -> tuple[str, ...]:
        """What a state must hold."""
        return (*self.counts, *self.shapes(param, flags))

    def start(self, name: str, options: Options) -> float:
        """What a state tensor starts from."""
        return 0.0


AnyRule: TypeAlias = Rule | WholeRule


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
        """How many addresses one member has: its operands, its step count and its counters."""
        return len(self.operands) + len(self.rule.counts)

    @cached_property
    def compute(self) -> torch.dtype:
        """The dtype of the arithmetic: float64 for float64 parameters, float32 for all others."""
        return torch.float64 if self.dtypes[0] == torch.float64 else torch.float32

    @cached_property
    def row(self) -> tuple[str, ...]:
        """One row of scalars: the rule's, its new counters, the gradient's factor and limit."""
        return (
            self.rule.scalar_names
            + tuple(self.rule.counters)
            + (("grad_factor",) if self.scaled else ())
            + (("grad_limit",) if self.limited else ())
        )
