"""`descend bench`: options in, tables or JSON out. What is measured is in `descend.bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import click

from descend.cli.options import json_option, option
from descend.optimizer_lookup import is_own
from descend.spelling import hint

if TYPE_CHECKING:
    from descend.bench import Case

ROUNDS, CHANGING_ROUNDS = 21, 7

_Named = TypeVar("_Named")


@click.command(
    short_help="Measure step times beside torch's and beside what memory allows.",
    epilog="""\b
Examples:
  descend bench                                      the usual optimizers, a few minutes
  descend bench --all                                every one, several minutes
  descend bench --optimizer adamw                    one optimizer on all models
  descend bench muon --workload transformer          matrix products: a second a step
  descend bench my_file.py:MyRule                    an update rule of your own on all models
  descend bench --optimizer adamw --workload wide --steps-only
                                                     the quickest look at one figure
  descend bench --changing                           where something changes between steps
  descend bench --change experts --change frozen     two of these changes
  descend bench --json > bench.json                  for a program to read
""",
)
@click.argument("rules", metavar="[NAME|FILE.py:CLASS]...", nargs=-1)
@click.option(
    "--optimizer",
    "optimizers",
    multiple=True,
    metavar="NAME",
    help="An optimizer to measure, as it may be named without --optimizer too; may be repeated. By "
    "default: adagrad, adam, adamw, adamw-clip, which clips by global norm in each step, rmsprop, "
    "sgd, and sgd-momentum.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Measure the whole catalogue but what is no matter of memory: muon and soap, which are "
    "measured where they are named, and lbfgs and sparseadam, which never are.",
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
    "--changing",
    is_flag=True,
    help="Measure steps where something changes from one to the next instead: which parameters "
    "have gradients, their memory and layout, lr of many groups, the first step of an optimizer. "
    "With adamw, sgd-momentum and rmsprop by default, on 24 and on 450 tensors.",
)
@click.option(
    "--change",
    "changes",
    multiple=True,
    metavar="NAME",
    help="One of these changes; may be repeated: nothing, gradients, lr, random, lr-random, "
    "experts, heads, depth, alternating, frozen, swapped, transposed, channels-last, groups, "
    "first-step, sparse.",
)
@option(
    "--rounds",
    such=ROUNDS,
    help="How many turns each contender takes on each model. More give narrower spreads. "
    f"{ROUNDS} by default, {CHANGING_ROUNDS} with --changing.",
)
@option("--threads", such=1, help="How many threads steps use. torch's own number by default.")
@click.option(
    "--steps-only",
    is_flag=True,
    help="Leave out start-up and memory, which are measured in new processes.",
)
@json_option
def bench(
    *,
    rules: tuple[str, ...],
    optimizers: tuple[str, ...],
    everything: bool,
    workloads: tuple[str, ...],
    changing: bool,
    changes: tuple[str, ...],
    rounds: int | None,
    threads: int | None,
    steps_only: bool,
    as_json: bool,
) -> int:
    """Measure descend's steps beside torch.optim's, on this machine, in one run.

    A step is what a training runs: optimizer.step() and scheduler.step(), with another lr and new
    gradient tensors every time. Contenders take turns: descend; torch's default, foreach and fused
    implementations, or, where torch has none, the package in which its authors or others published
    one, if it is installed; and the streaming limit, which is a loop that only reads and writes
    what the optimizer has to, with one addition per value. Each figure is a median with its spread
    (half the distance between the quartiles); each comparison is made within every round, so that a
    machine that slows down slows both sides.

    FILE.py:CLASS is an update rule of your own: a subclass of descend.Optimizer in a Python file.
    It is measured with its defaults beside the streaming limit and, for scale, torch's fused AdamW.

    Also measured: imports and the first step, with an empty and with a filled cache, and the
    memory that a step takes on top. At the end stands each figure that descend promises, met or
    missed. A missed one does not change the exit status.

    --changing measures what trainings do to an optimizer between two steps: some parameters have
    no gradient, memory and layouts change, groups are many, an optimizer is new. A torch form that
    computes other values there than torch's default is left out, and named.

    Ctrl-C ends the run; what was measured before it is printed.

    Everything is float32 on the CPU. Close other programs first.
    """
    from descend.bench import CHANGES, WORKLOADS, changing_parts, measure_parts, step_parts
    from descend.cli.bench_output import run_and_print
    from descend.cli.bench_tables import CHANGING, STEPS

    names = (*rules, *optimizers)
    if changing or changes:
        own = any(map(is_own, names))
        others = {"FILE.py:CLASS": own, "--workload": workloads, "--steps-only": steps_only}
        for option, given in others.items():
            if given:
                raise click.UsageError(
                    f"--changing and {option} exclude each other: give one of the two"
                )
        cases = _cases(names, everything) if everything or names else []
        rounds = rounds or CHANGING_ROUNDS
        parts = changing_parts(_choose(CHANGES, changes, "--change"), cases, rounds)
        if not parts:
            (only,) = {CHANGES[name].only for name in changes}
            raise click.UsageError(f"--change {changes[0]} is measured with {', '.join(only)}")
        run = partial(measure_parts, parts, rounds=rounds, threads=threads)
        return run_and_print(run, len(parts), CHANGING, as_json, len(parts))
    models = _choose(WORKLOADS, workloads, "--workload")
    cases = _cases(names, everything)
    rounds = rounds or ROUNDS
    parts = step_parts(cases, models, rounds, start=not steps_only)
    run = partial(measure_parts, parts, rounds=rounds, threads=threads)
    return run_and_print(run, len(parts), STEPS, as_json, len(cases) * len(models))


def _cases(names: Sequence[str], everything: bool) -> list[Case]:
    """The cases to measure: the user's own rules, and those of the catalogue."""
    from descend.bench import ASKED_FOR, SHORT, UNMEASURED, cases, find_case

    known = cases()
    own = [name for name in names if is_own(name)]
    listed = [name for name in names if name not in own]
    if everything and listed:
        raise click.UsageError("--all and --optimizer exclude each other: give one of the two")
    for name in listed:
        if name in UNMEASURED:
            raise click.UsageError(f"--optimizer: {name} is not measured: {UNMEASURED[name]}")
    if listed:
        chosen = _choose(known, listed, "--optimizer")
    elif everything:
        chosen = [case for name, case in known.items() if name not in ASKED_FOR]
    else:
        chosen = [] if own else [known[name] for name in SHORT if name in known]
    return [*map(find_case, dict.fromkeys(own)), *chosen]


def _choose(known: Mapping[str, _Named], names: Sequence[str], option: str) -> list[_Named]:
    for name in names:
        if name not in known:
            raise click.UsageError(
                f"{option}: there is no {name!r}; {hint(name, known)}choose from {', '.join(known)}"
            )
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())
