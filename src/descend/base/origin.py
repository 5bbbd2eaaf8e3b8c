"""Which optimizer saved a state? The state does not say; its options and its entries tell."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from descend.engine.rule import Rule
from descend.errors import StateError

RUN_TIME = frozenset(("foreach", "fused", "capturable", "differentiable"))
"""Options that say how a step runs, not what it computes; a file never changes them."""

NEVER_IN_GROUPS = frozenset(("clip_norm", "clip_value", "skip_nonfinite"))
"""Options of the optimizer as a whole; a state does not hold them."""

KNOWN: list[Any] = []
"""The optimizers that may have saved a state; the catalogue puts them here."""


def refuse_other(optimizer: Any, groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a state whose options are another optimizer's, and lack or deny some of this one's.

    Args:
        optimizer: the one that loads.
        groups: the groups of the state.

    Raises:
        StateError: names the optimizers that know most of the options and have fewest others.
    """
    owner, options = type(optimizer).__name__, {key for group in groups for key in group}
    missing = [key for key in _lacking(optimizer, options) if key in optimizer.defaults]
    denied = _denied(optimizer, groups)
    ranks = {
        cls: (_known(cls, options) - len(_denied(cls, groups)), -len(_lacking(cls, options)))
        for cls in KNOWN
    }
    best = max(ranks.values(), default=(0, 0))  # none, where no optimizer of ours was imported
    if (missing or denied) and best[0] > _known(optimizer, options) - len(denied):
        savers = _either(cls.__name__ for cls, rank in ranks.items() if rank == best)
        why = f"lack {', '.join(missing)}" if missing else f"have another {', '.join(denied)}"
        raise StateError(
            f"{owner}: the state was saved by {savers}: its groups {why}; "
            f"load it into that optimizer, or pass what {owner}.state_dict() returned"
        )


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


def _known(cls: Any, saved: Collection[str]) -> int:
    """How many options of a state an optimizer has, too."""
    return len(cls.hyperparameters.keys() & saved)


def _denied(cls: Any, groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options whose values in a state an optimizer does not take, as three betas for two."""
    return [
        name
        for name, known in cls.hyperparameters.items()
        if not all(known.allowed.admits(group[name]) for group in groups if name in group)
    ]


def _lacking(cls: Any, saved: Collection[str]) -> list[str]:
    """The options of an optimizer that a state should hold and does not."""
    absent = (*saved, *RUN_TIME, *NEVER_IN_GROUPS, *cls.left_out)
    return [name for name in cls.hyperparameters if name not in absent]


def _either(names: Iterable[str]) -> str:
    return " or ".join(names)
