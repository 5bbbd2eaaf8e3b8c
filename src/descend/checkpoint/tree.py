"""Nested states taken apart into tensors with readable names and a JSON rest, and put back."""

import json
from collections.abc import Mapping
from typing import Any, cast

import torch

from descend.errors import CheckpointError

MARK = "$"  # a JSON object whose one key starts with it stands for something JSON has no word for


def flatten(state: Mapping[str, Any]) -> tuple[str, dict[str, torch.Tensor]]:
    """Take a nested state apart.

    Args:
        state: dicts, lists and tuples of tensors, strings, numbers, booleans and None.

    Returns:
        The state as JSON with `{"$tensor": name}` in place of each tensor, and the tensors by
        name: the path to each, joined by dots. In the state of an optimizer that knows the names
        of its parameters, the name stands for the number: `optimizer.state.conv.weight.exp_avg`.

    Raises:
        CheckpointError: for anything else in the state, naming its path.
    """
    tensors: dict[str, torch.Tensor] = {}
    return json.dumps(_encode(state, "", tensors), sort_keys=True), tensors


def unflatten(text: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Put a state back together: the inverse of `flatten`."""
    return cast(dict[str, Any], _decode(json.loads(text), tensors))


def _encode(value: object, path: str, tensors: dict[str, torch.Tensor]) -> object:
    if isinstance(value, torch.Tensor):
        name = _unused(path, tensors)
        tensors[name] = _plain(value, path)
        return {MARK + "tensor": name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_encode(item, _join(path, i), tensors) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {MARK + "tuple": [_encode(v, _join(path, i), tensors) for i, v in enumerate(value)]}
    if isinstance(value, Mapping):
        names = _parameter_names(value)
        pairs = [
            (key, _encode_state(item, _join(path, key), names, tensors))
            if names and key == "state"
            else (key, _encode(item, _join(path, key), tensors))
            for key, item in value.items()
        ]
        return _object(pairs, path)
    raise CheckpointError(
        f"cannot save {path or 'the state'}: it is a {type(value).__name__}; a checkpoint holds "
        f"tensors, strings, numbers, booleans, None, and dicts, lists and tuples of them"
    )


def _encode_state(
    state: object, path: str, names: Mapping[object, str], tensors: dict[str, torch.Tensor]
) -> object:
    """Encode the `state` of an optimizer: the parameters' names in place of their numbers."""
    if not isinstance(state, Mapping):
        return _encode(state, path, tensors)
    return _object(
        [(k, _encode(v, _join(path, names.get(k, k)), tensors)) for k, v in state.items()], path
    )


def _parameter_names(value: Mapping[Any, Any]) -> dict[object, str]:
    """The parameters' names by number, where `value` is an optimizer's state that knows them."""
    names: dict[object, str] = {}
    groups = value.get("param_groups")
    if "state" in value and isinstance(groups, list):
        for group in groups:
            if isinstance(group, Mapping) and "params" in group and "param_names" in group:
                names.update(zip(group["params"], group["param_names"], strict=False))
    return names


def _object(pairs: list[tuple[object, object]], path: str) -> object:
    """Encode a dict: a JSON object where its keys allow that, else a list of pairs."""
    for key, _ in pairs:
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise CheckpointError(
                f"cannot save {path or 'the state'}: its key {key!r} is a {type(key).__name__}; "
                f"keys must be strings or whole numbers"
            )
    if all(isinstance(key, str) and not key.startswith(MARK) for key, _ in pairs):
        return dict(pairs)
    return {MARK + "pairs": [[key, item] for key, item in pairs]}


def _decode(value: object, tensors: Mapping[str, torch.Tensor]) -> object:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if MARK + "tensor" in value:
        return tensors[value[MARK + "tensor"]]
    if MARK + "tuple" in value:
        return tuple(_decode(item, tensors) for item in value[MARK + "tuple"])
    if MARK + "pairs" in value:
        return {key: _decode(item, tensors) for key, item in value[MARK + "pairs"]}
    return {key: _decode(item, tensors) for key, item in value.items()}


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _unused(name: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """`name`, or where {"a": {"b": x}, "a.b": y} gives it twice, `name` with a number."""
    unique, count = name, 1
    while unique in tensors:
        count += 1
        unique = f"{name}#{count}"
    return unique


def _plain(tensor: torch.Tensor, path: str) -> torch.Tensor:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = (
            "quantized"
            if tensor.is_quantized
            else "on the meta device"
            if tensor.is_meta
            else f"stored as {tensor.layout}"
        )
        raise CheckpointError(
            f"cannot save {path}: the tensor is {kind}; a checkpoint holds dense tensors with "
            f"values: convert it first (to_dense, dequantize)"
        )
    return tensor.detach().resolve_conj().resolve_neg()
