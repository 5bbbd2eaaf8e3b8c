"""A trial: one training of a comparison or a search, in a folder of its own."""

import json
import math
import shutil
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from descend.checkpoint.hashing import hash_text
from descend.checkpoint.series import FOLDER, checkpoints
from descend.errors import DescendError, DivergedError, OutputError, ResumeWarning, TaskError
from descend.optimizer_lookup import find_optimizer, own_file
from descend.run.metrics_log import METRICS
from descend.schedules import parse
from descend.search.json_file import damaged, read_json, write_json
from descend.spelling import hint
from descend.training.callbacks.callback import Callback
from descend.training.optimization import start_training
from descend.training.prepared import Prepared, prepare
from descend.training.task_file import seeded_task
from descend.training.trainer import Trainer
from descend.user_file import describe, located

RECORD = "record.json"


@dataclass(frozen=True)
class Trial:
    """One training, as plain data: equal trials train to equal bits.

    Args:
        task: the file that defines it; "" for the digits that ship.
        arguments: of the task's function.
        optimizer: a name of the catalogue, or FILE.py:NAME.
        lr: the learning rate; None for the optimizer's own.
        settings: its other hyperparameters.
        schedules: expressions by hyperparameter, their times in steps.
        steps: its length, at which the schedules end.
        seed: of the first weights, the order of the data, and all that is drawn.
        batch_size: samples per batch; None for the task's.

    Example:
        >>> Trial("", {}, "adamw", 0.01, {}, {"lr": "warmup(10) >> linear(90)"}, 100, 0).steps
        100

    Source: the unit of every study of optimizers, as in F. Schneider, L. Balles and P. Hennig,
    DeepOBS: A deep learning optimizer benchmark suite, ICLR 2019.
    """

    task: str
    arguments: Mapping[str, Any]
    optimizer: str
    lr: float | None
    settings: Mapping[str, Any]
    schedules: Mapping[str, str]
    steps: int
    seed: int
    batch_size: int | None = None

    @property
    def name(self) -> str:
        """A name for its folder: of what it trains, and all else in a hash."""
        kind = self.optimizer.rpartition(":")[2]
        # The folder of the task's file is not part of it: another one may have been given
        said = json.dumps({**asdict(self), "task": Path(self.task).name}, sort_keys=True)
        return f"{kind}-seed{self.seed}-{hash_text(said)[:10]}"

    def told_of(self) -> AbstractContextManager[None]:
        """A block in which an error in one of the user's files is told with its line."""
        files = [Path(self.task)] if self.task else []
        own = own_file(self.optimizer)
        return located([*files, *([] if own is None else [own])], TaskError)


@dataclass(frozen=True)
class Record:
    """The outcome of a trial, up to a step.

    Args:
        step: how far it is.
        value: the metric on the validation data there; None where it diverged or failed.
        start: the same before the first step.
        curve: what was measured on the way, as pairs of step and value.
        diverged: how, in words.
        error: what failed in the user's code, in words.
        seconds: how long it took, in all processes.
        processor_seconds: how long the processors worked for it.
        state_bytes: what the optimizer keeps.

    Example:
        >>> Record(100, 0.5).diverged
        ''

    Source: as for `Trial`.
    """

    step: int
    value: float | None
    start: float | None = None
    curve: list[tuple[int, float | None]] = field(default_factory=list)
    diverged: str = ""
    error: str = ""
    seconds: float = 0.0
    processor_seconds: float = 0.0
    state_bytes: int = 0


def train_trial(
    trial: Trial,
    folder: Path,
    until: int | None = None,
    metric: str = "validation_loss",
    *,
    begin: Path | None = None,
) -> Record:
    """Train a trial to a step, and measure there; go on with what its folder holds.

    Where it was measured before, nothing is trained. A checkpoint is left at that step, from which
    the same trial goes on later, or another branches off.

    Args:
        trial: to train.
        folder: its own.
        until: the step; its last one where None is given.
        metric: on the validation data.
        begin: the folder of a trial from whose newest checkpoint a new one starts.

    Returns:
        The record: also where it diverged, or the user's code failed.

    Raises:
        OutputError: the folder cannot be written.
        KeyboardInterrupt: on Ctrl-C, when the batch is done and saved.
    """
    until = trial.steps if until is None else until
    known = _records(folder)
    if str(until) in known:
        return Record(**known[str(until)])
    if begin is not None and not (folder / FOLDER).exists():
        _branch(begin, folder)
    began, processor = time.monotonic(), time.process_time()
    watch = _Watch(metric, until)
    try:
        record = _trained(trial, folder, until, watch)
    except DescendError as error:
        if isinstance(error, OutputError):
            raise
        kind = "diverged" if isinstance(error, DivergedError) else "error"
        told = {kind: describe(error)}
        record = Record(watch.step, None, watch.start, watch.curve, **told)  # type: ignore[arg-type]
    before = [Record(**one) for one in known.values()]
    record = replace(
        record,
        seconds=time.monotonic() - began + max((one.seconds for one in before), default=0.0),
        processor_seconds=time.process_time()
        - processor
        + max((one.processor_seconds for one in before), default=0.0),
    )
    _note(folder, trial, {**known, str(until): asdict(record)})
    return record


def _trained(trial: Trial, folder: Path, until: int, watch: "_Watch") -> Record:
    with trial.told_of():
        ready = made_ready(trial)
        trainer = Trainer(
            folder=folder,
            max_epochs=ready.epochs,
            max_steps=until,
            seed=trial.seed,
            keep=1,
            every_epochs=None,  # which can be milliseconds
            every_minutes=1.0,
            num_sanity_val_steps=-1,
            log_every_n_steps=0,
            callbacks=[watch],
            enable_progress_bar=False,
        )
        trainer.device = ready.module.device
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResumeWarning)  # a branch goes on by another schedule
            try:
                trainer.fit(ready.module, datamodule=ready.data)
            finally:
                if trainer.run is not None:  # else until it is collected
                    trainer.run.close()
    start_training([ready.optimizer])  # a schedule-free one keeps more in evaluation
    value = watch.curve[-1][1] if watch.curve else None
    return Record(
        watch.step,
        value,
        watch.start,
        watch.curve,
        diverged="" if value is not None else f"{watch.metric} was no finite number",
        state_bytes=_state_bytes(ready.optimizer),
    )


def made_ready(trial: Trial) -> Prepared:
    """The trial's task with its optimizer and schedules, as `descend train` makes it.

    Raises:
        DescendError: file, optimizer or schedule cannot be used.
    """
    make = find_optimizer(trial.optimizer)
    task = seeded_task(Path(trial.task) if trial.task else None, trial.arguments, trial.seed)
    return prepare(
        task,
        make,
        lr=trial.lr,
        settings=trial.settings,
        schedules={name: parse(text) for name, text in trial.schedules.items()},
        steps=trial.steps,
        batch_size=trial.batch_size,
    )


class _Watch(Callback):
    """Keeps what is measured, and has it measured at the last step too.

    Args:
        metric: on the validation data.
        until: the last step.
    """

    def __init__(self, metric: str, until: int) -> None:
        self.metric, self._until = metric, until
        self.start: float | None = None
        self.curve: list[tuple[int, float | None]] = []
        self.step = 0

    def on_sanity_check_end(self, trainer: Any, module: Any) -> None:
        """Note what an untrained model has."""
        self.start = self._value(trainer)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask for the end, before which it is validated."""
        self.step = trainer.step.windows
        if self.step >= self._until:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Note what was measured."""
        if not trainer.sanity_checking:
            self.curve.append((trainer.step.windows, self._value(trainer)))

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain data."""
        return {"start": self.start, "curve": self.curve, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.start, self.step = state["start"], state["step"]
        self.curve = [(step, value) for step, value in state["curve"]]

    def _value(self, trainer: Any) -> float | None:
        value = metric_of(trainer.metrics.latest, self.metric)
        return value if math.isfinite(value) else None


def metric_of(values: Mapping[str, float], metric: str) -> float:
    """One of the values that were measured.

    Raises:
        TaskError: it is not among them.
    """
    named = [metric, metric.replace("validation_", "val_", 1)]  # the second by a module
    found = next((values[name] for name in named if name in values), None)
    if found is None:
        raise TaskError(
            f"--metric {metric}: the task measures no such thing; {hint(metric, values)}measured: "
            f"{', '.join(name for name in values if name.startswith('val'))}"
        )
    return float(found)


def _branch(begin: Path, folder: Path) -> None:
    """Copy a trial's newest checkpoint into a new folder, all of it or nothing."""
    newest = checkpoints(begin / FOLDER)[-1]
    half = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(newest, half / FOLDER / newest.name)
    if (begin / METRICS).exists():  # only where something was logged
        shutil.copyfile(begin / METRICS, half / METRICS)
    half.replace(folder)


def _records(folder: Path) -> dict[str, Any]:
    """The records there are, by step."""
    try:
        found: dict[str, Any] = read_json(folder / RECORD, ["ends"])["ends"]
    except FileNotFoundError:
        return {}
    names = {one.name for one in fields(Record)}
    for one in found.values():
        if names != {*one}:
            raise damaged(folder / RECORD, "a record has other entries")
        one["curve"] = [tuple(pair) for pair in one["curve"]]
    return found


def _note(folder: Path, trial: Trial, ends: Mapping[str, Any]) -> None:
    write_json(folder / RECORD, {"trial": asdict(trial), "ends": ends})


def _state_bytes(optimizer: Any) -> int:
    """The size of an optimizer's state."""
    tensors = (one for state in optimizer.state.values() for one in state.values())
    return sum(one.nbytes for one in tensors if hasattr(one, "nbytes"))
