"""tensors.safetensors: written with a hash of each tensor, and read if it is what was saved.

    8 bytes         how long the header is, little-endian
    the header      {"model.w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}, ...}
    the rest        the values, row-major, one tensor after the other without a gap

Source: safetensors, https://github.com/huggingface/safetensors.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from descend.checkpoint.hashing import hash_bytes, hasher
from descend.checkpoint.manifest import MANIFEST, TENSORS, damaged, unreadable
from descend.checkpoint.snapshot import Snapshot
from descend.checkpoint.storage_key import bytes_of
from descend.errors import CheckpointError
from descend.files import flushed, opened

WORDS = {  # those that safetensors has for dtypes; any other tensor is stored as its bytes
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
LONGEST = 1 << 63  # torch counts elements in 64 bits
LENGTH = 8  # bytes that say how long the header is; it ends at a multiple of them
PIECE = 1 << 20  # bytes: what is hashed while it is still in the cache

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def write_tensors(path: Path, snapshot: Snapshot) -> tuple[dict[str, Any], dict[str, str]]:
    """Write the tensors of a snapshot to a new file, so that they are on the disk.

    Returns:
        The manifest's entry of the file, and the hash of each tensor.
    """
    values, kinds = snapshot.values, snapshot.kinds
    # The widest first, so that each begins at a multiple of its elements' size
    names = sorted(values, key=lambda name: (-_itemsize(kinds[name][0]), name))
    entries, end = [], 0
    for name in names:
        # Not json.dumps of them all: so many short-lived dicts and lists set the collector going
        entry = _entry(*kinds[name], end, values[name].nbytes)
        entries.append(f"{_encode(name)}:{_encode(entry)}")
        end += values[name].nbytes
    text = f"{{{','.join(entries)}}}".encode()
    text += b" " * (-len(text) % LENGTH)
    header = len(text).to_bytes(LENGTH, "little") + text
    hashes = {}
    with flushed(path, PIECE) as file:
        file.write(header)
        for name in names:
            dtype, shape = kinds[name]
            content, state = values[name].data, hasher(f"torch.{dtype}", shape)
            for at in range(0, len(content), PIECE):
                piece = content[at : at + PIECE]
                state.update(piece)
                file.write(piece)
            hashes[name] = state.hexdigest()
    return {"bytes": len(header) + end, "header": hash_bytes(header)}, hashes


class TensorsFile:
    """The file of a checkpoint's tensors, open, if its length and its header are what was saved.

    Args:
        folder: the checkpoint.
        manifest: what its manifest says.

    Raises:
        CheckpointError: if they are not, or if it cannot be read.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self._folder, self._kinds = folder, manifest["tensors"]
        expected = manifest["files"][TENSORS]
        try:
            self._file = opened(folder / TENSORS)
        except OSError as error:
            raise unreadable(folder, TENSORS, error) from error
        try:
            size = os.fstat(self._file.fileno()).st_size
            if size != expected["bytes"]:
                raise damaged(folder, f"{TENSORS} has {size} bytes and had {expected['bytes']}")
            length = self._file.read(LENGTH)
            header = length + self._file.read(min(int.from_bytes(length, "little"), size))
            if hash_bytes(header) != expected["header"]:
                what = f"{TENSORS} is not what was saved: the hash of its header differs"
                raise damaged(folder, what)
            self._places = self._checked_places(header, size, manifest["same"])
        except OSError as error:
            self.close()
            raise unreadable(folder, TENSORS, error) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "TensorsFile":
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor, verified."""
        values, kind = self.read(name), self._kinds[name]
        dtype = dtype_of(kind["dtype"])
        if dtype is None:
            raise CheckpointError(
                f"cannot load a tensor of dtype {kind['dtype']}: this torch has none"
            )
        if not values.numel():
            return torch.empty(kind["shape"], dtype=dtype)
        return values.view(dtype).reshape(kind["shape"])

    def read(self, name: str) -> torch.Tensor:
        """The bytes of a tensor, verified.

        They are read and not mapped: a file that is cut short meanwhile, or a disk that fails,
        would end the process where it is mapped, and mapping it costs more than reading it.
        """
        (start, end), kind = self._places[name], self._kinds[name]
        what = f"the tensor {name} in {TENSORS}"
        try:
            values = _room(end - start)
            into, state = bytes_of(values).data, hasher(f"torch.{kind['dtype']}", kind["shape"])
            if self._file.tell() != start:
                self._file.seek(start)
            for at in range(0, end - start, PIECE):
                piece = into[at : at + PIECE]
                if self._file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
                    raise damaged(self._folder, f"{what} cannot be read (it ends too early)")
                state.update(piece)
        except (OSError, MemoryError) as error:
            raise unreadable(self._folder, what, error) from error
        if state.hexdigest() != kind["hash"]:
            raise damaged(self._folder, f"{what} is not what was saved: its hash differs")
        return values

    def _checked_places(
        self, header: bytes, size: int, same: Mapping[str, str]
    ) -> dict[str, tuple[int, int]]:
        """Where each tensor begins and ends: each byte after the header is of one tensor."""
        entries = json.loads(header[LENGTH:])
        entries.pop("__metadata__", None)
        if entries.keys() != self._kinds.keys() or not same.keys().isdisjoint(entries):
            raise self._contradiction("names other tensors")
        if not entries.keys() >= {*same.values()}:
            raise self._contradiction("lacks one that another is said to be")
        places, end = {}, 0
        for name in sorted(entries, key=lambda name: tuple(entries[name]["data_offsets"])):
            dtype, shape = self._kinds[name]["dtype"], self._kinds[name]["shape"]
            whole = all(type(length) is int and length >= 0 for length in shape)
            if not whole or math.prod(length or 1 for length in shape) >= LONGEST:
                raise self._contradiction(f"cannot have {name} with the shape {shape}")
            known = dtype_of(dtype)
            (count,) = [math.prod(shape) * known.itemsize] if known else entries[name]["shape"]
            if entries[name] != _entry(dtype, shape, end, count):
                raise self._contradiction(f"has another dtype, shape or place for {name}")
            places[name] = (len(header) + end, len(header) + end + count)
            end += count
        if len(header) + end != size:
            raise self._contradiction("leaves bytes to no tensor")
        return places

    def _contradiction(self, what: str) -> CheckpointError:
        return damaged(self._folder, f"{TENSORS} contradicts {MANIFEST} or itself: it {what}")


def dtype_of(name: str) -> torch.dtype | None:
    """A dtype from its name; None if this torch has none of that name, or a quantized one."""
    dtype = getattr(torch, name, None)
    return dtype if isinstance(dtype, torch.dtype) and not name.startswith("q") else None


def _itemsize(dtype: str) -> int:
    known = dtype_of(dtype)
    assert known is not None
    return known.itemsize


def _entry(dtype: str, shape: Sequence[int], start: int, count: int) -> dict[str, Any]:
    """The header's entry of a tensor."""
    word = WORDS.get(dtype)
    stored = {"dtype": word, "shape": shape} if word else {"dtype": "U8", "shape": [count]}
    return {**stored, "data_offsets": [start, start + count]}


def _room(count: int) -> torch.Tensor:
    try:
        return torch.empty(count, dtype=torch.uint8)
    except RuntimeError as error:
        raise MemoryError(f"there is no memory for its {count} bytes") from error
