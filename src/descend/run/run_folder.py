"""The folder of a run of `descend train`: its name, and what may be in it."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from descend.checkpoint.folder import remove
from descend.checkpoint.hashing import hash_text
from descend.checkpoint.series import FOLDER, checkpoints
from descend.errors import OutputError
from descend.run.lock import LOCK
from descend.run.metrics_log import METRICS

CURVES = "curves.png"
PROBE = re.compile(r"\.\w+\.tmp")
LONGEST = 80  # characters of a folder's name


def default_folder(source: str, options: Mapping[str, object]) -> Path:
    """The folder of a command: the same for the same command, another for another one.

    Args:
        source: what is trained.
        options: the options that are not the defaults, by name.

    Returns:
        `runs/<source>` with the options after it.

    Example:
        >>> default_folder("digits", {"lr": 0.1, "seed": 3}).name
        'digits-lr0.1-seed3'
    """
    parts = [source, *(f"{name}{value}" for name, value in options.items())]
    name = "-".join(re.sub(r"[^A-Za-z0-9.+]+", "_", part).strip("_.") for part in parts)
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]}-{hash_text(name)[:8]}"
    return Path("runs") / name


def prepare_folder(folder: Path) -> None:
    """Make the folder of a run where it does not exist, and prove that it can be written.

    Args:
        folder: new, empty, or of a run.

    Raises:
        OutputError: if it cannot be made or written, or holds files that are no run's.

    Example:
        >>> prepare_folder(Path("runs/first"))
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir() if not PROBE.fullmatch(path.name)}
        if names and FOLDER not in names:
            raise OutputError(
                f"--out {folder}: the folder holds files already, and no run that could go on; "
                f"give a new or an empty folder, or remove this one"
            )
        with tempfile.TemporaryFile(dir=folder, prefix=".", suffix=".tmp"):
            pass  # where it has to have a name, a kill here leaves a probe
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"--out {folder}: the folder cannot be written: {error.strerror or error}; give "
            f"another with --out"
        ) from error


def discard(folder: Path) -> None:
    """Remove a run that came to nothing, and its folder if nothing else is in it."""
    for path in checkpoints(folder / FOLDER):
        remove(path)
    for name in (LOCK, METRICS):
        (folder / name).unlink(missing_ok=True)
    for path in (folder / FOLDER, folder):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
