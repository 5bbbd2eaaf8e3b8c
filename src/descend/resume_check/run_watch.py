"""A run's folder seen from outside while it trains: checkpoints, saves, how far it is."""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from descend.checkpoint import series
from descend.run.metrics_log import METRICS

POLL = 0.001  # seconds between two looks at a run's folder: a save of a small model takes a few
TEMPORARY = re.compile(rf"\.({series.NAME.pattern})\..+\.tmp")  # of a save, or of a removal

CheckpointOrder = tuple[
    int, int
]  # the step of a checkpoint, and its number among those of that step


class FolderContents(NamedTuple):
    """The contents of a run's folder at an instant."""

    newest: CheckpointOrder | None  # of the complete checkpoints
    saves: frozenset[str]  # names of what is being written
    removals: frozenset[str]  # names of what is being removed
    log: tuple[int, int]  # the size and the time of change of the log


@dataclass(frozen=True)
class Course:
    """The course of a run without kills, as its folder showed it.

    Args:
        seconds: from the start of the process to its end.
        orders: its checkpoints, in their order; not empty.
        times: after how many seconds each was there.
        save_seconds: how long a save takes; 0 where none was seen.
        batches: how many an epoch has.
    """

    seconds: float
    orders: Sequence[CheckpointOrder]
    times: Sequence[float]
    save_seconds: float
    batches: int

    @property
    def steps(self) -> int:
        """How many it took."""
        return self.orders[-1][0]


def look(folder: Path) -> FolderContents:
    """Look at a run's folder."""
    names: list[str] = []
    log = (0, 0)
    with suppress(FileNotFoundError):
        names = os.listdir(folder / series.FOLDER)
    with suppress(FileNotFoundError):
        found = (folder / METRICS).stat()
        log = (found.st_size, found.st_mtime_ns)
    complete = [series.step_and_number(Path(name)) for name in names if series.NAME.fullmatch(name)]
    newest = max(complete, default=None)
    temporary = {match[0]: match[1] for match in map(TEMPORARY.fullmatch, names) if match}
    saves = frozenset(
        name
        for name, final in temporary.items()
        if newest is None or series.step_and_number(Path(final)) > newest
    )
    return FolderContents(newest, saves, frozenset(temporary) - saves, log)


def watched(
    process: "subprocess.Popen[bytes]", folder: Path
) -> Iterator[tuple[float, FolderContents]]:
    """Look at a run's folder while the process lives; the seconds so far, and what is there."""
    began = time.monotonic()
    while process.poll() is None:
        yield time.monotonic() - began, look(folder)
        time.sleep(POLL)


def starts_over(folder: Path, start: FolderContents, seen: FolderContents) -> bool:
    """Whether the checkpoint to go on from is gone, and no later one is there.

    Args:
        folder: of the run, to look once more: one look can miss what is renamed meanwhile.
        start: what there was when the process started.
        seen: what there was a moment ago.
    """
    if not _is_behind(seen, start):
        return False
    damaged = any((folder / series.FOLDER).glob("*.damaged"))  # which a run leaves aside
    return not damaged and _is_behind(look(folder), start)


def _is_behind(seen: FolderContents, start: FolderContents) -> bool:
    return start.newest is not None and (seen.newest is None or seen.newest < start.newest)
