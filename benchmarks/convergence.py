"""Whether each optimizer learns real digits at its default lr: `python benchmarks/convergence.py`.

Every optimizer of the catalogue, made with its defaults, trains the task of `descend train` from
the same seed. What differs from one optimizer to another stands in `PLANS`, with its reason.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from descend import Trainer
from descend.optimizers import CATALOGUE
from descend.training import Task, digits_task
from descend.training.epoch_records import EpochRecords
from descend.training.task_module import TaskModule

ENOUGH = 0.95


@dataclass(frozen=True)
class Plan:
    """How an optimizer trains, with what change of the task, and why so."""

    epochs: int = 20
    batch: int = 64
    change: Callable[[Task], Task] = lambda task: task
    why: str = "as descend train does"


def without_dropout(task: Task) -> Task:
    """The same task with a loss that is the same when it is evaluated again."""
    for module in task.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return task


def as_words(task: Task) -> Task:
    """The same images, each as 64 words: a word is a pixel and its ink, and scores each class.

    The scores of an image are the sums of its words', so that every gradient is sparse.
    """
    levels = torch.unique(task.train[0])
    pixels = task.train[0][0].numel()

    def words(images: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(levels, images.flatten(1)) + len(levels) * torch.arange(pixels)

    scores = torch.zeros(len(levels) * pixels, 10)
    return replace(
        task,
        model=torch.nn.EmbeddingBag.from_pretrained(scores, freeze=False, mode="sum", sparse=True),
        train=(words(task.train[0]), task.train[1]),
        validation=(words(task.validation[0]), task.validation[1]),
        test=(words(task.test[0]), task.test[1]),
    )


WHOLE = 1 << 20  # all samples in one batch

PLANS = {
    "lbfgs": Plan(5, WHOLE, without_dropout, "its curvature is between equal losses"),
    "sgd": Plan(60, why="without momentum, lr 1e-3 is a small step"),
    "sparseadam": Plan(60, change=as_words, why="for sparse gradients, a linear model"),
}


@dataclass(frozen=True)
class Learnt:
    """The end of a training.

    `reached` is the first epoch after which the validation data were at `ENOUGH`, and `accuracy`
    that on the test data after the last one.
    """

    name: str
    lr: float
    plan: Plan
    reached: int | None
    accuracy: float
    seconds: float


def learn(name: str, seed: int = 0) -> Learnt:
    """Train one optimizer of the catalogue by its plan, on one thread, as `descend train` does."""
    plan = PLANS.get(name, Plan())
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    task = plan.change(digits_task())
    optimizer = CATALOGUE[name](task.model.parameters())
    records = EpochRecords()
    trainer = Trainer(
        max_epochs=plan.epochs, seed=seed, callbacks=[records], enable_progress_bar=False
    )
    module = TaskModule(task, optimizer, plan.batch)
    trainer.fit(module)
    reached = [record.epoch for record in records.records if record.metrics["accuracy"] >= ENOUGH]
    return Learnt(
        name,
        float(optimizer.param_groups[0]["lr"]),
        plan,
        reached[0] if reached else None,
        trainer.test(module)[0]["test_accuracy"],
        records.seconds,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the status is 1 where an optimizer does not reach `ENOUGH`."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args(arguments)
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    table = Table(
        title=f"learning the shipped digits to {ENOUGH:.0%} with every optimizer's defaults",
        caption=f"reached: the first epoch with {ENOUGH:.0%} of the validation data right",
    )
    for column in ("optimizer", "lr", "epochs", "batch", "reached", "test accuracy", "time", "why"):
        table.add_column(column, justify="left" if column in ("optimizer", "why") else "right")
    failed = 0
    with Live(table, console=Console(width=120)):
        for name in CATALOGUE:
            found = learn(name)
            failed += found.accuracy < ENOUGH
            table.add_row(
                name,
                f"{found.lr:g}",
                str(found.plan.epochs),
                "all" if found.plan.batch == WHOLE else str(found.plan.batch),
                str(found.reached or "-"),
                f"{found.accuracy:.1%}",
                f"{found.seconds:.0f} s",
                found.plan.why,
            )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
