"""A subclass with a `get_lr` of its own, as torch's have: it steps as torch's do.

What it says is set, once, whoever else drives. Its bases are a list of its own. Beside it torch's
own classes step as torch's do, too: from the lr that is there, or from their bases; so does each
part of a sequence or a chain in which there is one.
"""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from descend.lr_scheduler.slot import read
from descend.lr_scheduler.track import Track, Values


def noting(method: Callable[..., Any]) -> Callable[..., Any]:
    """A `__init__` or `step` of a subclass's own, which may write what it likes: that is noted.

    Args:
        method: the subclass's.
    """

    @functools.wraps(method)
    def noted(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(scheduler, *args, **kwargs)
        note(scheduler)
        return result

    return noted


def note(scheduler: Any) -> None:
    """Note what the scheduler has left in the groups, so that it is told from the user's hand.

    Args:
        scheduler: the subclass's.
    """
    track = scheduler._tracks.get("lr")
    if scheduler._by_hand and track is not None:
        track.note_foreign(scheduler.optimizer.param_groups)


def move(scheduler: Any, epoch: float | None) -> None:
    """Go to the next epoch or to a given one, and write what `get_lr` says; as torch does.

    Args:
        scheduler: the subclass's.
        epoch: where to; None for the next.
    """
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
        write(scheduler, said(scheduler, closed=epoch is not None))
    except BaseException:
        scheduler.last_epoch, scheduler._fraction = before, fraction
        Track("lr").put(groups, there)  # it may have written before it failed
        raise
    scheduler._step_count += 1
    vars(scheduler)["_last_lr"] = there_now(scheduler)


def there_now(scheduler: Any) -> list[Any]:
    """The lr that is there in each group; tensors are copied.

    Args:
        scheduler: of the optimizer.
    """
    return [
        value.detach().clone() if isinstance(value, Tensor) else value
        for value in (group["lr"] for group in scheduler.optimizer.param_groups)
    ]


def become(scheduler: Any) -> None:
    """Let a part step as torch's do from now on, because another part of the whole does.

    Args:
        scheduler: the part.
    """
    scheduler._order = None
    for part in vars(scheduler).get("_schedulers", ()):
        become(part)
    if not scheduler._by_hand:
        groups = scheduler.optimizer.param_groups
        bases = [float(base) for base in scheduler.base_lrs] or [read(g, "lr") for g in groups]
        scheduler._by_hand, scheduler._single = True, None
        vars(scheduler)["base_lrs"] = bases


def said(scheduler: Any, closed: bool) -> Values:
    """What the subclass says that the lr of each group is in this epoch.

    Args:
        scheduler: the subclass's.
        closed: whether to ask its closed form, if it has one, as torch does in `step(epoch)`.
    """
    form = getattr(scheduler, "_get_closed_form_lr", None) if closed else None
    scheduler._get_lr_called_within_step = True
    try:
        values = [float(value) for value in (form or scheduler.get_lr)()]
    finally:
        scheduler._get_lr_called_within_step = False
    if len(values) != len(scheduler.optimizer.param_groups):
        scheduler._refuse_count(len(values))
    return values


def write(scheduler: Any, values: Values) -> None:
    """Write an lr into each group, and note it.

    Args:
        scheduler: the subclass's.
        values: for each group.
    """
    # Not the optimizer's own track, which would take it for what descend's schedulers have said.
    groups = scheduler.optimizer.param_groups
    Track("lr").put(groups, values, shared=True)
    if "lr" in scheduler._tracks:
        scheduler._tracks["lr"].note_foreign(groups)


def own_state(scheduler: Any) -> dict[str, Any]:
    """Whatever the subclass has set, as in torch's state.

    Args:
        scheduler: the subclass's.
    """
    state = {key: value for key, value in vars(scheduler).items() if key not in _LIVE}
    for name in ("base_lrs", "_last_lr"):
        if name in state:
            state[name] = [float(value) for value in state[name]]
    state.setdefault("_last_lr", [read(group, "lr") for group in scheduler.optimizer.param_groups])
    return state


def take_over_own(scheduler: Any, state: dict[str, Any]) -> None:
    """Set what the subclass had set, its bases and its lr.

    Args:
        scheduler: the subclass's.
        state: its own, or torch's.
    """
    own = {key: value for key, value in state.items() if key not in (*_LIVE, "bases")}
    for name in ("base_lrs", "_last_lr"):
        if name in own:
            own[name] = list(own[name])
    vars(scheduler).update(own)


def gone_on(scheduler: Any, time: float) -> Values:
    """What the curve of the class that is extended makes of the lr that is there, as in torch.

    Args:
        scheduler: the subclass's, whose `get_lr` asks the one that it overrides.
        time: the epoch that it is in.
    """
    groups = scheduler.optimizer.param_groups
    now, bases = [read(group, "lr") for group in groups], list(map(float, scheduler.base_lrs))
    if scheduler._is_initial and time > 0:  # resumed: the lr of that epoch is there
        return now
    if time <= 0:
        return list(scheduler.values("lr", time, now))

    def curve(when: float, starts: Values) -> Values:
        values: Values = scheduler.values("lr", when, starts)
        return values

    low, high = (curve(time - 1, [float(of)] * len(groups)) for of in (0, 1))
    slopes = [b - a for a, b in zip(low, high, strict=True)]
    solved = [
        (lr - at_zero) / slope if slope else base
        for lr, at_zero, slope, base in zip(now, low, slopes, bases, strict=True)
    ]
    before, after = curve(time - 1, solved), curve(time, solved)
    # Where the curve was at its minimum, whatever the base: so much more as it rises by.
    return [
        value if slope else lr + (value - last)
        for lr, last, value, slope in zip(now, before, after, slopes, strict=True)
    ]


_LIVE = {
    "optimizer",
    "_tracks",
    "_single",
    "_plain",
    "_owner",
    "_others",
    "_asked",
    "_by_hand",
    "_rebuilt",
    "_written_bases",
    "_order",
    "_is_initial",
    "_get_lr_called_within_step",
}
