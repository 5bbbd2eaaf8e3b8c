"""The folder of a run: its name, what may be in it, and how one process holds it."""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from descend.checkpoint.folder import remove
from descend.checkpoint.hashing import hash_text
from descend.checkpoint.series import FOLDER, Best, checkpoints, clean
from descend.errors import OutputError, RunError
from descend.files import read_whole, replaced
from descend.run.lock import LOCK, Lock, lock
from descend.run.metrics_log import METRICS, MetricsLog

# For `descend verify-resume`, which runs somebody's script elsewhere and saves more often
FOLDER_VARIABLE, STEPS_VARIABLE = "DESCEND_RUN_FOLDER", "DESCEND_RUN_EVERY_STEPS"
CURVES = "curves.png"
HPARAMS = "hparams.json"
PROBE = re.compile(r"\..+\.tmp")  # also what a kill left half written
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


def prepare_folder(folder: Path, mark: str = FOLDER) -> None:
    """Make the folder of a run where it does not exist, and prove that it can be written.

    Args:
        folder: new, empty, or of a run.
        mark: the name of what is in each folder of that kind.

    Raises:
        OutputError: if it cannot be made or written, or holds files that are no run's.

    Example:
        >>> prepare_folder(Path("runs/first"))
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir() if not PROBE.fullmatch(path.name)}
        if names - {LOCK} and mark not in names:
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
    _remove_run(folder)
    (folder / LOCK).unlink(missing_ok=True)
    for path in (folder / FOLDER, folder):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def opened_for_run(folder: Path, *, fresh: bool) -> tuple[Lock, MetricsLog]:
    """Hold a folder for the run of this process, and open its log.

    Args:
        folder: made where it does not exist.
        fresh: whether to remove what an earlier run left in it.

    Raises:
        OutputError: if it cannot be written.
        RunError: if another process trains in it.

    Example:
        >>> held, log = opened_for_run(Path("runs/mine"), fresh=False)
    """
    try:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        held = lock(folder.resolve())
        if fresh:
            _remove_run(folder)
        clean(folder / FOLDER)
        return held, MetricsLog(folder.resolve() / METRICS)
    except OSError as error:
        raise OutputError(
            f"the folder {folder} cannot be used for a run: {error.strerror or error}; give another"
        ) from error


class Unwritten:
    """Stands for the log and for the saver of a run that has no folder."""

    size = 0
    newest: Path | None = None
    best: Best | None = None

    def write(self, line: Mapping[str, Any]) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Nothing waits."""

    def sync(self) -> None:
        """Nothing waits."""

    def cut(self, size: int, step: int) -> None:
        """There is nothing to forget."""

    def save(self, state: Mapping[str, Any], **more: Any) -> None:
        """Save nothing."""

    def prepare(self, state: Mapping[str, Any]) -> None:
        """Copies are not needed."""

    def wait(self) -> None:
        """Nothing is under way."""


def redirected(folder: Path) -> Path:
    """The folder that `descend verify-resume` wants the run to be in, or the one that it has."""
    wanted = os.environ.get(FOLDER_VARIABLE)
    if wanted is None:
        return folder
    note = Path(f"{wanted}.from")  # which it stands for, here and in the process that goes on
    note.parent.mkdir(parents=True, exist_ok=True)
    known = read_whole(note).decode() if note.exists() else ""
    if known not in ("", str(folder)):
        raise RunError(
            f"{FOLDER_VARIABLE} is set, and stands for the folder of one run: it was {known} and "
            f"is {folder} now; make one run, in a folder whose name is the same each time"
        )
    with replaced(note) as file:
        file.write(str(folder).encode())
    return Path(wanted)


def _remove_run(folder: Path) -> None:
    """Remove a run: its newest checkpoints first, and all of them before the log they go with."""
    for path in reversed(checkpoints(folder / FOLDER)):
        remove(path)
    for name in (METRICS, HPARAMS):
        (folder / name).unlink(missing_ok=True)
