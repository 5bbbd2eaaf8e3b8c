"""TensorBoardLogger: metrics, hyperparameters and whatever else is added, for TensorBoard."""

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from descend.checkpoint.hashing import hash_text
from descend.errors import TrainerError
from descend.files import open_own, opened
from descend.states import joined, leaves
from descend.training.loggers.log_folder import FileLogger

HEAD, FOOT = 12, 4  # bytes around a record of an event file: its length and checksums


class TensorBoardLogger(FileLogger):
    """Writes event files for TensorBoard, with torch's SummaryWriter.

    They are in `<folder of the run>/tensorboard`; with `save_dir` in `save_dir/name/version_N`, in
    a new version for each run that starts. On a resume they are cut back to exactly where the
    checkpoint was: nothing is there twice. `tensorboard --logdir runs` shows all runs.

    Args:
        save_dir: the folder of all logs; None: those of a run are in its own.
        name: of a folder in that.
        version: of the folder in that: a number N for `version_N`, by default the next free one;
            or a name. A run that goes on keeps its own.

    Example:
        >>> logger = TensorBoardLogger("logs", name="digits", version=3)
        >>> logger.log_dir.as_posix()
        'logs/digits/version_3'
        >>> trainer = Trainer(folder="runs/digits", logger=TensorBoardLogger())  # doctest: +SKIP
        >>> trainer.logger.experiment.add_image("first", image, 0)  # doctest: +SKIP

    Source: `torch.utils.tensorboard`; the arguments are those of Lightning's.
    """

    own = "tensorboard"
    _writer: Any = None

    @property
    def experiment(self) -> Any:
        """The SummaryWriter: `add_image`, `add_histogram`, `add_figure`, ..."""
        if self._writer is None:
            suffix = f".{len([*self._files()])}{self._mark}"  # no two files have one name
            self._writer = _writer_class()(str(self._made()), filename_suffix=suffix)
        return self._writer

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Show hyperparameters in TensorBoard's tab HPARAMS."""
        from torch.utils.tensorboard.summary import hparams

        shown = {
            joined(place): value if isinstance(value, bool | int | float | str) else str(value)
            for place, value in leaves(params)
        }
        with self._writing():
            for summary in hparams(shown, {}) if shown else ():  # type: ignore[no-untyped-call]
                self.experiment.file_writer.add_summary(summary)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Note metrics at a step."""
        with self._writing():
            try:
                for name, value in metrics.items():
                    self.experiment.add_scalar(name, value, step)
            except OSError:
                self._writer = None  # its thread is dead; the next one may find room
                raise

    def finalize(self, status: str) -> None:
        """Close the files; whatever is logged after that opens a new one."""
        if self._writer is not None:
            with self._writing():
                self._writer.close()

    def _stand(self) -> dict[str, int]:
        if self._writer is not None:
            self._writer.flush()
        folder = self.log_dir
        return {str(path.relative_to(folder)): path.stat().st_size for path in self._files()}

    def _cut(self, files: Mapping[str, int] | None, resumed: bool) -> None:
        _writer_class()
        self._writer, folder = None, self._made()
        if (files is None and resumed) or self._run_folder is None:
            return  # the checkpoint is of a process without this logger, or there is none
        sizes = {folder / name: size for name, size in (files or {}).items()}
        for path in {*sizes, *self._files()}:
            if path in sizes:
                if not path.exists() or _truncate(path, sizes[path]) < sizes[path]:
                    self._warn_of(path)
            elif path.name.endswith(self._mark):
                path.unlink()

    def _files(self) -> Iterator[Path]:
        paths = self.log_dir.rglob("events.out.tfevents.*")
        return (path for path in paths if path.is_file() and not path.is_symlink())

    @property
    def _mark(self) -> str:
        """The ending of its files' names where those of other runs may be beside them."""
        if self.save_dir is None or self._run_folder is None:
            return ""
        return f".{hash_text(os.path.abspath(self._run_folder))[:8]}"


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainerError(
            f"TensorBoardLogger needs TensorBoard, which is not installed ({error}); "
            f"pip install 'descend[tensorboard]'"
        ) from error
    return SummaryWriter


def _truncate(path: Path, size: int) -> int:
    """Cut an event file after its last whole record within so many bytes; where that is."""
    end = 0
    with opened(path) as file:
        there = os.fstat(file.fileno()).st_size
        while len(head := file.read(HEAD)) == HEAD:
            after = end + HEAD + struct.unpack("<Q", head[:8])[0] + FOOT
            if after > min(size, there):
                break
            end = after
            file.seek(end)
    if there > end:
        with open_own(path) as file:
            file.truncate(end)
    return end
