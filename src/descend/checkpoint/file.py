"""Saving a state to one file, whole or not at all, and loading it back, verified."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from descend.checkpoint.hashing import as_bytes, hash_tensor, hash_text
from descend.checkpoint.tree import flatten, unflatten
from descend.errors import CheckpointError

FORMAT = "descend checkpoint 1"
STORABLE = {  # what safetensors has a word for; any other dtype is stored as its bytes
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
}


def save(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Save a state to one file, so that the file is whole whatever happens.

    The file is in the safetensors format, which holds no code: the tensors under readable names,
    the rest as JSON in its metadata, a hash of each. It is written under another name in the same
    folder, flushed to the disk, and renamed over `path`: a process or a machine that dies in the
    middle leaves the old file as it was. Tensors that are the same memory (tied weights) are
    stored once.

    Args:
        path: where to; an existing file is replaced.
        state: dicts (keys: strings or whole numbers), lists and tuples of dense tensors, strings,
            numbers, booleans and None, such as `{"model": model.state_dict(), "epoch": 3}`.

    Raises:
        CheckpointError: for a value that a checkpoint cannot hold, naming its path, and for a
            file that cannot be written. The old file is then untouched.

    Example:
        >>> save("run.safetensors", {"model": model.state_dict(), "epoch": 3})

    Source: safetensors, https://github.com/huggingface/safetensors.
    """
    path = Path(path)
    text, tensors = flatten(state)
    stored: dict[str, torch.Tensor] = {}
    first: dict[tuple[Any, ...], str] = {}
    same: dict[str, str] = {}
    kinds: dict[str, tuple[str, list[int]]] = {}
    hashes: dict[str, str] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        memory = _memory(tensor)
        if memory in first:
            same[name] = first[memory]
            continue
        if tensor.numel():
            first[memory] = name
        hashes[name] = hash_tensor(tensor)
        values = tensor.cpu().contiguous()
        if values.dtype not in STORABLE:
            kinds[name] = (str(values.dtype).removeprefix("torch."), list(values.shape))
            values = as_bytes(values)
        # safetensors refuses two tensors in one storage, such as two slices of a buffer
        storage = values.untyped_storage()
        alone = storage.nbytes() == values.nbytes and storage.data_ptr() not in storages
        stored[name] = values if alone else values.clone()
        storages.add(storage.data_ptr())
    rest = json.dumps({"state": text, "hashes": hashes, "same": same, "dtypes": kinds})
    metadata = {"format": FORMAT, "rest": rest, "rest_hash": hash_text(rest)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.touch()
            mode = temporary.stat().st_mode  # as the umask has it; safetensors makes it private
            save_file(stored, temporary, metadata)
            temporary.chmod(mode)
            _flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(path.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {error}; it needs an existing folder, the right "
            f"to write there, and room on the disk"
        ) from error


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a state that `save` wrote, and verify every byte of it.

    Args:
        path: the file.

    Returns:
        The state, on the CPU: equal to the saved one bit for bit. Every mapping comes back as a
        dict. Tensors that shared memory are one tensor again; none shares memory with the file.

    Raises:
        CheckpointError: if the file is missing, truncated or changed in any bit (naming the
            tensor), or is not a checkpoint of this format.

    Example:
        >>> model.load_state_dict(load("run.safetensors")["model"])

    Source: safetensors, https://github.com/huggingface/safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"cannot load the checkpoint {path}: there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # clone: what safetensors returns can be a view of the mapped file
            stored = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot load the checkpoint {path}: it is truncated, damaged, or no safetensors file "
            f"({' '.join(str(error).split())}); use an older checkpoint"
        ) from error
    rest = _verified_rest(path, metadata)
    hashes: dict[str, str] = rest["hashes"]
    if stored.keys() != hashes.keys():
        odd = sorted(stored.keys() ^ hashes.keys())
        raise _damaged(path, f"its list of tensors differs from the saved one at {odd[0]}")
    tensors: dict[str, torch.Tensor] = {}
    for name, values in stored.items():
        tensor = values
        if name in rest["dtypes"]:
            kind, shape = rest["dtypes"][name]
            tensor = _restore(values, getattr(torch, kind, None), shape, path, name)
        if hash_tensor(tensor) != hashes[name]:
            raise _damaged(path, f"the tensor {name} is not what was saved: its hash differs")
        tensors[name] = tensor
    tensors.update({name: tensors[original] for name, original in rest["same"].items()})
    return unflatten(rest["state"], tensors)


def _verified_rest(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Everything but the tensors, if it is what was saved."""
    if metadata.get("format") != FORMAT or "rest" not in metadata:
        raise CheckpointError(
            f"cannot load the checkpoint {path}: its format is {metadata.get('format')!r}, and "
            f"this version of descend reads {FORMAT!r}; it was written by something else, or it "
            f"is damaged"
        )
    if hash_text(metadata["rest"]) != metadata.get("rest_hash"):
        raise _damaged(path, "its metadata is not what was saved: the hash differs")
    rest: dict[str, Any] = json.loads(metadata["rest"])
    return rest


def _restore(
    values: torch.Tensor, dtype: object, shape: list[int], path: Path, name: str
) -> torch.Tensor:
    """A tensor from its bytes."""
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(
            f"cannot load the checkpoint {path}: the tensor {name} has a dtype that this version "
            f"of torch lacks"
        )
    try:
        return values.view(dtype).reshape(shape)
    except RuntimeError as error:
        raise _damaged(path, f"the tensor {name} is not what was saved: {error}") from error


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"cannot load the checkpoint {path}: {what}; the file is damaged: use an older checkpoint"
    )


def _memory(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Which memory a tensor reads, and how: equal only for tensors that are always equal."""
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
