"""The charts of a comparison as plain data: for the page, and for the picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from descend.format import plain_text, three_digits
from descend.report.comparison_cells import cost_of_step, ratio, unit

TUNABLE = 0.95  # of what the best learning rate gains over no training: what the others must gain
TELLING = 0.25  # of what is gained in the last rung: a rung with less tells too little
STEEP = 8.0  # the greatest value over the least, from where on a scale is logarithmic

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """The points of a contender in a chart.

    Args:
        number: of the contender, for its colour; None for the reference.
        name: of it.
        points: places and values.
        spread: of each point, the least and the greatest over seeds; none where it is empty.
        notes: of each point, its words; none where it is empty.
        joined: whether a line joins them.
        band: whether the spread is a band, in place of a bar at each point.
        failed: the places where trainings diverged.
    """

    number: int | None
    name: str
    points: Sequence[Point]
    spread: Sequence[Point] = ()
    notes: Sequence[str] = ()
    joined: bool = True
    band: bool = False
    failed: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """A chart.

    Args:
        title: above it.
        note: below the title.
        across: the name of the scale from left to right; the other one is the metric's.
        series: what is drawn.
        log_across: whether that scale is logarithmic.
        highest: whether more of the metric is better, as of an accuracy: its scale is linear.
        target: a value at which a line stands.
        shaded: a range of places that is shaded.
    """

    title: str
    note: str
    across: str
    series: Sequence[Series] = field(default_factory=list)
    log_across: bool = False
    highest: bool = False
    target: float | None = None
    shaded: Point | None = None

    @property
    def values(self) -> list[float]:
        """All that is shown upwards."""
        found = [value for one in self.series for _, value in one.points]
        found += [end for one in self.series for pair in one.spread for end in pair]
        return found + ([] if self.target is None else [self.target])

    @property
    def places(self) -> list[float]:
        """All that is shown across."""
        found = [place for one in self.series for place, _ in one.points]
        return found + [place for one in self.series for place in one.failed]

    def is_steep(self, values: Sequence[float]) -> bool:
        """Whether some values want a logarithmic scale: they are positive, and far apart."""
        return not self.highest and min(values) > 0 and max(values) / min(values) > STEEP


@dataclass(frozen=True)
class Reach:
    """When a contender reaches the target: a row in the chart of the times.

    Args:
        number: of the contender.
        name: of it.
        median: None where it does not.
        low: the lower end of the interval.
        high: the upper one; None where it is infinite.
        per_seed: of the seeds that reach it.
        words: at its end.
    """

    number: int
    name: str
    median: float | None
    low: float | None
    high: float | None
    per_seed: Sequence[float]
    words: str


def curves_chart(found: Mapping[str, Any]) -> Chart:
    """The metric on the way, in trainings of the full length: the mean and the spread of seeds."""
    reference, length = found["reference"], found["reference"]["length"]
    series = [
        _curve(number, one["name"], one["curves"], cost_of_step(one, found) / length)
        for number, one in enumerate(found["contenders"])
    ]
    series.append(_curve(None, found["target"]["of"], reference["curves"], 1 / length))
    return Chart(
        f"{found['metric']['name']} in trainings of the full length",
        f"mean and range over seeds; grey: {found['target']['of']}; in mid-run it says little, for "
        f"the rates are still high",
        f"{unit(found)}, over the reference's",
        [one for one in series if one.points],
        highest=found["metric"]["highest"],
        target=found["target"]["value"],
    )


def _curve(number: int | None, name: str, curves: Sequence[Any], scale: float) -> Series:
    """The mean of curves where all that did not end before have a value."""
    known = [{step: value for step, value in one if value is not None} for one in curves]
    last = max((max(one) for one in known if one), default=0)
    whole = [one for one in known if one and max(one) == last]
    steps = sorted(set.intersection(*map(set, whole))) if whole else []
    values = [[one[step] for one in whole] for step in steps]
    return Series(
        number, name,
        [(step * scale, math.fsum(one) / len(whole))
         for step, one in zip(steps, values, strict=True)],
        [(min(one), max(one)) for one in values],
        band=True,
    )  # fmt: skip


def ends_chart(found: Mapping[str, Any]) -> Chart:
    """The metric at the end of trainings of several lengths: the only values that are compared."""
    length = found["reference"]["length"]
    series = []
    for number, one in enumerate(found["contenders"]):
        cost = cost_of_step(one, found) / length
        ends = [(end["length"], _known(end["values"]), end["values"]) for end in one["ends"]]
        shown = [(steps, known, values) for steps, known, values in ends if known]
        series.append(
            Series(
                number, one["name"],
                [(steps * cost, math.fsum(known) / len(known)) for steps, known, _ in shown],
                [(min(known), max(known)) for _, known, _ in shown],
                [f"{steps:,} steps{_failures(values)}" for steps, _, values in shown],
                failed=[steps * cost for steps, _, values in ends if None in values],
            )
        )  # fmt: skip
    known = _known(found["reference"]["values"])
    if known:
        mean = math.fsum(known) / len(known)
        spread = [(min(known), max(known))]
        series.append(Series(None, found["target"]["of"], [(1.0, mean)], spread))
    return Chart(
        f"{found['metric']['name']} at the end, against the length",
        f"each point: trainings of that length at the end of their schedules; dotted: the target; "
        f"grey: {found['target']['of']}",
        f"{unit(found)}, over the reference's",
        [one for one in series if one.points or one.failed],
        log_across=True,
        highest=found["metric"]["highest"],
        target=found["target"]["value"],
    )


def _failures(values: Sequence[float | None]) -> str:
    failed = [*values].count(None)
    return f", {failed} of {len(values)} diverged" if failed else ""


def rate_charts(found: Mapping[str, Any]) -> list[Chart]:
    """For each contender, the metric against the learning rate, a line for each rung."""
    charts, highest = [], found["metric"]["highest"]
    for number, one in enumerate(found["contenders"]):
        lengths = sorted({each["length"] for each in one["search"]})
        series = [_rung(number, one, length) for length in lengths]
        if series:
            span = tunable_span(one["search"], found["untrained"], highest=highest)
            note = "nothing is learned" if span is None else span_text(span)
            charts.append(
                Chart(
                    one["name"], note, "lr", series, log_across=True, highest=highest, shaded=span
                )
            )
    return charts


def _rung(number: int, one: Mapping[str, Any], length: int) -> Series:
    tried = sorted((each for each in one["search"] if each["length"] == length),
                   key=lambda each: each["lr"])  # fmt: skip
    whole = [each for each in tried if each["value"] is not None]
    return Series(
        number, f"{length:,} steps",
        [(each["lr"], each["value"]) for each in whole],
        notes=[_tried_text(each) for each in whole],
        joined=len({each["lr"] for each in whole}) == len(whole),  # else others vary too
        failed=[each["lr"] for each in tried if each["value"] is None],
    )  # fmt: skip


def _tried_text(each: Mapping[str, Any]) -> str:
    values = {"lr": each["lr"], **each["settings"]}
    settings = ", ".join(f"{key} {plain_text(value)}" for key, value in values.items())
    return f"{settings}, {each['length']:,} steps"


def tunable_span(
    search: Sequence[Mapping[str, Any]], untrained: float | None, *, highest: bool = False
) -> Point | None:
    """The learning rates around the best at which nearly as much is learned.

    Args:
        search: the tries of a contender, as in the results.
        untrained: the metric before the first step.
        highest: whether more of the metric is better.

    Returns:
        The least and the greatest of those next to each other that gain at least 0.95 of what the
        best of them gains over no training; in the first rung that tells enough of the end. None
        where nothing was learned.

    Example:
        >>> tries = [{"lr": lr, "value": value, "length": 9} for lr, value in
        ...          [(0.1, 1.0), (0.2, 0.13), (0.4, 0.1), (0.8, 0.5), (1.6, None)]]
        >>> tunable_span(tries, 1.0)
        (0.2, 0.4)
    """
    rungs: dict[int, dict[float, float]] = {}
    for each in search:
        if untrained is not None:
            value = untrained if each["value"] is None else each["value"]
            gain = value - untrained if highest else untrained - value
            gains = rungs.setdefault(each["length"], {})
            gains[each["lr"]] = max(gain, gains.get(each["lr"], gain))
    if not rungs:
        return None
    last = max(rungs[max(rungs)].values())
    gains = next((rungs[length] for length in sorted(rungs)
                  if max(rungs[length].values()) >= TELLING * last), {})  # fmt: skip
    most = max(gains.values(), default=0.0)
    if most <= 0:
        return None
    rates = sorted(gains)
    low = high = next(at for at, rate in enumerate(rates) if gains[rate] == most)
    while low > 0 and gains[rates[low - 1]] >= TUNABLE * most:
        low -= 1
    while high + 1 < len(rates) and gains[rates[high + 1]] >= TUNABLE * most:
        high += 1
    return rates[low], rates[high]


def span_text(span: Point) -> str:
    """A span of learning rates in words.

    Example:
        >>> span_text((0.001, 0.01)), span_text((0.1, 0.1))
        ('nearly as good from lr 0.001 to 0.01: 10x', 'nearly as good at lr 0.1 alone')
    """
    low, high = span
    if low == high:
        return f"nearly as good at lr {low:.3g} alone"
    return f"nearly as good from lr {low:.3g} to {high:.3g}: {three_digits(high / low)}x"


def search_chart(found: Mapping[str, Any]) -> Chart:
    """The tries of the search in their order, over what each contender had spent by then."""
    series = []
    length = found["reference"]["length"]
    for number, one in enumerate(found["contenders"]):
        spent, points, notes, failed = 0.0, [], [], []
        begun: dict[str, int] = {}  # a promoted one goes on from where it was
        for each in one["search"]:
            key = _tried_text(each | {"length": 0})
            spent += (each["length"] - begun.get(key, 0)) * cost_of_step(one, found) / length
            begun[key] = each["length"]
            if each["value"] is None:
                failed.append(spent)
            else:
                points.append((spent, each["value"]))
                notes.append(_tried_text(each))
        series.append(Series(number, one["name"], points, notes=notes, joined=False, failed=failed))
    return Chart(
        "The search as it went",
        "each try at the end of its training: many short ones, then longer ones of the best",
        f"{unit(found)} spent by each, over the reference's",
        [one for one in series if one.points or one.failed],
        highest=found["metric"]["highest"],
        target=found["target"]["value"],
    )


def reaches(found: Mapping[str, Any]) -> list[Reach]:
    """The rows of the chart of the times to the target."""
    rows = []
    for number, one in enumerate(found["contenders"]):
        fraction = one["fraction"]
        seeds = [value for value in fraction["per_seed"] if value is not None]
        median = fraction["median"]
        words = f"{len(seeds)} of {len(fraction['per_seed'])} seeds" if seeds else "never"
        rows.append(
            Reach(
                number, one["name"], median, fraction["low"], fraction["high"], seeds,
                words if median is None else ratio(median),
            )
        )  # fmt: skip
    return rows


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
