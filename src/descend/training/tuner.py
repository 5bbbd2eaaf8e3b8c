"""The learning-rate finder for a trainer and its module, with Lightning's arguments."""

import copy
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from typing import Any

from torch.optim import Optimizer

from descend.checkpoint.randomness import last_seed
from descend.errors import TrainerError
from descend.lr_scheduler.group_values import has_number, read
from descend.spelling import spelled
from descend.training.copies import copied, generators_kept
from descend.training.data_module import DataModule
from descend.training.group_rates import RATES, lr_factors, set_lrs
from descend.training.loaders import given_loaders, moved, training_loader
from descend.training.lr_finder import Copy, range_test
from descend.training.metrics import Metrics
from descend.training.module import Module
from descend.training.optimization import TrainingStep, configured
from descend.training.range_test import RangeTest
from descend.training.trainer import Trainer
from descend.training.trainer_hooks import Hooks

ATTRIBUTES = ("lr", "learning_rate")


class Tuner:
    """Finds what a training is best given, before it begins: its learning rate.

    Args:
        trainer: as whose `fit` the module will be trained: with its precision, accumulation,
            clipping, device and seed, but without callbacks, loggers and validation.

    Raises:
        TrainerError: it is no trainer.

    Example:
        >>> import torch
        >>> class Line(Module):
        ...     def __init__(self, lr: float = 0.1):
        ...         super().__init__()
        ...         self.save_hyperparameters()
        ...         self.layer = torch.nn.Linear(3, 1)
        ...     def training_step(self, batch, batch_idx):
        ...         x, y = batch
        ...         return torch.nn.functional.mse_loss(self.layer(x), y)
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
        >>> x = torch.randn(400, 3)
        >>> data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
        >>> loader = torch.utils.data.DataLoader(data, batch_size=20, shuffle=True)
        >>> module = Line()
        >>> found = Tuner(Trainer(max_epochs=1, enable_progress_bar=False)).lr_find(module, loader)
        >>> module.hparams.lr == found.suggestion()
        True

    Source: the interface is that of Lightning's Tuner, https://lightning.ai/docs.
    """

    def __init__(self, trainer: Trainer) -> None:
        if not isinstance(trainer, Trainer):
            raise TrainerError(
                f"Tuner: trainer must be a descend.Trainer, and is a {type(trainer).__name__}"
            )
        self.trainer = trainer

    @spelled
    def lr_find(
        self,
        model: Module,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: DataModule | None = None,
        *,
        min_lr: float = 1e-7,
        max_lr: float = 10.0,
        num_training: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
    ) -> RangeTest:
        """Find the learning rate of a module as `descend.lr_find` does, and set it.

        Copies are trained by the module's own `training_step` and `configure_optimizers`, without
        the schedulers. Their `hparams.lr` or `lr` is set, so that the rates of all groups follow
        from it as in a training; where there is none, they keep their parts of the first.

        Args:
            model: the module.
            train_dataloaders: as for `fit`.
            val_dataloaders: not used: nothing is validated.
            datamodule: what makes the loader; a copy of it does.
            min_lr: the first learning rate.
            max_lr: the last one.
            num_training: steps of a sweep, and of a short run.
            mode: how it rises: "exponential" or "linear".
            early_stop_threshold: a sweep ends where the loss is so many times the lowest.
            update_attr: whether to set the suggestion: nothing else of the module changes.
            attr_name: of the hyperparameter or attribute; by default lr or learning_rate.

        Returns:
            The outcome: `suggestion()`, `range`, `plot(path=...)`.

        Raises:
            TrainerError: the module has no such attribute, several optimizers, or steps by itself;
                with `update_attr`, the loss does not fall; and as `lr_find`.
        """
        if isinstance(train_dataloaders, DataModule):
            train_dataloaders, datamodule = None, train_dataloaders
        if not isinstance(model, Module):
            raise TrainerError(
                f"Tuner.lr_find: model must be a descend.Module, and is a {type(model).__name__}; "
                f"descend.lr_find(model, loader, loss, make_optimizer) takes any nn.Module"
            )
        name = _attribute(model, attr_name, needed=update_attr)
        factors: list[dict[str, float]] = []
        # The user's setup and configure_optimizers may draw too
        with generators_kept(model, datamodule, train_dataloaders):
            quiet, loader = self._quiet(model, train_dataloaders, datamodule)

            def made(lr: float) -> tuple[Module, Optimizer]:
                module = _on_the_side(quiet, model)
                if name:
                    _set(module, name, lr)
                return module, _optimizer(module)

            def make_copy() -> Copy:
                module, optimizer = made(max_lr)
                if not factors and name:
                    factors.extend(
                        lr_factors(
                            lambda lr: _rates(made(lr)[1]), min_lr, max_lr, "configure_optimizers"
                        )
                    )
                elif not factors:
                    rates = _rates(optimizer)
                    factors.extend(
                        {key: rate / rates[0]["lr"] for key, rate in each.items()} for each in rates
                    )
                step = partial(_step, module, optimizer, count())
                return Copy(step, partial(set_lrs, optimizer, factors))

            found = range_test(
                make_copy, loader, (model,), min_lr=min_lr, max_lr=max_lr,
                num_training=num_training, mode=mode, early_stop_threshold=early_stop_threshold,
                seed=quiet.seed or 0, on_step=None,
            )  # fmt: skip
        if update_attr:
            _set(model, name, found.suggestion())
        for line in str(found).splitlines():
            self.trainer.say(line)
        return found

    def _quiet(
        self, model: Module, given: Any, datamodule: DataModule | None
    ) -> tuple[Trainer, Any]:
        """A trainer for copies, which shows and writes nothing, and the loader."""
        quiet = copy.copy(self.trainer)
        quiet.folder, quiet.callbacks, quiet.loggers, quiet.val_loaders = None, [], [], []
        quiet.run = quiet.step = None
        quiet.seed = quiet.seed if quiet.seed is not None else last_seed()
        if datamodule is not None:
            quiet.datamodule = datamodule = copy.deepcopy(
                datamodule, {id(self.trainer): quiet, id(model): model}
            )
            datamodule.trainer = quiet
            datamodule.prepare_data()
            datamodule.setup("fit")
        source = _on_the_side(quiet, model)
        loader = given_loaders(given, (datamodule, source), "train_dataloader")
        quiet._train_loader = training_loader(loader, quiet.seed or 0, quiet.limit_train_batches)
        return quiet, loader


def _on_the_side(quiet: Trainer, model: Module) -> Module:
    """A copy of a module, at the beginning of a training by a trainer of its own."""
    (module,) = copied(model)
    trainer = copy.copy(quiet)
    trainer.metrics, trainer.optimizers, trainer.lr_scheduler_configs = Metrics(), [], []
    trainer._module, trainer._part, trainer._warned = module, "train", set()
    trainer.hooks = Hooks(trainer, module, ())
    module.trainer = trainer
    module.to(trainer.device)
    trainer.hooks.call("setup", "fit")
    return module  # type: ignore[no-any-return]


def _optimizer(module: Module) -> Optimizer:
    """The one optimizer of a copy, which is ready to be trained."""
    trainer = module.trainer
    trainer.optimizers = configured(module)[0]
    if not module.automatic_optimization or len(trainer.optimizers) != 1:
        raise TrainerError(
            f"lr_find: {type(module).__name__} must have one optimizer and automatic_optimization;"
            f" descend.lr_find(model, loader, loss, make_optimizer) finds the lr of one part of it"
        )
    trainer.step = TrainingStep(
        module, trainer.optimizers, trainer.hooks, accumulate=trainer.accumulate_grad_batches,
        clip=trainer.clip, precision=trainer.precision, device=trainer.device,
    )  # fmt: skip
    for hook in ("on_fit_start", "on_train_start", "on_train_epoch_start"):
        trainer.hooks.call(hook)
    return trainer.optimizers[0]


def _step(
    module: Module, optimizer: Optimizer, numbers: Iterator[int], batches: Iterator[Any]
) -> float:
    """Take a step of a copy, on as many batches as it accumulates; the mean of their losses."""
    trainer = module.trainer
    losses = []
    for batch in islice(batches, trainer.accumulate_grad_batches):
        index = next(numbers)
        batch = trainer.metrics.batch = moved(batch, trainer.device)  # noqa: PLW2901
        trainer.hooks.call("on_train_batch_start", batch, index)
        outputs = trainer.step(batch, index, False)
        trainer.hooks.call("on_train_batch_end", outputs, batch, index)
        losses.append(float(outputs["loss"]))
    return sum(losses) / len(losses)


def _rates(optimizer: Optimizer) -> list[dict[str, float]]:
    """The rates of each group, as they are without the schedulers that have changed them."""
    found = []
    for group in optimizer.param_groups:
        rates = {name: read(group, name) for name in RATES if has_number(group, name)}
        for name in ("max_lr", "initial_lr"):  # of a cycle, and of any other
            if has_number(group, name):
                rates["lr"] = read(group, name)
                break
        found.append(rates)
    return found


def _attribute(module: Module, name: str, *, needed: bool) -> str:
    """The name of the hyperparameter or attribute that holds the learning rate; "" for none."""
    names = (name,) if name else ATTRIBUTES
    for one in names:
        if one in module.hparams or hasattr(module, one):
            return one
    if not (name or needed):
        return ""
    raise TrainerError(
        f"lr_find: {type(module).__name__} has no {' or '.join(names)}, neither in hparams nor as "
        f"an attribute, to set to the suggestion; save_hyperparameters() keeps those of the "
        f"constructor, attr_name names another, update_attr=False sets none"
    )


def _set(module: Module, name: str, lr: float) -> None:
    """Set the learning rate wherever the module holds it."""
    if name in module.hparams:
        module.hparams[name] = lr
    if hasattr(module, name):
        setattr(module, name, lr)
