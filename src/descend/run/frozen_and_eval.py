"""The modes of a model, beside its state: which parameters learn, which modules evaluate.

No `state_dict` holds that, and a training that freezes or unfreezes something on its way depends
on it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.nn import Module

from descend.optimizers.schedule_free import ScheduleFree

MOST = 5  # differences in a message

Modes = dict[str, dict[str, list[str]]]


def modes(objects: Mapping[str, Any]) -> Modes:
    """For each model among some objects, the frozen parameters and the modules in evaluation mode.

    Example:
        >>> import torch
        >>> modes({"model": torch.nn.Linear(1, 1).requires_grad_(False)})
        {'model': {'frozen': ['weight', 'bias'], 'evaluating': []}}
    """
    return {
        name: {
            "frozen": [n for n, one in thing.named_parameters() if not one.requires_grad],
            "evaluating": [n for n, one in thing.named_modules() if not one.training],
        }
        for name, thing in objects.items()
        if isinstance(thing, Module)
    }


def put_modes(objects: Mapping[str, Any], saved: Modes) -> None:
    """Put the models into the modes that `modes` gave."""
    for name, of_model in saved.items():
        frozen, evaluating = set(of_model["frozen"]), set(of_model["evaluating"])
        for own, parameter in objects[name].named_parameters():
            if parameter.requires_grad == (own in frozen):
                parameter.requires_grad_(own not in frozen)
        for own, module in objects[name].named_modules():
            module.training = own not in evaluating


@contextmanager
def averages_in_place(objects: Mapping[str, Any]) -> Iterator[list[str]]:
    """Let the models hold the averages that schedule-free optimizers make, and nothing be lost.

    Only of those whose way back is exact to the bit, so that a save changes nothing of a training.

    Args:
        objects: models, optimizers and others.

    Yields:
        The names of the optimizers that are put in evaluation mode meanwhile.
    """
    training = [
        name
        for name, one in objects.items()
        if isinstance(one, ScheduleFree) and any(group["train_mode"] for group in one.param_groups)
    ]
    try:
        for name in training:
            objects[name].eval()
        yield training
    finally:
        for name in training:
            objects[name].train()


def described(here: Modes, there: Modes) -> str:
    """In what the modes of the same models differ."""
    found = []
    for name, of_model in here.items():
        for mode, names in of_model.items():
            before = there.get(name, {}).get(mode, [])
            for one in sorted({*names} ^ {*before}):
                whole = f"{name}.{one}" if one else name
                found.append(f"{whole} is {'' if one in names else 'not '}{mode}")
    more = [f"{len(found) - MOST} more"] if len(found) > MOST else []
    return ", ".join(found[:MOST] + more)
