"""Any state as what torch reads without code: plain values in place of their other kinds."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from descend.checkpoint.storage_key import storage_key
from descend.errors import CheckpointError
from descend.states import below, state_of

PLAIN: dict[type[Any], Callable[[Any], Any]] = {
    int: int, float: float, complex: complex, str: str.__str__,
}  # fmt: skip


def code_free(value: Any, path: str, seen: dict[Any, torch.Tensor]) -> Any:  # noqa: PLR0911
    """A value as `torch.load(weights_only=True)` reads it.

    Args:
        value: of a state.
        path: to it, for messages.
        seen: the tensors so far, by their memory.
    """
    if isinstance(value, torch.Tensor):
        return _plain_tensor(value, path, seen)
    if isinstance(value, np.ndarray | np.generic):
        return _plain_array(value, path)
    if value is None or isinstance(value, bool | torch.dtype | torch.device | torch.Size):
        return value
    for kind, made in PLAIN.items():
        if isinstance(value, kind):
            return made(value)
    if isinstance(value, bytes | bytearray):
        return value if value and type(value) is bytes else bytearray(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value, path, seen)
    if isinstance(value, list | tuple):
        kind_of_list = list if isinstance(value, list) else tuple
        return kind_of_list(code_free(v, below(path, i), seen) for i, v in enumerate(value))
    if isinstance(value, set | frozenset):
        try:
            return {code_free(item, below(path, item), seen) for item in value}
        except TypeError as error:
            raise CheckpointError(
                f"{path or 'the state'} is a set of sets; torch reads none without running code"
            ) from error
    if (state := state_of(value)) is not value:
        return code_free(state, path, seen)
    raise CheckpointError(
        f"{path or 'the state'} is a {type(value).__name__}; torch reads tensors, strings, bytes, "
        f"numbers, booleans, None, and dicts, lists, tuples and sets of them without running code"
    )


def _plain_mapping(value: Mapping[Any, Any], path: str, seen: dict[Any, torch.Tensor]) -> Any:
    kind: Any = next((one for one in (Counter, OrderedDict) if isinstance(value, one)), dict)
    result = kind()
    for key, item in value.items():
        place = below(path, key)
        name = code_free(key, f"the key {place}", seen)
        if not isinstance(name, str | int | float | tuple | None) or not _is_hashable(name):
            raise CheckpointError(
                f"{path or 'the state'} has the key {key!r}, a {type(key).__name__}; a key is a "
                f"string or a number"
            )
        result[name] = code_free(item, place, seen)
    if kind is OrderedDict and hasattr(value, "_metadata"):
        result._metadata = code_free(value._metadata, below(path, "_metadata"), seen)
    return result


def _plain_tensor(value: torch.Tensor, path: str, seen: dict[Any, torch.Tensor]) -> torch.Tensor:
    if value.is_meta or torch.nn.parameter.is_lazy(value):
        raise CheckpointError(
            f"the tensor {path} has no values yet ({'meta device' if value.is_meta else 'lazy'}); "
            f"give the model some before it is saved"
        )
    tensor = value.detach()
    if type(tensor) is not torch.Tensor:
        tensor = tensor.as_subclass(torch.Tensor)
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return tensor.cpu()
    read = storage_key(tensor)  # what reads the same memory in the same way is one tensor
    if read not in seen:
        values = tensor.resolve_conj().resolve_neg().cpu()
        if values.untyped_storage().nbytes() > values.nbytes:  # torch would save the whole storage
            values = values.clone(memory_format=torch.contiguous_format)
        seen[read] = values
    return seen[read]


def _plain_array(value: Any, path: str) -> Any:
    if isinstance(value, np.generic):
        number = value.item()
        if not isinstance(number, np.generic) and isinstance(
            number, bool | int | float | complex | str | bytes
        ):
            return number
    elif value.dtype.kind in "US":
        return value.tolist()
    else:
        try:
            return torch.from_numpy(np.array(value))  # a copy: torch refuses read-only ones
        except TypeError:
            pass
    raise CheckpointError(
        f"{path or 'the state'} is a NumPy value of dtype {value.dtype}, which torch cannot hold"
    )


def _is_hashable(value: object) -> bool:
    """Whether it is; a tuple is not if a set is in it, in whose place a frozenset was."""
    try:
        hash(value)
    except TypeError:
        return False
    return True
