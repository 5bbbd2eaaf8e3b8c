"""The time of a step in each trainer's loop: `python benchmarks/trainers.py`.

The same model and data in a plain loop, in descend's, and in those of Lightning, Hugging Face,
Accelerate and ignite. A training of so many steps is timed from the inside, between two calls of
the model: what happens before the first steps and after the last ones is not measured, and
everything between two calls is, the loader included.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch
from torch.utils.data import TensorDataset

from descend.bench import (
    Measurement,
    Part,
    Spread,
    Target,
    measure_parts,
    paired_ratio,
    spread,
)
from descend.bench.timing import MOST_REPEATS, Clock, TakeSteps, measure
from descend.cli.bench_output import Output, ratio, run_and_print, titled
from descend.cli.bench_output import spread as time_of
from descend.cli.options import json_option, option
from descend.training.images import cnn
from trainer_loops import (
    BATCH,
    LIGHTNING,
    LOG_EVERY,
    LOOPS,
    RUN,
    TRAINER,
    Train,
    installed,
    silence,
)

FIRST = 20
"""The steps before those that are timed: first steps compile, allocate and save."""

TURN_NS = 150_000_000
"""The least length of a turn: each is a training of its own, whose beginning takes as long."""

MOST = 40e-6
"""Promised: the seconds of a step that descend.Trainer takes more than descend.Run."""

TIMES = 2.5
"""Promised: how many times as long a step takes in Lightning, on the first model."""


@dataclass(frozen=True)
class Trained:
    """A model to train, and the shape of its data.

    Args:
        name: of both, as the tables have it.
        make: a new one.
        shape: of one input.
    """

    name: str
    make: Callable[[], torch.nn.Module]
    shape: tuple[int, ...]


def mlp() -> torch.nn.Module:
    """A network that takes no time: what is left is the loop."""
    return torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )  # fmt: skip


MODELS = (
    Trained("MLP 64-64-10", mlp, (64,)),
    Trained("the CNN of the digits", partial(cnn, 8, 8, 10), (1, 8, 8)),
)


@dataclass(frozen=True)
class LoopTimes:
    """A step of one loop, measured in one run with the others.

    Args:
        model: the name of the model.
        loop: the name of the loop.
        step: its seconds, with forward, backward, the optimizer, the loader and the log.
        more: the seconds more than descend.Run's, paired by round.
        times: over descend.Trainer's, paired by round: above 1, descend.Trainer is faster.
    """

    model: str
    loop: str
    step: Spread
    more: Spread
    times: Spread


class Watched(torch.nn.Module):
    """A model that looks at the clock in two of its calls.

    Args:
        net: the model.
        calls: their numbers, from 0.
        clock: the time in nanoseconds.
    """

    def __init__(self, net: torch.nn.Module, calls: tuple[int, int], clock: Clock) -> None:
        super().__init__()
        self.net, self.calls, self.clock = net, calls, clock
        self.count, self.instants = 0, list[int]()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Give what the model gives."""
        if self.count in self.calls:
            self.instants.append(self.clock())
        self.count += 1
        scores: torch.Tensor = self.net(inputs)
        return scores


def measure_loops(
    trained: Trained,
    rounds: int,
    loops: Mapping[str, Train] | None = None,
    *,
    turn_ns: int = TURN_NS,
    multiple: int = LOG_EVERY,
    clock: Clock = time.perf_counter_ns,
) -> list[LoopTimes]:
    """Time a step of every loop on one model, interleaved.

    Args:
        trained: the model.
        rounds: how many turns each takes, at least 1.
        loops: those of `trainer_loops`, descend's two among them; None: all whose package is here.
        turn_ns: the length of a turn in nanoseconds.
        multiple: of how many steps a turn is a multiple: as many as between two logs.
        clock: the time in nanoseconds.

    Raises:
        ValueError: `rounds` is less than 1.
    """
    loops = installed() if loops is None else loops
    generator = torch.Generator().manual_seed(0)
    count = BATCH * (FIRST + MOST_REPEATS + multiple + 1)
    data = (
        torch.randn(count, *trained.shape, generator=generator),
        torch.randint(0, 10, (count,), generator=generator),
    )
    runs = {name: _stepping(train, trained, data, clock) for name, train in loops.items()}
    seconds = measure(runs, rounds, turn_ns, multiple)
    beside = seconds[RUN]
    return [
        LoopTimes(
            model=trained.name,
            loop=name,
            step=spread(found),
            more=spread([a - b for a, b in zip(found, beside, strict=True)]),
            times=paired_ratio(found, seconds[TRAINER]),
        )
        for name, found in seconds.items()
    ]


def _stepping(
    train: Train, trained: Trained, data: tuple[torch.Tensor, torch.Tensor], clock: Clock
) -> TakeSteps:
    """Train anew, in a folder of its own, for some steps more than are timed."""

    def run(count: int) -> int:
        if count == 0:  # nothing is to be warmed up
            return 0
        torch.manual_seed(0)
        model = Watched(trained.make(), (FIRST, FIRST + count), clock)
        samples = BATCH * (FIRST + count + 1)
        dataset = TensorDataset(*(part[:samples] for part in data))
        with TemporaryDirectory() as folder, silence():
            train(model, dataset, folder)
        begun, ended = model.instants
        return ended - begun

    return run


def loop_parts(models: Sequence[Trained], rounds: int) -> list[Part]:
    """Return the parts of the measurement, one for each model.

    Args:
        models: which.
        rounds: how many turns each loop takes, at least 1.
    """
    return [(model.name, partial(measure_loops, model, rounds)) for model in models]


def loop_targets(measurement: Measurement) -> list[Target]:
    """Compare a measurement with what is promised of descend.Trainer on the first model.

    Args:
        measurement: of `loop_parts`.
    """
    rows = {one.loop: one for one in measurement.of(LoopTimes) if one.model == MODELS[0].name}
    name = f"a step of {TRAINER}, {MODELS[0].name}"
    more, times = rows.get(TRAINER), rows.get(LIGHTNING)
    return [
        Target(f"{name}, more than {RUN}", MOST, "s", more.more if more else None),
        Target(f"{name}, beside {LIGHTNING}", TIMES, "x", times.times if times else None),
    ]


def loop_entries(measurement: Measurement) -> Mapping[str, Any]:
    """Return the results as plain data.

    Args:
        measurement: of `loop_parts`.
    """
    return {"loops": [asdict(one) for one in measurement.of(LoopTimes)]}


def loop_tables(measurement: Measurement) -> Iterator[list[str]]:
    """Return a table for each model.

    Args:
        measurement: of `loop_parts`.
    """
    found = measurement.of(LoopTimes)
    for model in dict.fromkeys(one.model for one in found):
        rows = [one for one in found if one.model == model]
        yield titled(
            f"one step, {model}, batches of {BATCH}",
            ["loop", "a step", f"more than {RUN}", f"over {TRAINER}"],
            [[one.loop, time_of(one.step), _more(one.more), ratio(one.times)] for one in rows],
            f"where nothing else is said with descend.AdamW; the loss is kept every {LOG_EVERY} "
            f"steps",
        )


def _more(value: Spread) -> str:
    microseconds = (1e6 * part for part in (value.median, value.low, value.high))
    return "{:+.0f} us ({:+.0f} to {:+.0f})".format(*microseconds)


@click.command()
@option(
    "--rounds",
    default=11,
    help="How many turns each loop takes. More give narrower spreads.",
)
@option(
    "--threads",
    default=1,
    help="How many threads torch uses: more only unsettle models as small as these.",
)
@json_option
def main(rounds: int, threads: int, as_json: bool) -> None:
    """Measure what a step costs in the loops of trainers: some minutes.

    The same model, data and optimizer in a plain loop, in descend.Run's and descend.Trainer's, and
    in those of Lightning, the HF Trainer, Accelerate and ignite, as far as they are installed. The
    loops take turns; each turn is a training of its own, timed from the inside, without its
    beginning and its end. Bars, evaluation and clipping are off.

    Ctrl-C ends the run; the models that were measured before it are printed.
    """
    parts = loop_parts(MODELS, rounds)
    output = Output(loop_entries, loop_targets, loop_tables, LoopTimes, ("loop", "loops"))
    run = partial(measure_parts, parts, rounds=rounds, threads=threads)
    sys.exit(run_and_print(run, len(parts), output, as_json, len(parts) * len(LOOPS)))


if __name__ == "__main__":
    main()
