"""Parameter groups from an ordered list of rules."""

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

from torch import nn

from descend.grouping.selection import Selector, partition
from descend.spelling import spelled


@spelled
def param_groups(
    model: nn.Module, rules: Sequence[tuple[Selector | EllipsisType, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Split a model's parameters into groups by rules, each parameter in exactly one.

    Definition: the rules are read in order, and a parameter goes to the first that picks it; the
    groups are a partition of `model.named_parameters()`. Patterns may overlap, so the narrower rule
    comes first. What hands over the very tensors (a module, a tensor) names each of them once.

    Groups come in the order of the rules. Parameters keep their names, so that a saved state finds
    them again in whatever order they are. Frozen parameters (`requires_grad=False`) are in their
    groups too: an optimizer leaves them alone until they are unfrozen.

    Args:
        model: the model. A parameter used twice (tied weights) counts once, under its first name;
            each of its names can pick it.
        rules: pairs of a selector and the options of its group. A selector is a name pattern with
            `*` and `?` ("head.*"), a module or a tensor (by identity), a module type (what such
            modules own themselves), a predicate `(name, parameter) -> bool`, or a list of these;
            or `...`, wherever it stands: everything that no other rule picks.

    Returns:
        Groups for the constructor of an optimizer, descend's or torch's:
        `{"params": [(name, parameter)], **options}`. A `...` that gets nothing makes no group.

    Raises:
        ParameterError: a parameter is picked by no rule or named by two; a rule picks nothing, or
            nothing that the rules before it have left. The message names it.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> groups = descend.param_groups(model, [
        ...     ("*.bias", {"weight_decay": 0.0}),
        ...     (model[1], {"lr": 1e-2}),  # without its bias: the rule before has it
        ...     (..., {}),
        ... ])
        >>> for group in groups:
        ...     print([name for name, _ in group["params"]])
        ['0.bias', '1.bias']
        ['1.weight']
        ['0.weight']
        >>> optimizer = descend.AdamW(groups, lr=1e-3)

    Source:
        Per-parameter options as in https://docs.pytorch.org/docs/stable/optim.html
    """
    parts = partition("param_groups", model, [one for one, _ in rules], "rule", "(..., {})")
    return [
        {"params": part, **options} for part, (_, options) in zip(parts, rules, strict=True) if part
    ]
