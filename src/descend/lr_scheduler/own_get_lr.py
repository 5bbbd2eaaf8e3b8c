"""A subclass with a `get_lr` of its own, as torch's have: what it says, and its state.

It may go on from the lr that it finds in the groups. So it is asked once for each time, finds what
it said before, and its answer is kept: for other bases, as a factor of them.
"""

import math
from typing import Any

from descend.lr_scheduler.slot import read
from descend.lr_scheduler.state import plain
from descend.lr_scheduler.track import Track, Values

Answer = tuple[float, Values, Values]
"""When it was asked, what it said, and for what bases."""


def asked(scheduler: Any, time: float) -> Answer:
    """What `get_lr` says of a time; the groups hold what it found, for the caller to overwrite.

    Args:
        scheduler: the subclass's.
        time: from 0.
    """
    before: Answer | None = scheduler._answer
    groups, starts = scheduler.optimizer.param_groups, list(scheduler.base_lrs)
    there = [read(group, "lr") for group in groups]
    jump = before is None or time != before[0] + 1
    apart = Track("lr")  # not the optimizer's, which would take it for the lr
    scheduler.last_epoch = math.floor(time)
    scheduler._get_lr_called_within_step = True
    try:
        apart.put(groups, starts if before is None or jump else factored(before, starts))
        closed = getattr(scheduler, "_get_closed_form_lr", None)
        sought = jump and before is not None and closed is not None
        said = closed() if sought else scheduler.get_lr()  # type: ignore[misc]
        return time, [float(value) for value in said], starts
    except BaseException:
        apart.put(groups, there)
        raise
    finally:
        scheduler._get_lr_called_within_step = False


def factored(answer: Answer, bases: Values) -> Values:
    """An answer, for other bases than it was given for.

    Args:
        answer: what `asked` returned.
        bases: as many as there are groups; those beyond the answer stay.
    """
    _, said, starts = answer
    return [
        value if base == start or not start else base * (value / start)
        for base, value, start in zip(bases, said, starts, strict=False)
    ] + list(bases[len(said) :])


def own_state(scheduler: Any) -> dict[str, Any]:
    """Whatever the subclass has set, as in torch's state, and its last answer.

    Args:
        scheduler: the subclass's.
    """
    own = {key: value for key, value in vars(scheduler).items() if key not in _LIVE}
    return {**own, "_answer": plain(scheduler._answer)}


def take_over_own(scheduler: Any, state: dict[str, Any]) -> None:
    """Set what the subclass had set, and its last answer; torch's state has that in the lr.

    Args:
        scheduler: the subclass's, where the position and the bases are set.
        state: its own, or torch's.
    """
    vars(scheduler).update({key: value for key, value in state.items() if key not in _NOT_OWN})
    here, last = scheduler.base_lrs, scheduler.last_epoch
    time, said, starts = state.get("_answer") or (last, state.get("_last_lr", here), here)
    scheduler._answer = (time, list(said), list(starts))


_OF_TORCH = {"_is_initial", "_get_lr_called_within_step"}
_LIVE = {"optimizer", "_tracks", "_single", "_plain", "_owner", "_others", "_answer"} | _OF_TORCH
_NOT_OWN = _LIVE | {"base_lrs", "bases", "last_epoch", "_step_count", "_last_lr", "_fraction"}
