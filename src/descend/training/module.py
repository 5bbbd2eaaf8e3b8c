"""A network that knows how it is trained."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import nn

from descend.errors import TrainerError
from descend.training.hparams import HasHyperparameters

if TYPE_CHECKING:
    from descend.training.trainer import Trainer

Own = TypeVar("Own", bound="Module")


class Module(HasHyperparameters, nn.Module):
    """An `nn.Module` with the steps of its training, under Lightning's names.

        theta <- optimizer(theta, d/dtheta training_step(batch))    for each batch

    A `Trainer` calls the steps that are defined: `training_step(batch, batch_idx)` returns the
    loss, or a mapping with "loss"; `validation_step`, `test_step` and `predict_step` take the same
    and, where there are several loaders, `dataloader_idx`. A step may leave out arguments from the
    end. `configure_optimizers` says what trains it. `train_dataloader`, `val_dataloader`,
    `test_dataloader` and `predict_dataloader` may give the data, and `configure_callbacks` more
    callbacks. The hooks of `Callback` are its own too, without `trainer` and `module`.

    With `self.automatic_optimization = False` the training step takes its own steps, with
    `optimizers()`, `manual_backward`, `lr_schedulers()` and `toggle_optimizer`.

    Raises:
        TrainerError: something is asked that only a `Trainer` knows, and there is none.

    Example:
        >>> import descend, torch
        >>> class Line(Module):
        ...     def __init__(self, lr: float = 0.1):
        ...         super().__init__()
        ...         self.save_hyperparameters()
        ...         self.layer = torch.nn.Linear(3, 1)
        ...     def training_step(self, batch, batch_idx):
        ...         x, y = batch
        ...         loss = torch.nn.functional.mse_loss(self.layer(x), y)
        ...         self.log("loss", loss)
        ...         return loss
        ...     def configure_optimizers(self):
        ...         return descend.SGD(self.parameters(), lr=self.hparams.lr)
        >>> data = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.randn(8, 1))
        >>> trainer = descend.Trainer(max_epochs=2, enable_progress_bar=False)
        >>> trainer.fit(Line(), torch.utils.data.DataLoader(data, batch_size=4))
        >>> trainer.global_step
        4

    Source: the interface is that of Lightning's LightningModule, https://lightning.ai/docs.
    """

    automatic_optimization = True

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_trainer"] = None

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a batch, whose gradient the optimizer follows."""
        raise TrainerError(
            f"{type(self).__name__} has no training_step(self, batch, batch_idx), which returns "
            f"the loss of a batch; define it, or give fit a loss: fit(model, loader, loss=...)"
        )

    def configure_optimizers(self) -> Any:
        """Return the optimizers and what drives them.

        One optimizer; a list; a pair (optimizers, schedulers); or a mapping with "optimizer" and
        "lr_scheduler": a scheduler, or a mapping of "scheduler", "interval" ("epoch" or "step"),
        "frequency" and "monitor".
        """
        raise TrainerError(
            f"{type(self).__name__} has no configure_optimizers(self), such as: return "
            f"descend.AdamW(self.parameters(), lr=1e-3)"
        )

    def predict_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> Any:
        """Return the outputs for a batch: by default those of the module itself."""
        return self(batch)

    def log(
        self,
        name: str,
        value: Any,
        *,
        prog_bar: bool = False,
        logger: bool = True,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: Literal["mean", "sum", "min", "max"] = "mean",
        batch_size: int | None = None,
        add_dataloader_idx: bool = True,
        sync_dist: bool = False,
        rank_zero_only: bool = False,
    ) -> None:
        """Log a number, in a step or a hook.

        Args:
            name: with both `on_step` and `on_epoch`, `_step` and `_epoch` are added to it.
            value: a number, a tensor of one element, or a metric with `compute` and `reset`.
            prog_bar: whether it is shown beside the progress bar.
            logger: whether `metrics.jsonl` and the loggers get it.
            on_step: whether the value of the batch is logged, each `log_every_n_steps` steps; by
                default in the training step.
            on_epoch: whether the mean over the epoch is logged at its end; by default elsewhere.
            reduce_fx: how an epoch's values become one: their mean, weighted by the samples in
                each batch; their sum, least or greatest.
            batch_size: how many samples the batch has; by default the length of its first tensor.
            add_dataloader_idx: whether the name ends in `/dataloader_idx_N` where there are
                several loaders.
            sync_dist: of several processes, which are to come: one logs for itself.
            rank_zero_only: the same.

        Raises:
            TrainerError: the value is no number, or the same name is logged otherwise too.
        """
        self.trainer.metrics.log(
            name, value, prog_bar, logger, on_step, on_epoch, reduce_fx, batch_size,
            add_dataloader_idx,
        )  # fmt: skip

    def log_dict(self, values: Mapping[str, Any], **options: Any) -> None:
        """Log several numbers by name, with the options of `log`."""
        for name, value in values.items():
            self.log(name, value, **options)

    def print(self, *values: Any) -> None:
        """Print above the progress bars."""
        self.trainer.say(" ".join(map(str, values)))

    def optimizers(self) -> Any:
        """The optimizer, or the list of them, to step by hand."""
        found = self.trainer.optimizers
        return found[0] if len(found) == 1 else found

    def lr_schedulers(self) -> Any:
        """The scheduler, the list of them, or None, to step by hand."""
        found = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        return found if len(found) > 1 else found[0] if found else None

    def manual_backward(self, loss: torch.Tensor, **options: Any) -> None:
        """Add the gradient of a loss to the parameters' gradients."""
        hooks = self.trainer.hooks
        hooks.call("on_before_backward", loss)
        loss.backward(**options)  # type: ignore[no-untyped-call]
        hooks.call("on_after_backward")

    def toggle_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Let only an optimizer's own parameters get gradients, until `untoggle_optimizer`."""
        own = {id(parameter) for parameter in _parameters(optimizer)}
        others = {id(one): one for each in self.trainer.optimizers for one in _parameters(each)}
        toggled = self.__dict__.setdefault("_toggled", [])
        for number, parameter in others.items():
            if number not in own and parameter.requires_grad:
                parameter.requires_grad_(False)
                toggled.append(parameter)

    def untoggle_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """End what `toggle_optimizer` began."""
        for parameter in self.__dict__.pop("_toggled", []):
            parameter.requires_grad_(True)

    def clip_gradients(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] | None = None,
    ) -> None:
        """Clip the gradients of an optimizer's parameters, by default as the trainer says."""
        value = gradient_clip_val if gradient_clip_val is not None else self.trainer.clip[0]
        if value is None:
            return
        parameters = [*_parameters(optimizer)]
        if (gradient_clip_algorithm or self.trainer.clip[1]) == "norm":
            nn.utils.clip_grad_norm_(parameters, value)
        else:
            nn.utils.clip_grad_value_(parameters, value)

    def freeze(self) -> None:
        """Take all parameters out of the training, and evaluate."""
        self.requires_grad_(False).eval()

    def unfreeze(self) -> None:
        """Let all parameters learn, and train."""
        self.requires_grad_(True).train()

    @property
    def trainer(self) -> "Trainer":
        """The trainer that trains it."""
        found: Trainer | None = self.__dict__.get("_trainer")
        if found is None:
            raise TrainerError(
                f"this {type(self).__name__} has no trainer yet: it has one from "
                f"Trainer.fit, validate, test or predict on, in configure_optimizers too"
            )
        return found

    @trainer.setter
    def trainer(self, trainer: "Trainer | None") -> None:
        self.__dict__["_trainer"] = trainer

    @property
    def current_epoch(self) -> int:
        """The epoch under way, from 0."""
        return self.trainer.current_epoch

    @property
    def global_step(self) -> int:
        """How many steps the optimizers have taken."""
        return self.trainer.global_step

    @property
    def device(self) -> torch.device:
        """The device of its first parameter or buffer."""
        first = next((one for some in (self.parameters(), self.buffers()) for one in some), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def logger(self) -> Any:
        """The first logger, or None."""
        return self.trainer.logger

    @property
    def loggers(self) -> list[Any]:
        """All loggers."""
        return self.trainer.loggers

    @classmethod
    def load_from_checkpoint(
        cls: type[Own], path: str | os.PathLike[str], /, *, strict: bool = True, **hparams: Any
    ) -> Own:
        """Build the module with the hyperparameters of a checkpoint, and load its weights.

        Args:
            path: what `checkpoint.restore` takes: a checkpoint, or the folder of a run.
            strict: whether all weights must fit.
            hparams: arguments of the constructor in place of those saved.

        Raises:
            CheckpointError: it cannot be loaded, or does not fit.

        Example:
            >>> Digits.load_from_checkpoint("runs/digits").hparams.hidden
            64

        Source: the name is Lightning's.
        """
        from descend.checkpoint import load, restore
        from descend.errors import MissingPartError

        saved: dict[str, Any] = {}
        with suppress(MissingPartError):  # of a Run, or a file of torch's
            saved = load(path, parts=["trainer"])["trainer"].get("hparams", {})
        module = cls(**{**saved, **hparams})
        restore(path, strict=strict, model=module)
        return module

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no trainer: it would copy all that the trainer holds."""
        return {**self.__dict__, "_trainer": None}


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
