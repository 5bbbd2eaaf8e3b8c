"""Which optimizer saved a state? The state does not say; its options and its entries tell."""

from collections.abc import Collection, Iterable
from typing import Any

from descend.engine.rule import Rule

RUN_TIME = frozenset(("foreach", "fused", "capturable", "differentiable"))
"""Options that say how a step runs, not what it computes; a file never changes them."""

NEVER_IN_GROUPS = frozenset(("clip_norm", "clip_value", "skip_nonfinite"))
"""Options of the optimizer as a whole; a state does not hold them."""

KNOWN: list[Any] = []
"""The optimizers that may have saved a state; the catalogue puts them here."""


def by_options(saved: Collection[str]) -> tuple[int, str]:
    """The optimizers that know most of these options and have fewest others.

    Args:
        saved: the names of the options that the groups of a state hold.

    Returns:
        How many of the options they know, and their names: "Adam or AdamW".
    """
    ranks = {
        cls: (len(cls.hyperparameters.keys() & saved), -len(lacking(cls, saved))) for cls in KNOWN
    }
    best = max(ranks.values())
    return best[0], _either(cls.__name__ for cls, rank in ranks.items() if rank == best)


def by_entry(names: Collection[str]) -> str:
    """The optimizers whose state of a parameter has just these entries: "Adam or AdamW", or ""."""
    found = []
    for cls in KNOWN:
        rule = getattr(cls, "rule", None)
        if isinstance(rule, Rule):
            needed = {*rule.counts, *(name for name in rule.states if name not in rule.optional)}
            if needed <= {*names} <= {*rule.counts, *rule.states}:
                found.append(cls.__name__)
    return _either(found)


def lacking(cls: Any, saved: Collection[str]) -> list[str]:
    """The options of an optimizer that a state should hold and does not."""
    absent = (*saved, *RUN_TIME, *NEVER_IN_GROUPS, *cls.left_out)
    return [name for name in cls.hyperparameters if name not in absent]


def _either(names: Iterable[str]) -> str:
    return " or ".join(names)
