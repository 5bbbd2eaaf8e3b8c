"""Two runs beside each other: every bit of their newest checkpoints, every line of their logs.

What varies between two runs that should be equal and is none of the training's, times above all,
is found here too, so that it can be left out of a comparison.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from descend.checkpoint.state_diff import Difference, diff
from descend.checkpoint.state_source import load
from descend.files import read_whole
from descend.resume_check.logged_files import logged_files
from descend.run.metrics_log import METRICS, line_values
from descend.run.run import OWN
from descend.states import ABSENT, Place, beside, joined, leaves

TRAINER = "trainer"  # the entry of a checkpoint that is a trainer's own
LOGGERS = (TRAINER, "loggers")


@dataclass(frozen=True)
class LogDifference:
    """The first line in which two logs differ.

    Args:
        line: its number, from 1.
        step: its step.
        keys: what differs in it, in the order of the line.
        first: the line of the first log; None where that has ended.
        second: the line of the second log; None where that has ended.
        file: of a logger, in the run's folder; None: the run's own log.
    """

    line: int
    step: int | None
    keys: tuple[str, ...]
    first: Mapping[str, Any] | None
    second: Mapping[str, Any] | None
    file: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    Args:
        objects: the entries of their newest checkpoints.
        tensors: how many tensors these hold.
        values: how many other values.
        lines: how many lines the first log has.
        keys: what is compared of them.
        state: what differs between the newest checkpoints.
        log: where the logs differ first.
        others: how many lines each log of a logger has.
    """

    objects: tuple[str, ...]
    tensors: int
    values: int
    lines: int
    keys: tuple[str, ...]
    state: tuple[Difference, ...]
    log: LogDifference | None
    others: Mapping[str, int] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether there is no difference."""
        return not self.state and self.log is None


@dataclass(frozen=True)
class Outcome:
    """The end of a run: the state of its newest checkpoint, and the lines of its logs.

    Args:
        state: by object.
        lines: of its own log.
        others: of each log that a logger has made.
    """

    state: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    others: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """All that need not be equal: keys of the log, and places in the state, * for any index."""

    keys: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()

    def holds(self, name: str) -> bool:
        """Whether a place in the state is left out."""
        name = _anywhere(name)
        wholes = (one for one in self.places if one.startswith(joined(LOGGERS)))
        return name in self.places or any(name.startswith(f"{one}.") for one in wholes)

    def names(self) -> tuple[str, ...]:
        """All of it in words, but for what a run's own state repeats of its log."""
        places = sorted(one for one in self.places if not one.startswith(f"{OWN}."))
        return (*sorted(self.keys), *places)


def outcome(folder: Path) -> Outcome:
    """Read the end of the run in a folder."""
    return Outcome(load(folder), log_lines(folder), logged_files(folder))


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, but a last one that is cut short."""
    log = folder / METRICS
    lines: list[dict[str, Any]] = []
    content = read_whole(log) if log.exists() else b""
    for line in content.split(b"\n")[:-1]:
        # A line that is not the run's stands as it is
        values = line_values(line)
        lines.append({"": line.decode(errors="replace")} if values is None else values)
    return lines


def without_keys(keys: Collection[str]) -> LeftOut:
    """Leave out keys of the log, and what a run's own state holds of them."""
    metrics = {f"{OWN}.metrics.{key}" for key in keys}
    return LeftOut(frozenset(keys), frozenset({f"{OWN}.log", *metrics} if keys else ()))


def varying(a: Outcome, b: Outcome, ignore: Collection[str]) -> LeftOut:
    """Find what differs between two whole runs and is none of the training's: times, above all.

    That is a key of the log, a value in an object that holds no tensors, and the whole state of a
    logger, such as the names of its files. Where anything else differs too, `compare` says so.

    Args:
        a: what a run has left.
        b: what another has left.
        ignore: keys of the log that are left out anyway.
    """
    keys = set(ignore)
    for ours, theirs in _logs(a, b).values():
        for one, other in zip(ours, theirs, strict=False):
            keys |= {key for key in one if _text(one[key]) != _text(other.get(key))}
    left_out = without_keys(keys - {"step", "epoch", "tag"})
    places = set(left_out.places)
    of_a, of_b = _objects(a.state), _objects(b.state)
    for place in of_a.keys() & of_b.keys():
        pairs = list(beside(of_a[place], of_b[place], place))
        if place[:2] == LOGGERS and any(repr(here) != repr(there) for _, here, there in pairs):
            places.add(_anywhere(joined(place)))
        elif not any(_is_tensor(here) for _, here, _ in pairs):
            places |= {
                _anywhere(joined(at))
                for at, here, there in pairs
                if not (here is ABSENT or there is ABSENT) and repr(here) != repr(there)
            }
    return LeftOut(left_out.keys, frozenset(places))


def _objects(state: Mapping[str, Any]) -> dict[Place, Any]:
    """The objects of a run by their places; those of a trainer are many in one entry."""
    found: dict[Place, Any] = {(name,): one for name, one in state.items() if name != OWN}
    for place in ((TRAINER,), (TRAINER, "callbacks"), LOGGERS):
        if isinstance(found.get(place), Mapping):
            found.update({(*place, name): one for name, one in found.pop(place).items()})
    return found


def compare(a: Outcome, b: Outcome, left_out: LeftOut) -> Comparison:
    """Compare every bit of two runs, but for what is left out."""
    kinds = [_is_tensor(x) for place, x in leaves(a.state) if not left_out.holds(joined(place))]
    keys = {key: None for line in a.lines for key in line if key not in left_out.keys}
    return Comparison(
        tuple(a.state),
        sum(kinds),
        len(kinds) - sum(kinds),
        len(a.lines),
        tuple(keys),
        tuple(one for one in diff(a.state, b.state) if not left_out.holds(one.name)),
        next(
            (
                replace(found, file=file)
                for file, (ours, theirs) in _logs(a, b).items()
                if (found := _log_difference(ours, theirs, left_out.keys)) is not None
            ),
            None,
        ),
        {name: len(lines) for name, lines in a.others.items()},
    )


def _logs(a: Outcome, b: Outcome) -> dict[str | None, tuple[Any, Any]]:
    """The lines of each log of one run beside those of the other; the run's own by None."""
    pairs: dict[str | None, tuple[Any, Any]] = {None: (a.lines, b.lines)}
    for name in {**a.others, **b.others}:
        pairs[name] = a.others.get(name, ()), b.others.get(name, ())
    return pairs


def _log_difference(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], left_out: Collection[str]
) -> LogDifference | None:
    for number, (one, other) in enumerate(zip_longest(a, b), start=1):
        both = {**(one or {}), **(other or {})}
        missing = one is None or other is None
        keys = tuple(
            key
            for key in both
            if key not in left_out and (missing or _value(one, key) != _value(other, key))
        )
        if keys or missing:
            step = both.get("step")
            return LogDifference(number, step if isinstance(step, int) else None, keys, one, other)
    return None


def _value(line: Mapping[str, Any], key: str) -> str | None:
    return _text(line[key]) if key in line else None


def _text(value: object) -> str:
    """A value of JSON, so that 1 and 1.0 and true differ."""
    return json.dumps(value, sort_keys=True)


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray | np.generic)


def _anywhere(name: str) -> str:
    """The name of a place with * for each index."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
