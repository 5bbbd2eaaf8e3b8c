"""The question of a comparison: everything that its answer depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descend.optimizer_lookup import own_file
from descend.search.budget import Budget
from descend.search.contender import BASELINE, Contender
from descend.search.ends import schedule_text
from descend.search.halving import Candidate
from descend.search.trial import Trial
from descend.training.saved_command import Command


@dataclass(frozen=True)
class Question:
    """Everything that the answer of a comparison depends on.

    Args:
        task: the file; "" for the digits.
        arguments: of its function.
        contenders: tuned AdamW among them, and first.
        budget: None for as much as the task's own length needs.
        metric: by which they are compared.
        highest: whether more of it is better.
        shape: of the schedule, as for `schedule_text`.
        weight_decay: whether that is searched too.
        batch_size: None for the task's.
        seed: of the search; the confirmation takes those after it.
        seeds: how many of those; None for as many as a verdict needs.
        threads: of each training.
    """

    task: str
    arguments: Mapping[str, Any]
    contenders: Sequence[Contender]
    budget: Budget | None
    metric: str
    highest: bool
    shape: str | None
    weight_decay: bool
    batch_size: int | None
    seed: int
    seeds: int | None
    threads: int

    def command(self, folder: Path) -> Command:
        """The question as plain data, which another process has to ask again in that folder."""
        files = [Path(self.task)] if self.task else []
        files += {own for one in self.contenders if (own := own_file(one.optimizer))}
        options = {
            "TASK.py": Path(self.task).name,
            "--arg": dict(self.arguments),
            "contenders": [one.name for one in self.contenders],
            "--budget": self.budget.given if self.budget else None,
            "--metric": f"{self.metric}:{'highest' if self.highest else 'lowest'}",
            "--schedule": self.shape,
            "--weight-decay": self.weight_decay,
            "--batch-size": self.batch_size,
            "--seed": self.seed,
            "--seeds": self.seeds,
            "--threads": self.threads,
        }
        return Command(folder, options, sorted(files))

    def trial(
        self,
        one: Contender,
        candidate: Candidate | None,
        length: int,
        seed: int,
        lr: float | None = None,
    ) -> Trial:
        """The full-length training of a contender; without a candidate, constant at an lr."""
        shape = "constant" if candidate is None else self.shape_of(one)
        text = schedule_text(shape, length, length)
        return Trial(
            self.task,
            dict(self.arguments),
            one.optimizer,
            lr if candidate is None else candidate.lr,
            {**one.settings, **(candidate.settings if candidate else {})},
            {"lr": text} if text else {},
            length,
            seed,
            self.batch_size,
        )

    def reference(self, length: int, seed: int) -> Trial:
        """The training of AdamW with its defaults, as people run it."""
        (one,) = (one for one in self.contenders if one.name == BASELINE)
        return self.trial(one, None, length, seed)

    def shape_of(self, one: Contender) -> str | None:
        """The shape of a contender's schedule."""
        return "constant" if one.constant else self.shape
