"""One process at a time in the folder of a run."""

import os
from io import FileIO
from pathlib import Path

from descend.errors import RunError

LOCK = ".lock"


def lock(folder: Path) -> FileIO:
    """Lock a folder for this process, for as long as what is returned lives.

    The system gives it back when the process dies, by whatever. It is not handed down to forked
    children, such as a loader's workers, which may outlive a killed process by seconds.

    Args:
        folder: which.

    Raises:
        RunError: if another process has it.

    Example:
        >>> held = lock(Path("runs/mine"))
    """
    file = FileIO(folder / LOCK, "a")
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return file
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(
            f"another process trains in {folder}; wait for its end, stop it, or give another folder"
        ) from error
    except PermissionError as error:  # what some systems say of a lock that is taken
        raise RunError(f"another process trains in {folder} ({error})") from error
    except OSError:
        pass  # a file system without locks
    os.set_inheritable(file.fileno(), False)
    return file
