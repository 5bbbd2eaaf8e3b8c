"""Sums over tensors that an update rule asks for before it updates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

from descend.engine import grammar
from descend.engine.rule_arguments import Arguments, arguments, where_written
from descend.errors import RuleError
from descend.spelling import spelled

Kind: TypeAlias = Literal["sum", "mean", "total"]
KINDS: tuple[str, ...] = get_args(Kind)


@spelled
@dataclass(frozen=True, eq=False)
class Measure:
    """Terms of each element that are added up before the update, in a pass of their own.

    `terms(param, grad, *states, *, numbers..., flags...)` is written in the words of an update and
    returns one term for each name in `kinds`. Its states and flags are some of the update's. The
    gradient is as the update sees it: clipped, unscaled.

    Terms are computed in the precision of the parameter (float32 at least), but a product that is
    returned (`return grad * grad, ...`) is one of float64, so that no square is too large. They are
    added up in float64, in an order that depends on nothing but the tensor's size: any number of
    threads and any process gives the same bits.

    Args:
        terms: the elementwise function.
        kinds: `{name: kind}` for each term, in the order in which they are returned: "sum" or
            "mean" of one parameter, "total" of all parameters of this rule in the optimizer (over
            all ranks, where parameters are DTensors).
        scalars: `(options, step, **counters) -> {name: number}`: the numbers that terms take.
            None: each is the option of its name.
        before: a measure that is made first, in a pass of its own: `scalars` gets what it finds by
            name, as those of a rule do.

    Raises:
        RuleError: what could not be compiled, with file, line and what to write instead.

    Example:
        >>> def terms(param, grad):
        ...     return param * param, grad * grad
        >>> Measure(terms, {"param_squares": "sum", "grad_squares": "sum"}).names
        ('param_squares', 'grad_squares')
    """

    terms: Callable[..., tuple[Any, ...]]
    kinds: Mapping[str, Kind]
    scalars: Callable[..., Mapping[str, Any]] | None = None
    before: "Measure | None" = None

    def __post_init__(self) -> None:
        """Refuse kinds that there are not."""
        if not isinstance(self.kinds, Mapping) or not self.kinds:
            raise self.refused(
                f"its kinds are {self.kinds!r}", 'name each term: {"param_squares": "sum"}'
            )
        for name, kind in self.kinds.items():
            if kind not in KINDS:
                raise self.refused(
                    f"{name} is to be the {kind!r} of its terms",
                    f"take one of {', '.join(KINDS)}",
                )
            if not isinstance(name, str) or not name.isidentifier():
                raise self.refused(f"{name!r} is no name", "use one that Python admits")

    def refused(self, why: str, instead: str) -> RuleError:
        """The error for a measure that no rule can use."""
        return RuleError(f"{where_written(self.terms)} cannot be used: {why}; {instead}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of what is measured, in order."""
        return tuple(self.kinds)

    @cached_property
    def arguments(self) -> Arguments:
        """The arguments of the terms, by kind."""
        return arguments(self.terms)

    @cached_property
    def written(self) -> grammar.Written | None:
        """The source of the terms; None where it cannot be read."""
        return grammar.read(self.terms, self.arguments, self.names)
