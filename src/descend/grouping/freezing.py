"""Freezing parameters and unfreezing them again."""

from types import EllipsisType
from typing import Any

from torch import nn

from descend.errors import ParameterError
from descend.grouping.selection import Named, Selector, named, selected
from descend.spelling import spelled


@spelled
def freeze(model: nn.Module, selector: Selector | EllipsisType = ...) -> list[Named]:
    """Stop parameters from learning: no gradient is computed for them, and they do not move.

    Definition: `requires_grad` becomes False and the gradient that was there is dropped, since an
    optimizer would step with it once more. An optimizer that holds them may keep them: without a
    gradient they are not updated, not even by weight decay or momentum.

    Buffers are no parameters: batch norms go on updating their running mean and variance while
    they are in training mode. To hold those too, put these modules in `eval()` mode, after each
    `model.train()`.

    Args:
        model: the model, or the part of it that is meant.
        selector: what to freeze: a name pattern ("encoder.*"), a module, a module type, a tensor, a
            predicate `(name, parameter) -> bool`, or a list of these, as in `param_groups`.
            Default: all parameters.

    Returns:
        The parameters that are frozen now, with their names.

    Raises:
        ParameterError: the selector picks nothing; nothing has changed then.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> [name for name, _ in descend.freeze(model, "0.*")]
        ['0.weight', '0.bias']
        >>> model[0].weight.requires_grad, model[1].weight.requires_grad
        (False, True)

    Source:
        https://docs.pytorch.org/docs/stable/notes/autograd.html (locally disabling gradients)
    """
    pairs = _picked("freeze", model, selector)
    for _, param in pairs:
        param.requires_grad_(False)
        param.grad = None
    return pairs


@spelled
def unfreeze(
    model: nn.Module, selector: Selector | EllipsisType = ..., **options: Any
) -> dict[str, Any]:
    """Let parameters learn (again), and give them as a group for an optimizer.

    Definition: `requires_grad` becomes True. An optimizer that holds the parameters already goes on
    with them, with the state that they had. To one that was built without them, add the group.

    Args:
        model: the model, or the part of it that is meant.
        selector: what to unfreeze, as in `freeze`. Default: all parameters. For all that are still
            frozen: `lambda name, param: not param.requires_grad`.
        options: the options of the group, such as `lr=1e-4`.

    Returns:
        A group, `{"params": [(name, parameter)], **options}`, of all that the selector picks,
        whether it was frozen before or not: for `optimizer.add_param_group`, for a list of groups,
        or to be ignored.

    Raises:
        ParameterError: the selector picks nothing, or a tensor that can have no gradient (of
            integers); nothing has changed then.

    Example:
        Gradual unfreezing: the head first, more of the model later.

        >>> import torch, descend
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> frozen = descend.freeze(model)
        >>> optimizer = descend.AdamW([descend.unfreeze(model, "1.*", lr=1e-3)])
        >>> # ... some epochs later
        >>> optimizer.add_param_group(descend.unfreeze(model, "0.*", lr=1e-4))
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.001, 0.0001]

    Source:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification" (ULMFiT:
        gradual unfreezing), 2018, https://arxiv.org/abs/1801.06146
    """
    pairs = _picked("unfreeze", model, selector)
    for name, param in pairs:
        if not (param.is_floating_point() or param.is_complex()):
            raise ParameterError(
                f"unfreeze: parameter {name!r} is of dtype {param.dtype} and can have no gradient; "
                "leave it out of the selector"
            )
    for _, param in pairs:
        param.requires_grad_(True)
    return {"params": pairs, **options}


def _picked(owner: str, model: nn.Module, selector: Selector | EllipsisType) -> list[Named]:
    pairs = named(owner, model)
    if isinstance(selector, EllipsisType):
        return pairs
    ids = selected(owner, model, selector, "the selector")
    return [pair for pair in pairs if id(pair[1]) in ids]
