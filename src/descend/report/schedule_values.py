"""The values of schedules and schedulers at any step; nothing that is given is touched."""

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from descend.checks import plain_number, several
from descend.errors import ScheduleError, ScheduleTypeError
from descend.schedules import Schedule
from descend.schedules.schedule_file import is_scheduler

if TYPE_CHECKING:
    import torch

MOST_WALKED = 1_000_000
"""A scheduler that knows its next value only, such as torch's, is not stepped further than this."""

Given: TypeAlias = "Schedule | torch.optim.lr_scheduler.LRScheduler | Mapping[str, Schedule]"
"""A schedule, which is the lr's; one for each hyperparameter; or a scheduler."""

Row: TypeAlias = dict[str, list[float]]
"""For each hyperparameter its value in each group; empty where there is none."""

Rows: TypeAlias = Callable[[Iterable[int]], Iterator[Row]]
"""From rising steps to a row for each."""


class Source(NamedTuple):
    """Something with values at steps.

    Args:
        name: of the curve.
        rows: from rising steps to a row for each.
        length: when it ends; infinity if it never does, or if that is not known.
        marks: of which hyperparameter, and when: where its parts begin, but the first.
        factors: which of the hyperparameters are factors of a base that is not known.
        keys: the hyperparameters that it is about; of others, only those that vary are shown.
        most: how many steps of it can be shown.
        note: a remark for the reader of the picture.

    Example:
        >>> from descend.schedules import cosine
        >>> list(source_of("", cosine(2)).rows([0, 1]))
        [{'lr': [1.0]}, {'lr': [0.5]}]
    """

    name: str
    rows: Rows
    length: float = math.inf
    marks: tuple[tuple[str, float], ...] = ()
    factors: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ("lr",)
    most: float = math.inf
    note: str = ""


def source_of(
    name: str, given: Given, base: float | Mapping[str, float] = 1.0, every: int = 1
) -> Source:
    """A schedule or a scheduler as a source of values.

    Args:
        name: of the curve.
        given: the schedule, the schedules, or the scheduler.
        base: what the optimizer was given: the lr, or a number for each hyperparameter. A scheduler
            knows it.
        every: how many steps one step of a scheduler takes: those of an epoch, if it is stepped
            once in each.

    Raises:
        ScheduleTypeError: it is none of these.

    Example:
        >>> from descend.schedules import linear
        >>> next(source_of("", {"beta1": linear(4)}).rows([3]))
        {'beta1': [0.25]}
    """
    if isinstance(given, Schedule):
        given = {"lr": given}
    if isinstance(given, Mapping):
        for key, schedule in given.items():
            if not isinstance(schedule, Schedule):
                raise ScheduleTypeError(
                    f"{name or 'the schedules'}: {key} must be a schedule, such as cosine(1000), "
                    f"got {schedule!r}"
                )
        return _of_schedules(name, given, dict(base) if isinstance(base, Mapping) else {"lr": base})
    if not is_scheduler(given):
        raise ScheduleTypeError(
            f"{name + ': ' if name else ''}a schedule, such as cosine(1000), or a scheduler is "
            f"needed, got {given!r}"
            + ("; descend.schedules.parse reads one" if isinstance(given, str) else "")
        )
    source = _of_scheduler(name, given)
    return source._replace(
        rows=lambda steps: source.rows(step // every for step in steps),
        length=source.length * every,
        most=source.most * every,
        marks=tuple((key, mark * every) for key, mark in source.marks),
    )


def schedules_of(given: object) -> dict[str, Schedule]:
    """The schedules that a schedule or a scheduler is made of, by what they drive.

    Example:
        >>> from descend.schedules import cosine
        >>> schedules_of(cosine(10))
        {'lr': cosine(10)}
    """
    found = {}
    driving = {"lr": given} if isinstance(given, Schedule) else getattr(given, "_given", {})
    for key, one in driving.items():
        if isinstance(one, Schedule):
            found[key] = one
        else:
            found |= {f"{key} of group {group}": schedule for group, schedule in one.items()}
    return found


def _of_schedules(
    name: str, schedules: Mapping[str, Schedule], bases: Mapping[str, float]
) -> Source:
    def rows(steps: Iterable[int]) -> Iterator[Row]:
        step = 0
        try:
            for step in steps:
                yield {key: [one(step, bases.get(key, 1.0))] for key, one in schedules.items()}
        except OverflowError as error:
            raise ScheduleError(
                f"{name or ', '.join(map(str, schedules.values()))}: at step {step:,} the value is "
                "larger than any number; give fewer steps, or an end: clip or until"
            ) from error

    return Source(
        name,
        rows,
        _last_end(schedules),
        tuple((key, mark) for key, one in schedules.items() for mark in one.joins()),
        frozenset(
            key
            for key, one in schedules.items()
            if not one.curve.absolute and bases.get(key, 1.0) == 1.0
        ),
        tuple(schedules),
    )


def _of_scheduler(name: str, scheduler: Any) -> Source:
    parts = list(_flat(scheduler))
    kinds = {kind.__name__ for part in parts for kind in type(part).__mro__}
    schedules = schedules_of(scheduler)
    source = Source(
        name,
        _stepped(name, scheduler),
        _last_end(schedules) if schedules else _known_length(scheduler),
        (
            *((key.split()[0], mark) for key, one in schedules.items() for mark in one.joins()),
            *(("lr", float(mark)) for mark in getattr(scheduler, "_milestones", ())),
        ),
        most=MOST_WALKED,
        note="what it will measure is not known: it is shown as if it never reduced anything"
        if "ReduceLROnPlateau" in kinds
        else "",
    )
    pure = all(getattr(part, "pure", False) for part in parts)
    if pure and "MultiplicativeLR" not in kinds:  # whose product of all epochs is best stepped
        return source._replace(rows=_asked(scheduler), keys=scheduler.keys, most=math.inf)
    if source.note:
        level = {"lr": _numbers(scheduler.optimizer.param_groups)["lr"]}
        return source._replace(rows=lambda steps: (level for _ in steps), most=math.inf)
    last = getattr(scheduler, "total_steps", None)
    if "OneCycleLR" in kinds and isinstance(last, int):
        return source._replace(
            rows=_stepped(name, scheduler, last - 1),
            note=f"torch's OneCycleLR raises an error in step {last:,}; descend's holds its value",
        )
    return source


def _asked(scheduler: Any) -> Rows:
    """The values of a scheduler that is a pure function of the step, descend's."""

    def rows(steps: Iterable[int]) -> Iterator[Row]:
        bases = scheduler.bases()
        for step in steps:
            yield {
                key: [float(value) for value in scheduler.values(key, step, start)]
                for key, start in bases.items()
            }

    return rows


def _stepped(name: str, scheduler: Any, last: float = math.inf) -> Rows:
    """The values of a scheduler that has to be stepped: a copy is.

    Args:
        name: of the curve, for the messages.
        scheduler: torch's, or any other.
        last: the last step that it can be in.
    """

    def rows(steps: Iterable[int]) -> Iterator[Row]:
        copied = _copied(name, scheduler)
        positions = [part.last_epoch for part in _flat(scheduler) if hasattr(part, "last_epoch")]
        now = first = max(0, min(positions, default=0))  # a ChainedScheduler's is its parts'
        for step in steps:
            if not first <= step <= last:
                yield {}
                continue
            try:
                with warnings.catch_warnings():  # of the order: no optimizer steps here
                    warnings.simplefilter("ignore")
                    for _ in range(now, step):
                        copied.step()
            except Exception as error:
                raise ScheduleError(
                    f"{name or 'the scheduler'}: {type(copied).__name__} cannot be stepped: "
                    f"{type(error).__name__}: {error}"
                ) from error
            now = step
            yield _numbers(copied.optimizer.param_groups)

    return rows


def _copied(name: str, scheduler: Any) -> Any:
    """A scheduler with an optimizer of its own.

    It has the same parameters, and no state of them: a copy of those could fill a GPU.
    """
    optimizer = scheduler.optimizer
    memo: dict[int, Any] = {
        id(param): param for group in optimizer.param_groups for param in group["params"]
    }
    memo[id(optimizer.state)] = defaultdict(dict)
    try:
        return copy.deepcopy(scheduler, memo)
    except Exception as error:
        raise ScheduleError(
            f"{name or 'the scheduler'}: {type(scheduler).__name__} cannot be copied, so it cannot "
            f"be shown without changing it: {type(error).__name__}: {error}"
        ) from error


def _numbers(groups: list[dict[str, Any]]) -> Row:
    """All hyperparameters of groups that are numbers; "beta1" and "beta2" are those of "betas"."""
    plain = []
    for group in groups:
        betas = several(group.get("betas"), 2)
        options = {**group, **dict(zip(("beta1", "beta2"), betas, strict=False))}
        numbers = {key: plain_number(value) for key, value in options.items()}
        plain.append({key: float(number) for key, number in numbers.items() if number is not None})
    return {
        key: [numbers[key] for numbers in plain]
        for key in plain[0]
        if all(key in numbers for numbers in plain)
    }


def _flat(scheduler: Any) -> Iterator[Any]:
    """A scheduler and all that it is made of."""
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from _flat(part)


def _last_end(schedules: Mapping[str, Schedule]) -> float:
    """When the last of those that end does so."""
    lengths = [schedule.length for schedule in schedules.values()]
    return max((length for length in lengths if length < math.inf), default=math.inf)


def _known_length(scheduler: Any) -> float:
    """When a scheduler ends, where one of torch's arguments says so."""
    for name in ("total_steps", "T_max", "total_iters"):
        length = plain_number(getattr(scheduler, name, None))
        if length is not None and 0 < length < math.inf:
            return length
    return math.inf
