"""`descend bench`: options in, tables or JSON out. What is measured is in `descend.bench`."""

from __future__ import annotations

import json as json_format
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from descend.bench import (
        Machine,
        Measurement,
        SchedulerMeasurement,
        SchedulerTimes,
        Spread,
        StepTimes,
        Target,
        Timing,
    )
    from descend.bench.checkpoints import CheckpointMeasurement, CheckpointTimes

NARROWEST = 100
"""The columns of text that tables may use where the output is no terminal."""

INTERRUPTED = 130

ROUNDS, CHECKPOINT_ROUNDS = 21, 7
PARAMETERS = 100_000_000
SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}

_Named = TypeVar("_Named")


def _count_of(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Read a number such as 100M."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", value)
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
  descend bench --all                                every one, a quarter of an hour
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
    of_checkpoints = {"--parameters": parameters, "--folder": folder}
    if checkpoints:
        _refuse_beside("--checkpoints", {"--schedulers": schedulers, **of_optimizers})
        rounds = rounds or CHECKPOINT_ROUNDS
        return _bench_checkpoints(
            parameters or PARAMETERS, folder, rounds, threads, as_json=as_json
        )
    for option, given in of_checkpoints.items():
        if given is not None:
            raise click.UsageError(f"{option} is for --checkpoints: give both, or neither")
    rounds = rounds or ROUNDS
    if schedulers:
        _refuse_beside("--schedulers", of_optimizers)
        return _bench_schedulers(rounds, threads, as_json=as_json)
    from descend.bench import WORKLOADS, document, find_case, parts, run

    names = _case_names(optimizers, everything=everything, rules=rules)
    chosen_workloads = _choose(WORKLOADS, workloads, "--workload")
    chosen_cases = [find_case(name) for name in (*dict.fromkeys(rules), *names)]
    total = parts(chosen_cases, chosen_workloads, start=not steps_only)
    with _progress(total) as progress:
        measurement = run(
            chosen_cases,
            chosen_workloads,
            rounds=rounds,
            threads=threads,
            start=not steps_only,
            progress=progress,
        )
        if not measurement.interrupted:
            progress("done")
    if measurement.interrupted and not measurement.steps:
        return _interrupted(0, "")
    if as_json:
        click.echo(json_format.dumps(document(measurement), indent=2))
    else:
        _print(measurement)
    if measurement.interrupted:
        pairs = len(chosen_cases) * len(chosen_workloads)
        return _interrupted(len(measurement.steps), f"{pairs} pairs of an optimizer and a model")
    return 0


def _bench_schedulers(rounds: int, threads: int | None, *, as_json: bool) -> int:
    from descend.bench import (
        run_schedulers,
        scheduler_cases,
        scheduler_document,
        scheduler_parts,
    )

    cases = scheduler_cases()
    total = len(scheduler_parts(cases))
    with _progress(total) as progress:
        measurement = run_schedulers(cases, rounds=rounds, threads=threads, progress=progress)
        if not measurement.interrupted:
            progress("done")
    done = len(measurement.schedulers)
    if done and as_json:
        click.echo(json_format.dumps(scheduler_document(measurement), indent=2))
    elif done:
        _print_schedulers(measurement)
    if measurement.interrupted:
        return _interrupted(done, f"{total} pairs of a scheduler and what it drives")
    return 0


def _bench_checkpoints(
    parameters: int, folder: Path | None, rounds: int, threads: int | None, *, as_json: bool
) -> int:
    from descend.bench.checkpoints import checkpoint_document, checkpoint_parts, run_checkpoints

    with _progress(checkpoint_parts(rounds)) as progress:
        measurement = run_checkpoints(
            parameters, rounds=rounds, folder=folder, threads=threads, progress=progress
        )
        if not measurement.interrupted:
            progress("done")
    done = measurement.rounds
    if done and as_json:
        click.echo(json_format.dumps(checkpoint_document(measurement), indent=2))
    elif done:
        _print_checkpoints(measurement)
    return _interrupted(done, f"{rounds} rounds") if measurement.interrupted else 0


def _interrupted(done: int, of: str) -> int:
    """Say how far a run came; its exit status."""
    words = (
        f"; printed is what was measured before: {done} of {of}"
        if done
        else " before anything was measured"
    )
    click.echo(f"descend: interrupted{words}", err=True)
    return INTERRUPTED


def _refuse_beside(suite: str, options: Mapping[str, object]) -> None:
    for option, given in options.items():
        if given:
            raise click.UsageError(f"{suite} and {option} exclude each other: give one of the two")


def _case_names(optimizers: Sequence[str], *, everything: bool, rules: Sequence[str]) -> list[str]:
    """The cases of the catalogue to measure."""
    from descend.bench import SHORT, UNMEASURED, cases

    known = cases()
    if everything and optimizers:
        raise click.UsageError("--all and --optimizer exclude each other: give one of the two")
    for name in optimizers:
        if name in UNMEASURED:
            raise click.UsageError(f"--optimizer: {name} is not measured: {UNMEASURED[name]}")
        if ":" in name or name.endswith(".py"):
            raise click.UsageError(
                f"--optimizer: {name!r} is a file: give it without --optimizer, as "
                "descend bench FILE.py:CLASS"
            )
    for rule in rules:
        if rule in known:
            raise click.UsageError(
                f"{rule!r} is no FILE.py:CLASS; did you mean --optimizer {rule}?"
            )
    if everything:
        return list(known)
    if optimizers:
        return [case.name for case in _choose(known, optimizers, "--optimizer")]
    return [] if rules else [name for name in SHORT if name in known]


def _choose(known: Mapping[str, _Named], names: Sequence[str], option: str) -> list[_Named]:
    for name in names:
        if name not in known:
            raise click.UsageError(
                f"{option}: there is no {name!r}; choose from {', '.join(known)}"
            )
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    # Refreshed by hand: a thread that redraws the bar would disturb what is timed.
    with Progress(
        *columns, console=console, disable=not console.is_terminal, auto_refresh=False
    ) as bar:
        task = bar.add_task("starting", total=total)
        begun = -1

        def progress(words: str) -> None:
            nonlocal begun
            begun += 1
            bar.update(task, description=words, completed=begun, refresh=True)

        yield progress


def _print(measurement: Measurement) -> None:
    from descend.bench import targets

    _print_tables(
        measurement,
        (
            *_step_tables(measurement),
            *_best_tables(measurement),
            *_start_up_tables(measurement),
            *_memory_tables(measurement),
            *_target_tables(targets(measurement)),
        ),
    )


def _print_schedulers(measurement: SchedulerMeasurement) -> None:
    from descend.bench import scheduler_targets

    promised = _target_tables(scheduler_targets(measurement))
    _print_tables(measurement, (*_scheduler_tables(measurement), *promised))


def _print_checkpoints(measurement: CheckpointMeasurement) -> None:
    from descend.bench.checkpoints import checkpoint_targets

    _print_tables(
        measurement,
        (*_checkpoint_tables(measurement), *_target_tables(checkpoint_targets(measurement))),
    )


def _print_tables(
    measurement: Measurement | SchedulerMeasurement | CheckpointMeasurement,
    tables: Sequence[Table],
) -> None:
    """Where and with what it was measured, and the tables."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=NARROWEST)
    where: Machine = measurement.machine
    load = "" if where.load is None else f", load {where.load:.1f} before"
    console.print(
        f"{where.processor}, {where.cores} cores, {where.threads} threads{load}\n"
        f"{where.system}, Python {where.python}, torch {where.torch}, numba {where.numba}, "
        f"descend {where.descend}\n"
        f"{where.dtype}, {measurement.rounds} rounds, {measurement.seconds:.0f} s",
        highlight=False,
    )
    if where.busy:
        console.print(
            "[yellow]The machine was busy: these figures mean little, and torch's suffer most, "
            "because its threads wait for each other by spinning.[/]"
        )
    for table in tables:
        console.print()
        console.print(table)


def _step_tables(measurement: Measurement) -> Iterator[Table]:
    for workload in dict.fromkeys(steps.workload for steps in measurement.steps):
        rows = [steps for steps in measurement.steps if steps.workload == workload]
        names = list(dict.fromkeys(timing.contender for steps in rows for timing in steps.timings))
        counts = f"{rows[0].tensors} tensors, {_count(rows[0].parameters)} parameters"
        title = f"one step, {workload}: {counts}"
        table = _table(title, ["optimizer", *names, "streaming limit"])
        table.caption = "below each time: that time over descend's; for the limit, descend's share"
        for steps in rows:
            cells = [_timing(steps.timing(name), own=name == names[0]) for name in names]
            table.add_row(steps.case, *cells, _timing(steps.limit))
        yield table


def _best_tables(measurement: Measurement) -> Iterator[Table]:
    rows = [steps for steps in measurement.steps if steps.best_torch]
    if not rows:
        return
    workloads = list(dict.fromkeys(steps.workload for steps in rows))
    table = _table("torch's best over descend", ["optimizer", *workloads])
    for case in dict.fromkeys(steps.case for steps in rows):
        found = {steps.workload: steps for steps in rows if steps.case == case}
        table.add_row(case, *(_best(found.get(workload)) for workload in workloads))
    yield table


def _scheduler_tables(measurement: SchedulerMeasurement) -> Iterator[Table]:
    for form in dict.fromkeys(one.form for one in measurement.schedulers):
        rows = [one for one in measurement.schedulers if one.form == form]
        columns = ["scheduler", "descend", "torch", "torch over descend"]
        shares = any(one.share for one in rows)
        if shares:
            columns.append("share of AdamW")
        table = _table(f"one step of a scheduler, {form}", columns)
        notes = []
        if shares:
            notes.append("the share is descend's, of a step of its AdamW on 6 tensors")
        if any(one.beside != "torch" for one in rows):
            notes.append("in brackets: what stands in the place of torch")
        table.caption = "\n".join(notes)
        for one in rows:
            table.add_row(*_scheduler_row(one)[: len(columns)])
        yield table


def _scheduler_row(one: SchedulerTimes) -> list[str]:
    name = one.case if one.beside == "torch" else f"{one.case} ({one.beside})"
    share = "-" if one.share is None else f"{one.share.median:.0%} {_noise(one.share)}"
    return [name, _spread(one.ours), _spread(one.theirs), _ratio(one.ratio), share]


def _checkpoint_tables(measurement: CheckpointMeasurement) -> Iterator[Table]:
    kind = f" ({measurement.filesystem})" if measurement.filesystem else ""
    size = f"{_size(measurement.state_bytes)} in {measurement.tensors} tensors"
    table = _table(
        f"{_count(measurement.parameters)} parameters with AdamW's state: {size}",
        ["way", "save", "over torch", "size", "load", "over torch"],
    )
    notes = [
        f"a save ends when all is on the disk of {measurement.folder}{kind}",
        "a load is from the page cache to new memory; distributed fills tensors that are there",
        "only descend verifies; safetensors and mmap read the values later, when they are used",
    ]
    if measurement.in_memory:
        notes[0] += "\n[yellow]which is memory and no disk: saves cost less than on one[/]"
    table.caption = "\n".join(notes)
    for one in measurement.checkpoints:
        table.add_row(*_checkpoint_row(one))
    yield table
    table = _table("how long a save of a run holds it up", ["what", "held up", "share", "done"])
    table.caption = "share: of a blocking save; done: when it is on the disk"
    for save in measurement.run_saves:
        share = f"{save.ratio.median:.0%} {_noise(save.ratio)}"
        table.add_row(save.save, _spread(save.blocked), share, _spread(save.done))
    yield table


def _checkpoint_row(one: CheckpointTimes) -> list[str]:
    own = one.way == "torch"
    save_ratio = "-" if own or one.save_ratio is None else _ratio(one.save_ratio)
    size = "-" if one.bytes is None else _size(one.bytes)
    load_ratio = "-" if own else _ratio(one.load_ratio)
    return [one.way, _spread(one.save), save_ratio, size, _spread(one.load), load_ratio]


def _start_up_tables(measurement: Measurement) -> Iterator[Table]:
    start = measurement.start_up
    if start is None:
        return
    table = _table("start-up, each in a new process", ["what", "time"])
    for name, value in (
        ("import torch", start.import_torch),
        ("import descend, after it", start.import_descend),
        ("first step of adamw, empty cache", start.first_step_cold),
        ("first step of adamw, filled cache", start.first_step_cached),
    ):
        table.add_row(name, _spread(value))
    yield table


def _memory_tables(measurement: Measurement) -> Iterator[Table]:
    if not measurement.memory:
        return
    names = list(dict.fromkeys(one.contender for one in measurement.memory))
    title = f"extra memory of a step, {measurement.memory[0].workload}"
    table = _table(title, ["optimizer", *names])
    for case in dict.fromkeys(one.case for one in measurement.memory):
        found = {one.contender: one for one in measurement.memory if one.case == case}
        table.add_row(
            case,
            *(_size(found[name].extra_bytes) if name in found else "-" for name in names),
        )
    yield table


def _target_tables(found: Sequence[Target]) -> Iterator[Table]:
    if all(target.measured is None for target in found):  # a user's own rule alone
        return
    table = _table("what descend promises", ["figure", "measured", "target", "status"])
    colours = {"met": "green", "missed": "red", "not measured": "dim"}
    for target in found:
        if target.unit == "s":
            measured, wanted = _spread(target.measured), f"< {_seconds(target.target)}"
        else:
            sign = "<=" if target.unit == "x at most" else ">="
            measured, wanted = _ratio(target.measured), f"{sign} {target.target:g}x"
        if target.within_noise:
            wanted += " within noise"
        status = target.status
        of = target.of[0] if len(target.of) == 1 else f"{len(target.of)} optimizers"
        name = f"{target.name} ({of})" if target.of else target.name
        table.add_row(name, measured, wanted, f"[{colours[status]}]{status}[/]")
    yield table


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    return table


def _best(steps: StepTimes | None) -> str:
    if steps is None or steps.best_torch is None:
        return "-"
    return f"{_ratio(steps.best_torch.ratio)} {steps.best_torch.contender.removeprefix('torch ')}"


def _timing(timing: Timing | None, *, own: bool = False) -> str:
    if timing is None:
        return "-"
    below = "" if own else f"\n{_ratio(timing.ratio)}"
    return _spread(timing.seconds) + below


def _spread(value: Spread | None) -> str:
    return "-" if value is None else f"{_seconds(value.median)} {_noise(value)}"


def _ratio(value: Spread | None) -> str:
    return "-" if value is None else f"{_digits(value.median)}x {_noise(value)}"


def _noise(value: Spread) -> str:
    return f"±{value.noise:.0%}"


def _seconds(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{_digits(seconds * factor)} {unit}"
    return f"{_digits(seconds * 1e9)} ns"


def _digits(value: float) -> str:
    """Three significant digits, never in exponent form."""
    whole = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:.{min(3, max(0, 3 - whole))}f}"


def _count(number: int) -> str:
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{_digits(number / factor)} {unit}"
    return str(number)


def _size(amount: int | None) -> str:
    return "not measured" if amount is None else f"{amount / (1 << 20):.1f} MiB"
