"""The trainer: what a training is made of, and what came of it."""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from descend.checkpoint.randomness import last_seed
from descend.checkpoint.restore import restore
from descend.checkpoint.series import FOLDER, Best, checkpoints
from descend.checkpoint.state_source import locate_and_load
from descend.errors import TrainerError, TrainerWarning
from descend.files import replaced
from descend.format import counted, json_text
from descend.run.run import Run, checked_best
from descend.run.run_folder import HPARAMS
from descend.spelling import hint
from descend.training.callbacks.callback import Callback
from descend.training.callbacks.ema import EMA
from descend.training.callbacks.progress import ProgressBars
from descend.training.callbacks.timer import Timer
from descend.training.data_module import DataModule
from descend.training.doubts import Doubts
from descend.training.evaluation import STEPS, evaluate, evaluation_step
from descend.training.fit_loop import fit_loop
from descend.training.hparams import plain
from descend.training.loaders import (
    Loader,
    batches_of,
    given_loaders,
    measured_loaders,
    training_loader,
)
from descend.training.metrics import Metrics
from descend.training.module import Module
from descend.training.optimization import (
    SchedulerConfig,
    TrainingStep,
    autocast,
    configured,
    start_evaluation,
    start_training,
    step_schedulers,
)
from descend.training.task import Task
from descend.training.task_module import LossModule, TaskModule
from descend.training.trainer_arguments import (
    Arguments,
    absent,
    callbacks_of,
    device_of,
    listed,
    loggers_of,
    precision_of,
    refuse_elsewhere,
)
from descend.training.trainer_hooks import Hooks
from descend.training.training_state import TrainingState

WITHOUT_END = 10**9  # epochs, where only steps or time end a training


class Trainer(Arguments):
    """Trains a module: fit, validate, test, predict, on a `Run` that survives anything.

        for batch in run:  theta <- optimizer(theta, gradient of training_step(batch))

    With a `folder`, `fit` starts, or goes on exactly where the last process stopped or died, bit
    for bit: parameters, optimizers, schedulers, callbacks, random numbers, the order of the data,
    logs. Without one nothing is written. The loop is `descend/training/fit_loop.py`.

    Args:
        folder: of the run: `metrics.jsonl`, `checkpoints/`, `hparams.json`; or None.
        max_epochs: how often to go through the training loader; -1: without end.
        max_steps: how many steps of the optimizers to take; -1: as many as there are.
        max_time: how long to train: a timedelta, a dict of its arguments, or "DD:HH:MM:SS".
        seed: of the order of the data and of what is drawn in training; by default that of
            `seed_everything`, or 0.
        resume: whether to go on with what the folder holds; False starts over each time.
        keep: how many checkpoints to keep, the newest ones.
        best: a metric that is best when lowest, or a `Best`: that checkpoint is kept too.
        every_steps: save after each so many batches too.
        every_minutes: save after so many minutes too.
        every_epochs: save at the end of each so many epochs; None: not for that reason.
        accumulate_grad_batches: batches per step, whose gradients' mean it follows.
        gradient_clip_val: the largest gradient; None: not clipped.
        gradient_clip_algorithm: "norm" of all of it, or "value" of each element.
        precision: "32-true", "bf16-mixed", or "16-mixed" with a GradScaler.
        check_val_every_n_epoch: validate in each so many epochs; None: `val_check_interval`
            counts batches across epochs.
        val_check_interval: after which part of an epoch to validate, or after how many batches.
        limit_train_batches: a part of the training batches, or how many.
        limit_val_batches: the same of each validation loader.
        limit_test_batches: the same of each test loader.
        limit_predict_batches: the same of each loader to predict.
        overfit_batches: so many batches, always the same, to train and to validate; 0: all.
        num_sanity_val_steps: validation batches tried before a new training; -1: all.
        fast_dev_run: try so many batches (True: one) of everything, and write nothing.
        log_every_n_steps: log the values of steps each so many steps; 0: never.
        callbacks: one or several `Callback`s.
        logger: one or several loggers beside `metrics.jsonl`; True: TensorBoard's.
        enable_progress_bar: whether to show bars on a terminal, and lines elsewhere.
        accelerator: "auto", "cpu", "gpu", "cuda" or "mps".
        devices: how many; 1.
        deterministic: whether torch must use deterministic algorithms.
        elsewhere: Lightning's other arguments are refused, each with what to use.

    Raises:
        TrainerError: an argument cannot be used.

    Example:
        >>> trainer = Trainer(max_epochs=3, enable_progress_bar=False)
        >>> trainer.max_epochs, trainer.global_step
        (3, 0)

    Source: the names are those of Lightning's Trainer, https://lightning.ai/docs.
    """

    hooks: Hooks
    state: TrainingState
    run: Any = None  # a Run, from fit on
    step: Any = None  # a TrainingStep, from fit on
    datamodule: Any = None
    should_stop = is_last_batch = sanity_checking = False
    verbose = True
    _module: Module | None = None
    _configured: Module | None = None  # whose own callbacks are among them
    _own_callbacks: tuple[Any, ...] = ()
    _part: str | None = None
    _ended_by: BaseException | None = None

    def __init__(
        self,
        *,
        folder: str | os.PathLike[str] | None = None,
        max_epochs: int | None = None,
        max_steps: int = -1,
        max_time: Any = None,
        seed: int | None = None,
        resume: bool = True,
        keep: int = 3,
        best: Best | str | None = None,
        every_steps: int | None = None,
        every_minutes: float | None = 10.0,
        every_epochs: int | None = 1,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        precision: str | int = "32-true",
        check_val_every_n_epoch: int | None = 1,
        val_check_interval: float = 1.0,
        limit_train_batches: float = 1.0,
        limit_val_batches: float = 1.0,
        limit_test_batches: float = 1.0,
        limit_predict_batches: float = 1.0,
        overfit_batches: float = 0.0,
        num_sanity_val_steps: int = 2,
        fast_dev_run: bool | int = False,
        log_every_n_steps: int = 50,
        callbacks: Iterable[Callback] | Callback | None = None,
        logger: Any = None,
        enable_progress_bar: bool = True,
        accelerator: str = "auto",
        devices: Any = 1,
        deterministic: bool = False,
        **elsewhere: Any,
    ) -> None:
        given = locals()
        refuse_elsewhere(elsewhere, devices, [*given][1:-1])  # but for self and elsewhere
        self.take(given)
        self._is_endless = max_epochs is None  # unless steps or time end it
        self.precision = precision_of(precision)
        if folder is not None and not isinstance(folder, str | os.PathLike):
            raise TrainerError(f"Trainer: folder must be a path, or None, got {folder!r}")
        self.folder: Path | None = None if folder is None else Path(folder)
        self.best = checked_best(best, TrainerError)
        self.callbacks = callbacks_of(callbacks, max_time)
        self.loggers: list[Any] = loggers_of(logger)
        self._try_out(fast_dev_run)
        if overfit_batches:
            self.limit_train_batches = self.limit_val_batches = overfit_batches
        self.callbacks += [Doubts(), *([ProgressBars()] if enable_progress_bar else [])]
        self.device = device_of(accelerator)
        self.metrics = Metrics()
        self.optimizers: list[Optimizer] = []
        self.lr_scheduler_configs: list[SchedulerConfig] = []
        self.val_loaders: list[Loader] = []
        self.hparams: dict[str, Any] = {}
        self._warned: set[str] = set()
        self._measured_batches: list[float] = []

    # One process, as modules from elsewhere may ask
    is_global_zero = True
    world_size = num_devices = num_nodes = 1
    global_rank = local_rank = node_rank = 0

    # What is done

    def fit(
        self,
        model: "nn.Module | Task",
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: DataModule | None = None,
        ckpt_path: str | None = None,
        *,
        loss: Callable[[Any, Any], torch.Tensor] | None = None,
        optimizer: Any = None,
    ) -> None:
        """Train, or go on with the training that the folder holds; say so if it is over.

        Args:
            model: a `Module`; a `Task`; or any nn.Module together with `loss` and `optimizer`.
            train_dataloaders: the loader to train on.
            val_dataloaders: one or several to validate on.
            datamodule: what makes them.
            ckpt_path: None or "last": the folder says where it goes on.
            loss: `loss(outputs, targets)`, for a loader of pairs.
            optimizer: an optimizer of the model, or a function of its parameters that makes what
                `configure_optimizers` may return; for a task, AdamW where there is none.

        Raises:
            TrainerError: module, data, callback or optimizer cannot be used.
            DivergedError: the loss is no finite number any more.
            RunError: the folder holds another run.
            KeyboardInterrupt: on Ctrl-C, when the batch is done and saved.

        Example:
            >>> trainer = Trainer(folder="runs/digits", max_epochs=10)
            >>> trainer.fit(Digits(), train_loader, val_loader)
        """
        if ckpt_path not in (None, "last"):
            raise TrainerError(
                f"fit(ckpt_path={ckpt_path!r}): the run in `folder` goes on by itself; "
                f"descend.checkpoint.restore(path, model=model) loads weights alone"
            )
        if isinstance(train_dataloaders, DataModule):
            train_dataloaders, datamodule = None, train_dataloaders
        module = _as_module(model, loss, optimizer)
        with self._at_work(module, datamodule, "fit", "train"):
            if type(module).training_step is Module.training_step:
                module.training_step()  # which says what is missing
            self._load(module, train_dataloaders, val_dataloaders)
            self.optimizers, self.lr_scheduler_configs = configured(module)
            self.step = TrainingStep(
                module, self.optimizers, self.hooks, accumulate=self.accumulate_grad_batches,
                clip=self.clip, precision=self.precision, device=self.device, where=self._where,
            )  # fmt: skip
            try:
                self._open_run(module)
                self._train()
            finally:
                self.step.close()
                start_evaluation(self.optimizers)

    def validate(
        self,
        model: "nn.Module | Task | None" = None,
        dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        verbose: bool = True,
        datamodule: DataModule | None = None,
    ) -> list[dict[str, float]]:
        """Measure on the validation data.

        Args:
            model: a `Module` or a task; that of `fit` where there is none.
            dataloaders: one or several; those of data module or module where there is none.
            ckpt_path: weights to load first: "best" or "last" of the folder's run, or a path.
            verbose: whether to print the values.
            datamodule: what makes the loaders.

        Returns:
            The logged values, for each loader.

        Raises:
            TrainerError: there is no module, no data, or no such step.

        Example:
            >>> trainer.validate(module, loader)[0]["val_loss"]
        """
        return self._measured("validation", model, dataloaders, ckpt_path, verbose, datamodule)[0]

    def test(
        self,
        model: "nn.Module | Task | None" = None,
        dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        verbose: bool = True,
        datamodule: DataModule | None = None,
    ) -> list[dict[str, float]]:
        """Measure on the test data, as `validate` does on the validation data."""
        return self._measured("test", model, dataloaders, ckpt_path, verbose, datamodule)[0]

    def predict(
        self,
        model: "nn.Module | Task | None" = None,
        dataloaders: Any = None,
        datamodule: DataModule | None = None,
        return_predictions: bool = True,
        ckpt_path: str | os.PathLike[str] | None = None,
    ) -> Any:
        """Call `predict_step` on all batches.

        Args:
            model: as for `validate`.
            dataloaders: as for `validate`.
            datamodule: as for `validate`.
            return_predictions: whether to keep what the step returns.
            ckpt_path: as for `validate`.

        Returns:
            The list of what the step returned; with several loaders, one for each.
        """
        found = self._measured("predict", model, dataloaders, ckpt_path, False, datamodule)[1]
        if not return_predictions:
            return None
        return found[0] if len(found) == 1 else found

    # What there is to know

    @property
    def model(self) -> Any:
        """The module."""
        return self._module

    lightning_module = model

    @property
    def current_epoch(self) -> int:
        """The epoch under way, from 0; after the last, how many there were."""
        return self.run.loader.epoch if self.run is not None else 0

    @property
    def global_step(self) -> int:
        """How many steps the optimizers have taken."""
        return self.step.taken if self.step is not None else 0

    @property
    def num_training_batches(self) -> float:
        """How many batches an epoch has; infinity where that is not known."""
        return batches_of(self._train_loader)

    @property
    def num_val_batches(self) -> list[float]:
        """How many batches each validation loader has."""
        return [batches_of(loader) for loader in self.val_loaders]

    @property
    def num_sanity_val_batches(self) -> list[float]:
        """How many batches of each validation loader are tried first."""
        most = float("inf") if self.num_sanity_val_steps < 0 else self.num_sanity_val_steps
        return [min(number, most) for number in self.num_val_batches]

    @property
    def num_test_batches(self) -> list[float]:
        """How many batches each loader of the test or the prediction has."""
        return self._measured_batches

    num_predict_batches = num_test_batches

    @property
    def estimated_stepping_batches(self) -> float:
        """How many steps the training has: the length of a schedule; infinity if unknown."""
        if self._epochs == WITHOUT_END or self.num_training_batches == float("inf"):
            return self.max_steps if self.max_steps >= 0 else float("inf")
        each = -(-self.num_training_batches // self.accumulate_grad_batches)
        steps = int(each * self._epochs)
        return min(steps, self.max_steps) if self.max_steps >= 0 else steps

    @property
    def callback_metrics(self) -> dict[str, torch.Tensor]:
        """The newest value of each name that was logged, as tensors."""
        return {name: torch.tensor(value, dtype=torch.float64)
                for name, value in self.metrics.latest.items()}  # fmt: skip

    logged_metrics = callback_metrics

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """The newest values of those that are shown beside the progress bar."""
        return self.metrics.shown

    @property
    def clip(self) -> tuple[float | None, Literal["norm", "value"]]:
        """The largest gradient, and of what."""
        return self.gradient_clip_val, self.gradient_clip_algorithm

    @property
    def logger(self) -> Any:
        """The first logger, or None."""
        return self.loggers[0] if self.loggers else None

    @property
    def training(self) -> bool:
        """Whether it trains."""
        return self._part == "train"

    @property
    def validating(self) -> bool:
        """Whether it validates."""
        return self.metrics.part == "validation"

    @property
    def testing(self) -> bool:
        """Whether it tests."""
        return self._part == "test"

    @property
    def predicting(self) -> bool:
        """Whether it predicts."""
        return self._part == "predict"

    @property
    def elapsed(self) -> float:
        """How many seconds the training has taken, in all processes."""
        return self.state.seconds + time.monotonic() - self._started

    if not TYPE_CHECKING:  # where it would hide what is missing

        def __getattr__(self, name: str) -> Any:
            """Say of what is Lightning's and not here what to use."""
            if hasattr(type(self), name):
                raise AttributeError(f"a descend.Trainer has its {name} from fit on")
            raise AttributeError(absent(name))

    def say(self, line: str) -> None:
        """Print a line above the bars; nothing where `enable_progress_bar` is off."""
        for one in self.callbacks:
            if isinstance(one, ProgressBars):
                one.say(line)

    def warn(self, text: str) -> None:
        """Warn of something once."""
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, TrainerWarning, stacklevel=3)

    # What the loops ask for

    def is_validation_due(self, done: int) -> bool:
        """Whether to validate after so many batches of the epoch."""
        if not self.val_loaders or self.state.validated == self.run.step:
            return False
        each, asked = self._validate_each, self.should_stop or self.state.validating
        if self.check_val_every_n_epoch is None:
            return bool(asked or self.run.step % each == 0)
        if (self.current_epoch + 1) % self.check_val_every_n_epoch:
            return False
        if each == WITHOUT_END:  # the end shows when it is there
            return bool(asked or self.state.epochs > self.current_epoch)
        return bool(asked or done % each == 0)

    def stop_if_asked(self) -> None:
        """End the run where its steps are taken, or somebody has set `should_stop`."""
        if self.state.stopped:
            return
        if 0 <= self.max_steps <= self.step.taken:
            self.state.stopped = "max_steps"
        elif self.should_stop:
            reasons = (getattr(one, "reason", None) for one in self.callbacks)
            reason = next((one for one in reasons if one), "should_stop was set")
            self.state.stopped = "max_time" if self._is_out_of_time else reason
        else:
            return
        self.run.stop()

    def log_step(self) -> None:
        """Log the values of a step, each `log_every_n_steps` steps."""
        step, each = self.step, self.log_every_n_steps
        if each and step.ended and step.windows % each == 0:
            values = self.metrics.of_step()
            for number, lr in enumerate(step.lrs):
                values.setdefault("lr" if len(step.lrs) == 1 else f"lr_{number}", float(lr))
            self.log_values(values)

    def log_values(self, values: Mapping[str, float]) -> None:
        """Give values to `metrics.jsonl` and the loggers."""
        if not values or self.run is None or self.sanity_checking:
            return
        self.run.log(**values)
        for logger in self.loggers:
            logger.log_metrics({**values, "epoch": self.current_epoch}, self.step.windows)

    def end_epoch(self) -> None:
        """End an epoch: its means, the hooks, and the schedulers that wait for a metric."""
        over = self.state.epochs > self.current_epoch
        values = self.metrics.end_epoch()
        self.hooks.call("on_train_epoch_end")
        values |= self.metrics.end_epoch()
        self.log_values(values)
        self._refuse_no_best()
        if over and self._module is not None and self._module.automatic_optimization:
            configs, number = self.lr_scheduler_configs, self.current_epoch + 1
            step_schedulers(configs, "epoch", number, self.metrics.latest)
        self.stop_if_asked()

    def _refuse_no_best(self) -> None:
        """Refuse a `best` that nobody logs, once it should have been."""
        logged = self.run.metrics
        if self.best is None or self.best.metric in logged or self.folder is None:
            return
        if self.state.validated or not self.val_loaders:
            raise TrainerError(
                f"best={self.best.metric!r} was not logged; {hint(self.best.metric, logged)}"
                f"logged: {', '.join(logged) or 'nothing'}"
            )

    def tell_of(self, error: BaseException) -> None:
        """Call the hook for what ended the training in its middle, once.

        All of them, whichever raises: one puts weights back, another removes the bars.
        """
        if self._ended_by is None:
            self._ended_by = error
            _call_each(partial(hook, error) for hook in self.hooks.of("on_exception"))

    def autocast(self) -> Any:
        """The context in which the module computes."""
        return autocast(self.precision, self.device)

    # How it is done

    @contextmanager
    def _at_work(
        self, module: Module, datamodule: DataModule | None, stage: str, part: str
    ) -> Iterator[None]:
        """Prepare the data and the hooks; at the end tell everybody how it came."""
        self._module, self.datamodule = module, datamodule
        self._ended_by = None
        self._started = time.monotonic()
        module.trainer = self
        self.should_stop = False
        if datamodule is not None:
            datamodule.trainer = self
            datamodule.prepare_data()
            datamodule.setup(stage)
        if self.deterministic:
            torch.use_deterministic_algorithms(True)
        module.to(self.device)
        self._take_callbacks_of(module)
        self.hooks = Hooks(self, module, self.callbacks)
        self._part, status = part, "failed"
        try:
            self.hooks.call("setup", stage)
            yield
            if datamodule is not None:
                datamodule.teardown(stage)
            self.hooks.call("teardown", stage)
            status = "success"
        except BaseException as error:
            status = "stopped" if isinstance(error, KeyboardInterrupt | SystemExit) else status
            self.tell_of(error)
            raise
        finally:
            self._part = None
            if stage == "fit" or self.run is not None:  # a test is logged too
                _call_each(partial(logger.finalize, status) for logger in self.loggers)

    def _take_callbacks_of(self, module: Module) -> None:
        """Add a module's own callbacks: once, so that those of its training are there in a test."""
        if self._configured is module:
            return
        others = [one for one in self.callbacks if one not in self._own_callbacks]
        own = listed(getattr(module, "configure_callbacks", list)())
        self._own_callbacks = tuple(one for one in own if one not in others)
        self.callbacks = [*others, *self._own_callbacks]
        self._configured = module

    def _load(self, module: Module, train: Any, val: Any) -> None:
        """The loaders of a training."""
        sources = (self.datamodule, module)
        seed = self.seed if self.seed is not None else (last_seed() or 0)
        self._train_loader = training_loader(
            given_loaders(train, sources, "train_dataloader"), seed, self.limit_train_batches,
            shuffle=not self.overfit_batches,
        )  # fmt: skip
        found = given_loaders(val, sources, "val_dataloader") if self.limit_val_batches else None
        self.val_loaders = measured_loaders(found, self.limit_val_batches, "validation")
        if self.val_loaders and not hasattr(module, STEPS["validation"]):
            self.warn(f"{type(module).__name__} has no validation_step: it is not validated")
            self.val_loaders = []
        each = self.val_check_interval
        batches = self.num_training_batches
        if isinstance(each, float):
            endless = batches == float("inf")
            self._validate_each = WITHOUT_END if endless else max(1, int(batches * each))
            if each > 1 or (endless and each < 1):
                of = "a part of a loader that has no length" if endless else "more than an epoch"
                raise TrainerError(
                    f"val_check_interval={each} is {of}; give a whole number of batches, with "
                    f"check_val_every_n_epoch=None to count across epochs"
                )
        else:
            self._validate_each = each
            if self.val_loaders and each > batches and self.check_val_every_n_epoch is not None:
                raise TrainerError(
                    f"val_check_interval={each} is more than the {batches:g} batches of an epoch; "
                    f"give less, or check_val_every_n_epoch=None to count across epochs"
                )

    @property
    def _epochs(self) -> int:
        """How many epochs there are."""
        if self._is_endless and self.max_steps < 0 and not self._remaining:
            raise TrainerError(
                "Trainer: how long to train is not said; give max_epochs, max_steps or max_time"
            )
        return WITHOUT_END if self.max_epochs < 0 else self.max_epochs

    @property
    def _remaining(self) -> list[float]:
        """The seconds that are left by each timer that ends the training."""
        timers = (one for one in self.callbacks if isinstance(one, Timer))
        return [left for one in timers if (left := one.time_remaining()) is not None]

    @property
    def _is_out_of_time(self) -> bool:
        return any(left <= 0 for left in self._remaining)

    def _open_run(self, module: Module) -> None:
        """Start a run, or go on with it."""
        self.state = TrainingState(self)
        self.metrics = Metrics()
        of_data = getattr(self.datamodule, "logged_hparams", {})
        self.hparams = {**of_data, **module.logged_hparams}
        self.state.hparams = plain(module.hparams)
        self._judge_stream()
        self.run = Run(
            self.folder,
            loader=self._train_loader,
            seed=self._train_loader.seed,
            epochs=None if self._epochs == WITHOUT_END else self._epochs,
            fresh=not self.resume,
            keep=self.keep,
            best=self.best,
            every_steps=self.every_steps,
            every_minutes=self.every_minutes,
            every_epochs=self.every_epochs,
            **_objects(module, self),
        )
        begun = self.run.resumed_from is not None
        if begun and self.state.stopped:
            more = self.max_steps < 0 or self.step.taken < self.max_steps
            if {"max_steps": more, "max_time": not self._is_out_of_time}.get(self.state.stopped):
                self.state.stopped = ""
                self.run.reopen()
        folder = self.run.folder
        if folder is not None and not begun and self.hparams:
            with replaced(folder / HPARAMS) as file:
                file.write((json_text(self.hparams) + "\n").encode())
        for logger in self.loggers:
            begin = getattr(logger, "begin", None)
            if begin is not None:
                begin(folder, begun)
            if not begun:
                logger.log_hyperparams(self.hparams)

    def _judge_stream(self) -> None:
        """Refuse what could not go on, unless it need not; then say so."""
        given = self._train_loader
        if self.folder is None or getattr(given, "resumes", True):
            return
        kind = type(given.given).__name__
        what = f"the training loader, a {kind}, can only be read from its start"
        if self.resume:
            raise TrainerError(
                f"{what}, so that a run in {self.folder} could not go on; give a map-style "
                f"dataset, one with state_dict and load_state_dict, or resume=False to start over "
                f"each time"
            )
        self.say(f"{what}: if this run stops, it starts over (resume=False)")

    def _where(self, index: int) -> str:
        """Which batch it is, in words."""
        number = self.num_training_batches
        of = "" if number == float("inf") else f" of {number}"
        return f"in batch {index + 1}{of} of epoch {self.current_epoch + 1}"

    def _train(self) -> None:
        """From the first hook to the last."""
        run = self.run
        self.hooks.call("on_fit_start")
        if run.is_over:
            stopped = self.state.stopped
            limit = {"": "max_epochs", "max_steps": "max_steps", "max_time": "max_time"}
            more = f"more {limit[stopped]} goes on, " if stopped in limit else ""
            why = f": it stopped, {stopped}" if stopped else ""
            self.say(f"{run.folder} is over after {counted(self.current_epoch, 'epoch')}{why}; "
                     f"{more}resume=False starts over")  # fmt: skip
            next(iter(run), None)  # what is drawn and logged from here on is what follows the loop
            self.hooks.call("on_fit_end")
            return
        if run.resumed_from is not None:
            self.say(f"{run.folder} goes on from step {run.step:,}")
        if run.resumed_from is None:
            self._check_sanity()
        start_training(self.optimizers)
        self.hooks.call("on_train_start")
        fit_loop(self)
        start_evaluation(self.optimizers)
        self.hooks.call("on_train_end")
        self.hooks.call("on_fit_end")

    def _check_sanity(self) -> None:
        """Try a few batches of the validation: an error there must not wait for the first epoch."""
        most = self.num_sanity_val_steps
        if not self.val_loaders or not most:
            return
        self.sanity_checking = True
        try:
            self.hooks.call("on_sanity_check_start")
            evaluate(self, "validation", self.val_loaders, None if most < 0 else most)
            self.hooks.call("on_sanity_check_end")
        finally:
            self.sanity_checking = False
        self.metrics.kept.clear()
        self.metrics.bar.clear()

    def _measured(
        self,
        part: str,
        model: Any,
        given: Any,
        ckpt_path: Any,
        verbose: bool,
        datamodule: DataModule | None,
    ) -> tuple[list[dict[str, float]], list[list[Any]]]:
        """Validate, test or predict."""
        stage, short = {"validation": ("validate", "val")}.get(part, (part, part))
        if isinstance(given, DataModule):
            given, datamodule = None, given
        module = self._module if model is None else _as_module(model, None, None)
        if module is None:
            raise TrainerError(f"{stage} needs a module: give one, or fit one before")
        with self._at_work(module, datamodule or self.datamodule, stage, part):
            if ckpt_path is not None:
                path = self._weights(ckpt_path)
                restore(path, model=_saved_model(module))
                self._load_averages(path, module)
            evaluation_step(module, part)
            found = given_loaders(given, (self.datamodule, module), f"{short}_dataloader")
            limit = getattr(self, f"limit_{short}_batches")
            loaders = measured_loaders(found, limit, part)
            if not loaders:
                raise TrainerError(
                    f"{stage} has no data: give a loader, a datamodule, or the module a "
                    f"{short}_dataloader()"
                )
            self.metrics.kept.clear()
            self.metrics.bar.clear()
            self._measured_batches = [batches_of(loader) for loader in loaders]
            self.verbose = verbose
            values, returned = evaluate(self, part, loaders)
        return values, returned

    def _weights(self, asked: Any) -> Path:
        """The checkpoint that is meant by "best", "last" or a path."""
        if asked not in ("best", "last"):
            return Path(asked)
        folder = self.run.folder if self.run is not None else self.folder
        there = checkpoints(folder / FOLDER) if folder is not None else []
        if not there:
            raise TrainerError(f"ckpt_path={asked!r}: there is no run in {folder}; give a path")
        if asked == "last":
            return there[-1]
        found = None if self.best is None else self.best.of(there)
        if found is None:
            raise TrainerError(
                f"ckpt_path='best': no checkpoint of {folder} has the metric of best={self.best}; "
                f"give Trainer(best='val_loss') or the name of one that is logged"
            )
        return found

    def _load_averages(self, path: Path, module: Module) -> None:
        """Give each `EMA` the average that belongs to a checkpoint's weights."""
        averages = [one for one in self.callbacks if isinstance(one, EMA)]
        if averages:
            saved = locate_and_load(path, ["trainer"], lenient=True)[1].get("trainer", {})
            for one in averages:
                one.follow(module, saved.get("callbacks", {}).get(one.state_key, {}))

    def _try_out(self, batches: bool | int) -> None:
        """Let a fast_dev_run try a few batches of everything, and write nothing."""
        if not batches:
            return
        number = int(batches)
        self.limit_train_batches = self.limit_val_batches = number
        self.limit_test_batches = self.limit_predict_batches = number
        self.max_epochs, self.max_steps, self.num_sanity_val_steps = 1, -1, 0
        self._is_endless = False
        self.folder, self.loggers = None, []
        self.val_check_interval, self.check_val_every_n_epoch = 1.0, 1


def _call_each(calls: Iterable[Callable[[], Any]]) -> None:
    """Make all of some calls; the first error in them is raised after the last."""
    first: BaseException | None = None
    for call in calls:
        try:
            call()
        except BaseException as error:
            first = first or error
    if first is not None:
        raise first


def _objects(module: Module, trainer: Trainer) -> dict[str, Any]:
    """All that a run saves, by name."""
    objects: dict[str, Any] = {"model": _saved_model(module)}
    for name, things in (
        ("optimizer", trainer.optimizers),
        ("scheduler", [one.scheduler for one in trainer.lr_scheduler_configs]),
    ):
        for number, thing in enumerate(things):
            objects[name if len(things) == 1 else f"{name}_{number}"] = thing
    if trainer.step.scaler is not None:
        objects["scaler"] = trainer.step.scaler
    if trainer.folder is None:  # nothing is saved, so that nothing has to have a state
        objects = {name: one for name, one in objects.items() if hasattr(one, "state_dict")}
    return {**objects, "trainer": trainer.state}


def _saved_model(module: Module) -> nn.Module:
    """The model whose weights are saved: the user's own."""
    return module.model if isinstance(module, LossModule) else module


def _as_module(model: Any, loss: Any, optimizer: Any) -> Module:
    """A module of whatever is to be trained."""
    if isinstance(model, Task):
        return TaskModule(model, optimizer)
    if isinstance(model, Module):
        if loss is not None or optimizer is not None:
            raise TrainerError(
                f"{type(model).__name__} says itself how it is trained: leave loss and optimizer "
                f"to its training_step and configure_optimizers"
            )
        return model
    if "LightningModule" in [one.__name__ for one in type(model).__mro__]:
        raise TrainerError(
            f"{type(model).__name__} is a LightningModule: change its base class to descend.Module "
            f"and its imports, and it trains here"
        )
    compiled = getattr(model, "_orig_mod", None)  # as torch.compile names it
    if isinstance(compiled, Module):
        name = type(compiled).__name__
        raise TrainerError(
            f"torch.compile hides the steps of the {name} in a {type(model).__name__}: give the "
            f"{name} itself, after module.compile(), or with the compiled network inside"
        )
    if isinstance(model, nn.Module):
        return LossModule(model, loss, optimizer)
    raise TrainerError(
        f"the model must be a descend.Module, a descend.Task or an nn.Module, and is a "
        f"{type(model).__name__}"
    )
