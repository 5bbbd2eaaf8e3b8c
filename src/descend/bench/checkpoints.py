"""The time and the size of checkpoints, beside torch.save, safetensors and distributed checkpoints.

What is saved is a model with the state of AdamW. A save counts as done when it is on the disk, so
before each one everything that waits for the disk is written out, untimed. Loads come from the page
cache: each file is read through before, untimed, so that the disk plays no part in them. Memory
that was used before is given back: a process that goes on with a training has new memory too, which
costs as much as the reading.
"""

import ctypes
import gc
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from descend import checkpoint
from descend.bench.document import FORMAT
from descend.bench.suite import Machine, machine, threads_set
from descend.bench.targets import Target
from descend.bench.timing import Clock, Spread, paired_ratio, spread, turn_order
from descend.checkpoint.folder import flush
from descend.checkpoint.saver import Saver
from descend.errors import DescendError, OutputError

OURS, TORCH = "descend", "torch"

LAYER = 4_000_000
"""About how many parameters a tensor holds."""

COPIES = 4
"""How many times the state is in memory at most: itself, a loaded one, and copies on the way."""

FILES = 6
"""How many times it is on the disk at most: once for each way, and two of a run's."""

BESIDES = 500_000_000
"""Memory for all else, in bytes."""

PIECE = 1 << 24

BLOCKING = "a blocking save"
FIRST, LATER = "the first background save", "a later background save"
"""The saves of a run."""

SAVE_AT_MOST, LOAD_AT_MOST, BLOCKED_AT_MOST = 1.2, 1.5, 0.25
"""What is promised: of torch.save with fsync, of torch.load, and of a blocking save."""

AT_MOST = "x at most"
"""The unit of a target that is a ratio and must not be above it."""

State = Mapping[str, Any]


@dataclass(frozen=True)
class Way:
    """A way of saving and loading a state.

    Args:
        name: what the tables call it.
        save: writes a state to a path, so that it is on the disk; None for what loads the files of
            another.
        load: reads it back from the path, or into the tensors of a state that is given.
        file: the name of its file or folder.
        fills: whether the load needs tensors to fill.
    """

    name: str
    save: Callable[[State, Path], object] | None
    load: Callable[[Path, State | None], object]
    file: str
    fills: bool = False


@dataclass(frozen=True)
class CheckpointTimes:
    """One way of saving and loading, measured in one run with the others.

    Args:
        way: which.
        save: seconds of a save, until it is on the disk; None for what only loads.
        save_ratio: how many times as long as torch.save, paired by round.
        bytes: how large what it writes is; None for what only loads.
        load: seconds of a load from the page cache.
        load_ratio: how many times as long as torch.load, paired by round.
    """

    way: str
    save: Spread | None
    save_ratio: Spread | None
    bytes: int | None
    load: Spread
    load_ratio: Spread


@dataclass(frozen=True)
class RunSaveTimes:
    """How long a save holds a training up.

    Args:
        save: which of a run's saves.
        blocked: seconds until the call returns.
        ratio: that over a blocking save, paired by round.
        done: seconds until it is on the disk.
    """

    save: str
    blocked: Spread
    ratio: Spread
    done: Spread


@dataclass(frozen=True)
class CheckpointMeasurement:
    """Everything that one run of `descend bench --checkpoints` measured.

    Args:
        machine: where.
        rounds: how many turns each way took.
        seconds: how long the run took.
        parameters: how many parameters the model has.
        tensors: how many tensors the state has.
        state_bytes: how large all of them are.
        folder: where it was written.
        filesystem: the kind of file system there; None where unknown.
        checkpoints: one entry per way.
        run_saves: one entry per kind of save of a run.
        interrupted: whether Ctrl-C ended the run: it holds the rounds that were complete.
    """

    machine: Machine
    rounds: int
    seconds: float
    parameters: int
    tensors: int
    state_bytes: int
    folder: str
    filesystem: str | None
    checkpoints: tuple[CheckpointTimes, ...]
    run_saves: tuple[RunSaveTimes, ...]
    interrupted: bool = False

    @property
    def in_memory(self) -> bool:
        """Whether the folder is on no disk at all, so that saves cost less than they should."""
        return self.filesystem in ("tmpfs", "ramfs")


@dataclass(frozen=True)
class Ceiling(Target):
    """A figure that descend promises to stay below: `target` is the most that it may be."""

    @property
    def status(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.measured is None:
            return "not measured"
        return "met" if self.measured.median <= self.target else "missed"


def state_of(parameters: int) -> dict[str, Any]:
    """A model's parameters with the state of AdamW, in the form of their `state_dict()`s.

    Args:
        parameters: how many, at least 1; they are in tensors of about `LAYER`.
    """
    count = max(1, round(parameters / LAYER))
    sizes = [parameters * (i + 1) // count - parameters * i // count for i in range(count)]

    def values() -> list[torch.Tensor]:
        return [torch.empty(size).uniform_(-1, 1) for size in sizes]

    groups = torch.optim.AdamW([torch.zeros(1) for _ in sizes]).state_dict()["param_groups"]
    averages = enumerate(zip(values(), values(), strict=True))
    return {
        "model": {f"layers.{i}.weight": tensor for i, tensor in enumerate(values())},
        "optimizer": {
            "state": {
                i: {"step": torch.tensor(1000.0), "exp_avg": mean, "exp_avg_sq": square}
                for i, (mean, square) in averages
            },
            "param_groups": groups,
        },
    }


def ways() -> list[Way]:
    """Every way of saving and loading that is there."""
    found = [
        Way(OURS, _save_ours, lambda path, into: checkpoint.load(path), "descend"),
        Way(TORCH, _save_torch, _load_torch, "torch.pt"),
        Way("torch, mmap", None, _map_torch, "torch.pt"),
        Way("safetensors", _save_safetensors, _load_safetensors, "model.safetensors"),
    ]
    if torch.distributed.is_available():
        found.append(
            Way("torch distributed", _save_distributed, _load_distributed, "distributed", True)
        )
    return found


def checkpoint_parts(rounds: int) -> int:
    """How often `run_checkpoints` calls `progress`.

    Args:
        rounds: as there.
    """
    return rounds * (len(ways()) + sum(way.save is not None for way in ways()) + 1)


def run_checkpoints(
    parameters: int,
    *,
    rounds: int,
    folder: Path | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
    clock: Clock = time.perf_counter_ns,
) -> CheckpointMeasurement:
    """Measure saves and loads of a model with the state of AdamW.

    All is written to a new folder, which is removed at the end, whatever ends it.

    Args:
        parameters: how many parameters the model has, at least 1.
        rounds: how many turns each way takes, at least 1.
        folder: on which disk: the new folder is made in this one; None for the system's place for
            temporary files.
        threads: how many threads torch copies with; None for its own number.
        progress: called with a few words before each part: there are as many as
            `checkpoint_parts`.
        clock: the time in nanoseconds.

    Returns:
        What was measured: everything, or after Ctrl-C the rounds that were complete by then.

    Raises:
        ValueError: `rounds` or `parameters` is less than 1.
        OutputError: the folder cannot be written, or its disk has no room.
        DescendError: there is not enough memory, or a save or a load failed.
    """
    if rounds < 1 or parameters < 1:
        raise ValueError(f"rounds and parameters must be at least 1, got {rounds}, {parameters}")
    began, interrupted = time.monotonic(), False
    done: list[_Round] = []
    with threads_set(threads), _new_folder(folder) as place:
        where = machine()
        _refuse_too_large(parameters, place)
        kind = _filesystem(place)
        tensors, size = 0, 0
        try:
            (place / "small").mkdir()
            _round(state_of(1), place / "small", 0, clock)  # imports, and code that runs first
            state = state_of(parameters)
            tensors, size = _amount(state)
            for index in range(rounds):
                done.append(_round(state, place, index, clock, progress))
        except KeyboardInterrupt:
            interrupted = True
    return CheckpointMeasurement(
        machine=where,
        rounds=len(done),
        seconds=time.monotonic() - began,
        parameters=parameters,
        tensors=tensors,
        state_bytes=size,
        folder=str(folder or place.parent),
        filesystem=kind,
        checkpoints=_checkpoint_times(done) if done else (),
        run_saves=_run_save_times(done) if done else (),
        interrupted=interrupted,
    )


def checkpoint_targets(measurement: CheckpointMeasurement) -> list[Target]:
    """Compare a measurement with what is promised.

    Args:
        measurement: what `run_checkpoints` returned.
    """
    ours = next((one for one in measurement.checkpoints if one.way == OURS), None)
    blocked = {one.save: one.ratio for one in measurement.run_saves}
    found = [
        ("a save, over torch.save with fsync", SAVE_AT_MOST, ours.save_ratio if ours else None),
        ("a verified load, over torch.load", LOAD_AT_MOST, ours.load_ratio if ours else None),
        *(
            (f"blocked by {save}, over a blocking one", BLOCKED_AT_MOST, blocked.get(save))
            for save in (FIRST, LATER)
        ),
    ]
    return [Ceiling(name, most, AT_MOST, measured) for name, most, measured in found]


def checkpoint_document(measurement: CheckpointMeasurement) -> dict[str, Any]:
    """Return a measurement of checkpoints as dictionaries, lists, strings and numbers.

    Args:
        measurement: what `run_checkpoints` returned.

    Returns:
        The fields of `CheckpointMeasurement` by name, all times in seconds and all sizes in bytes;
        `format`; and `targets`, each with its `status`.
    """
    promised = checkpoint_targets(measurement)
    return {
        "format": FORMAT,
        **asdict(measurement),
        "targets": [{**asdict(target), "status": target.status} for target in promised],
    }


@dataclass(frozen=True)
class _Round:
    """What one round took, in seconds and bytes, by way, and by save of a run."""

    saves: Mapping[str, float]
    sizes: Mapping[str, int]
    loads: Mapping[str, float]
    blocked: Mapping[str, float]
    done: Mapping[str, float]


def _round(
    state: State,
    folder: Path,
    index: int,
    clock: Clock,
    progress: Callable[[str], None] = lambda _: None,
) -> _Round:
    """Every way takes one turn at saving, then one at loading; then a run saves."""
    saves: dict[str, float] = {}
    sizes: dict[str, int] = {}
    loads: dict[str, float] = {}
    loading = ways()
    saving = [way for way in loading if way.save is not None]
    for turn in turn_order(len(saving), index):
        way = saving[turn]
        assert way.save is not None
        progress(f"round {index + 1}, saving: {way.name}")
        path = folder / way.file
        _remove(path)
        os.sync()
        with _quiet(way.name):
            begun = clock()
            way.save(state, path)
            saves[way.name] = (clock() - begun) / 1e9
        sizes[way.name] = sum(file.stat().st_size for file in _files(path))
    for turn in turn_order(len(loading), index):
        way = loading[turn]
        progress(f"round {index + 1}, loading: {way.name}")
        for file in _files(folder / way.file):
            _read_through(file)
        into = _filled(state) if way.fills else None
        with _quiet(way.name):
            begun = clock()
            loaded = way.load(folder / way.file, into)
            loads[way.name] = (clock() - begun) / 1e9
        del loaded, into
    progress(f"round {index + 1}, the saves of a run")
    blocked, done = _run_saves(state, folder / "run", clock)
    return _Round(saves, sizes, loads, blocked, done)


def _run_saves(
    state: State, folder: Path, clock: Clock
) -> tuple[dict[str, float], dict[str, float]]:
    """Save as a run does: until the calls return, and until all is on the disk."""
    blocked: dict[str, float] = {}
    done: dict[str, float] = {}
    folder.mkdir()
    saver = Saver(folder, keep=1)
    try:
        for step, save in enumerate((BLOCKING, FIRST, LATER)):
            if save == FIRST:
                saver.prepare(state)
                saver.wait()
            os.sync()
            with _quiet(save):
                begun = clock()
                error = saver.save(state, step=step, background=save != BLOCKING)
                blocked[save] = (clock() - begun) / 1e9
                error = saver.wait() or error
                done[save] = (clock() - begun) / 1e9
                if error is not None:
                    raise error
    finally:
        saver.wait()  # nothing may be written any more when the folder goes
        _remove(folder)
    return blocked, done


def _save_ours(state: State, path: Path) -> None:
    checkpoint.save(path, state)


def _save_torch(state: State, path: Path) -> None:
    torch.save(state, path)
    flush(path)
    flush(path.parent)


def _load_torch(path: Path, into: State | None) -> object:
    return torch.load(path, weights_only=True)


def _map_torch(path: Path, into: State | None) -> object:
    return torch.load(path, weights_only=True, mmap=True)


def _save_safetensors(state: State, path: Path) -> None:
    safetensors.torch.save_file(dict(_tensors(state)), path)
    flush(path)
    flush(path.parent)


def _load_safetensors(path: Path, into: State | None) -> object:
    return safetensors.torch.load_file(path)


def _save_distributed(state: State, path: Path) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with _alone():
        save(dict(state), storage_writer=FileSystemWriter(path))


def _load_distributed(path: Path, into: State | None) -> object:
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    state = dict(into or {})
    with _alone():
        load(state, storage_reader=FileSystemReader(path))
    return state


@contextmanager
def _alone() -> Iterator[None]:
    """Let torch's distributed checkpoints work in one process without a word about that.

    They wrap whatever happens, a Ctrl-C too, in an exception of their own.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CheckpointException as wrapped:
        failures = [failure for failure, _ in wrapped.failures.values()]
        if any(map(_interrupted, failures)):
            raise KeyboardInterrupt from None
        raise failures[0] if failures else DescendError(str(wrapped)) from None


@contextmanager
def _quiet(what: str) -> Iterator[None]:
    """Python's garbage collector rests meanwhile, and a failure names what failed."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    _give_memory_back()
    try:
        yield
    except Exception as error:
        if _interrupted(error):
            raise KeyboardInterrupt from None
        raise DescendError(
            f"bench --checkpoints: {what} failed: {' '.join(str(error).split())}"
        ) from error
    finally:
        if collecting:
            gc.enable()


def _give_memory_back() -> None:
    """Give what was freed back to the system, so that it is new memory for whoever is next."""
    with suppress(OSError, AttributeError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _interrupted(error: BaseException | None) -> bool:
    """Whether a Ctrl-C is behind an exception: torch's writer ends with one of its own after it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _tensors(state: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in state.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, Mapping):
            yield from _tensors(value, name)


def _filled(state: State) -> dict[str, Any]:
    """Another state of that form, with memory that has been written to."""

    def of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.full_like(value, 0.5)
        return {key: of(item) for key, item in value.items()} if isinstance(value, dict) else value

    return {key: of(value) for key, value in state.items()}


def _amount(state: State) -> tuple[int, int]:
    """How many tensors, and how many bytes they are."""
    tensors = [tensor for _, tensor in _tensors(state)]
    return len(tensors), sum(tensor.nbytes for tensor in tensors)


def _checkpoint_times(rounds: list[_Round]) -> tuple[CheckpointTimes, ...]:
    def times(way: Way) -> CheckpointTimes:
        saves = [one.saves[way.name] for one in rounds if way.name in one.saves]
        loads = [one.loads[way.name] for one in rounds]
        return CheckpointTimes(
            way=way.name,
            save=spread(saves) if saves else None,
            save_ratio=paired_ratio(saves, [r.saves[TORCH] for r in rounds]) if saves else None,
            bytes=rounds[-1].sizes.get(way.name),
            load=spread(loads),
            load_ratio=paired_ratio(loads, [one.loads[TORCH] for one in rounds]),
        )

    return tuple(map(times, ways()))


def _run_save_times(rounds: list[_Round]) -> tuple[RunSaveTimes, ...]:
    def times(save: str) -> RunSaveTimes:
        blocked = [one.blocked[save] for one in rounds]
        return RunSaveTimes(
            save=save,
            blocked=spread(blocked),
            ratio=paired_ratio(blocked, [one.blocked[BLOCKING] for one in rounds]),
            done=spread([one.done[save] for one in rounds]),
        )

    return tuple(map(times, (BLOCKING, FIRST, LATER)))


@contextmanager
def _new_folder(within: Path | None) -> Iterator[Path]:
    try:
        made = Path(tempfile.mkdtemp(prefix="descend-bench-", dir=within))
    except OSError as error:
        raise OutputError(
            f"--folder {within}: it cannot be written to: {error.strerror or error}; give another"
        ) from error
    try:
        yield made
    finally:
        _remove(made)


def _refuse_too_large(parameters: int, folder: Path) -> None:
    size = 3 * 4 * parameters  # the parameters and AdamW's two averages, in float32
    needed, free = COPIES * size + BESIDES, _free_memory()
    if free is not None and free < needed:
        raise DescendError(
            f"bench --checkpoints: {parameters:,} parameters need {_gigabytes(needed)} of memory, "
            f"and {_gigabytes(free)} are free; close other programs, or give fewer with "
            f"--parameters"
        )
    needed, free = FILES * size, shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"bench --checkpoints: {parameters:,} parameters need {_gigabytes(needed)} on the disk "
            f"of {folder.parent}, and {_gigabytes(free)} are free; give another with --folder, or "
            f"fewer with --parameters"
        )


def _gigabytes(amount: int) -> str:
    return f"{amount / 1e9:.1f} GB"


def _free_memory() -> int | None:
    """What the system could still give, in bytes; None where it does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _filesystem(folder: Path) -> str | None:
    """The kind of file system that a folder is on."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return None
    above = {str(path) for path in (folder.resolve(), *folder.resolve().parents)}
    fitting = [(len(place), kind) for place, kind in mounts if place in above]
    return max(fitting)[1] if fitting else None


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _read_through(file: Path) -> None:
    """Bring a file into the page cache."""
    with file.open("rb", buffering=0) as opened:
        while opened.read(PIECE):
            pass


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
