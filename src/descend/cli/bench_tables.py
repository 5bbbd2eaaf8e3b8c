"""The results of `descend bench`: as tables, and as plain data for JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from descend.bench import (
    CaseTimes,
    ChangeTimes,
    Measurement,
    StartUp,
    StepMemory,
    StepTimes,
    Timing,
    changing_targets,
    targets,
)
from descend.bench.changes import LINEAR
from descend.bench.packages import missing
from descend.cli.bench_output import Output, crossed, ratio, spread, titled
from descend.format import byte_size, duration, rounded_count

MODELS = [workload.name for workload in LINEAR]
"""The models that most changes are measured on."""


def step_entries(measurement: Measurement) -> dict[str, Any]:
    """The results of the steps as plain data.

    Args:
        measurement: of `step_parts`.
    """
    start = next(iter(measurement.of(StartUp)), None)
    return {
        "steps": [one.as_entry() for one in measurement.of(StepTimes)],
        "start_up": asdict(start) if start else None,
        "memory": [asdict(one) for one in measurement.of(StepMemory)],
    }


def changing_entries(measurement: Measurement) -> dict[str, Any]:
    """The results where something changes as plain data.

    Args:
        measurement: of `changing_parts`.
    """
    return {"changes": [one.as_entry() for one in measurement.of(ChangeTimes)]}


def step_tables(measurement: Measurement) -> Iterator[list[str]]:
    """The tables of the steps, of start-up, and of memory.

    Args:
        measurement: of `step_parts`.
    """
    found = measurement.of(StepTimes)
    workloads = dict.fromkeys(one.workload for one in found)
    for workload in workloads:
        yield _step_table(workload, [one for one in found if one.workload == workload])
    bests = {(one.case, one.workload): _best(one) for one in found if one.best_other}
    if bests:
        cases = dict.fromkeys(case for case, _ in bests)
        columns = [one for one in workloads if any(one == model for _, model in bests)]
        yield crossed("the best other over descend", "optimizer", cases, columns, bests)
    for start in measurement.of(StartUp):
        figures = {
            "import torch": start.import_torch,
            "import descend, after it": start.import_descend,
            "first step of adamw, empty cache": start.first_step_cold,
            "first step of adamw, filled cache": start.first_step_cached,
        }
        rows = [[name, spread(value)] for name, value in figures.items()]
        yield titled("start-up, each in a new process", ["what", "time"], rows)
    memory = measurement.of(StepMemory)
    if memory:
        yield crossed(
            f"extra memory of a step, {memory[0].workload}",
            "optimizer",
            dict.fromkeys(one.case for one in memory),
            dict.fromkeys(one.contender for one in memory),
            {
                (one.case, one.contender): "not measured"
                if one.extra_bytes is None
                else byte_size(one.extra_bytes)
                for one in memory
            },
        )


def _step_table(workload: str, steps: list[StepTimes]) -> list[str]:
    counts = _counts(max(steps, key=lambda one: one.tensors))
    lacking = dict.fromkeys(filter(None, (missing(one.case) for one in steps)))
    names = list(dict.fromkeys(timing.contender for one in steps for timing in one.timings))[1:]
    return titled(
        f"one step, {workload}: {counts}",
        ["optimizer", "descend", *names, "streaming limit"],
        [
            [
                one.case if _counts(one) == counts else f"{one.case}\n{_counts(one)}",
                f"{spread(one.timings[0].seconds)}\n{spread(one.constant.seconds)}",
                *map(_timing, map(one.timing, names)),
                _timing(one.limit),
            ]
            for one in steps
        ],
        "a step of the optimizer and one of its schedule, on new gradient tensors",
        "below descend's time: its step alone, at a constant lr",
        "below the others: their time over descend's; for the limit, descend's share",
        *(
            f"{package}, whose optimizers stand beside descend's, is not installed"
            for package in lacking
        ),
    )


def _counts(one: StepTimes) -> str:
    return f"{one.tensors} tensors, {rounded_count(one.parameters)} parameters"


def changing_tables(measurement: Measurement) -> Iterator[list[str]]:
    """The tables of the steps where something changes.

    Args:
        measurement: of `changing_parts`.
    """
    rows = measurement.of(ChangeTimes)
    for model in MODELS:
        found = {(one.about, one.case): _change(one) for one in rows if one.workload == model}
        if found:
            changes, cases = (dict.fromkeys(key[i] for key in found) for i in range(2))
            title = f"the best other over descend where something changes, {model}"
            yield crossed(title, "what changes", changes, cases, found)
    others = [one for one in rows if one.workload not in MODELS]
    if others:
        yield titled(
            "the same on other models",
            ["what changes", "model", "optimizer", "the best other over descend"],
            [[one.about, one.workload, one.case, _change(one)] for one in others],
        )
    wrong = dict.fromkeys((one.about, name) for one in rows for name in one.wrong)
    if wrong:
        yield titled(
            "other values than torch's default, or than descend where torch has none",
            ["what changes", "contender"],
            wrong,
        )


def _change(one: ChangeTimes) -> str:
    """The best other over descend; below, how long descend and the other take."""
    shared, of = (one.tensors, " a tensor") if one.first else (1, "")
    both = [timing for timing in (one.timings[0], one.best_other) if timing]
    taken = ", ".join(duration(timing.seconds.median / shared) for timing in both)
    return f"{_best(one)}\n{taken}{of}"


def _best(one: CaseTimes) -> str:
    best = one.best_other
    return f"{ratio(best.ratio)} {best.contender.removeprefix('torch ')}" if best else "-"


def _timing(timing: Timing | None) -> str:
    return "-" if timing is None else f"{spread(timing.seconds)}\n{ratio(timing.ratio)}"


STEPS = Output(
    step_entries,
    targets,
    step_tables,
    StepTimes,
    ("pair of an optimizer and a model", "pairs of an optimizer and a model"),
)
CHANGING = Output(
    changing_entries,
    changing_targets,
    changing_tables,
    ChangeTimes,
    ("change with an optimizer on a model", "changes with an optimizer on a model"),
)
