"""A trainer with a schedule-free optimizer: averages where a model is measured, saved or kept."""

import os
import signal

import pytest
import torch
from torch.nn.functional import mse_loss

import descend
from checkpoint.bits import assert_same
from descend.checkpoint import load, restore
from descend.checkpoint.series import FOLDER, checkpoints
from training.small_trainings import BATCHES, Interrupt, Net, loader, resumed, trained, validation


class Free(Net):
    """The network, with another optimizer; the optimizer may be kept for a second fit."""

    def __init__(self, cls=descend.ScheduleFreeAdamW, **options):
        super().__init__()
        self.options = {"lr": 0.03, **options}
        self.optimizer = cls(self.parameters(), **self.options)

    def configure_optimizers(self):
        return self.optimizer


def _points(module):
    return [one.detach().clone() for one in module.parameters()]


class Seen(descend.Callback):
    """The points that the parts of a training see, and what an average by hand would be."""

    def __init__(self):
        self.points, self.at_end = [], None

    def on_validation_batch_end(self, trainer, module, *rest):
        if trainer.sanity_checking:
            return
        optimizer = trainer.optimizers[0]
        assert not optimizer.param_groups[0]["train_mode"]
        self.points.append(_points(module))

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        assert trainer.optimizers[0].param_groups[0]["train_mode"]

    def on_train_end(self, trainer, module):
        self.at_end = _points(module)


def _averages(net):
    """The averages of a module in evaluation mode, from its y and z."""
    return [
        torch.lerp(state["y"], state["z"], 1 - 1 / float(state["x_share"]))
        for state in map(net.optimizer.state.get, net.parameters())
    ]


def _same(net, other):
    assert_same(net.state_dict(), other.state_dict())
    assert_same(net.optimizer.state_dict(), other.optimizer.state_dict())


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.5}, {"max_steps": 2 * BATCHES}])
def test_a_training_is_measured_at_its_averages_and_ends_there(options):
    seen = Seen()
    trainer, net = trained(None, seen, net=Free(), **options)
    assert not net.optimizer.param_groups[0]["train_mode"]
    assert_same(_averages(net), _points(net))
    assert_same(seen.at_end, _points(net))
    assert_same(seen.points[-1], _points(net))
    trainer.test(net, validation())
    trainer.predict(net, validation())
    assert_same(seen.points[-1], _points(net))


def test_a_validation_changes_no_bit_of_the_training():
    """The data draws random numbers, in a validation too, but not from those of the training."""
    _, net = trained(None, net=Free())
    _, other = trained(None, net=Free(), limit_val_batches=0)
    assert_same(_points(net), _points(other))
    assert_same(net.optimizer.state_dict(), other.optimizer.state_dict())


@pytest.mark.parametrize("kind", [descend.ScheduleFreeAdamW, descend.ScheduleFreeSGD])
@pytest.mark.parametrize("batch", [2, BATCHES, BATCHES + 3])
def test_a_training_that_was_stopped_goes_on_to_the_bit(tmp_path, kind, batch):
    _, whole = trained(tmp_path / "whole", net=Free(kind), every_steps=None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "twice", Interrupt(batch), net=Free(kind), every_steps=2)
    _, twice = trained(tmp_path / "twice", Interrupt(-1), net=Free(kind), every_steps=2)
    _same(whole, twice)


class InValidation(descend.Callback):
    """Ctrl-C in the validation after a batch."""

    def __init__(self, batch):
        self.batch = batch

    def on_validation_batch_start(self, trainer, module, *rest):
        if trainer.run is not None and trainer.run.step == self.batch:
            self.batch = -1
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("averaging", [False, True])
def test_stopped_in_a_validation_it_goes_on_to_the_bit(tmp_path, averaging):
    """Beside an `EMA` too, which puts other weights into the module in a validation."""

    def callbacks():
        return [descend.EMA(0.9)] * averaging

    _, whole = trained(tmp_path / "whole", *callbacks(), net=Free())
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "twice", *callbacks(), InValidation(BATCHES), net=Free())
    _, twice = trained(tmp_path / "twice", *callbacks(), InValidation(-1), net=Free())
    _same(whole, twice)


def test_checkpoints_hold_the_averages_and_say_so(tmp_path):
    """Whoever restores the model alone has what the validation measured."""
    seen = Seen()
    trainer, net = trained(
        tmp_path, seen, net=Free(), best=descend.checkpoint.Best("val_loss"), keep=9
    )
    saved = checkpoints(tmp_path / FOLDER)
    for path, points in zip(saved[1:], seen.points[2::3], strict=True):  # three batches each
        state = load(path)
        assert state["optimizer"]["param_groups"][0]["train_mode"] is False
        other = Free()
        restore(path, model=other)
        assert_same(_points(other), points)
    assert_same(load(saved[-1])["model"], net.state_dict())
    before = trainer.callback_metrics["val_loss"]
    (values,) = trainer.validate(net, validation(), ckpt_path="last")
    assert values["val_loss"] == before


def test_a_second_fit_goes_on_in_training_mode():
    """From the very bits where the first one was, as if there had been one."""
    _, once = trained(None, net=Free(), max_epochs=1)
    y = [once.optimizer.state[one]["y"].clone() for one in once.parameters()]
    seen = []

    class First(descend.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            seen.append(_points(module))

    trained(None, First(), net=once, max_epochs=1)
    assert_same(seen[0], y)
    assert not once.optimizer.param_groups[0]["train_mode"]


def test_after_an_error_the_model_holds_its_averages():
    class Fails(descend.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if trainer.run.step == 4:
                raise RuntimeError("on purpose")

    net = Free()
    with pytest.raises(RuntimeError, match="on purpose"):
        trained(None, Fails(), net=net)
    assert not net.optimizer.param_groups[0]["train_mode"]
    assert_same(_averages(net), _points(net))


def test_the_authors_optimizers_are_put_in_the_right_mode_too():
    authors = pytest.importorskip("schedulefree")
    _, theirs = trained(None, net=Free(authors.SGDScheduleFree))
    _, mine = trained(None, net=Free(descend.ScheduleFreeSGD))
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stop", [3, 7])
def test_a_loop_of_ones_own_saves_the_averages_and_goes_on_to_the_bit(tmp_path, stop):
    def run(folder, until=None, **options):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        optimizer = descend.ScheduleFreeSGD(model.parameters(), lr=0.1)
        run = descend.Run(
            folder, loader=loader(), epochs=2, model=model, optimizer=optimizer, **options
        )
        for x, y in run:
            if run.step == until:
                os.kill(os.getpid(), signal.SIGINT)
            optimizer.zero_grad()
            mse_loss(model(x), y).backward()
            optimizer.step()
        run.close()
        return model, optimizer

    model, optimizer = run(tmp_path / "whole", keep=20)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "twice", stop, every_steps=1, keep=20)
    other, again = run(tmp_path / "twice", every_steps=1, keep=20)
    assert optimizer.param_groups[0]["train_mode"]
    assert_same(model.state_dict(), other.state_dict())
    assert_same(optimizer.state_dict(), again.state_dict())
    newest = load(checkpoints(tmp_path / "twice" / FOLDER)[-1])
    optimizer.eval()
    assert_same(newest["model"], model.state_dict())
    assert_same(newest["optimizer"], optimizer.state_dict())


def test_resumed_by_callbacks_that_are_made_anew(tmp_path):
    trainer, net, _ = resumed(tmp_path, lambda: (Seen(),), BATCHES + 1, net=Free())
    assert trainer.global_step == 3 * BATCHES
    assert not net.optimizer.param_groups[0]["train_mode"]
