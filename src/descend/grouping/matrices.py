"""Groups for optimizers of matrices: the hidden ones to them, everything else to AdamW."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from descend.errors import ParameterError
from descend.grouping.refining import refined
from descend.grouping.selection import Selector, named, selected
from descend.grouping.weight_decay import MATRIX, vectors
from descend.spelling import spelled

TABLES = (nn.Embedding, nn.EmbeddingBag)
"""Modules whose weight is looked up row by row, and multiplies nothing."""


@spelled
def param_groups_matrices(
    model: nn.Module,
    *,
    matrices: Selector | None = None,
    others: Selector | None = None,
    groups: Iterable[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Hidden matrices for an optimizer of matrices, such as `Muon`; all else for AdamW.

    Definition: a parameter is AdamW's if it

    - has fewer than two dimensions (biases, the scales of norms), is owned by a norm, or has "bias"
      for a word of its last name, as in `param_groups_weight_decay`; or is a row or a column: as
      the matrix (first dimension, all others), as which `Muon` takes a convolution's kernel, it
      has only one; or
    - is owned by an `nn.Embedding` or an `nn.EmbeddingBag`, or
    - is the weight of the output layer: the last module, in the order in which they were
      registered, that has no children, is no embedding and no norm, and owns one weight of two or
      more dimensions; or
    - is picked by `others`.

    All others, and whatever `matrices` picks, are hidden matrices. A tied parameter is AdamW's if
    one of its names says so. In a model of one layer that is the output layer, and there is no
    hidden matrix. Where a head is registered before the body, or a table of positions is a bare
    parameter, say so: `matrices="body.*"`, `others=["head.*", "pos_embed"]`.

    Args:
        model: the model.
        matrices: what is a hidden matrix in spite of the rule: a selector as in `param_groups`, or
            a list of them. Default: nothing.
        others: what is AdamW's in spite of the rule. Default: nothing.
        groups: groups to split, such as `param_groups_weight_decay` returns. Default: all
            parameters, as one group.

    Returns:
        Groups for the constructor of the optimizer: of each group the matrices, then the others,
        with `adamw=True`, as far as they hold anything. Each parameter is in exactly one.

    Raises:
        ParameterError: a selector picks nothing, both pick the same, or `matrices` picks what has
            fewer than two dimensions; a group is not of this model.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Embedding(9, 4), torch.nn.Linear(4, 8), torch.nn.Linear(8, 9)
        ... )
        >>> for group in descend.param_groups_matrices(model):
        ...     print(group.get("adamw", False), [name for name, _ in group["params"]])
        False ['1.weight']
        True ['0.weight', '1.bias', '2.weight', '2.bias']
        >>> optimizer = descend.Muon(descend.param_groups_matrices(model), lr=0.01)

    Source:
        K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024,
        https://kellerjordan.github.io/posts/muon/, for who takes what.
    """
    owner = "param_groups_matrices"
    by_adamw = _others(owner, model)
    forced = set() if matrices is None else selected(owner, model, matrices, "matrices")
    spared = set() if others is None else selected(owner, model, others, "others")
    for name, param in named(owner, model):
        if id(param) in forced and (id(param) in spared or param.ndim < MATRIX):
            why = (
                "`others` picks it too; it can be only one of the two"
                if id(param) in spared
                else f"it has the shape {tuple(param.shape)}, and a matrix has at least two "
                f"dimensions"
            )
            raise ParameterError(f"{owner}: matrices picks {name!r}, but {why}")
    by_adamw = (by_adamw - forced) | spared
    part = {id(param): int(id(param) in by_adamw) for param in model.parameters()}

    def options(own: dict[str, Any], other: int) -> dict[str, Any]:
        return {**own, "adamw": True} if other else own

    return refined(owner, model, groups, part, options)


def _others(owner: str, model: nn.Module) -> set[int]:
    """The ids of the parameters that are no hidden matrices by the rule."""
    narrow = {
        id(param)
        for _, param in named(owner, model)
        if param.ndim >= MATRIX and param.numel() in (param.shape[0], param[:1].numel())
    }
    tables = {
        id(param)
        for module in model.modules()
        if isinstance(module, TABLES)
        for param in module.parameters(recurse=False)
    }
    of_vectors = vectors(model)
    output = set[int]()
    for module in model.modules():
        weights = {id(param) for param in module.parameters(recurse=False)} - of_vectors
        is_leaf = next(module.children(), None) is None and not isinstance(module, TABLES)
        if is_leaf and len(weights) == 1:
            output = weights
    return of_vectors | narrow | tables | output
