"""descend.Trainer beside Lightning's: one definition of a module on both base classes.

With torch's optimizers on both sides, losses, learning rates and parameters are equal to the bit;
means over an epoch are added up in float32 there and in float64 here. With descend's optimizers
here, and torch's there, they agree as the optimizers do.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import mse_loss, softplus
from torch.utils.data import DataLoader, IterableDataset

import descend
from clients.beside import CLOSE, CLOSE_16, network, parameters, samples
from descend.errors import TrainerError
from descend.training.trainer_arguments import ATTRIBUTES
from descend.training.trainer_hooks import HOOKS

MEANS = {"rtol": 1e-6, "atol": 1e-7}
"""Sums of float32 beside sums of float64."""

DEFAULTS = {"num_sanity_val_steps": 0, "log_every_n_steps": 1, "enable_progress_bar": False}
"""Of the trainers here."""


class Lines:
    """A logger that keeps what it is given."""

    def __init__(self):
        self.lines = []

    def log_hyperparams(self, params, *_):
        pass

    def log_metrics(self, metrics, step=None):
        self.lines.append((step, {name: float(value) for name, value in metrics.items()}))

    def finalize(self, status):
        pass


@dataclass
class Side:
    """A library: its classes, and a trainer without bars and checkpoints."""

    name: str
    Module: type
    Callback: type
    EarlyStopping: type
    DataModule: type
    trainer: Callable[..., Any]


@pytest.fixture
def lightning(client):
    """Lightning's side."""
    library = client("lightning.pytorch")

    class Logger(Lines, library.loggers.logger.Logger):
        name, version = "lines", 0

    def trainer(**options):
        made = library.Trainer(
            accelerator="cpu",
            devices=1,
            logger=Logger(),
            enable_checkpointing=False,
            enable_model_summary=False,
            **{**DEFAULTS, **options},
        )
        return made, made.logger.lines

    return Side(
        "lightning", library.LightningModule, library.Callback, library.callbacks.EarlyStopping,
        library.LightningDataModule, trainer,
    )  # fmt: skip


@pytest.fixture
def ours():
    """descend's side."""

    def trainer(**options):
        logger = Lines()
        return descend.Trainer(logger=logger, **{**DEFAULTS, **options}), logger.lines

    return Side(
        "descend", descend.Module, descend.Callback, descend.EarlyStopping, descend.DataModule,
        trainer,
    )  # fmt: skip


def loader(count=26, batch_size=4, **options):
    """Seven batches, the last of two samples; in order, for each library shuffles in its own."""
    return DataLoader(samples(count), batch_size=batch_size, **options)


def numbers(metrics):
    return {name: float(value) for name, value in metrics.items()}


def lrs_of(optimizers):
    return [float(group["lr"]) for one in optimizers for group in one.param_groups]


def recorder(side):
    """A callback that writes down where the training is, and all metrics, at each instant."""

    class Recorder(side.Callback):
        def __init__(self):
            self.seen = []

        def note(self, instant, trainer):
            self.seen.append(
                (
                    instant,
                    trainer.current_epoch,
                    trainer.global_step,
                    lrs_of(trainer.optimizers),
                    numbers(trainer.callback_metrics),
                    numbers(trainer.progress_bar_metrics),
                )
            )

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.note(f"batch {batch_idx} starts", trainer)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.note(f"batch {batch_idx} ends", trainer)

        def on_validation_start(self, trainer, module):
            self.note("validation starts", trainer)

        def on_validation_end(self, trainer, module):
            self.note("validation ends", trainer)

        def on_train_epoch_end(self, trainer, module):
            self.note("epoch ends", trainer)

        def on_train_end(self, trainer, module):
            self.note("training ends", trainer)

    return Recorder()


def adamw(optim, module):
    return optim.AdamW(module.parameters(), lr=0.03)


def regression(side, optim, configure):
    """The module of most set-ups: it logs in every way, and remembers its losses."""

    class Regression(side.Module):
        def __init__(self):
            super().__init__()
            self.net = network()
            self.losses, self.lrs, self.estimated = [], [], None

        def training_step(self, batch, batch_idx):
            inputs, targets = batch
            loss = mse_loss(self.net(inputs).float(), targets)
            self.losses.append(loss.item())
            self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
            self.log("double", 2 * loss)
            self.log("mean", loss, on_step=False, on_epoch=True)
            self.log_dict({"a": batch_idx, "b": 0.5}, prog_bar=True)
            for name in ("min", "max", "sum"):
                self.log(name, loss, on_step=False, on_epoch=True, reduce_fx=name)
            return loss

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            inputs, targets = batch
            loss = mse_loss(self.net(inputs).float(), targets)
            self.losses.append(loss.item())
            self.log("val_loss", loss, prog_bar=True)
            self.log("val_count", float(len(inputs)), reduce_fx="sum", sync_dist=True)

        def on_validation_epoch_end(self):
            self.log("in_hook", 3.0)

        def on_train_epoch_end(self):
            self.log("at_end", float(self.current_epoch))

        def on_before_optimizer_step(self, optimizer):
            self.lrs.append(lrs_of([optimizer]))

        def configure_optimizers(self):
            self.estimated = self.trainer.estimated_stepping_batches
            return configure(optim, self)

    return Regression()


@dataclass
class SetUp:
    """A way to train.

    Args:
        options: of the trainer.
        configure: what `configure_optimizers` returns, of a namespace like torch.optim's.
        train: the loader.
        val: the loaders, or None.
        stopping: arguments of early stopping, or None.
        tolerance: where descend's optimizers stand beside torch's.
        midway: whether it ends inside an epoch.
    """

    options: dict[str, Any] = field(default_factory=dict)
    configure: Callable[..., Any] = adamw
    train: Callable[[], Any] = loader
    val: Callable[[], Any] | None = lambda: loader(10)
    stopping: dict[str, Any] | None = None
    tolerance: dict[str, float] = field(default_factory=lambda: CLOSE)
    midway: bool = False


def scheduled(make, **how):
    """A set-up's `configure`: SGD with a scheduler in a dict."""

    def configure(optim, module):
        optimizer = optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        scheduler = make(optim.lr_scheduler, optimizer, module)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **how}}

    return configure


def sequence(schedulers, optimizer, module):
    parts = [
        schedulers.LinearLR(optimizer, 0.1, total_iters=5),
        schedulers.CosineAnnealingLR(optimizer, 9),
    ]
    return schedulers.SequentialLR(optimizer, parts, [5])


def plateau(schedulers, optimizer, module):
    return schedulers.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=0.5)


def one_cycle(schedulers, optimizer, module):
    # One more than there are: at the end of its steps torch's goes up again, and ours stays
    steps = int(module.trainer.estimated_stepping_batches) + 1
    return schedulers.OneCycleLR(optimizer, 0.1, total_steps=steps)


class Stream(IterableDataset):
    """The same samples, of which nobody knows how many they are."""

    def __iter__(self):
        yield from (samples(26)[index] for index in range(26))


def stream():
    return DataLoader(Stream(), batch_size=4)


def lists(optim, module):
    """Two lists, of which the scheduler's is stepped by epoch."""
    optimizer = optim.Adam(module.parameters(), lr=0.02)
    return [optimizer], [optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


def groups(optim, module):
    first, _, second = module.net
    params = [{"params": first.parameters(), "lr": 0.01}, {"params": second.parameters()}]
    optimizer = optim.AdamW(params, lr=0.03)
    return {"optimizer": optimizer, "lr_scheduler": optim.lr_scheduler.StepLR(optimizer, 1, 0.5)}


def lbfgs(optim, module):
    return optim.LBFGS(module.parameters(), lr=0.1, max_iter=3)


SET_UPS = {
    "plain": SetUp(),
    "without validation": SetUp(val=None),
    "accumulation that does not divide the epoch": SetUp({"accumulate_grad_batches": 3}),
    "clipped by norm": SetUp({"gradient_clip_val": 0.5}),
    "clipped by value": SetUp({"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value"}),
    "bf16-mixed": SetUp({"precision": "bf16-mixed"}, tolerance=CLOSE_16),
    "bf16-mixed, accumulated and clipped": SetUp(
        {"precision": "bf16-mixed", "accumulate_grad_batches": 2, "gradient_clip_val": 0.5},
        tolerance=CLOSE_16,
    ),
    "plateau": SetUp({"max_epochs": 4}, scheduled(plateau, monitor="val_loss")),
    "plateau of the training loss": SetUp(
        {"max_epochs": 4}, scheduled(plateau, monitor="loss_epoch"), val=None
    ),
    "plateau by step": SetUp(
        {"val_check_interval": 3}, scheduled(plateau, monitor="double", interval="step")
    ),
    "one cycle by step": SetUp(
        {"max_epochs": 3, "accumulate_grad_batches": 2}, scheduled(one_cycle, interval="step")
    ),
    "every second epoch": SetUp(
        {"max_epochs": 5}, scheduled(lambda s, o, m: s.StepLR(o, 1, 0.5), frequency=2)
    ),
    "every second step": SetUp(
        {}, scheduled(lambda s, o, m: s.ExponentialLR(o, 0.9), interval="step", frequency=2)
    ),
    "sequence": SetUp({"max_epochs": 3}, scheduled(sequence, interval="step")),
    "lists": SetUp({"max_epochs": 3}, lists),
    "groups with their own lr": SetUp({"max_epochs": 3}, groups),
    "validation four times an epoch": SetUp({"val_check_interval": 0.25}),
    "validation each third of an epoch, rounded": SetUp({"val_check_interval": 0.34}),
    "validation each three batches": SetUp({"val_check_interval": 3}),
    "validation each five batches across epochs": SetUp(
        {"val_check_interval": 5, "check_val_every_n_epoch": None}
    ),
    "validation while gradients accumulate": SetUp(
        {"val_check_interval": 2, "accumulate_grad_batches": 3}
    ),
    "some batches": SetUp({"limit_train_batches": 5, "limit_val_batches": 1}),
    "parts of the batches": SetUp({"limit_train_batches": 0.5, "limit_val_batches": 0.7}),
    "no validation batches": SetUp({"limit_val_batches": 0}),
    "several validation loaders": SetUp(val=lambda: [loader(10), loader(6, 3)]),
    "a number of steps": SetUp({"max_steps": 10, "max_epochs": None}, midway=True),
    "a number of steps, accumulated": SetUp({"max_steps": 4, "accumulate_grad_batches": 2}),
    "a number of steps that is an epoch": SetUp({"max_steps": 7}),
    "every second validation": SetUp({"check_val_every_n_epoch": 2, "max_epochs": 5}),
    "overfitting": SetUp({"overfit_batches": 2, "max_epochs": 3}),
    "a stream": SetUp(train=stream, val=stream),
    "a stream, validation each three batches": SetUp(
        {"val_check_interval": 3, "max_steps": 13, "max_epochs": None}, train=stream, midway=True
    ),
    "a stream, plateau by step": SetUp(
        {}, scheduled(plateau, monitor="double", interval="step"), train=stream, val=None
    ),
    "some batches of a stream": SetUp({"limit_train_batches": 5}, train=stream),
    "L-BFGS": SetUp({}, lbfgs),
    "early stopping": SetUp(
        {"max_epochs": 8}, scheduled(lambda s, o, m: s.ExponentialLR(o, 3.0)),
        stopping={"monitor": "val_loss", "patience": 1},
    ),
    "early stopping by what an epoch's end logs": SetUp(
        {"max_epochs": 8}, val=None,
        stopping={"monitor": "at_end", "mode": "min", "patience": 2},
    ),
    "early stopping in an epoch": SetUp(
        {"max_epochs": 8, "val_check_interval": 0.3},
        scheduled(lambda s, o, m: s.ExponentialLR(o, 3.0)),
        stopping={"monitor": "val_loss", "patience": 2, "check_on_train_epoch_end": False},
        midway=True,
    ),
    "metrics by name": SetUp({"log_every_n_steps": 2}),
}  # fmt: skip


def trained(side, set_up, optim):
    """Train; all that was seen."""
    record = recorder(side)
    callbacks = [record]
    if set_up.stopping:
        callbacks.append(side.EarlyStopping(**set_up.stopping))
    module = regression(side, optim, set_up.configure)
    options = {"max_epochs": 2, **set_up.options}
    trainer, lines = side.trainer(callbacks=callbacks, **options)
    trainer.fit(module, set_up.train(), set_up.val() if set_up.val else None)
    instants, end = [one[:3] for one in record.seen], trainer.current_epoch
    if set_up.midway and side.name == "lightning":
        # It counts the epoch that it left as done; ours goes on in it, if there are more steps
        name, epoch, step = instants.pop()
        instants, end = [*instants, (name, epoch - 1, step)], end - 1
    return SimpleNamespace(
        losses=module.losses,
        lrs=module.lrs,
        parameters=parameters(module),
        # Lightning says -1 where nobody knows how many batches there are
        estimated=math.inf if module.estimated == -1 else module.estimated,
        instants=instants,
        lr_at=[one[3] for one in record.seen],
        metrics=[one[4] for one in record.seen],
        shown=[one[5] for one in record.seen],
        lines=lines,
        ends=(end, trainer.global_step, numbers(trainer.callback_metrics)),
        batches=(trainer.num_training_batches, list(trainer.num_val_batches)),
    )


def assert_same(mine, theirs, tolerance, means):
    """Compare two trainings."""
    assert mine.instants == theirs.instants
    assert (mine.estimated, mine.batches) == (theirs.estimated, theirs.batches)
    for name in ("losses", "lrs", "parameters", "lr_at"):
        torch.testing.assert_close(getattr(mine, name), getattr(theirs, name), **tolerance)
    for name in ("metrics", "shown", "ends"):
        torch.testing.assert_close(getattr(mine, name), getattr(theirs, name), **means)


@pytest.mark.parametrize("name", SET_UPS)
def test_the_same_training_as_lightnings(lightning, ours, name):
    """torch's optimizers on both sides: the same bits."""
    set_up = SET_UPS[name]
    theirs, mine = (trained(side, set_up, torch.optim) for side in (lightning, ours))
    assert len(theirs.losses) > 5
    assert_same(mine, theirs, {"rtol": 0, "atol": 0}, MEANS)


@pytest.mark.parametrize("name", SET_UPS)
def test_a_training_that_moves_to_descend(lightning, ours, name):
    """descend's optimizers and schedulers here, torch's there."""
    set_up = SET_UPS[name]
    theirs, mine = trained(lightning, set_up, torch.optim), trained(ours, set_up, descend)
    assert_same(mine, theirs, set_up.tolerance, set_up.tolerance)


def random_set_up(seed):
    """Options that meet each other; what both refuse is left out."""
    draw = random.Random(seed)
    batches = draw.randint(1, 9)
    count = 4 * batches - draw.randint(0, 3)
    some = {
        "max_epochs": draw.randint(1, 4),
        "accumulate_grad_batches": draw.randint(1, 4),
        "val_check_interval": draw.choice([0.25, 0.5, 0.7, 1.0, draw.randint(1, batches)]),
        "check_val_every_n_epoch": draw.choice([1, 2, 3, None]),
        "limit_val_batches": draw.choice([1, 2, 0.5]),
        "max_steps": draw.choice([-1, draw.randint(1, 14)]),
        "gradient_clip_val": draw.choice([None, 0.3]),
    }
    if some["check_val_every_n_epoch"] is None:  # counts over epochs
        some["val_check_interval"] = draw.randint(1, 9)
    how = {"interval": draw.choice(["step", "epoch"]), "frequency": draw.randint(1, 3)}
    monitor = draw.choice(["loss", "double"])
    configure = draw.choice(
        [
            adamw,
            lists,
            groups,
            scheduled(plateau, monitor=monitor, **how),
            scheduled(sequence, **how),
            scheduled(lambda s, o, m: s.StepLR(o, 2, 0.5), **how),
        ]
    )
    stopping = {"monitor": monitor, "patience": draw.randint(0, 2)}
    return SetUp(
        some,
        configure,
        train=lambda: loader(count),
        val=draw.choice([lambda: loader(10), lambda: [loader(10), loader(5, 3)]]),
        stopping=draw.choice([None, None, stopping]),
    )


@pytest.mark.parametrize("seed", range(40))
def test_options_that_meet_each_other(lightning, ours, seed):
    theirs, mine = (trained(side, random_set_up(seed), torch.optim) for side in (lightning, ours))
    if theirs.ends[0] == mine.ends[0] + 1:  # it ended inside an epoch, as above
        name, epoch, step = theirs.instants.pop()
        theirs.instants.append((name, epoch - 1, step))
        theirs.ends = (theirs.ends[0] - 1, *theirs.ends[1:])
    if not theirs.batches[1]:  # it has not looked at loaders that it never came to
        theirs.batches = mine.batches
    assert_same(mine, theirs, {"rtol": 0, "atol": 0}, MEANS)


@pytest.mark.parametrize(
    "options",
    [{"limit_train_batches": 0.5}, {"limit_val_batches": 0.5}, {"val_check_interval": 0.5}],
    ids=",".join,
)
def test_a_part_of_a_stream_is_refused_by_both(lightning, ours, options):
    for side, error in ((lightning, Exception), (ours, TrainerError)):
        trainer, _ = side.trainer(max_epochs=1, **options)
        with pytest.raises(error, match=r"(?i)whole number|an int"):
            trainer.fit(regression(side, torch.optim, adamw), stream(), stream())


@pytest.mark.parametrize("name", ["plain", "metrics by name", "several validation loaders",
                                  "accumulation that does not divide the epoch",
                                  "validation four times an epoch"])  # fmt: skip
def test_loggers_get_the_same_values(lightning, ours, name):
    """They get the learning rate here too, and count steps from 1: after a step there has been one.

    What a validation logs is at the step after which it was.
    """
    set_up = SET_UPS[name]
    theirs, mine = (trained(side, set_up, torch.optim).lines for side in (lightning, ours))
    merged = {}
    for step, values in theirs:
        merged.setdefault(step + 1, {}).update(values)
    found = {}
    for step, values in mine:
        found.setdefault(step, {}).update(values)
    for values in found.values():
        values.pop("lr", None)
    torch.testing.assert_close(found, merged, **MEANS)


# Of torch's schedulers, after a step that the scaler has left out
@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("clip", [{}, {"gradient_clip_val": 0.5}])
def test_half_precision_with_a_scaler(lightning, ours, client, clip):
    """Steps that overflow are left out and counted, and the schedule goes on."""
    library = client("lightning.pytorch")
    configure = scheduled(one_cycle, interval="step")

    def train(side, **options):
        module, record = regression(side, torch.optim, configure), recorder(side)
        trainer, _ = side.trainer(max_epochs=3, callbacks=[record], **clip, **options)
        trainer.fit(module, loader(), loader(10))
        return [one[:3] for one in record.seen], module.losses, module.lrs, parameters(module)

    scaler = torch.amp.GradScaler("cpu")
    plugin = library.plugins.MixedPrecision("16-mixed", "cpu", scaler)
    theirs, mine = train(lightning, plugins=[plugin]), train(ours, precision="16-mixed")
    assert scaler.get_scale() < 2.0**16  # there were some
    assert mine[0] == theirs[0]
    torch.testing.assert_close(mine[1:], theirs[1:], rtol=0, atol=0)


class Adversaries:
    """Two optimizers in turn, each with the parameters of the other switched off."""

    @staticmethod
    def on(side, optim):
        class Pair(side.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.maker, self.judge = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)
                self.automatic_optimization = False
                self.losses, self.switched, self.lrs = [], [], []

            def note(self):
                self.switched.append([one.requires_grad for one in self.parameters()])

            def training_step(self, batch, batch_idx):
                real, _ = batch
                maker, judge = self.optimizers()
                fake = self.maker(real.flip(0))
                self.toggle_optimizer(judge)
                self.note()
                judge_loss = (
                    softplus(-self.judge(real)).mean() + softplus(self.judge(fake.detach())).mean()
                )
                judge.zero_grad()
                self.manual_backward(judge_loss)
                self.clip_gradients(judge, gradient_clip_val=0.1, gradient_clip_algorithm="norm")
                judge.step()
                self.untoggle_optimizer(judge)
                self.toggle_optimizer(maker)
                self.note()
                maker_loss = softplus(-self.judge(fake)).mean()
                maker.zero_grad()
                self.manual_backward(maker_loss)
                maker.step()
                self.untoggle_optimizer(maker)
                self.note()
                for scheduler in self.lr_schedulers():
                    scheduler.step()
                self.losses += [judge_loss.item(), maker_loss.item()]
                self.log_dict({"judge": judge_loss, "maker": maker_loss}, on_epoch=True)

            def configure_optimizers(self):
                maker = optim.Adam(self.maker.parameters(), lr=0.02, betas=(0.5, 0.9))
                judge = optim.RMSprop(self.judge.parameters(), lr=0.01)
                kinds = optim.lr_scheduler
                return [maker, judge], [kinds.StepLR(maker, 3, 0.5), kinds.LinearLR(judge, 0.1)]

        return Pair()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("moves", [False, True], ids=["torch's", "descend's"])
def test_two_optimizers_by_hand(lightning, ours, moves, precision):
    """`global_step` counts the steps of both."""

    def train(side, optim):
        module, record = Adversaries.on(side, optim), recorder(side)
        trainer, _ = side.trainer(max_epochs=2, callbacks=[record], precision=precision)
        trainer.fit(module, loader())
        assert trainer.global_step == 28
        instants, metrics = ([one[part] for one in record.seen] for part in (slice(3), slice(3, 6)))
        return (module.switched, instants), (module.losses, parameters(module)), metrics

    theirs, mine = train(lightning, torch.optim), train(ours, descend if moves else torch.optim)
    assert mine[0] == theirs[0]
    close = CLOSE if precision == "32-true" else CLOSE_16
    torch.testing.assert_close(mine[1], theirs[1], **(close if moves else {"rtol": 0, "atol": 0}))
    torch.testing.assert_close(mine[2], theirs[2], **(close if moves else MEANS))


HOOKED = sorted(HOOKS - {"on_exception"})
OURS_ALONE = {"on_sanity_check_start", "on_sanity_check_end"}
"""The hooks that a module of Lightning's has not: only callbacks have them there."""


def recording(side, manual=False):
    """A callback and a module with every hook, and all their calls in one list."""
    calls = []

    def noting(who, name, arguments):
        numbers = [one for one in arguments if isinstance(one, int | str)]
        calls.append((who, name, *numbers))

    class Recorder(side.Callback):
        pass

    class Module(side.Module):
        def __init__(self):
            super().__init__()
            self.net = network()
            self.automatic_optimization = not manual

        def training_step(self, batch, batch_idx):
            noting("module", f"training_step, training={self.training}", [batch_idx])
            loss = mse_loss(self.net(batch[0]), batch[1])
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return loss

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            noting("module", f"validation_step, training={self.training}", [batch_idx])
            self.log("val_loss", 1.0)

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            noting("module", f"test_step, training={self.training}", [batch_idx])

        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            noting("module", f"predict_step, training={self.training}", [batch_idx])
            return batch_idx

        def configure_optimizers(self):
            calls.append(("module", "configure_optimizers"))
            optimizer = torch.optim.SGD(self.parameters(), lr=0.01)

            class Scheduler(torch.optim.lr_scheduler.LambdaLR):
                def step(self, epoch=None):
                    if getattr(self, "built", False):
                        calls.append(("scheduler", "step"))
                    super().step()

            scheduler = Scheduler(optimizer, lambda step: 1.0)
            scheduler.built = True
            return [optimizer], [scheduler]

    class Data(side.DataModule):
        def prepare_data(self):
            calls.append(("data", "prepare_data"))

        def setup(self, stage):
            calls.append(("data", "setup", stage))

        def teardown(self, stage):
            calls.append(("data", "teardown", stage))

        def train_dataloader(self):
            return loader(10)

        def val_dataloader(self):
            return [loader(6), loader(4)]

        test_dataloader = predict_dataloader = val_dataloader

    def hook(who, name):
        def called(self, *arguments, **named):
            noting(who, name, [*arguments, *named.values()])

        return called

    for name in HOOKED:
        setattr(Recorder, name, hook("callback", name))
        if name not in OURS_ALONE:
            setattr(Module, name, hook("module", name))
    return Recorder(), Module(), Data(), calls


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 2},
        {"val_check_interval": 0.5},
        {"max_steps": 2},
        {"num_sanity_val_steps": 1, "max_epochs": 1},
        {"fast_dev_run": True},
        {"manual": True},
    ],
    ids=", ".join,
)
def test_the_order_of_all_hooks(lightning, ours, options):
    """Of callback, module, data module, scheduler: names, numbers of batches, stages, modes."""
    manual = options.pop("manual", False) if "manual" in options else False
    options = {"max_epochs": 2, **options}
    seen = []
    for side in (lightning, ours):
        callback, module, data, calls = recording(side, manual)
        trainer, _ = side.trainer(callbacks=[callback], **options)
        trainer.fit(module, datamodule=data)
        trainer.validate(module, datamodule=data, verbose=False)
        trainer.test(module, datamodule=data, verbose=False)
        trainer.predict(module, datamodule=data)
        seen.append(calls)
    theirs, mine = seen
    assert mine == theirs
    assert len(mine) > 100


LIMITS = {"limit_val_batches": 2, "limit_test_batches": 0.5, "limit_predict_batches": 1}


@pytest.mark.parametrize("options", [{}, LIMITS, {"precision": "bf16-mixed"}], ids=",".join)
def test_what_measuring_returns(lightning, ours, options):
    """One loader and several; what a hook logs; names of one's own."""

    def measure(side):
        class Measured(side.Module):
            def __init__(self):
                super().__init__()
                self.net = network()

            def measure(self, batch, number):
                inputs, targets = batch
                loss = mse_loss(self.net(inputs), targets)
                self.log("loss", loss)
                self.log("both", loss, on_step=True, on_epoch=True)
                self.log(f"own_{number}", loss, add_dataloader_idx=False)
                self.log("weighted", loss, batch_size=7)
                self.log("worst", loss, reduce_fx="max")

            def validation_step(self, batch, batch_idx, dataloader_idx=0):
                self.measure(batch, dataloader_idx)

            test_step = validation_step

            def predict_step(self, batch, batch_idx, dataloader_idx=0):
                return self.net(batch[0])

            def on_test_epoch_end(self):
                self.log("in_hook", 2.0)

        module, found = Measured(), []
        for loaders in (loader(10), [loader(10), loader(5, 3)]):
            trainer, _ = side.trainer(**options)
            found += [
                trainer.validate(module, loaders, verbose=False),
                trainer.test(module, loaders, verbose=False),
                trainer.predict(module, loaders),
                numbers(trainer.callback_metrics),
            ]
        return found

    theirs, mine = measure(lightning), measure(ours)
    torch.testing.assert_close(mine, theirs, **MEANS)
    assert mine[0][0].keys() == {"loss", "both_epoch", "own_0", "weighted", "worst"}


def test_the_table_of_a_test_has_the_same_names_and_values(lightning, ours, capsys):
    """With its bars: without them descend prints nothing."""

    def measure(side):
        class Measured(side.Module):
            def test_step(self, batch, batch_idx, dataloader_idx=0):
                self.log("first", 0.25 + dataloader_idx)
                self.log("second", 3.0)

        side.trainer(enable_progress_bar=True)[0].test(Measured(), [loader(4), loader(4)])
        return capsys.readouterr().out

    theirs, mine = measure(lightning), measure(ours)
    for words in ("first", "second", "0.25", "1.25"):
        assert (words in theirs, words in mine) == (True, True), words


class Asks:
    """A callback that ends the training in a batch or in a validation."""

    @staticmethod
    def on(side, instant):
        class Stopper(side.Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                if instant == "batch" and batch_idx == 2:
                    trainer.should_stop = True

            def on_validation_end(self, trainer, module):
                if instant == "validation":
                    trainer.should_stop = True

            def on_train_epoch_end(self, trainer, module):
                if instant == "epoch":
                    trainer.should_stop = True

        return Stopper()


@pytest.mark.parametrize("instant", ["batch", "validation", "epoch"])
def test_should_stop(lightning, ours, instant):
    """Asked for in an epoch, it is validated at once, and the epoch ends there."""

    def train(side):
        record, module = recorder(side), regression(side, torch.optim, adamw)
        trainer, _ = side.trainer(max_epochs=3, callbacks=[Asks.on(side, instant), record])
        trainer.fit(module, loader(), loader(10))
        return [one[0] for one in record.seen], module.losses

    theirs, mine = train(lightning), train(ours)
    assert mine == theirs


def test_a_batch_start_that_returns_minus_one(lightning, ours):
    """It leaves out the rest of the epoch and its validation; the epoch's schedulers step."""
    configure = scheduled(lambda s, o, m: s.ExponentialLR(o, 0.5))

    def train(side):
        module, record = regression(side, torch.optim, configure), recorder(side)
        module.on_train_batch_start = lambda batch, batch_idx: -1 if batch_idx == 2 else None
        trainer, _ = side.trainer(max_epochs=3, callbacks=[record])
        trainer.fit(module, loader(), loader(10))
        return [one[:3] for one in record.seen], module.losses, module.lrs

    theirs, mine = train(lightning), train(ours)
    assert mine == theirs
    assert mine[2][-1] == [0.05 / 4]


def test_outputs_that_a_callback_gets(lightning, ours):
    """The loss as it was returned, where Lightning has divided it by the batches of a step."""

    def train(side, accumulate):
        outputs = []

        class Outputs(side.Callback):
            def on_train_batch_end(self, trainer, module, found, batch, batch_idx):
                outputs.append({name: float(value) for name, value in found.items()})

        class Dict(side.Module):
            def __init__(self):
                super().__init__()
                self.net = network()

            def training_step(self, batch, batch_idx):
                return {"loss": mse_loss(self.net(batch[0]), batch[1]), "number": batch_idx}

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.01)

        trainer, _ = side.trainer(
            max_epochs=1, callbacks=[Outputs()], accumulate_grad_batches=accumulate
        )
        trainer.fit(Dict(), loader())
        return outputs

    assert train(ours, 1) == train(lightning, 1)
    theirs = train(lightning, 2)
    assert train(ours, 2) == [{**one, "loss": 2 * one["loss"]} for one in theirs]


def test_metrics_that_compute_themselves(lightning, ours, client):
    """torchmetrics' objects: the value of the batch, and that of the whole epoch."""
    torchmetrics = client("torchmetrics")

    def train(side):
        class Classifier(side.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.net = torch.nn.Linear(4, 3)
                kinds = {"task": "multiclass", "num_classes": 3}
                self.train_acc = torchmetrics.Accuracy(**kinds)
                self.val_acc = torchmetrics.Accuracy(**kinds)
                self.val_error = torchmetrics.MeanSquaredError()

            def training_step(self, batch, batch_idx):
                scores = self.net(batch[0])
                labels = batch[1].abs().long().flatten() % 3
                self.train_acc(scores, labels)
                self.log("train_acc", self.train_acc, on_step=True, on_epoch=True)
                return torch.nn.functional.cross_entropy(scores, labels)

            def validation_step(self, batch, batch_idx):
                scores = self.net(batch[0])
                self.val_acc.update(scores, batch[1].abs().long().flatten() % 3)
                self.val_error.update(scores[:, 0], batch[1].flatten())
                self.log_dict({"val_acc": self.val_acc, "val_error": self.val_error})

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.5)

        record = recorder(side)
        trainer, _ = side.trainer(max_epochs=3, callbacks=[record])
        trainer.fit(Classifier(), loader(), loader(10))
        return [one[4] for one in record.seen]

    theirs, mine = train(lightning), train(ours)
    torch.testing.assert_close(mine, theirs, **MEANS)
    assert len({one.get("train_acc_step") for one in mine}) > 3
    assert len({one.get("val_error") for one in mine}) > 3


BATCHES = {
    "dict": lambda x, y: {"x": x, "y": y},
    "nested": lambda x, y: ({"inputs": [x]}, y),
    "with words": lambda x, y: {"names": ["a word"] * len(x), "x": x, "y": y},
    "tensor": lambda x, y: torch.cat([x, y], 1),
}


@pytest.mark.parametrize("name", BATCHES)
def test_the_weight_of_a_batch_is_its_number_of_samples(lightning, ours, name):
    def collate(pairs):
        return BATCHES[name](*torch.utils.data.default_collate(pairs))

    def train(side):
        class Any(side.Module):
            def training_step(self, batch, batch_idx):
                self.log("mean", float(batch_idx), on_step=False, on_epoch=True)
                self.log("own", float(batch_idx), on_step=False, on_epoch=True, batch_size=3)
                return self.weight.sum()

            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(1))

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.5)

        trainer, _ = side.trainer(max_epochs=1)
        trainer.fit(Any(), loader(collate_fn=collate))
        return numbers(trainer.callback_metrics)

    theirs, mine = train(lightning), train(ours)
    assert mine == pytest.approx(theirs)
    assert mine == pytest.approx({"mean": (4 * 15 + 2 * 6) / 26, "own": 3.0})


def no_loss(side):
    """A module whose second step returns None."""

    class Without(side.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else mse_loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Without()


def test_a_step_that_returns_none_is_an_error(lightning, ours):
    """Lightning warns, and steps all the same with what gradients there are."""
    trainer, _ = lightning.trainer(max_epochs=1)
    with pytest.warns(UserWarning, match="returned `None`"):
        trainer.fit(no_loss(lightning), loader())
    assert trainer.global_step == 7
    trainer, _ = ours.trainer(max_epochs=1)
    with pytest.raises(TrainerError, match="returned None in batch 2"):
        trainer.fit(no_loss(ours), loader())


def test_how_long_to_train_must_be_said(lightning, ours):
    """Lightning takes 1,000 epochs where nothing is said."""
    trainer, _ = lightning.trainer()
    assert trainer.max_epochs is None
    with pytest.raises(TrainerError, match="how long to train"):
        ours.trainer()[0].fit(regression(ours, torch.optim, adamw), loader())


def test_a_monitor_that_was_never_logged_is_an_error_in_both(lightning, ours):
    for side, error in ((lightning, Exception), (ours, TrainerError)):
        trainer, _ = side.trainer(max_epochs=2)
        configure = scheduled(plateau, monitor="val_los")
        with pytest.raises(error, match=r"val_los\b.*val_loss"):
            trainer.fit(regression(side, torch.optim, configure), loader(), loader(10))


def test_a_second_fit_goes_on_or_starts_over(lightning, ours):
    """A trainer without a folder starts over: one that goes on has a folder."""
    for side, losses in ((lightning, 7), (ours, 14)):
        trainer, _ = side.trainer(max_epochs=1)
        module = regression(side, torch.optim, adamw)
        for _ in range(2):
            trainer.fit(module, loader())
        assert len(module.losses) == losses
        assert math.isfinite(module.losses[-1])


def test_what_only_lightnings_trainer_has_is_told_with_what_to_use(lightning, ours):
    mine, theirs = ours.trainer()[0], lightning.trainer()[0]
    for name in ATTRIBUTES:
        assert hasattr(theirs, name), name
        with pytest.raises(AttributeError, match=rf"has no attribute '{name}'; use \w+"):
            getattr(mine, name)
    with pytest.raises(AttributeError, match="num_training_batches from fit on"):
        _ = mine.num_training_batches
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        _ = mine.nothing
    for name in ("is_global_zero", "world_size", "global_rank", "num_devices", "num_nodes"):
        assert getattr(mine, name) == getattr(theirs, name), name
