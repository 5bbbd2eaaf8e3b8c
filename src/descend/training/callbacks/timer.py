"""Timer: how long the parts of a training take, and its end after some time."""

import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal

from descend.checks import Choice
from descend.errors import TrainerError
from descend.format import duration as in_words
from descend.spelling import spelled
from descend.training.callbacks.callback import Callback

Duration = str | timedelta | Mapping[str, float]
STAGES = ("train", "validate", "test", "predict")
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d):(\d\d)")
_STAGE, _INTERVAL = Choice(STAGES), Choice(("step", "epoch"))


def _clock(stage: str) -> tuple[Any, Any]:
    """The hooks that start and stop the clock of a stage."""

    def start(self: "Timer", trainer: Any, module: Any) -> None:
        """Start the clock."""
        self._since[stage] = time.monotonic()
        if stage == "train":  # a run that goes on may have no time left
            self._stop_if_over(trainer)

    def stop(self: "Timer", trainer: Any, module: Any) -> None:
        """Stop the clock."""
        self._spent[stage] = self.time_elapsed(stage)
        self._since.pop(stage, None)

    return start, stop


class Timer(Callback):
    """Measure how long training, validation, test and prediction take; stop after some time.

    The time of the training, its validations included, is that of all processes: it goes on where
    a run goes on. It is the one value of a run that no two runs have in common, and
    `descend verify-resume` leaves it out.

    Args:
        duration: when to stop: "DD:HH:MM:SS", a `timedelta`, or its arguments as a mapping, such as
            {"hours": 2}; None: never.
        interval: whether the clock is read after each "step" or each "epoch".

    Raises:
        TrainerError: `duration` is no such thing, or another argument is not allowed.

    Example:
        >>> timer = Timer({"hours": 12})
        >>> timer.time_remaining(), timer.time_elapsed("validate")
        (43200.0, 0.0)

    Source: the arguments and methods are those of Lightning's Timer.
    """

    @spelled
    def __init__(
        self, duration: Duration | None = None, interval: Literal["step", "epoch"] = "step"
    ) -> None:
        self._most = math.inf if duration is None else in_seconds("Timer: duration", duration)
        self._interval = _INTERVAL.check("Timer: interval", interval, TrainerError)
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._since: dict[str, float] = {}  # of the stages under way

    def time_elapsed(self, stage: str = "train") -> float:
        """How many seconds a stage has taken so far.

        Args:
            stage: "train", "validate", "test" or "predict".
        """
        stage = _STAGE.check("Timer: stage", stage, TrainerError)
        since = self._since.get(stage)
        return self._spent[stage] + (0.0 if since is None else time.monotonic() - since)

    def time_remaining(self, stage: str = "train") -> float | None:
        """How many seconds are left; None without a duration.

        Args:
            stage: as for `time_elapsed`.
        """
        return None if self._most == math.inf else self._most - self.time_elapsed(stage)

    def state_dict(self) -> dict[str, Any]:
        """The time that each stage has taken."""
        return {"seconds": {stage: self.time_elapsed(stage) for stage in STAGES}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from these times.

        Args:
            state: a former `state_dict()`.
        """
        self._spent.update(state["seconds"])

    on_train_start, on_train_end = _clock("train")
    on_validation_start, on_validation_end = _clock("validate")
    on_test_start, on_test_end = _clock("test")
    on_predict_start, on_predict_end = _clock("predict")

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        """Stop where time is over."""
        if self._interval == "step":
            self._stop_if_over(trainer)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Stop where time is over."""
        self._stop_if_over(trainer)

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Stop all clocks."""
        self._spent = {stage: self.time_elapsed(stage) for stage in STAGES}
        self._since = {}

    def _stop_if_over(self, trainer: Any) -> None:
        over = self._most < math.inf and self.time_elapsed() >= self._most
        if over and not trainer.should_stop:
            trainer.should_stop = True
            trainer.say(f"stopped after {in_words(self.time_elapsed())}: the time is over")


class MaxTime(Timer):
    """The timer of a trainer's own `max_time`, beside which there may be another."""


def in_seconds(place: str, duration: Any) -> float:
    """The seconds of a duration, as `Timer` and a trainer's `max_time` take it.

    Args:
        place: the owner and the argument, for the message.
        duration: a text of days, hours, minutes and seconds; a `timedelta`; or a mapping of its
            arguments.

    Raises:
        TrainerError: it is none of these.

    Example:
        >>> in_seconds("max_time", "00:01:30:00")
        5400.0
    """
    found = duration if isinstance(duration, timedelta) else None
    parts = _CLOCK.fullmatch(duration.strip()) if isinstance(duration, str) else None
    if parts is not None:
        days, hours, minutes, seconds = map(int, parts.groups())
        found = timedelta(days, seconds, hours=hours, minutes=minutes)
    elif isinstance(duration, Mapping):
        with suppress(TypeError, OverflowError):
            found = timedelta(**duration)
    if found is None or found < timedelta(0):
        raise TrainerError(
            f'{place} must be "DD:HH:MM:SS", a timedelta, or its arguments such as '
            f'{{"hours": 2}}, got {duration!r}'
        )
    return found.total_seconds()
