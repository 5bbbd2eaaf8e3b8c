"""The option --lr."""

import math

import click

from descend.cli.text import narrow
from descend.errors import HyperparameterError


def check_lr(ctx: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """A learning rate, or None where none was given.

    Args:
        ctx: of the command.
        option: --lr.
        value: what was given.

    Raises:
        HyperparameterError: it is no finite number above 0.
    """
    if value is None:
        return None
    try:
        lr = float(narrow(value))
    except ValueError:
        lr = math.nan
    if not (math.isfinite(lr) and lr > 0):
        raise HyperparameterError(
            f"--lr {value}: the learning rate must be a finite number above 0, such as --lr 0.001"
        )
    return lr
