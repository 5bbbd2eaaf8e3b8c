"""Hashes of tensors and of whole states: 128-bit XXH3, which reads at the speed of memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xxhash

from descend.checkpoint.storage_key import bytes_of
from descend.checkpoint.tree import canonical, flatten


def hash_tensor(tensor: torch.Tensor) -> str:
    """Hash a dense tensor: its dtype, its shape and its values' bytes in row-major order.

    Equal for every layout of the same values: contiguous or not, on any device.

    Args:
        tensor: any dense tensor, of any dtype and shape; 0-d and empty ones too.

    Returns:
        32 hexadecimal digits.
    """
    state = hasher(str(tensor.dtype), tensor.shape)
    state.update(bytes_of(tensor).data)
    return state.hexdigest()


def hasher(dtype: str, shape: Sequence[int]) -> "xxhash.xxh3_128":
    """Begin the hash that `hash_tensor` gives, for the bytes of a tensor's values in pieces."""
    return xxhash.xxh3_128(f"{dtype} {tuple(shape)} ".encode())


def hash_text(text: str) -> str:
    """Hash a string: 32 hexadecimal digits."""
    return hash_bytes(text.encode())


def hash_bytes(content: bytes) -> str:
    """Hash bytes: 32 hexadecimal digits."""
    return xxhash.xxh3_128(content).hexdigest()


def digest(state: Mapping[str, Any]) -> str:
    """Digest a whole state: two states have the same one if and only if they are equal bit for bit.

    It covers every tensor's name, dtype, shape and bytes, and everything that is not a tensor
    (hyperparameters, counters). Which tensors share memory, how they are laid out and the order
    of the dicts' keys do not count. XXH3 guards against accidents, not against forgers.

    Args:
        state: what `save` takes, such as `{"model": model}`.

    Returns:
        32 hexadecimal digits.

    Raises:
        CheckpointError: for a value that a checkpoint cannot hold, naming its path.

    Example:
        >>> digest({"weight": torch.zeros(2)}) == digest({"weight": torch.zeros(2)})
        True
        >>> digest({"weight": torch.zeros(2)}) == digest({"weight": -torch.zeros(2)})
        False

    Source: XXH3, https://github.com/Cyan4973/xxHash.
    """
    text, tensors = flatten(state)
    hashes = {name: hash_tensor(tensor) for name, tensor in tensors.items()}
    return hash_text(canonical(text, hashes))
