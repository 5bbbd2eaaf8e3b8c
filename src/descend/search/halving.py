"""The search for a learning rate, by successive halving: short trainings of many, long ones of few.

Every contender has the same number of tries. Each is a ratio to the optimizer's own default on a
log scale; where the best stands at the edge, further tries go on beyond it, else they go beside
the best. The best of a rung are promoted to the next, where each goes on from its checkpoint.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from descend.errors import SearchError
from descend.search.budget import MORE, RUNGS, TIMES_DEFAULT, TRIES
from descend.search.contender import Contender
from descend.search.ends import train_ends
from descend.search.trial import Record, Trial
from descend.search.workers import Work

WEIGHT_DECAYS = (0.0, 0.01, 0.1, 0.5)
TELLING = 0.25  # of what is learned in the end: with less the first rung tells too little
MOST_ROUNDS = 4  # of tries beyond an edge
SMALL = 1e-300  # no learning rate is smaller


@dataclass(frozen=True)
class Candidate:
    """The values that are tried: a learning rate, and a weight decay where that is searched."""

    lr: float
    weight_decay: float | None = None

    @property
    def settings(self) -> dict[str, float]:
        """Those that stand beside lr."""
        return {} if self.weight_decay is None else {"weight_decay": self.weight_decay}


@dataclass
class Search:
    """The search of one contender.

    Args:
        contender: whose.
        length: steps of its full training.
        make: the full-length trial of a candidate.
        folder: of its trials.
        highest: whether more of the metric is better.
        shape: of its schedule, as for `schedule_text`.
        error: what failed in all of its first tries, in words.
        tried: the records by rung and candidate, in the order in which they were asked for.
    """

    contender: Contender
    length: int
    make: Callable[[Candidate], Trial]
    folder: Path
    highest: bool
    shape: str | None
    error: str = ""
    tried: list[dict[Candidate, Record]] = field(default_factory=lambda: [{} for _ in RUNGS])

    @property
    def best(self) -> Candidate:
        """The best of the last rung that was trained."""
        rung = max((number for number, one in enumerate(self.tried) if one), default=None)
        return first_candidates(self.contender, 1)[0] if rung is None else self.ranked(rung)[0]

    def in_words(self, metric: str) -> str:
        """The best up to now, and what it came to."""
        if self.error:
            return f"{self.contender.name}: {self.error}"
        rungs = sum(map(bool, self.tried))
        best = self.best
        decay = "" if best.weight_decay is None else f", weight decay {best.weight_decay:g}"
        if not rungs:
            return f"{self.contender.name}: nothing yet"
        value = self.tried[rungs - 1][best].value
        end = "diverged" if value is None else f"{metric} {value:.4g}"
        part = f"after {RUNGS[rungs - 1]:.2g} of the length"
        return f"{self.contender.name} at lr {best.lr:g}{decay}: {end} {part}"

    def work(self, rung: int, candidate: Candidate, metric: str) -> Work:
        """The piece of work of a try."""
        trial = self.make(candidate)
        length = max(1, round(self.length * RUNGS[rung]))
        return train_ends, (trial, [length], self.folder / trial.name, self.shape, metric)

    def ranked(self, rung: int) -> list[Candidate]:
        """The candidates of a rung, best first; of equals the usual lr, of diverged the least."""
        sign = -1 if self.highest else 1

        def order(one: Candidate) -> tuple[float, float, float]:
            value = self.tried[rung][one].value
            if value is None:
                return math.inf, one.lr, 0.0
            unusual = abs(math.log(one.lr / self.contender.default_lr))
            return sign * value, unusual, one.weight_decay or 0.0

        return sorted(self.tried[rung], key=order)

    @property
    def told_too_little(self) -> bool:
        """Whether the first rung came before the learning: the order there means nothing then."""
        gains = []
        for rung, tried in enumerate(self.tried):
            record = tried[self.ranked(rung)[0]]
            if record.value is None or record.start is None:
                return False
            gains.append(abs(record.start - record.value))
        return gains[0] < TELLING * gains[1]

    def is_at_edge(self, rung: int) -> bool:
        """Whether the best of a rung is the least or the greatest that was tried there."""
        lrs = sorted(one.lr for one in self.tried[rung])
        return self.ranked(rung)[0].lr in (lrs[0], lrs[-1])

    def more(self, rung: int) -> list[Candidate]:
        """Further tries: beyond the edge where the best stands there, else beside the best."""
        lrs = sorted({one.lr for one in self.tried[rung]})
        best, decay = self.ranked(rung)[0].lr, self.ranked(rung)[0].weight_decay
        at = lrs.index(best)
        ratio = TIMES_DEFAULT ** (2 / (TRIES[0] - 1))
        if at == 0:
            found = [best / ratio ** (number + 1) for number in range(MORE)]
        elif at == len(lrs) - 1:
            found = [best * ratio ** (number + 1) for number in range(MORE)]
        else:
            found = [math.sqrt(best * lrs[at - 1]), math.sqrt(best * lrs[at + 1])]
        new = [Candidate(three_digits(lr), decay) for lr in found if lr > SMALL]
        return [one for one in new if one not in self.tried[rung]]

    def decays(self) -> list[Candidate]:
        """The best learning rate with other weight decays."""
        best = self.ranked(0)[0].lr
        return [Candidate(best, one) for one in WEIGHT_DECAYS] if self.contender.decays else []


def three_digits(lr: float) -> float:
    """A learning rate that people can read and type."""
    return float(f"{lr:.3g}")


def first_candidates(contender: Contender, count: int) -> list[Candidate]:
    """Learning rates from 1/30 to 30 times the optimizer's own default, on a log scale."""
    if contender.lr is not None:
        return [Candidate(contender.lr)]
    exponents = (2 * number / max(count - 1, 1) - 1 for number in range(count))
    return [Candidate(three_digits(contender.default_lr * TIMES_DEFAULT**one)) for one in exponents]


def halve(
    searches: Sequence[Search],
    tries: Sequence[int],
    run: Callable[[str, dict[Any, Work]], dict[Any, list[Record]]],
    say: Callable[[str], None],
    *,
    metric: str,
    weight_decay: bool,
) -> None:
    """Search for all contenders, rung by rung; their `tried` are filled.

    Args:
        searches: one a contender.
        tries: how many are in each rung.
        run: does pieces of work by key, in words for the progress; the results by key.
        say: is told what came of each rung, and what failed.
        metric: on the validation data.
        weight_decay: whether that is searched too.

    Raises:
        SearchError: all of the first tries of all contenders fail.
    """

    def train(stage: str, rung: int, candidates: Callable[[Search], list[Candidate]]) -> None:
        asked = [(one, each) for one in searches if not one.error for each in candidates(one)]
        names = [(one.contender.name, rung, each) for one, each in asked]
        work = (one.work(rung, each, metric) for one, each in asked)
        found = run(stage, dict(zip(names, work, strict=True)))
        for (one, each), name in zip(asked, names, strict=True):  # whoever was first
            one.tried[rung][each] = found[name][0]
        _tell_of_errors(searches, rung, say)

    def tell(rungs: int) -> None:
        for one in searches:
            if not one.error:
                say(f"search {rungs}/{len(RUNGS)}: {one.in_words(metric)}")

    def train_more(stage: str, rung: int, least: int) -> None:
        for number in range(MOST_ROUNDS):
            # As many tries for each: the others look closer where they are
            if number >= least and not any(
                one.is_at_edge(rung) for one in searches if not one.error
            ):
                break
            train(stage, rung, lambda one: one.more(rung))

    train("search 1/2", 0, lambda one: first_candidates(one.contender, tries[0]))
    train_more("search 1/2", 0, 0)
    if weight_decay:
        train("search 1/2, weight decay", 0, Search.decays)
    tell(1)
    train("search 2/2", 1, lambda one: one.ranked(0)[: tries[1]])
    if any(one.told_too_little for one in searches if not one.error):
        say(f"search 2/2: {RUNGS[0]:.2g} of the length tells too little of the end: all go there")
        train("search 2/2", 1, lambda one: one.ranked(0)[len(one.tried[1]) :])
    train_more("search 2/2", 1, 1)
    tell(2)


def _tell_of_errors(searches: Sequence[Search], rung: int, say: Callable[[str], None]) -> None:
    """Tell of what failed in the user's code; whoever fails always is left out."""
    for one in searches:
        errors = {each: each_record.error for each, each_record in one.tried[rung].items()}
        failed = {each: error for each, error in errors.items() if error}
        if not failed or one.error:
            continue
        first, error = next(iter(failed.items()))
        if len(failed) == len(errors):
            one.error = error
        else:
            more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            say(f"warning: {one.contender.name} fails at lr {first.lr:g}{more}: {error}")
    if searches and all(one.error for one in searches):
        raise SearchError(searches[0].error)
    for one in searches:
        if one.error and rung == 0:
            say(f"warning: {one.contender.name} is left out, for it fails always: {one.error}")
