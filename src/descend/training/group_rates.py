"""The learning rates of an optimizer's groups, as they follow from one."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer

from descend.errors import TrainerError
from descend.lr_scheduler.group_values import has_number, read, write

RATES = ("lr", "adamw_lr")
"""The learning rates of a group; Muon's second one is that of what is no matrix."""


def lr_factors(
    groups_at: Callable[[float], Sequence[dict[str, Any]]], low: float, high: float, maker: str
) -> list[dict[str, float]]:
    """By what each rate of each group follows from lr, seen at two of them.

    Args:
        groups_at: the groups of an optimizer that is made for a learning rate.
        low: the one.
        high: the other.
        maker: of the optimizer, for the errors.

    Returns:
        For each group the factors by name; a rate that is the same at both has none.

    Raises:
        TrainerError: a rate follows otherwise, or none follows.

    Example:
        >>> lr_factors(lambda lr: [{"lr": lr}, {"lr": 0.1 * lr}], 0.01, 1.0, "make_optimizer")
        [{'lr': 1.0}, {'lr': 0.1}]
    """
    pairs = [*zip(groups_at(low), groups_at(high), strict=True)]
    factors: list[dict[str, float]] = []
    for number, (one, other) in enumerate(pairs):
        factors.append({})
        for name in (name for name in RATES if has_number(one, name)):
            least, most = read(one, name), read(other, name)
            if least == most:
                continue
            factors[-1][name] = most / high
            if not math.isclose(least / low, most / high, rel_tol=1e-5):
                raise TrainerError(
                    f"lr_find: each {name} that {maker} makes must be a multiple of lr, and that "
                    f"of group {number} is {least:g} at lr={low:g} and {most:g} at lr={high:g}"
                )
    if not any(factors):
        raise TrainerError(
            f"lr_find: {maker} makes the same lr, {read(pairs[0][0], 'lr'):g}, whatever lr is "
            f"given; hand it on, as in descend.AdamW(parameters, lr=lr)"
        )
    return factors


def set_lrs(optimizer: Optimizer, factors: Sequence[dict[str, float]], lr: float) -> None:
    """Set the learning rates of all groups.

    Args:
        optimizer: whose.
        factors: for each group, by what its rates follow from lr; a rate that is not among them
            stays.
        lr: of the whole.
    """
    for name in RATES:
        pairs = zip(optimizer.param_groups, factors, strict=True)
        moving = [(group, each[name]) for group, each in pairs if name in each]
        write([group for group, _ in moving], name, None, [lr * factor for _, factor in moving])
