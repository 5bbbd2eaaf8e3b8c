"""EarlyStopping: the end of a training whose measure gets no better."""

import math
from typing import Any, Literal

from descend.checks import COUNT_FROM_0, FROM_0, Choice, Range, Switch, plain_number, shown
from descend.errors import TrainerError
from descend.format import counted
from descend.spelling import hint, spelled
from descend.training.callbacks.callback import Callback

_THRESHOLD = Range(optional=True)
_ARGUMENTS = {
    "min_delta": FROM_0,
    "patience": COUNT_FROM_0,
    "verbose": Switch(),
    "mode": Choice(("min", "max")),
    "strict": Switch(),
    "check_finite": Switch(),
    "stopping_threshold": _THRESHOLD,
    "divergence_threshold": _THRESHOLD,
    "check_on_train_epoch_end": Switch(optional=True),
}
_STATE = ("best", "wait", "reason", "stopped_epoch")


class EarlyStopping(Callback):
    """Stop when a logged value has stopped improving: as a callback, or in a loop of one's own.

    A value is an improvement if it is better than the best one so far by more than `min_delta`.
    After `patience` values in a row that are none, training stops.

    In a loop of one's own it is an object with a state, which `Run` takes as it takes a model:

        if stopping.step(val_loss):
            print(stopping.reason)
            run.stop()

    Args:
        monitor: the name under which the value is logged.
        min_delta: how much better counts.
        patience: how many values without improvement are borne; the last of them stops.
        verbose: whether the trainer tells of each improvement.
        mode: "min" if smaller is better, "max" if larger is.
        strict: whether a value that was not logged is an error; if not, it is passed over.
        check_finite: stop at a NaN or an infinity.
        stopping_threshold: stop at a value better than this.
        divergence_threshold: stop at a value worse than this.
        check_on_train_epoch_end: whether a trainer's value is read at the end of each epoch, not
            after each validation. By default so it is where each epoch ends with a validation, or
            where there is none.

    Attributes:
        best: the best value so far; infinite before the first.
        wait: how many values in a row were no improvement.
        reason: why it stopped, in words, or None.
        stopped_epoch: the trainer's epoch in which it stopped, from 0.

    Raises:
        TrainerError: an argument is not allowed; in a training, if the value was not logged.

    Example:
        >>> stopping = EarlyStopping("val_loss", patience=2)
        >>> [stopping.step(loss) for loss in (0.9, 0.5, 0.6, 0.5)]
        [False, False, False, True]
        >>> stopping.best, stopping.reason
        (0.5, 'val_loss did not improve on 0.5 in the last 2 checks')

    Source: L. Prechelt, Early Stopping - But When?, in Neural Networks: Tricks of the Trade, 1998;
        the arguments are those of Lightning.
    """

    min_delta: float
    patience: int
    verbose: bool
    mode: Literal["min", "max"]
    strict: bool
    check_finite: bool
    stopping_threshold: float | None
    divergence_threshold: float | None
    check_on_train_epoch_end: bool | None
    _after: Literal["epoch", "validation"] | None = None  # where a fit's value is read

    @spelled
    def __init__(
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,
        mode: Literal["min", "max"] = "min",
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
    ) -> None:
        given = locals()
        if not isinstance(monitor, str):
            raise TrainerError(
                f"EarlyStopping: monitor must be the name of a logged value, such as 'val_loss', "
                f"got {shown(monitor)}"
            )
        self.monitor = monitor
        for name, allowed in _ARGUMENTS.items():
            place = f"EarlyStopping: {name}"
            vars(self)[name] = allowed.check(place, given[name], TrainerError)
        self._sign = 1.0 if mode == "min" else -1.0
        self._begin()

    def _begin(self) -> None:
        self._is_used = False
        self.best = self._sign * math.inf
        self.wait = self.stopped_epoch = 0
        self.reason: str | None = None

    def step(self, value: Any) -> bool:
        """Take the next value, and say whether to stop.

        Args:
            value: a number, or a tensor of one element.

        Raises:
            TrainerError: it is no number.
        """
        number = plain_number(value)
        if number is None:
            raise TrainerError(
                f"EarlyStopping: {self.monitor} must be a number or a tensor of one element, got "
                f"{shown(value)}"
            )
        self.reason = self._take(float(number))
        return self.reason is not None

    def _take(self, value: float) -> str | None:
        """Count a value, and say why to stop with it."""
        name, best = self.monitor, self.best
        if self.check_finite and not math.isfinite(value):
            return f"{name} is {value}, which is no finite number; the best was {best:.6g}"
        if self._is_better(value, best, self.min_delta):
            self.best, self.wait = value, 0
        else:
            self.wait += 1
        good, bad = self.stopping_threshold, self.divergence_threshold
        if good is not None and self._is_better(value, good):
            return f"{name} is {value:.6g}, better than the stopping_threshold of {good:.6g}"
        if bad is not None and self._is_better(bad, value):
            return f"{name} is {value:.6g}, worse than the divergence_threshold of {bad:.6g}"
        if self.wait and self.wait >= self.patience:
            margin = f" by more than {self.min_delta:g}" if self.min_delta else ""
            checks = counted(self.wait, "check")
            return f"{name} did not improve on {best:.6g}{margin} in the last {checks}"
        return None

    def _is_better(self, value: float, than: float, delta: float = 0.0) -> bool:
        return self._sign * value + delta < self._sign * than

    @property
    def state_key(self) -> str:
        """Its state's name: two that watch different values have each their own."""
        return f"EarlyStopping {self.monitor} {self.mode}"

    def state_dict(self) -> dict[str, Any]:
        """The best value, how long it has waited, and why it stopped."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state over.

        Args:
            state: a former `state_dict()`.
        """
        vars(self).update({name: state[name] for name in _STATE})
        self._is_used = False

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Look at nothing until a training starts: not at its sanity check, nor at `validate`.

        A second `fit` begins anew; one that goes on gets the state of its run after this.
        """
        self._after = None
        if stage == "fit" and self._is_used:
            self._begin()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """See where values come from: an epoch that ends with a validation, or validations."""
        self._is_used = True
        at_end = self.check_on_train_epoch_end
        if at_end is None:
            each = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1
            at_end = each or not sum(trainer.num_val_batches)
        self._after = "epoch" if at_end else "validation"

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Take the value, if validations bring it."""
        if self._after == "validation":
            self._read(trainer)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Take the value, if epochs bring it; not of one that was cut short."""
        if self._after == "epoch" and trainer.state.epochs > trainer.current_epoch:
            self._read(trainer)

    def _read(self, trainer: Any) -> None:
        logged = trainer.callback_metrics
        if self.monitor not in logged:
            if not self.strict:
                return
            close = hint(self.monitor, logged)
            raise TrainerError(
                f"EarlyStopping: {self.monitor!r} was not logged; {close}logged: "
                f"{', '.join(logged) or 'nothing'}"
            )
        before = self.best
        if self.step(logged[self.monitor]):
            self.stopped_epoch = trainer.current_epoch
            trainer.should_stop = True
            trainer.say(f"stopped in epoch {trainer.current_epoch + 1}: {self.reason}")
        elif self.verbose and self.best != before:
            trainer.say(f"{self.monitor} improved from {before:.6g} to {self.best:.6g}")
