"""One process at a time in the folder of a run."""

import os
import weakref
from pathlib import Path

from descend.errors import RunError

LOCK = ".lock"


class Lock:
    """A folder that is locked for this process, for as long as this object lives.

    The system gives it back when the process dies, by whatever. It is not handed down to forked
    children, such as a loader's workers, which may outlive a killed process by seconds.

    Args:
        folder: which.

    Raises:
        RunError: if another process has it.
        OSError: if nothing can be written there.

    Example:
        >>> held = Lock(Path("runs/mine"))

    Source: POSIX record locks, fcntl(2).
    """

    def __init__(self, folder: Path) -> None:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self.release = weakref.finalize(self, os.close, descriptor)
        try:
            import fcntl
        except ImportError:  # not a POSIX system
            return
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # which one depends on the system
            raise RunError(
                f"another process trains in {folder}; wait for its end, stop it, or give another "
                f"folder"
            ) from error
        except OSError:
            pass  # a file system without locks
