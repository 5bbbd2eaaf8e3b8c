"""Charts of a comparison as SVG, in the colours of the page."""

from collections.abc import Iterator, Sequence

from descend.report.chart_scale import Scale, label, scale
from descend.report.comparison_charts import Chart, Point, Reach, Series
from descend.report.html_page import html_text

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 40
ROW, NAME = 38, 15
TICKS = 6
LONGEST = 54  # characters of a name

STYLE = """
svg .band{fill:var(--c);opacity:.14;stroke:none}svg .thin{stroke-width:1}
svg .mark{stroke-dasharray:none;stroke-width:2}svg .solid{stroke-dasharray:none}
svg .reference{--c:var(--soft);--d:5 4}
svg path.target{stroke:var(--ink);stroke-width:1;stroke-dasharray:2 3}
svg .faint{opacity:.45}svg .fainter{opacity:.25}
svg text.name{fill:var(--ink)}svg .end{text-anchor:end}
"""


def svg_chart(chart: Chart, values: Sequence[float] = ()) -> str:
    """A chart as a figure of HTML.

    Args:
        chart: which.
        values: more that the scale of the values has to have room for, such as those of its
            neighbours.
    """
    words = html_text(chart.title)
    head = f"<figcaption>{words} <small>{html_text(chart.note)}</small></figcaption>"
    known = [*chart.values, *values]
    if not known or not chart.places:
        return f"<figure>{head}<p>no finite value</p></figure>"
    up = scale(known, HEIGHT - BOTTOM, TOP, log=chart.is_steep(known))
    across = scale(chart.places, LEFT, WIDTH - RIGHT, log=chart.log_across)
    drawn = [*_frame(chart, across, up)]
    for at, one in enumerate(chart.series):
        fainter = ("", " faint", " fainter")[min(len(chart.series) - 1 - at, 2)]
        rungs = len({each.number for each in chart.series}) == 1 < len(chart.series)
        drawn.append(f'<g class="{_colour(one)}{fainter if rungs else ""}">')
        drawn += _series(one, across, up)
        drawn.append("</g>")
    return (
        f'<figure>{head}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{words}">{"".join(drawn)}</svg></figure>'
    )


def _frame(chart: Chart, across: Scale, up: Scale) -> Iterator[str]:
    """The grid, the numbers of both scales, what is shaded, and the target."""
    if chart.shaded is not None:
        begin, end = (across.at(place) for place in chart.shaded)
        yield (
            f'<rect class="{_colour(chart.series[0])}" x="{begin - 6:.1f}" y="{TOP}" '
            f'width="{end - begin + 12:.1f}" height="{HEIGHT - TOP - BOTTOM}" '
            f'fill="var(--c)" opacity=".1"/>'
        )
    for value in up.ticks(TICKS):
        yield f'<path class="grid" d="M{LEFT} {up.at(value):.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 6}" y="{up.at(value) + 4:.1f}" class="y">{label(value)}</text>'
    for value in across.ticks(TICKS):
        place = min(across.at(value), WIDTH - RIGHT - 3 * len(label(value)))
        yield f'<text x="{place:.1f}" y="{HEIGHT - 24}" class="x">{label(value)}</text>'
    yield (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" class="x">'
        f"{html_text(chart.across)}</text>"
    )
    if chart.target is not None:
        yield (
            f'<path class="target" d="M{LEFT} {up.at(chart.target):.1f}H{WIDTH - RIGHT}">'
            f"<title>target: {chart.target:.4g}</title></path>"
        )


def _colour(one: Series) -> str:
    return "reference" if one.number is None else f"r{one.number}"


def _series(one: Series, across: Scale, up: Scale) -> Iterator[str]:
    """The band or the bars, the line, the points with their words, and the crosses."""
    places = [(across.at(place), up.at(value)) for place, value in one.points]
    if one.band and one.spread:
        lows = [(x, up.at(low)) for (x, _), (low, _) in zip(places, one.spread, strict=True)]
        highs = [(x, up.at(high)) for (x, _), (_, high) in zip(places, one.spread, strict=True)]
        yield f'<path class="band" d="{_line([*lows, *highs[::-1]])}Z"/>'
    elif one.spread:
        for (x, _), (low, high) in zip(places, one.spread, strict=True):
            yield f'<path class="thin solid" d="M{x:.1f} {up.at(low):.1f}V{up.at(high):.1f}"/>'
    if one.joined and len(places) > 1:
        yield f'<path d="{_line(places)}"/>'
    if not one.band:
        for at, (x, y) in enumerate(places):
            note = f", {one.notes[at]}" if one.notes else ""
            words = html_text(f"{one.name}{note}: {one.points[at][1]:.4g}")
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{words}</title></circle>'
    for place in one.failed:
        x = across.at(place)
        yield (
            f'<path class="mark" d="M{x - 4:.1f} {TOP}l8 8m0 -8l-8 8">'
            f"<title>{html_text(one.name)}: diverged</title></path>"
        )


def _line(places: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def svg_reaches(rows: Sequence[Reach], title: str, note: str, across: str) -> str:
    """The times to the target as a figure of HTML: medians, intervals, and a dash for each seed.

    Args:
        rows: of the contenders.
        title: above it.
        note: below the title.
        across: the name of the scale.
    """
    known = [end for one in rows for end in (*one.per_seed, one.low, one.high) if end is not None]
    left = 8
    reach = Scale(0.0, max([1.0, *known]) * 1.12, left, WIDTH - RIGHT)
    bottom = TOP + ROW * len(rows)
    drawn = []
    for value in reach.ticks(TICKS + 1):
        x = reach.at(value)
        drawn.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        drawn.append(f'<text x="{x:.1f}" y="{bottom + 15}" class="x">{value:g}</text>')
    drawn.append(f'<path class="target" d="M{reach.at(1.0):.1f} {TOP}V{bottom}"/>')
    for at, one in enumerate(rows):
        drawn += _reach(one, reach, TOP + ROW * at)
    middle = (left + WIDTH - RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{bottom + 33}" class="x">{html_text(across)}</text>')
    return (
        f"<figure><figcaption>{html_text(title)} <small>{html_text(note)}</small></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {bottom + 40}" role="img" aria-label="{html_text(title)}">'
        f"{''.join(drawn)}</svg></figure>"
    )


def _reach(one: Reach, reach: Scale, top: float) -> Iterator[str]:
    """A row: the name, and below it the interval, the median and the seeds."""
    y, edge = top + NAME + 11, WIDTH - RIGHT
    name = one.name if len(one.name) <= LONGEST else f"{one.name[: LONGEST - 3]}..."
    yield f'<g class="r{one.number}">'
    yield f'<text x="8" y="{top + NAME}" class="name">{html_text(name)}'
    yield f"<title>{html_text(one.name)}</title></text>"
    yield f'<text x="{edge}" y="{top + NAME}" class="end">{one.words}</text>'
    for value in one.per_seed:
        yield f'<path class="thin solid faint" d="M{reach.at(value):.1f} {y - 5}v10"/>'
    if one.low is not None and one.per_seed:
        end = edge if one.high is None else reach.at(one.high)
        yield f'<path class="solid" d="M{reach.at(one.low):.1f} {y}H{end:.1f}"/>'
        if one.high is None:
            yield f'<path class="solid" d="M{edge - 5} {y - 4}l5 4l-5 4"/>'
    if one.median is not None:
        yield f'<circle cx="{reach.at(one.median):.1f}" cy="{y}" r="4"/>'
    yield "</g>"
