"""The manifest of a checkpoint: what belongs to it, and the hash of every part.

    {"format": "descend checkpoint 2",
     "about": {"step": 1200, ...},                     what its writer says of it
     "produced_by": {"torch": "2.13.0", ...},          versions, machine, threads, flags
     "files": {"state.json": {"bytes": 512, "hash": ...},
               "tensors.safetensors": {"bytes": 9000, "header": ...}},
     "tensors": {"model.weight": {"dtype": "float32", "shape": [3, 4], "hash": ...}, ...},
     "same": {"model.tied": "model.weight"},
     "hash": ...}                                      of all above

The last hash is of the text without its own line, so that no bit of it can change unseen.
"""

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from descend.checkpoint.hashing import hash_text
from descend.errors import CheckpointError, DamagedError, FormatError
from descend.files import IrregularError, read_whole

FORMAT = "descend checkpoint 2"
ENTRIES = ("about", "produced_by", "files", "tensors", "same")
MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "tensors.safetensors"
# What reading answers where something else is on the disk than was written. The rest passes by:
# rights, too many open files, a server that is away
DAMAGES = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO, errno.EBADMSG, errno.EILSEQ,
    getattr(errno, "EUCLEAN", errno.EIO),
}  # fmt: skip


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The text of a manifest, its hash added."""
    entries = {name: _text(name, value) for name, value in manifest.items()}
    entries["hash"] = _text("hash", hash_text(_joined(entries)))
    return _joined(entries)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a checkpoint's folder, and verify every bit of it.

    Raises:
        CheckpointError: if it is missing, damaged, of another format, or cannot be read now.
    """
    file = path / MANIFEST
    try:
        text = read_whole(file).decode()
    except FileNotFoundError as error:
        what = "is no checkpoint: it has no" if path.is_dir() else "does not exist: there is no"
        raise CheckpointError(f"cannot load the checkpoint {path}: it {what} {MANIFEST}") from error
    except OSError as error:
        raise unreadable(path, MANIFEST, error) from error
    except ValueError as error:
        raise damaged(path, f"{MANIFEST} cannot be read ({error})") from error
    try:
        manifest: dict[str, Any] = json.loads(text)
        kind = manifest["format"]
        own = f'\n "hash": "{manifest.pop("hash")}",'  # begins a line, as no other entry's does
        whole = own == f'\n "hash": "{hash_text(text.replace(own, "", 1))}",'
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, f"{MANIFEST} is not what was saved") from error
    if not whole:
        raise damaged(path, f"{MANIFEST} is not what was saved: its hash differs")
    if kind != FORMAT:
        raise FormatError(
            f"cannot load the checkpoint {path}: its format is {kind!r}, and this version of "
            f"descend reads {FORMAT!r}; use the version that wrote it"
        )
    for entry in ENTRIES:
        if not isinstance(manifest.get(entry), dict):
            raise damaged(path, f"{MANIFEST} cannot be understood: its {entry} is no object")
    return manifest


def damaged(path: Path, what: str) -> DamagedError:
    """The error for a checkpoint that is not what was saved."""
    return DamagedError(
        f"cannot load the checkpoint {path}: {what}; it is damaged: use an older checkpoint"
    )


def damage_alone(path: Path, error: str) -> str:
    """The damage itself, of an error that says it of a checkpoint."""
    begin, end = str(damaged(path, "\0")).split("\0")
    return error.removeprefix(begin).removesuffix(end)


def unreadable(path: Path, what: str, error: OSError | MemoryError) -> CheckpointError:
    """The error for a part that the system does not let us read: damaged, or just not now."""
    why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    if isinstance(error, IrregularError) or (isinstance(error, OSError) and error.errno in DAMAGES):
        return damaged(path, f"{what} cannot be read ({why})")
    return CheckpointError(
        f"cannot load the checkpoint {path}: {what} cannot be read ({why}), which is no damage: "
        f"remove the cause and try again"
    )


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Tell what was forged with right hashes, which can be anything, from what cannot be read.

    Raises:
        CheckpointError: for any error.
    """
    try:
        yield
    except CheckpointError:
        raise
    except MemoryError as error:
        raise unreadable(path, STATE, error) from error
    except Exception as error:
        raise damaged(path, f"it cannot be understood ({type(error).__name__}: {error})") from error


def _joined(entries: Mapping[str, str]) -> str:
    """The object of some entries that are written already."""
    return "{\n " + ",\n ".join(entries[name] for name in sorted(entries)) + "\n}"


def _text(name: str, value: Any) -> str:
    """An entry as `json.dumps(..., indent=1)` has it; of the many tensors, each on a line."""
    if name == "tensors" and isinstance(value, dict) and value:
        lines = ",\n  ".join(
            f"{json.dumps(one)}: {json.dumps(kind, sort_keys=True)}"
            for one, kind in sorted(value.items())
        )
        return f'"tensors": {{\n  {lines}\n }}'
    text = json.dumps({name: value}, indent=1, sort_keys=True, allow_nan=False)
    return text.removeprefix("{\n ").removesuffix("\n}")
