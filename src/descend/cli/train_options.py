"""The options of `descend train`: how they are read, and how they are told again."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from descend.cli.text import narrow
from descend.errors import DescendError, HyperparameterError, ScheduleError, TaskError
from descend.optimizer_lookup import literal

if TYPE_CHECKING:
    import torch

    from descend.schedules import Schedule

DEFAULT_BATCH_SIZE = 64
DEFAULT_OPTIMIZER = "adamw"


class TrainOptions(NamedTuple):
    """The options of one command, as they were read."""

    task_file: Path | None
    data: Path | None
    arguments: dict[str, str]
    optimizer: str
    lr: float | None
    settings: dict[str, object]
    schedules: "dict[str, Schedule]"
    unit: str | None
    epochs: int | None
    steps: int | None
    batch_size: int | None
    accumulate: int
    seed: int
    workers: int
    threads: int | None
    device: str | None
    keep: int
    best: tuple[str, bool | None] | None
    every_steps: int | None
    out: Path | None
    fresh: bool
    as_json: bool

    def unusual(self) -> dict[str, object]:
        """The options that are not the defaults, for the name of the folder."""
        words: list[tuple[str, object, object]] = [
            *((f"{name} ", value, ...) for name, value in self.arguments.items()),
            ("", self.optimizer, DEFAULT_OPTIMIZER),
            ("lr", self.lr if self.lr is None else f"{self.lr:g}", None),
            *((f"{name} ", value, ...) for name, value in self.settings.items()),
            ("batch", self.batch_size or DEFAULT_BATCH_SIZE, DEFAULT_BATCH_SIZE),
            ("accumulate", self.accumulate, 1),
            ("seed", self.seed, 0),
            *((f"{key} ", schedule, ...) for key, schedule in self.schedules.items()),
            ("unit ", self.unit or "step", "step"),
        ]
        return {word: value for word, value, usual in words if value != usual}


def read_best(
    ctx: click.Context, option: click.Parameter, value: str | None
) -> tuple[str, bool | None] | None:
    """A metric, and whether the highest is best; None where its name has to tell."""
    if value is None:
        return None
    name, colon, which = value.rpartition(":")
    if not colon:
        return value, None
    if which not in ("highest", "lowest") or not name:
        raise HyperparameterError(
            f"{option.opts[0]} {value}: it must be the name of a metric, with :highest or :lowest "
            f"after it, such as {option.opts[0]} validation_f1:highest"
        )
    return name, which == "highest"


def read_schedules(
    ctx: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> "dict[str, Schedule]":
    """The schedules by hyperparameter, read before anything else: a slip costs no time."""
    schedules: dict[str, Schedule] = {}
    for text in map(narrow, values):
        from descend.schedules import parse

        named = re.match(r"\s*(\w+)\s*:", text)
        key = named[1] if named else "lr"
        try:
            schedule = parse(text[named.end() if named else 0 :].strip())
        except ScheduleError as error:
            raise ScheduleError(f"--schedule{f' {key}' if named else ''}: {error}") from error
        if key in schedules:
            raise ScheduleError(
                f"--schedule {text}: {key} has the schedule {schedules[key]} already; give one, "
                f"such as their product: ({schedules[key]}) * ({schedule})"
            )
        schedules[key] = schedule
    return schedules


def read_settings(
    ctx: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> dict[str, object]:
    """The hyperparameters by name; `help` is one of them where it was asked for."""
    pairs = _pairs("--set", "weight_decay=0.1", values, HyperparameterError)
    return {name: literal(text) for name, text in pairs.items()}


def read_arguments(
    ctx: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """The arguments of a task by name, as texts: its file tells what they are."""
    return _pairs("--arg", "width=64", values, TaskError)


def _pairs(
    option: str, such: str, values: tuple[str, ...], error: type[DescendError]
) -> dict[str, str]:
    """The texts of NAME=VALUE by name; "help" without one where it was asked for."""
    pairs: dict[str, str] = {}
    for given in map(narrow, values):
        name, equals, text = (part.strip() for part in given.partition("="))
        if not (name and equals and text) and given.strip() != "help":
            raise error(
                f"{option} {given}: it must be NAME=VALUE, such as {option} {such}; {option} help "
                f"tells which there are"
            )
        if name in pairs:
            raise error(f"{option} {given}: {name} has a value already; give one")
        pairs[name] = text
    return pairs


arguments_option = click.option(
    "--arg",
    "arguments",
    metavar="NAME=VALUE",
    multiple=True,
    callback=read_arguments,
    help="An argument of the function in TASK.py, such as width=64; repeat it for others. --arg "
    "help lists what there is.",
)


def asks_for_help(arguments: Mapping[str, str]) -> bool:
    """Whether `--arg help` was given."""
    return arguments.get("help") == ""


def task_arguments(path: Path | None, texts: Mapping[str, str], seed: int) -> dict[str, Any]:
    """The arguments of a task, as its file tells what they are.

    Raises:
        TaskError: it has no such argument, or it is of another kind.
    """
    if path is None or not texts:
        return dict(texts)
    from descend.training.task_file import task_file

    return task_file(path, seed).read(texts)


optimizer_option = click.option(
    "--optimizer",
    metavar="NAME",
    default=DEFAULT_OPTIMIZER,
    show_default=True,
    help="The update rule: adamw, adam, sgd, ..., or your own, as my_file.py:MyRule.",
)

settings_option = click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    callback=read_settings,
    help="Another hyperparameter of the optimizer, such as weight_decay=0.1 or betas=0.9,0.95; "
    "repeat it for others. --set help lists what the chosen one has.",
)


def find_device(name: str) -> "torch.device":
    """The device of a name, if this machine has it.

    Raises:
        TaskError: it has none of that name; those that it has are named.
    """
    import torch

    devices = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        assert kind is not None
        numbers = range(torch.accelerator.device_count())
        devices += [kind.type, *(f"{kind.type}:{number}" for number in numbers)]
    if name.lower() not in devices:
        raise TaskError(
            f"--device {name}: this machine, with this torch, has no such device; allowed: "
            f"{', '.join(devices)}"
        )
    return torch.device(name.lower())


def given(ctx: click.Context) -> dict[str, Any]:
    """The options of the command by their names, for the document."""
    return {
        option.opts[0].lstrip("-").replace("-", "_"): ctx.params[str(option.name)]
        for option in ctx.command.params
        if option.name != "as_json"
    }
