"""Sums of a step: those of each parameter, and those over all that share a rule."""

from torch import Tensor

from descend.engine.rule import Rule


class Totals:
    """The sums over all parameters that share a rule, in whichever batches they are."""

    def __init__(self) -> None:
        self._of: dict[Rule, Tensor] = {}

    def add(self, rule: Rule, sums: Tensor) -> None:
        """Add the sums of some parameters: one row each, one column for each term."""
        assert rule.measure is not None
        if "total" not in rule.measure.kinds.values():
            return
        mine = sums.sum(0)
        known = self._of.get(rule)
        self._of[rule] = mine if known is None else known + mine.to(known.device)

    def measured(self, rule: Rule, sums: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """The sums, means and totals that a rule asks for, by name: one for each parameter.

        Args:
            rule: that of the parameters.
            sums: of each, one for each term.
            sizes: the number of elements of each, 1 where there are none.
        """
        assert rule.measure is not None
        found = {}
        for column, (name, kind) in enumerate(rule.measure.kinds.items()):
            if kind == "total":
                found[name] = self._of[rule][column].to(sums.device).expand(len(sums))
            elif kind == "mean":
                found[name] = sums[:, column] / sizes
            else:
                found[name] = sums[:, column]
        return found
