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

    Raises:
        TrainerError: a name or a version has no save_dir.

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
        """The SummaryWriter: `add_image`, `add_histogram`, `add_figure`, ...

        Raises:
            TrainerError: there is no folder yet, or TensorBoard is not installed.
            OSError: no file can be made.
        """
        if self._writer is None:
            folder = self.made()
            number = len([*self._files()])  # no two files have one name
            self._writer = _writer_class()(str(folder), filename_suffix=f".{number}{self._mark}")
        return self._writer

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Show hyperparameters in TensorBoard's tab HPARAMS."""
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from torch.utils.tensorboard.summary import hparams

        shown = {
            joined(place): value if isinstance(value, bool | int | float | str) else str(value)
            for place, value in leaves(params)
        }
        with self.writing():
            for summary in hparams(shown, {}) if shown else ():  # type: ignore[no-untyped-call]
                data = summary.value[0].metadata.plugin_data  # in an order that is not the hash's
                content = HParamsPluginData.FromString(data.content)
                data.content = content.SerializeToString(deterministic=True)
                self.experiment.file_writer.add_summary(summary)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Note metrics at a step."""
        try:
            with self.writing():
                for name, value in metrics.items():
                    self.experiment.add_scalar(name, value, step)
        finally:
            if self._warned:
                self._writer = None  # its thread is dead; the next one may find room

    def finalize(self, status: str) -> None:
        """Close the files; whatever is logged after that opens a new one."""
        if self._writer is not None:
            with self.writing():
                self._writer.close()

    def _stand(self) -> dict[str, int]:
        if self._writer is not None:
            self._writer.flush()
        folder = self.log_dir
        return {str(path.relative_to(folder)): path.stat().st_size for path in self._files()}

    def _cut(self, files: Mapping[str, int] | None, resumed: bool) -> None:
        _writer_class()
        self._writer = None
        folder = self.made()
        if files is None and resumed:  # the checkpoint is of a process without this logger
            return
        files = files or {}
        for path in [*self._files()]:
            name = str(path.relative_to(folder))
            if name in files:
                if _truncate(path, files[name]) < files[name]:
                    self.warn_of(path)
            elif path.name.endswith(self._mark):
                path.unlink()
        for name in files:
            if not (folder / name).exists():
                self.warn_of(folder / name)

    def _files(self) -> Iterator[Path]:
        for path in self.log_dir.rglob("events.out.tfevents.*"):
            if path.is_file() and not path.is_symlink():
                yield path

    @property
    def _mark(self) -> str:
        """The ending of the names of its files where those of other runs may be beside them."""
        if self.save_dir is None:
            return ""
        return f".{hash_text(os.path.abspath(self._run_folder))[:8]}" if self._run_folder else ".0"


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
