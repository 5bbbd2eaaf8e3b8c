"""The options of `descend train`: how they are read, and how they are told again."""

import ast
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from descend.cli.text import narrow
from descend.errors import HyperparameterError, ScheduleError

if TYPE_CHECKING:
    from descend.schedules import Schedule

DEFAULT_EPOCHS, DEFAULT_BATCH_SIZE = 20, 64
DEFAULT_OPTIMIZER = "adamw"
LARGEST_SEED = 2**32 - 1  # the loader's, which is not imported for this: it imports torch


def check_count(ctx: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A whole number of at least 1, or None where none was given."""
    return None if value is None else _whole(option, value, 1, None)


def check_seed(ctx: click.Context, option: click.Parameter, value: str) -> int:
    """A whole number that NumPy takes as a seed."""
    return _whole(option, value, 0, LARGEST_SEED)


def check_workers(ctx: click.Context, option: click.Parameter, value: str) -> int:
    """A number of processes."""
    return _whole(option, value, 0, None)


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
            f"--best {value}: it must be the name of a metric, with :highest or :lowest after it, "
            f"such as --best validation_f1:highest"
        )
    return name, which == "highest"


def _whole(option: click.Parameter, value: str, least: int, most: int | None) -> int:
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if number < least or (most is not None and number > most):
        allowed = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise HyperparameterError(
            f"{option.opts[0]} {value}: it must be a whole number {allowed}, such as "
            f"{option.opts[0]} {option.default or 100}"
        )
    return number


def read_schedules(
    ctx: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> "dict[str, Schedule]":
    """The schedules by hyperparameter, read before anything else: a slip costs no time."""
    schedules: dict[str, Schedule] = {}
    for text in map(narrow, values):
        from descend.schedules.expressions import parse

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
    settings: dict[str, object] = {}
    for given in map(narrow, values):
        name, equals, text = (part.strip() for part in given.partition("="))
        if not (name and equals and text) and given.strip() != "help":
            raise HyperparameterError(
                f"--set {given}: it must be NAME=VALUE, such as --set weight_decay=0.1; --set help "
                f"tells which there are"
            )
        if name in settings:
            raise HyperparameterError(f"--set {given}: {name} has a value already; give one")
        settings[name] = _literal(text)
    return settings


def _literal(text: str) -> object:
    """A value as Python has it, or a text."""
    words: dict[str, object] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def unusual(
    rule: str,
    lr: float | None,
    settings: Mapping[str, object],
    schedules: "Mapping[str, Schedule]",
    unit: str | None,
    batch_size: int,
    accumulate: int,
    seed: int,
) -> dict[str, object]:
    """The options that are not the defaults, for the name of the folder."""
    found: dict[str, object] = {}
    if rule != DEFAULT_OPTIMIZER:
        found[""] = rule
    if lr is not None:
        found["lr"] = f"{lr:g}"
    found |= {f"{name} ": value for name, value in settings.items()}
    if batch_size != DEFAULT_BATCH_SIZE:
        found["batch"] = batch_size
    if accumulate > 1:
        found["accumulate"] = accumulate
    if seed:
        found["seed"] = seed
    for key, schedule in schedules.items():
        found[f"{key} "] = schedule
    if unit not in (None, "step"):
        found["unit "] = unit
    return found


def given(ctx: click.Context) -> dict[str, Any]:
    """The options of the command by their names, for the document."""
    return {
        option.opts[0].lstrip("-").replace("-", "_"): ctx.params[str(option.name)]
        for option in ctx.command.params
        if option.name != "as_json"
    }
