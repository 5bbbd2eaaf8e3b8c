"""One checkpoint: a folder, written whole or not at all, and read back verified."""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from descend.checkpoint.hashing import as_bytes, hash_bytes, hash_values, hasher
from descend.checkpoint.manifest import (
    FORMAT,
    MANIFEST,
    STATE,
    TENSORS,
    damaged,
    manifest_text,
    read_manifest,
    unreadable,
)
from descend.checkpoint.provenance import provenance
from descend.checkpoint.snapshot import Snapshot, take
from descend.checkpoint.tree import TENSORS as MARKS
from descend.checkpoint.tree import choose, decode, entries
from descend.errors import CheckpointError, DamagedError, MissingPartError
from descend.spelling import spelled

PIECE = 1 << 20  # bytes: what is hashed while it is still in the cache


@spelled
def save(
    path: str | os.PathLike[str],
    state: Mapping[str, Any],
    *,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Save a state to a folder, so that a whole checkpoint is there whatever happens.

    The folder holds `tensors.safetensors`, `state.json` with all that is no tensor, and
    `manifest.json` with a hash of each tensor and of the rest. No file of it holds code. It is
    written under another name beside `path`, flushed to the disk, and renamed: a process or a
    machine that dies on the way leaves the old checkpoint. Tensors that are the same memory (tied
    weights) are stored once.

    Args:
        path: the folder, new or a checkpoint that is replaced.
        state: dicts (keys: strings or whole numbers), lists, tuples and sets of dense tensors,
            NumPy arrays, strings, bytes, numbers, booleans and None, such as
            `{"model": model.state_dict(), "epoch": 3}`.
        about: what the manifest shall say of it: names and plain values.

    Raises:
        CheckpointError: for a value that a checkpoint cannot hold, naming its path; for a folder
            that cannot be written, or holds something else. What was there is then untouched.

    Example:
        >>> save("checkpoint", {"model": model.state_dict(), "epoch": 3})

    Source: safetensors, https://github.com/huggingface/safetensors; XXH3,
    https://github.com/Cyan4973/xxHash.
    """
    write(Path(path), take(state), about or {})


def write(path: Path, snapshot: Snapshot, about: Mapping[str, Any]) -> None:
    """Write a snapshot as a checkpoint: `save` tells how."""
    _refuse_unplain(about)
    try:
        path = path.resolve()  # where a link points to
        if not _is_free(path):
            raise CheckpointError(
                f"cannot write the checkpoint {path}: something else is there, and nothing is "
                f"overwritten but checkpoints; give another path, or remove it"
            )
        temporary = _hidden(path)
        try:
            temporary.mkdir()
            _write_parts(temporary, snapshot, about)
            flush(temporary)
            _put(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {' '.join(str(error).split())}; it needs an "
            f"existing folder, the right to write there, and room on the disk"
        ) from error


def load(
    path: str | os.PathLike[str], *, parts: Collection[str] | None = None, lenient: bool = False
) -> dict[str, Any]:
    """Load a state that `save` wrote, and verify every byte that is used of it.

    Args:
        path: the checkpoint's folder.
        parts: which entries of the state to read, such as `["model"]`; all where it is None.
        lenient: whether to leave parts out that are not there.

    Returns:
        The state, on the CPU: equal to the saved one bit for bit. Every mapping comes back as a
        dict. Tensors that shared memory are one tensor again; none shares memory with the file.

    Raises:
        CheckpointError: if it is missing, truncated or changed in any bit (naming the tensor and
            the file), is not a checkpoint of this format, or lacks one of the parts.

    Example:
        >>> model.load_state_dict(load("checkpoint", parts=["model"])["model"])
        <All keys matched successfully>

    Source: as `save`.
    """
    path = where(Path(path))
    manifest = read_manifest(path)
    try:
        return _load(path, manifest, parts, lenient)
    except CheckpointError:
        raise
    except MemoryError as error:
        raise unreadable(path, STATE, error) from error
    except Exception as error:  # what was forged with right hashes can be anything
        raise damaged(path, f"it cannot be understood ({type(error).__name__}: {error})") from error


@spelled
def verify(
    path: str | os.PathLike[str], *, progress: Callable[[int], None] = lambda count: None
) -> list[str]:
    """Read a checkpoint and say what in it is not what was saved.

    Args:
        path: the checkpoint's folder.
        progress: called with the bytes of each tensor that was read.

    Returns:
        The damages, one line each: every damaged tensor by its name. Empty if it is whole.

    Raises:
        CheckpointError: if there is no checkpoint at all, one of another format, or one that
            cannot be read now.

    Example:
        >>> verify("checkpoint")
        []

    Source: as `save`.
    """
    path = where(Path(path))
    if not os.path.exists(path / MANIFEST):
        read_manifest(path)  # which says what is there instead
    found: list[str] = []
    try:
        manifest = read_manifest(path)
    except DamagedError as error:
        return [str(error)]
    for check in (_check_rest, partial(_check_tensors, progress=progress)):
        try:
            found += check(path, manifest)
        except DamagedError as error:
            found.append(str(error))
        except CheckpointError:
            raise
        except MemoryError as error:
            raise unreadable(path, STATE, error) from error
        except Exception as error:  # as in load
            what = f"it cannot be understood ({type(error).__name__}: {error})"
            found.append(str(damaged(path, what)))
    return found


def _check_rest(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    _verified_rest(path, manifest)
    return []


def _check_tensors(
    path: Path, manifest: Mapping[str, Any], progress: Callable[[int], None]
) -> list[str]:
    """Every damaged tensor."""
    found: list[str] = []
    file, places = _opened(path, manifest)
    with file:
        for name, kind in manifest["tensors"].items():
            try:
                progress(_read(path, file, name, places[name], kind).nbytes)
            except DamagedError as error:
                found.append(str(error))
    return found


def _load(
    path: Path, manifest: Mapping[str, Any], parts: Collection[str] | None, lenient: bool
) -> dict[str, Any]:
    rest = _verified_rest(path, manifest)
    if parts is not None:
        held = entries(rest)
        missing = sorted(set(parts) - held.keys())
        if missing and not lenient:
            raise MissingPartError(
                f"cannot load {', '.join(missing)} of the checkpoint {path}: it holds "
                f"{', '.join(map(str, held)) or 'nothing'}"
            )
        rest = choose(rest, parts)
    same: dict[str, str] = manifest["same"]
    wanted = {same.get(name, name) for name in _names(rest)}
    tensors: dict[str, torch.Tensor] = {}
    file, places = _opened(path, manifest)
    with file:
        for name, kind in manifest["tensors"].items():
            if name in wanted:
                values = _read(path, file, name, places[name], kind)
                tensors[name] = _as_kind(values, kind["dtype"], kind["shape"])
    tensors.update({name: tensors[one] for name, one in same.items() if one in tensors})
    state = decode(rest, tensors)
    if not isinstance(state, dict):
        raise TypeError(f"a {type(state).__name__} in place of a dict")
    return state


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_parts(folder: Path, snapshot: Snapshot, about: Mapping[str, Any]) -> None:
    (folder / STATE).write_text(snapshot.text, encoding="utf-8")
    (folder / TENSORS).touch()
    mode = (folder / TENSORS).stat().st_mode  # as the umask has it; safetensors makes it private
    save_file(snapshot.tensors, folder / TENSORS)
    (folder / TENSORS).chmod(mode)
    manifest = {
        "format": FORMAT,
        "about": dict(about),
        "produced_by": provenance(),
        "files": {
            STATE: {"bytes": len(snapshot.text), "hash": hash_bytes(snapshot.text.encode())},
            TENSORS: {
                "bytes": (folder / TENSORS).stat().st_size,
                "header": hash_bytes(_header(folder / TENSORS)),
            },
        },
        "tensors": {
            name: {
                "dtype": dtype,
                "shape": shape,
                "hash": hash_values(f"torch.{dtype}", tuple(shape), as_bytes(tensor)),
            }
            for name, tensor in snapshot.tensors.items()
            for dtype, shape in [snapshot.kinds[name]]
        },
        "same": snapshot.same,
    }
    (folder / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    for name in (STATE, TENSORS, MANIFEST):
        flush(folder / name)


def _refuse_unplain(about: Mapping[str, Any]) -> None:
    try:
        json.dumps(dict(about), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"cannot save about={about!r}: {error}; it takes names and plain, finite values"
        ) from error


def _is_free(path: Path) -> bool:
    """Whether nothing is there, or an empty folder, or a checkpoint."""
    if not path.exists():
        return True
    names = {one.name for one in path.iterdir()} if path.is_dir() else {path.name}
    return not names or names == {MANIFEST, STATE, TENSORS}


def _put(temporary: Path, path: Path) -> None:
    """Give a whole checkpoint its name; another one of that name goes."""
    old = _old(path)
    if path.exists() and any(path.iterdir()):
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)  # from here to the next line `load` finds it under that name
        try:
            os.rename(temporary, path)
        except OSError:
            os.rename(old, path)
            raise
    else:
        os.rename(temporary, path)
    flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def where(path: Path) -> Path:
    """Where a checkpoint is: under another name where its replacement was cut short."""
    # os.path: a path that no system takes is not there, and is told when it is opened
    there = os.path.exists(path)
    return path if there or not os.path.exists(_old(path) / MANIFEST) else _old(path)


def _header(file: Path) -> bytes:
    """What stands before the first tensor: 8 bytes that say how long the JSON after them is."""
    with file.open("rb") as opened:
        length = opened.read(8)
        return length + opened.read(min(int.from_bytes(length, "little"), file.stat().st_size))


def _verified_rest(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the tensors, if it is what was saved."""
    try:
        content = (path / STATE).read_bytes()
    except OSError as error:
        raise unreadable(path, STATE, error) from error
    if hash_bytes(content) != manifest["files"][STATE]["hash"]:
        raise damaged(path, f"{STATE} is not what was saved: its hash differs")
    rest = json.loads(content)
    if not isinstance(rest, dict):
        raise damaged(path, f"{STATE} cannot be understood: it is no object")
    return rest


def _opened(path: Path, manifest: Mapping[str, Any]) -> tuple[BinaryIO, dict[str, tuple[int, int]]]:
    """The file of tensors, open, if its length and its header are what was saved.

    With it comes where each tensor begins and ends.
    """
    file, expected = path / TENSORS, manifest["files"][TENSORS]
    try:
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise damaged(path, f"{TENSORS} has {size} bytes and had {expected['bytes']}")
        header = _header(file)
        if hash_bytes(header) != expected["header"]:
            raise damaged(path, f"{TENSORS} is not what was saved: the hash of its header differs")
        entries = {k: v for k, v in json.loads(header[8:]).items() if k != "__metadata__"}
        first = len(header)
        places = {
            name: (first + entry["data_offsets"][0], first + entry["data_offsets"][1])
            for name, entry in entries.items()
        }
        return file.open("rb"), places
    except OSError as error:
        raise unreadable(path, TENSORS, error) from error


def _read(
    path: Path, file: BinaryIO, name: str, place: tuple[int, int], kind: Mapping[str, Any]
) -> torch.Tensor:
    """The bytes of a tensor, verified.

    They are read and not mapped: a file that is cut short meanwhile, or a disk that fails, would
    end the process where it is mapped, and mapping it costs more than reading it.
    """
    start, end = place
    what = f"the tensor {name} in {TENSORS}"
    if not 0 <= start <= end <= os.fstat(file.fileno()).st_size:
        raise damaged(path, f"{what} cannot be read (it ends too early)")
    try:
        values = _room(end - start)
        into, state = values.numpy().data, hasher(f"torch.{kind['dtype']}", tuple(kind["shape"]))
        file.seek(start)
        for at in range(0, end - start, PIECE):
            piece = into[at : at + PIECE]
            if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
                raise damaged(path, f"{what} cannot be read (it ends too early)")
            state.update(piece)
    except (OSError, MemoryError) as error:
        raise unreadable(path, what, error) from error
    if state.hexdigest() != kind["hash"]:
        raise damaged(path, f"{what} is not what was saved: its hash differs")
    return values


def _room(count: int) -> torch.Tensor:
    try:
        return torch.empty(count, dtype=torch.uint8)
    except RuntimeError as error:
        raise MemoryError(f"there is no memory for its {count} bytes") from error


def _as_kind(values: torch.Tensor, dtype: str, shape: list[int]) -> torch.Tensor:
    """A tensor from its bytes."""
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise CheckpointError(f"cannot load a tensor of dtype {dtype}: this torch has none")
    return values.view(kind).reshape(shape) if values.numel() else torch.empty(shape, dtype=kind)


def _names(rest: object) -> set[str]:
    """The names of the tensors that a part of `state.json` refers to."""
    if isinstance(rest, list):
        return {name for item in rest for name in _names(item)}
    if not isinstance(rest, dict):
        return set()
    if len(rest) == 1 and (mark := next(iter(rest))) in MARKS:
        return {rest[mark]}
    return {name for item in rest.values() for name in _names(item)}


def remove(path: Path) -> None:
    """Remove a checkpoint, so that no half of it is ever taken for one.

    Raises:
        OSError: if it cannot be; it is then whole.
    """
    gone = _hidden(path)
    os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _hidden(path: Path) -> Path:
    """A name beside a path that nobody else has."""
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
