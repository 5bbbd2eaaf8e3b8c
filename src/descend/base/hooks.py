"""Hooks around a step, and what becomes of an optimizer's hooks when it is copied or pickled."""

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch._C._autograd import _profiler_enabled
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.utils.hooks import RemovableHandle

from descend.errors import HookError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

KINDS = {
    "_optimizer_step_pre_hooks": "step pre-hook",
    "_optimizer_step_post_hooks": "step post-hook",
    "_optimizer_state_dict_pre_hooks": "state_dict pre-hook",
    "_optimizer_state_dict_post_hooks": "state_dict post-hook",
    "_optimizer_load_state_dict_pre_hooks": "load_state_dict pre-hook",
    "_optimizer_load_state_dict_post_hooks": "load_state_dict post-hook",
}
"""Where torch keeps an optimizer's hooks, and what it calls them."""

UNLABELLED = nullcontext()

_stepping = threading.local()


def around(optimizer: torch.optim.Optimizer, step: Callable[..., Any], arguments: Arguments) -> Any:
    """Call a step with the hooks around it, and under torch's label while a profiler runs.

    The step of a subclass that calls the one it extends is one step: hooks and label come once.

    Args:
        optimizer: whose step it is.
        step: the function.
        arguments: what it was called with, the optimizer first; a pre-hook may replace them.
    """
    inside = _stepping.__dict__.setdefault("optimizers", set())
    if id(optimizer) in inside:
        args, kwargs = arguments
        return step(*args, **kwargs)
    inside.add(id(optimizer))
    try:
        with labelled(f"Optimizer.step#{type(optimizer).__name__}.step"):
            return _hooked(optimizer, step, arguments)
    finally:
        inside.discard(id(optimizer))


def labelled(label: str) -> AbstractContextManager[Any]:
    """Label a block while a profiler runs."""
    return torch.autograd.profiler.record_function(label) if _profiler_enabled() else UNLABELLED


def _hooked(
    optimizer: torch.optim.Optimizer, step: Callable[..., Any], arguments: Arguments
) -> Any:
    # Lists: a hook may add or remove hooks. What it adds runs from the next time on.
    before = [
        *_global_optimizer_pre_hooks.values(),
        *optimizer._optimizer_step_pre_hooks.values(),
    ]
    for hook in before:
        answer = hook(optimizer, *arguments)
        if answer is not None:
            if not isinstance(answer, tuple) or len(answer) != 2:  # noqa: PLR2004 - a pair
                raise HookError(
                    f"a step pre-hook must return None or (args, kwargs), got {answer!r}"
                )
            arguments = answer
    args, kwargs = arguments
    result = step(*args, **kwargs)
    optimizer._optimizer_step_code()  # where a profiler that traces Python looks at the state
    after = [
        *optimizer._optimizer_step_post_hooks.values(),
        *_global_optimizer_post_hooks.values(),
    ]
    for post in after:
        post(optimizer, args, kwargs)
    return result


def reserve_numbers(optimizer: torch.optim.Optimizer) -> None:
    """See to it that no later handle gets the number of a hook that was unpickled.

    Torch numbers handles from zero in each process, and a second hook takes the first one's place.
    """
    for attribute in KINDS:
        numbers = optimizer.__dict__[attribute]
        RemovableHandle.next_id = max(RemovableHandle.next_id, 1 + max(numbers, default=-1))


def refuse_unpicklable(optimizer: torch.optim.Optimizer) -> None:
    """Raise if a hook is a function that pickle could not find again.

    Raises:
        HookError: names the hook.
    """
    for attribute, kind in KINDS.items():
        for hook in optimizer.__dict__[attribute].values():
            found = _named(hook)
            if not _importable(found):
                code = getattr(found, "__code__", None)
                line = f" of line {code.co_firstlineno}" if code else ""
                raise HookError(
                    f"{type(optimizer).__name__}: the {kind} "
                    f"{found.__module__}.{found.__qualname__}{line} cannot be pickled: pickle "
                    "stores a function as its module and name; define it at the top level of a "
                    "module, or take it off first: handle.remove()"
                )


def _named(hook: Any) -> Any:
    """The object that pickle looks up by name: a function under partials, or an object's class."""
    while isinstance(hook, partial):
        hook = hook.func
    owner = getattr(hook, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):  # a method
        hook = owner
    return hook if hasattr(hook, "__qualname__") else type(hook)


def _importable(found: Any) -> bool:
    place: Any = sys.modules.get(found.__module__)
    for part in found.__qualname__.split("."):
        place = getattr(place, part, None)
    return place is found
