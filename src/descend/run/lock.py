"""One process at a time in the folder of a run."""

import os
import struct
import sys
import weakref
from pathlib import Path
from typing import BinaryIO

from descend.errors import RunError
from descend.files import open_own, opened

LOCK = ".lock"

# By process and file: closing any descriptor of a locked file gives the lock back, so that a
# process must not open it twice; and a forked child does not hold what its parent holds.
_held: "weakref.WeakValueDictionary[tuple[int, int, int], Lock]" = weakref.WeakValueDictionary()


class Lock:
    """The hold of this process on a folder, for as long as this lives: `lock` gives one."""

    def __init__(self, file: BinaryIO) -> None:
        self.descriptor = file.fileno()
        self.release = weakref.finalize(self, file.close)


def lock(folder: Path) -> Lock:
    """Lock a folder for this process.

    The system gives it back when the process dies, by whatever. It is not handed down to forked
    children, such as a loader's workers, which may outlive a killed process by seconds.

    Args:
        folder: which.

    Returns:
        The hold on it; the same object for the same folder.

    Raises:
        RunError: if another process has it.
        OSError: if nothing can be written there, or something else than a file is.

    Example:
        >>> held = lock(Path("runs/mine"))

    Source: POSIX record locks, fcntl(2).
    """
    path = folder / LOCK
    known = _held.get(_key(path)) if path.exists() else None
    if known is not None and known.release.alive:
        return known
    held = Lock(open_own(path))
    _take(held, folder)
    _held[_key(path)] = held
    return held


def is_held(folder: Path) -> bool | None:
    """Tell whether another process trains in a folder; None where that cannot be known.

    Example:
        >>> is_held(Path("runs/mine"))
        False
    """
    if not sys.platform.startswith("linux"):  # elsewhere the question has another form
        return None
    import fcntl

    try:
        with opened(folder / LOCK) as file:
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(file.fileno(), fcntl.F_GETLK, asked)
            return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)
    except FileNotFoundError:
        return False
    except OSError:
        return None


def _key(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return os.getpid(), status.st_dev, status.st_ino


def _take(held: Lock, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    try:
        fcntl.lockf(held.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # which one depends on the system
        raise RunError(
            f"another process trains in {folder}; wait for its end, stop it, or give another folder"
        ) from error
    except OSError:
        pass  # a file system without locks
