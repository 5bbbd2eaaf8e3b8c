"""Averages of 16-bit tensors: kept in float32, cast while the model runs.

In 16 bits an average stands still as soon as its steps towards the model are below its last digit.
So the averaged model holds float32; and its layers, which expect the precision that they were made
for, get it for the time of a call.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

OWN = "_averaged_in_float32"
"""The attribute of a layer that names its widened tensors, each with its own dtype."""

ASIDE = "_put_aside"
"""The attribute of a layer that holds what its calls, one within the other, have put aside."""


def widen(model: Module, buffers: bool) -> None:
    """Turn what has fewer bits than float32 into float32, and cast it while a layer runs.

    Args:
        model: the averaged one.
        buffers: whether they are averaged too.
    """
    owners: dict[Module, dict[str, torch.dtype]] = {}
    for layer in model.modules():
        held = {**layer._parameters, **(layer._buffers if buffers else {})}
        own = {
            name: tensor.dtype
            for name, tensor in held.items()
            if tensor is not None and _is_narrow(tensor)
        }
        if own:
            owners[layer] = own
    for layer, own in owners.items():
        for name in own:
            tensor = getattr(layer, name)
            if _is_narrow(tensor):  # not yet under another name
                tensor.data = tensor.data.float()
    for layer in dict.fromkeys([model, *owners]) if owners else ():
        vars(layer).update({OWN: owners.get(layer, {}), ASIDE: []})
        layer.register_forward_pre_hook(_cast, with_kwargs=True)
        layer.register_forward_hook(_put_back, always_call=True)


def _is_narrow(tensor: Tensor) -> bool:
    return (
        not is_lazy(tensor)
        and tensor.is_floating_point()
        and tensor.element_size() < torch.float32.itemsize
    )


def _cast(layer: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Before a call: what is below a layer in its own dtypes, unless the input is in float32."""
    aside: list[tuple[Tensor, Tensor]] = []
    vars(layer)[ASIDE].append(aside)
    given = {
        one.dtype
        for one in tree_leaves((args, kwargs))
        if isinstance(one, Tensor) and one.is_floating_point()
    }
    own = vars(layer)[OWN]
    if any(getattr(layer, name).dtype is dtype for name, dtype in own.items()):
        return  # a layer around it has done so
    for owner in layer.modules():
        for name, dtype in vars(owner).get(OWN, {}).items():
            tensor = getattr(owner, name)
            if tensor.dtype is not dtype and (not given or dtype in given):
                with torch.inference_mode(tensor.is_inference()):
                    wide = tensor.data
                    aside.append((tensor, wide))
                    tensor.data = wide.to(dtype)


def _put_back(layer: Module, args: tuple[Any, ...], output: Any) -> None:
    """After a call, whatever became of it: what was put aside; buffers with what it wrote."""
    for tensor, wide in reversed(vars(layer)[ASIDE].pop()):
        cast = tensor.data
        tensor.data = wide
        if not isinstance(tensor, torch.nn.Parameter) and not torch.equal(
            cast, wide.to(cast.dtype)
        ):
            wide.copy_(cast)
