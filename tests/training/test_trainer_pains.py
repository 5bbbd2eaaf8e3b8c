"""The pains of 2026's trainers that a Trainer does not have."""

import csv
import json
import math
import os
import random
import signal

import pytest
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

import descend
from checkpoint.bits import assert_same
from descend.errors import ResumeWarning, RunError, TrainerWarning


class Augmented(Dataset):
    """Samples that are moved a little each time, by three kinds of generators."""

    def __init__(self, count=22):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(count, 4, generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        moved = self.x[index] + 0.1 * torch.randn(4) + 0.1 * random.random()
        return moved, self.x[index].sum(0, keepdim=True)


class Net(descend.Module):
    """A network that remembers its batches."""

    def __init__(self, schedule=None, optimizer=descend.AdamW, **options):
        super().__init__()
        torch.manual_seed(0)
        layers = torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)
        self.net = torch.nn.Sequential(*layers)
        self.schedule, self.make, self.options = schedule, optimizer, options
        self.batches, self.lrs, self.losses = [], [], []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.batches.append(x)
        loss = mse_loss(self.net(x).float(), y)
        self.losses.append(loss.detach())
        self.log("loss", loss)
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.lrs.append(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = self.make(self.parameters(), **{"lr": 0.03, **self.options})
        if self.schedule is None:
            return optimizer
        schedule = {"scheduler": self.schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class Interrupt(descend.Callback):
    """Ctrl-C in a batch."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def loader(**options):
    return DataLoader(Augmented(), batch_size=4, shuffle=True, **options)


def trainer(folder, **options):
    options = {"max_epochs": 3, "log_every_n_steps": 1, "enable_progress_bar": False, **options}
    return descend.Trainer(folder=folder, **options)


def interrupted_and_resumed(folder, make=Net, step=8, again=None, **options):
    """Train until Ctrl-C in the middle of the second epoch; then in a new trainer to the end."""
    first, second = make(), (again or make)()
    stops = trainer(folder, callbacks=[Interrupt(step)], **options)
    with pytest.raises(KeyboardInterrupt):
        stops.fit(first, loader())
    goes_on = trainer(folder, callbacks=[Interrupt(-1)], **options)
    goes_on.fit(second, loader())
    return first, second, goes_on


@pytest.mark.parametrize("workers", [0, 2])
def test_p62_the_batches_after_a_resume_are_augmented_as_without_it(tmp_path, workers):
    whole, first, second = Net(), Net(), Net()
    make = lambda: loader(num_workers=workers)  # noqa: E731
    trainer(tmp_path / "whole").fit(whole, make())
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "run", callbacks=[Interrupt(8)]).fit(first, make())
    trainer(tmp_path / "run", callbacks=[Interrupt(-1)]).fit(second, make())
    assert (len(first.batches), len(second.batches)) == (9, 9)
    assert_same(first.batches + second.batches, whole.batches)
    assert_same(first.losses + second.losses, whole.losses)  # dropout too
    assert_same(second.state_dict(), whole.state_dict())


@pytest.mark.parametrize("accumulate", [1, 4])
def test_p64_no_step_is_taken_twice_or_left_out_after_a_resume(tmp_path, accumulate):
    options = {"accumulate_grad_batches": accumulate}
    whole = Net()
    straight = trainer(tmp_path / "whole", **options)
    straight.fit(whole, loader())
    first, second, goes_on = interrupted_and_resumed(
        tmp_path / "run", step=8 if accumulate == 1 else 3, **options
    )
    assert len(first.lrs) + len(second.lrs) == len(whole.lrs) == goes_on.global_step
    assert goes_on.global_step == straight.global_step == {1: 18, 4: 6}[accumulate]
    assert len(first.batches) + len(second.batches) == 18
    assert_same(second.state_dict(), whole.state_dict())


def test_p64_a_run_whose_steps_are_taken_takes_no_more(tmp_path):
    trainer(tmp_path, max_steps=7).fit(Net(), loader())
    again, module = trainer(tmp_path, max_steps=7), Net()
    again.fit(module, loader())
    assert (len(module.batches), again.global_step) == (0, 7)
    more, module = trainer(tmp_path, max_steps=9), Net()
    more.fit(module, loader())
    assert (len(module.batches), more.global_step) == (2, 9)


@pytest.mark.parametrize("accumulate", [1, 3, 4])
def test_p65_the_scheduler_is_stepped_once_a_step(tmp_path, accumulate):
    """As often as the optimizer, however many batches make a step."""
    curve = descend.schedules.linear(20, 1.0, 0.0)
    module = Net(lambda optimizer: descend.Scheduler(optimizer, lr=curve))
    fits = trainer(tmp_path, accumulate_grad_batches=accumulate)
    fits.fit(module, loader())
    steps = 3 * -(-6 // accumulate)
    assert fits.global_step == fits.estimated_stepping_batches == steps
    assert module.lrs == pytest.approx([0.03 * (1 - step / 20) for step in range(steps)])


def other_schedule(kind):
    """A way to train with it."""
    schedulers = descend.lr_scheduler
    return lambda: Net(
        {
            "linear": lambda o: descend.Scheduler(o, lr=descend.schedules.linear(20, 1.0, 0.0)),
            "cosine": lambda o: descend.Scheduler(o, lr=descend.schedules.cosine(30)),
            "torch's": lambda o: schedulers.CosineAnnealingLR(o, T_max=20),
            "torch's, longer": lambda o: schedulers.CosineAnnealingLR(o, T_max=30),
            "steps": lambda o: schedulers.StepLR(o, step_size=5),
        }[kind]
    )


@pytest.mark.parametrize(("old", "new"), [("linear", "cosine"), ("torch's", "torch's, longer")])
def test_p66_another_schedule_goes_on_at_the_step_of_the_run(tmp_path, old, new):
    """Not at its own beginning: the tenth step of the new curve follows the ninth of the old."""
    curves = {
        "linear": lambda step: 1 - step / 20,
        "cosine": lambda step: (1 + math.cos(math.pi * step / 30)) / 2,
        "torch's": lambda step: (1 + math.cos(math.pi * step / 20)) / 2,
        "torch's, longer": lambda step: (1 + math.cos(math.pi * step / 30)) / 2,
    }
    makes = other_schedule(old), other_schedule(new)
    with pytest.warns(ResumeWarning, match="not as it was saved: scheduler: the state has"):
        first, second, _ = interrupted_and_resumed(tmp_path, makes[0], again=makes[1])
    assert first.lrs == pytest.approx([0.03 * curves[old](step) for step in range(9)])
    assert second.lrs == pytest.approx([0.03 * curves[new](step) for step in range(9, 18)])


def test_p66_a_longer_training_goes_on_along_the_longer_curve(tmp_path):
    """As everybody writes it: the length of the curve is that of the training."""

    class Whole(Net):
        def configure_optimizers(self):
            self.schedule = lambda optimizer: descend.lr_scheduler.CosineAnnealingLR(
                optimizer, T_max=self.trainer.estimated_stepping_batches
            )
            return super().configure_optimizers()

    trainer(tmp_path, max_epochs=3).fit(Whole(), loader())
    module = Whole()
    with pytest.warns(ResumeWarning, match="T_max=18, and this scheduler T_max=24"):
        trainer(tmp_path, max_epochs=4).fit(module, loader())
    expected = [0.03 * (1 + math.cos(math.pi * step / 24)) / 2 for step in range(18, 24)]
    assert module.lrs == pytest.approx(expected)


def test_p66_a_schedule_of_another_kind_is_refused_and_nothing_is_lost(tmp_path):
    with pytest.raises(RunError, match=r"cannot go on: .*not of a StepLR"):
        interrupted_and_resumed(tmp_path, other_schedule("torch's"), again=other_schedule("steps"))
    module = other_schedule("torch's")()
    trainer(tmp_path, callbacks=[Interrupt(-1)]).fit(module, loader())
    assert len(module.lrs) == 9


class Table:
    """A logger of one's own."""

    def __init__(self, path):
        self.path = path

    def log_hyperparams(self, params):
        pass

    def log_metrics(self, metrics, step):
        with self.path.open("a") as file:
            csv.writer(file).writerow([step, metrics["epoch"], metrics["loss"]])

    def finalize(self, status):
        pass


def test_p67_logged_steps_go_on_after_a_resume(tmp_path):
    table = tmp_path / "table.csv"
    interrupted_and_resumed(tmp_path / "run", logger=Table(table))
    with table.open() as file:
        rows = [[float(cell) for cell in row] for row in csv.reader(file)]
    assert [row[0] for row in rows] == [*range(1, 19)]
    assert [row[1] for row in rows] == [0] * 6 + [1] * 6 + [2] * 6
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    own = [line for line in map(json.loads, lines) if "loss" in line]
    assert [line["step"] for line in own] == [*range(1, 19)]
    assert [line["loss"] for line in own] == [row[2] for row in rows]


def test_p68_a_module_in_evaluation_mode_warns_when_it_is_trained(tmp_path):
    module = Net()
    module.net[1].eval()
    with pytest.warns(TrainerWarning, match=r"net\.1 trains in evaluation mode"):
        trainer(tmp_path, max_epochs=1).fit(module, loader())
    assert not module.net[1].training  # it is what was asked for


def test_p68_a_validation_before_the_training_leaves_the_modes(tmp_path):
    """No warning: `validate` and the sanity check put them back."""

    class Validated(Net):
        def validation_step(self, batch, batch_idx):
            assert not self.training
            self.log("val_loss", mse_loss(self.net(batch[0]), batch[1]))

    module, fits = Validated(), trainer(tmp_path, max_epochs=1)
    fits.validate(module, loader(), verbose=False)
    fits.fit(module, loader(), loader())
    assert module.net[1].training


OPTIMIZERS = {
    "descend": (descend.SGD, {}),
    "torch": (torch.optim.SGD, {}),
    "torch, fused": (torch.optim.SGD, {"fused": True}),
    "descend, fused": (descend.SGD, {"fused": True}),
}


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_p69_gradients_are_clipped_in_every_precision_and_with_fused_steps(
    tmp_path, name, precision, algorithm
):
    """SGD moves a parameter by lr times its gradient, so that the move shows what was clipped."""
    make, options = OPTIMIZERS[name]
    most, lr = 0.01, 0.5

    class Moves(Net):
        moves = ()

        def on_train_batch_start(self, batch, batch_idx):
            self.before = [one.detach().clone() for one in self.parameters()]

        def on_train_batch_end(self, outputs, batch, batch_idx):
            moved = [a - b for a, b in zip(self.parameters(), self.before, strict=True)]
            self.moves = [*self.moves, torch.cat([one.detach().flatten() for one in moved]) / lr]

    module = Moves(optimizer=make, lr=lr, **options)
    fits = trainer(
        tmp_path,
        max_epochs=1,
        precision=precision,
        gradient_clip_val=most,
        gradient_clip_algorithm=algorithm,
    )
    fits.fit(module, loader())
    if precision == "16-mixed":  # the scale comes down until nothing overflows: no step so far
        module.moves = [moved for moved in module.moves if moved.any()]
    assert len(module.moves) > 2
    for moved in module.moves:
        size = moved.norm() if algorithm == "norm" else moved.abs().max()
        # The parameter's own rounding, some 1e-8, over lr and in a norm of 49
        assert float(size) == pytest.approx(most, rel=1e-3, abs=1e-6)
