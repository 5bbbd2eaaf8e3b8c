"""CSVLogger: metrics as a table."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from descend.files import open_own, read_whole, refuse_foreign, replaced
from descend.format import json_text
from descend.run.run_folder import HPARAMS
from descend.training.loggers.log_folder import FileLogger

FILE = "metrics.csv"


class CSVLogger(FileLogger):
    """Writes `metrics.csv`: a row for each time that something is logged, a column for each name.

    It is in the folder of the run; with `save_dir` in `save_dir/name/version_N`, in a new version
    for each run that starts, beside the hyperparameters. It is a whole table at any time: a new
    name adds a column to all rows. On a resume it is cut back to where the checkpoint was.

    Args:
        save_dir: the folder of all logs; None: that of a run is in its own.
        name: of a folder in that.
        version: of the folder in that: a number N for `version_N`, by default the next free one;
            or a name. A run that goes on keeps its own.

    Example:
        >>> logger = CSVLogger("logs", name="digits")
        >>> logger.log_metrics({"loss": 0.5}, step=1)
        >>> logger.log_metrics({"val_loss": 0.25}, step=1)
        >>> print((logger.log_dir / "metrics.csv").read_text())
        step,loss,val_loss
        1,0.5,
        1,,0.25
        <BLANKLINE>

    Source: the arguments are those of Lightning's.
    """

    _columns: Sequence[str] = ()
    _lines = 0  # in the file, with the header
    _pending: Sequence[Mapping[str, Any]] = ()

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Write them beside the table; in the folder of a run they are."""
        if self.save_dir is not None:
            with self._writing(), replaced(self._made() / HPARAMS) as file:
                file.write((json_text(params) + "\n").encode())

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Write a row; one that cannot be written is tried again with the next."""
        self._pending = [*self._pending, {"step": step, **metrics}]
        self._flush()

    def finalize(self, status: str) -> None:
        """Write what could not be written before."""
        self._flush()

    def _flush(self) -> None:
        new = [*dict.fromkeys(name for row in self._pending for name in row)]
        columns = [*self._columns, *(name for name in new if name not in self._columns)]
        rows = [[row.get(name, "") for name in columns] for row in self._pending]
        if not rows:
            return
        with self._writing():
            path = self._made() / FILE
            if columns == self._columns:
                with open_own(path, append=True) as file:
                    size, content = os.fstat(file.fileno()).st_size, _text(rows)
                    if file.write(content) != len(content):
                        file.truncate(size)
                        raise OSError("the disk is full")
            else:
                old = _table(path)[1 : self._lines]
                wide = [row + [""] * (len(columns) - len(row)) for row in old]
                _write(path, [columns, *wide, *rows])
            self._columns, self._pending = columns, ()
            self._lines = max(self._lines, 1) + len(rows)

    def _stand(self) -> dict[str, Any]:
        self._flush()
        return {"columns": [*self._columns], "lines": self._lines}

    def _cut(self, files: Mapping[str, Any] | None, resumed: bool) -> None:
        path = self._made() / FILE
        refuse_foreign(path)
        self._pending = ()
        kept = _table(path) if resumed else []
        if files is not None:
            columns, lines = files["columns"], files["lines"]
            cut = [row[: len(columns)] for row in kept[:lines]]
            if len(cut) == lines and (not cut or cut[0] == columns):
                kept = cut
            else:
                self._warn_of(path)
        if not kept:
            path.unlink(missing_ok=True)
        elif _text(kept) != read_whole(path):
            _write(path, kept)
        self._columns, self._lines = (kept[0] if kept else []), len(kept)


def _table(path: Path) -> list[list[str]]:
    """The rows of a file that are whole."""
    with suppress(FileNotFoundError):
        whole = read_whole(path).rpartition(b"\n")[0]
        return [*csv.reader(io.StringIO(whole.decode("utf-8", "replace"), newline=""))]
    return []


def _text(rows: Sequence[Sequence[Any]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode("utf-8", "backslashreplace")


def _write(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with replaced(path) as file:
        file.write(_text(rows))
