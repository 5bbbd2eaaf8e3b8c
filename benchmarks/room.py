"""Room for the measured checkpoints: memory, a folder on a disk, and what kind of disk it is."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from descend.errors import DescendError, OutputError

COPIES = 4
"""How many times the state is in memory at most: itself, a loaded one, and copies on the way."""

FILES = 6
"""How many times it is on the disk at most: once for each way, and two of a run's."""

BESIDES = 500_000_000
"""Memory for all else, in bytes."""

IN_MEMORY = ("tmpfs", "ramfs")
"""File systems that are on no disk."""

PROC = Path("/proc")


@contextmanager
def new_folder(within: Path | None) -> Iterator[Path]:
    """Make a new folder, and remove it with all that is in it at the end, whatever ends it.

    Args:
        within: in which one; None for the system's place for temporary files.

    Raises:
        OutputError: none can be made there.
    """
    try:
        made = tempfile.TemporaryDirectory(
            prefix="descend-bench-", dir=within, ignore_cleanup_errors=True
        )
    except OSError as error:
        where = f"--folder {within}" if within else "the system's place for temporary files"
        raise OutputError(
            f"{where}: it cannot be written to: {error.strerror or error}; give another with "
            f"--folder"
        ) from error
    with made as name:
        yield Path(name)


def refuse_too_large(parameters: int, folder: Path, kind: str | None) -> None:
    """Refuse a model for whose checkpoints there is no room.

    Args:
        parameters: how many it has.
        folder: where they are going to be.
        kind: what `filesystem` says of it.

    Raises:
        DescendError: there is not enough memory.
        OutputError: there is not enough room on the disk.
    """
    size = 3 * 4 * parameters  # the parameters and AdamW's two averages, in float32
    memory, disk, files = COPIES * size + BESIDES, FILES * size, ""
    if kind in IN_MEMORY:
        memory += disk
        files = f", {_gigabytes(disk)} of it for the files in {folder.parent}"
    free = _free_memory()
    if free is not None and free < memory:
        raise DescendError(
            f"checkpoints: {parameters:,} parameters need {_gigabytes(memory)} of memory"
            f"{files}, and {_gigabytes(free)} are free; close other programs, or give fewer with "
            f"--parameters{', or a disk with --folder' if files else ''}"
        )
    free = shutil.disk_usage(folder).free
    if free < disk:
        raise OutputError(
            f"checkpoints: {parameters:,} parameters need {_gigabytes(disk)} on the disk "
            f"of {folder.parent}, and {_gigabytes(free)} are free; give another with --folder, or "
            f"fewer with --parameters"
        )


def _gigabytes(amount: int) -> str:
    return f"{amount / 1e9:.1f} GB"


def _free_memory() -> int | None:
    """The memory that the system could still give, in bytes; None where it does not tell."""
    try:
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def filesystem(folder: Path) -> str | None:
    """The kind of file system that a folder is on.

    Args:
        folder: it exists.

    Returns:
        Its name, such as ext4; None where the system does not tell.
    """
    try:
        mounts = (PROC / "mounts").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    folder = folder.resolve()
    above = {str(path) for path in (folder, *folder.parents)}
    found, longest = None, 0
    for _, escaped, kind, *_ in map(str.split, mounts):
        place = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), escaped)  # such as spaces
        if place in above and len(place) >= longest:  # of two at one place, the later covers it
            found, longest = kind, len(place)
    return found


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there.

    Args:
        path: which.
    """
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
