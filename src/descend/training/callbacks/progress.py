"""ProgressBars: the bars of a trainer on a terminal, and its lines anywhere."""

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from descend.bars import bars, on_terminal
from descend.format import counted, duration, three_digits
from descend.training.callbacks.callback import Callback

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


INTERVAL = 0.1  # seconds between two drawings, each of which takes about 1 ms
COLUMNS = ("{task.description}", "short bar", "count", "{task.fields[rate]}", "remaining",
           "{task.fields[values]}")  # fmt: skip


class Part:
    """A loop over batches that is under way.

    Args:
        text: its name.
        batches: how many there are, or infinity.
        done: how many were done before.
    """

    def __init__(self, text: str, batches: float, done: int = 0) -> None:
        self.text, self.batches = text, batches
        self.first = self.done = done
        self.since = time.monotonic()
        self.bar: TaskID | None = None  # once it was drawn

    def rate(self, now: float) -> str:
        """Batches a second, or seconds a batch."""
        done, seconds = self.done - self.first, now - self.since
        if not done or not seconds:
            return ""
        each = done / seconds
        return f"{three_digits(each)} it/s" if each >= 1 else f"{three_digits(1 / each)} s/it"


class ProgressBars(Callback):
    """Show how far a trainer is: a line for each epoch, and bars on a terminal.

    A bar for the epoch has the values that were logged with `prog_bar`, and one below is that of a
    validation. They are drawn ten times a second at most, by the loop itself: between two drawings
    a batch costs a look at the clock, and no thread disturbs it.
    """

    def __init__(self) -> None:
        self._live: Progress | None = None
        self._train: Part | None = None  # the epoch under way
        self._other = Part("", math.inf)  # the validation, the test or the prediction
        self._due = math.inf  # when to draw next

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        print(line, flush=True)  # what is printed while bars are live, rich puts above them

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Look for a terminal."""
        self._train, self._due = None, 0.0 if on_terminal(stderr=False) else math.inf

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Remove the bars."""
        live, self._live, self._due = self._live, None, math.inf
        if live is not None:
            live.stop()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Remove the bars."""
        self.teardown(trainer, module, "")

    def on_sanity_check_start(self, trainer: Any, module: Any) -> None:
        """Say that it comes."""
        batches = counted(int(sum(trainer.num_sanity_val_batches)), "batch", "batches")
        self.say(f"sanity check: {batches} of validation")

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Go on with the bar of an epoch in its middle."""
        if trainer.run.loader.position:
            self.on_train_epoch_start(trainer, module)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Begin the bar of an epoch."""
        done = trainer.run.loader.position
        self._train = Part(_epoch(trainer), trainer.num_training_batches, done)
        self._draw_if_due(self._train, trainer)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw, if it is time."""
        if self._train is not None:
            self._train.done = batch_idx + 1
            self._draw_if_due(self._train, trainer)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Say what the epoch has brought."""
        if self._train is not None:
            self._end(self._train, self._train.text, trainer)

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Begin the bar of a validation."""
        if self._live is not None and self._train is not None and self._train.bar is not None:
            self._live.update(self._train.bar, completed=trainer.run.loader.position)
        self._begin("validation", trainer.num_val_batches)

    def on_test_start(self, trainer: Any, module: Any) -> None:
        """Begin the bar of a test."""
        self._begin("test", trainer.num_test_batches)

    def on_predict_start(self, trainer: Any, module: Any) -> None:
        """Begin the bar of a prediction."""
        self._begin("prediction", trainer.num_predict_batches)

    def on_validation_batch_end(self, trainer: Any, *rest: Any, **named: Any) -> None:
        """Draw, if it is time."""
        self._other.done += 1
        self._draw_if_due(self._other)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Remove the bar; say what was measured, if no end of an epoch does."""
        if self._train is None:
            self._end_alone("" if trainer.sanity_checking else "validation", trainer)
        else:
            text = f"{self._train.text}, step {trainer.global_step:,}"
            newest = {name: value for name, value in trainer.progress_bar_metrics.items()
                      if not name.endswith("_epoch")}  # fmt: skip
            self._end(self._other, "" if trainer.is_last_batch else text, trainer, newest)

    def on_test_end(self, trainer: Any, module: Any) -> None:
        """Remove the bar, and say what was measured."""
        self._end_alone("test", trainer)

    def on_predict_end(self, trainer: Any, module: Any) -> None:
        """Remove the bar."""
        self._end_alone("", trainer)

    def _begin(self, text: str, batches: list[float]) -> None:
        """Begin the bar of a validation, a test or a prediction."""
        self._other = Part(text, sum(batches))
        self._draw_if_due(self._other)

    def _draw_if_due(self, part: Part, trainer: Any = None) -> None:
        """Draw the bars, with the values of a training, if it is time."""
        now = time.monotonic()
        if now < self._due:
            return
        if self._live is None:
            self._live = bars(COLUMNS, stderr=False, by_hand=True)
            self._live.start()
        values = "" if trainer is None else _values(trainer.progress_bar_metrics)
        state: dict[str, Any] = {"completed": part.done, "rate": part.rate(now), "values": values}
        if part.bar is None:
            total = part.batches if part.batches < math.inf else None
            part.bar = self._live.add_task(part.text, total=total, **state)
        else:
            self._live.update(part.bar, refresh=True, **state)
        self._due = now + INTERVAL

    def _end_alone(self, text: str, trainer: Any) -> None:
        """Remove the bar of what is no part of a training; say all that was measured."""
        self._end(self._other, text if trainer.verbose else "", trainer, trainer.callback_metrics)

    def _end(
        self, part: Part, text: str, trainer: Any, values: Mapping[str, Any] | None = None
    ) -> None:
        """Remove a bar, and say what came of it."""
        if self._live is not None and part.bar is not None:
            self._live.remove_task(part.bar)
            self._live.refresh()
        if text:
            values = values or trainer.progress_bar_metrics or trainer.callback_metrics
            # Of what is logged for batches and epochs, those of epochs
            of_epoch = {name: value for name, value in values.items()
                        if f"{name.removesuffix('_step')}_epoch" not in values}  # fmt: skip
            took = duration(time.monotonic() - part.since)
            self.say("  ".join(filter(None, (text, _values(of_epoch), took))))


def _epoch(trainer: Any) -> str:
    most = trainer.max_epochs
    number = trainer.current_epoch + 1
    return f"epoch {number:{len(str(most))}}/{most}" if most > 0 else f"epoch {number}"


def _values(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
