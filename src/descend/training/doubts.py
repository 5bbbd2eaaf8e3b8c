"""Warnings of what is likely not meant, each once."""

import os
import time
from typing import Any

from torch.utils.data import DataLoader

from descend.format import first_names
from descend.training.callbacks.callback import Callback

WATCHED = 50  # batches, of which the first is left out: workers start in it
WAITED = 0.5  # of the time, for the loader
WORTH = 0.03  # seconds a batch: less is soon over, or the machine is busy with something else


class Doubts(Callback):
    """Warn of modules that evaluate, parameters without gradient, and long waits for the loader.

    A `Trainer` adds it by itself.
    """

    def __init__(self) -> None:
        self._looks = True
        self._batches = 0
        self._waited = self._since = self._first = 0.0

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Look at the modes."""
        self._looks, self._batches, self._waited = True, 0, 0.0
        evaluating = [name or type(module).__name__
                      for name, one in module.named_modules() if not one.training]  # fmt: skip
        if evaluating:
            trainer.warn(
                f"{first_names(evaluating)} trains in evaluation mode, without dropout and with "
                f"fixed statistics; module.train() before fit changes that"
            )

    def on_after_backward(self, trainer: Any, module: Any) -> None:
        """Look at the first gradients."""
        if not self._looks:
            return
        self._looks = False
        learning = {id(one) for each in trainer.optimizers for group in each.param_groups
                    for one in group["params"] if one.requires_grad}  # fmt: skip
        without = [name for name, one in module.named_parameters()
                   if id(one) in learning and one.grad is None]  # fmt: skip
        if without:
            trainer.warn(
                f"{first_names(without)} got no gradient in the first backward pass: the loss does "
                f"not depend on it; freeze it, or use it"
            )

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Measure how long the loader was waited for."""
        if self._batches > WATCHED:
            return
        now = time.monotonic()
        if self._batches == 1:
            self._first = now
        elif self._batches:
            self._waited += now - self._since
        self._batches += 1
        if self._batches > WATCHED:
            self._judge(trainer, now)

    def on_train_batch_end(self, *_: Any) -> None:
        """Begin to wait."""
        if self._batches <= WATCHED:
            self._since = time.monotonic()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Look for schedulers that are stepped twice."""
        for config in trainer.lr_scheduler_configs if module.automatic_optimization else ():
            if config.by_hand:
                trainer.warn(
                    f"the {type(config.scheduler).__name__} is stepped by the trainer, each "
                    f"{config.interval}, and by hand too; leave one of them out"
                )

    def _judge(self, trainer: Any, now: float) -> None:
        share = self._waited / (now - self._first)
        given = trainer.run.loader.given
        workers = given.num_workers if isinstance(given, DataLoader) else None
        if workers is None or share < WAITED or self._waited < WORTH * WATCHED:
            return
        cores = os.cpu_count() or 1
        if workers < cores:
            trainer.warn(
                f"{share:.0%} of the time goes into waiting for the loader, with num_workers="
                f"{workers} on {cores} cores; try DataLoader(..., num_workers="
                f"{min(cores, 2 * workers + 1)}, persistent_workers=True)"
            )
