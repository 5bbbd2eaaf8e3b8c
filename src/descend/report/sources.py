"""Schedules and schedulers as sources of values at steps; nothing that is given is touched."""

import copy
import math
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from descend.errors import ScheduleError, ScheduleTypeError
from descend.schedules import Schedule

if TYPE_CHECKING:
    import torch

MOST_WALKED = 1_000_000
"""A scheduler that knows its next value only, such as torch's, is not stepped further than this."""

MOST_MARKS = 24
"""More parts than this are not marked: the marks would hide the curve."""

Given: TypeAlias = "Schedule | torch.optim.lr_scheduler.LRScheduler | Mapping[str, Schedule]"
"""A schedule, which is the lr's; one for each hyperparameter; or a scheduler."""

Row: TypeAlias = dict[str, list[float]]
"""For each hyperparameter its value in each group; empty where there is none."""


class Source(NamedTuple):
    """Something with values at steps.

    Args:
        name: of the curve.
        rows: from rising steps to a row for each.
        length: when it ends; infinity if it never does, or if that is not known.
        marks: of which hyperparameter, and when: where its parts begin, but the first.
        factors: which of the hyperparameters are factors of a base that is not known.
        keys: the hyperparameters that it is about; of others, only what varies is shown.
        most: how many steps of it can be shown.
        note: what should be known about it.

    Example:
        >>> from descend.schedules import cosine
        >>> list(source_of("", cosine(2)).rows([0, 1]))
        [{'lr': [1.0]}, {'lr': [0.5]}]
    """

    name: str
    rows: Callable[[Iterable[int]], Iterator[Row]]
    length: float = math.inf
    marks: tuple[tuple[str, float], ...] = ()
    factors: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ("lr",)
    most: float = math.inf
    note: str = ""


def source_of(
    name: str, given: Given, base: float | Mapping[str, float] = 1.0, every: int = 1
) -> Source:
    """What a schedule or a scheduler says, as a source of values.

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

    Source: an idea of Optax, where a schedule is a function that can be called at any step,
    https://optax.readthedocs.io.
    """
    if isinstance(given, Schedule):
        return _of_schedules(name, {"lr": given}, base)
    if isinstance(given, Mapping):
        for key, schedule in given.items():
            if not isinstance(schedule, Schedule):
                raise ScheduleTypeError(
                    f"{name or 'the schedules'}: {key} must be a schedule, such as cosine(1000), "
                    f"got {schedule!r}"
                )
        return _of_schedules(name, given, base)
    if not is_scheduler(given):
        raise ScheduleTypeError(
            f"{name + ': ' if name else ''}a schedule, such as cosine(1000), or a scheduler is "
            f"needed, got {given!r}"
            + ("; descend.schedules.parse reads one" if isinstance(given, str) else "")
        )
    source = _of_scheduler(name, given)
    if every == 1:
        return source
    rows = source.rows
    return source._replace(
        rows=lambda steps: rows(step // every for step in steps),
        length=source.length * every,
        most=source.most * every,
        marks=tuple((key, mark * every) for key, mark in source.marks),
    )


def is_scheduler(given: object) -> bool:
    """Whether something is a scheduler; torch is not imported to know.

    Args:
        given: anything.

    Example:
        >>> is_scheduler("cosine")
        False

    Source: torch.optim.lr_scheduler.LRScheduler.
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.optim.lr_scheduler.LRScheduler)


def schedules_of(given: object) -> dict[str, Schedule]:
    """The schedules that something is made of, by what they drive.

    Args:
        given: a schedule, or a scheduler.

    Example:
        >>> from descend.schedules import cosine
        >>> schedules_of(cosine(10))
        {'lr': cosine(10)}

    Source: descend.Scheduler.
    """
    if isinstance(given, Schedule):
        return {"lr": given}
    found = {}
    for key, one in getattr(given, "_given", {}).items():
        pairs = {key: one} if isinstance(one, Schedule) else one
        for group, schedule in pairs.items() if isinstance(pairs, Mapping) else ():
            if isinstance(schedule, Schedule):
                found[key if group == key else f"{key} of group {group}"] = schedule
    return found


def _of_schedules(
    name: str, schedules: Mapping[str, Schedule], base: float | Mapping[str, float]
) -> Source:
    bases = dict(base) if isinstance(base, Mapping) else {"lr": base}

    def rows(steps: Iterable[int]) -> Iterator[Row]:
        step = 0
        try:
            for step in steps:
                yield {
                    key: [schedule(step, bases.get(key, 1.0))]
                    for key, schedule in schedules.items()
                }
        except OverflowError as error:
            raise ScheduleError(
                f"{name or ', '.join(map(str, schedules.values()))}: at step {step:,} the value is "
                "larger than any number; give fewer steps, or an end: clip or until"
            ) from error

    return Source(
        name,
        rows,
        _last_end(schedules),
        tuple((key, mark) for key, schedule in schedules.items() for mark in schedule.joins()),
        frozenset(
            key
            for key, schedule in schedules.items()
            if not schedule.curve.absolute and bases.get(key, 1.0) == 1.0
        ),
        tuple(schedules),
    )


def _of_scheduler(name: str, scheduler: Any) -> Source:
    from descend.lr_scheduler import LRScheduler

    parts = list(_flat(scheduler))
    measures = any("ReduceLROnPlateau" in _ancestors(part) for part in parts)
    schedules = schedules_of(scheduler)
    joins = [(key.split()[0], mark) for key, one in schedules.items() for mark in one.joins()]
    source = Source(
        name,
        _stepped(name, scheduler),
        _last_end(schedules) if schedules else _known_length(scheduler),
        (*joins, *(("lr", float(mark)) for mark in getattr(scheduler, "_milestones", ()))),
        most=MOST_WALKED,
        note="what it will measure is not known: it is shown as if it never reduced anything"
        if measures
        else "",
    )
    if isinstance(scheduler, LRScheduler) and all(getattr(part, "pure", True) for part in parts):
        recursive = any("MultiplicativeLR" in _ancestors(part) for part in parts)
        return source._replace(
            # What is found out step by step is remembered: in a copy.
            rows=_previewed(_copied(name, scheduler) if recursive else scheduler, recursive),
            keys=scheduler.keys,
            most=MOST_WALKED if recursive else math.inf,
        )
    if measures:
        return source._replace(
            rows=lambda steps: (
                {"lr": _numbers(scheduler.optimizer.param_groups)["lr"]} for _ in steps
            ),
            most=math.inf,
        )
    last = getattr(scheduler, "total_steps", None)
    if "OneCycleLR" in _ancestors(scheduler) and isinstance(last, int):
        return source._replace(
            rows=_stepped(name, scheduler, last - 1),
            note=f"torch's OneCycleLR raises an error in step {last:,}; descend's holds its value",
        )
    return source


def _previewed(scheduler: Any, recursive: bool) -> Callable[[Iterable[int]], Iterator[Row]]:
    """The values of a scheduler that is a pure function, as its `preview` has them.

    Args:
        scheduler: descend's.
        recursive: whether a value costs as much as all before it, unless those were asked for.
    """
    from descend.lr_scheduler.group_values import read

    def rows(steps: Iterable[int]) -> Iterator[Row]:
        groups = scheduler.optimizer.param_groups
        bases = {
            key: [float(group.get(f"initial_{key}", read(group, key))) for group in groups]
            for key in scheduler.keys
        }
        now = 0
        for step in steps:
            for between in range(now, step) if recursive else ():
                for key, start in bases.items():
                    scheduler.values(key, between, start)
            now = step
            yield {
                key: [float(value) for value in scheduler.values(key, step, start)]
                for key, start in bases.items()
            }

    return rows


def _stepped(
    name: str, scheduler: Any, last: float = math.inf
) -> Callable[[Iterable[int]], Iterator[Row]]:
    """The values of a scheduler that has to be stepped: a copy is.

    Args:
        name: of the curve, for the messages.
        scheduler: torch's, or any other.
        last: the last step that it can be in.
    """

    def rows(steps: Iterable[int]) -> Iterator[Row]:
        copied = _copied(name, scheduler)
        now = first = max(0, _position(scheduler))
        for step in steps:
            if not first <= step <= last:
                yield {}
                continue
            with warnings.catch_warnings():  # of the order: no optimizer steps here
                warnings.simplefilter("ignore")
                while now < step:
                    _step(name, copied)
                    now += 1
            yield _numbers(copied.optimizer.param_groups)

    return rows


def _step(name: str, copied: Any) -> None:
    try:
        copied.step()
    except Exception as error:
        raise ScheduleError(
            f"{name or 'the scheduler'}: {type(copied).__name__} cannot be stepped: "
            f"{type(error).__name__}: {error}"
        ) from error


def _position(scheduler: Any) -> int:
    """The step that a scheduler is in; torch's ChainedScheduler knows it by its parts."""
    return int(min((part.last_epoch for part in _flat(scheduler) if hasattr(part, "last_epoch")),
                   default=0))  # fmt: skip


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
    """All hyperparameters of groups that are numbers."""
    found: Row = {}
    for key, value in groups[0].items():
        if key == "betas" and isinstance(value, tuple | list):
            for place, beta in enumerate(("beta1", "beta2")):
                found[beta] = [float(group["betas"][place]) for group in groups]
        elif _is_number(value) and all(_is_number(group.get(key)) for group in groups):
            found[key] = [float(group[key]) for group in groups]
    return found


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) or (hasattr(value, "numel") and value.numel() == 1)


def _flat(scheduler: Any) -> Iterator[Any]:
    """A scheduler and all that it is made of."""
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from _flat(part)


def _ancestors(scheduler: object) -> set[str]:
    return {kind.__name__ for kind in type(scheduler).__mro__}


def _last_end(schedules: Mapping[str, Schedule]) -> float:
    """When the last of those that end does so."""
    lengths = [schedule.length for schedule in schedules.values()]
    return max((length for length in lengths if length < math.inf), default=math.inf)


def _known_length(scheduler: Any) -> float:
    """When a scheduler ends, where one of torch's arguments says so."""
    for name in ("total_steps", "T_max", "total_iters"):
        length = getattr(scheduler, name, None)
        if isinstance(length, int | float) and math.isfinite(length) and length > 0:
            return length
    return math.inf
