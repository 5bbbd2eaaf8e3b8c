"""Compiled kernels on disk, so that the next process need not compile them again.

The folder is `$DESCEND_CACHE`, else `$XDG_CACHE_HOME/descend`, else `~/.cache/descend`. It holds
machine code, so it is used only if it belongs to the user and nobody else may write to it, and an
entry whose hash does not match is compiled anew. Where nothing can be written, only the cache is
lost.
"""

import hashlib
import os
import tempfile
from pathlib import Path

MAGIC = b"descend kernel 1\n"
_DIGEST_SIZE = 32
_OTHERS_MAY_WRITE = 0o022


def folder() -> Path | None:
    """The cache folder, made if need be; None if there is none that is safe to use."""
    try:
        chosen = os.environ.get("DESCEND_CACHE")
        if chosen:
            path = Path(chosen).expanduser()
        else:
            base = os.environ.get("XDG_CACHE_HOME")
            path = (Path(base) if base else Path.home() / ".cache") / "descend"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.stat()
        if hasattr(os, "getuid") and (
            facts.st_uid != os.getuid() or facts.st_mode & _OTHERS_MAY_WRITE
        ):
            return None
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return path


def read(key: str) -> bytes | None:
    """The entry of this key, or None if there is none or it is damaged."""
    place = folder()
    if place is None:
        return None
    try:
        data = (place / f"{key}.kernel").read_bytes()
    except OSError:
        return None
    digest = data[len(MAGIC) : len(MAGIC) + _DIGEST_SIZE]
    body = data[len(MAGIC) + _DIGEST_SIZE :]
    if not data.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        return None
    return body


def write(key: str, body: bytes) -> None:
    """Store an entry: whole or not at all, however many processes do so at once."""
    place = folder()
    if place is None:
        return
    try:
        handle, temporary = tempfile.mkstemp(dir=place, prefix=f".{key}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + hashlib.sha256(body).digest() + body)
            os.replace(temporary, place / f"{key}.kernel")
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError:
        return
