"""A task trained in a few lines, for the tests that look at what comes of it."""

import descend
from descend.training.epoch_records import EpochRecords
from descend.training.task_module import TaskModule


def fit(
    task, optimizer, *, epochs, batch_size, seed=0, scheduler=None, on_batch=None, on_epoch=None
):
    """Train by a Trainer; the records of the epochs."""
    records = EpochRecords()
    given = optimizer if scheduler is None else lambda parameters: ([optimizer], [by_step])
    by_step = {"scheduler": scheduler, "interval": "step"}
    module = TaskModule(task, given, batch_size)
    batches = len(module.train_dataloader())
    if on_batch is not None:
        records.batch_done = lambda done: on_batch("train", done, batches)
        module.on_validation_batch_end = lambda *_: on_batch("evaluate", 1, 1)
    if on_epoch is not None:
        records.epoch_done = on_epoch
    trainer = descend.Trainer(
        max_epochs=epochs, seed=seed, callbacks=[records], enable_progress_bar=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module)
    return records.records


def evaluate(task, data, *, batch_size):
    """The loss and the metrics on some data."""
    trainer = descend.Trainer(enable_progress_bar=False)
    module = TaskModule(task, None, batch_size)
    (found,) = trainer.test(module, module._loader(data))
    return {name.removeprefix("test_"): value for name, value in found.items()}
