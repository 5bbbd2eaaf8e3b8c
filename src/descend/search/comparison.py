"""A comparison of optimizers on a task, each at its best, at equal budget."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descend.checkpoint.randomness import randomness_kept
from descend.checkpoint.series import FOLDER
from descend.checks import COUNT, SEED, Range
from descend.errors import DescendError, SearchError
from descend.run.lock import LOCK, lock
from descend.run.run_folder import default_folder, prepare_folder
from descend.schedules import parse
from descend.search.budget import ENDS, make_plan, read_budget
from descend.search.comparison_results import State, comparison_results
from descend.search.contender import BASELINE, Contender, read_contenders
from descend.search.ends import train_ends
from descend.search.halving import Candidate, Search, halve
from descend.search.json_file import read_json, write_json
from descend.search.question import Question
from descend.search.statistics import scipy_stats, seeds_needed
from descend.search.step_times import measured_times
from descend.search.trial import RECORD, made_ready, train_trial
from descend.search.workers import Work, Workers, shared_out
from descend.spelling import spelled
from descend.training.task_file import task_file
from descend.training.task_run import is_highest_best

ASKED = "compare.json"
RESULTS, TIMING, BEST, TRIALS = "results.json", "timing.json", "BEST", "trials"
START = 0.03  # seconds that a training takes beside its steps: it is built, saved, measured


PAGE, PICTURE = "report.html", "comparison.png"


class News:
    """Hears how a comparison goes: override the methods whose news is to be shown."""

    def say(self, line: str) -> None:
        """Hear a line, once."""

    def show(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Hear how far it is."""


@dataclass(frozen=True)
class Comparison:
    """A comparison that is over.

    Args:
        folder: `report.html`, `comparison.png`, `results.json`, and the trials.
        results: the content of `results.json`: docs/compare.md has what each entry means.

    Example:
        >>> print(Comparison(Path("out"), {"sentence": "lion wins.", "command": "descend ..."}))
        lion wins.
        descend ...

    Source: as for `compare`.
    """

    folder: Path
    results: dict[str, Any]

    def __str__(self) -> str:
        """The answer in a sentence, and the command."""
        return f"{self.results['sentence']}\n{self.results['command']}"


@spelled
@randomness_kept()
def compare(
    task: str | os.PathLike[str] = "",
    contenders: Sequence[str] = (),
    *,
    budget: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    metric: str = "validation_loss",
    highest: bool | None = None,
    schedule: str | None = None,
    weight_decay: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    seeds: int | None = None,
    jobs: int | None = None,
    threads: int = 1,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    news: News | None = None,
) -> Comparison:
    """Compare optimizers on a task, each at its best learning rate.

    At equal budget, each contender's learning rate is searched by successive halving, and the best
    is trained anew on fresh seeds, beside AdamW searched in the same way and AdamW with its
    defaults. Only trainings that have come to the end of their schedule are compared. Killed, or
    stopped by Ctrl-C, the same call goes on and ends with the same results.

    Args:
        task: a file as `descend train` takes it; "" for the digits that ship.
        contenders: names of optimizers, FILE.py:NAME, each with what is fixed of it, such as
            "sgd:momentum=0.9"; a handful where none is named. "adamw" is always among them.
        budget: a time for all of it, "5m", or steps for each contender, "3000steps"; None for as
            much as trainings of the task's own length need.
        arguments: of the task's function.
        metric: by which they are compared, on the validation data.
        highest: whether more of it is better; None where its name tells.
        schedule: of the learning rate, in fractions of each training's length; "constant" for
            none. None: warmup, constant, and a linear decay to zero.
        weight_decay: whether to search that too.
        batch_size: samples per batch; None for the task's.
        seed: of the search; the confirmation takes the seeds after it.
        seeds: how many in the confirmation; None for as many as a verdict needs, at least 5.
        jobs: how many trainings run at once; None for as many as there are processors.
        threads: of each training.
        folder: of the comparison; None for one named after the task.
        fresh: whether to remove what an earlier comparison left in it.
        news: hears how it goes; None: nobody does.

    Returns:
        The results, and the folder with them and the page.

    Raises:
        SearchError: it cannot be made so, or every training fails.
        OutputError: the folder cannot be written.
        KeyboardInterrupt: on Ctrl-C, when all is saved.

    Example:
        >>> found = compare("", ["lion:lr=1e-3"], budget="500steps", seeds=2, jobs=1)
        >>> sorted(one["name"] for one in found.results["contenders"])
        ['adamw', 'lion:lr=1e-3']

    Source: equal budgets: F. Schneider et al., DeepOBS, ICLR 2019; R. Schmidt et al., Descending
    through a crowded valley, ICML 2021; halving: K. Jamieson and A. Talwalkar, AISTATS 2016.
    """
    scipy_stats()  # what lacks it says so now, and not after hours
    news = news or News()
    told = {} if arguments is None else arguments
    if schedule not in (None, "constant"):
        schedule = str(parse(schedule))
    if task:
        task_file(Path(task), seed).check(**told)
    read = read_contenders(contenders)
    full = metric if metric.startswith("val") else f"validation_{metric}"
    question = Question(
        str(task), told, read, None if budget is None else read_budget(budget), full,
        is_highest_best(full, highest, f"--metric {metric}"), schedule, weight_decay,
        None if batch_size is None else COUNT.check("batch_size", batch_size, SearchError),
        SEED.check("seed", seed, SearchError),
        None if seeds is None else Range(2, whole=True).check("seeds", seeds, SearchError),
        COUNT.check("threads", threads, SearchError),
    )  # fmt: skip
    number = shared_out(None if jobs is None else COUNT.check("jobs", jobs, SearchError), threads)
    place = Path(folder) if folder is not None else _folder(question)
    prepare_folder(place, ASKED)
    held = lock(place.resolve())
    if fresh:
        _remove(place)
    new = not (place / ASKED).exists()
    try:
        _refuse_other(place, question)
        results = _compared(question, place, number, news)
        if not (place / PAGE).exists():
            _draw(place)
        return Comparison(place, results)
    except DescendError:
        if new and not (place / TRIALS).exists():  # refused before anything was trained
            _remove(place)
            (place / LOCK).unlink(missing_ok=True)
            if not any(place.iterdir()):
                place.rmdir()
        raise
    finally:
        held.release()


def _compared(question: Question, folder: Path, jobs: int, news: News) -> dict[str, Any]:
    """Answer the question, or read the answer."""
    with suppress(FileNotFoundError):
        return read_json(folder / RESULTS, ["contenders", "recommended", "sentence", "command"])
    began = time.monotonic()
    with Workers[Any](jobs, question.threads) as workers:
        state = _planned(question, folder, workers, news)
        runner = _Runner(state, workers, news)
        try:
            halve(
                [one for one in state.searches.values() if one.contender.lr is None],
                state.plan.tries, runner.run, news.say,
                metric=question.metric, weight_decay=question.weight_decay,
            )  # fmt: skip
            _confirm(question, state, folder, runner)
        except KeyboardInterrupt:
            news.say("known so far:")
            for one in state.searches.values():
                news.say(f"  {one.in_words(question.metric)}")
            news.say(f"next: {runner.stage}; the same command goes on")
            raise
    results = comparison_results(question, state)
    _keep_only(folder, results["model"])
    _note_times(folder, time.monotonic() - began)
    write_json(folder / BEST, results.pop("best"))
    write_json(folder / RESULTS, results)
    return results


def _planned(question: Question, folder: Path, workers: Workers[Any], news: News) -> State:
    """The plan: of what was measured once and kept, so that from there on all is deterministic."""
    contenders = {one.name: one for one in question.contenders}
    first = {
        # Small, so that nothing diverges; of no schedule, which would need a length
        name: question.trial(one, None, 10**9, question.seed, lr=one.default_lr / 100)
        for name, one in contenders.items()
    }
    try:
        times = read_json(folder / TIMING, ["steps", "jobs"])
    except FileNotFoundError:
        news.show("measuring the steps of each contender")
        times = measured_times(first, workers, question.metric)
        write_json(folder / TIMING, times)
    failed = {name: one["error"] for name, one in times["steps"].items() if "error" in one}
    if BASELINE in failed:
        raise SearchError(failed[BASELINE])
    for name, error in failed.items():
        news.say(f"warning: {name} is left out, for it fails: {error}")
    with first[BASELINE].told_of():
        ready = made_ready(first[BASELINE])
    own = times["steps"][BASELINE]
    busy = max(1.0, own["wall_us"] / own["processor_us"])  # where others work on this machine too
    per_step = {
        name: busy * (one["processor_us"] + one["validation_us"] / ready.steps_per_epoch) / 1e6
        for name, one in times["steps"].items()
        if name not in failed
    }
    plan = make_plan(
        question.budget,
        ready.task.epochs * ready.steps_per_epoch,
        {name: contenders[name].lr is None for name in per_step},
        shared=question.shape is None,
        seed=question.seed,
        times=per_step,
        fixed=busy * (START + own["validation_us"] / 1e6),
        jobs=times["jobs"],  # not of this process: the plan stays
        seeds=question.seeds,
    )
    facts = {
        "batch_size": ready.batch_size,
        "steps_per_epoch": ready.steps_per_epoch,
        "parameters": sum(one.numel() for one in ready.module.parameters()),
    }
    needed = seeds_needed(len(per_step) - 1)
    if len(plan.seeds) < needed:
        news.say(
            f"warning: with {len(plan.seeds)} seeds no verdict but 'not separated' is possible "
            f"for {len(per_step)} contenders; {needed} are the least"
        )
    for line in plan.in_words(per_step, workers.jobs, question.shape is None):
        news.say(line)
    searches = {
        name: _search(question, one, plan.lengths.get(name, plan.length), folder)
        for name, one in contenders.items()
    }
    for name, error in failed.items():
        searches[name].error = error
    return State(plan, per_step, facts, searches)


def _search(question: Question, one: Contender, length: int, folder: Path) -> Search:
    """The search of a contender, before it has begun."""

    def make(candidate: Candidate) -> Any:
        return question.trial(one, candidate, length, question.seed)

    shape = question.shape_of(one)
    return Search(one, length, make, folder / TRIALS, question.highest, shape)


class _Runner:
    """Does the work of a comparison, and tells how far it is."""

    def __init__(self, state: State, workers: Workers[Any], news: News) -> None:
        self.news, self._workers = news, workers
        plan = state.plan
        searched = sum(
            one.contender.lr is None and not one.error for one in state.searches.values()
        )
        confirmed = (len(state.times) + 1) * len(plan.seeds)
        self.stage = "search 1/2"
        self._done, self._total = 0, searched * sum(plan.tries) + confirmed

    def run(self, stage: str, work: dict[Any, Work]) -> dict[Any, Any]:
        """Do pieces of work by key, in words for the progress; the results by key."""
        found = {}
        self.stage = stage
        self._total = max(self._total, self._done + len(work))
        self.news.show(stage, self._done, self._total)
        for key, one in self._workers.run(work):
            found[key] = one
            self._done += 1
            self.news.show(stage, self._done, self._total)
        return found


def _confirm(question: Question, state: State, folder: Path, runner: _Runner) -> None:
    """Train the best of each on fresh seeds, and AdamW with its defaults beside them."""
    work: dict[Any, Work] = {}
    plan = state.plan
    for seed in plan.seeds:
        reference = question.reference(plan.length, seed)
        place = folder / TRIALS / reference.name
        work["", seed] = train_trial, (reference, place, None, question.metric)
        for name, one in state.searches.items():
            if not one.error:
                trial = question.trial(one.contender, one.best, one.length, seed)
                lengths = [max(1, round(one.length * part)) for part in ENDS]
                arguments = trial, lengths, one.folder / trial.name, one.shape, question.metric
                work[name, seed] = train_ends, arguments
    found = runner.run("confirmation on fresh seeds", work)
    for (name, seed), records in found.items():
        if name:
            state.ends.setdefault(name, {})[seed] = records
        else:
            state.reference[seed] = records
        for one in records if name else [records]:
            if one.error:
                runner.news.say(f"warning: {name or BASELINE} fails with seed {seed}: {one.error}")


def _draw(folder: Path) -> None:
    from descend.report.comparison_page import write_comparison

    write_comparison(folder)


def _refuse_other(folder: Path, question: Question) -> None:
    """Note the question in its folder, or refuse another one there."""
    command = question.command(folder)
    path = folder / ASKED
    try:
        known = read_json(path, ["options", "files"], "give --fresh, or another --out")
    except FileNotFoundError:
        write_json(path, command.state_dict())
        return
    command.load_state_dict(known)
    if command.doubts:
        changed = ", ".join(line.partition(" has changed")[0] for line in command.doubts)
        raise SearchError(
            f"{folder} holds a comparison that began with another {changed}: what was trained "
            f"since cannot be compared; --fresh starts over, or give another --out"
        )


def _folder(question: Question) -> Path:
    """The folder of a comparison: the same for the same question."""
    name = Path(question.task).stem if question.task else "digits"
    known = question.command(Path()).options
    usual = {"TASK.py", "contenders", "--metric", "--threads"}
    options = {
        key.lstrip("-") + " ": value for key, value in known.items() if key not in usual and value
    }
    names = {"": "-".join(known["contenders"])}
    return default_folder(f"compare-{name}", {**names, **options})


def _remove(folder: Path) -> None:
    """Remove a comparison, and nothing else that may be in its folder."""
    if (folder / ASKED).exists():
        shutil.rmtree(folder / TRIALS, ignore_errors=True)
        for name in (RESULTS, TIMING, BEST, PAGE, PICTURE, ASKED):
            (folder / name).unlink(missing_ok=True)


def _keep_only(folder: Path, model: str | None) -> None:
    """Remove the checkpoints of all trials but the one that is kept as a model to take."""
    for place in (folder / TRIALS).glob(f"*/{FOLDER}"):
        if model is None or place != folder / model:
            shutil.rmtree(place, ignore_errors=True)


def _note_times(folder: Path, seconds: float) -> None:
    """Add to what was measured how long the trials took, and the last process in all."""
    times = read_json(folder / TIMING, ["steps"])
    records = [
        read_json(path, ["ends"])["ends"].values()
        for path in (folder / TRIALS).glob(f"**/{RECORD}")
    ]
    times["trials_s"] = sum(max(one["seconds"] for one in each) for each in records)
    times["wall_s"] = seconds
    write_json(folder / TIMING, times)
