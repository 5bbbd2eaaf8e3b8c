"""One checkpoint: a folder, written whole or not at all, and read back verified."""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from descend.checkpoint.hashing import hash_bytes
from descend.checkpoint.manifest import (
    FORMAT,
    MANIFEST,
    STATE,
    TENSORS,
    damaged,
    manifest_text,
    read_manifest,
    understood,
    unreadable,
)
from descend.checkpoint.provenance import provenance
from descend.checkpoint.snapshot import Snapshot, snapshot_of
from descend.checkpoint.tensors_file import TensorsFile, dtype_of, write_tensors
from descend.checkpoint.tree import TENSORS as MARKS
from descend.checkpoint.tree import choose, decode, entries
from descend.errors import CheckpointError, DamagedError, MissingPartError
from descend.files import flush, flushed, hidden, opened
from descend.spelling import spelled
from descend.states import leaves


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
            `{"model": model, "epoch": 3}`. Of what has a `state_dict`, that is taken.
        about: what the manifest shall say of it: names and plain values.

    Raises:
        CheckpointError: for a value that a checkpoint cannot hold, naming its path; for a folder
            that cannot be written, or holds something else. What was there is then untouched.

    Example:
        >>> save("checkpoint", {"model": model, "epoch": 3})

    Source: safetensors, https://github.com/huggingface/safetensors; XXH3,
    https://github.com/Cyan4973/xxHash.
    """
    write(Path(path), snapshot_of(state), about or {})


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
        temporary = hidden(path)
        try:
            temporary.mkdir()
            _write_parts(temporary, snapshot, about)
            flush(temporary)
            _put(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {' '.join(str(error).split())}; it needs an "
            f"existing folder, the right to write there, and room on the disk"
        ) from error


def load(
    path: str | os.PathLike[str], *, parts: Collection[str] | None = None, lenient: bool = False
) -> dict[str, Any]:
    """Load a checkpoint's folder as `descend.checkpoint.load` tells.

    Args:
        path: the folder.
        parts: which entries of the state to read; all where it is None.
        lenient: whether to leave parts out that are not there.
    """
    path = present_path(Path(path))
    manifest = read_manifest(path)
    with understood(path):
        return _load(path, manifest, parts, lenient)


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
    path = present_path(Path(path))
    if not os.path.exists(path / MANIFEST):
        read_manifest(path)  # which says what is there instead
    return _damages(path, _check_rest, partial(_check_tensors, progress=progress))


def seen_damages(path: Path) -> list[str]:
    """The damages of a checkpoint that are seen without reading a tensor, as `verify` has them."""
    return _damages(path, _check_rest, _check_places)


def _damages(path: Path, *checks: Callable[[Path, dict[str, Any]], list[str]]) -> list[str]:
    """The damages that some checks find: each returns them, or raises the one that ends it."""
    try:
        manifest = read_manifest(path)
    except DamagedError as error:
        return [str(error)]
    found = []
    for check in checks:
        try:
            with understood(path):
                found += check(path, manifest)
        except DamagedError as error:
            found.append(str(error))
    return found


def _check_places(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    TensorsFile(path, manifest).close()
    return []


def _check_rest(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    rest = verified_rest(path, manifest)
    # As `load` puts it together, with empty tensors in place of those
    empty = {
        name: torch.empty(0, dtype=dtype_of(kind["dtype"]) or torch.uint8)
        for name, kind in manifest["tensors"].items()
    }
    _put_together(rest, empty, manifest["same"])
    return []


def _check_tensors(
    path: Path, manifest: Mapping[str, Any], progress: Callable[[int], None]
) -> list[str]:
    """Every damaged tensor."""
    found: list[str] = []
    with TensorsFile(path, manifest) as file:
        for name in manifest["tensors"]:
            try:
                progress(file.read(name).nbytes)
            except DamagedError as error:
                found.append(str(error))
    return found


def _load(
    path: Path, manifest: Mapping[str, Any], parts: Collection[str] | None, lenient: bool
) -> dict[str, Any]:
    rest = verified_rest(path, manifest)
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
    names = (str(name) for place, name in leaves(rest) if place and place[-1] in MARKS)
    wanted = {same.get(name, name) for name in names}
    with TensorsFile(path, manifest) as file:
        tensors = {name: file.tensor(name) for name in manifest["tensors"] if name in wanted}
    return _put_together(rest, tensors, same)


def _put_together(
    rest: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], same: Mapping[str, str]
) -> dict[str, Any]:
    """The state."""
    tied = {name: tensors[one] for name, one in same.items() if one in tensors}
    state = decode(rest, {**tensors, **tied})
    if not isinstance(state, dict):
        raise TypeError(f"a {type(state).__name__} in place of a dict")
    return state


def _write_parts(folder: Path, snapshot: Snapshot, about: Mapping[str, Any]) -> None:
    text = snapshot.text.encode()
    _write(folder / STATE, text)
    file, hashes = write_tensors(folder / TENSORS, snapshot)
    manifest = {
        "format": FORMAT,
        "about": dict(about),
        "produced_by": provenance(),
        "files": {STATE: {"bytes": len(text), "hash": hash_bytes(text)}, TENSORS: file},
        "tensors": {
            name: {"dtype": dtype, "shape": shape, "hash": hashes[name]}
            for name, (dtype, shape) in snapshot.kinds.items()
        },
        "same": snapshot.same,
    }
    _write(folder / MANIFEST, manifest_text(manifest).encode())


def _write(path: Path, content: bytes) -> None:
    with flushed(path) as file:
        file.write(content)


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


def present_path(path: Path) -> Path:
    """Where a checkpoint is: under another name where its replacement was cut short."""
    # os.path: a path that no system takes is not there, and is told when it is opened
    there = os.path.exists(path)
    return path if there or not os.path.exists(_old(path) / MANIFEST) else _old(path)


def verified_rest(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the tensors, if it is what was saved."""
    expected = manifest["files"][STATE]
    try:
        with opened(path / STATE) as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected["bytes"]:
                raise damaged(path, f"{STATE} has {size} bytes and had {expected['bytes']}")
            content = file.read(size)
    except OSError as error:
        raise unreadable(path, STATE, error) from error
    if hash_bytes(content) != expected["hash"]:
        raise damaged(path, f"{STATE} is not what was saved: its hash differs")
    rest = json.loads(content)
    if not isinstance(rest, dict):
        raise damaged(path, f"{STATE} cannot be understood: it is no object")
    return rest


def remove(path: Path) -> None:
    """Remove a checkpoint, so that no half of it is ever taken for one.

    Raises:
        OSError: if it cannot be; it is then whole.
    """
    gone = hidden(path)
    os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)
