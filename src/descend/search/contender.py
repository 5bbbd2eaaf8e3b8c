"""The contenders of a comparison: an optimizer by name, with what is fixed of it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from descend.errors import SearchError
from descend.optimizer_lookup import check_settings, find_optimizer, is_own, literal, plain_name

BASELINE = "adamw"
USUAL = (BASELINE, "sgd:momentum=0.9", "nadam", "lion", "muon")
"""Those that are compared where nobody is named."""
CONSTANT = "constant"


@dataclass(frozen=True)
class Contender:
    """An optimizer that is compared.

    Args:
        name: as it was given.
        optimizer: its name in the catalogue, or FILE.py:NAME.
        settings: what is fixed of its hyperparameters.
        lr: the learning rate, where that is fixed too; else None, and it is searched.
        default_lr: the optimizer's own.
        constant: whether its learning rate stays constant.
        decays: whether it has a weight decay.

    Example:
        >>> read_contender("sgd:momentum=0.9").settings
        {'momentum': 0.9}

    Source: as for `Trial`.
    """

    name: str
    optimizer: str
    settings: Mapping[str, Any]
    lr: float | None
    default_lr: float
    constant: bool
    decays: bool


def read_contender(text: str) -> Contender:
    """Read a contender: NAME or FILE.py:NAME, and what is fixed: `sgd:momentum=0.9,nesterov=true`.

    `lr=0.1` fixes the learning rate, which is then not searched; `schedule=constant` keeps it
    constant.

    Raises:
        SearchError: it cannot be read.
        HyperparameterError: there is no such optimizer, or it takes no such hyperparameter.
        OptimizerFileError: its file cannot be used.
    """
    own = re.match(r"(.*\.py:\w+)(?::(.*))?$", text)
    optimizer, _, fixed = (own[1], "", own[2] or "") if own else text.partition(":")
    optimizer = plain_name(optimizer)
    make = find_optimizer(optimizer, "compare: ")
    settings: dict[str, Any] = {}
    for part in re.split(r",(?=\s*\w+\s*=)", fixed) if fixed else []:
        name, equals, value = (one.strip() for one in part.partition("="))
        if not (name and equals and value):
            raise SearchError(
                f"{text}: after the name stands NAME=VALUE for what is fixed, such as "
                f"sgd:momentum=0.9,nesterov=true"
            )
        settings[name] = literal(value)
    schedule, lr = settings.pop("schedule", None), settings.pop("lr", None)
    if schedule not in (None, CONSTANT):
        raise SearchError(f"{text}: schedule={schedule}: allowed is {CONSTANT}")
    if lr is not None and (isinstance(lr, bool) or not isinstance(lr, int | float) or lr <= 0):
        raise SearchError(f"{text}: lr={lr}: it must be a number above 0")
    check_settings(optimizer, make, settings, f"{text}: ")
    group = make([torch.nn.Parameter(torch.ones(2, 2))], **settings).param_groups[0]
    if lr is None and not group["lr"] > 0:
        raise SearchError(
            f"{text}: its default lr is {group['lr']}, and the search goes by ratios to that; fix "
            f"one, such as {text}{',' if fixed else ':'}lr=0.1"
        )
    return Contender(
        text if is_own(optimizer) else text.replace(text.partition(":")[0], optimizer, 1),
        optimizer,
        settings,
        None if lr is None else float(lr),
        float(group["lr"]) or float(lr or 0),
        schedule == CONSTANT,
        "weight_decay" in group and "weight_decay" not in settings,
    )


def read_contenders(names: Iterable[str]) -> list[Contender]:
    """Read all of them, tuned AdamW among them and first.

    Raises:
        SearchError: one is there twice.
    """
    found = [read_contender(name) for name in [*names] or USUAL]
    if BASELINE not in [one.name for one in found]:
        found.insert(0, read_contender(BASELINE))
    known: set[str] = set()
    for one in found:
        if one.name in known:
            raise SearchError(f"{one.name} is given twice; give each contender once")
        known.add(one.name)
    return sorted(found, key=lambda one: one.name != BASELINE)
