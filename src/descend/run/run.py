"""A training that goes on where the last process died, bit for bit."""

import inspect
import math
import os
import signal
import time
import warnings
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from torch.utils.data import DataLoader

from descend.checkpoint import series
from descend.checkpoint.manifest import read_manifest
from descend.checkpoint.provenance import differences, provenance
from descend.checkpoint.randomness import (
    random_states,
    restore_random_states,
    seed_generators,
)
from descend.checkpoint.restore import Stateful, refuse_stateless, restore_all
from descend.checkpoint.saver import Saver
from descend.checkpoint.series import Best
from descend.checkpoint.tree import flatten
from descend.checks import ABOVE_0, COUNT, SEED, Choice
from descend.errors import (
    CheckpointError,
    CheckpointWarning,
    DescendError,
    ResumeWarning,
    RunError,
)
from descend.run.changed_schedule import changeable
from descend.run.classes import classes, swapped
from descend.run.frozen_and_eval import Modes, averages_in_place, described, modes, put_modes
from descend.run.generators import with_state
from descend.run.gradients import Gradients
from descend.run.loader import ResumableLoader
from descend.run.metrics_log import METRICS, MetricsLog, json_values
from descend.run.run_folder import STEPS_VARIABLE, Unwritten, opened_for_run, redirected
from descend.run.stop_signals import StopSignals
from descend.run.stream_loader import StreamLoader, loader_for_run
from descend.spelling import meant

START_OVER = "fresh=True (of a Trainer, resume=False)"
OWN = "run"  # the entry of a checkpoint that is the run's own

_OPTIONAL = replace(COUNT, optional=True)
_ARGUMENTS = {
    "epochs": _OPTIONAL,
    "every_steps": _OPTIONAL,
    "every_minutes": replace(ABOVE_0, optional=True, infinite=True),
    "every_epochs": _OPTIONAL,
    "keep": COUNT,
    "on_save_error": Choice(("warn", "raise")),
}


class _Instant(NamedTuple):
    """Of a checkpoint, all that goes on changing between two batches without a step."""

    log: int  # bytes
    metrics: dict[str, Any]
    random: dict[str, Any]
    modes: Modes


class _Resumed(NamedTuple):
    """Of a checkpoint, all that is put back where the loop goes on, and not before."""

    random: dict[str, Any]
    modes: Modes
    gradients: Mapping[str, Any]


class Run:
    """A training that survives anything: iterate over its batches as over a loader.

    It starts, or it goes on exactly where the last process stopped or died: parameters, state,
    schedule, random numbers, the order of the data and the log are those of a run that was never
    interrupted, bit for bit. The folder holds `metrics.jsonl` and `checkpoints/`. Without a folder,
    it is the same loop: it always starts, nothing is written, and a signal ends it unsaved.

    The batches come on the CPU, as the loader gives them. When the body of the loop is done, the
    batch counts as done, and there a checkpoint is saved if one is due: after so many steps,
    minutes or epochs, on Ctrl-C and SIGTERM (which then end the program), and at the end. A save
    copies the state and writes it in the background. Gradients that wait for a step are saved too,
    and which parameters are frozen and which modules evaluate. Gradients that are left over after a
    step are not: as every loop does, zero them before the next backward pass.

    `step` counts the batches, from 1 in the body of the first; `epoch` the epochs, from 1;
    `resumed_from` is the checkpoint that this process goes on from, or None; `loader` the
    `ResumableLoader` or `StreamLoader`, `folder` and `objects` what was given.

    Args:
        folder: the run's folder, made where it does not exist; None: nothing is written.
        loader: a torch DataLoader of a map-style dataset; `ResumableLoader` tells what becomes of
            it. It is not changed. A loader or an iterable-style dataset that has `state_dict` and
            `load_state_dict` becomes a `StreamLoader`. Either can be given ready-made.
        seed: what the order of the data, the randomness in each sample, and the global generators
            (when the run starts) follow from: a whole number from 0 to 2**32 - 1. The model is
            built before: seed that too. A ready-made loader has a seed of its own.
        epochs: how often the loader is gone through. More than last time goes on from there. None:
            until `stop` is called.
        every_steps: save after each so many steps; None: not for that reason.
        every_minutes: save when so many minutes have passed since the last time; or None.
        every_epochs: save at the end of each so many epochs; or None.
        keep: how many checkpoints to keep, the newest ones, at least 1.
        best: keep the one with the best value of a metric too: `Best("accuracy", highest=True)`,
            or the name of one that is best when lowest. It is the value logged last before a save.
        background: whether to write in the background.
        fresh: whether to remove what the folder holds of an earlier run and start over.
        on_save_error: "warn" goes on training when a save fails, "raise" does not.
        objects: whatever has `state_dict` and `load_state_dict`, by name: model, optimizer,
            schedule, scaler, averages; and random generators of your own (torch's, NumPy's,
            Python's). In another process they must have the same names.

    Raises:
        RunError: if an argument cannot be used; if another process trains in the folder; if the
            objects or the loader are not those of the run; in a rank of a distributed training.
        CheckpointError: if there are checkpoints and none is valid.
        OutputError: if the folder cannot be written.

    Example:
        >>> import descend, tempfile, torch
        >>> folder = tempfile.mkdtemp()
        >>> data = torch.utils.data.TensorDataset(torch.randn(12, 3), torch.randn(12, 1))
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = descend.AdamW(model.parameters())
        >>> loader = DataLoader(data, batch_size=4, shuffle=True)
        >>> run = Run(folder, model=model, optimizer=optimizer, loader=loader, epochs=2)
        >>> for x, y in run:
        ...     loss = torch.nn.functional.mse_loss(model(x), y)
        ...     loss.backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     run.log(loss=loss)
        >>> run.step
        6

    Source: Y. Young, A first order approximation to the optimum checkpoint interval, CACM 1974,
    for how often to save.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        *,
        loader: "DataLoader[Any] | ResumableLoader | StreamLoader",
        seed: int = 0,
        epochs: int | None = 1,
        every_steps: int | None = None,
        every_minutes: float | None = 10.0,
        every_epochs: int | None = 1,
        keep: int = 3,
        best: Best | str | None = None,
        background: bool = True,
        fresh: bool = False,
        on_save_error: Literal["warn", "raise"] = "warn",
        **objects: Any,
    ) -> None:
        given = locals()
        chosen = {name: one.check(name, given[name], RunError) for name, one in _ARGUMENTS.items()}
        best = checked_best(best, RunError)
        if OWN in objects:
            raise RunError(f"an object cannot be called {OWN!r}: the run's own state is")
        objects = {name: with_state(thing) for name, thing in objects.items()}
        _refuse_misspelt(objects)
        refuse_stateless("Run", objects)
        _refuse_ranks()
        self.folder = None if folder is None else redirected(Path(folder))
        self.objects: dict[str, Stateful] = objects
        self.loader = loader_for_run(loader, seed)
        self.step = 0
        self._seed: int = SEED.check("seed", seed, RunError)
        self.resumed_from: Path | None = None
        self._epochs: float = math.inf if chosen["epochs"] is None else chosen["epochs"]
        steps = os.environ.get(STEPS_VARIABLE, chosen["every_steps"] or 0)
        self._every_steps, self._every_epochs = int(steps), chosen["every_epochs"]
        self._every_seconds = 60 * (chosen["every_minutes"] or math.inf)
        self._background = background and folder is not None
        self._raises = on_save_error == "raise"
        self._metrics: dict[str, Any] = {}
        self._resumed: _Resumed | None = None  # until it is put back
        self._modes_at_first: Modes = {}
        self._at_end: _Instant | None = None  # when the last batch before a validation was done
        self._counted = self._in_batch = False  # the batch under way, by `done`; whether there is
        self._saved_at = time.monotonic()
        self._begun = self._iterating = self._save_asked = self._prepared = False
        self._stopping = self._finished = False  # asked to stop; and all that belongs to it done
        self._signals = StopSignals()
        self._gradients = Gradients({} if folder is None else objects)
        self._log: MetricsLog | Unwritten = Unwritten()
        self._saver: Saver | Unwritten = Unwritten()
        if self.folder is not None:
            # Where that is now, whatever becomes of links and of the working directory
            self._path = self.folder.resolve()
            checkpoints = self._path / series.FOLDER
            self._lock, self._log = opened_for_run(self.folder, fresh=fresh)
            self._saver = Saver(checkpoints, keep=chosen["keep"], best=best)
            if series.checkpoints(checkpoints):
                self._resume(self.folder, checkpoints)
            elif self._log.holds_only(0):  # of a process that died before its first checkpoint
                self._log.cut(0, 0)
            else:
                raise RunError(
                    f"{self.folder} holds a {METRICS} and no checkpoint that it belongs to; "
                    f"{START_OVER} removes it, or give another folder"
                )
            _newest[self._path] = self

    @property
    def epoch(self) -> int:
        """The number of the epoch under way, from 1; of the last one when all are over."""
        return int(min(self.loader.epoch + 1, self._epochs))

    @property
    def ends_epoch(self) -> bool:
        """Whether the batch under way is the last of its epoch, as far as that is known."""
        length = self.loader.length
        return length is not None and self.loader.position + (not self._counted) >= length

    @property
    def is_over(self) -> bool:
        """Whether no batch is left."""
        return self._finished or self.loader.epoch >= self._epochs

    def __iter__(self) -> Iterator[Any]:
        """The batches of all epochs that are left."""
        for batches in self.epochs():
            yield from batches

    def epochs(self) -> Generator[Generator[Any, None, None], None, None]:
        """The epochs that are left, each an iterator over its batches that are left.

        For what happens after each epoch, such as a validation:

            for batches in run.epochs():
                for batch in batches:
                    ...
                run.log(validation_loss=validate(model))
        """
        with self._at_work():
            while not self.is_over:
                batches = self._batches()
                yield batches
                batches.close()  # where the body left it early, the epoch is over all the same
                self._put_back()  # where it did not ask for one batch
                if not self._stopping or self.loader.ended:
                    self.loader.next_epoch()
                self._finished = self._stopping
                self._at_end = None
                every = self._every_epochs
                due = every is not None and self.loader.epoch % every == 0
                self._save_or_stop(due or self.is_over or self._save_asked)

    def log(self, **values: Any) -> None:
        """Append a line to `metrics.jsonl`: the step, the epoch, and these values.

        What is logged before the loop stands at the beginning of the log, once: where the run goes
        on, it is there already.

        Args:
            values: numbers (tensors of one element among them), strings and booleans by name. A
                NaN or an infinity is written as null.

        Raises:
            RunError: for any other value, and for the names "step" and "epoch".
        """
        for name in ("step", "epoch"):
            if name in values:
                raise RunError(f"log: {name} stands in each line already; give another name")
        line = json_values(values)
        self._refuse_outdated()
        if not self._begun and self.resumed_from is not None:
            return
        self._metrics.update(line)
        self._log.write({"step": self.step, "epoch": self.epoch, **line})

    def save(self) -> None:
        """Save when the batch or the epoch under way is done; at once outside of the loop.

        Before the loop of a new run there is nothing to save: it begins with a save.
        """
        self._refuse_outdated()
        self._save_asked = True
        if not self._iterating and (self.step or self.resumed_from):
            self._save(wait=True)

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The values logged last, by name: a view that cannot be written."""
        return MappingProxyType(self._metrics)

    def stop(self) -> None:
        """End the run, when the batch or the epoch under way is done, as if it were over."""
        self._stopping = True
        self._finished = not self._iterating

    def reopen(self) -> None:
        """Before the loop, let a run that `stop` ended go on where it was; any other does anyway.

        Raises:
            RunError: in the loop.
        """
        if self._iterating:
            raise RunError("reopen: the run is being iterated over; call it before the loop")
        self._stopping = self._finished = False

    def close(self) -> None:
        """Give the folder back, as the end of the process does: another one may go on with it.

        Raises:
            RunError: in the loop.
        """
        if self._iterating:
            raise RunError("close: the run is being iterated over; call it after the loop")
        if self.folder is not None:
            self._lock.release()

    def done(self) -> None:
        """Count the batch under way as done: for a validation in the middle of an epoch.

        From here on, `check` saves what is now, as it does after an epoch, and the run goes on from
        there with the next batch. Where it goes on so, and the body begins by doing again what was
        stopped, this is called first there too.

        Raises:
            RunError: outside of the loop.
        """
        if not self._iterating:
            raise RunError("done: no batch is under way; call it in the body of the loop")
        self.loader.position += self._in_batch and not self._counted
        self._counted = self.loader.position > 0
        self._put_back()  # before the first batch of a process that goes on
        self._at_end = self._instant()

    def check(self) -> None:
        """Stop here if Ctrl-C or SIGTERM came: for long work between two epochs, or after `done`.

        It saves what was at the end of the epoch's last batch, or when `done` was called. Nothing
        that is saved may have changed since, but for random generators.
        """
        if self._signals.asked is not None and self._at_end is not None:
            self._save(wait=True, at=self._at_end)
            self._signals.stop()

    @property
    def asked_by(self) -> signal.Signals | None:
        """The signal that has come and waits for the end of the batch, or for `check`."""
        return self._signals.asked

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal on which it saved and stopped the program, for who catches that."""
        return self._signals.stopped_by

    def __repr__(self) -> str:
        """Where it stands."""
        of = "" if self.loader.length is None else f" of {self.loader.length}"
        epochs = "" if self._epochs == math.inf else f" of {self._epochs}"
        where = (
            "over"
            if self.is_over
            else f"epoch {self.epoch}{epochs}, {self.loader.position}{of} batches done"
        )
        folder = None if self.folder is None else str(self.folder)
        return f"Run({folder!r}: step {self.step}, {where})"

    def _batches(self) -> Generator[Any, None, None]:
        """The rest of the epoch under way."""
        self._put_back()
        before = time.monotonic()
        for batch in () if self._stopping else self.loader.rest():
            self.step += 1
            now = time.monotonic()
            done = 2 * now - before  # when it will be, if it takes as long as the one before
            before = now
            preparing = self._background and not self._prepared
            may_end = self.ends_epoch or self.loader.length is None
            self._gradients.watching = preparing or may_end or self._is_due(done)
            try:
                self._in_batch, self._counted = True, False
                yield batch
            finally:
                self.loader.position += not self._counted
                self._in_batch = self._counted = False
                self._at_end = None
            if preparing:
                # After a step there is all the state: get the memory for its copies
                self._prepared = True
                self._report(self._saver.wait())
                self._saver.prepare(self._state())
            self._save_or_stop(self._is_due(time.monotonic()))
            if self._stopping:
                break
        self._at_end = self._instant()

    def _is_due(self, now: float) -> bool:
        """Whether to save after this batch; the end of the epoch comes with a save of its own."""
        if self._save_asked:
            return True
        if self.loader.position == self.loader.length and (
            self.loader.epoch + 1 == self._epochs
            or (self._every_epochs and (self.loader.epoch + 1) % self._every_epochs == 0)
        ):
            return False
        if self._every_steps and self.step % self._every_steps == 0:
            return True
        return now - self._saved_at >= self._every_seconds

    def _save_or_stop(self, due: bool) -> None:
        """Save if it is due, or if a signal came, on which the program ends."""
        asked = self._signals.asked is not None
        if due or asked:
            self._save(wait=asked)
        if asked:
            self._signals.stop()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Signals noted, random generators where they were; at the end, nothing left unsaved."""
        if self._iterating:
            raise RunError("the run is being iterated over already; one loop at a time")
        self._refuse_outdated()
        self._iterating = self._begun = True
        self._signals.install()
        try:
            if self._resumed is not None:
                self._judge_modes(self._resumed)
                # In the middle of an epoch, the script may do again what it did at its start
                self._put_back(again=self.loader.position > 0 and not self.is_over)
            elif self.resumed_from is None and self.step == 0:
                self._modes_at_first = modes(self.objects)
                seed_generators(self._seed)
                if self.folder is not None:
                    flatten(self._state())  # what can never be saved is refused here
                # Finds a full disk at once, and fixes the model's first values
                self._save(wait=True)
            self._saved_at = time.monotonic()
            yield
            self._report(self._saver.wait())
            self._signals.stop()  # where one came while that was waited for
            self._warn_of_no_best()
        finally:
            self._iterating = False
            try:
                self._report(self._saver.wait())
            finally:
                self._signals.remove()

    def _refuse_outdated(self) -> None:
        """Two runs of one process in one folder, as a notebook makes them: one of them writes."""
        if self.folder is not None and _newest.get(self._path) is not self:
            raise RunError(
                f"another Run was made of {self.folder} since, and this one, at step {self.step}, "
                f"must not write there any more; use the newer one"
            )

    def _save(self, *, wait: bool = False, at: "_Instant | None" = None) -> None:
        """Save the state between two batches."""
        self._refuse_outdated()
        self._save_asked = False
        if self.folder is None:
            return
        self._saved_at = time.monotonic()
        before, newest = self._saver.wait(), self._saver.newest
        # A model is saved as it is used; the state keeps what training goes on from.
        with averages_in_place(self.objects) as training:
            error = self._saver.save(
                self._state(at, training),
                step=self.step,
                about=self._about(),
                background=self._background and not wait,
                before=self._log.sync,
            )
        self._report(before, newest)
        self._report(error)

    def _instant(self) -> "_Instant":
        """The state of all that goes on changing between two batches without a step."""
        self._log.flush()
        if self._resumed is None:
            now = random_states(), modes(self.objects)
        else:  # before the loop goes on, they are not yet where it will put them
            now = self._resumed.random, self._resumed.modes
        return _Instant(self._log.size, dict(self._metrics), *now)

    def _state(self, at: "_Instant | None" = None, training: Sequence[str] = ()) -> dict[str, Any]:
        at, resumed = at or self._instant(), self._resumed
        own = {
            "step": self.step,
            "stopping": self._stopping,
            "finished": self._finished,
            "loader": self.loader.state_dict(),
            "log": at.log,
            "metrics": at.metrics,
            "random": at.random,
            "gradients": resumed.gradients if resumed else self._gradients.state(),
            "training": list(training),  # optimizers that go on in training mode
            "modes": {"at first": self._modes_at_first, "now": at.modes},
            "classes": classes(self.objects, self.loader.given),
        }
        return {name: thing.state_dict() for name, thing in self.objects.items()} | {OWN: own}

    def _about(self) -> dict[str, Any]:
        """Facts about a checkpoint, for its manifest."""
        return {
            "step": self.step,
            "epochs done": self.loader.epoch,
            "batches done": self.loader.position,
            "batches per epoch": self.loader.length,
            "epochs": None if self._epochs == math.inf else self._epochs,
            "over": self.is_over,
            "objects": {name: type(thing).__name__ for name, thing in self.objects.items()},
            "metrics": dict(self._metrics),
        }

    def _resume(self, folder: Path, checkpoints: Path) -> None:
        """Go where the newest valid checkpoint is."""
        path, state = series.load_newest(checkpoints, set_aside=True)
        own: Mapping[str, Any] = state.pop(OWN, {})
        if state.keys() != self.objects.keys() or not own:
            raise RunError(
                f"{folder} holds a run of {', '.join(state)}, and this one is of "
                f"{', '.join(self.objects) or 'nothing'}; give the same objects by the same names, "
                f"{START_OVER} to start over, or another folder"
            )
        schedules = changeable(self.objects)
        try:
            restore_all(
                str(path),
                {**state, "loader": own["loader"]},
                {**self.objects, **schedules, "loader": self.loader},
            )
        except ValueError as error:
            if isinstance(error.__cause__, RunError):  # which says itself what to do
                raise error.__cause__ from None
            raise RunError(
                f"{folder} cannot go on: {error}; start over with {START_OVER}, or give another "
                f"folder"
            ) from error
        for name in own.get("training", ()):
            self.objects[name].train()  # type: ignore[attr-defined]
        self.step = own["step"]
        self._stopping, self._finished = own["stopping"], own["finished"]
        self._metrics = own["metrics"]
        of_models = own.get("modes") or dict.fromkeys(("at first", "now"), modes(self.objects))
        self._modes_at_first = of_models["at first"]
        self._resumed = _Resumed(own["random"], of_models["now"], own["gradients"])
        self._log.cut(own["log"], self.step)
        self._saver.newest = path
        self.resumed_from = folder / series.FOLDER / path.name
        other = differences(read_manifest(path)["produced_by"], provenance())
        other += swapped(own.get("classes", {}), classes(self.objects, self.loader.given))
        other += [one.differs for one in schedules.values() if one.differs]
        if other:
            warnings.warn(
                f"{folder} goes on from step {self.step}, but not as it was saved: "
                f"{'; '.join(other)}: from here on its bits may differ from those of a run that "
                f"was never interrupted",
                ResumeWarning,
                stacklevel=3,
            )

    def _put_back(self, *, again: bool = False) -> None:
        """Put back what a checkpoint holds beside the objects: once, or `again` later."""
        if self._resumed is None:
            return
        restore_random_states(self._resumed.random)
        put_modes(self.objects, self._resumed.modes)
        self._gradients.put(self._resumed.gradients)
        if not again:
            self._resumed = None

    def _judge_modes(self, resumed: _Resumed) -> None:
        """Freeze and unfreeze what the loop had, if the script begins in the modes that it had."""
        here = modes(self.objects)
        if here in (self._modes_at_first, resumed.modes):
            return
        warnings.warn(
            f"{self.folder} goes on with what the script has frozen, or put in evaluation mode, "
            f"which is not what it began with: {described(here, self._modes_at_first)}",
            ResumeWarning,
            stacklevel=5,
        )
        self._modes_at_first, self._resumed = here, resumed._replace(modes={})

    def _warn_of_no_best(self) -> None:
        best = self._saver.best
        if best is not None and best.metric not in self._metrics:
            warnings.warn(
                f"best={best.metric!r}: no such metric was logged, so that no checkpoint was kept "
                f"as the best; logged: {', '.join(self._metrics) or 'nothing'}",
                CheckpointWarning,
                stacklevel=4,
            )

    def _report(self, error: CheckpointError | None, newest: Path | None = None) -> None:
        if error is None:
            return
        if self._raises:
            raise error
        newest = newest or self._saver.newest
        left = f"the newest checkpoint is {newest}" if newest else "there is no checkpoint yet"
        warnings.warn(f"{error}; the training goes on, {left}", CheckpointWarning, stacklevel=3)


_newest: "weakref.WeakValueDictionary[Path, Run]" = weakref.WeakValueDictionary()  # by folder


def _refuse_ranks() -> None:
    """Ranks that save on their own go on from different steps, and wait for each other forever."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        ranks = distributed.get_world_size()
        if ranks > 1:
            raise RunError(
                f"a Run is one process, and this is rank {distributed.get_rank()} of {ranks}: it "
                f"cannot save them at one step; with ranks, use descend.checkpoint.save on rank 0 "
                f"and descend.ResumableLoader with a DistributedSampler on each"
            )


def _refuse_misspelt(objects: Mapping[str, object]) -> None:
    for name, thing in objects.items():
        close = meant(name, inspect.signature(Run).parameters)
        if close and not hasattr(thing, "state_dict"):
            raise RunError(
                f"Run has no argument {name!r}; did you mean {close!r}? Any other name is for an "
                f"object that has a state"
            )


def checked_best(best: object, error: type[DescendError]) -> Best | None:
    """The measure of the best checkpoint, from a metric's name or as it is.

    Args:
        best: an argument of that name.
        error: for one that cannot be used.

    Raises:
        DescendError: `error`: it is neither.
    """
    best = Best(best) if isinstance(best, str) else best
    if best is None or (isinstance(best, Best) and isinstance(best.metric, str)):
        return best
    raise error(
        f"best must be the name of a metric that is best when lowest, or a Best such as "
        f"Best('accuracy', highest=True), and is {best!r}"
    )
