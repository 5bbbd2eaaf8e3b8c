"""Sums of a step: those of each parameter, and those over all that share a rule."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from descend.engine.measure import Measure
from descend.engine.rule import Rule


class Totals:
    """The sums over all parameters that share a rule, in whichever batches they are."""

    def __init__(self) -> None:
        # By the terms too: a rule may have several measures.
        self._of: dict[tuple[Rule, Callable[..., Any]], Tensor] = {}

    def add(self, rule: Rule, measure: Measure, sums: Tensor) -> None:
        """Add the sums of some parameters: one row each, one column for each term."""
        if "total" not in measure.kinds.values():
            return
        mine, key = sums.sum(0), (rule.root, measure.terms)
        known = self._of.get(key)
        self._of[key] = mine if known is None else known + mine.to(known.device)

    def measured(
        self, rule: Rule, measure: Measure, sums: Tensor, sizes: Tensor
    ) -> dict[str, Tensor]:
        """The sums, means and totals that a rule asks for, by name: one for each parameter.

        Args:
            rule: that of the parameters.
            measure: the one of the rule's that was made.
            sums: of each, one for each term.
            sizes: the number of elements of each, 1 where there are none.
        """
        found = {}
        for column, (name, kind) in enumerate(measure.kinds.items()):
            if kind == "total":
                total = self._of[rule.root, measure.terms][column]
                found[name] = total.to(sums.device).expand(len(sums))
            elif kind == "mean":
                found[name] = sums[:, column] / sizes
            else:
                found[name] = sums[:, column]
        return found
