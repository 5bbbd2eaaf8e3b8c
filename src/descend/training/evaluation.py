"""Measuring and predicting: the loop over the batches of a validation, a test, a prediction."""

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from descend.errors import TrainerError
from descend.run.stream_loader import StreamLoader
from descend.swa_utils.batch_norm import modes_kept
from descend.training.loaders import Loader, moved
from descend.training.metrics import LOADER
from descend.training.optimization import adapted, start_evaluation, start_training

if TYPE_CHECKING:
    from descend.training.trainer import Trainer

STEPS = {"validation": "validation_step", "test": "test_step", "predict": "predict_step"}


class StoppedHereError(Exception):
    """A signal came in the middle of a validation."""


def evaluate(
    trainer: "Trainer", part: str, loaders: list[Loader], most: int | None = None
) -> tuple[list[dict[str, float]], list[list[Any]]]:
    """Call a step on the batches of some loaders, in evaluation mode and without gradients.

    Optimizers that average are put in evaluation mode for that time; after an error they stay in
    it, as callbacks may have other weights in the module until they hear of it. The dataset draws
    the same each time, as `ResumableLoader` says.

    Args:
        trainer: whose module and hooks.
        part: "validation", "test" or "predict".
        loaders: one after the other.
        most: of each, so many batches.

    Returns:
        The means that were logged, for each loader; and for a prediction, what the step returned
        for each batch of each loader.

    Raises:
        TrainerError: the module has no such step.
    """
    module, hooks, metrics, device = trainer.model, trainer.hooks, trainer.metrics, trainer.device
    step = evaluation_step(module, part)
    starts, ends = hooks.of(f"on_{part}_batch_start"), hooks.of(f"on_{part}_batch_end")
    returned: list[list[Any]] = []
    measured: list[dict[str, float]] = []
    silent = True
    training = start_evaluation(trainer.optimizers)
    with modes_kept(module), torch.no_grad(), metrics.measuring(part):
        module.eval()
        hooks.call(f"on_{part}_start")
        hooks.call(f"on_{part}_epoch_start")
        for number, loader in enumerate(loaders):
            metrics.suffix = f"{LOADER}{number}" if len(loaders) > 1 else ""
            returned.append([])
            if isinstance(loader, StreamLoader):
                loader.rewind()
            for index, given in enumerate(islice(loader.rest(), most)):
                metrics.batch = batch = moved(given, device)
                for hook in starts:
                    hook(batch, index, number)
                with trainer.autocast():
                    outputs = step(batch, index, number)
                for hook in ends:
                    hook(outputs, batch, index, number)
                if part == "predict":
                    returned[-1].append(outputs)
                if trainer.run is not None and trainer.run.asked_by:
                    raise StoppedHereError
            silent = silent and not metrics.series
            measured.append(metrics.end_epoch())
        metrics.batch, metrics.suffix = None, ""
        hooks.call(f"on_{part}_epoch_end")
        silent = silent and not metrics.series
        of_hooks = metrics.end_epoch()
        measured = [values | of_hooks for values in measured]
        trainer.log_values({name: one for values in measured for name, one in values.items()})
        hooks.call(f"on_{part}_end")
    start_training(training)
    if part == "validation" and silent and not trainer.sanity_checking:
        trainer.warn(f"{type(module).__name__}.validation_step logs nothing: self.log does")
    return measured, returned


def validate_within_fit(trainer: "Trainer") -> None:
    """Validate, after a batch that counts as done: a signal saves what was there then."""
    trainer.state.freeze()
    try:
        evaluate(trainer, "validation", trainer.val_loaders)
    except StoppedHereError:
        trainer.tell_of(KeyboardInterrupt())
        trainer.run.check()
    finally:
        trainer.state.unfreeze()


def evaluation_step(module: Any, part: str) -> Callable[..., Any]:
    """The step of a module for a part.

    Raises:
        TrainerError: it has none.
    """
    step = getattr(module, STEPS[part], None)
    if step is None:
        raise TrainerError(
            f"{type(module).__name__} has no {STEPS[part]}(self, batch, batch_idx): define it, "
            f"and log in it what is to be measured"
        )
    return adapted(step, 3)
