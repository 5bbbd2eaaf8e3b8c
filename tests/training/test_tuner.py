"""`Tuner(trainer).lr_find`: with Lightning's arguments, and nothing changed but the lr."""

import copy
import os
import random
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

import descend
from checkpoint.bits import assert_same
from descend.checkpoint import digest
from descend.errors import TrainerError

GENERATOR = torch.Generator().manual_seed(1)
X = torch.randn(240, 4, generator=GENERATOR)
Y = (X.sum(1) > 0).long()
SHORT = {"num_training": 40, "min_lr": 1e-5}


def loader(batch_size=12):
    return DataLoader(TensorDataset(X, Y), batch_size, shuffle=True)


class Net(descend.Module):
    def __init__(self, lr=1e-3, scale=1.0):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2)
        )
        self.seen = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append((batch_idx, self.trainer.current_epoch))
        loss = cross_entropy(self.net(x) * self.hparams.scale, y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return descend.AdamW(self.parameters(), lr=self.hparams.lr)


def trainer(**options):
    return descend.Trainer(max_epochs=1, enable_progress_bar=False, **options)


def net(make=Net, **arguments):
    torch.manual_seed(0)
    return make(**arguments)


def everything(module, *others):
    return {
        "state": copy.deepcopy(module.state_dict()),
        "gradients": {name: one.grad for name, one in module.named_parameters()},
        "hooks": {name: str(one._backward_hooks) for name, one in module.named_parameters()},
        "modes": {name: one.training for name, one in module.named_modules()},
        "hparams": dict(module.hparams),
        "attributes": {k: str(v) for k, v in vars(module).items() if k != "_hparams"},
        "generators": [random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()],
        "others": [{k: str(v) for k, v in vars(one).items()} for one in others],
    }


def test_h2_what_lightnings_users_write():
    module, train = net(), trainer()
    tuner = descend.Tuner(train)
    lr_finder = tuner.lr_find(module, train_dataloaders=loader(), min_lr=1e-6, max_lr=1.0)
    assert set(lr_finder.results) == {"lr", "loss"}
    figure = lr_finder.plot(suggest=True)
    assert figure.axes
    assert module.hparams.lr == lr_finder.suggestion()
    assert 1e-3 < module.hparams.lr < 1
    train.fit(module, loader())
    assert train.optimizers[0].param_groups[0]["lr"] == module.hparams.lr


@pytest.mark.parametrize("end", ["through", "error", "Ctrl-C"])
def test_p60_nothing_changes_but_the_learning_rate(tmp_path, monkeypatch, end):
    monkeypatch.chdir(tmp_path)

    class Ends(Net):
        def training_step(self, batch, batch_idx):
            if batch_idx == 30 and end == "error":
                raise ZeroDivisionError
            if batch_idx == 30 and end == "Ctrl-C":
                os.kill(os.getpid(), signal.SIGINT)
            return super().training_step(batch, batch_idx)

    module, train = net(Ends), trainer(folder="run", callbacks=[descend.EarlyStopping("a")])
    before = everything(module, train)
    if end == "through":
        found = descend.Tuner(train).lr_find(module, loader(), **SHORT)
        before["hparams"]["lr"] = found.suggestion()
    else:
        with pytest.raises(ZeroDivisionError if end == "error" else KeyboardInterrupt):
            descend.Tuner(train).lr_find(module, loader(), **SHORT)
    assert_same(everything(module, train), before)
    assert list(tmp_path.iterdir()) == []


def test_p60_a_training_after_it_has_the_bits_of_one_without_it():
    ends = []
    for tuned in (True, False):
        module, train = net(), trainer(seed=3)
        torch.manual_seed(4)
        if tuned:
            descend.Tuner(train).lr_find(module, loader(), update_attr=False, **SHORT)
        train.fit(module, loader())
        ends.append((digest(module.state_dict()), torch.get_rng_state().tolist()))
    assert ends[0] == ends[1]


def test_it_finds_what_lr_find_finds():
    module = net()
    found = descend.Tuner(trainer()).lr_find(module, loader(), **SHORT)
    plain = descend.lr_find(
        net().net, loader(), cross_entropy, lambda p, lr: descend.AdamW(p, lr=lr), **SHORT
    )
    assert found == plain


def test_the_attribute_is_found_or_named():
    class Named(Net):
        def __init__(self):
            super().__init__()
            self.learning_rate, self.eta = 0.1, 0.2
            del self.hparams["lr"]

        def configure_optimizers(self):
            return descend.AdamW(self.parameters(), lr=self.learning_rate)

    class Eta(Named):
        def configure_optimizers(self):
            return descend.AdamW(self.parameters(), lr=self.eta)

    class Both(Net):
        def __init__(self):
            super().__init__()
            self.lr = self.hparams.lr

    module = net(Named)
    found = descend.Tuner(trainer()).lr_find(module, loader(), **SHORT)
    assert (module.learning_rate, module.eta) == (found.suggestion(), 0.2)
    module = net(Eta)
    found = descend.Tuner(trainer()).lr_find(module, loader(), attr_name="eta", **SHORT)
    assert (module.learning_rate, module.eta) == (0.1, found.suggestion())
    module = net(Both)
    found = descend.Tuner(trainer()).lr_find(module, loader(), **SHORT)
    assert module.lr == module.hparams.lr == found.suggestion()


def rates_seen(make, **options):
    """The module, the outcome, and the rates of each group in the steps of the first sweep."""
    seen = []

    class Watched(make):
        def on_train_batch_start(self, batch, batch_idx):
            seen.append([float(one["lr"]) for one in self.trainer.optimizers[0].param_groups])

    module = net(Watched)
    found = descend.Tuner(trainer(**options)).lr_find(module, loader(), **SHORT)
    return found, seen[: len(found.sweeps[0])]


class Groups(Net):
    def configure_optimizers(self):
        first, last = self.net[0].parameters(), self.net[4].parameters()
        groups = [{"params": first, "lr": self.hparams.lr / 10}, {"params": last}]
        return torch.optim.AdamW(groups, lr=self.hparams.lr)


class Cycle(Groups):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        rates = [one["lr"] for one in optimizer.param_groups]
        steps = int(self.trainer.estimated_stepping_batches)
        assert steps == 20
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class Warmed(Groups):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer, 0.01)]


@pytest.mark.parametrize("make", [Groups, Cycle, Warmed])
def test_ratios_of_groups_are_kept_whatever_schedules_them(make):
    found, seen = rates_seen(make)
    assert len(seen) > 20
    for lr, rates in zip(found.lrs, seen, strict=False):
        assert rates == pytest.approx([lr / 10, lr])


def test_without_an_attribute_the_groups_move_by_a_common_factor():
    class Fixed(Net):
        def __init__(self):
            super().__init__()
            self.hparams.clear()
            self.hparams["scale"] = 1.0

        def configure_optimizers(self):
            first, last = self.net[0].parameters(), self.net[4].parameters()
            return descend.SGD([{"params": first, "lr": 0.2}, {"params": last}], lr=0.1)

    module = net(Fixed)
    with pytest.raises(TrainerError, match="Fixed has no lr or learning_rate, neither"):
        descend.Tuner(trainer()).lr_find(module, loader())
    found = descend.Tuner(trainer()).lr_find(module, loader(), update_attr=False, **SHORT)
    assert found.suggestion() > 0


class Data(descend.DataModule):
    def __init__(self):
        super().__init__()
        self.calls = []

    def prepare_data(self):
        self.calls.append("prepare")

    def setup(self, stage):
        self.calls.append(stage)
        self.train, _ = random_split(TensorDataset(X, Y), [200, 40])

    def train_dataloader(self):
        return DataLoader(self.train, 12, shuffle=True)


def test_a_datamodule_is_copied_and_a_module_may_give_the_loader():
    data, module = Data(), net()
    state = torch.get_rng_state()
    found = descend.Tuner(trainer()).lr_find(module, datamodule=data, **SHORT)
    assert found.suggestion() > 0
    assert data.calls == []
    assert torch.equal(torch.get_rng_state(), state)
    again = descend.Tuner(trainer()).lr_find(net(), data, **SHORT)
    assert again == found

    class Own(Net):
        def train_dataloader(self):
            return loader()

    assert descend.Tuner(trainer()).lr_find(net(Own), **SHORT).suggestion() > 0
    with pytest.raises(TrainerError, match="nothing to train on"):
        descend.Tuner(trainer()).lr_find(net())


def test_the_trainers_accumulation_clipping_and_precision_are_used():
    plain = descend.Tuner(trainer()).lr_find(net(), loader(), **SHORT)
    twice = descend.Tuner(trainer(accumulate_grad_batches=2)).lr_find(net(), loader(6), **SHORT)
    assert twice.suggestion() == pytest.approx(plain.suggestion(), rel=9)
    clipped = descend.Tuner(trainer(gradient_clip_val=1e-3)).lr_find(net(), loader(), **SHORT)
    half = descend.Tuner(trainer(precision="bf16-mixed")).lr_find(net(), loader(), **SHORT)
    assert len({str(one.sweeps) for one in (plain, twice, clipped, half)}) == 4


class Manual(Net):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Two(Net):
    def configure_optimizers(self):
        return [descend.SGD(one.parameters(), lr=self.hparams.lr) for one in (self.net[0], self)]


class Level(Net):
    def training_step(self, batch, batch_idx):
        return 0 * self.net(batch[0]).sum() + 1


class Constant(Net):
    def configure_optimizers(self):
        return descend.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Manual, "Manual must have one optimizer and automatic_optimization"),
        (Two, "automatic_optimization"),
        (Level, "the loss falls at no lr"),
        (Constant, "configure_optimizers makes the same lr, 0.1, whatever"),
    ],
)
def test_bad_modules(make, words):
    module = net(make)
    with pytest.raises(TrainerError, match=words):
        descend.Tuner(trainer()).lr_find(module, loader(), **SHORT)
    assert module.hparams.lr == 1e-3


def test_bad_arguments():
    with pytest.raises(TrainerError, match=r"trainer must be a descend\.Trainer"):
        descend.Tuner(net())
    with pytest.raises(TrainerError, match=r"must be a descend\.Module, and is a Sequential"):
        descend.Tuner(trainer()).lr_find(net().net, loader())
    with pytest.raises(TrainerError, match="has no etta, neither in hparams"):
        descend.Tuner(trainer()).lr_find(net(), loader(), attr_name="etta")
    with pytest.raises(TrainerError, match="mode must be"):
        descend.Tuner(trainer()).lr_find(net(), loader(), mode="log")
