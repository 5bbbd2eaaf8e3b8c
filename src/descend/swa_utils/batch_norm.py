"""update_bn: the statistics of batch norm layers, for weights that are averages."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map

from descend.errors import DataError
from descend.spelling import spelled
from descend.swa_utils.fitting import refuse_other_kind


@torch.no_grad()
@spelled
def update_bn(
    loader: Iterable[Any], model: Module, device: int | str | torch.device | None = None
) -> None:
    r"""Set the running statistics of batch norm layers to the mean over all batches.

    .. math::
        \mu = \frac{1}{B} \sum_b \mu_b, \quad \sigma^2 = \frac{1}{B} \sum_b \sigma_b^2

    Each batch counts the same. The model runs in training mode; afterwards every module is in the
    mode that it was in. A model without batch norm layers is left alone, and so is the loader. If
    anything fails on the way, the statistics are what they were.

    Args:
        loader: of batches. The model gets the batch, or of a list or tuple the first entry; a dict
            as it is.
        model: whose layers.
        device: where the tensors of a batch are moved to; nowhere if left out.

    Raises:
        DataError: there is not a single batch; nothing has changed.
        ParameterTypeError: `model` is no module.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.BatchNorm1d(1)
        >>> batches = [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]])]
        >>> descend.swa_utils.update_bn(batches, model)
        >>> model.running_mean, model.running_var
        (tensor([3.]), tensor([2.]))

    Source: P. Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization,
        UAI 2018, https://arxiv.org/abs/1803.05407.
    """
    refuse_other_kind("update_bn", model)
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    with modes_kept(model), _statistics_anew(layers):
        model.train()
        batches = 0
        for batch in loader:
            first = batch[0] if isinstance(batch, list | tuple) else batch
            model(first if device is None else on_device(first, device))
            batches += 1
        if not batches:
            raise DataError(
                "update_bn: the loader gave no batch, so there are no statistics; a generator can "
                "be walked only once"
            )


@contextmanager
def modes_kept(model: Module) -> Iterator[None]:
    """Put each module back into training or evaluation mode, whichever it was in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _statistics_anew(layers: list[_BatchNorm]) -> Iterator[None]:
    """Begin the statistics anew, as plain means; if the block raises, they are what they were."""
    momenta = [layer.momentum for layer in layers]
    before = [
        (buffer, buffer.clone())
        for layer in layers
        for name in ("running_mean", "running_var", "num_batches_tracked")
        if (buffer := getattr(layer, name)) is not None and not is_lazy(buffer)
    ]
    try:
        for layer in layers:
            mean = layer.running_mean
            if mean is None or not is_lazy(mean):  # a lazy one begins with its first batch
                layer.reset_running_stats()
            layer.momentum = None
        yield
    except BaseException:
        for buffer, value in before:
            buffer.copy_(value)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def on_device(batch: Any, device: int | str | torch.device) -> Any:
    """A batch with its tensors on a device, whatever it is nested in."""

    def can_move(value: object) -> bool:
        return hasattr(value, "to")

    def move(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device, non_blocking=True)
        return value.to(device) if can_move(value) else value

    return tree_map(move, batch, is_leaf=can_move)
