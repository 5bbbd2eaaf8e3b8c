"""Learning rates that fall from the output of a model to its input, layer by layer."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from types import EllipsisType
from typing import Annotated, Any

from torch import nn

from descend.engine.hyperparameters import LearningRate, Range, declared, validate
from descend.errors import ParameterError
from descend.grouping.refining import refined
from descend.grouping.selection import Selector, partition
from descend.grouping.weight_decay import MATRIX
from descend.spelling import spelled

Decay = Annotated[
    float,
    Range(
        0,
        1,
        closed=True,
        positive=True,
        hint="it is the factor from one layer to the one before it",
    ),
    "factor per layer",
]

Piece = tuple[bool, list[nn.Parameter]]
"""Parameters that stay together, and whether they are a block of a stack."""


@spelled
def param_groups_layer_decay(
    model: nn.Module,
    lr: LearningRate,
    decay: Decay = 0.75,
    *,
    layers: Sequence[Selector | EllipsisType] | None = None,
    groups: Iterable[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    r"""Learning rates that decay with the distance from the output, for fine-tuning.

    .. math::

        lr_l = lr \cdot decay^{\,top - l}

    Definition: l numbers the layers from the input (0) to the output (top), whose parameters get
    `lr` itself. Without `layers` they are read off the model, in the order in which its modules
    were registered:

    - every child of an outermost `nn.Sequential` or `nn.ModuleList` is a layer: the blocks;
    - what is outside of them is one layer where it stands together: the embeddings before the
      blocks, the final norm and the head after them;
    - what has no weight of two dimensions (a norm) belongs to the layer before it;
    - a model with neither list: every child is a layer.

    Look at the result, as the example does. Where the order of registration is not the order of
    computation, or where a whole backbone is a child of a `Sequential`, give `layers`. A tied
    parameter belongs to the layer nearest to the input; frozen ones keep their places.

    Args:
        model: the model.
        lr: learning rate of the layer at the output; a number of at least 0, or a tensor of one.
        decay: factor per layer; above 0 and at most 1.
        layers: the layers from the input to the output, each a selector as in `param_groups` (a
            name pattern, a module, a list of them), the first match winning:
            `[model.embed, *model.blocks, [model.norm, model.head]]`; or `...` for the rest.
        groups: groups to split, such as `param_groups_weight_decay` returns; a group's own lr goes
            before the argument. Default: all parameters, as one group.

    Returns:
        Groups for the constructor of an optimizer, descend's or torch's: of each group one part per
        layer, from the input to the output.

    Raises:
        HyperparameterError: decay or an lr is out of range.
        ParameterError: the model shows only one layer; a parameter is in none of `layers` or named
            by two; a group is not of this model.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
        >>> groups = descend.param_groups_weight_decay(model, 0.1)
        >>> groups = descend.param_groups_layer_decay(model, 1e-3, 0.5, groups=groups)
        >>> for group in groups:
        ...     names = [name for name, _ in group["params"]]
        ...     print(group["lr"], group["weight_decay"], *names)
        0.00025 0.1 0.weight
        0.0005 0.1 1.weight
        0.001 0.1 2.weight
        0.00025 0.0 0.bias
        0.0005 0.0 1.bias
        0.001 0.0 2.bias
        >>> optimizer = descend.AdamW(groups)

    Source:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification" (ULMFiT:
        discriminative fine-tuning), 2018, https://arxiv.org/abs/1801.06146; Clark, Luong, Le and
        Manning, "ELECTRA", 2020, https://arxiv.org/abs/2003.10555, for the power of one factor;
        Bao, Dong, Piao and Wei, "BEiT", 2021, https://arxiv.org/abs/2106.08254, for vision. Named
        as in timm, https://huggingface.co/docs/timm.
    """
    owner = "param_groups_layer_decay"
    table = declared(param_groups_layer_decay)
    validate(owner, table, {"lr": lr, "decay": decay}, "")
    if layers is None:
        found = _layers(model)
        if len(found) == 1:
            raise ParameterError(
                f"{owner}: the model shows only one layer, so no lr would decay; "
                "give `layers`, from the input to the output"
            )
    else:
        parts = partition(owner, model, layers, "layer", "...")
        found = [[param for _, param in part] for part in parts if part]
    part = {id(param): layer for layer, params in enumerate(found) for param in params}

    def options(own: dict[str, Any], layer: int) -> dict[str, Any]:
        validate(owner, {"lr": table["lr"]}, own, "a group")
        return {**own, "lr": own.get("lr", lr) * decay ** (len(found) - 1 - layer)}

    return refined(owner, model, groups, part, options)


def _layers(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of each layer of a model, from the input to the output."""
    pieces = list(_pieces(model))
    if not any(block for block, _ in pieces):
        pieces = [(True, list(child.parameters())) for child in model.children()]
        pieces = [(False, list(model.parameters(recurse=False))), *pieces]
    layers: list[list[nn.Parameter]] = []
    for params in _joined(_once(pieces)):
        if layers and all(param.ndim < MATRIX for param in params):
            layers[-1].extend(params)
        else:
            layers.append(params)
    return layers


def _pieces(module: nn.Module) -> Iterator[Piece]:
    yield False, list(module.parameters(recurse=False))
    stack = isinstance(module, (nn.Sequential, nn.ModuleList))
    for child in module.children():
        if stack:
            yield True, list(child.parameters())
        else:
            yield from _pieces(child)


def _once(pieces: list[Piece]) -> Iterator[Piece]:
    """Without tied parameters that an earlier piece has, and without pieces that are empty then."""
    seen = set[int]()
    for block, params in pieces:
        new = [param for param in params if id(param) not in seen]
        seen.update(map(id, new))
        if new:
            yield block, new


def _joined(pieces: Iterator[Piece]) -> Iterator[list[nn.Parameter]]:
    """Blocks one by one; what stands between them as one."""
    for block, run in groupby(pieces, key=lambda piece: piece[0]):
        several = [params for _, params in run]
        yield from several if block else [[param for params in several for param in params]]
