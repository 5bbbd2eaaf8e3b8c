"""Callbacks as users write them: which hooks are called, in which order, and what resumes."""

import inspect
import json
import time
from datetime import timedelta

import pytest
import torch
from torch.utils.data import DataLoader

import descend
from checkpoint.bits import assert_same
from descend.checkpoint import load
from descend.errors import TrainerError
from descend.training.trainer_hooks import HOOKS
from training.small_trainings import Interrupt, Moved, Net, loader, resumed, trained, validation


class PrintCallback(descend.Callback):
    def on_train_start(self, trainer, pl_module):
        print("Training is started!")

    def on_train_end(self, trainer, pl_module):
        print("Training is done.")


class CountSteps(descend.Callback):
    """A callback with a state."""

    def __init__(self):
        self.counts = {"epochs": 0, "batches": 0}
        self.mean = torch.zeros(4)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.counts["batches"] += 1
        self.mean += batch[0].mean(0)
        assert outputs["loss"].ndim == 0

    def on_train_epoch_end(self, trainer, pl_module):
        self.counts["epochs"] += 1

    def state_dict(self):
        return {**self.counts, "mean": self.mean}

    def load_state_dict(self, state_dict):
        self.mean = state_dict["mean"]
        self.counts = {name: state_dict[name] for name in self.counts}


def test_h4_callbacks_as_lightnings_users_write_them(tmp_path, capsys):
    count = CountSteps()
    callbacks = [
        PrintCallback(),
        descend.EarlyStopping(monitor="val_loss", min_delta=0.00, patience=3, verbose=False),
        count,
    ]
    trainer = descend.Trainer(max_epochs=2, callbacks=callbacks, folder=tmp_path)
    trainer.fit(Net(), train_dataloaders=loader(), val_dataloaders=validation())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sanity check: 2 batches of validation"
    assert lines[1] == "Training is started!"
    assert [line.split("  ")[0] for line in lines[2:4]] == ["epoch 1/2", "epoch 2/2"]
    assert "val_loss" in lines[2]
    assert lines[4:] == ["Training is done."]
    assert count.counts == {"epochs": 2, "batches": 12}


def test_h4_a_module_with_hyperparameters_and_a_data_module(tmp_path):
    class LitNet(Net):
        def __init__(self, lr: float = 0.01, dropout: float = 0.2):
            super().__init__()
            self.save_hyperparameters()

        def configure_optimizers(self):
            return descend.AdamW(self.parameters(), lr=self.hparams.lr)

    class Data(descend.DataModule):
        def __init__(self, batch_size: int = 32):
            super().__init__()
            self.save_hyperparameters()

        def setup(self, stage):
            self.stage = stage

        def train_dataloader(self):
            return DataLoader(Moved(), batch_size=self.hparams.batch_size, shuffle=True)

        def val_dataloader(self):
            return validation()

        test_dataloader = val_dataloader

    model, data = LitNet(lr=0.02), Data(batch_size=8)
    callbacks = [PrintCallback(), CountSteps(), descend.EarlyStopping("val_loss", patience=9)]
    trainer = descend.Trainer(folder=tmp_path, max_epochs=2, callbacks=callbacks)
    trainer.fit(model, datamodule=data)
    assert callbacks[1].counts == {"epochs": 2, "batches": 6}
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.02
    assert json.loads((tmp_path / "hparams.json").read_text()) == {
        "batch_size": 8, "lr": 0.02, "dropout": 0.2
    }  # fmt: skip
    assert trainer.test(model, datamodule=data)[0]["test_loss"] > 0
    assert data.stage == "test"
    again = LitNet.load_from_checkpoint(tmp_path)
    assert again.hparams == model.hparams
    assert_same(again.state_dict(), model.state_dict())


def test_h4_a_callback_may_stand_alone_and_a_module_brings_its_own(capsys):
    class WithOwn(Net):
        def configure_callbacks(self):
            return [PrintCallback()]

    trained(None, net=WithOwn())
    descend.Trainer(max_epochs=1, callbacks=PrintCallback()).fit(Net(), loader())
    assert capsys.readouterr().out.count("Training is started!") == 2


class Recorder(descend.Callback):
    """The hooks that are called."""

    def __init__(self):
        self.called = []


def _recording(name):
    parameters = [*inspect.signature(getattr(descend.Callback, name)).parameters][1:]

    def hook(self, *arguments):
        assert len(arguments) == len(parameters)
        self.called.append(name)

    return hook


for _name in HOOKS:
    setattr(Recorder, _name, _recording(_name))


def test_every_hook_of_the_base_class_is_one_that_is_called_and_no_other():
    own = {name for name in vars(descend.Callback) if name.startswith("on_")}
    assert {*own, "setup", "teardown"} == HOOKS
    recorder = Recorder()
    trainer, net = trained(None, recorder)
    trainer.test(net, validation())
    trainer.predict(net, validation())
    assert HOOKS - {*recorder.called} == {"on_exception"}


def test_the_hooks_come_in_their_order():
    recorder = Recorder()
    trained(None, recorder, max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    a_validation = [
        "on_validation_start", "on_validation_epoch_start", "on_validation_batch_start",
        "on_validation_batch_end", "on_validation_epoch_end", "on_validation_end",
    ]  # fmt: skip
    assert recorder.called == [
        "setup", "on_fit_start",
        "on_sanity_check_start", *a_validation, "on_sanity_check_end",
        "on_train_start", "on_train_epoch_start", "on_train_batch_start",
        "on_before_zero_grad", "on_before_backward", "on_after_backward",
        "on_before_optimizer_step", "on_train_batch_end",
        *a_validation,
        "on_train_epoch_end", "on_train_end", "on_fit_end", "teardown",
    ]  # fmt: skip


def test_a_hook_that_is_not_overridden_is_never_called(monkeypatch):
    def never(self, *arguments, **named):
        raise AssertionError("called")

    for name in HOOKS - {"on_train_start"}:
        monkeypatch.setattr(descend.Callback, name, never)
    started = []

    class One(descend.Callback):
        def on_train_start(self, trainer, module):
            started.append(module)

    trainer, net = trained(None, One())
    trainer.test(net, validation())
    assert started == [net]


def test_a_callback_that_raises_ends_the_training_and_all_hear_of_it(tmp_path):
    class Fails(descend.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 8:
                raise ValueError("mine")

    recorder = Recorder()
    with pytest.raises(ValueError, match="mine"):
        trained(tmp_path, Fails(), recorder)
    assert recorder.called.count("on_exception") == 1
    trainer, _ = trained(tmp_path)  # the folder is whole
    assert trainer.global_step == 18


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("on_train_bacth_end", "did you mean on_train_batch_end"),
        ("on_save_checkpoint", "use state_dict"),
        ("training_epoch_end", "use on_train_epoch_end"),
    ],
)
def test_a_hook_that_would_never_be_called_is_refused(name, message):
    callback = type("Mine", (descend.Callback,), {name: lambda self, *arguments: None})()
    with pytest.raises(TrainerError, match=message):
        trained(None, callback)


def all_of_them():
    return [
        descend.EarlyStopping("val_loss", patience=2, min_delta=0.001),
        descend.EarlyStopping("train_loss", patience=50),
        descend.EMA(0.9),
        descend.Timer({"hours": 1}),
        CountSteps(),
    ]


@pytest.mark.parametrize("batch", [1, 3, 8, 12, 16])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 3, "val_check_interval": 0.5}])
def test_p63_all_callbacks_resume_in_the_middle_of_an_epoch(tmp_path, batch, options):
    whole = all_of_them()
    _, net = trained(tmp_path / "whole", *whole, **options)
    trainer, second, callbacks = resumed(tmp_path / "run", all_of_them, batch, **options)
    assert trainer.global_step == (18 if not options else 6)
    assert_same(second.state_dict(), net.state_dict())
    for one, expected in zip(callbacks, whole, strict=True):
        if not isinstance(one, descend.Timer):
            assert_same(one.state_dict(), expected.state_dict())
    states = [load(tmp_path / name)["trainer"]["callbacks"] for name in ("whole", "run")]
    assert list(states[0]) == [
        "EarlyStopping val_loss min", "EarlyStopping train_loss min", "EMA", "Timer", "CountSteps",
    ]  # fmt: skip
    for state in states:
        assert state.pop("Timer")["seconds"]["train"] > 0
    assert_same(states[1], states[0])
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "run")]
    assert [*map(json.loads, logs[0].splitlines())] == [*map(json.loads, logs[1].splitlines())]


def test_two_of_one_class_need_each_a_name_of_their_own(tmp_path):
    with pytest.raises(TrainerError, match="state_key 'CountSteps'"):
        trained(tmp_path, CountSteps(), CountSteps())


def test_what_is_no_callback_is_refused():
    with pytest.raises(TrainerError, match=r"descend\.Callback, got a object"):
        descend.Trainer(max_epochs=1, callbacks=[object()])


# Timer


def test_a_timer_measures_each_stage():
    class Slow(descend.Callback):
        def on_train_batch_end(self, *arguments):
            time.sleep(0.002)

        def on_test_batch_end(self, *arguments):
            time.sleep(0.002)

    timer = descend.Timer()
    trainer, net = trained(None, timer, Slow())
    assert timer.time_elapsed("train") > timer.time_elapsed("validate") > 0
    assert timer.time_elapsed() == timer.time_elapsed("train") > 0.03  # it stands still
    assert (timer.time_elapsed("test"), timer.time_remaining()) == (0, None)
    trainer.test(net, validation())
    assert timer.time_elapsed("test") > 0.005
    trainer.predict(net, validation())
    assert timer.time_elapsed("predict") > 0


@pytest.mark.parametrize(("interval", "steps"), [("step", {1}), ("epoch", {6})])
def test_a_timer_stops_the_training_when_its_time_is_over(interval, steps, capsys):
    trainer, _ = trained(None, _LateTimer(timedelta(microseconds=1), interval), max_epochs=9)
    assert {trainer.global_step} == steps


class _LateTimer(descend.Timer):
    """One whose time is not over before the first batch."""

    def on_train_start(self, trainer, module):
        before, self._most = self._most, float("inf")
        super().on_train_start(trainer, module)
        self._most = before


def test_a_timer_goes_on_where_the_run_goes_on(tmp_path, capsys):
    first, second = descend.Timer({"hours": 1}), descend.Timer({"hours": 1})
    first.load_state_dict({"seconds": {"train": 100.0}})  # as if it had taken so long
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, first, Interrupt(8))
    saved = load(tmp_path)["trainer"]["callbacks"]["Timer"]["seconds"]["train"]
    assert 100 < saved <= first.time_elapsed()
    trained(tmp_path, second, Interrupt(-1))
    assert second.time_elapsed() > saved
    assert second.time_remaining() == 3600 - second.time_elapsed()


def test_a_timer_stands_beside_the_trainers_own_max_time(tmp_path):
    timer = descend.Timer()
    trainer, _ = trained(tmp_path, timer, max_time={"hours": 1}, max_epochs=2)
    assert trainer.current_epoch == 2
    assert timer.time_elapsed() > 0
    states = load(tmp_path)["trainer"]["callbacks"]
    assert {"Timer", "MaxTime"} <= states.keys()


def test_a_run_whose_time_is_over_goes_on_with_more_time_as_if_it_had_had_it(tmp_path, capsys):
    class Slow(descend.Callback):
        def on_train_batch_end(self, trainer, *rest):
            time.sleep(0.05 * (trainer.global_step == 8))

    _, whole = trained(tmp_path / "whole", Slow())
    options = {"max_time": {"milliseconds": 50}, "enable_progress_bar": True}
    first, _ = trained(tmp_path / "run", Slow(), **options)
    assert 0 < first.global_step <= 8
    assert "the time is over" in capsys.readouterr().out
    again, _ = trained(tmp_path / "run", Slow(), **options)
    assert again.global_step == first.global_step
    assert "it stopped, max_time; more max_time goes on" in capsys.readouterr().out
    options["max_time"] = {"hours": 1}
    last, net = trained(tmp_path / "run", Slow(), **options)
    assert last.global_step == 18
    assert_same(net.state_dict(), whole.state_dict())


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("01:02:03:04", 93784),
        (timedelta(minutes=3), 180),
        ({"hours": 2, "minutes": 1}, 7260),
    ],
)
def test_a_duration_is_written_as_in_lightning(duration, seconds):
    assert descend.Timer(duration).time_remaining() == seconds


@pytest.mark.parametrize("duration", ["1 hour", "1:2:3", 60, {"hour": 1}, timedelta(-1), True])
def test_what_is_no_duration_is_refused(duration):
    with pytest.raises(TrainerError, match='Timer: duration must be "DD:HH:MM:SS"'):
        descend.Timer(duration)
    with pytest.raises(TrainerError, match='must be "DD:HH:MM:SS"'):
        descend.Trainer(max_epochs=1, max_time=duration)


def test_a_stage_or_an_interval_that_there_is_not_is_refused():
    with pytest.raises(TrainerError, match="interval must be 'step' or 'epoch', got 'batch'"):
        descend.Timer(interval="batch")
    with pytest.raises(TrainerError, match="did you mean 'train'"):
        descend.Timer().time_elapsed("training")
