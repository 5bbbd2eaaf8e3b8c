"""What a schedule is made of: its functions, each with its place in time, peaks and cycles."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from descend.schedules import formulas
from descend.schedules.schedule import Schedule

ADAPTED = ("untuned_linear", "untuned_exponential", "rectified")  # to Adam's second beta


class Span(NamedTuple):
    """A function of the schedule, when it begins, and when another takes its place."""

    begin: float
    stop: float
    leaf: Schedule


def spans_of(schedule: Schedule, begin: float, stop: float) -> Iterator[Span]:
    """The functions that a schedule is made of, in its time.

    Args:
        schedule: which.
        begin: when it begins.
        stop: when another takes its place.
    """
    arguments = schedule.arguments
    match schedule.name:
        case "join":
            *before, last = arguments["parts"]
            for part in before:
                end = begin + part.length
                yield from spans_of(part, begin, min(stop, end))
                begin = end
            yield from spans_of(last, begin, stop)
        case "multiply":
            for part in arguments["parts"]:
                if isinstance(part, Schedule):
                    yield from spans_of(part, begin, stop)
        case "value" if isinstance(arguments["of"], Schedule):
            yield from spans_of(arguments["of"], begin, stop)
        case "clip":
            yield from spans_of(arguments["schedule"], begin, stop)
        case "until":
            end = begin + arguments["steps"]
            yield from spans_of(arguments["schedule"], begin, min(stop, end))
        case "delay":
            yield from spans_of(arguments["schedule"], begin + arguments["steps"], stop)
        case "repeat":
            yield Span(begin, stop, schedule)
            inner = arguments["schedule"]
            yield from spans_of(inner, begin, min(stop, begin + inner.length))
        case _:
            yield Span(begin, stop, schedule)


def end_of(schedule: Schedule, rests: bool) -> float:
    """When a schedule comes to rest.

    Args:
        schedule: which.
        rests: whether one that is told to rest, by a constant at its end, does.
    """
    arguments, end = schedule.arguments, schedule.length
    inner = arguments.get("schedule", arguments.get("of"))
    if _is_rest(schedule) or schedule.name in ADAPTED:
        end = 0  # beside a factor, it has no say in the end
    elif schedule.name == "join":
        *before, last = arguments["parts"]
        told = _is_rest(last) and not rests
        end = math.inf if told else sum(part.length for part in before) + end_of(last, rests)
    elif schedule.name == "multiply":
        end = max(end_of(one, rests) for one in arguments["parts"] if isinstance(one, Schedule))
    elif schedule.name in ("value", "clip"):
        end = end_of(inner, rests)
    elif schedule.name == "until":
        end = min(arguments["steps"], end_of(inner, rests))
    elif schedule.name == "delay":
        end = arguments["steps"] + end_of(inner, rests)
    return end


def _is_rest(schedule: Schedule) -> bool:
    """Whether it is one level without end."""
    of = schedule.arguments.get("of")
    if schedule.name == "value":
        return not isinstance(of, Schedule) or _is_rest(of)
    return schedule.name == "constant" and schedule.length == math.inf


def warming_of(leaf: Schedule) -> float:
    """How long a function warms up.

    Args:
        leaf: the function.
    """
    if leaf.name in ADAPTED:
        return 2 / (1 - float(leaf.arguments["beta2"]))
    return float(leaf.arguments.get({"warmup": "steps", "wsd": "rise"}.get(leaf.name, ""), 0))


def moments_of(leaf: Schedule) -> list[float]:
    """When something happens to a function: its highest value is at one of these times, or at 0.

    Args:
        leaf: the function.
    """
    of = leaf.arguments
    moments: list[float] = []
    match leaf.name:
        case "piecewise":
            moments = [time for time, _ in of["points"]]
        case "multistep":
            moments = list(of["milestones"])
        case "one_cycle":
            moments = [of["rise"] * of["steps"]]
        case "cyclic":
            moments = [of["up"], *(cycle_of(leaf, 0) or ())]
        case "wsd":
            moments = [of["rise"], of["rise"] + of["stable"]]
    return [time for time in (*moments, leaf.length) if time < math.inf]


def cycle_of(leaf: Schedule, time: float) -> tuple[float, float] | None:
    """The time since a cycle began and how long that is, if a function has them without end.

    Args:
        leaf: the function.
        time: since it began.
    """
    of = leaf.arguments
    if leaf.name == "warm_restarts":
        return formulas.restarts(time, of["steps"], of["growth"])
    if leaf.name == "cyclic":
        period = of["up"] + (of["up"] if of["down"] is None else of["down"])
    elif leaf.name == "repeat" and leaf.length == math.inf:
        period = of["schedule"].length
    else:
        return None
    return time % period, period
