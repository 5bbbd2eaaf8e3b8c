"""What is likely not meant in a schedule, for a run of so many steps."""

import math
from typing import NamedTuple

from descend.errors import ScheduleError, ScheduleTypeError
from descend.schedules.anatomy import Span, cycle_of, end_of, moments_of, spans_of, warming_of
from descend.schedules.arguments import exact
from descend.schedules.schedule import Schedule
from descend.spelling import spelled

ROUNDING = 0.01  # of the run: 391 batches where 390 were thought of are no mistake
UNLIKE = 0.001  # of the range of values: a smaller difference at the end is none
NEAR = 0.01  # of the range of values: that close to the peak is at the peak
AMID = 0.25  # of the range of values in a cycle: that close to its end will do
NOTHING = 1e-5  # of the peak: an lr below does nothing
FADED = 0.5  # of the run: what falls for ever may come to nothing after that
EARLY = 0.2  # of the run: a fall that is over before that is over early
FALLEN = 0.5  # of the peak: what ends below has fallen
AS_LONG = (0.5, 1.1)  # of the run: a schedule that long in another unit was likely meant in that
WITHIN = 0.05  # of the run: the same for a single fall
CYCLES = 1000  # more in a run, each within a tenth of an epoch, are not meant
SAMPLES = 256
FARTHEST = 1e300  # a float can be a little more
SHOWN = 60  # characters of an expression in a message


@spelled
def mistakes(
    schedule: Schedule, steps: float, steps_per_epoch: float | None = None, name: str = "lr"
) -> list[str]:
    """What is likely a mistake in a schedule for a run, in one line each; mostly nothing.

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
    run = _Run(
        schedule,
        _count("steps", steps),
        1 if steps_per_epoch is None else _count("steps_per_epoch", steps_per_epoch),
        list(spans_of(schedule, 0, math.inf)),
    )
    is_lr = name.startswith("lr")
    found = _overflow(run) or [
        *(_too_long(run) or _over_early(run, is_lr) or _amid_a_cycle(run)),
        *_never_falling(run),
        *_too_many_cycles(run),
    ]
    return [f"{name}: {warning}" for warning in dict.fromkeys(found)]


class _Run(NamedTuple):
    """What the questions are asked of."""

    schedule: Schedule
    steps: float
    epoch: float  # how many steps it has; 1 if unknown
    spans: list[Span]


def _overflow(run: _Run) -> list[str]:
    """It outgrows the floats."""
    for time in _times(run, run.steps):
        if not math.isfinite(_height(run.schedule, time)):
            return [f"{_short(run.schedule)} is too large for a number at step {time}; lower it"]
    return []


def _too_long(run: _Run) -> list[str]:
    """The run ends before the warmup, the peak, or the end."""
    end, reach = end_of(run.schedule, rests=True), run.steps * (1 + ROUNDING)
    what = ""
    for begin, stop, leaf in run.spans:
        warm = begin + warming_of(leaf)
        if begin < run.steps and reach < warm <= stop:
            what = what or f"{_short(leaf)} lasts until step {_step(warm)}"
    if not what and not _has_function(run):
        peak = _missed_peak(run)
        if peak is not None:
            what = (
                f"{_short(run.schedule)} comes to its peak, {_told(run, peak)}, at step "
                f"{_step(peak)}"
            )
        elif reach < end < math.inf and _differs(run, run.steps, end):
            what = f"{_short(run.schedule)} ends with {_told(run, end)} at step {_step(end)}"
    if not what:
        return []
    alike = run.epoch > 1 and AS_LONG[0] <= end / (run.epoch * run.steps) <= AS_LONG[1]
    return [f"{what}, {_stopped(run)}; {_in_steps(run) if alike else 'shorten it'}"]


def _missed_peak(run: _Run) -> float | None:
    """When the highest value comes, if the run has none like it, and it falls after that."""
    moments = [
        begin + moment
        for begin, stop, leaf in run.spans
        for moment in moments_of(leaf)
        if begin + moment <= stop
    ]
    horizon = max(moments, default=0)
    if horizon <= run.steps * (1 + ROUNDING):
        return None
    # Beyond the horizon too: there it may fall for ever.
    heights = {
        time: _height(run.schedule, time) for time in _times(run, min(2 * horizon, FARTHEST))
    }
    top, bottom = max(heights.values()), min(heights.values())
    high = top - NEAR * (top - bottom)
    if not math.isfinite(top) or any(
        heights[time] >= high for time in heights if time <= run.steps
    ):
        return None
    return max(heights, key=heights.__getitem__) if heights[max(heights)] < high else None


def _over_early(run: _Run, is_lr: bool) -> list[str]:
    """It has come to rest, or to nothing, long before the run ends."""
    over, epochs = end_of(run.schedule, rests=False), run.steps / run.epoch
    top = max(abs(_height(run.schedule, time)) for time in _times(run, run.steps))
    if not over < run.steps:
        return _faded(run, top) if is_lr else []
    left = abs(_height(run.schedule, over)) / (top or 1)
    early = is_lr and (
        (left < NOTHING and over < run.steps * (1 - ROUNDING))
        or (left < FALLEN and over < run.steps * EARLY)
    )
    # What rises is a warmup, and any number of steps will do for that.
    in_epochs = (
        run.epoch > 1
        and abs(over - epochs) <= max(0.5, ROUNDING * epochs)
        and not (is_lr and left > 1 - NEAR)
        and _differs(run, 0, over)
    )
    if not over or not (early or in_epochs):
        return []
    alike = run.epoch > 1 and AS_LONG[0] <= over / epochs <= AS_LONG[1]
    return [
        f"{_short(run.schedule)} is over at step {_step(over)} and stays at {_told(run, over)} "
        f"until the run ends at step {_step(run.steps)}; "
        + (_as_epochs(run) if alike else f"lengthen it to {_step(run.steps)} steps")
    ]


def _faded(run: _Run, top: float) -> list[str]:
    """It falls for ever, and has come to nothing."""
    times = _times(run, run.steps)
    live = [time for time in times if abs(_height(run.schedule, time)) >= NOTHING * top]
    if not live or live[-1] == times[-1]:
        return []
    before, after = live[-1], times[times.index(live[-1]) + 1]
    while after - before > 1:
        middle = (before + after) // 2
        if abs(_height(run.schedule, middle)) >= NOTHING * top:
            before = middle
        else:
            after = middle
    put = any(
        leaf.name in ("constant", "value") and 0 < begin * (1 - ROUNDING) <= after < stop
        for begin, stop, leaf in run.spans
    )
    if put or after >= FADED * run.steps:
        return []
    alike = run.epoch > 1 and after < EARLY * run.steps and after * run.epoch >= FADED * run.steps
    return [
        f"{_short(run.schedule)} has come to nothing by step {after}, {_told(run, after)}, and the "
        f"run ends at step {_step(run.steps)}; "
        + (_as_epochs(run) if alike else "make it fall more slowly")
    ]


def _never_falling(run: _Run) -> list[str]:
    """The first fall of `step` comes after the run."""
    found = []
    for begin, stop, leaf in run.spans:
        fall = begin + leaf.arguments["every"] if leaf.name == "step" else 0
        if begin < run.steps <= fall < stop and leaf.arguments["gamma"] != 1:
            alike = WITHIN <= fall / (run.epoch * run.steps) <= AS_LONG[1] and run.epoch > 1
            found.append(
                f"{_short(leaf)} first falls at step {_step(fall)}, and the run ends at step "
                f"{_step(run.steps)}; {_in_steps(run) if alike else 'shorten it'}"
            )
    return found


def _amid_a_cycle(run: _Run) -> list[str]:
    """The run ends where a cycle does not."""
    found = []
    for begin, stop, leaf in run.spans:
        cycle = cycle_of(leaf, run.steps - begin) if begin < run.steps < stop else None
        if cycle is None or _has_function(run):
            continue
        since, period = cycle
        first, last = run.steps - begin - since, run.steps - begin - since + period
        if min(since, period - since) <= ROUNDING * run.steps:
            continue
        heights = [_height(leaf, first + period * i / SAMPLES) for i in range(SAMPLES)]
        final = _height(leaf, last - period * 1e-9)
        if abs(_height(leaf, run.steps - begin) - final) > AMID * (max(heights) - min(heights)):
            ends = [begin + time for time in (first, last) if time]
            found.append(
                f"a cycle of {_short(leaf)} ends at step {' and '.join(map(_step, ends))}, "
                f"{_stopped(run)}; end the run with a cycle"
            )
    return found


def _too_many_cycles(run: _Run) -> list[str]:
    """Cycles within an epoch, that would go well as epochs."""
    found = []
    for begin, stop, leaf in run.spans:
        _, period = cycle_of(leaf, 0) or (0, math.inf)
        cycles = (min(stop, run.steps) - begin) / period
        short = period <= min(run.steps / run.epoch, run.epoch / 10)
        if short and cycles >= CYCLES and leaf.arguments.get("growth", 1) == 1:
            found.append(
                f"{_short(leaf)} goes through {_step(cycles)} cycles of {_step(period)} steps in "
                f"this run; {_as_epochs(run)}"
            )
    return found


def _has_function(run: _Run) -> bool:
    """Whether a function of the user's has a say: it is asked for nothing beyond the run."""
    return any(leaf.name == "function" for _, _, leaf in run.spans)


def _times(run: _Run, end: float) -> list[int]:
    """Steps until an end: evenly, and wherever something happens."""
    times = {int(end * i / SAMPLES) for i in range(SAMPLES + 1)}
    for begin, _, leaf in run.spans:
        for moment in (0, *moments_of(leaf)):
            if begin + moment < end:
                times |= {math.floor(begin + moment), math.ceil(begin + moment)}
    return sorted(time for time in times if time <= end)


def _height(schedule: Schedule, time: float) -> float:
    """The value, of a base of 1."""
    try:
        return schedule(time)
    except OverflowError:
        return math.inf


def _differs(run: _Run, time: float, end: float) -> bool:
    """Whether the value at a time is another than at the end."""
    heights = [_height(run.schedule, at) for at in _times(run, end)]
    difference = abs(_height(run.schedule, time) - _height(run.schedule, end))
    return difference > UNLIKE * (max(heights) - min(heights))


def _told(run: _Run, time: float) -> str:
    """The value at a time, as a message has it."""
    factor, value = run.schedule.curve.at(time)
    if not factor:
        return f"{value:.4g}"
    times = f"{factor:.4g} of the base".removeprefix("1 of ")
    return f"{times} + {value:.4g}" if value else times


def _stopped(run: _Run) -> str:
    return f"and the run ends at step {_step(run.steps)} with {_told(run, run.steps)}"


def _as_epochs(run: _Run) -> str:
    return f"if its times are epochs, .in_epochs({run.epoch:.10g}) makes them steps"


def _in_steps(run: _Run) -> str:
    return (
        f"if the run has {run.steps:.10g} epochs, these are {_step(run.steps * run.epoch)} steps, "
        f"and if it has {run.steps:.10g} steps, leave out .in_epochs({run.epoch:.10g})"
    )


def _step(time: float) -> str:
    return str(round(time))


def _short(schedule: Schedule) -> str:
    text = str(schedule)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 20]}...{text[-17:]}"


def _count(what: str, given: object) -> float:
    number = exact(given)
    if number is None or not 0 < number < math.inf:
        raise ScheduleError(f"mistakes: {what} must be a number above 0, got {given!r}")
    return number
