"""The manifest of a checkpoint: what belongs to it, and the hash of every part.

    {"format": "descend checkpoint 2",
     "about": {"step": 1200, ...},                     what its writer says of it
     "produced_by": {"torch": "2.13.0", ...},          versions, machine, threads, flags
     "files": {"state.json": {"bytes": 512, "hash": ...},
               "tensors.safetensors": {"bytes": 9000, "header": ...}},
     "tensors": {"model.weight": {"dtype": "float32", "shape": [3, 4], "hash": ...}, ...},
     "same": {"model.tied": "model.weight"},
     "hash": ...}                                      of all above

Its text is the only one that stands for these values, so that no bit of it can change unseen.
"""

import errno
import json
from pathlib import Path
from typing import Any

from descend.checkpoint.hashing import hash_text
from descend.errors import CheckpointError, DamagedError, FormatError

FORMAT = "descend checkpoint 2"
ENTRIES = ("about", "produced_by", "files", "tensors", "same")
MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "tensors.safetensors"
# What reading answers where something else is on the disk than was written. The rest passes by:
# rights, too many open files, a server that is away
DAMAGES = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO, errno.EBADMSG, errno.EILSEQ,
    getattr(errno, "EUCLEAN", errno.EIO),
}  # fmt: skip


def manifest_text(manifest: dict[str, Any]) -> str:
    """The text of a manifest, its hash added."""
    return _text({**manifest, "hash": hash_text(_text(manifest))})


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a checkpoint's folder, and verify every bit of it.

    Raises:
        CheckpointError: if it is missing, damaged, of another format, or cannot be read now.
    """
    file = path / MANIFEST
    try:
        text = file.read_bytes().decode()
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
        del manifest["hash"]
        whole = manifest_text(manifest) == text  # with its hash
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


def bare(path: Path, error: str) -> str:
    """What is wrong, of an error that says it of a checkpoint."""
    begin, end = str(damaged(path, "\0")).split("\0")
    return error.removeprefix(begin).removesuffix(end)


def unreadable(path: Path, what: str, error: OSError | MemoryError) -> CheckpointError:
    """The error for a part that the system does not let us read: damaged, or just not now."""
    why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno in DAMAGES:
        return damaged(path, f"{what} cannot be read ({why})")
    return CheckpointError(
        f"cannot load the checkpoint {path}: {what} cannot be read ({why}), which is no damage: "
        f"remove the cause and try again"
    )


def _text(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False)
