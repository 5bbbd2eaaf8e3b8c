"""An update rule: one elementwise update, and its host-side scalars."""

import warnings
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor

from descend.checks import plain_number
from descend.engine import grammar
from descend.engine.hyperparameters import Options
from descend.engine.measure import Measure
from descend.engine.rule_arguments import Arguments, arguments, where_written
from descend.errors import RuleError
from descend.spelling import meant, spelled

Flags = Mapping[str, bool]
State: TypeAlias = MutableMapping[str, Any]
"""The state that an optimizer keeps of one parameter: `{name: tensor}`."""

PARAM = "param"
"""Stands in `Rule.initial` for the parameter itself."""


def _no_flags(options: Options) -> Flags:
    return {}


def _by_name(options: Options) -> Flags:
    """Stands for: each flag is the option of its name."""
    raise NotImplementedError


@spelled
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
        scalars: `(options, step, **counters) -> {name: number}`: each scalar, and the new value of
            each counter; called once per group and step count, in float64. `step` counts from 1.
            None: each scalar is the option of its name.
        flags: `options -> {name: bool}`. Left out, each flag is the option of its name.
        optional: the state tensors that exist only under a flag: `{state: flag}`.
        initial: what a state tensor starts from, where that is not zero: the hyperparameter of
            that name, or "param", the parameter itself as it is before its first step.
        counts_steps: whether the state holds `step`. Without it, `scalars` gets 1 at the first
            step of a parameter and 2 later.
        counters: numbers beside `step` that the state of each parameter holds, and what each
            starts from: a number, or the name of a hyperparameter.
        sparse: `flags -> bool`: whether a zero gradient leaves parameter and state as they are, so
            that a sparse gradient needs its own rows only. None: sparse gradients are refused.
        dense: whether dense gradients are taken.
        measure: sums over tensors that are made first; `scalars` gets each by its name, and an
            update without `scalars` may take them itself. They come as float64 tensors, one number
            for each parameter of a kernel, so that `scalars` must do with them what tensors do:
            use the vocabulary's words (`where` instead of `if`).
        decoupled: whether the option `weight_decay` shrinks the parameter itself, by lr *
            weight_decay in each step, as AdamW's does; or the name of the option that says so.
            Options of caution (see `engine.cautious`) take that decay out of the step.

    Raises:
        RuleError: what could not be compiled, with file, line and what to write instead.

    Example:
        >>> def update(param, grad, *, lr):
        ...     return (param - lr * grad,)
        >>> Rule(update).scalar_names
        ('lr',)
    """

    update: Callable[..., tuple[Any, ...]]
    scalars: Callable[..., Mapping[str, Any]] | None = None
    flags: Callable[[Options], Flags] = _by_name
    optional: Mapping[str, str] = field(default_factory=dict)
    initial: Mapping[str, str] = field(default_factory=dict)
    counts_steps: bool = True
    counters: Mapping[str, str | float] = field(default_factory=dict)
    sparse: Callable[[Flags], bool] | None = None
    dense: bool = True
    measure: Measure | None = None
    decoupled: bool | str = False

    dtype: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Refuse here, and not in the middle of a training, what some backend could not run."""
        if self.flags is _by_name:
            object.__setattr__(self, "flags", self._flags_by_name)
        self._refuse_names()
        if (self.update.__module__ or "").startswith("descend."):
            return  # an import should not take the time; a test checks these
        if self.written is None:
            warnings.warn(
                f"descend: the source of {where_written(self.update)} cannot be read, so it takes "
                "the slower eager path; put it into a file and import it from there",
                RuntimeWarning,
                stacklevel=3,
            )
        else:
            flags = self.arguments.flags
            grammar.check(self.written, self.optional, flags)
            for measure in self.measures:
                if measure.written is not None:
                    grammar.check(measure.written, self.optional, flags)

    def _refuse_names(self) -> None:
        """Refuse names of states, counters and flags that do not go together."""
        found = self.arguments
        for name in (*found.states, *self.counters):
            if name == "step":
                raise self._refused(
                    "`step` is the count of steps, in every state", "use another name"
                )
        for name in self.counters:
            if name in (*found.states, *found.scalars, *found.flags, "param", "grad"):
                raise self._refused(
                    f"the counter {name} is an argument of the update too",
                    "give one of them another name; `scalars` may return the counter's value under "
                    "both",
                )
        if self.counters and not self.counts_steps:
            raise self._refused("it has counters and counts_steps=False", "leave counts_steps out")
        if self.counters and self.scalars is None:
            raise self._refused(
                "it has counters, and nothing says how they change",
                "give `scalars`, which returns each counter's new value under its name",
            )
        for what, given, known in (
            ("optional", self.optional, found.states),
            ("the flags of optional", self.optional.values(), found.flags),
            ("initial", self.initial, found.states),
        ):
            for name in given:
                if name not in known:
                    raise self._refused(
                        f"{name!r} in {what} is none of its {_listed(known)}",
                        _meant(name, known) or "take the name of an argument of the update",
                    )
        for measure in self.measures:
            self._refuse_measure(measure)

    def _refuse_measure(self, measure: Measure) -> None:
        """Refuse a measure that asks for what the update has not, or whose names are taken."""
        mine, its = self.arguments, measure.arguments
        for what, given, known in (
            ("state", its.states, mine.states),
            ("flag", its.flags, mine.flags),
        ):
            for name in given:
                if name not in known:
                    raise measure.refused(
                        f"its {what} {name!r} is none of the update's {_listed(known)}",
                        _meant(name, known) or f"let the update have that {what} too",
                    )
        for name in measure.names:
            if name in ("step", "param", "grad", *self.counters, *mine.states, *mine.flags):
                raise measure.refused(
                    f"{name!r} is a name that the update has already", "call what is measured other"
                )
        if self.sparse is not None:
            raise measure.refused(
                "the rule takes sparse gradients, of which rows alone are seen",
                "leave sparse out",
            )

    def _refused(self, why: str, instead: str) -> RuleError:
        return RuleError(f"{where_written(self.update)} cannot be used: {why}; {instead}")

    def _flags_by_name(self, options: Options) -> Flags:
        return {name: self._option(name, options) for name in self.arguments.flags}

    def _option(self, name: str, options: Options) -> Any:
        if name not in options:
            raise self._refused(
                f"it takes {name}, and the optimizer has no option of that name "
                f"({_listed(options)})",
                _meant(name, options)
                or f"put {name} into the constructor and its defaults, or compute it in "
                "`scalars` (a number) or `flags` (a bool)",
            )
        return options[name]

    @cached_property
    def arguments(self) -> Arguments:
        """The arguments of the update, by kind."""
        return arguments(self.update)

    @cached_property
    def written(self) -> grammar.Written | None:
        """The source of the update; None where it cannot be read."""
        return grammar.read(self.update, self.arguments)

    @property
    def states(self) -> tuple[str, ...]:
        """The names of all state tensors, those under a flag included."""
        return self.arguments.states

    @property
    def scalar_names(self) -> tuple[str, ...]:
        """The names of the host-side scalars, in the order of update's keyword arguments."""
        return self.arguments.scalars

    @property
    def readable(self) -> bool:
        """Whether the rule's source can be read, which the compiled backends need."""
        return self.written is not None and all(one.written is not None for one in self.measures)

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that are made before the update, in their order."""
        found: tuple[Measure, ...] = ()
        measure = self.measure
        while measure is not None:
            found, measure = (measure, *found), measure.before
        return found

    @cached_property
    def measured_names(self) -> tuple[str, ...]:
        """The names of all that is measured."""
        return tuple(name for measure in self.measures for name in measure.names)

    @cached_property
    def root(self) -> "Rule":
        """The rule that this one was made of, or itself."""
        return self

    @cached_property
    def counts(self) -> tuple[str, ...]:
        """The names of what the state counts: `step`, then the counters."""
        return ("step", *self.counters) if self.counts_steps else ()

    @cached_property
    def variations(self) -> "dict[tuple[bool, ...], Rule]":
        """The rules that were made of this one; see `engine.cautious`."""
        return {}

    @cached_property
    def origins(self) -> Mapping[str, str | float]:
        """The start of each state and counter that starts from a number that is not zero."""
        numbers = {name: one for name, one in self.initial.items() if one != PARAM}
        return {**numbers, **self.counters}

    @cached_property
    def copies(self) -> frozenset[str]:
        """The state tensors that start as a copy of the parameter."""
        return frozenset(name for name, origin in self.initial.items() if origin == PARAM)

    def present(self, flags: Flags) -> tuple[str, ...]:
        """The state tensors that these flags ask for, in order."""
        if not self.optional:
            return self.states
        asked = tuple(flags[flag] for flag in self.optional.values())
        if asked not in self._present:
            self._present[asked] = tuple(
                s for s in self.states if s not in self.optional or flags[self.optional[s]]
            )
        return self._present[asked]

    @cached_property
    def _present(self) -> dict[tuple[bool, ...], tuple[str, ...]]:
        return {}

    def shapes(self, param: Tensor, flags: Flags) -> dict[str, torch.Size]:
        """The shapes of the state tensors that these flags ask for: the parameter's own."""
        return dict.fromkeys(self.present(flags), param.shape)

    def needed(self, param: Tensor, flags: Flags) -> tuple[str, ...]:
        """The entries that a state must hold; those that a flag asks for are made where missing."""
        return (*self.counts, *(state for state in self.states if state not in self.optional))

    def start(self, name: str, options: Options) -> float:
        """The start of a counter or a state tensor; a number, as a tensor is the user's own."""
        origin = self.origins.get(name, 0.0)
        value = options[origin] if isinstance(origin, str) else origin
        return float(value.detach() if isinstance(value, Tensor) else value)

    def numbers(
        self,
        options: Options,
        counts: tuple[Any, ...],
        measured: Mapping[str, Any] = MappingProxyType({}),
    ) -> Mapping[str, Any]:
        """The host-side scalars of a step, then the new values of the counters, in order.

        Args:
            options: the group's.
            counts: the number of this step, counted from 1, then the counters as they are.
            measured: what `measure` asks for, by name.

        Raises:
            RuleError: a number is missing, or is none of the update's.
        """
        if self.scalars is None:
            return {
                name: measured[name] if name in measured else self._option(name, options)
                for name in self.scalar_names
            }
        if self.counters:
            counters = dict(zip(self.counters, counts[1:], strict=True))
            found = self.scalars(options, counts[0], **counters, **measured)
        elif measured:
            found = self.scalars(options, counts[0], **measured)
        else:
            found = self.scalars(options, counts[0])
        if isinstance(found, dict) and tuple(found) == self._numbered:
            return found
        self._refuse_other_keys("scalars", found, self._numbered)
        return {name: found[name] for name in self._numbered}

    def term_numbers(
        self,
        measure: Measure,
        options: Options,
        counts: tuple[Any, ...],
        measured: Mapping[str, Any] = MappingProxyType({}),
    ) -> Mapping[str, Any]:
        """The numbers that the terms of a measure take, in order; arguments as of `numbers`.

        Raises:
            RuleError: a number is missing, or is none of the terms'.
        """
        wanted = measure.arguments.scalars
        if measure.scalars is None:
            return {
                name: measured[name] if name in measured else self._option(name, options)
                for name in wanted
            }
        counters = dict(zip(self.counters, counts[1:], strict=True))
        found = measure.scalars(options, counts[0], **counters, **measured)
        self._refuse_other_keys("scalars of the measure", found, wanted)
        return {name: found[name] for name in wanted}

    @cached_property
    def _numbered(self) -> tuple[str, ...]:
        return (*self.scalar_names, *self.counters)

    def check(self, options: Options) -> None:
        """Refuse options that flags, scalars and starting values cannot be made from.

        Raises:
            RuleError: a flag or a number is missing, is unknown, or is something else.
            HyperparameterError: options that do not go together, where `flags` says so.
        """
        for origin in self.origins.values():
            if isinstance(origin, str):
                self._option(origin, options)
        try:
            flags = self.flags(options)
            counts = (1, *(self.start(counter, options) for counter in self.counters))
            if self.measure is None:
                numbers = self.numbers(options, counts)
            else:
                first = self.term_numbers(self.measures[0], options, counts)
                numbers = {**first, **self._tried(options, counts)}
        except KeyError as error:
            name = error.args[0]
            if name in options:
                raise
            raise self._refused(
                f"its scalars or flags ask for options[{name!r}], and the optimizer has no such "
                f"option ({_listed(options)})",
                _meant(name, options) or "put it into the constructor and its defaults",
            ) from error
        self._refuse_other_keys("flags", flags, self.arguments.flags)
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise self._refused(
                    f"the flag {name} is {value!r}", "a flag is True or False: bool(...)"
                )
        for name, value in numbers.items():
            if isinstance(value, Tensor):
                one = value.numel() == 1
            else:
                one = isinstance(value, bool) or plain_number(value) is not None
            if not one:
                raise self._refused(
                    f"the scalar {name} is {value!r}, and must be a number",
                    f"compute one in `scalars`: {{{name!r}: ...}}",
                )

    def _tried(self, options: Options, counts: tuple[Any, ...]) -> dict[str, Any]:
        """The numbers of two parameters of which nothing but zeros was measured; one of each.

        Raises:
            RuleError: `scalars` does with what was measured what only a single number can do.
        """
        assert self.measure is not None
        zeros = torch.from_numpy(np.zeros(2))  # on the CPU, whatever the default device is
        # A step reads arrays as numbers; here they are as the user gave them.
        options = {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in options.items()
        }
        found: dict[str, Any] = {}
        measured: dict[str, Any] = {}
        try:
            for measure in self.measures:
                if measured:
                    found |= self.term_numbers(measure, options, counts, measured)
                measured |= dict.fromkeys(measure.names, zeros)
            found |= self.numbers(options, counts, measured)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self._refused(
                f"its scalars cannot compute with what is measured ({error})",
                "what is measured comes as a tensor, one number for each parameter: use the words "
                "of descend.rules (where, maximum, sqrt) and + - * /, take each by its name",
            ) from error
        return {
            name: value[0] if isinstance(value, Tensor) and value.shape == (2,) else value
            for name, value in found.items()
        }

    def _refuse_other_keys(self, what: str, given: object, wanted: Iterable[str]) -> None:
        if not isinstance(given, Mapping):
            raise self._refused(f"its {what} return {given!r}", "return a dict: {name: value}")
        missing = [name for name in wanted if name not in given]
        unknown = [name for name in given if name not in wanted]
        if missing or unknown:
            faults = [f"without {_listed(missing)}"] * bool(missing)
            faults += [f"with {_listed(unknown)}, which it does not take"] * bool(unknown)
            raise self._refused(
                f"its {what} come {' and '.join(faults)}",
                f"they must be exactly {_listed(wanted)}",
            )


def _meant(name: str, known: Iterable[str]) -> str:
    close = meant(name, known)
    return f"did you mean {close}?" if close else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


@spelled
@dataclass(frozen=True, eq=False)
class WholeRule:
    """An update rule that needs whole tensors: reductions, matrix products. Torch does the work.

    Args:
        update: `(param, grad, state, options, step)` changes the parameter and the tensors of its
            state in place. The gradient is the user's: it is only read. `step` counts from 1. What
            autograd records (`differentiable`) are clones, so an operation must not overwrite what
            an earlier one of the same step needs for its derivative.
        shapes: `(param, flags) -> {name: shape}`: the state tensors, which start from zero.
        flags: `options -> {name: value}`: the options that the states' shapes depend on.
        states: the names of those that every parameter has.
        counts_steps: whether the state holds `step`.
        dtype: `(name, dtype of the parameter) -> dtype` of a state tensor. None: the parameter's.
        together: `(params, grads, states, options, step)` does the same as `update` for several
            parameters of one shape and dtype, which are at the same step: of many small ones that
            is faster. None: each is updated by itself.

    Example:
        >>> def update(param, grad, state, options, step):
        ...     param.sub_(grad / grad.norm(), alpha=options["lr"])
        >>> WholeRule(update, shapes=lambda param, flags: {}, states=()).counts
        ('step',)
    """

    update: Callable[[Tensor, Tensor, State, Options, Any], None]
    shapes: Callable[[Tensor, Mapping[str, Any]], Mapping[str, tuple[int, ...]]]
    states: tuple[str, ...]
    flags: Callable[[Options], Mapping[str, Any]] = _no_flags
    counts_steps: bool = True
    dtype: Callable[[str, torch.dtype], torch.dtype] | None = None
    together: Callable[[list[Tensor], list[Tensor], list[State], Options, Any], None] | None = None

    origins: ClassVar[Mapping[str, str | float]] = {}
    copies: ClassVar[frozenset[str]] = frozenset()
    sparse: ClassVar[None] = None
    dense: ClassVar[bool] = True
    readable: ClassVar[bool] = False

    @cached_property
    def counts(self) -> tuple[str, ...]:
        """The names of what the state counts."""
        return ("step",) if self.counts_steps else ()

    def check(self, options: Options) -> None:
        """Refuse options that do not go together, where `flags` says so."""
        self.flags(options)

    def needed(self, param: Tensor, flags: Flags) -> tuple[str, ...]:
        """The entries that a state must hold."""
        return (*self.counts, *self.shapes(param, flags))

    def start(self, name: str, options: Options) -> float:
        """The start of a state tensor."""
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
    def widened(self) -> bool:
        """Whether the parameter is taken in float64, and so may be what comes of it."""
        return self.rule.written is not None and self.rule.written.after is not None

    def measured_states(self, measure: Measure) -> tuple[str, ...]:
        """The state tensors that the terms of a measure of the rule read, in its order."""
        return tuple(one for one in measure.arguments.states if one in self.states)

    def measure_row(self, measure: Measure) -> tuple[str, ...]:
        """One row of scalars of a measure: its terms', and what the gradient meets first."""
        return (*measure.arguments.scalars, *self.prologue)

    @cached_property
    def row(self) -> tuple[str, ...]:
        """One row of scalars: the rule's, its new counters, and what the gradient meets first."""
        return (*self.rule.scalar_names, *self.rule.counters, *self.prologue)

    @cached_property
    def prologue(self) -> tuple[str, ...]:
        """The scalars that the gradient meets first: a factor, a limit."""
        return ("grad_factor",) * self.scaled + ("grad_limit",) * self.limited
