"""FileLogger: the folder that a logger of files writes in, and what becomes of it on a resume."""

import errno
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from descend.errors import CheckpointWarning, OutputError, ResumeWarning, TrainerError
from descend.files import IrregularError


class FileLogger:
    """A logger whose files go on exactly where the checkpoint of a run was.

    Args:
        save_dir: the folder of all logs; None: those of a run are in its own.
        name: of a folder in that.
        version: of the folder in that: a number N for `version_N`, by default the next free one;
            or a name. A run that goes on keeps its own.

    Raises:
        TrainerError: a name or a version has no save_dir.
    """

    own = ""  # its folder in the run's

    def __init__(
        self,
        save_dir: str | os.PathLike[str] | None = None,
        name: str | None = None,
        version: int | str | None = None,
    ) -> None:
        if save_dir is None and (name is not None or version is not None):
            raise TrainerError(
                f"{type(self).__name__}: name={name!r} and version={version!r} are of a folder of "
                f"logs; give save_dir too, or neither for the folder of the run"
            )
        self.save_dir = None if save_dir is None else Path(save_dir).expanduser()
        self.name, self._given, self._version = name or "", version, version
        self._run_folder: Path | None = None
        self._noted: Mapping[str, Any] = {}
        self._begun = self._warned = False

    @property
    def state_key(self) -> str:
        """The name of its state in a checkpoint: two loggers of a kind have two folders."""
        of = "" if self.save_dir is None else f" {self.save_dir / self.name}"
        return f"{type(self).__name__}{of}"

    @property
    def version(self) -> int | str | None:
        """The number or the name of its version; None in the run's own folder."""
        if self.save_dir is not None and self._version is None:
            names = [path.name for path in (self.save_dir / self.name).glob("version_*")]
            numbers = [int(name[8:]) for name in names if name[8:].isdecimal()]
            self._version = max(numbers, default=-1) + 1
        return self._version

    @property
    def log_dir(self) -> Path:
        """The folder of its files.

        Raises:
            TrainerError: it is the run's own, and no run has begun or it has no folder.
        """
        if self.save_dir is not None:
            version = self.version
            named = f"version_{version}" if isinstance(version, int) else str(version)
            return self.save_dir / self.name / named
        if self._run_folder is None:
            why = "this trainer has none" if self._begun else "no training has begun"
            raise TrainerError(
                f"{type(self).__name__}() writes into the folder of a run, and {why}; give "
                f"Trainer(folder=...), or the logger save_dir=..."
            )
        return self._run_folder / self.own

    def begin(self, folder: Path | None, resumed: bool) -> None:
        """Put its files where the checkpoint of the run was, or remove what a dead process left.

        Args:
            folder: of the run, or None.
            resumed: whether the run goes on.

        Raises:
            TrainerError: it has no folder.
            OutputError: its files cannot be changed.
        """
        noted, self._noted = self._noted if resumed else {}, {}
        self.finalize("success")
        if noted:
            self._version = noted["version"]
        elif self._begun:
            self._version = self._given
        self._begun, self._warned, self._run_folder = True, False, folder
        try:
            self._cut(noted.get("files"), resumed)
        except OSError as error:
            raise OutputError(f"{self.log_dir}: cannot be used for logs: {error}") from error

    def state_dict(self) -> dict[str, Any]:
        """Where its files stand, everything written."""
        if not self._begun:
            return dict(self._noted)
        with self.writing():
            return {"version": self._version, "files": self._stand()}
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Note where they stood, for `begin`."""
        self._noted = dict(state)

    def finalize(self, status: str) -> None:
        """Write what is left."""
        raise NotImplementedError

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A block that writes: a full disk is warned of, once, and stops no training."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                warnings.warn(
                    f"{self.log_dir}: cannot be written ({error}); the training goes on",
                    CheckpointWarning,
                    stacklevel=4,
                )
            self._warned = True

    def made(self) -> Path:
        """The folder of its files, made where it is not there.

        Raises:
            IrregularError: a link leads out of the run's folder, or that of all logs.
            OSError: it cannot be made.
        """
        folder, base = self.log_dir, self.save_dir or self._run_folder or Path()
        here = base
        for part in folder.relative_to(base).parts:
            here /= part
            if here.is_symlink():
                raise IrregularError(errno.EINVAL, f"{here} is a symbolic link")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def warn_of(self, path: Path) -> None:
        """Warn that a file is shorter than it was."""
        warnings.warn(
            f"{path} is not what it was at the checkpoint; the log goes on after what is there",
            ResumeWarning,
            stacklevel=4,
        )

    def _cut(self, files: Any, resumed: bool) -> None:
        """Put the files back to a note of `_stand`; None: there is none."""
        raise NotImplementedError

    def _stand(self) -> Any:
        """Where the files stand."""
        raise NotImplementedError
