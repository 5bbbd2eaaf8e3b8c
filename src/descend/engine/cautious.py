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
from collections.abc import Callable
from dataclasses import replace
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
"""What the share of elements that move counts at least: no step grows by more than 1000."""

OPTIONS = ("cautious", "cautious_weight_decay")
SHARE = "cautious_share"


def agreement(param, grad, new_param):
    """1 for an element whose step goes down its gradient, 0 for another."""
    # The signs' product, not the product's sign: that of two small numbers underflows.
    return (where(sign(param - new_param) * sign(grad) > 0, 1.0, 0.0),)


def careful(
    param,
    grad,
    new_param,
    *,
    cautious_scale,
    cautious_decay,
    cautious: bool,
    cautious_weight_decay: bool,
    cautious_decayed: bool,
):
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
        rule.variations[cautious, masked] = _made(rule, cautious, masked)
    return rule.variations[cautious, masked]


def _made(base: Rule, cautious: bool, masked: bool) -> Rule:
    """A rule that is `base` with cautious steps, with masked decay, or with both."""
    _refuse(base)
    own = (*base.scalar_names, *base.arguments.flags)
    ours = arguments(careful)
    takes = Arguments(
        base.states, (*base.scalar_names, *ours.scalars), (*base.arguments.flags, *ours.flags)
    )

    def apart(options: Options) -> bool:
        """Whether weight decay is left to `careful`, so that the rule must not decay."""
        decoupled = base.decoupled
        return masked or bool(options[decoupled] if isinstance(decoupled, str) else decoupled)

    def left(options: Options) -> Options:
        """The options that the rule itself gets."""
        return {**options, "weight_decay": 0.0} if apart(options) else options

    def flags(options: Options) -> Flags:
        return {
            **base.flags(left(options)),
            "cautious": cautious,
            "cautious_weight_decay": masked,
            "cautious_decayed": apart(options) and bool(options["weight_decay"] != 0),
        }

    def scalars(options: Options, step: Any, **given: Any) -> dict[str, Any]:
        share = given.pop(SHARE, None)
        numbers = base.numbers(left(options), *_parted(base, step, given))
        decay: Any = 0.0
        if apart(options):
            # The lr that the update itself takes, if it takes one: LAMB's is the tensor's own.
            lr = numbers["lr"] if "lr" in base.scalar_names else options["lr"]
            decay = lr * options["weight_decay"]
        return {
            **{name: numbers[name] for name in base.scalar_names},
            "cautious_scale": 1.0 if share is None else 1.0 / maximum(share, SMALLEST_SHARE),
            "cautious_decay": decay,
            **{name: numbers[name] for name in base.counters},
        }

    def terms_scalars(options: Options, step: Any, **given: Any) -> dict[str, Any]:
        """The numbers of the rule's own update."""
        numbers = base.numbers(left(options), *_parted(base, step, given))
        return {name: numbers[name] for name in base.scalar_names}

    def of_its_own(measure: Measure, before: Measure | None) -> Measure:
        """A measure of the rule's, without decay."""
        return replace(
            measure,
            before=before,
            scalars=lambda options, step, **given: base.term_numbers(
                measure, left(options), *_parted(base, step, given)
            ),
        )

    def update(param: Tensor, grad: Tensor, *states: Any, **given: Any) -> Any:
        kept = _wide(param)
        found = base.update(kept, grad, *states, **{name: given[name] for name in own})
        if not isinstance(found, tuple):
            return found  # which is refused
        ours_given = {name: given[name] for name in (*ours.scalars, *ours.flags)}
        return (*careful(kept, grad, found[0], **ours_given), *found[1:])

    def terms(param: Tensor, grad: Tensor, *states: Any, **given: Any) -> Any:
        return agreement(param, grad, base.update(param, grad, *states, **given)[0])

    measure: Measure | None = None
    for one in base.measures:
        measure = of_its_own(one, measure)
    if cautious:
        _describe(terms, base.arguments, base.written, _written(agreement, (SHARE,)))
        # The last: where a step goes may hang on what the rule itself has measured.
        measure = Measure(terms, {SHARE: "mean"}, terms_scalars, before=measure)
    _describe(update, takes, base.written, _written(careful, ("param",)))
    made = Rule(
        update,
        scalars,
        flags,
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


def _parted(base: Rule, step: Any, given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What scalars are given, as `Rule.numbers` takes it: counts, and what was measured."""
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
