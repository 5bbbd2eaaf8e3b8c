"""The options of a training in a file, as `descend compare` and `descend tune` write them."""

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from descend.checks import COUNT, SEED, Allowed, Range
from descend.cli.train_options import TrainOptions
from descend.errors import ScheduleError, SearchError
from descend.files import read_whole
from descend.spelling import hint

NUMBERS: dict[str, Allowed] = {
    "lr": Range(0, positive=True, optional=True),
    "steps": COUNT,
    "batch_size": Range(1, whole=True, optional=True),
    "seed": SEED,
}
TEXTS = ("task", "optimizer")
BY_NAME = ("arguments", "settings", "schedules")


def with_file(ctx: click.Context, asked: TrainOptions, path: Path) -> TrainOptions:
    """The options of a file, and those of the command in their place.

    Args:
        ctx: tells which options the command has.
        asked: the options of the command.
        path: the file: a JSON object that has the fields of a `Trial`.

    Raises:
        SearchError: the file cannot be read, or holds something else.
        UsageError: `--unit` has no schedule of the command whose times it could count.
    """
    found = _read(path)
    typed = {
        name for name in asked._fields if ctx.get_parameter_source(name) != ParameterSource.DEFAULT
    }
    if asked.unit is not None and found.get("schedules") and "schedules" not in typed:
        raise click.UsageError(
            f"--unit {asked.unit}: the times of the schedules in {path} are steps; give --schedule "
            f"with it",
            ctx,
        )
    if "data" in typed:
        found.pop("task_file", None)
    if "epochs" in typed:
        found.pop("steps", None)
    for name in typed & found.keys():
        value = getattr(asked, name)
        found[name] = {**found[name], **value} if name in BY_NAME else value
    return asked._replace(**found)


def _read(path: Path) -> dict[str, Any]:
    """The options in a file, by the names that they have here."""
    try:
        content = json.loads(read_whole(path))
    except OSError as error:
        raise SearchError(
            f"--from {path}: it cannot be read ({error.strerror}); give a file that descend "
            f"compare or descend tune has written"
        ) from error
    except ValueError as error:
        raise SearchError(f"--from {path}: it holds no JSON ({error})") from error
    if not isinstance(content, dict):
        raise SearchError(f"--from {path}: it must hold an object, such as {{'lr': 0.1}}")
    for name, value in content.items():
        _check(path, name, value)
    if "task" in content:
        task = content.pop("task")
        content["task_file"] = Path(task) if task else None
    content["arguments"] = {
        name: value if isinstance(value, str) else repr(value)
        for name, value in content.get("arguments", {}).items()
    }
    content["settings"] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content.get("settings", {}).items()
    }
    content["schedules"] = {
        name: _schedule(path, name, text) for name, text in content.get("schedules", {}).items()
    }
    return content


def _check(path: Path, name: str, value: Any) -> None:
    """Refuse what no training has."""
    known = [*TEXTS, *BY_NAME, *NUMBERS]
    if name not in known:
        raise SearchError(
            f"--from {path}: there is no {name!r}; {hint(name, known)}known: {', '.join(known)}"
        )
    if name in NUMBERS:
        NUMBERS[name].check(f"--from {path}: {name}", value, SearchError)
    wanted, words = (str, "a text") if name in TEXTS else (dict, "an object of values by name")
    if name not in NUMBERS and not isinstance(value, wanted):
        raise SearchError(f"--from {path}: {name} must be {words}, got {value!r}")


def _schedule(path: Path, name: str, text: Any) -> Any:
    from descend.schedules import parse

    try:
        return parse(text)
    except (ScheduleError, TypeError) as error:
        raise SearchError(f"--from {path}: the schedule of {name}: {error}") from error
