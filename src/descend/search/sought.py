"""Everything that decides what a search finds: its space, and how its trials are trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from descend.checks import Choice
from descend.errors import SearchError
from descend.optimizer_lookup import own_file
from descend.run.run_folder import default_folder
from descend.search.asked_trials import PRUNERS, Judge
from descend.search.ends import schedule_text
from descend.search.space import Space, read_space
from descend.search.trial import Trial, made_ready
from descend.training.saved_command import Command
from descend.training.task_file import task_file

RUNGS = (1, 3, 9)
"""The lengths at which trials are compared, in ninths of the whole."""
AT_ONCE = 4  # trials of a generation


@dataclass(frozen=True)
class Sought:
    """Everything that decides what a search finds, but for how many trials it has.

    Args:
        task: the file; "" for the digits.
        texts: the space as it was given.
        metric: that is compared.
        highest: whether more of it is better.
        shape: of the schedule, as for `schedule_text`.
        steps: of a training; None for the task's own epochs.
        pruner: its name.
        seed: of the search and of its trainings.
        seeds: how many trainings a trial has.
        at_once: how many trials a generation has.
        threads: of each training.
    """

    task: str
    texts: tuple[str, ...]
    metric: str
    highest: bool
    shape: str | None
    steps: int | None
    pruner: str
    seed: int
    seeds: int
    at_once: int
    threads: int
    space: Space = field(init=False)
    lengths: dict[int | None, int] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Resolve the names of the space."""
        dimensions = read_space(*self.texts)
        arguments = dict(task_file(Path(self.task), self.seed).arguments) if self.task else {}
        object.__setattr__(self, "space", Space(dimensions, arguments, self.shape is None))

    @property
    def command(self) -> Command:
        """The options that another process has to have, and the user's files."""
        files = [Path(self.task)] if self.task else []
        files += [own for name in self.space.optimizers if (own := own_file(name))]
        options = {
            "TASK.py": Path(self.task).name,
            "--space": {one.name: one.text for one in self.space.dimensions},
            "--metric": f"{self.metric}:{'highest' if self.highest else 'lowest'}",
            "--schedule": self.shape,
            "--steps": self.steps,
            "--pruner": self.pruner,
            "--seed": self.seed,
            "--seeds": self.seeds,
            "--at-once": self.at_once,
            "--threads": self.threads,
        }
        return Command(Path(), options, files)

    @property
    def options(self) -> dict[str, Any]:
        """The options alone."""
        return self.command.options

    @property
    def folder(self) -> Path:
        """The folder of a search that was given none: the same for the same search."""
        told = {**self.options, **self.options["--space"]}
        usual = {
            "--metric": "validation_loss:lowest", "--schedule": None, "--steps": None, "--seed": 0,
            "--seeds": 1, "--at-once": AT_ONCE, "--threads": 1,
            "--pruner": usual_pruner(self.seeds),
        }  # fmt: skip
        words = {
            f"{name.lstrip('-')} ": value
            for name, value in told.items()
            if name not in ("TASK.py", "--space") and value != usual.get(name, ...)
        }
        name = Path(self.task).stem if self.task else "digits"
        return Path("tune") / default_folder(name, words).name

    @property
    def rungs(self) -> tuple[int, ...]:
        """At which results are compared: ninths of the length, or numbers of seeds."""
        if self.seeds > 1:
            return tuple(range(1, self.seeds + 1))
        return RUNGS[-1:] if self.pruner == "none" else RUNGS

    @property
    def judge(self) -> Judge:
        """Optuna's sampler and pruner."""
        return Judge(self.space, self.seed, self.highest, self.pruner, self.rungs)

    def trial(self, params: Mapping[str, Any], seed: int) -> tuple[Trial, tuple[float, float]]:
        """The training of chosen values, and the parts of its schedule."""
        chosen = self.space.options(params)
        parts = chosen.pop("warmup"), chosen.pop("decay")
        steps = self.length(chosen["batch_size"])
        text = schedule_text(self.shape, steps, steps, *parts)
        schedules = {"lr": text} if text else {}
        return Trial(self.task, **chosen, schedules=schedules, steps=steps, seed=seed), parts

    def length(self, batch_size: int | None) -> int:
        """How many steps a training has with a batch size."""
        if self.steps is None and batch_size not in self.lengths:
            usual = self.space.options(self.space.defaults)
            given = usual["arguments"]
            trial = Trial(self.task, given, "sgd", 0.01, {}, {}, 1, self.seed, batch_size)
            with trial.told_of():
                ready = made_ready(trial)
            self.lengths[batch_size] = ready.steps_per_epoch * ready.task.epochs
        return self.steps or self.lengths[batch_size]


def usual_pruner(seeds: int) -> str:
    """The pruner where none is named: by what there is to compare."""
    return "halving" if seeds == 1 else "wilcoxon"


def checked_pruner(name: str | None, seeds: int) -> str:
    """The name of a pruner that can be used; the usual one where None is given.

    Raises:
        SearchError: there is no such pruner, or it compares something else.
    """
    if name is None:
        return usual_pruner(seeds)
    allowed = Choice(PRUNERS if seeds == 1 else ("wilcoxon", "none"))
    if name in PRUNERS and not allowed.admits(name):
        raise SearchError(
            f"--pruner {name}: it compares trainings of several lengths, and with --seeds those of "
            f"several seeds are compared; allowed: {allowed}"
        )
    found: str = allowed.check("pruner", name, SearchError)
    if name == "wilcoxon" and seeds == 1:
        raise SearchError("--pruner wilcoxon: it compares seeds; give several, such as --seeds 6")
    return found
