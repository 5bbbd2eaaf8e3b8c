"""One epoch of the same training with each trainer, as its users write it.

All take the same model, the same loader of torch's with `shuffle=True`, cross-entropy, and where
their name says nothing else `descend.AdamW`: so only the loops differ. All keep the loss every
`LOG_EVERY` steps, each in its usual way; progress bars, evaluation and clipping are off.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, default_collate

import descend

BATCH = 64
LOG_EVERY = 50
"""Steps between two losses that are kept; Lightning's default, here of all."""

PLAIN, RUN, TRAINER, LIGHTNING = "plain loop", "descend.Run", "descend.Trainer", "Lightning"

Train = Callable[[torch.nn.Module, TensorDataset, str], None]
"""Trains a model on some data for one epoch; what it writes goes to a folder."""


def loader(data: TensorDataset, **options: Any) -> "DataLoader[Any]":
    """Batches as all but the HF Trainer take them, which makes its own.

    Args:
        data: inputs and labels.
        **options: more for torch's DataLoader.
    """
    return DataLoader(data, batch_size=BATCH, shuffle=True, **options)


def plain(model: torch.nn.Module, data: TensorDataset, _: str) -> None:
    """The loop of the tutorials."""
    _plain(model, data, descend.AdamW(model.parameters()))


def plain_torch(model: torch.nn.Module, data: TensorDataset, _: str) -> None:
    """The same with torch's optimizer."""
    _plain(model, data, torch.optim.AdamW(model.parameters()))


def plain_fused(model: torch.nn.Module, data: TensorDataset, _: str) -> None:
    """The same with torch's fused one."""
    _plain(model, data, torch.optim.AdamW(model.parameters(), fused=True))


def _plain(model: torch.nn.Module, data: TensorDataset, optimizer: torch.optim.Optimizer) -> None:
    losses = []
    for index, (inputs, labels) in enumerate(loader(data)):
        loss = cross_entropy(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if (index + 1) % LOG_EVERY == 0:
            losses.append(loss.item())


def run(model: torch.nn.Module, data: TensorDataset, folder: str) -> None:
    """Descend's loop of one's own: checkpoints, and `metrics.jsonl`."""
    optimizer = descend.AdamW(model.parameters())
    run = descend.Run(folder, model=model, optimizer=optimizer, loader=loader(data))
    for inputs, labels in run:
        loss = cross_entropy(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if run.step % LOG_EVERY == 0:
            run.log(loss=loss)


def trainer(model: torch.nn.Module, data: TensorDataset, folder: str) -> None:
    """Descend's Trainer: checkpoints, and `metrics.jsonl`."""
    trainer = descend.Trainer(
        folder=folder, max_epochs=1, log_every_n_steps=LOG_EVERY, enable_progress_bar=False
    )
    trainer.fit(_module(descend.Module, model), loader(data))


def lightning(model: torch.nn.Module, data: TensorDataset, folder: str) -> None:
    """Lightning with its CSV logger, its default where TensorBoard is not installed."""
    lightning = import_module("lightning.pytorch")
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        log_every_n_steps=LOG_EVERY,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=lightning.loggers.CSVLogger(folder),
        default_root_dir=folder,
    )
    trainer.fit(_module(lightning.LightningModule, model), loader(data))


def _module(base: Any, model: torch.nn.Module) -> Any:
    """One definition for both."""

    class Classifier(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            inputs, labels = batch
            loss = cross_entropy(self.model(inputs), labels)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return descend.AdamW(self.parameters())

    return Classifier()


def hugging_face(model: torch.nn.Module, data: TensorDataset, folder: str) -> None:
    """The Trainer of transformers, without its clipping."""
    transformers = import_module("transformers")

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            scores = self.model(inputs)
            return {"loss": cross_entropy(scores, labels), "logits": scores}

    whole = Classifier()
    trainer = transformers.Trainer(
        model=whole,
        args=transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            logging_steps=LOG_EVERY,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=data,
        data_collator=lambda samples: dict(
            zip(("inputs", "labels"), default_collate(samples), strict=True)
        ),
        optimizers=(descend.AdamW(whole.parameters()), None),
    )
    trainer.train()


def accelerate(model: torch.nn.Module, data: TensorDataset, _: str) -> None:
    """Accelerate's four lines around the plain loop."""
    accelerator = import_module("accelerate").Accelerator(cpu=True)
    model, optimizer, batches = accelerator.prepare(
        model, descend.AdamW(model.parameters()), loader(data)
    )
    losses = []
    for index, (inputs, labels) in enumerate(batches):
        loss = cross_entropy(model(inputs), labels)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if (index + 1) % LOG_EVERY == 0:
            losses.append(loss.item())


def ignite(model: torch.nn.Module, data: TensorDataset, _: str) -> None:
    """Ignite's supervised trainer."""
    engines = import_module("ignite.engine")
    optimizer = descend.AdamW(model.parameters())
    engine = engines.create_supervised_trainer(model, optimizer, cross_entropy)
    losses = []

    @engine.on(engines.Events.ITERATION_COMPLETED(every=LOG_EVERY))  # type: ignore[untyped-decorator]
    def log() -> None:
        losses.append(engine.state.output)

    engine.run(loader(data), max_epochs=1)


LOOPS: dict[str, tuple[Train, str]] = {
    f"{PLAIN}, torch.optim.AdamW": (plain_torch, "torch"),
    f"{PLAIN}, the same with fused=True": (plain_fused, "torch"),
    PLAIN: (plain, "torch"),
    RUN: (run, "descend"),
    TRAINER: (trainer, "descend"),
    "Accelerate": (accelerate, "accelerate"),
    "ignite": (ignite, "ignite"),
    "HF Trainer": (hugging_face, "transformers"),
    LIGHTNING: (lightning, "lightning"),
}
"""All that are measured, by name, and the package that each needs."""


def installed() -> dict[str, Train]:
    """The loops whose package is here."""
    return {name: train for name, (train, package) in LOOPS.items() if find_spec(package)}


@contextmanager
def silence() -> Iterator[None]:
    """Keep for itself what the trainers print, log and warn of."""
    import warnings

    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
