"""Scheduler: any schedules of any hyperparameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from descend.checks import plain_number
from descend.errors import ScheduleError, ScheduleTypeError
from descend.format import counted
from descend.lr_scheduler.driver import Order, Values
from descend.lr_scheduler.group_values import has_number, place_of
from descend.lr_scheduler.scheduler_base import LRScheduler
from descend.schedules import Schedule
from descend.spelling import hint

Given = Schedule | Sequence[Schedule | None] | Mapping[int, Schedule]


class Scheduler(LRScheduler):
    r"""Drives hyperparameters of an optimizer by schedules, in steps.

    .. math::
        h_t = f(t) \, h_0 + v(t)

    Args:
        optimizer: descend's or torch's.
        last_epoch: the last step that is over; -1 to begin.
        **schedules: for each hyperparameter a schedule, which is that of all groups, those that are
            added later too; a list with one for each group (or None); or a dict from the number
            of a group to a schedule. "beta1" and "beta2" stand for the two of "betas".

    Raises:
        ScheduleError: the optimizer has no such hyperparameter or group.
        ScheduleTypeError: something is no schedule.

    Example:
        >>> import torch, descend
        >>> from descend.schedules import cosine, linear, value, warmup
        >>> optimizer = descend.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = descend.Scheduler(
        ...     optimizer,
        ...     lr=warmup(10) >> cosine(90),
        ...     weight_decay=linear(100, value(0.1), value(0.01)),
        ...     beta2=linear(100, value(0.9), value(0.99)),
        ... )
        >>> scheduler.seek(55)
        >>> optimizer.param_groups[0]["lr"], round(optimizer.param_groups[0]["betas"][1], 4)
        (0.5, 0.9495)

    Source:
        `torch.optim.lr_scheduler` for the interface; Optax for schedules of any hyperparameter,
        https://optax.readthedocs.io.
    """

    deprecates_epoch = False
    config = ("schedules",)

    def __init__(self, optimizer: Optimizer, *, last_epoch: int = -1, **schedules: Given) -> None:
        self._refuse_no_optimizer(optimizer)
        if not schedules:
            raise ScheduleError(
                "Scheduler: give a schedule, such as lr=warmup(500) >> cosine(9500)"
            )
        complete = getattr(optimizer, "options_of", dict)
        groups = [complete(group) for group in optimizer.param_groups]
        self._given = {key: _checked(groups, key, given) for key, given in schedules.items()}
        for group, options in zip(optimizer.param_groups, groups, strict=True):
            for name, _ in map(place_of, schedules):
                if name in options:
                    group[name] = options[name]  # where the optimizer leaves out its default
        self.keys = tuple(schedules)  # type: ignore[misc]
        super().__init__(optimizer, last_epoch)

    @property
    def schedules(self) -> dict[str, Any]:
        """The expressions, by hyperparameter; for single groups, by their numbers."""
        return {
            key: str(given)
            if isinstance(given, Schedule)
            else {str(group): str(schedule) for group, schedule in given.items()}
            for key, given in self._given.items()
        }

    def _order_of(self, key: str) -> Order:
        """A schedule that gives values comes before those that give factors."""
        given = self._given[key]
        schedules = [given] if isinstance(given, Schedule) else given.values()
        factors = all(schedule.curve.factor for schedule in schedules)
        return Order.FACTORS if factors else Order.VALUES

    def values(self, key: str, time: float, bases: Values) -> Values:
        """The values of the schedules."""
        given = self._given[key]
        if isinstance(given, Schedule):
            factor, value = given.curve.at(time)
            if value:
                return [factor * base + value for base in bases]
            return [factor * base for base in bases]
        return [
            given[group](time, base) if group in given else base for group, base in enumerate(bases)
        ]


def _checked(groups: list[dict[str, Any]], key: str, given: Given) -> Any:
    """A schedule for all groups, or a dict from groups to schedules."""
    if isinstance(given, Schedule):
        for number, group in enumerate(groups):
            _refuse_missing(number, group, key)
        return given
    if isinstance(given, Mapping):  # whose numbers may be NumPy's
        whole = {number: plain_number(number) for number in given}
        chosen: dict[Any, Any] = {
            number if whole[number] is None else whole[number]: schedule
            for number, schedule in given.items()
        }
    elif isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != len(groups):
            raise ScheduleError(
                f"Scheduler: {key} has {counted(len(given), 'schedule')}, and the optimizer "
                f"{counted(len(groups), 'group')}; give one for each group, or one for all"
            )
        chosen = {number: one for number, one in enumerate(given) if one is not None}
    else:
        chosen = {0: given}
    if not chosen:
        raise ScheduleError(
            f"Scheduler: {key} has no schedule for any group; give one, or leave {key} out"
        )
    for number, schedule in chosen.items():
        if not isinstance(schedule, Schedule):
            raise ScheduleTypeError(
                f"Scheduler: {key} must be a schedule, such as cosine(1000), got {schedule!r}"
                + ("; descend.schedules.parse reads one" if isinstance(schedule, str) else "")
            )
        if plain_number(number) not in range(len(groups)):
            raise ScheduleError(
                f"Scheduler: {key} has a schedule for group {number!r}, and the optimizer has the "
                f"groups 0 to {len(groups) - 1}"
            )
        _refuse_missing(number, groups[number], key)
    return chosen


def _refuse_missing(number: int, group: dict[str, Any], key: str) -> None:
    if has_number(group, key):
        return
    known = [name for name in (*group, "beta1", "beta2") if has_number(group, name)]
    raise ScheduleError(
        f"Scheduler: group {number} has no number {key!r}; {hint(key, known)}it has "
        f"{', '.join(known)}"
    )
