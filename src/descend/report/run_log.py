"""The log of a run as curves, read as it grows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from descend.checks import FINITE
from descend.files import opened
from descend.run.metrics_log import METRICS, line_values

LONGEST = 1_000_000  # bytes of a line that can be one
BESIDE = ("step", "epoch", "seconds")  # of a line, beside what is drawn


@dataclass
class Curve:
    """The values of one metric.

    Args:
        steps: at which it was logged.
        values: what was logged; NaN for what was no finite number.
    """

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def known(self) -> list[float]:
        """Those that are finite."""
        return [value for value in self.values if value == value]  # noqa: PLR0124 - NaN is not


class RunLog:
    """The log of a run: call `read` again for what has come since.

    Args:
        folder: of the run.

    Attributes:
        curves: by metric, in the order in which they appear.
        step: of the last line.
        epoch: of the last line.

    Example:
        >>> log = RunLog(Path("runs/digits"))
        >>> log.read()
        True
        >>> log.curves["val_loss"].values[-1]
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._begin()

    def _begin(self) -> None:
        self.curves: dict[str, Curve] = {}
        self.step = self.epoch = 0
        self.seconds = 0.0  # where the lines say how long an epoch took
        self._offset, self._last = 0, b""

    def read(self) -> bool:
        """Read the whole lines that have come; whether there were any.

        Raises:
            OSError: the log cannot be read.
        """
        path = self.folder / METRICS
        if not path.exists():  # nothing is logged yet
            self._begin()
            return False
        with opened(path) as file:
            file.seek(self._offset - len(self._last))
            if file.read(len(self._last)) != self._last:  # cut back by a run that goes on
                self._begin()
                file.seek(0)
            before = self._offset
            while (line := file.readline(LONGEST)).endswith(b"\n"):
                self._offset, self._last = self._offset + len(line), line
                self._take(line_values(line) or {})
        return self._offset != before

    def _take(self, values: dict[str, Any]) -> None:
        step = values.get("step")
        if not isinstance(step, int):
            step = self.step
        self.step, self.epoch = step, values.get("epoch", self.epoch)
        seconds = values.get("seconds")
        self.seconds += seconds if isinstance(seconds, float) else 0.0
        for name, value in values.items():
            if name in BESIDE or not (value is None or FINITE.admits(value)):
                continue
            curve = self.curves.setdefault(str(name), Curve())
            curve.steps.append(step)
            curve.values.append(float("nan") if value is None else float(value))


def is_higher_better(name: str) -> bool:
    """Whether the highest value of a metric is its best, by its name.

    Example:
        >>> is_higher_better("val_acc"), is_higher_better("validation_loss")
        (True, False)
    """
    words = name.lower().replace("/", "_").split("_")
    return any(word in ("acc", "accuracy", "auc", "auroc", "f1", "iou", "r2", "bleu", "map")
               for word in words)  # fmt: skip


def best_value(name: str, values: Sequence[float]) -> float:
    """The best of a metric's values: the highest of an accuracy and the like, else the lowest.

    Example:
        >>> best_value("val_acc", [0.8, 0.9]), best_value("val_loss", [0.8, 0.9])
        (0.9, 0.8)
    """
    return max(values) if is_higher_better(name) else min(values)


def ordered(names: list[str]) -> list[str]:
    """Metrics in the order in which people look at them: losses, other metrics, the lr.

    Example:
        >>> ordered(["lr", "train_loss", "val_acc", "val_loss"])
        ['val_loss', 'train_loss', 'val_acc', 'lr']
    """

    def place(name: str) -> tuple[bool, bool, bool]:
        loss = "loss" in name
        return name.startswith("lr"), not loss, name.startswith("train") and loss

    return sorted(names, key=place)


def thinned(curve: Curve, most: int) -> Curve:
    """A curve of no more than so many points: the least and the greatest of each stretch.

    Example:
        >>> thinned(Curve([1, 2, 3, 4], [1.0, 5.0, 0.0, 2.0]), 2).values
        [5.0, 0.0]
    """
    count = len(curve.steps)
    if count <= most:
        return curve
    found = Curve()
    each = -(-count // max(most // 2, 1))
    for begin in range(0, count, each):
        places = [*range(begin, min(begin + each, count))]
        known = [at for at in places if curve.values[at] == curve.values[at]]
        shown = {min(known, key=curve.values.__getitem__), max(known, key=curve.values.__getitem__)
                 } if known else {places[0]}  # fmt: skip
        for at in sorted(shown):
            found.steps.append(curve.steps[at])
            found.values.append(curve.values[at])
    return found
