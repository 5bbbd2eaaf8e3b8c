"""One round of the measurement of checkpoints: every way saves and loads once, and a run saves.

A save counts as done when it is on the disk, so before each one everything that waits for the disk
is written out, untimed. Loads come from the page cache: each file is read through before, untimed,
so that the disk plays no part in them. Memory that was used before is given back: a process that
goes on with a training has new memory too, which costs as much as the reading.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from checkpoint_state import State
from checkpoint_ways import Way, interrupted
from descend.bench.timing import Clock, collector_resting, turn_order
from descend.checkpoint.saver import Saver
from descend.errors import DescendError
from room import remove

BLOCKING = "a blocking save"
FIRST, LATER = "the first background save", "a later background save"
SAVES = (BLOCKING, FIRST, LATER)
"""The saves of a run, in their order."""

PIECE = 1 << 24
"""How much is read through at once, in bytes."""


@dataclass(frozen=True)
class Round:
    """The times of one round.

    Args:
        saves: seconds of a save, by way.
        sizes: bytes of what it wrote, by way.
        loads: seconds of a load, by way.
        blocked: seconds until the call returned, by save of a run.
        done: seconds until it was on the disk, by save of a run.
    """

    saves: Mapping[str, float]
    sizes: Mapping[str, int]
    loads: Mapping[str, float]
    blocked: Mapping[str, float]
    done: Mapping[str, float]


def one_round(
    state: State,
    ways: Sequence[Way],
    folder: Path,
    index: int,
    clock: Clock,
) -> Round:
    """Every way takes one turn at saving, then one at loading; then a run saves.

    Args:
        state: what is saved.
        ways: who takes part.
        folder: where to; what an earlier round left there is replaced.
        index: which round, counted from 0: it says in which order they take their turns.
        clock: the time in nanoseconds.

    Raises:
        DescendError: a save or a load failed.
    """
    saves: dict[str, float] = {}
    sizes: dict[str, int] = {}
    loads: dict[str, float] = {}
    saving = [(way, way.save) for way in ways if way.save is not None]
    for turn in turn_order(len(saving), index):
        way, save = saving[turn]
        path = folder / way.file
        remove(path)
        os.sync()
        with _undisturbed(way.name):
            begun = clock()
            save(state, path)
            saves[way.name] = (clock() - begun) / 1e9
        sizes[way.name] = sum(file.stat().st_size for file in _files(path))
    for turn in turn_order(len(ways), index):
        way = ways[turn]
        path = folder / way.file
        for file in _files(path):
            _read_through(file)
        into = deepcopy(state) if way.fills else None
        with _undisturbed(way.name):
            begun = clock()
            loaded = way.load(path, into)
            loads[way.name] = (clock() - begun) / 1e9
        del loaded, into
    blocked, done = run_saves(state, folder / "run", clock)
    return Round(saves, sizes, loads, blocked, done)


def run_saves(
    state: State, folder: Path, clock: Clock
) -> tuple[dict[str, float], dict[str, float]]:
    """Save as a run does.

    Args:
        state: what is saved.
        folder: a new one, which is removed at the end.
        clock: the time in nanoseconds.

    Returns:
        The seconds until the calls return, and those until all is on the disk, by save.

    Raises:
        DescendError: a save failed.
    """
    blocked: dict[str, float] = {}
    done: dict[str, float] = {}
    folder.mkdir()
    saver = Saver(folder, keep=1)
    try:
        for step, save in enumerate(SAVES):
            if save == FIRST:
                saver.prepare(state)
                saver.wait()
            os.sync()
            with _undisturbed(save):
                begun = clock()
                error = saver.save(state, step=step, background=save != BLOCKING)
                blocked[save] = (clock() - begun) / 1e9
                error = saver.wait() or error
                done[save] = (clock() - begun) / 1e9
                if error is not None:
                    raise error
    finally:
        saver.wait()  # nothing may be written any more when the folder goes
        remove(folder)
    return blocked, done


@contextmanager
def _undisturbed(what: str) -> Iterator[None]:
    """Begin with new memory and without the garbage collector; a failure names what failed."""
    try:
        with collector_resting():
            _give_memory_back()
            yield
    except Exception as error:
        if interrupted(error):
            raise KeyboardInterrupt from None
        words = " ".join(str(error).split()) or type(error).__name__
        raise DescendError(f"checkpoints: {what} failed: {words}") from error


def _give_memory_back() -> None:
    """Give what was freed back to the system, so that it is new memory for whoever is next."""
    with suppress(OSError, AttributeError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _read_through(file: Path) -> None:
    """Bring a file into the page cache."""
    with file.open("rb", buffering=0) as opened:
        while opened.read(PIECE):
            pass
