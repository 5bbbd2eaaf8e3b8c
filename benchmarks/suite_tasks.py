"""AdamW on the tasks of `descend compare --suite small`: `python benchmarks/suite_tasks.py`.

Each task is trained with AdamW's defaults at a constant lr, and at larger lrs with a warmup and a
decay to zero, at the full length and at half of it. Printed is the validation loss at the end: mean
and standard deviation over the seeds. Lengths and sizes of the tasks were chosen by this table: the
defaults have not converged, and a tuned lr has their loss in about half the steps. Ten minutes.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from descend.search.ends import schedule_text
from descend.search.suite import suite_tasks
from descend.search.trial import Record, Trial, train_trial
from descend.search.workers import Workers
from descend.training.task import Task, sample_count
from descend.training.task_file import seeded_task

DEFAULT = 1e-3
TIMES = (2, 4, 8, 16)
PARTS = (1.0, 0.5)
Key = tuple[int, float, int]  # times the default lr (1: constant, the others decay), part, seed


def trials(path: Path, length: int, seeds: Sequence[int]) -> Iterator[tuple[Key, Trial]]:
    """All trainings of a task."""
    for seed in seeds:
        yield (1, 1.0, seed), Trial(str(path), {}, "adamw", DEFAULT, {}, {}, length, seed)
        for times in TIMES:
            for part in PARTS:
                steps = round(part * length)
                schedules = {"lr": schedule_text(None, length, steps)}
                lr = times * DEFAULT
                yield (
                    (times, part, seed),
                    Trial(str(path), {}, "adamw", lr, {}, schedules, steps, seed),
                )


def measured(path: Path, seeds: Sequence[int], jobs: int) -> Iterator[str]:
    """Train a task in all ways; the lines to print.

    Raises:
        RuntimeError: the task failed.
    """
    task = seeded_task(path, {}, 0)
    assert isinstance(task, Task)
    length = task.epochs * -(-sample_count(task.train) // task.batch_size)
    with tempfile.TemporaryDirectory() as folder, Workers[Key](jobs) as workers:
        work = {
            key: (train_trial, (trial, Path(folder, trial.name)))
            for key, trial in trials(path, length, seeds)
        }
        records: dict[Key, Record] = dict(workers.run(work))
    for one in records.values():
        if one.error:
            raise RuntimeError(f"{path.stem}: {one.error}")
    parameters = sum(one.numel() for one in task.model.parameters())
    seconds = min(one.processor_seconds for key, one in records.items() if key[0] == 1)
    yield f"{path.stem}: {parameters:,} parameters, {length:,} steps, {seconds:.1f} s a training"
    yield f"  defaults, constant  {_cell(records, 1, 1.0)}"
    for times in TIMES:
        cells = [f"{part:3g} of the steps {_cell(records, times, part)}" for part in PARTS]
        yield f"  {times:2} times, decay    {'   '.join(cells)}"


def _cell(records: dict[Key, Record], times: int, part: float) -> str:
    values = [one.value for key, one in records.items() if key[:2] == (times, part)]
    ended = [one for one in values if one is not None]
    if len(ended) < len(values):
        return f"{len(values) - len(ended)} of {len(values)} diverged"
    spread = statistics.stdev(ended) if len(ended) > 1 else 0
    return f"{statistics.mean(ended):.5f} +- {spread:.5f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    known = suite_tasks()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", choices=known, default=[*known], metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3], metavar="N")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="each on one thread")
    asked = parser.parse_args(arguments)
    for name in asked.tasks:
        for line in measured(known[name], asked.seeds, asked.jobs):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
