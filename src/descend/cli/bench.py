"""`descend bench`: options in, tables or JSON out. What is measured is in `descend.bench`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from descend.cli import INTERRUPTED
from descend.cli.bench_progress import measured
from descend.cli.optimizer_name import is_own

if TYPE_CHECKING:
    from descend.bench import Case
    from descend.cli.bench_tables import Measured

ROUNDS, CHECKPOINT_ROUNDS = 21, 7
PARAMETERS = 100_000_000
SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}

_Named = TypeVar("_Named")
_Measured = TypeVar("_Measured", bound="Measured")


def _count_of(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Read a number such as 100M."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)([kMG]?)", value)
    amount = round(float(found[1]) * SUFFIXES[found[2]]) if found else 0
    if amount < 1:
        raise click.BadParameter(
            f"{value!r} is no number of parameters; give one such as 100M, 2.5M or 500k"
        )
    return amount


@click.command(
    short_help="Measure step times beside torch's and beside what memory allows.",
    epilog="""\b
Examples:
  descend bench                                      the usual optimizers, a few minutes
  descend bench --all                                every one, several minutes
  descend bench --optimizer adamw                    one optimizer on all models
  descend bench my_file.py:MyRule                    an update rule of your own on all models
  descend bench --optimizer adamw --workload wide --steps-only
                                                     the quickest look at one figure
  descend bench --schedulers                         learning rate schedulers, a minute
  descend bench --checkpoints --folder runs          saves and loads on that disk, minutes
  descend bench --json > bench.json                  for a program to read
""",
)
@click.argument("rules", metavar="[FILE.py:CLASS]...", nargs=-1)
@click.option(
    "--optimizer",
    "optimizers",
    multiple=True,
    metavar="NAME",
    help="An optimizer of the catalogue to measure; may be repeated. By default, where no rule is "
    "given: adagrad, adam, adamw, adamw-clip, which clips by global norm in each step, rmsprop, "
    "sgd, and sgd-momentum.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Measure the whole catalogue, but what is no matter of memory: lbfgs, muon, sparseadam.",
)
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    metavar="NAME",
    help="A model to step; may be repeated. All by default: mlp (6 tensors, 5.7 k parameters), "
    "convnet (450, 2.5 M), transformer (160, 12.6 M), wide (3, 42 M).",
)
@click.option(
    "--schedulers",
    is_flag=True,
    help="Measure the steps of the learning rate schedulers instead: each one that torch has, with "
    "1 and with 50 parameter groups, and the learning rates numbers and tensors.",
)
@click.option(
    "--checkpoints",
    is_flag=True,
    help="Measure saves and loads of a model with the state of AdamW instead.",
)
@click.option(
    "--parameters",
    callback=_count_of,
    metavar="N",
    help="With --checkpoints: how many parameters the model has, such as 100M, which is the "
    "default, or 500k. 100M need 5.3 GB of memory and 7.2 GB on the disk.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With --checkpoints: on which disk. A new folder is made in this one, and removed "
    "at the end. The system's place for temporary files by default.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help="How many turns each contender takes on each model. More give narrower spreads. "
    f"{ROUNDS} by default, {CHECKPOINT_ROUNDS} with --checkpoints.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="How many threads steps use. torch's own number by default.",
)
@click.option(
    "--steps-only",
    is_flag=True,
    help="Leave out start-up and memory, which are measured in new processes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def bench(
    *,
    rules: tuple[str, ...],
    optimizers: tuple[str, ...],
    everything: bool,
    workloads: tuple[str, ...],
    schedulers: bool,
    checkpoints: bool,
    parameters: int | None,
    folder: Path | None,
    rounds: int | None,
    threads: int | None,
    steps_only: bool,
    as_json: bool,
) -> int:
    """Measure descend's steps beside torch.optim's, on this machine, in one run.

    Contenders take turns: descend, torch's default, foreach and fused implementations, and the
    streaming limit, which is a loop that only reads and writes what the optimizer has to, with one
    addition per value. Each figure is a median with its spread (half the distance between the
    quartiles); each comparison is made within every round, so that a machine that slows down slows
    both sides.

    FILE.py:CLASS is an update rule of your own: a subclass of descend.Optimizer in a Python file.
    It is measured with its defaults beside the streaming limit and, for scale, torch's fused AdamW.

    Also measured: imports and the first step, with an empty and with a filled cache, and the
    memory that a step takes on top. At the end stands each figure that descend promises, met or
    missed. A missed one does not change the exit status.

    --schedulers measures what a scheduler's step costs: beside torch's scheduler of the same name,
    beside pytorch_warmup's where that is installed, and as a share of a step of AdamW on 6 tensors.

    --checkpoints measures what it takes to save a model with AdamW's state until it is on the disk,
    to load and verify it, and for how long a background save holds a training up: beside
    torch.save, safetensors and torch.distributed.checkpoint.

    Ctrl-C ends the run; what was measured before it is printed.

    Everything is float32 on the CPU. Close other programs first.
    """
    of_optimizers = {
        "FILE.py:CLASS": rules,
        "--optimizer": optimizers,
        "--all": everything,
        "--workload": workloads,
        "--steps-only": steps_only,
    }
    if checkpoints:
        _refuse_beside("--checkpoints", {"--schedulers": schedulers, **of_optimizers})
        rounds = rounds or CHECKPOINT_ROUNDS
        return _bench_checkpoints(parameters or PARAMETERS, folder, rounds, threads, as_json)
    for option, given in {"--parameters": parameters, "--folder": folder}.items():
        if given is not None:
            raise click.UsageError(f"{option} is for --checkpoints: give both, or neither")
    rounds = rounds or ROUNDS
    if schedulers:
        _refuse_beside("--schedulers", of_optimizers)
        return _bench_schedulers(rounds, threads, as_json)
    from descend.bench import WORKLOADS, document, parts, run

    models = _choose(WORKLOADS, workloads, "--workload")
    cases = _cases(optimizers, everything=everything, rules=rules)
    start = not steps_only
    measurement = measured(
        partial(run, cases, models, rounds=rounds, threads=threads, start=start),
        parts(cases, models, start=start),
    )
    of = f"{len(cases) * len(models)} pairs of an optimizer and a model"
    return _tell(measurement, document, len(measurement.steps), of, as_json)


def _bench_schedulers(rounds: int, threads: int | None, as_json: bool) -> int:
    from descend.bench import run_schedulers, scheduler_cases, scheduler_document, scheduler_parts

    cases = scheduler_cases()
    total = len(scheduler_parts(cases))
    measurement = measured(partial(run_schedulers, cases, rounds=rounds, threads=threads), total)
    of = f"{total} pairs of a scheduler and what it drives"
    return _tell(measurement, scheduler_document, len(measurement.schedulers), of, as_json)


def _bench_checkpoints(
    parameters: int, folder: Path | None, rounds: int, threads: int | None, as_json: bool
) -> int:
    from descend.bench.checkpoints import checkpoint_document, checkpoint_parts, run_checkpoints

    measurement = measured(
        partial(run_checkpoints, parameters, rounds=rounds, folder=folder, threads=threads),
        checkpoint_parts(rounds),
    )
    of = f"{rounds} rounds"
    return _tell(measurement, checkpoint_document, measurement.rounds, of, as_json)


def _tell(
    measurement: _Measured,
    document: Callable[[_Measured], dict[str, Any]],
    done: int,
    of: str,
    as_json: bool,
) -> int:
    """Print what was measured, if anything was; the exit status."""
    if done and as_json:
        from descend.report import words

        click.echo(words.as_json(document(measurement)))
    elif done:
        from descend.cli.bench_tables import print_tables

        print_tables(measurement)
    if not measurement.interrupted:
        return 0
    before = f"; printed is what was measured before: {done} of {of}"
    nothing = " before anything was measured"
    click.echo(f"descend: interrupted{before if done else nothing}", err=True)
    return INTERRUPTED


def _refuse_beside(suite: str, options: Mapping[str, object]) -> None:
    for option, given in options.items():
        if given:
            raise click.UsageError(f"{suite} and {option} exclude each other: give one of the two")


def _cases(optimizers: Sequence[str], *, everything: bool, rules: Sequence[str]) -> list[Case]:
    """The cases to measure: the user's own rules, and those of the catalogue."""
    from descend.bench import SHORT, UNMEASURED, cases, find_case

    known = cases()
    if everything and optimizers:
        raise click.UsageError("--all and --optimizer exclude each other: give one of the two")
    for name in optimizers:
        if name in UNMEASURED:
            raise click.UsageError(f"--optimizer: {name} is not measured: {UNMEASURED[name]}")
        if is_own(name):
            raise click.UsageError(
                f"--optimizer: {name!r} is a file: give it without --optimizer, as "
                "descend bench FILE.py:CLASS"
            )
    for rule in rules:
        if rule in known:
            raise click.UsageError(
                f"{rule!r} is no FILE.py:CLASS; did you mean --optimizer {rule}?"
            )
    if everything or optimizers:
        chosen = _choose(known, optimizers, "--optimizer")
    else:
        chosen = [] if rules else [known[name] for name in SHORT if name in known]
    return [*map(find_case, dict.fromkeys(rules)), *chosen]


def _choose(known: Mapping[str, _Named], names: Sequence[str], option: str) -> list[_Named]:
    for name in names:
        if name not in known:
            raise click.UsageError(
                f"{option}: there is no {name!r}; choose from {', '.join(known)}"
            )
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())
