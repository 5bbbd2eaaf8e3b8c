"""Likely mistakes of a schedule for a run of so many steps."""

import math
from typing import NamedTuple

from descend.checks import ABOVE_0
from descend.errors import ScheduleError, ScheduleTypeError
from descend.schedules.formulas import restarts
from descend.schedules.schedule import Part, Schedule
from descend.spelling import spelled

NEAR = 0.01  # of the run: 391 batches where 390 were thought of are no mistake; of the values too
UNLIKE = 0.001  # of the range of values: a smaller difference at the end is none
AMID = 0.25  # of the range of values in a cycle: that close to its end will do
NOTHING = 1e-5  # of the peak: an lr below does nothing
EARLY = 0.2  # of the run: a fall that is over before that is over early
HALF = 0.5  # of the peak: below, it has fallen; of the run: after that, it may fade
AS_LONG = (0.3, 1.1)  # of the run: a schedule that long in another unit was likely meant in that
SAMPLES = 256
FARTHEST = 1e300  # a float can be a little more
SHOWN = 60  # characters of an expression in a message


@spelled
def mistakes(
    schedule: Schedule, steps: float, steps_per_epoch: float | None = None, name: str = "lr"
) -> list[str]:
    """Likely mistakes of a schedule for a run, in one line each; mostly none.

    - a warmup that is longer than the run, a peak that it never reaches;
    - a run that ends before the schedule, or amid a cycle, at another value than it ends with;
    - an lr that is over long before the run, above all at 0;
    - epochs in place of steps, and the other way round.

    Args:
        schedule: its times are steps.
        steps: how many the run has.
        steps_per_epoch: how many an epoch has; without it, epochs are not recognized.
        name: the hyperparameter; what is not the lr may come to rest early, and at 0.

    Raises:
        ScheduleError: the run has no steps, or an epoch none.
        ScheduleTypeError: it is no schedule.

    Example:
        >>> from descend.schedules import cosine, warmup
        >>> mistakes(warmup(500) >> cosine(9500), 10_000)
        []
        >>> mistakes(warmup(500) >> cosine(9500), 400)[0].split(";")[0]
        'lr: warmup(500) lasts until step 500, and the run ends at step 400 with 0.8 of the base'

    Source:
        Runs that users of torch report, https://github.com/pytorch/pytorch/issues.
    """
    if not isinstance(schedule, Schedule):
        raise ScheduleTypeError(f"mistakes: it must be a schedule, got {schedule!r}")
    steps = ABOVE_0.check("mistakes: steps", steps, ScheduleError)
    epoch = 1 if steps_per_epoch is None else steps_per_epoch
    epoch = ABOVE_0.check("mistakes: steps_per_epoch", epoch, ScheduleError)
    run, is_lr = _run(schedule, steps, epoch), name.startswith("lr")
    found = _overflow(run) or [
        *(_cut_off(run) or _over_early(run, is_lr) or _amid_a_cycle(run)),
        *_never_falling(run),
        *_too_many_cycles(run),
    ]
    return [f"{name}: {warning}" for warning in dict.fromkeys(found)]


class _Run(NamedTuple):
    """A run, and the schedule that is asked about."""

    schedule: Schedule
    steps: float
    epoch: float  # how many steps it has; 1 if unknown
    pieces: list[Part]
    moments: list[float]  # when a shape begins, turns, or ends
    rest: float  # when the schedule comes to rest; infinity if it never does
    told: bool  # to rest, by a constant
    foreign: bool  # whether it may know no times but those of the run


def _run(schedule: Schedule, steps: float, epoch: float) -> _Run:
    pieces, moments, rests = list(schedule.pieces()), [], []
    for begin, end, shape in pieces:
        curve = shape.curve
        times = [begin + time for time in (0, *curve.turns, shape.length)]
        moments += [time for time in times if time <= end and time < math.inf]
        # What a warmup without end does later is no part of any plan.
        length = curve.warm if curve.warm and shape.length == math.inf else shape.length
        rests.append(min(begin if curve.level else begin + length, end))
    rest = max(rests)
    told = any(begin == rest and shape.curve.level for begin, _, shape in pieces)
    foreign = any(shape.curve.foreign for _, _, shape in pieces)
    return _Run(schedule, steps, epoch, pieces, moments, rest, told, foreign)


def _overflow(run: _Run) -> list[str]:
    """It outgrows the floats."""
    for time, height in _heights(run, run.steps).items():
        if not math.isfinite(height):
            return [f"{_short(run.schedule)} is too large for a number at step {time}; lower it"]
    return []


def _cut_off(run: _Run) -> list[str]:
    """The run ends before a warmup, the peak, or the end of the schedule."""
    reach = run.steps * (1 + NEAR)
    for begin, end, shape in run.pieces:
        warm = begin + shape.curve.warm
        if begin < run.steps and reach < warm <= end:
            return [_too_late(run, f"{_short(shape)} lasts until", warm, run.rest)]
    if run.foreign:
        return []
    what, peak = _short(run.schedule), _missed_peak(run, reach)
    if peak is not None:
        what = f"{what} comes to its peak, {_value(run, peak)}, at"
        return [_too_late(run, what, peak, run.rest)]
    if reach < run.rest < math.inf and _differs(run, run.steps, run.rest):
        what = f"{what} ends with {_value(run, run.rest)} at"
        return [_too_late(run, what, run.rest, run.rest)]
    return []


def _missed_peak(run: _Run, reach: float) -> float | None:
    """When the highest value comes, if the run has none like it, and it falls after that."""
    if max(run.moments) <= reach:
        return None
    # Twice as far as anything happens: there it may fall for ever.
    heights = _heights(run, min(2 * max(run.moments), FARTHEST))
    top, bottom = max(heights.values()), min(heights.values())
    high = top - NEAR * (top - bottom)
    in_the_run = max(height for time, height in heights.items() if time <= run.steps)
    if not math.isfinite(top) or max(in_the_run, heights[max(heights)]) >= high:
        return None
    return max(heights, key=heights.__getitem__)


def _never_falling(run: _Run) -> list[str]:
    """A shape without end is level until after the run."""
    return [
        _too_late(run, f"{_short(shape)} first falls at", begin + fall, begin + fall)
        for begin, end, shape in run.pieces
        for fall in shape.curve.turns[:1]
        if begin < run.steps <= begin + fall < end
        and shape.length == math.inf
        and _height(shape, 0) == _height(shape, run.steps - begin) != _height(shape, fall)
    ]


def _over_early(run: _Run, is_lr: bool) -> list[str]:
    """It has come to rest, or to nothing, long before the run ends."""
    top = max(map(abs, _heights(run, run.steps).values()))
    over, epochs = run.rest, run.steps / run.epoch
    if run.told:
        return []
    if over >= run.steps:
        return _faded(run, top) if is_lr else []
    left = abs(_height(run.schedule, over)) / (top or 1)
    early = is_lr and (
        (left < NOTHING and over < run.steps * (1 - NEAR))
        or (left < HALF and over < run.steps * EARLY)
    )
    # An lr that has not fallen is warm, and any number of steps will do for that.
    in_epochs = run.epoch > 1 and abs(over - epochs) <= NEAR * epochs
    if not (early or (in_epochs and not (is_lr and left >= HALF))):
        return []
    alike = run.epoch > 1 and AS_LONG[0] <= over / epochs <= AS_LONG[1]
    return [
        f"{_short(run.schedule)} is over at step {_step(over)} and stays at {_value(run, over)} "
        f"until the run ends at step {_step(run.steps)}; "
        + (_as_epochs(run) if alike else f"lengthen it to {_step(run.steps)} steps")
    ]


def _faded(run: _Run, top: float) -> list[str]:
    """It falls for ever, and has come to nothing."""

    def lives(time: int) -> bool:
        return abs(_height(run.schedule, time)) >= NOTHING * top

    times = list(_heights(run, run.steps))
    alive = [number for number, time in enumerate(times) if lives(time)]
    if not alive or lives(times[-1]):
        return []
    before, after = times[alive[-1]], times[alive[-1] + 1]
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if lives(middle) else (before, middle)
    if after >= HALF * run.steps:
        return []
    alike = run.epoch > 1 and after * run.epoch >= HALF * run.steps
    return [
        f"{_short(run.schedule)} has come to nothing by step {after}, {_value(run, after)}, and "
        f"the run ends at step {_step(run.steps)}; "
        + (_as_epochs(run) if alike else "make it fall more slowly")
    ]


def _amid_a_cycle(run: _Run) -> list[str]:
    """The run ends where a cycle does not."""
    found = []
    for begin, end, shape in run.pieces:
        time = run.steps - begin
        inside = 0 < time < min(end - begin, shape.length)
        if shape.curve.cycle and inside and not run.foreign:
            since, period = restarts(time, *shape.curve.cycle)
            first, last = time - since, time - since + period
            heights = [_height(shape, first + period * i / SAMPLES) for i in range(SAMPLES)]
            final = _height(shape, last - period * 1e-9)
            unlike = abs(_height(shape, time) - final) > AMID * (max(heights) - min(heights))
            if unlike and min(since, period - since) > NEAR * run.steps:
                ends = " and ".join(_step(begin + moment) for moment in (first, last) if moment)
                what = f"a cycle of {_short(shape)} ends at step {ends}"
                found.append(f"{what}, {_stop(run)}; end the run with a cycle")
    return found


def _too_many_cycles(run: _Run) -> list[str]:
    """Cycles within an epoch, which would fit the run as epochs."""
    return [
        f"{_short(piece.schedule)} begins again every {period:.10g} steps; {_as_epochs(run)}"
        for piece in run.pieces
        for period, _ in filter(None, [piece.schedule.curve.cycle])
        if period <= min(run.steps / run.epoch, run.epoch / 10)
    ]


def _heights(run: _Run, end: float) -> dict[int, float]:
    """The value at steps until an end: evenly, and wherever something happens."""
    times = {int(end * number / SAMPLES) for number in range(SAMPLES + 1)}
    times |= {time for moment in run.moments for time in (math.floor(moment), math.ceil(moment))}
    return {time: _height(run.schedule, time) for time in sorted(times) if time <= end}


def _height(schedule: Schedule, time: float) -> float:
    """The value at a time, of a base of 1."""
    try:
        return schedule(time)
    except OverflowError:
        return math.inf


def _differs(run: _Run, time: float, end: float) -> bool:
    """Whether the value at a time is another than at an end."""
    heights = _heights(run, end).values()
    difference = abs(_height(run.schedule, time) - _height(run.schedule, end))
    return difference > UNLIKE * (max(heights) - min(heights))


def _too_late(run: _Run, what: str, time: float, length: float) -> str:
    """A warning of something that comes after the run, of a schedule of some length."""
    remedy = "shorten it"
    if run.epoch > 1 and AS_LONG[0] <= length / (run.epoch * run.steps) <= AS_LONG[1]:
        remedy = (
            f"if the run has {run.steps:.10g} epochs, these are {_step(run.steps * run.epoch)} "
            f"steps, and if it has {run.steps:.10g} steps, leave out .in_epochs({run.epoch:.10g})"
        )
    return f"{what} step {_step(time)}, {_stop(run)}; {remedy}"


def _stop(run: _Run) -> str:
    return f"and the run ends at step {_step(run.steps)} with {_value(run, run.steps)}"


def _as_epochs(run: _Run) -> str:
    return f"if its times are epochs, .in_epochs({run.epoch:.10g}) makes them steps"


def _value(run: _Run, time: float) -> str:
    """The value at a time, as a message has it."""
    factor, value = run.schedule.curve.at(time)
    if not factor:
        return f"{value:.4g}"
    times = f"{factor:.4g} of the base".removeprefix("1 of ")
    return f"{times} + {value:.4g}" if value else times


def _step(time: float) -> str:
    return str(round(time))


def _short(schedule: Schedule) -> str:
    text = str(schedule)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 20]}...{text[-17:]}"
