"""metrics.jsonl: a line of JSON for each thing logged, cut back where a run goes on from."""

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from descend.errors import CheckpointWarning, RunError
from descend.files import open_own, opened, refuse_foreign, replaced

METRICS = "metrics.jsonl"
LONGEST = 1 << 26  # bytes of a line

# json.dumps makes a new one for each line
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode


class MetricsLog:
    """An append-only file of JSON lines.

    A line that cannot be written (a full disk) is kept and tried again with the next one: logging
    does not stop a training.

    Args:
        path: the file.

    Raises:
        IrregularError: if it is no file of its own: a link, a pipe, a device.

    Example:
        >>> log = MetricsLog(Path("metrics.jsonl"))
        >>> log.write({"step": 1, "loss": 0.5})

    Source: JSON Lines, https://jsonlines.org.
    """

    def __init__(self, path: Path) -> None:
        refuse_foreign(path)
        self.path = path
        self.size = self._size_now()
        self._pending: list[bytes] = []
        self._warned = False

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line; it is with the operating system on return."""
        self._pending.append((_encode(line) + "\n").encode("utf-8", "backslashreplace"))
        self.flush()

    def flush(self) -> None:
        """Write the lines that could not be written before."""
        content = b"".join(self._pending)
        if not content:
            return
        try:
            with open_own(self.path, append=True) as file:
                try:
                    written = file.write(content)
                    if written != len(content):
                        raise OSError(f"only {written} of {len(content)} bytes were written")
                except OSError:
                    with suppress(OSError):
                        file.truncate(self.size)  # no half lines
                    raise
        except OSError as error:
            if not self._warned:
                warnings.warn(
                    f"{self.path}: cannot be written ({error}); what is logged is kept in memory "
                    f"until it can be",
                    CheckpointWarning,
                    stacklevel=4,
                )
            self._warned = True
            return
        self.size += len(content)
        self._pending.clear()
        self._warned = False

    def holds_only(self, step: int) -> bool:
        """Whether all lines were logged at that step; of no lines, this is true."""
        return all(_step(line) == step for line in self._lines())

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        with suppress(FileNotFoundError), opened(self.path) as file:
            os.fsync(file.fileno())

    def cut(self, size: int, step: int) -> None:
        """Forget everything after the first `size` bytes, which were logged up to `step`."""
        there = self._size_now()
        if there < size or not self._ends_line(size):
            warnings.warn(
                f"{self.path} is not what it was at step {step}: it has {there} bytes, and "
                f"had {size}; its lines up to that step are kept",
                CheckpointWarning,
                stacklevel=4,
            )
            with replaced(self.path) as file:
                file.writelines(line for line in self._lines() if _is_until(line, step))
                size = file.tell()
        elif there > size:
            with open_own(self.path) as file:
                file.truncate(size)
        self.sync()
        self.size = size
        self._pending.clear()

    def _size_now(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _ends_line(self, size: int) -> bool:
        """Whether a line ends after so many bytes."""
        if not size:
            return True
        with opened(self.path) as file:
            file.seek(size - 1)
            return file.read(1) == b"\n"

    def _lines(self) -> Iterator[bytes]:
        """Its lines; one that is too long to be ours comes in pieces."""
        with suppress(FileNotFoundError), opened(self.path) as file:
            yield from iter(partial(file.readline, LONGEST), b"")


def json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them: numbers, strings, booleans; null for a NaN or an infinity.

    Raises:
        RunError: for anything else, naming it.
    """
    return {name: _json_value(name, value) for name, value in values.items()}


def _json_value(name: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        count = value.numel() if isinstance(value, torch.Tensor) else value.size
        if count != 1:
            raise RunError(
                f"log: {name} must be one number, and has shape {tuple(value.shape)}; log a mean, "
                f"or each by a name of its own"
            )
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise RunError(
        f"log: {name} must be a number, a string or a boolean, and is a {type(value).__name__}"
    )


def line_values(line: bytes) -> dict[str, Any] | None:
    """The values by name in a line of a log; None where it is none that a run writes."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _is_until(line: bytes, step: int) -> bool:
    """Whether a whole line was logged up to a step."""
    logged = _step(line)
    return line.endswith(b"\n") and logged is not None and logged <= step


def _step(line: bytes) -> int | None:
    """The step at which a line was logged."""
    try:
        return int((line_values(line) or {})["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
