"""The trials of a search as Optuna is shown them: what it samples from, and what it prunes by.

Optuna's samplers and pruners see a study in memory, made anew for each question from what the
storage knows. So an answer follows from the results alone: not from the order in which processes
told of them, nor from where one was killed.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from descend.search.halving import TELLING
from descend.search.space import Space
from descend.search.study_storage import quiet

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

PRUNERS = ("halving", "median", "wilcoxon", "none")
RANDOM = 10  # trials that are drawn at random, before there is something to learn from
FIRST = 8  # trials that are never pruned: from them it is known whether early results tell
ENOUGH, AGREED = 5, 0.6  # of them, and the rank correlation of early results with the last ones
KEPT = 3  # one in so many goes on from each rung, to so many times the length


@dataclass
class Asked:
    """A trial of a search: what was asked for, and what has come of it.

    Args:
        number: its own, from 0, by which its folder is called.
        params: the chosen values by name.
        distributions: what they were chosen from, as Optuna has it.
        state: "running", "paused", "done", "diverged" or "failed".
        values: the metric by rung; the rungs are ninths of the length, or numbers of seeds.
        value: what it came to, where it is done.
        generation: the trials that were asked for, or went on, together.
        size: how many those are.
        owner: the process that trains it.
        why: how it diverged, or what failed.
        start: the metric before the first step.
        begun: the rung from which it went on after a pause.
        id: Optuna's, of its last trial of it.
    """

    number: int
    params: dict[str, Any]
    distributions: dict[str, Any]
    state: str
    values: dict[int, float] = field(default_factory=dict)
    value: float | None = None
    generation: int = 0
    size: int = 1
    owner: str = ""
    why: str = ""
    start: float | None = None
    begun: int = 0
    id: int = -1


@dataclass(frozen=True)
class Judge:
    """A sampler and a pruner that answer by what they are shown.

    Args:
        space: what is searched.
        seed: of the sampler.
        highest: whether more is better.
        pruner: its name.
        rungs: at which results are compared; the last is a whole training.
    """

    space: Space
    seed: int
    highest: bool
    pruner: str
    rungs: Sequence[int]

    def ask(self, trials: Iterable[Asked], number: int) -> "optuna.Trial":
        """Choose the values of a new trial.

        Args:
            trials: all that there are.
            number: of the new one. The first has the values that would be used without a search.
        """
        import optuna

        with quiet():
            study = self._study(trials)
            drawn = np.random.SeedSequence([self.seed, number]).generate_state(1)
            study.sampler = optuna.samplers.TPESampler(
                seed=int(drawn[0]), n_startup_trials=RANDOM, multivariate=True, constant_liar=True
            )
            if number == 0 and self.space.defaults:
                study.enqueue_trial(self.space.defaults)
            ask = study.ask()
            self.space.suggest(ask)
            return ask

    def prunes(self, trials: Iterable[Asked], one: Asked, rung: int) -> bool:
        """Whether a trial should not go on from a rung.

        Where a short training does not tell how a whole one ends, as where nothing is learned for
        a while, or where the slower win, no trial is pruned by it.

        Args:
            trials: all that there are, this one too.
            one: of them; it has a value at the rung.
            rung: one of `rungs`.
        """
        if self.pruner == "none" or rung == self.rungs[-1]:
            return False
        trials = [*trials]
        if self.pruner != "wilcoxon" and (one.number < FIRST or not self.tells(trials, rung)):
            return False
        import optuna

        with quiet():
            study = self._study(other for other in trials if other.number != one.number)
            upto = {at: value for at, value in one.values.items() if at <= rung}
            keys = {f"completed_rung_{k}": upto[at]
                    for k, at in enumerate(self.rungs) if at < rung and at in upto}  # fmt: skip
            study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=one.params,
                    distributions=one.distributions,
                    intermediate_values=upto,
                    system_attrs=keys,
                )
            )
            return bool(self._pruner().prune(study, study.get_trials(deepcopy=False)[-1]))

    def tells(self, trials: Iterable[Asked], rung: int) -> bool:
        """Whether results at a rung say something of the end.

        A part of what is learned in the end must be learned there, and among the first trials the
        order must be that in the end, by and large.

        Args:
            trials: all that there are.
            rung: one of `rungs`.
        """
        trials = [*trials]
        first = [one for one in trials if one.number < FIRST]
        over = len(first) == FIRST and all(one.state != "running" for one in first)
        pairs = [(one.values[rung], one.value) for one in first
                 if one.state == "done" and rung in one.values]  # fmt: skip
        if not over or len(pairs) < ENOUGH:
            return False
        sign = 1 if self.highest else -1
        learned = [
            (sign * (one.values[rung] - one.start), sign * (one.value - one.start))
            for one in trials
            if one.state == "done" and rung in one.values
            and one.start is not None and one.value is not None
        ]  # fmt: skip
        if learned:
            there, in_all = (max(values) for values in zip(*learned, strict=True))
            if there < TELLING * in_all:
                return False
        from scipy import stats

        early, last = (stats.rankdata(values) for values in zip(*pairs, strict=True))
        if min(np.ptp(early), np.ptp(last)) == 0:
            return False
        return float(np.corrcoef(early, last)[0, 1]) >= AGREED

    def better(self, one: float, other: float) -> bool:
        """Whether a value is better than another."""
        return one > other if self.highest else one < other

    def shown(self, trials: Iterable[Asked]) -> "tuple[optuna.Study, optuna.Study, int]":
        """Two studies to draw: of whole trainings, and of the last rung that most have reached.

        Of the second all trials there are complete, with their values at that rung, which is the
        third. What is far worse than most stands at an edge: else it would be all that one sees.
        """
        trials = [one for one in trials if one.values]
        reached = [sum(rung in one.values for one in trials) for rung in self.rungs]
        most = max(
            rung for rung, count in zip(self.rungs, reached, strict=True)
            if count * 2 >= len(trials)
        )  # fmt: skip
        there = [one for one in trials if most in one.values]
        edge = self._edge([one.values[most] for one in there])

        def near(value: float) -> float:
            return value if self.better(value, edge) else edge

        whole = [
            replace(
                one,
                state="paused" if one.state == "running" else one.state,
                value=None if one.value is None else near(one.value),
                values={rung: near(value) for rung, value in one.values.items()},
            )
            for one in trials
        ]
        at_most = [
            replace(one, state="done", value=near(one.values[most]), values={}) for one in there
        ]
        with quiet():
            plain = replace(self, pruner="none")
            return plain._study(whole), plain._study(at_most), most

    def _edge(self, values: Sequence[float]) -> float:
        """The worst value to draw: three times as far from the best as three in four are."""
        worst = -math.inf if self.highest else math.inf
        if not values:
            return worst
        best, quartile = np.quantile(values, (1, 0.25) if self.highest else (0, 0.75))
        return float(quartile + 2 * (quartile - best)) if best != quartile else worst

    def _pruner(self) -> Any:
        from optuna import pruners

        if self.pruner == "wilcoxon":
            return pruners.WilcoxonPruner(p_threshold=0.1)
        if self.pruner == "median":
            return pruners.MedianPruner(n_startup_trials=ENOUGH)
        return pruners.SuccessiveHalvingPruner(
            min_resource=self.rungs[0], reduction_factor=KEPT, min_early_stopping_rate=0
        )

    def _study(self, trials: Iterable[Asked]) -> "optuna.Study":
        """A study in memory that has seen some trials."""
        import optuna

        study = optuna.create_study(direction="maximize" if self.highest else "minimize")
        study.add_trials(self._shown(one) for one in trials if one.state != "failed")
        return study

    def _shown(self, one: Asked) -> "FrozenTrial":
        """A trial as Optuna has it."""
        from optuna.trial import TrialState, create_trial

        state, value, values = TrialState.RUNNING, None, dict(one.values)
        if one.state == "diverged":
            # Not a failure, of which a sampler would not learn, and no result either, among which
            # it would rank before the pruned ones: pruned at the first rung, as the worst there is
            values = {self.rungs[0]: -math.inf if self.highest else math.inf}
            state = TrialState.PRUNED
        elif one.state == "done":
            state, value = TrialState.COMPLETE, one.value
        elif one.state == "paused" and self.pruner == "wilcoxon":
            # The mean over the seeds that there are is a fair guess at that over all
            state, value = TrialState.COMPLETE, float(np.mean([*values.values()]))
        elif one.state == "paused":
            state = TrialState.PRUNED
        keys = {f"completed_rung_{k}": values[at]
                for k, at in enumerate(self.rungs[:-1]) if at in values}  # fmt: skip
        return create_trial(
            state=state,
            value=value,
            params=one.params,
            distributions=one.distributions,
            intermediate_values=values,
            system_attrs=keys if self.pruner == "halving" else {},
        )
