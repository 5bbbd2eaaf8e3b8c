"""Whether a scheduler is stepped before its optimizer, and so skips the first value of its curve.

It is warned of only where it is a mistake for certain: the first step of the scheduler came before
that of the optimizer, with no gradient computed until then (a step that a `GradScaler` left out has
one), and the optimizer's first step came right after it.
"""

import sys
import threading
import warnings
from typing import Any

import torch
from torch.optim import Optimizer

from descend.base.base_class import Optimizer as Ours
from descend.lr_scheduler.driver import owner_of

Place = tuple[int, int]
"""A thread, and how many operations it has recorded for a backward pass."""

EARLY = "early"
"""The scheduler has stepped once, for no reason that can be seen."""

LINK = "https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate"


def begun(optimizer: Optimizer) -> Place | None:
    """Begin to watch; None where there is nothing to see."""
    owner = owner_of(optimizer)
    hooks = vars(owner).get("_optimizer_step_pre_hooks")
    if hooks is None or vars(owner).get("_opt_called") or owner.state:
        return None
    if note_step not in hooks.values():
        owner.register_step_pre_hook(note_step)
    return _place()


def watched(seen: Any, scheduler: Any) -> Any:
    """The signs before a step of the scheduler; None where there is no more to see."""
    owner = owner_of(scheduler.optimizer)
    stepped = vars(owner).get("_opt_called", False)
    if seen != EARLY and not stepped and not owner.state and seen == _place():
        return EARLY
    if seen == EARLY and stepped:
        warnings.warn(
            f"{type(scheduler).__name__}: step() came before the optimizer's first step, so that "
            f"the first value of its curve was used by none; step the optimizer first, see {LINK}",
            UserWarning,
            stacklevel=_of_the_caller(),
        )
    _forget(owner)
    return None


def over(scheduler: Any) -> None:
    """Watch no more: the scheduler goes on where another was, whose optimizer had stepped."""
    _forget(owner_of(scheduler.optimizer))


def note_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Before the first step of an optimizer: note that there is one."""
    vars(optimizer)["_opt_called"] = True  # torch's name for it
    if isinstance(optimizer, Ours):  # torch's goes through its hooks just now
        _forget(optimizer)


def _of_the_caller() -> int:
    """How far up the stack the line is that stepped the scheduler, or the whole that it is in."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("descend."):
        level, frame = level + 1, frame.f_back
    return level


def _forget(optimizer: Optimizer) -> None:
    hooks = vars(optimizer)["_optimizer_step_pre_hooks"]
    for number in [number for number, hook in hooks.items() if hook is note_step]:
        del hooks[number]


def _place() -> Place:
    return threading.get_ident(), torch._C._autograd._get_sequence_nr()
