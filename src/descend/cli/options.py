"""Options of the commands: what one may be is declared, and told in the same words everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from descend.checks import COUNT, Allowed, Choice, Range
from descend.cli.text import narrow

LR = Range(0, positive=True)
"""A learning rate."""

UNIT = Choice(("step", "epoch", "fraction"))
"""The units of the times of a schedule."""


A_PATH = click.Path(path_type=Path)
"""The type of a file or a folder, there or not."""


class Declared(click.ParamType):  # type: ignore[type-arg] # older ones take none
    """The type of an option whose allowed values are declared.

    Args:
        allowed: the declaration.
        such: a value for the example of an error.
    """

    name = "value"

    def __init__(self, allowed: Allowed, such: object) -> None:
        self.allowed, self.such = allowed, such

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """The value in the text of an option.

        Raises:
            UsageError: it is not allowed.
        """
        if not isinstance(value, str):  # a default
            return value
        read = self.allowed.read(narrow(value))
        if not self.allowed.admits(read):
            name = param.opts[0] if param else self.name
            advice = self.allowed.advice(read)
            raise click.UsageError(
                f"{name} {value}: it must be {self.allowed}, such as {name} {self.such}"
                f"{f'; {advice}' if advice else ''}",
                ctx,
            )
        return read


def option(
    *names: str, allowed: Allowed = COUNT, such: object = 100, **more: Any
) -> Callable[..., Any]:
    """An option whose values are declared.

    Args:
        *names: as of `click.option`.
        allowed: the declaration; a count if none is given.
        such: a value for the example of an error, where there is no default.
        **more: as of `click.option`.
    """
    if isinstance(allowed, Choice):
        metavar = f"[{'|'.join(map(str, allowed.values))}]"
    else:
        metavar = "N" if isinstance(allowed, Range) and allowed.whole else "NUMBER"
    default = more.get("default")
    declared = Declared(allowed, such if default is None else default)
    told: dict[str, Any] = {"metavar": metavar, "show_default": default is not None, **more}
    return click.option(*names, type=declared, **told)


def path_option(*names: str, metavar: str, help: str) -> Callable[..., Any]:
    """An option for a file or a folder."""
    return click.option(*names, metavar=metavar, help=help, type=A_PATH)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)

json_at_end_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document at the end and nothing else; what is shown on the way goes to "
    "stderr.",
)
