"""A subclass with a `get_lr` of its own, as torch's have: it steps as torch's do.

Its `get_lr` says the lr, once, whoever else drives. Its bases are a list of its own. Beside it
torch's own classes step as torch's do, too: from the lr that is there, or from their bases; so does
each part of a sequence or a chain in which there is one.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from descend.lr_scheduler.driver import Driver, Values
from descend.lr_scheduler.group_values import mark_of, read, write

# Attributes that are no part of a state: of the one that lives, not of its position.
LIVE = {
    "optimizer",
    "_drivers",
    "_owner",
    "_others",
    "_torch_style",
    "_rebuilt",
    "_early",
    "_is_initial",
    "_get_lr_called_within_step",
}


def marking(method: Callable[..., Any]) -> Callable[..., Any]:
    """A `__init__` or `step` of a subclass's own, which may write what it likes: that is noted."""

    @functools.wraps(method)
    def marked(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(scheduler, *args, **kwargs)
        if scheduler._torch_style:
            mark_foreign(scheduler)
        return result

    return marked


def mark_foreign(scheduler: Any) -> None:
    """Note what the scheduler has left in the groups, so that it is told from the user's hand."""
    driver: Driver | None = scheduler._drivers.get("lr")
    if driver is not None:
        driver.foreign = list(map(mark_of, driver.held(scheduler.optimizer.param_groups)))


def write_lrs(scheduler: Any, values: Values) -> None:
    """Write an lr into each group, and note it; of a class of torch's, as its own."""
    marks = write(scheduler.optimizer.param_groups, "lr", None, values)
    driver: Driver | None = scheduler._drivers.get("lr")
    if driver is not None:
        driver.foreign = marks
        if not scheduler._torch_style:
            driver.written = marks


def move(scheduler: Any, epoch: float | None) -> None:
    """Go to the next epoch or to a given one, and write what `get_lr` says; as torch does."""
    groups = scheduler.optimizer.param_groups
    before, fraction = scheduler.last_epoch, scheduler._fraction
    there = [read(group, "lr") for group in groups]
    bases = vars(scheduler).get("base_lrs")
    if isinstance(bases, list):  # groups that were added, which torch refuses
        bases += [float(group.get("initial_lr", group["lr"])) for group in groups[len(bases) :]]
    try:
        if epoch is None or not scheduler.form:
            scheduler.last_epoch = before + 1 if epoch is None else epoch
        else:
            scheduler.last_epoch, scheduler._fraction = scheduler._position(epoch)
        write_lrs(scheduler, lrs_of_get_lr(scheduler, closed=epoch is not None))
    except BaseException:
        scheduler.last_epoch, scheduler._fraction = before, fraction
        write(groups, "lr", None, there)  # it may have written before it failed
        raise
    scheduler._step_count += 1
    scheduler._last_lr = there_now(scheduler)


def lrs_of_get_lr(scheduler: Any, closed: bool) -> Values:
    """The lr of each group as `get_lr` says it."""
    form = getattr(scheduler, "_get_closed_form_lr", None) if closed else None
    scheduler._get_lr_called_within_step = True
    try:
        values = [float(value) for value in (form or scheduler.get_lr)()]
    finally:
        scheduler._get_lr_called_within_step = False
    if len(values) != len(scheduler.optimizer.param_groups):
        scheduler._refuse_count(len(values))
    return values


def continued(scheduler: Any, time: float) -> Values:
    """The lr that is there, moved along the curve of a class from the epoch before, as in torch."""
    now = [read(group, "lr") for group in scheduler.optimizer.param_groups]
    if scheduler._is_initial and time > 0:  # resumed: the lr of that epoch is there
        return now
    curve = functools.partial(scheduler.values, "lr")
    if time <= 0:
        return list(curve(time, now))
    low, high = (curve(time - 1, [of] * len(now)) for of in (0.0, 1.0))
    slopes = [b - a for a, b in zip(low, high, strict=True)]
    solved = [
        (lr - at_zero) / slope if slope else float(base)
        for lr, at_zero, slope, base in zip(now, low, slopes, scheduler.base_lrs, strict=True)
    ]
    before, after = curve(time - 1, solved), curve(time, solved)
    # Where the curve was at its minimum, whatever the base: so much more as it rises by.
    return [
        value if slope else lr + (value - last)
        for lr, last, value, slope in zip(now, before, after, slopes, strict=True)
    ]


def there_now(scheduler: Any) -> list[Any]:
    """The lr that is there in each group; tensors are copied."""
    return [
        value.detach().clone() if isinstance(value, Tensor) else value
        for value in (group["lr"] for group in scheduler.optimizer.param_groups)
    ]


def step_as_torch(scheduler: Any) -> None:
    """Let a part step as torch's do from now on, because another part of the whole does."""
    scheduler._early = scheduler._owner = None
    for part in vars(scheduler).get("_schedulers", ()):
        step_as_torch(part)
    if not scheduler._torch_style:
        groups = scheduler.optimizer.param_groups
        bases = [float(base) for base in scheduler.base_lrs] or [read(g, "lr") for g in groups]
        scheduler._torch_style = True
        vars(scheduler)["base_lrs"] = bases


def preview(scheduler: Any, steps: int) -> dict[str, list[list[float]]]:
    """The lr of each step, from a copy that steps."""
    twin = copy.deepcopy(scheduler)
    write_lrs(twin, [float(base) for base in twin.base_lrs])
    twin.seek(0)
    seen = []
    for time in range(steps):
        if time:
            twin.step()
        seen.append([read(group, "lr") for group in twin.optimizer.param_groups])
    return {"lr": seen}


def state_of(scheduler: Any) -> dict[str, Any]:
    """All that the subclass has set, as in torch's state."""
    state = {key: value for key, value in vars(scheduler).items() if key not in LIVE}
    for name in ("base_lrs", "_last_lr"):
        if name in state:
            state[name] = [float(value) for value in state[name]]
    state.setdefault("_last_lr", [read(group, "lr") for group in scheduler.optimizer.param_groups])
    return state


def take_over(scheduler: Any, state: dict[str, Any]) -> None:
    """Set all that the subclass had set, its bases and its lr."""
    own = {key: value for key, value in state.items() if key not in (*LIVE, "bases")}
    for name in ("base_lrs", "_last_lr"):
        if name in own:
            own[name] = list(own[name])
    vars(scheduler).update(own)
