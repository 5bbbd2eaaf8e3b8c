"""FileLogger: the folder that a logger of files writes in, and what becomes of it on a resume."""

import errno
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from descend.errors import CheckpointWarning, OutputError, ResumeWarning, TrainerError
from descend.files import IrregularError
from descend.spelling import spelled


class FileLogger:
    """A logger whose files go on exactly where the checkpoint of a run was."""

    own = ""  # its folder in the run's

    @spelled
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
            names = [path.name[8:] for path in (self.save_dir / self.name).glob("version_*")]
            self._version = 1 + max((int(one) for one in names if one.isdecimal()), default=-1)
        return self._version

    @property
    def log_dir(self) -> Path:
        """The folder of its files; a TrainerError where there is none yet."""
        version = self.version
        if self.save_dir is not None:
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
        """Put its files where the checkpoint was, or remove what a dead process left in them."""
        noted, self._noted = self._noted if resumed else {}, {}
        self.finalize("success")
        self._version = noted.get("version", self._given if self._begun else self._version)
        self._begun, self._warned, self._run_folder = True, False, folder
        try:
            if self.save_dir is not None and self._given is None and "version" not in noted:
                self._take_version()
            self._cut(noted.get("files"), resumed)
        except OSError as error:
            raise OutputError(f"{self.log_dir}: cannot be used for logs: {error}") from error

    def _take_version(self) -> None:
        """Make the folder of a version that is nobody's: several processes can start at once."""
        while True:
            with suppress(FileExistsError):
                self.log_dir.mkdir(parents=True)
                return
            self._version = None  # another was faster: the next number

    def state_dict(self) -> dict[str, Any]:
        """Where its files stand, everything written."""
        if not self._begun:
            return dict(self._noted)
        with self._writing():
            return {"version": self._version, "files": self._stand()}
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Note where they stood, for `begin`."""
        self._noted = dict(state)

    def finalize(self, status: str) -> None:
        """Write what is left; more may be logged after it."""

    def _cut(self, files: Any, resumed: bool) -> None:
        """Put the files back to what `_stand` has returned; None: nothing is known of them."""

    def _stand(self) -> Any:
        """Where the files stand."""

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A block that writes: a full disk is warned of, once, and stops no training."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                why = f"{self.log_dir}: cannot be written ({error}); the training goes on"
                warnings.warn(why, CheckpointWarning, stacklevel=4)
            self._warned = True

    def _made(self) -> Path:
        """The folder of its files, made; a link on the way there is not followed."""
        folder, here = self.log_dir, self.save_dir or self._run_folder or Path()
        for part in folder.relative_to(here).parts:
            here /= part
            if here.is_symlink():
                raise IrregularError(errno.EINVAL, f"{here} is a symbolic link")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _warn_of(self, path: Path) -> None:
        why = f"{path} is not what it was at the checkpoint; the log goes on after what is there"
        warnings.warn(why, ResumeWarning, stacklevel=4)
