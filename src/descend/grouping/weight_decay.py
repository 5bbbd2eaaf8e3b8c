"""Weight decay for the weights only: none for biases and norms."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from descend.engine.hyperparameters import WeightDecay, declared, validate
from descend.grouping.refining import refined
from descend.grouping.selection import Selector, selected
from descend.spelling import spelled

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _NormBase)
"""Modules whose own parameters scale and shift what they normalize; `_NormBase` is the base of
torch's batch and instance norms."""

MATRIX = 2
"""A weight that mixes its inputs has at least so many dimensions."""


@spelled
def param_groups_weight_decay(
    model: nn.Module,
    weight_decay: WeightDecay,
    *,
    no_decay: Selector | None = None,
    groups: Iterable[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Weight decay for weight matrices and kernels; none for biases and norms.

    Definition: a parameter is not decayed if it

    - has fewer than two dimensions (biases, the scales of norms, of custom ones too), or
    - is owned by a norm (LayerNorm, RMSNorm, GroupNorm, every batch and instance norm, and what
      inherits from them), whatever its shape, or
    - has "bias" for a word of its last name ("bias", "in_proj_bias", "bias_k",
      "relative_position_bias_table"), or
    - is picked by `no_decay`.

    A tied parameter is not decayed if this holds under one of its names. Frozen parameters are in
    their groups too, so that they are right once they are unfrozen.

    Args:
        model: the model.
        weight_decay: for all others; a number of at least 0, in the optimizer's meaning of it.
        no_decay: what else is not decayed: a selector as in `param_groups`, or a list of them, such
            as `nn.Embedding` or `["*.pos_embed", model.gate]`. Default: nothing.
        groups: groups to split, such as `param_groups` returns; a group's own weight_decay goes
            before the argument. Default: all parameters, as one group.

    Returns:
        Groups for the constructor of an optimizer, descend's or torch's: of each group the decayed
        part, then the other, as far as they hold anything.

    Raises:
        HyperparameterError: a weight_decay is out of range.
        ParameterError: `no_decay` picks nothing, or a group is not of this model.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Embedding(9, 4), torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)
        ... )
        >>> groups = descend.param_groups_weight_decay(model, 0.1, no_decay=torch.nn.Embedding)
        >>> for group in groups:
        ...     print(group["weight_decay"], [name for name, _ in group["params"]])
        0.1 ['1.weight']
        0.0 ['0.weight', '1.bias', '2.weight', '2.bias']
        >>> optimizer = descend.AdamW(groups, lr=1e-3)

    Source:
        He, Zhang, Zhang, Zhang, Xie and Li, "Bag of Tricks for Image Classification with
        Convolutional Neural Networks", 2018, section 3.1, https://arxiv.org/abs/1812.01187, for
        no decay on biases and norms; Loshchilov and Hutter, "Decoupled Weight Decay
        Regularization", 2019, https://arxiv.org/abs/1711.05101, for the decay itself. Named as in
        timm, https://huggingface.co/docs/timm.
    """
    owner = "param_groups_weight_decay"
    table = declared(param_groups_weight_decay)
    validate(owner, table, {"weight_decay": weight_decay}, "")
    spared = vectors(model)
    if no_decay is not None:
        spared |= selected(owner, model, no_decay, "no_decay")

    def options(own: dict[str, Any], spare: int) -> dict[str, Any]:
        validate(owner, table, own, "a group")
        return {**own, "weight_decay": 0.0} if spare else {"weight_decay": weight_decay, **own}

    part = {id(param): int(id(param) in spared) for param in model.parameters()}
    return refined(owner, model, groups, part, options)


def vectors(model: nn.Module) -> set[int]:
    """The ids of the biases, the parameters of norms, and what has fewer than two dimensions."""
    return {
        id(param)
        for name, param in model.named_parameters(remove_duplicate=False)
        if param.ndim < MATRIX or "bias" in name.rpartition(".")[2].split("_")
    } | {
        id(param)
        for module in model.modules()
        if isinstance(module, NORMS)
        for param in module.parameters(recurse=False)
    }
