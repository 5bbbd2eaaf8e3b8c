"""Nested states taken apart into tensors with readable names and a JSON rest, and put back."""

import base64
import json
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from descend.errors import CheckpointError
from descend.format import dtype_name
from descend.states import below, state_of

MARK = "$"  # a JSON object whose one key starts with it stands for something JSON has no word for
DEEPEST = 200  # levels of JSON, of which a tuple has two: Python reads some 300
RESERVED = "__metadata__"  # what safetensors keeps for itself
METADATA = MARK + "metadata"
PAIRS = MARK + "pairs"  # what stands for a dict whose keys are no names
TENSORS = {MARK + "tensor", MARK + "array", MARK + "number"}  # what stands for one, by its name
LARGEST = 2**63  # other readers of JSON take no larger whole number


def flatten(state: Mapping[str, Any]) -> tuple[str, dict[str, torch.Tensor]]:
    """Take a nested state apart.

    Args:
        state: dicts, lists, tuples and sets of tensors, NumPy arrays, strings, bytes, numbers,
            booleans, None, dtypes, devices and what has a `state_dict`.

    Returns:
        The state as JSON with `{"$tensor": name}` in place of each tensor, and the tensors by
        name: the path to each, joined by dots. In the state of an optimizer that knows the names
        of its parameters, the name stands for the number: `optimizer.state.conv.weight.exp_avg`.

    Raises:
        CheckpointError: for anything else in the state, naming its path.
    """
    tensors: dict[str, torch.Tensor] = {}
    try:
        encoded = _encode(state, "", tensors)
        if _depth(encoded) > DEEPEST:
            raise RecursionError
        return json.dumps(encoded, allow_nan=False), tensors
    except RecursionError as error:
        raise CheckpointError(
            f"cannot save the state: it is nested more than {DEEPEST // 2} deep, or holds itself; "
            f"save plain values"
        ) from error


def unflatten(text: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Put a state back together: the inverse of `flatten`."""
    return cast(dict[str, Any], decode(json.loads(text), tensors))


def entries(encoded: Mapping[str, Any]) -> dict[Any, Any]:
    """The entries of a state, each still encoded."""
    if encoded.keys() == {PAIRS}:
        return dict(encoded[PAIRS])
    return {key: item for key, item in encoded.items() if key != METADATA}


def choose(encoded: Mapping[str, Any], parts: Collection[str]) -> dict[str, Any]:
    """The state with some of its entries, still encoded."""
    pairs = [[key, item] for key, item in entries(encoded).items() if key in parts]
    return {PAIRS: pairs}


def canonical(text: str, stands_for: Mapping[str, str]) -> str:
    """The same for all states that differ in nothing but the order of their dicts' keys.

    What modules note beside their states does not count either.

    Args:
        text: a state as `flatten` gives it.
        stands_for: what to write in place of the names of tensors.
    """
    return json.dumps(_sorted(json.loads(text), stands_for), sort_keys=True)


def _sorted(value: Any, stands_for: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_sorted(item, stands_for) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (mark := next(iter(value))) in TENSORS:
        return {mark: stands_for[value[mark]]}
    kept = {key: _sorted(item, stands_for) for key, item in value.items() if key != METADATA}
    if kept.keys() == {PAIRS}:
        kept[PAIRS].sort(key=lambda pair: json.dumps(pair[0]))
    return kept


def _depth(encoded: Any) -> int:
    """How deep lists and dicts are nested."""
    if not isinstance(encoded, list | dict):
        return 0
    items = encoded.values() if isinstance(encoded, dict) else encoded
    return 1 + max(map(_depth, items), default=0)


class Kind(NamedTuple):
    """A kind of value that JSON has no word for.

    Args:
        type: what it is; none where another kind is written so.
        plain: from a value to one that JSON has a word for, or that holds such.
        made: the inverse.
    """

    type: type[Any] | tuple[()]
    plain: Callable[[Any], Any]
    made: Callable[[Any], Any]


def _text(content: bytes | bytearray) -> str:
    return base64.b64encode(content).decode()


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise CheckpointError(f"this version of torch has no dtype {name}")
    return found


KINDS = {
    MARK + "int": Kind(int, hex, lambda text: int(text, 16)),
    MARK + "float": Kind(float, lambda value: repr(float(value)), float),
    MARK + "complex": Kind(complex, lambda value: [value.real, value.imag], lambda x: complex(*x)),
    MARK + "bytes": Kind(bytes, _text, base64.b64decode),
    MARK + "bytearray": Kind(bytearray, _text, lambda text: bytearray(base64.b64decode(text))),
    MARK + "dtype": Kind(torch.dtype, dtype_name, _dtype),
    MARK + "device": Kind(torch.device, str, torch.device),
    MARK + "tuple": Kind(tuple, list, tuple),
    MARK + "set": Kind(set, list, set),
    MARK + "frozenset": Kind(frozenset, list, frozenset),
    MARK + "counter": Kind(Counter, dict, Counter),  # torch's MultiStepLR has one
    PAIRS: Kind((), dict, dict),
}


def _encode(  # noqa: PLR0911 - one for each kind of value
    value: object, path: str, tensors: dict[str, torch.Tensor]
) -> object:
    if isinstance(value, torch.Tensor):
        return {MARK + "tensor": _add(_plain(value, path), path, tensors)}
    if isinstance(value, np.ndarray | np.generic) and not isinstance(value, float):
        mark = "array" if isinstance(value, np.ndarray) else "number"
        return {MARK + mark: _add(_from_numpy(value, path), path, tensors)}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and abs(value) < LARGEST:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, list):
        return [_encode(item, below(path, i), tensors) for i, item in enumerate(value)]
    if isinstance(value, Mapping) and not isinstance(value, Counter):
        return _encode_mapping(value, path, tensors, {})
    for mark, kind in KINDS.items():
        if isinstance(value, kind.type):
            encoded = _encode(kind.plain(value), path, tensors)
            # In one order, so that equal sets are saved equally
            unordered = isinstance(value, set | frozenset)
            return {mark: sorted(cast(Any, encoded), key=json.dumps) if unordered else encoded}
    if (state := state_of(value)) is not value:
        return _encode(state, path, tensors)
    raise CheckpointError(
        f"cannot save {path or 'the state'}: it is a {type(value).__name__}; a checkpoint holds "
        f"tensors, arrays, strings, bytes, numbers, booleans, None, what has a state_dict(), and "
        f"dicts, lists, tuples and sets of them"
    )


def _encode_mapping(
    value: Mapping[Any, Any],
    path: str,
    tensors: dict[str, torch.Tensor],
    words: Mapping[object, str],
) -> dict[str, Any]:
    """Encode a dict: a JSON object where its keys allow that, else a list of pairs.

    `words` has what stands in the names of tensors in place of a key: the name of a parameter, in
    the state of an optimizer.
    """
    names, encoded = _parameter_names(value), list[tuple[str | int, object]]()
    for key, item in value.items():
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise CheckpointError(
                f"cannot save {path or 'the state'}: its key {key!r} is a {type(key).__name__}; "
                f"keys must be strings or whole numbers"
            )
        place = below(path, words.get(key, key))
        if names and key == "state" and isinstance(item, Mapping):
            encoded.append((key, _encode_mapping(item, place, tensors, names)))
        else:
            encoded.append((key, _encode(item, place, tensors)))
    if not all(isinstance(key, str) and not key.startswith(MARK) for key, _ in encoded):
        return {PAIRS: [[key, item] for key, item in encoded]}
    written: dict[str, Any] = {str(key): item for key, item in encoded}
    # What torch's modules note beside their states: the version of each one's format
    metadata = getattr(value, "_metadata", None)
    if isinstance(metadata, Mapping):
        written[METADATA] = _encode(metadata, below(path, "_metadata"), tensors)
    return written


def _parameter_names(value: Mapping[Any, Any]) -> dict[object, str]:
    """The parameters' names by number, where `value` is an optimizer's state that knows them."""
    names: dict[object, str] = {}
    groups = value.get("param_groups") if "state" in value else None
    for group in groups if isinstance(groups, list) else ():
        if isinstance(group, Mapping):
            numbers, known = group.get("params"), group.get("param_names")
            if isinstance(numbers, list) and isinstance(known, list):
                pairs = zip(numbers, known, strict=False)
                names.update(pair for pair in pairs if isinstance(pair[0], int | str))
    return names


def decode(value: object, tensors: Mapping[str, torch.Tensor]) -> object:
    """Put a part of a state back together, from what its JSON holds."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((mark, held),) = value.items()
        if mark in TENSORS:
            tensor = tensors[held]
            array = tensor if mark == MARK + "tensor" else tensor.numpy()
            return array[()] if mark == MARK + "number" else array
        if mark in KINDS:
            return KINDS[mark].made(decode(held, tensors))
    decoded = {key: decode(item, tensors) for key, item in value.items() if key != METADATA}
    if METADATA not in value:
        return decoded
    noted = OrderedDict(decoded)
    noted._metadata = decode(value[METADATA], tensors)  # type: ignore[attr-defined]
    return noted


def _add(tensor: torch.Tensor, path: str, tensors: dict[str, torch.Tensor]) -> str:
    """Add a tensor under its path, or where {"a": {"b": x}, "a.b": y} gives it twice, a number."""
    plain = path.encode("utf-8", "backslashreplace").decode()  # half a surrogate is no UTF-8
    name, count = plain, 1
    while name in tensors or name == RESERVED:
        count += 1
        name = f"{plain}#{count}"
    tensors[name] = tensor
    return name


def _plain(tensor: torch.Tensor, path: str) -> torch.Tensor:
    kind = _odd_kind(tensor)
    if kind is not None:
        cure = (
            "call the model once"
            if is_lazy(tensor)
            else "convert it (to_dense, dequantize, full_tensor)"
        )
        raise CheckpointError(
            f"cannot save {path}: the tensor is {kind}; a checkpoint holds dense tensors with "
            f"values: {cure} first"
        )
    if tensor.requires_grad or type(tensor) is not torch.Tensor:
        tensor = tensor.detach()
    return tensor.resolve_conj().resolve_neg()


def _odd_kind(tensor: torch.Tensor) -> str | None:
    """The kind of a tensor that has no dense values; None for one that has."""
    for is_so, kind in (
        (is_lazy(tensor), "not initialized yet"),
        (tensor.layout is not torch.strided, f"stored as {tensor.layout}"),
        (tensor.is_nested, "nested"),
        (tensor.is_quantized, "quantized"),
        (tensor.is_meta, "on the meta device"),
    ):
        if is_so:
            return kind
    if type(tensor) not in PLAIN and _is_hollow(tensor):
        return f"a {type(tensor).__name__}, which has no memory of its own"
    return None if _is_within_memory(tensor) else "without memory"


PLAIN = (torch.Tensor, torch.nn.Parameter)


def _is_hollow(tensor: torch.Tensor) -> bool:
    """Whether it is of a subclass that only stands for other tensors."""
    try:
        return bool(tensor.numel()) and not tensor.untyped_storage().data_ptr()
    except RuntimeError:  # as torch calls it
        return True


def _is_within_memory(tensor: torch.Tensor) -> bool:
    """Whether its storage, which somebody may have shrunk, holds all of its elements."""
    count = tensor.numel()
    if count and not tensor.is_contiguous():
        count = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    end = (tensor.storage_offset() + count) * tensor.itemsize
    return not count or bool(end <= tensor.untyped_storage().nbytes())


def _from_numpy(value: Any, path: str) -> torch.Tensor:
    try:
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError("masked")
        native = value.dtype.newbyteorder("=")
        # A copy: torch refuses arrays that are read-only
        return torch.from_numpy(np.array(value, dtype=native))
    except (TypeError, ValueError) as error:
        kind = "masked array" if str(error) == "masked" else f"NumPy value of dtype {value.dtype}"
        raise CheckpointError(
            f"cannot save {path or 'the state'}: it is a {kind}; a checkpoint holds arrays of "
            f"numbers and booleans"
        ) from error
