"""Bad input of a trainer's user: one clear error each, and the run's folder is whole."""

import os

import pytest
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import descend
from descend.errors import DescendError, DivergedError, RunError, TrainerError

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def loader(samples=40, batch_size=8, **options):
    return DataLoader(TensorDataset(X[:samples], Y[:samples]), batch_size, **options)


class Line(descend.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        loss = mse_loss(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return descend.AdamW(self.parameters(), lr=1e-2)


class Forgetful(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class NoStep(descend.Module):
    pass


class NoOptimizer(descend.Module):
    def training_step(self, batch):
        return batch

    def validation_step(self, batch):
        pass


def line(**parts):
    return type("Line", (Line,), parts)()


def returning(value):
    """A module whose step returns something of its loss."""
    return line(training_step=lambda self, batch, batch_idx: value(self.net(batch[0]).sum()))


def configured(value):
    return line(configure_optimizers=value)


def logging(name, value, **options):
    def training_step(self, batch, batch_idx):
        self.log(name, value, **options)
        return mse_loss(self.net(batch[0]), batch[1])

    return line(training_step=training_step)


def sgd(module):
    return descend.SGD(module.parameters(), lr=0.1)


def plateau(monitor):
    def configure(self):
        optimizer = sgd(self)
        scheduler = descend.lr_scheduler.ReduceLROnPlateau(optimizer)
        if monitor is None:
            return [optimizer], [scheduler]
        config = {"scheduler": scheduler, "monitor": monitor}
        return {"optimizer": optimizer, "lr_scheduler": config}

    return configured(configure)


def foreign(module):
    return [sgd(module)], [descend.lr_scheduler.StepLR(sgd(module), 1)]


def hook(name):
    return type("Mine", (descend.Callback,), {name: lambda *_: None})()


PLACE = "in batch 1 of 5 of epoch 1"
MODULES = {
    "no step": (NoStep, r"NoStep has no training_step\(self, batch, batch_idx\)"),
    "no optimizer": (NoOptimizer, r"NoOptimizer has no configure_optimizers\(self\)"),
    "None": (lambda: returning(lambda loss: None), f"return the loss, .* returned None {PLACE}"),
    "a text": (lambda: returning(lambda loss: "x"), f"returned a str {PLACE}"),
    "a number": (lambda: returning(torch.Tensor.item), f"returned a float {PLACE}"),
    "a vector": (lambda: returning(lambda loss: loss.expand(3)), r"returned a tensor of shape"),
    "detached": (lambda: returning(torch.Tensor.detach), f"{PLACE} has no gradient"),
    "a dict without loss": (lambda: returning(lambda loss: {"los": loss}), "a dict with 'loss'"),
    "a step without batch": (lambda: line(training_step=lambda self: None), "takes 0 arguments"),
    "a step of too many": (
        lambda: line(training_step=lambda self, a, b, c: None),
        "takes 3 arguments beside self; it is given batch, batch_idx",
    ),
    "optimizer None": (lambda: configured(lambda self: None), "must return an optimizer, .* None"),
    "no optimizers": (lambda: configured(lambda self: []), "must return an optimizer, .* a list"),
    "optimizer by name": (lambda: configured(lambda self: "adam"), "and returned a str"),
    "optimizer misspelt": (
        lambda: configured(lambda self: {"optimiser": sgd(self)}), "did you mean optimizer?",
    ),
    "schedulers misspelt": (
        lambda: configured(lambda self: {"optimizer": sgd(self), "lr_schedulers": 1}),
        "did you mean lr_scheduler?",
    ),
    "interval": (
        lambda: configured(lambda self: ([o := sgd(self)], [
            {"scheduler": descend.lr_scheduler.StepLR(o, 1), "interval": "batch"}])),
        "interval must be 'epoch' or 'step'",
    ),
    "an entry": (
        lambda: configured(lambda self: ([o := sgd(self)], [
            {"scheduler": descend.lr_scheduler.StepLR(o, 1), "intervall": "step"}])),
        "did you mean interval?",
    ),
    "no scheduler": (lambda: configured(lambda self: ([sgd(self)], [3])), "needs a scheduler with"),
    "another's scheduler": (lambda: configured(foreign), "drives another optimizer"),
    "two optimizers": (
        lambda: configured(lambda self: [sgd(self), sgd(self)]), "automatic_optimization = False",
    ),
    "plateau": (lambda: plateau(None), "is stepped with a metric: return"),
    "plateau's typo": (lambda: plateau("val_los"), "which was not logged; did you mean val_loss?"),
    "log a text": (lambda: logging("a", "b"), r"log\('a'\): the value must be a number .* a str"),
    "log a vector": (lambda: logging("a", torch.ones(3)), r"has shape \(3,\); log its mean"),
    "log None": (lambda: logging("a", None), "is a NoneType"),
    "log by a number": (lambda: logging(3, 1.0), "a name must be a text, got 3"),
    "log step": (lambda: logging("step", 1.0), "step stands in each line already"),
    "reduce_fx": (lambda: logging("a", 1.0, reduce_fx="median"), "one of mean, sum, min, max"),
    "a hook of Lightning": (
        lambda: line(optimizer_step=lambda self: None), "Line.optimizer_step would never be called",
    ),
    "a class": (lambda: Line, "and is a type"),
    "a network alone": (lambda: torch.nn.Linear(4, 1), "fit needs an optimizer for a Linear"),
    "nothing": (lambda: None, "and is a NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_cannot_be_trained(name, tmp_path):
    make, message = MODULES[name]
    trainer = descend.Trainer(
        folder=tmp_path / "run", max_epochs=2, log_every_n_steps=1, enable_progress_bar=False
    )
    with pytest.raises((TrainerError, RunError), match=message):
        trainer.fit(make(), loader(), loader())
    again = descend.Trainer(folder=tmp_path / "run", max_epochs=2, enable_progress_bar=False,
                            resume="plateau" not in name)  # fmt: skip
    again.fit(Line(), loader(), loader())  # nothing of it is left in the way
    assert again.global_step == 10


def test_a_loss_that_is_nan_or_infinite_ends_it_before_the_step(tmp_path):
    for value in (float("nan"), float("inf")):
        module = returning(lambda loss, value=value: loss * value)
        before = module.net.weight.clone()
        trainer = descend.Trainer(folder=tmp_path, max_epochs=1, enable_progress_bar=False)
        with pytest.raises(DivergedError, match=f"{PLACE}, with lr 0.01: training diverged"):
            trainer.fit(module, loader())
        assert torch.equal(module.net.weight, before)


LOADERS = {
    "none": (lambda: None, "nothing to train on: give fit a loader"),
    "no samples": (
        lambda: loader(0),
        "training loader cannot be used: the loader has no",
    ),
    "all dropped": (lambda: loader(3, drop_last=True), "drop_last leaves no batch"),
    "an empty list": (list, "the training loader cannot be used"),
    "two": (lambda: [loader(), loader()], "fit takes one training loader"),
    "by name": (lambda: {"a": loader()}, "fit takes one training loader"),
    "a number": (lambda: 3, "must be a torch.utils.data.DataLoader or another iterable"),
    "a dataset": (lambda: TensorDataset(X, Y), "is a TensorDataset"),
    "a generator": (lambda: ((X, Y) for _ in range(3)), "gave no batches in epoch 2"),
    "a data module without": (descend.DataModule, "nothing to train on"),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_that_cannot_be_used(name):
    make, message = LOADERS[name]
    with pytest.raises(DescendError, match=message):
        descend.Trainer(max_epochs=2, enable_progress_bar=False).fit(Line(), make())


def test_a_stream_that_could_not_go_on_is_refused_in_a_folder_unless_it_need_not(tmp_path, capsys):
    batches = torch.utils.data.DataLoader(Forgetful(), batch_size=8)
    with pytest.raises(TrainerError, match="can only be read from its start, so that a run in"):
        descend.Trainer(folder=tmp_path, max_epochs=1).fit(Line(), batches)
    assert not [*tmp_path.iterdir()]
    trainer = descend.Trainer(folder=tmp_path, max_epochs=1, resume=False)
    for _ in range(2):  # it starts over
        trainer.fit(Line(), batches)
        assert trainer.global_step == 5
        assert "if this run stops, it starts over" in capsys.readouterr().out
    descend.Trainer(max_epochs=1).fit(Line(), batches)  # without a folder nothing is lost


def test_a_loader_of_the_validation_without_batches_is_named():
    with pytest.raises(RunError, match="a loader of the validation cannot be used"):
        descend.Trainer(max_epochs=2).fit(Line(), loader(), loader(0))


ARGUMENTS = {
    "max_epochs": "3", "max_steps": 1.5, "max_time": "1h", "seed": -1, "precision": "8",
    "accumulate_grad_batches": {1: 2}, "gradient_clip_val": -1, "gradient_clip_algorithm": "l2",
    "limit_train_batches": -1, "val_check_interval": 0, "check_val_every_n_epoch": 0,
    "overfit_batches": -1, "accelerator": "tpu", "devices": 2, "folder": 3, "keep": 0, "best": 3,
    "deterministic": "warn", "log_every_n_steps": -1, "num_sanity_val_steps": 1.5,
    "fast_dev_run": -1, "callbacks": "x", "logger": "tensorboard", "every_steps": 0, "resume": 1,
    "every_minutes": 0, "every_epochs": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_that_is_not_allowed_is_named_with_what_is(name):
    with pytest.raises(TrainerError, match=r"must|has not") as caught:
        descend.Trainer(**{name: ARGUMENTS[name]})
    assert name.removesuffix("s") in str(caught.value) or name == "max_time"


@pytest.mark.parametrize(("name", "message"), [
    ("max_epoch", "did you mean max_epochs?"), ("callback", "did you mean callbacks?"),
    ("strategy", "several are not there yet"), ("default_root_dir", "use folder='runs/name'"),
    ("enable_checkpointing", "without folder nothing is saved"), ("fresh", "resume=False"),
])  # fmt: skip
def test_an_argument_that_is_not_there_is_refused_with_what_to_use(name, message):
    with pytest.raises(TrainerError, match=message):
        descend.Trainer(**{name: 1})


WRONG = {
    "no length": ({"max_epochs": None}, "give max_epochs, max_steps or max_time"),
    "interval": ({"val_check_interval": 1.5}, "more than an epoch"),
    "batches": ({"val_check_interval": 99}, "more than the 5 batches of an epoch"),
    "a part of less": ({"limit_train_batches": 0.01}, "leaves none of the 5 batches"),
    "none": ({"limit_train_batches": 0}, "leaves nothing to train on"),
    "a hook's typo": (
        {"callbacks": hook("on_train_epoch_ended")}, "did you mean on_train_epoch_end?",
    ),
    "early stopping": (
        {"callbacks": descend.EarlyStopping("val_los")}, "did you mean val_loss?",
    ),
    "best": ({"best": "val_los"}, "best='val_los' was not logged; did you mean val_loss?"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_only_shows_in_a_training(name, tmp_path):
    options, message = WRONG[name]
    options = {"max_epochs": 2, "folder": tmp_path, "enable_progress_bar": False, **options}
    with pytest.raises(TrainerError, match=message):
        descend.Trainer(**options).fit(Line(), loader(), loader())


def test_measuring_needs_a_module_data_and_a_step(tmp_path):
    trainer = descend.Trainer(enable_progress_bar=False)
    with pytest.raises(TrainerError, match="validate needs a module"):
        trainer.validate()
    with pytest.raises(TrainerError, match="validate has no data"):
        trainer.validate(Line())
    with pytest.raises(TrainerError, match="Line has no test_step"):
        trainer.test(Line(), loader())
    with pytest.raises(TrainerError, match="there is no run"):
        trainer.validate(Line(), loader(), ckpt_path="best")
    with pytest.raises(DescendError, match="does not exist"):
        trainer.validate(Line(), loader(), ckpt_path=tmp_path / "nope")
    with pytest.raises(TrainerError, match="the run in `folder` goes on by itself"):
        trainer.fit(Line(), loader(), ckpt_path="epoch=3.ckpt")


def test_a_lightning_module_is_told_how_to_move():
    lightning = pytest.importorskip("lightning")
    with pytest.raises(TrainerError, match="change its base class to descend"):
        descend.Trainer(max_epochs=1).fit(lightning.LightningModule(), loader())
