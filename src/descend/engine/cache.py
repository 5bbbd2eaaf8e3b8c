"""Compiled kernels on disk, so that the next process need not compile them again.

The folder is `$DESCEND_CACHE`, else `$XDG_CACHE_HOME/descend`, else `~/.cache/descend`. It holds
machine code, so it and each entry in it are used only if they belong to the user and nobody else
may write to them, and an entry whose hash does not match is compiled anew. Where nothing can be
written, only the cache is lost; a process that had to compile says so, once.
"""

import hashlib
import os
import stat
import sys
import tempfile
import warnings
from pathlib import Path

from descend.errors import CacheWarning

MAGIC = b"descend kernel 1\n"
_DIGEST_SIZE = 32
_OTHERS_MAY_WRITE = 0o022


_told: list[str] = []  # in this process


def folder() -> Path:
    """The cache folder, made if need be.

    Raises:
        OSError: there is none that is safe to use; it says why.
    """
    chosen = os.environ.get("DESCEND_CACHE")
    try:
        if chosen:
            path = Path(chosen).expanduser()
        else:
            base = os.environ.get("XDG_CACHE_HOME")
            path = (Path(base) if base else Path.home() / ".cache") / "descend"
    except RuntimeError as error:  # there is no home
        raise OSError(f"there is no folder for compiled kernels ({error})") from error
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(path.stat()):
        raise PermissionError(f"{path} belongs to somebody else, or others may write to it")
    return path


def read(key: str) -> bytes | None:
    """The entry of this key, or None if there is none, it is damaged, or others could change it."""
    try:
        # Neither a link to elsewhere nor a pipe, for which opening would wait
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(folder() / f"{key}.kernel", flags | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            facts = os.fstat(handle)
            if not (stat.S_ISREG(facts.st_mode) and _is_ours(facts)):
                return None
            data = file.read()
    except OSError:
        return None
    digest = data[len(MAGIC) : len(MAGIC) + _DIGEST_SIZE]
    body = data[len(MAGIC) + _DIGEST_SIZE :]
    if not data.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        return None
    return body


def write(key: str, body: bytes) -> None:
    """Store an entry: whole or not at all, however many processes do so at once."""
    try:
        place = folder()
        handle, temporary = tempfile.mkstemp(dir=place, prefix=f".{key}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + hashlib.sha256(body).digest() + body)
            os.replace(temporary, place / f"{key}.kernel")
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        _tell(error)


def _is_ours(facts: os.stat_result) -> bool:
    """Whether a file or a folder is the user's, and nobody else may write to it."""
    if not hasattr(os, "getuid"):
        return True
    return facts.st_uid == os.getuid() and not facts.st_mode & _OTHERS_MAY_WRITE


def _tell(error: OSError) -> None:
    """Say that the next process will have to compile too; once, and never as an error."""
    if _told:
        return
    place = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    _told.append(
        f"compiled kernels cannot be kept ({place}), so that every process compiles them again; "
        f"let DESCEND_CACHE name a folder of yours that can be written"
    )
    try:
        warnings.warn(_told[0], CacheWarning, stacklevel=2)
    except CacheWarning:  # where all warnings are errors: no step fails for lack of a cache
        print(f"descend: warning: {_told[0]}", file=sys.stderr)
