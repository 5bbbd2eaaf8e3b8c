r"""Cautious steps and cautious weight decay: options of every elementwise rule, written once.

With :math:`u` the step that the rule takes on its own (lr and all, decoupled weight decay left
out), :math:`g` the gradient as the rule sees it, and everything element by element:

    cautious:               m = 1 where u g > 0, else 0;   u' = u m / max(mean(m), 0.001)
    cautious_weight_decay:  theta = theta - u' - lr weight_decay theta  where u' theta >= 0,
                            theta = theta - u'                          elsewhere

`applied` makes a rule of a rule. Its first lines are those of the rule that is there, and then come
the ones of `careful` below: a function in the words of a rule, which each backend takes as it takes
any other. The mean of m is a `Measure`, whose lines are the rule's and those of `agreement`.

Sources: K. Liang et al., "Cautious optimizers: improving training with one line of code", 2024,
https://arxiv.org/abs/2411.16085, with the scale of its authors' code (the paper adds a small number
to the mean); L. Chen et al., "Cautious weight decay", 2025, https://arxiv.org/abs/2510.12402.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from torch import Tensor

from descend.engine import grammar
from descend.engine.hyperparameters import Options
from descend.engine.measure import Measure
from descend.engine.rule import AnyRule, Flags, Rule
from descend.engine.rule_arguments import Arguments, arguments, where_written
from descend.engine.vocabulary import maximum, sign, where
from descend.errors import RuleError

SMALLEST_SHARE = 1e-3
"""The least that the share of elements that move counts for: no step grows by more than 1000."""

OPTIONS = ("cautious", "cautious_weight_decay")
SHARE = "cautious_share"


def agreement(param: Any, grad: Any, new_param: Any) -> tuple[Any]:
    """1 for an element whose step goes down its gradient, 0 for another."""
    # The signs' product, not the product's sign: that of two small numbers underflows.
    return (where(sign(param - new_param) * sign(grad) > 0, 1.0, 0.0),)


def careful(
    param: Any,
    grad: Any,
    new_param: Any,
    *,
    cautious_scale: Any,
    cautious_decay: Any,
    cautious: bool,
    cautious_weight_decay: bool,
    cautious_decayed: bool,
) -> tuple[Any]:
    """The new value of an element that its rule alone would have moved to `new_param`."""
    step = param - new_param
    if cautious:
        # Multiplied, not chosen: a NaN must not vanish.
        step = step * where(sign(step) * sign(grad) > 0, cautious_scale, 0.0)
        new_param = param - step
    if cautious_decayed:
        if cautious_weight_decay:
            new_param = new_param - where(
                sign(step) * sign(param) >= 0, param * cautious_decay, 0.0
            )
        else:
            new_param = new_param - param * cautious_decay
    return (new_param,)


def applied(rule: AnyRule, options: Options) -> AnyRule:
    """The rule under these options: itself, unless they ask for caution.

    Args:
        rule: the rule.
        options: a group's.

    Raises:
        RuleError: the rule cannot be made cautious.
    """
    if not (options.get("cautious") or options.get("cautious_weight_decay")):
        return rule
    if not isinstance(rule, Rule):
        raise RuleError(
            f"{where_written(rule.update)} takes whole tensors, and cautious steps and decay are "
            "those of an elementwise Rule; leave cautious and cautious_weight_decay out"
        )
    # A flag or a number of the rule's own that has such a name is not ours.
    taken = (*rule.arguments.flags, *rule.scalar_names)
    cautious, masked = (bool(options.get(name)) and name not in taken for name in OPTIONS)
    if not (cautious or masked):
        return rule
    if (cautious, masked) not in rule.variations:
        _refuse(rule)
        rule.variations[cautious, masked] = _Caution(rule, cautious, masked).rule()
    return rule.variations[cautious, masked]


@dataclass(frozen=True)
class _Caution:
    """A rule, and the ways in which it is to be cautious."""

    base: Rule
    cautious: bool
    masked: bool

    def rule(self) -> Rule:
        """The rule with cautious steps, with cautious decay, or with both."""
        base = self.base
        measure: Measure | None = None
        for one in base.measures:
            measure = replace(one, scalars=self.numbers_of(one), before=measure)
        if self.cautious:
            # The last: where a step goes may hang on what the rule itself has measured.
            numbers = self.numbers_of_update
            measure = Measure(_terms(base), {SHARE: "mean"}, numbers, before=measure)
        made = Rule(
            _update(base),
            self.scalars,
            self.flags,
            optional=base.optional,
            initial=base.initial,
            counts_steps=base.counts_steps,
            counters=base.counters,
            sparse=None if measure is not None else _only_undecayed(base.sparse),
            dense=base.dense,
            measure=measure,
        )
        vars(made)["root"] = base  # whose totals are over the parameters of both
        return made

    def apart(self, options: Options) -> bool:
        """Whether weight decay is left to `careful`, so that the rule must not decay."""
        decoupled = self.base.decoupled
        return self.masked or bool(options[decoupled] if isinstance(decoupled, str) else decoupled)

    def left(self, options: Options) -> Options:
        """The options that the rule itself gets."""
        return {**options, "weight_decay": 0.0} if self.apart(options) else options

    def flags(self, options: Options) -> Flags:
        """The rule's flags, and ours."""
        return {
            **self.base.flags(self.left(options)),
            "cautious": self.cautious,
            "cautious_weight_decay": self.masked,
            "cautious_decayed": self.apart(options) and bool(options["weight_decay"] != 0),
        }

    def scalars(self, options: Options, step: Any, **given: Any) -> dict[str, Any]:
        """The rule's numbers and counters, and ours."""
        base, share = self.base, given.pop(SHARE, None)
        numbers = base.numbers(self.left(options), *_parted(base, step, given))
        decay: Any = 0.0
        if self.apart(options):
            # The lr that the update itself takes, if it takes one: LAMB's is the tensor's own.
            lr = numbers["lr"] if "lr" in base.scalar_names else options["lr"]
            decay = lr * options["weight_decay"]
        return {
            **{name: numbers[name] for name in base.scalar_names},
            "cautious_scale": 1.0 if share is None else 1.0 / maximum(share, SMALLEST_SHARE),
            "cautious_decay": decay,
            **{name: numbers[name] for name in base.counters},
        }

    def numbers_of_update(self, options: Options, step: Any, **given: Any) -> dict[str, Any]:
        """The numbers that the rule's update takes, for the terms that are its lines."""
        numbers = self.base.numbers(self.left(options), *_parted(self.base, step, given))
        return {name: numbers[name] for name in self.base.scalar_names}

    def numbers_of(self, measure: Measure) -> Callable[..., Mapping[str, Any]]:
        """The numbers of a measure of the rule's own."""
        return lambda options, step, **given: self.base.term_numbers(
            measure, self.left(options), *_parted(self.base, step, given)
        )


def _update(base: Rule) -> Callable[..., Any]:
    """The update of a rule, and then `careful`."""
    own, ours = base.arguments, arguments(careful)
    takes = Arguments(own.states, (*own.scalars, *ours.scalars), (*own.flags, *ours.flags))

    def update(param: Tensor, grad: Tensor, *states: Any, **given: Any) -> Any:
        kept = _wide(param)
        mine = {name: given.pop(name) for name in (*ours.scalars, *ours.flags)}
        found = base.update(kept, grad, *states, **given)
        if not isinstance(found, tuple):
            return found  # which is refused
        return (*careful(kept, grad, found[0], **mine), *found[1:])

    _describe(update, takes, base.written, _written(careful, ("param",)))
    return update


def _terms(base: Rule) -> Callable[..., Any]:
    """The update of a rule, and then `agreement`."""

    def terms(param: Tensor, grad: Tensor, *states: Any, **given: Any) -> Any:
        return agreement(param, grad, base.update(param, grad, *states, **given)[0])

    _describe(terms, base.arguments, base.written, _written(agreement, (SHARE,)))
    return terms


def _parted(
    base: Rule, step: Any, given: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `Rule.numbers`, of those of scalars: counts, and what was measured."""
    measured = {name: value for name, value in given.items() if name not in base.counters}
    return (step, *[given[name] for name in base.counters]), measured


def _refuse(base: Rule) -> None:
    """Refuse a rule that has names of ours."""
    place = where_written(base.update)
    names = {SHARE, *arguments(careful).scalars, *arguments(careful).flags}
    found = base.arguments
    both = names.intersection((*found.states, *found.scalars, *found.flags, *base.counters))
    if both:
        raise RuleError(
            f"{place} cannot be cautious: {', '.join(sorted(both))} is a name of its own; "
            "call it something else"
        )


def _only_undecayed(
    sparse: Callable[[Flags], bool] | None,
) -> Callable[[Flags], bool] | None:
    """Whether a zero gradient changes nothing; decay that is left to `careful` does."""
    if sparse is None:
        return None
    return lambda flags: not flags["cautious_decayed"] and sparse(flags)


def _wide(param: Tensor) -> Tensor:
    """A parameter in float64: what a small step takes off a large parameter is then its own sign.

    Kernels widen it likewise; see `grammar.straight`.
    """
    return param if param.device.type == "mps" else param.double()


@cache
def _written(function: Callable[..., Any], results: tuple[str, ...]) -> grammar.Written:
    found = grammar.read(function, arguments(function), results)
    assert found is not None
    return found


def _describe(
    function: Callable[..., Any],
    takes: Arguments,
    first: grammar.Written | None,
    after: grammar.Written,
) -> None:
    """Give a function that calls others their arguments for a signature, and their text."""
    keyword, plain = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    every = [inspect.Parameter(name, plain) for name in ("param", "grad", *takes.states)]
    every += [inspect.Parameter(name, keyword) for name in takes.scalars]
    every += [inspect.Parameter(name, keyword, annotation=bool) for name in takes.flags]
    vars(function)["__signature__"] = inspect.Signature(every)
    vars(function)[grammar.TEXT] = None if first is None else replace(first, after=after)
