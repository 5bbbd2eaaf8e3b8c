"""The arguments of a trainer: those that are checked, and those that are elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from descend.checks import COUNT, COUNT_FROM_0, Choice, Range, Switch
from descend.errors import TrainerError
from descend.spelling import hint
from descend.training.callbacks.callback import Callback
from descend.training.callbacks.timer import MaxTime
from descend.training.optimization import ALIASES, PRECISIONS

ELSEWHERE = {
    "default_root_dir": "folder='runs/name'",
    "enable_checkpointing": "folder=..., with keep= and best=; without folder nothing is saved",
    "fresh": "resume=False",
    "min_epochs": "the patience of EarlyStopping",
    "min_steps": "the patience of EarlyStopping",
    "strategy": "one process; several are not there yet",
    "num_nodes": "one process; several are not there yet",
    "profiler": "torch.profiler.profile around fit",
    "detect_anomaly": "torch.autograd.set_detect_anomaly(True)",
    "benchmark": "torch.backends.cudnn.benchmark = True",
    "plugins": "precision=... and callbacks",
    "sync_batchnorm": "one process; several are not there yet",
    "use_distributed_sampler": "one process; several are not there yet",
    "reload_dataloaders_every_n_epochs": "a dataset that reads self.trainer.current_epoch",
    "inference_mode": "nothing: validation runs under torch.no_grad()",
    "enable_model_summary": "print(model)",
    "barebones": "nothing: what is not asked for costs nothing",
    "min_delta": "EarlyStopping(min_delta=...)",
    "gpus": "accelerator='gpu'",
    "checkpoint_callback": "best= and keep=",
    "resume_from_checkpoint": "folder=...: the run in it goes on by itself",
    "model_registry": "nothing: there is none",
    "enable_autolog_hparams": "save_hyperparameters(logger=False)",
}
"""Lightning's arguments that are not here, with what to use."""

ATTRIBUTES = {
    "save_checkpoint": 'descend.checkpoint.save(path, {"model": module}), or folder: a run saves',
    "checkpoint_callback": "best= and keep=, and ckpt_path='best'",
    "checkpoint_callbacks": "best= and keep=, and ckpt_path='best'",
    "early_stopping_callback": "the EarlyStopping that was given",
    "early_stopping_callbacks": "the EarlyStopping that was given",
    "default_root_dir": "folder",
    "log_dir": "folder",
    "strategy": "device",
    "fit_loop": "current_epoch, global_step and max_epochs",
    "train_dataloader": "num_training_batches, or run.loader for the loader",
    "val_dataloaders": "num_val_batches, or val_loaders for the loaders",
}
"""Lightning's attributes of a trainer that are not here, with what to use."""


class _Tries(Switch):
    """True or False, or how many."""

    def admits(self, value: object) -> bool:
        """Whether a value is allowed."""
        return isinstance(value, bool) or COUNT_FROM_0.admits(value)

    def __str__(self) -> str:
        """The allowed values in words."""
        return f"True, False or {COUNT_FROM_0}"


_LIMIT = Range(0, infinite=True)
_MAYBE_COUNT = Range(1, whole=True, optional=True)
CHECKS: dict[str, Any] = {
    "max_epochs": Range(-1, whole=True, optional=True),
    "max_steps": Range(-1, whole=True),
    "seed": Range(0, 2**32 - 1, closed=True, whole=True, optional=True),
    "resume": Switch(),
    "accumulate_grad_batches": COUNT,
    "gradient_clip_val": Range(0, positive=True, optional=True),
    "gradient_clip_algorithm": Choice(("norm", "value")),
    "check_val_every_n_epoch": _MAYBE_COUNT,
    "val_check_interval": Range(0, positive=True),
    "limit_train_batches": _LIMIT,
    "limit_val_batches": _LIMIT,
    "limit_test_batches": _LIMIT,
    "limit_predict_batches": _LIMIT,
    "overfit_batches": _LIMIT,
    "num_sanity_val_steps": Range(-1, whole=True),
    "log_every_n_steps": COUNT_FROM_0,
    "enable_progress_bar": Switch(),
    "keep": COUNT,
    "every_steps": _MAYBE_COUNT,
    "every_epochs": _MAYBE_COUNT,
    "every_minutes": Range(0, positive=True, optional=True, infinite=True),
    "fast_dev_run": _Tries(),
    "deterministic": Switch(),
    "accelerator": Choice(("auto", "cpu", "gpu", "cuda", "mps")),
}


class Arguments:
    """The arguments that a trainer keeps as attributes, checked."""

    max_epochs: int
    max_steps: int
    seed: int | None
    resume: bool
    accumulate_grad_batches: int
    gradient_clip_val: float | None
    gradient_clip_algorithm: Literal["norm", "value"]
    check_val_every_n_epoch: int | None
    val_check_interval: float
    limit_train_batches: float
    limit_val_batches: float
    limit_test_batches: float
    limit_predict_batches: float
    overfit_batches: float
    num_sanity_val_steps: int
    log_every_n_steps: int
    enable_progress_bar: bool
    deterministic: bool
    accelerator: str
    keep: int
    every_steps: int | None
    every_minutes: float | None
    every_epochs: int | None
    fast_dev_run: bool | int

    def take(self, given: Mapping[str, Any]) -> None:
        """Check them all, and keep them.

        Raises:
            TrainerError: one is not allowed.
        """
        for name, allowed in CHECKS.items():
            setattr(self, name, allowed.check(f"Trainer: {name}", given[name], TrainerError))
        if self.max_epochs is None:
            self.max_epochs = -1


def absent(name: str) -> str:
    """Words about an attribute that a trainer has not."""
    instead = f"; use {ATTRIBUTES[name]}" if name in ATTRIBUTES else ""
    return f"a descend.Trainer has no attribute {name!r}{instead}"


def listed(given: Any) -> list[Any]:
    """One thing or several as a list."""
    if given is None:
        return []
    return [*given] if isinstance(given, Sequence | set | frozenset) else [given]


def callbacks_of(given: Any, max_time: Any) -> list[Any]:
    """The callbacks that were given, and one that ends the training after some time.

    Raises:
        TrainerError: one is none.
    """
    callbacks = listed(given)
    for one in callbacks:
        if not isinstance(one, Callback):
            raise TrainerError(
                f"Trainer: each of callbacks must be a descend.Callback, got a "
                f"{type(one).__name__}; change its base class"
            )
    return callbacks if max_time is None else [*callbacks, MaxTime(max_time)]


def loggers_of(given: Any) -> list[Any]:
    """The loggers that are meant; of True, TensorBoard's."""
    if given is True:
        from descend.training.loggers import TensorBoardLogger

        return [TensorBoardLogger()]
    loggers = [] if given is False else listed(given)
    for one in loggers:
        if not (callable(getattr(one, "log_metrics", None)) and hasattr(one, "finalize")):
            raise TrainerError(
                f"Trainer: each logger must have log_metrics, log_hyperparams and finalize, and a "
                f"{type(one).__name__} has not"
            )
    return loggers


def precision_of(given: Any) -> str:
    """The name of a precision."""
    named = ALIASES.get(given, given)
    if named not in PRECISIONS:
        raise TrainerError(
            f"Trainer: precision must be one of {', '.join(PRECISIONS)}, got {given!r}; a whole "
            f"model in another precision is model.to(dtype)"
        )
    return str(named)


def device_of(accelerator: str) -> torch.device:
    """The device that is meant; of "auto", the accelerator where there is one."""
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator == "cpu" or (accelerator == "auto" and there is None):
        return torch.device("cpu")
    wanted = {"gpu": ("cuda", "mps"), "auto": (there.type if there else "",)}
    if there is None or there.type not in wanted.get(accelerator, (accelerator,)):
        has = "cpu" if there is None else f"cpu, {there.type}"
        raise TrainerError(f"Trainer: accelerator={accelerator!r}, and this machine has: {has}")
    return there


def refuse_elsewhere(given: Mapping[str, Any], devices: Any, known: Sequence[str]) -> None:
    """Refuse arguments that are Lightning's and not here, or nobody's."""
    if devices not in (1, "1", "auto", [0]):
        raise TrainerError(f"Trainer: devices must be 1, got {devices!r}; several are to come")
    for name in given:
        if name in ELSEWHERE:
            raise TrainerError(f"Trainer has no {name}; use {ELSEWHERE[name]}")
        raise TrainerError(
            f"Trainer has no argument {name!r}; {hint(name, known)}allowed: {', '.join(known)}"
        )
