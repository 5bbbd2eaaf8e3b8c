"""One run of measurements: its parts in turn, where and with what, and whether Ctrl-C ended it."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

from descend.bench.timing import Spread
from descend.checkpoint.provenance import processor
from descend.training.thread_count import threads_set

FORMAT = 2
"""Counts the incompatible changes of the document's layout."""

AT_MOST = "x at most"
"""The unit of a ratio that must not be above its target."""

Part = tuple[str, Callable[[], object]]
"""A few words about a part of a measurement, and the function that returns its result, or a list of
them."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Machine:
    """Where and with what a measurement was taken.

    Args:
        processor: The CPU's model.
        cores: The cores that this process may use.
        threads: The threads that steps use.
        load: The system's load average over the last minute before the run; None where unknown.
        system: The operating system.
        python: Python's version.
        torch: torch's version.
        numba: Numba's version.
        descend: descend's version.
        dtype: The type of the parameters, gradients and states.
    """

    processor: str
    cores: int
    threads: int
    load: float | None
    system: str
    python: str
    torch: str
    numba: str
    descend: str
    dtype: str = "float32"

    @property
    def busy(self) -> bool:
        """Whether other programs used more than half of the cores before the run."""
        return self.load is not None and self.load > self.cores / 2


def machine() -> Machine:
    """Describe this machine and the versions in use; threads are torch's at the moment."""
    from importlib.metadata import version

    affinity = getattr(os, "sched_getaffinity", None)
    return Machine(
        processor=processor(),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=torch.__version__,
        numba=version("numba"),
        descend=version("descend"),
    )


@dataclass(frozen=True)
class Measurement:
    """Everything that one run measured.

    Args:
        machine: Where.
        rounds: How many turns each contender took.
        seconds: How long the run took.
        found: The results of its parts, in their order.
        interrupted: Whether Ctrl-C ended the run: it holds what was measured before.
    """

    machine: Machine
    rounds: int
    seconds: float
    found: tuple[object, ...]
    interrupted: bool = False

    def of(self, kind: type[Row]) -> list[Row]:
        """Return the results of a kind.

        Args:
            kind: Their class.
        """
        return [one for one in self.found if isinstance(one, kind)]


def measure_parts(
    parts: Sequence[Part],
    *,
    rounds: int,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Measurement:
    """Measure some parts, one after the other.

    Args:
        parts: What to measure.
        rounds: How many turns each contender takes in them.
        threads: How many threads torch uses; None for its own number.
        progress: Called with the words of each part before it.

    Returns:
        The measurement: of all parts, or after Ctrl-C of those that were complete by then.

    Example:
        >>> from descend.bench import WORKLOADS, cases, step_parts
        >>> parts = step_parts([cases()["adamw"]], [WORKLOADS["mlp"]], rounds=3, start=False)
        >>> [one.contender for one in measure_parts(parts, rounds=3).of(StepTimes)[0].timings]
        ['descend', 'torch default', 'torch foreach', 'torch fused']
    """
    began, interrupted = time.monotonic(), False
    found: list[object] = []
    with threads_set(threads):
        where = machine()
        try:
            for words, measure in parts:
                progress(words)
                result = measure()
                found += result if isinstance(result, list) else [result]
        except KeyboardInterrupt:
            interrupted = True
    return Measurement(where, rounds, time.monotonic() - began, tuple(found), interrupted)


@dataclass(frozen=True)
class Target:
    """One figure that descend promises.

    Args:
        name: What is compared with what.
        target: The promised figure: a ratio, or seconds.
        unit: `x` for a ratio that has to be at least the target, `AT_MOST` for one that must not be
            above it, `s` for seconds that have to be less.
        measured: What was measured; None where the run did not hold it.
        within_noise: Whether the target counts as met where the upper quartile reaches it.
        of: The optimizers that the figure is of, where its name does not tell.
    """

    name: str
    target: float
    unit: str
    measured: Spread | None
    within_noise: bool = False
    of: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.measured is None:
            return "not measured"
        if self.unit == "s":
            met = self.measured.median < self.target
        elif self.unit == AT_MOST:
            met = self.measured.median <= self.target
        else:
            met = (self.measured.high if self.within_noise else self.measured.median) >= self.target
        return "met" if met else "missed"


def slowest(name: str, ratios: Mapping[str, Spread], least: float = 1) -> Target:
    """Return the promise that nothing is slower than what stands beside it, or not much.

    Args:
        name: What is compared with what.
        ratios: How many times as long the other takes, by what is measured.
        least: the ratio that is promised.

    Returns:
        The target of the one that is least ahead: if any is behind, this one is.
    """
    # By the upper quartile, because that is what the target is compared with.
    last = min(ratios, key=lambda one: ratios[one].high, default=None)
    ratio, of = (None, ()) if last is None else (ratios[last], (last,))
    return Target(name, least, "x", ratio, within_noise=True, of=of)


def document(
    measurement: Measurement, targets: Sequence[Target], entries: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a measurement as dictionaries, lists, strings and numbers, for JSON.

    Args:
        measurement: What `measure_parts` returned.
        targets: What it was compared with.
        entries: Its results as plain data, by name.

    Returns:
        The fields of `Measurement` by name, `entries` in the place of `found`, all times in seconds
        and all sizes in bytes; `format`, the number of this layout; and `targets`, each with its
        `status`. A spread is an object of `median`, `low` and `high`, the quartiles.
    """
    return {
        "format": FORMAT,
        "machine": asdict(measurement.machine),
        "rounds": measurement.rounds,
        "seconds": measurement.seconds,
        **entries,
        "interrupted": measurement.interrupted,
        "targets": [{**asdict(target), "status": target.status} for target in targets],
    }
