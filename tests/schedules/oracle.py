"""Every schedule once more: from its definition, in exact fractions and with 50 digits.

A schedule is written here as data, `(name, {argument: value})`: `built` makes descend's of it,
`level` says what it is. The two share nothing but the names.

- Levels are (factor, value): the hyperparameter is factor * base + value.
- Times are fractions, so sums of lengths, remainders and comparisons are exact.
- Sources stand beside each function; where a schedule is a convention of torch or Optax, theirs.
"""

import math
import sys
from fractions import Fraction

import mpmath

import descend.schedules

mp = mpmath.MPContext()
mp.dps = 50

EPS = Fraction(1, 2**53)


def q(number):
    """A number as it stands, without rounding."""
    return number if number == math.inf else Fraction(number)


def m(number):
    """A number with 50 digits."""
    if isinstance(number, Fraction):
        return mp.mpf(number.numerator) / number.denominator
    return mp.mpf(number)


def levels(given):
    """A number, or ("value", {"of": number}), as (factor, value)."""
    return (m(0), m(given[1]["of"])) if isinstance(given, tuple) else (m(given), m(0))


def mixed(start, end, left):
    """So much of one level, and the rest of the other."""
    (f0, v0), (f1, v1) = levels(start), levels(end)
    return f1 + (f0 - f1) * left, v1 + (v0 - v1) * left


def half_wave(fraction):
    return (1 + mp.cos(mp.pi * m(fraction))) / 2


# Ramps


def constant(t, factor=1, steps=math.inf):
    return levels(factor)


def linear(t, steps, start=1, end=0):
    """Defazio et al. 2023: in proportion to what is left."""
    return mixed(start, end, m(max(0, 1 - t / q(steps))))


def cosine(t, steps, start=1, end=0):
    """Loshchilov and Hutter 2017, equation 5, of one period."""
    return mixed(start, end, half_wave(min(t / q(steps), 1)))


def polynomial(t, steps, power, start=1, end=0):
    """Chen et al. 2017: (1 - t / T)^power."""
    return mixed(start, end, mp.power(m(max(0, 1 - t / q(steps))), m(power)))


def piecewise(t, points, between="linear"):
    """Between the last point before and the first one after."""
    pairs = sorted((q(time), given) for time, given in dict(points).items())
    before = max(pair for pair in pairs if pair[0] <= t)
    later = [pair for pair in pairs if pair[0] > t]
    if not later:
        return levels(before[1])
    after = min(later)
    fraction = (t - before[0]) / (after[0] - before[0])
    left = {"linear": m(1 - fraction), "cosine": half_wave(fraction), "constant": m(1)}[between]
    return mixed(before[1], after[1], left)


# Decays


def exponential(t, gamma, every=1):
    return mp.power(m(gamma), m(t / q(every))), m(0)


def step(t, every, gamma=0.1):
    return mp.power(m(gamma), math.floor(t / q(every))), m(0)


def multistep(t, milestones, gamma=0.1):
    return mp.power(m(gamma), sum(q(time) <= t for time in milestones)), m(0)


def inverse_sqrt(t, steps):
    return 1 / mp.sqrt(1 + m(t / q(steps))), m(0)


def function(t, of, steps=math.inf, unit=1):
    return m(of(float(min(t, q(steps)) / q(unit)))), m(0)


# Cycles


def one_cycle(t, steps, rise=0.3, start=0.04, end=4e-6, between="cosine"):
    """Smith and Topin 2018, in torch's two phases."""
    part = {"cosine": cosine, "linear": linear}[between]
    peak = q(rise) * q(steps)
    if t < peak:
        return part(t, peak, start, 1)
    return part(t - peak, q(steps) - peak, 1, end) if peak < q(steps) else (m(1), m(0))


def cyclic(t, up, down=None, low=0.1, mode="triangular", gamma=1, every=1):
    """Smith 2017: from low to 1 and back, the height scaled by the cycle or the time."""
    up, down = q(up), q(up if down is None else down)
    cycle = t // (up + down)
    since = t - cycle * (up + down)
    height = min(since / up, 1) if since <= up else 1 - (since - up) / down
    scale = {
        "triangular": lambda: m(1),
        "triangular2": lambda: mp.power(2, -int(cycle)),
        "exp_range": lambda: mp.power(m(gamma), m(t / q(every))),
    }[mode]()
    return m(low) + (1 - m(low)) * m(height) * scale, m(0)


def warm_restarts(t, steps, growth=1, start=1, end=0):
    """Loshchilov and Hutter 2017: T_0 = steps, T_i = growth T_(i-1)."""
    if growth == 1:
        return mixed(start, end, half_wave(t % q(steps) / q(steps)))
    steps, growth, t = m(steps), m(growth), m(t)

    def begin(count):
        return steps * (mp.power(growth, count) - 1) / (growth - 1)

    count = int(mp.log(t / steps * (growth - 1) + 1, growth))
    count = max(n for n in (count - 1, count, count + 1) if n >= 0 and begin(n) <= t)
    return mixed(start, end, half_wave((t - begin(count)) / (steps * mp.power(growth, count))))


def wsd(t, rise, stable, decay, end=0, between="linear"):
    """Hu et al. 2024."""
    rise, stable = q(rise), q(stable)
    if t < rise:
        return m(t / rise), m(0)
    if t < rise + stable:
        return m(1), m(0)
    return {"cosine": cosine, "linear": linear}[between](t - rise - stable, decay, 1, end)


# Warmups


def warmup(t, steps, kind="linear", start=0):
    """Goyal et al. 2017 for "linear" and "constant"."""
    if t >= q(steps):
        return m(1), m(0)
    fraction, start = t / q(steps), m(start)
    factor = {
        "linear": lambda: start + (1 - start) * m(fraction),
        "cosine": lambda: 1 - (1 - start) * half_wave(fraction),
        "exponential": lambda: mp.power(start, m(1 - fraction)),
        "constant": lambda: start,
    }[kind]()
    return factor, m(0)


def untuned_linear(t, beta2=0.999):
    """Ma and Yarats 2021, equation 9, with its t from 1."""
    return min(m(1), (1 - m(beta2)) / 2 * (m(t) + 1)), m(0)


def untuned_exponential(t, beta2=0.999):
    """Ma and Yarats 2021, equation 8, with its t from 1."""
    return 1 - mp.exp(-(1 - m(beta2)) * (m(t) + 1)), m(0)


def rho(count, beta2):
    """Liu et al. 2020, algorithm 2."""
    power = mp.power(m(beta2), m(count))
    return 2 / (1 - m(beta2)) - 1 - 2 * m(count) * power / (1 - power)


def rectified(t, beta2=0.999):
    """Liu et al. 2020, algorithm 2, from the first t whose variance is tractable: rho above 4."""
    first = 1
    while rho(first, beta2) <= 4:
        first += 1
    now, limit = rho(t + first, beta2), 2 / (1 - m(beta2)) - 1
    return mp.sqrt((now - 4) * (now - 2) * limit / ((limit - 4) * (limit - 2) * now)), m(0)


# Combinators


def value(t, of):
    return m(0), (level(of, t)[0] if isinstance(of, tuple) else m(of))


def until(t, schedule, steps):
    return level(schedule, min(t, q(steps)))


def repeat(t, schedule, times=math.inf):
    one = length(schedule)
    return level(schedule, t % one if times == math.inf or t < one * times else one)


def delay(t, schedule, steps):
    return level(schedule, max(0, t - q(steps)))


def clip(t, schedule, low, high=math.inf):
    factor, absolute = level(schedule, t)
    if is_value(schedule):
        return m(0), min(max(absolute, m(low)), m(high))
    return min(max(factor, m(low)), m(high)), m(0)


def join(t, first, second):
    end = length(first)
    return level(first, t) if t < end else level(second, t - end)


def product(t, first, second):
    (f0, v0), (f1, v1) = level(first, t), level(second, t)
    return f0 * f1, f0 * v1 + v0 * f1  # one of the two is a factor


def scale(t, schedule, by):
    factor, absolute = level(schedule, t)
    return m(by) * factor, m(by) * absolute


LENGTHS = {
    "piecewise": lambda points, **_: max(map(q, dict(points))),
    "multistep": lambda milestones, **_: max(map(q, milestones)),
    "wsd": lambda rise, stable, decay, **_: q(rise) + q(stable) + q(decay),
    "value": lambda of: length(of) if isinstance(of, tuple) else math.inf,
    "repeat": lambda schedule, times=math.inf: (
        math.inf if times == math.inf else times * length(schedule)
    ),
    "delay": lambda schedule, steps: length(schedule) + q(steps),
    "clip": lambda schedule, **_: length(schedule),
    "scale": lambda schedule, **_: length(schedule),
    "join": lambda first, second: length(first) + length(second),
    "product": lambda first, second: max(length(first), length(second)),
}
ENDING = {
    "constant", "linear", "cosine", "polynomial", "function", "one_cycle", "warmup", "until"
}  # fmt: skip


def level(spec, time):
    """(factor, value) of a schedule at a time, with 50 digits."""
    name, arguments = spec
    return globals()[name](q(time), **arguments)


def length(spec):
    """When a schedule ends, as a fraction or infinity."""
    name, arguments = spec
    if name in LENGTHS:
        return LENGTHS[name](**arguments)
    return q(arguments.get("steps", math.inf)) if name in ENDING else math.inf


def is_value(spec):
    """Whether a schedule ignores the base: made by `value`, or all its levels are."""
    name, arguments = spec
    parts = [part for part in arguments.values() if _is_spec(part)]
    if name == "piecewise":
        parts = list(dict(arguments["points"]).values())
    if name == "value":
        return True
    if name == "product":
        return any(map(is_value, parts))
    if name in ("linear", "cosine", "polynomial", "warm_restarts"):
        parts = [arguments.get("start", 1), arguments.get("end", 0)]
    return bool(parts) and all(_is_spec(part) and is_value(part) for part in parts)


def built(spec):
    """The schedule of descend."""
    name, arguments = spec
    made = {key: _built_argument(key, given) for key, given in arguments.items()}
    if name == "join":
        return made["first"] >> made["second"]
    if name == "product":
        return made["first"] * made["second"]
    if name == "scale":
        return made["schedule"] * made["by"]
    return getattr(descend.schedules, name)(**made)


def _built_argument(key, given):
    if _is_spec(given):
        return built(given)
    if key == "points":
        return [(time, built(one) if _is_spec(one) else one) for time, one in dict(given).items()]
    return given


def _is_spec(given):
    return isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], dict)


def greatest(spec, base=1):
    """A bound for what a schedule gives at any time: its rounding errors are in proportion."""
    base = abs(base)
    name, arguments = spec
    if name == "product":
        pair = arguments["first"], arguments["second"]
        return max(greatest(a) * greatest(b, base) for a, b in (pair, pair[::-1]))
    if name == "value":
        return greatest(arguments["of"]) if _is_spec(arguments["of"]) else abs(q(arguments["of"]))
    inner = {key: greatest(part, base) for key, part in arguments.items() if _is_spec(part)}
    if name == "scale":
        return abs(q(arguments["by"])) * inner["schedule"]
    if name == "piecewise":
        return max(
            greatest(one, base) if _is_spec(one) else abs(q(one)) * base
            for one in dict(arguments["points"]).values()
        )
    numbers = [
        abs(q(arguments[key])) * base
        for key in ("start", "end", "factor", "low", "high")
        if isinstance(arguments.get(key), int | float) and math.isfinite(arguments[key])
    ]
    return max([q(base), *numbers, *inner.values()])


def off(spec, time, got, base=1, wobble=0):
    """How far a number is from a schedule, in roundings (2^-53) of the schedule's greatest.

    Args:
        spec: the schedule.
        time: when.
        got: the number.
        base: of the hyperparameter.
        wobble: how many roundings of the time are allowed: what the formula makes of a time that
            is so far off counts as right.
    """
    wanted = [
        m(base) * factor + absolute
        for factor, absolute in (
            level(spec, q(time) * (1 + shift * EPS)) for shift in {-wobble, 0, wobble}
        )
    ]
    low, high, got = min(wanted), max(wanted), m(got)
    return float(max(low - got, got - high, 0) / m(greatest(spec, base) * EPS + sys.float_info.min))
