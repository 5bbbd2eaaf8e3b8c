"""A search for the best hyperparameters of a task, on Optuna, that any kill leaves as it was.

Trials are asked for in generations of a fixed size, a new one when all of the last have been told,
and are told by number: so what comes out depends on the seed and on no number of processes. With
several commands on one search each has generations of its own.

A trial that is pruned is paused. When all have been asked for, those that the pruner would let
pass by then go on from their checkpoints.
"""

import os
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from descend.checkpoint.randomness import randomness_kept
from descend.checks import COUNT, COUNT_FROM_0, SEED
from descend.errors import SearchError
from descend.format import first_names, plain_text
from descend.schedules import parse
from descend.search.asked_trials import Asked
from descend.search.comparison import News
from descend.search.ends import train_ends
from descend.search.shared_search import TRIALS, WAIT, SharedSearch, held_alone
from descend.search.sought import AT_ONCE, RUNGS, Sought, checked_pruner
from descend.search.study_storage import need_optuna
from descend.search.trial import Record
from descend.search.tuning_results import (
    BEST,
    Confirmed,
    back_in_words,
    note_results,
    tuning_results,
)
from descend.search.workers import Workers, shared_out
from descend.spelling import spelled
from descend.training.task_run import is_highest_best

CONFIRMATION = "confirmation"


@dataclass(frozen=True)
class Tuning:
    """A search that is over.

    Args:
        folder: `report.html`, `results.json`, `BEST`, and the trials.
        results: the content of `results.json`: docs/tune.md has what each entry means.

    Example:
        >>> Tuning(Path("tune/my_task"), {"best": {"number": 7}}).results["best"]["number"]
        7

    Source: as for `tune`.
    """

    folder: Path
    results: dict[str, Any]


@spelled
@randomness_kept()
def tune(
    task: str | os.PathLike[str],
    space: str | Sequence[str] | Mapping[str, str],
    *,
    trials: int = 60,
    metric: str = "validation_loss",
    highest: bool | None = None,
    schedule: str | None = None,
    steps: int | None = None,
    pruner: str | None = None,
    seed: int = 0,
    seeds: int = 1,
    confirm: int = 5,
    at_once: int = AT_ONCE,
    jobs: int | None = None,
    threads: int = 1,
    storage: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    news: News | None = None,
) -> "Tuning":
    """Search for the hyperparameters with which a task is trained best.

    Optuna's TPE chooses the values of each trial from what the others came to, and its pruner
    pauses trials that are behind. Each is trained to the end of its own schedule before it is
    compared. The best is trained again on fresh seeds: part of its lead is luck. Killed, or
    stopped by Ctrl-C, the same call goes on and ends with the same results.

    Args:
        task: a file as `descend train` takes it; "" for the digits that ship.
        space: the values by name, such as {"lr": "log(1e-5,1e-1)", "hidden": "int(16,256)",
            "optimizer": "choice(adamw,lion)"}: of the task's function, of the optimizer, of the
            default schedule ("warmup" and "decay", fractions of the length), or "batch_size".
        trials: how many in all; those there are count.
        metric: that is compared, on the validation data.
        highest: whether more of it is better; None where its name tells.
        schedule: of the learning rate, in fractions of each training's length; "constant" for
            none. None: warmup, constant, and a linear decay to zero.
        steps: of a training; None for the task's own epochs.
        pruner: "halving", "median", or "none"; with several seeds "wilcoxon" or "none".
        seed: of the search and of its trainings.
        seeds: how many trainings each trial has, with this seed and those after it.
        confirm: on how many fresh seeds the best is trained again.
        at_once: how many trials are chosen before the next are told.
        jobs: how many trainings run at once; None for as many as there are processors.
        threads: of each training.
        storage: a journal file or the URL of a database, where several machines search together;
            None for SQLite in the folder.
        folder: of the search; None for one named after the task and the space.
        news: hears how it goes; None: nobody does.

    Returns:
        The results, and the folder with them and the page.

    Raises:
        SearchError: it cannot be made so, the storage cannot be used, or every trial fails.
        OutputError: the folder cannot be written.
        KeyboardInterrupt: on Ctrl-C, when all is saved.

    Example:
        >>> found = tune("", {"lr": "log(1e-3,1e-1)"}, trials=2, steps=5, confirm=0, jobs=1)
        >>> found.results["trials"][0]["params"]
        {'lr': 0.001}

    Source: T. Akiba et al., Optuna, KDD 2019, https://arxiv.org/abs/1907.10902; L. Li et al., A
    system for massively parallel hyperparameter tuning, MLSys 2020.
    """
    need_optuna()
    texts = [f"{name}={text}" for name, text in space.items()] if isinstance(
        space, Mapping) else [space] if isinstance(space, str) else [*space]  # fmt: skip
    full = metric if metric.startswith("val") else f"validation_{metric}"
    seeds = COUNT.check("seeds", seeds, SearchError)
    sought = Sought(
        str(task), tuple(texts), full, is_highest_best(full, highest, f"--metric {metric}"),
        schedule if schedule in (None, "constant") else str(parse(str(schedule))),
        None if steps is None else COUNT.check("steps", steps, SearchError),
        checked_pruner(pruner, seeds),
        SEED.check("seed", seed, SearchError), seeds,
        COUNT.check("at_once", at_once, SearchError),
        COUNT.check("threads", threads, SearchError),
    )  # fmt: skip
    count = COUNT.check("trials", trials, SearchError)
    fresh = COUNT_FROM_0.check("confirm", confirm, SearchError)
    number = shared_out(None if jobs is None else COUNT.check("jobs", jobs, SearchError), threads)
    place = Path(folder) if folder is not None else sought.folder
    shared = SharedSearch(place, storage, sought.options, sought.command.files, sought.highest)
    news = news or News()
    for line in shared.doubts:
        news.say(f"warning: {line}")
    try:
        with Workers[Any](number, threads) as workers:
            search = _Search(sought, shared, workers, news, count)
            try:
                search.run()
                return Tuning(place, search.finish(fresh))
            except (KeyboardInterrupt, SystemExit):
                for line in search.in_words():
                    news.say(line)
                raise
    finally:
        shared.close()


def train_from(found: Tuning) -> str:
    """The command that trains the best of a search, to the bit."""
    task, threads = found.results["task"]["file"], found.results["search"]["threads"]
    words = ["descend", "train", *([task] if task else []), "--from", str(found.folder / BEST)]
    return shlex.join([*words, "--threads", str(threads)])


class _Search:
    """A search as one process works on it."""

    def __init__(
        self, sought: Sought, shared: SharedSearch, workers: Workers[Any], news: News, count: int
    ) -> None:
        self.sought, self.shared, self.workers = sought, shared, workers
        self.news, self.count, self.judge = news, count, sought.judge
        self.known: list[Asked] = []

    def run(self) -> None:
        """Work until nothing is left to do."""
        while True:
            with self.shared.changing():
                trials = self.shared.trials()
                batch = self._next(trials)
                known = {one.number: one for one in [*trials, *(batch or [])]}
                self._show([*known.values()])
            if batch is None:
                return
            if batch:
                self._train({one.number for one in batch})
            else:
                self.news.show("waiting for what other processes train")
                time.sleep(WAIT)

    def _next(self, trials: list[Asked]) -> list[Asked] | None:
        """The trials to train next; none where others still train, None where nothing is left."""
        orphaned = self.shared.orphaned(trials)
        if orphaned:
            generation = orphaned[0].generation
            batch = [one for one in orphaned if one.generation == generation]
            for one in batch:
                self.shared.claim(one)
            there = [one for one in trials if one.generation == generation]
            missing = there[0].size - len(there)  # where the process died while it asked
            if missing and there[0].begun:
                batch += self._open(trials, generation)
            elif missing:
                size = min(there[0].size, len(there) + self.count - len(trials))
                batch += self._ask(trials, generation, size, size - len(there))
            return batch
        new = max((one.generation for one in trials), default=-1) + 1
        if len(trials) < self.count:
            size = min(self.sought.at_once, self.count - len(trials))
            return self._ask(trials, new, size, size)
        if any(one.state == "running" for one in trials):
            return []
        return self._open(trials, new) or None

    def _ask(self, trials: list[Asked], generation: int, size: int, count: int) -> list[Asked]:
        """New trials, which this process trains."""
        batch: list[Asked] = []
        for number in range(len(trials), len(trials) + count):
            ask = self.judge.ask([*trials, *batch], number)
            one = Asked(number, ask.params, ask.distributions, "running",
                        generation=generation, size=size)  # fmt: skip
            self.shared.add(one)
            batch.append(one)
        return batch

    def _open(self, trials: list[Asked], generation: int) -> list[Asked]:
        """Paused trials that the pruner lets pass by now: they go on."""
        asleep = [
            replace(one, state="paused") if one.generation == generation else one for one in trials
        ]
        opened = [
            one
            for one in asleep
            if one.state == "paused" and not self.judge.prunes(asleep, one, max(one.values))
        ]
        there = {one.number for one in trials if one.generation == generation}
        batch = [
            replace(one, generation=generation, size=len(opened), begun=max(one.values))
            for one in opened
            if one.number not in there
        ]
        for one in batch:
            self.shared.add(one)
            self.news.say(f"trial {one.number} goes on: it would not be paused by now")
        return batch

    def _train(self, numbers: set[int]) -> None:
        """Train trials from rung to rung, as far as each goes."""
        for rung in self.judge.rungs:
            with self.shared.changing():
                living = self._living(self.shared.trials(), numbers)
                self.shared.beat(living)
            if not living:
                return
            work = {
                one.number: (train_ends, self._work(one, rung))
                for one in living
                if rung not in one.values
            }
            records: dict[int, Record] = {}
            for number, ends in self.workers.run(work):
                records[number] = ends[-1]
                self.news.show(f"generation of {len(numbers)}: {len(records)} of {len(work)}")
            with self.shared.changing():
                trials = self.shared.trials()
                self._refuse_failing(trials, records)
                self._tell(trials, self._living(trials, numbers), rung, records)
                self._show(trials)
        self.shared.beat([])

    def _living(self, trials: list[Asked], numbers: set[int]) -> list[Asked]:
        me = self.shared.me
        return [
            one for one in trials
            if one.number in numbers and one.state == "running" and one.owner == me
        ]  # fmt: skip

    def _work(self, one: Asked, rung: int) -> tuple[Any, ...]:
        """The arguments of `train_ends` for a trial up to a rung."""
        sought, place = self.sought, self.shared.folder / TRIALS / f"{one.number:04}"
        seed = sought.seed + (rung - 1 if sought.seeds > 1 else 0)
        trial, parts = sought.trial(one.params, seed)
        length = trial.steps
        if sought.seeds > 1:
            place = place / f"seed-{seed}"
        else:
            length = max(1, length * rung // RUNGS[-1])
        return trial, [length], place, sought.shape, sought.metric, parts

    def _tell(
        self, trials: list[Asked], living: list[Asked], rung: int, records: Mapping[int, Record]
    ) -> None:
        """Note what trials came to at a rung, and pause those that are behind: by number."""
        for one in living:
            record = records.get(one.number)
            if record is None:  # known before
                continue
            if record.error:
                self.shared.end(one, "failed", why=record.error)
            elif record.value is None:
                self.shared.end(one, "diverged", why=record.diverged)
            else:
                self.shared.report(one, rung, record.value, record.start)
        left = [one for one in living if one.state == "running" and max(one.values) == rung]
        if rung == self.judge.rungs[-1]:
            for one in left:
                counted = [*one.values.values()] if self.sought.seeds > 1 else [one.values[rung]]
                self.shared.end(one, "done", value=float(np.mean(counted)))
        else:
            behind = [one for one in left
                      if rung > one.begun and self.judge.prunes(trials, one, rung)]  # fmt: skip
            for one in behind:
                self.shared.end(one, "paused")
        for one in living:
            if one.state != "running":
                self.news.say(self._line(one, trials))

    def _refuse_failing(self, trials: list[Asked], records: Mapping[int, Record]) -> None:
        """Stop where all of the first trials fail: it is not their values that are wrong."""
        failed = [number for number, record in records.items() if record.error]
        learned = any(one.values or one.state in ("diverged", "done") for one in trials)
        if len(failed) < len(records) or not failed or learned:
            return
        for number in failed:  # they are trained again when the same command goes on
            shutil.rmtree(self.shared.folder / TRIALS / f"{number:04}", ignore_errors=True)
        raise SearchError(
            f"all of the first {len(failed)} trials failed: {records[failed[0]].error}"
        )

    def best(self, trials: Sequence[Asked]) -> Asked | None:
        """The best of the trials that are done, the first of equals."""
        found: Asked | None = None
        for one in trials:
            if one.state == "done" and one.value is not None and (
                found is None or found.value is None or self.judge.better(one.value, found.value)
            ):  # fmt: skip
                found = one
        return found

    def _line(self, one: Asked, trials: Sequence[Asked]) -> str:
        """How a trial has ended, in a line."""
        values = ", ".join(f"{name} {plain_text(value)}" for name, value in one.params.items())
        if one.state == "done":
            best = self.best(trials)
            mark = ", the best so far" if best is not None and best.number == one.number else ""
            how = f"{one.value:.5g}{mark}"
        elif one.state == "paused":
            rung = max(one.values)
            part = f"{rung} of {self.sought.seeds} seeds" if self.sought.seeds > 1 else f"{rung}/9"
            how = f"{one.values[rung]:.5g} after {part}, paused"
        else:
            how = f"{one.state}: {one.why}"
        return f"trial {one.number}: {how} ({values})"

    def _show(self, trials: Sequence[Asked]) -> None:
        """Show how far the search is."""
        self.known = [*trials]
        done = sum(one.state != "running" for one in trials)
        best = self.best(trials)
        text = f"{done} of {self.count} trials"
        if best is not None:
            text += f", the best {best.value:.5g}"
        self.news.show(text, done, max(self.count, len(trials)))

    def in_words(self) -> list[str]:
        """The outcome up to now, and what comes next."""
        best, me = self.best(self.known), self.shared.me
        over = sum(one.state != "running" for one in self.known)
        lines = [f"known so far: {over} of {self.count} trials"]
        if best is not None:
            lines.append(f"  the best: {self._line(best, [])}")
        mine = [str(one.number) for one in self.known
                if one.state == "running" and one.owner == me]  # fmt: skip
        what = f"trials {first_names(mine, 8)} go on" if mine else "the best on fresh seeds"
        return [*lines, f"next: {what}; the same command goes on"]

    def finish(self, fresh: int) -> dict[str, Any]:
        """Train the best on fresh seeds, and write what was found; every process does."""
        self.news.show("the best on fresh seeds")
        place = self.shared.folder / CONFIRMATION
        place.mkdir(exist_ok=True)
        with held_alone(place):
            with self.shared.changing():
                trials = self.shared.trials()
            best = self.best(trials)
            confirmed = None if best is None else self._confirmed(best, fresh)
            trial = None if best is None else self.sought.trial(best.params, self.sought.seed)[0]
            found = tuning_results(self.sought, trials, best, trial, confirmed)
            note_results(self.shared.folder, found, trial)
            if best is not None:
                self._draw(found, trials)
        if best is None:
            ends = ", ".join(sorted({one.state for one in trials}))
            raise SearchError(
                f"none of the {len(trials)} trials came to its end ({ends}); the last: "
                f"{trials[-1].why}; give a space of smaller learning rates, or mend the task"
            )
        return found

    def _draw(self, found: Mapping[str, Any], trials: Sequence[Asked]) -> None:
        """Write the page."""
        from descend.report.tuning_page import write_page

        several = self.sought.seeds > 1
        whole, there, rung = self.judge.shown(trials)
        if several:
            at = f"with seed {self.sought.seed + rung - 1}"
        else:
            at = "at the end" if rung == RUNGS[-1] else f"after {rung}/{RUNGS[-1]} of the length"
        words = {
            "command": train_from(Tuning(self.shared.folder, dict(found))),
            "back": back_in_words(found),
            "rungs": "seeds" if several else "ninths of the length",
            "at": at,
        }
        write_page(self.shared.folder, found, whole, there, words)

    def _confirmed(self, best: Asked, fresh: int) -> Confirmed:
        first = self.sought.seed + self.sought.seeds
        work = {}
        for seed in range(first, first + fresh):
            trial, parts = self.sought.trial(best.params, seed)
            place = self.shared.folder / CONFIRMATION / f"{best.number:04}-seed-{seed}"
            work[seed] = train_ends, (
                trial, [trial.steps], place, self.sought.shape, self.sought.metric, parts
            )  # fmt: skip
        records = {}
        for seed, ends in self.workers.run(work):
            records[seed] = ends[-1]
            self.news.show("the best on fresh seeds", len(records), fresh)
        return Confirmed({seed: records[seed].value for seed in sorted(records)})
