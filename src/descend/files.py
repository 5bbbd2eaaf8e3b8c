"""Files: regular ones alone, read no further than they reach, written whole or not at all.

A named pipe or a device in a file's place would hang whoever opens it, or never end; a symbolic or
a hard link would have another file than ours written to.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from descend.errors import OutputError

MOST = 1 << 30  # bytes of what is read in one piece where nothing else says how many there are
_KINDS = {
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket",
}
# Not there on every system. A pipe that is put in a file's place at the last moment hangs nobody
_CAREFUL = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


class IrregularError(OSError):
    """Something else than a regular file is there, which `strerror` says."""


def opened(path: Path) -> BinaryIO:
    """Open a regular file for reading; a link to one is one.

    Raises:
        IrregularError: it is something else.
        OSError: it cannot be opened.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "state.json")
        >>> _ = path.write_text("{}")
        >>> with opened(path) as file:
        ...     file.read()
        b'{}'
    """
    _refuse_irregular(os.stat(path), path, own=False)  # opening wakes who writes a pipe
    return open(path, "rb", opener=_open_regular)


def read_whole(path: Path, most: int = MOST) -> bytes:
    """The content of a regular file.

    Args:
        path: where it is.
        most: how many bytes it may have.

    Raises:
        IrregularError: it is no regular file, or a larger one.
        OSError: it cannot be read.

    Example:
        >>> read_whole(Path("runs/mine/metrics.jsonl"), most=1_000_000)
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            why = f"{path.name} has {size} bytes, and at most {most} are read"
            raise IrregularError(errno.EFBIG, why)
        return file.read(size)


def open_own(path: Path, *, append: bool = False) -> BinaryIO:
    """Open a file of our own to write in it where it is; a new one where there is none.

    Raises:
        IrregularError: it is no regular file, a link, or has a second name.
        OSError: it cannot be opened.

    Example:
        >>> with open_own(Path("runs/mine/metrics.jsonl"), append=True) as file:
        ...     file.write(b"{}")
    """
    refuse_foreign(path)
    flags = os.O_RDWR | os.O_CREAT | (os.O_APPEND if append else 0)
    return os.fdopen(_open_own(path, flags), "r+b", buffering=0)


def refuse_foreign(path: Path) -> None:
    """Refuse to write where anything but a regular file is that has no other name.

    Raises:
        IrregularError: saying what is there.

    Example:
        >>> refuse_foreign(Path("new.csv"))
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    _refuse_irregular(status, path, own=True)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of another at the end; an error leaves what was.

    It is written under another name, flushed to the disk and renamed.

    Raises:
        OutputError: it cannot be written, or something else than a file is there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "lr.csv")
        >>> with replaced(path) as file:
        ...     _ = file.write(b"step,lr")
        >>> path.read_text()
        'step,lr'
    """
    temporary = hidden(path)
    try:
        refuse_foreign(path)
        try:
            with flushed(temporary) as file:
                yield file
            os.replace(temporary, path)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def flushed(path: Path, buffering: int = -1) -> Iterator[BinaryIO]:
    """A new file that is on the disk at the end.

    Raises:
        OSError: it cannot be written, or something is there.

    Example:
        >>> import tempfile
        >>> with flushed(Path(tempfile.mkdtemp(), "state.json")) as file:
        ...     _ = file.write(b"{}")
    """
    with open(path, "xb", buffering, opener=_open_own) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def hidden(path: Path) -> Path:
    """A name beside a path that nobody else has.

    Example:
        >>> hidden(Path("c")).name.startswith(".c.")
        True
    """
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk.

    Example:
        >>> flush(Path("."))
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_regular(path: str | Path, flags: int) -> int:
    return _checked(os.open(path, flags | _CAREFUL), path, own=False)


def _open_own(path: str | Path, flags: int) -> int:
    return _checked(os.open(path, flags | _CAREFUL | _NOFOLLOW, 0o666), path, own=True)


def _checked(descriptor: int, path: str | Path, *, own: bool) -> int:
    """A descriptor, looked at once more: the file may have been exchanged since."""
    try:
        _refuse_irregular(os.fstat(descriptor), path, own=own)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_irregular(status: os.stat_result, path: str | Path, *, own: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise IrregularError(errno.EINVAL, f"{Path(path).name} is {kind}, and no regular file")
    if own and status.st_nlink > 1:
        why = f"{Path(path).name} has a second name (a hard link), under which it would change too"
        raise IrregularError(errno.EMLINK, why)
