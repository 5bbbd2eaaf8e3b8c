"""Saving the checkpoints of a run, in the background: one at a time, and its errors surface."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from descend.checkpoint.folder import write
from descend.checkpoint.series import Best, new_name, prune
from descend.checkpoint.snapshot import Snapshot, Staging, distinct_tensors, snapshot_of
from descend.errors import CheckpointError


class Saver:
    """Writes checkpoints to a folder and removes those that are no longer wanted.

    Args:
        folder: where to; it exists.
        keep: how many to keep, at least 1.
        best: what makes one the best, which is kept beside them; or None.

    Example:
        >>> saver = Saver(Path("runs/mine/checkpoints"), keep=3)
        >>> saver.save({"model": model.state_dict()}, step=100, background=True)
        >>> error = saver.wait()
    """

    def __init__(self, folder: Path, *, keep: int, best: Best | None = None) -> None:
        self.folder = folder
        self.keep = keep
        self.best = best
        self.newest: Path | None = None
        self._staging = Staging()
        self._thread: threading.Thread | None = None
        self._error: CheckpointError | None = None

    def save(
        self,
        state: Mapping[str, Any],
        *,
        step: int,
        about: Mapping[str, Any] | None = None,
        background: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> CheckpointError | None:
        """Save a state.

        Args:
            state: what `descend.checkpoint.save` takes.
            step: how many steps the run has taken, for the name.
            about: what the manifest shall say of it.
            background: whether to return once the state is copied. If a save is under way then,
                the call waits for it first: at most one is.
            before: called in the saving thread before anything is written.

        Returns:
            The error of this save, or, in the background, of the one before.
        """
        error = self.wait()
        try:
            snapshot = snapshot_of(state, self._staging if background else None)
        except CheckpointError as unsavable:
            return _both(error, unsavable)
        except (MemoryError, RuntimeError) as failed:  # no memory for the copies
            return _both(
                error, CheckpointError(f"cannot copy the state for {self.folder}: {failed}")
            )
        arguments = (snapshot, step, about or {}, before)
        if not background:
            self._write(*arguments)
            return _both(error, self.wait())
        self._thread = threading.Thread(target=self._write, args=arguments, name="descend save")
        self._thread.start()
        return error

    def prepare(self, state: Mapping[str, Any]) -> None:
        """Get the memory for the copies of a state in the background, so that a save finds it.

        No save may be under way.
        """
        tensors = distinct_tensors(state)
        self._thread = threading.Thread(
            target=self._staging.reserve, args=(tensors,), name="descend prepare"
        )
        self._thread.start()

    def wait(self) -> CheckpointError | None:
        """Wait for the save under way.

        Returns:
            Its error, once; None if it went well.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        return error

    def _write(
        self, snapshot: Snapshot, step: int, about: Mapping[str, Any], before: Callable[[], None]
    ) -> None:
        try:
            before()
            path = new_name(self.folder, step)
            write(path, snapshot, about)
            self.newest = path
            prune(self.folder, self.keep, self.best, path)
        except CheckpointError as error:
            self._error = error
        except Exception as error:  # in a thread, nobody else would see it
            self._error = CheckpointError(
                f"cannot save to {self.folder}: {type(error).__name__}: {error}"
            )


def _both(first: CheckpointError | None, second: CheckpointError | None) -> CheckpointError | None:
    """One error of both."""
    if first is None or second is None:
        return first or second
    return CheckpointError(f"{first}; and then: {second}")
