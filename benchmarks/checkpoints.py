"""The time and size of checkpoints beside torch's: `python benchmarks/checkpoints.py`.

Beside descend's: torch.save, safetensors and torch.distributed.checkpoint. What is saved is a model
with the state of AdamW. `checkpoint_round` says how it is timed.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from checkpoint_round import BLOCKING, FIRST, LATER, SAVES, Round, one_round
from checkpoint_state import named_tensors, state_of
from checkpoint_ways import OURS, TORCH, ways
from descend.bench import (
    AT_MOST,
    Measurement,
    Part,
    Spread,
    Target,
    measure_parts,
    paired_ratio,
    spread,
)
from descend.bench.timing import Clock
from descend.cli.bench_output import Output, ratio, run_and_print, share, titled
from descend.cli.bench_output import spread as time_of
from descend.cli.options import json_option, option
from descend.errors import DescendError
from descend.format import byte_size, rounded_count
from room import IN_MEMORY, filesystem, new_folder, refuse_too_large

ROUNDS, PARAMETERS = 7, "100M"
SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}

SAVE_AT_MOST, LOAD_AT_MOST, BLOCKED_AT_MOST = 1.2, 1.5, 0.25
"""Promised: shares of torch.save with fsync, of torch.load, and of a blocking save."""


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
class Setting:
    """The state that is saved, and where to.

    Args:
        parameters: how many parameters the model has.
        tensors: how many tensors the state has.
        state_bytes: how large all of them are.
        folder: where it was written.
        filesystem: the kind of file system there; None where unknown.
    """

    parameters: int
    tensors: int
    state_bytes: int
    folder: str
    filesystem: str | None


def run_checkpoints(
    parameters: int,
    *,
    rounds: int,
    folder: Path | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
    clock: Clock = time.perf_counter_ns,
) -> Measurement:
    """Measure saves and loads of a model with the state of AdamW.

    All is written to a new folder, which is removed at the end, whatever ends it.

    Args:
        parameters: how many parameters the model has, at least 1.
        rounds: how many turns each way takes, at least 1.
        folder: on which disk: the new folder is made in this one; None for the system's place for
            temporary files.
        threads: how many threads torch copies with; None for its own number.
        progress: called with a few words before the first round and before each.
        clock: the time in nanoseconds.

    Returns:
        The `Round`s that were complete, and then their `Setting`.

    Raises:
        ValueError: `rounds` or `parameters` is less than 1.
        OutputError: the folder cannot be written, or its disk has no room.
        DescendError: there is not enough memory, or a save or a load failed.
    """
    if rounds < 1 or parameters < 1:
        raise ValueError(f"rounds and parameters must be at least 1, got {rounds}, {parameters}")
    with new_folder(folder) as place:
        kind, taking = filesystem(place), ways()
        refuse_too_large(parameters, place, kind)
        state: dict[str, Any] = {}

        def begin() -> list[object]:
            (place / "small").mkdir()
            # Imports, and code that runs for the first time
            one_round(state_of(1), taking, place / "small", 0, clock)
            state.update(state_of(parameters))
            return []

        parts: list[Part] = [("a small state", begin)]
        parts += [
            (f"round {index + 1}", partial(one_round, state, taking, place, index, clock))
            for index in range(rounds)
        ]
        measurement = measure_parts(parts, rounds=rounds, threads=threads, progress=progress)
        done, sizes = measurement.found, [tensor.nbytes for _, tensor in named_tensors(state)]
    setting = Setting(parameters, len(sizes), sum(sizes), str(folder or place.parent), kind)
    return replace(measurement, rounds=len(done), found=(*done, setting) if done else ())


def checkpoint_times(measurement: Measurement) -> list[CheckpointTimes]:
    """Return the times of each way.

    Args:
        measurement: what `run_checkpoints` returned.
    """
    rounds = measurement.of(Round)
    found = []
    for way in [one.name for one in ways()] if rounds else []:
        saves = [one.saves[way] for one in rounds if way in one.saves]
        loads = [one.loads[way] for one in rounds]
        found.append(
            CheckpointTimes(
                way=way,
                save=spread(saves) if saves else None,
                save_ratio=paired_ratio(saves, [one.saves[TORCH] for one in rounds])
                if saves
                else None,
                bytes=rounds[-1].sizes.get(way),
                load=spread(loads),
                load_ratio=paired_ratio(loads, [one.loads[TORCH] for one in rounds]),
            )
        )
    return found


def run_save_times(measurement: Measurement) -> list[RunSaveTimes]:
    """Return the times of each of a run's saves.

    Args:
        measurement: what `run_checkpoints` returned.
    """
    rounds = measurement.of(Round)
    blocking = [one.blocked[BLOCKING] for one in rounds]
    return [
        RunSaveTimes(
            save,
            spread(blocked := [one.blocked[save] for one in rounds]),
            paired_ratio(blocked, blocking),
            spread([one.done[save] for one in rounds]),
        )
        for save in (SAVES if rounds else ())
    ]


def checkpoint_targets(measurement: Measurement) -> list[Target]:
    """Compare a measurement with what is promised.

    Args:
        measurement: what `run_checkpoints` returned.
    """
    ours = next((one for one in checkpoint_times(measurement) if one.way == OURS), None)
    blocked = {one.save: one.ratio for one in run_save_times(measurement)}
    found = [
        ("a save, over torch.save with fsync", SAVE_AT_MOST, ours.save_ratio if ours else None),
        ("a verified load, over torch.load", LOAD_AT_MOST, ours.load_ratio if ours else None),
        *(
            (f"blocked by {save}, over a blocking one", BLOCKED_AT_MOST, blocked.get(save))
            for save in (FIRST, LATER)
        ),
    ]
    return [Target(name, most, AT_MOST, measured) for name, most, measured in found]


def checkpoint_entries(measurement: Measurement) -> Mapping[str, Any]:
    """Return a measurement of checkpoints as plain data.

    Args:
        measurement: what `run_checkpoints` returned.
    """
    (setting,) = measurement.of(Setting)
    return {
        **asdict(setting),
        "checkpoints": [asdict(one) for one in checkpoint_times(measurement)],
        "run_saves": [asdict(one) for one in run_save_times(measurement)],
    }


def checkpoint_tables(measurement: Measurement) -> Iterator[list[str]]:
    """Return the tables of the times.

    Args:
        measurement: what `run_checkpoints` returned.
    """
    (setting,) = measurement.of(Setting)
    kind = f" ({setting.filesystem})" if setting.filesystem else ""
    no_disk = [("which is memory and no disk: saves cost less than on one", "doubtful")]
    yield titled(
        f"{rounded_count(setting.parameters)} parameters with AdamW's state: "
        f"{byte_size(setting.state_bytes)} in {setting.tensors} tensors",
        ["way", "save", "over torch", "size", "load", "over torch"],
        map(_checkpoint_row, checkpoint_times(measurement)),
        f"a save ends when all is on the disk of {setting.folder}{kind}",
        *(no_disk if setting.filesystem in IN_MEMORY else []),
        "a load is from the page cache to new memory; distributed fills tensors that are there",
        "only descend verifies; safetensors and mmap read the values later, when they are used",
    )
    yield titled(
        "how long a save of a run holds it up",
        ["what", "held up", "share", "done"],
        [
            [one.save, time_of(one.blocked), share(one.ratio), time_of(one.done)]
            for one in run_save_times(measurement)
        ],
        "share: of a blocking save; done: when it is on the disk",
    )


def _checkpoint_row(one: CheckpointTimes) -> list[str]:
    own = one.way == TORCH
    return [
        one.way,
        time_of(one.save),
        "-" if own else ratio(one.save_ratio),
        "-" if one.bytes is None else byte_size(one.bytes),
        time_of(one.load),
        "-" if own else ratio(one.load_ratio),
    ]


def _count_of(context: click.Context, option: click.Parameter, value: str) -> int:
    """Read a number such as 100M."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)([kMG]?)", value)
    amount = round(float(found[1]) * SUFFIXES[found[2]]) if found else 0
    if amount < 1:
        raise click.BadParameter(
            f"{value!r} is no number of parameters; give one such as 100M, 2.5M or 500k"
        )
    return amount


@click.command()
@click.option(
    "--parameters",
    callback=_count_of,
    metavar="N",
    default=PARAMETERS,
    show_default=True,
    help="How many parameters the model has, such as 500k. 100M need 5.3 GB of memory and 7.2 GB "
    "on the disk.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="On which disk. A new folder is made in this one, and removed at the end. The system's "
    "place for temporary files by default.",
)
@option(
    "--rounds",
    default=ROUNDS,
    help="How many turns each way takes. More give narrower spreads.",
)
@option(
    "--threads",
    help="How many threads torch copies with. Its own number by default.",
)
@json_option
def main(
    parameters: int, folder: Path | None, rounds: int, threads: int | None, as_json: bool
) -> None:
    """Measure saves and loads of a model with AdamW's state: 2 minutes.

    How long it takes until a save is on the disk, to load and verify it, and for how long a
    background save holds a training up: beside torch.save, safetensors and
    torch.distributed.checkpoint, which take turns.

    Ctrl-C ends the run; the rounds before it are printed.
    """
    run = partial(run_checkpoints, parameters, rounds=rounds, folder=folder, threads=threads)
    output = Output(
        checkpoint_entries, checkpoint_targets, checkpoint_tables, Round, ("round", "rounds")
    )
    try:
        status = run_and_print(run, 1 + rounds, output, as_json, rounds)
    except DescendError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(status)


if __name__ == "__main__":
    main()
