"""EarlyStopping: in a loop of one's own, in a trainer, over a resume."""

import itertools
import math
import struct

import pytest
import torch

import descend
from descend.errors import TrainerError
from training.small_trainings import Interrupt, Net, loader, resumed, trained, validation

INF = math.inf


class Scripted(Net):
    """A network whose validation loss is written beforehand, one value for each epoch."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def validation_step(self, batch, batch_idx):
        loss = self.losses[min(self.current_epoch, len(self.losses) - 1)]
        self.log("val_loss", loss, prog_bar=True)


@pytest.mark.parametrize(
    ("options", "values", "stops", "best", "reason"),
    [
        ({"patience": 2}, [3, 2, 2, 2], 4, 2, "val did not improve on 2 in the last 2 checks"),
        ({"patience": 2}, [3, 2, 2.5, 1, 1, 1], 6, 1, "did not improve on 1 in the last 2"),
        ({"patience": 0}, [3, 2, 2], 3, 2, "in the last 1 check"),
        ({"patience": 1}, [3, 2, 2], 3, 2, "in the last 1 check"),
        ({"patience": 1, "mode": "max"}, [1, 2, 1.5], 3, 2, "did not improve on 2"),
        # strictly better by min_delta: 2.5 is no improvement on 3, 2.49 is
        ({"patience": 1, "min_delta": 0.5}, [3, 2.5], 2, 3, "improve on 3 by more than 0.5 in"),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.49, 2], 3, 2.49, "improve on 2.49 by more"),
        ({"patience": 1, "min_delta": 0.5, "mode": "max"}, [3, 3.5], 2, 3, "on 3 by more"),
        ({}, [3, math.nan], 2, 3, "val is nan, which is no finite number; the best was 3"),
        ({}, [INF], 1, INF, "val is inf, which is no finite number"),
        ({}, [-INF], 1, INF, "val is -inf"),
        ({"check_finite": False, "patience": 2}, [3, math.nan, math.nan], 3, 3, "improve on 3"),
        ({"stopping_threshold": 1}, [3, 1, 0.5], 3, 0.5,
         "val is 0.5, better than the stopping_threshold of 1"),
        ({"stopping_threshold": 0.9, "mode": "max"}, [0.5, 0.95], 2, 0.95, "than the stopping_thr"),
        ({"divergence_threshold": 5}, [3, 5, 6], 3, 3,
         "val is 6, worse than the divergence_threshold of 5"),
        ({"divergence_threshold": 0.1, "mode": "max"}, [0.5, 0.05], 2, 0.5, "than the divergence"),
    ],
)  # fmt: skip
def test_it_stops_at_the_value_that_says_so(options, values, stops, best, reason):
    stopping = descend.EarlyStopping("val", **options)
    answers = [stopping.step(value) for value in values]
    assert answers == [False] * (stops - 1) + [True]
    assert stopping.best == best
    assert reason in stopping.reason


@pytest.mark.parametrize("mode", ["min", "max"])
def test_it_stops_where_lightnings_does(mode):
    theirs = pytest.importorskip("lightning.pytorch.callbacks").EarlyStopping
    generator = torch.Generator().manual_seed(3)
    for patience, delta in itertools.product((0, 1, 3), (0.0, 0.25)):
        options = {"patience": patience, "min_delta": delta, "mode": mode}
        ours = descend.EarlyStopping("val", **options)
        other = theirs("val", **options)
        for value in torch.randint(0, 16, (40,), generator=generator) / 8:
            stop, _ = other._evaluate_stopping_criteria(value)
            assert ours.step(value) == stop
            assert (ours.best, ours.wait) == (other.best_score, other.wait_count)
            if stop:
                break


def test_the_arguments_are_lightnings_in_their_order():
    import inspect

    theirs = pytest.importorskip("lightning.pytorch.callbacks").EarlyStopping
    expected = inspect.signature(theirs).parameters
    for name, one in inspect.signature(descend.EarlyStopping).parameters.items():
        assert one.default == expected[name].default
    assert [*inspect.signature(descend.EarlyStopping).parameters] == [*expected][:-1]  # ranks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "mni"}, "mode must be 'min' or 'max', got 'mni'; did you mean 'min'"),
        ({"patience": -1}, "patience must be a whole number of at least 0, got -1"),
        ({"patience": 2.5}, "patience must be a whole number"),
        ({"min_delta": "small"}, "min_delta must be a finite number of at least 0, got 'small'"),
        ({"min_delta": -0.1}, "min_delta must be a finite number of at least 0, got -0.1"),
        ({"check_finite": 1}, "check_finite must be True or False"),
        ({"stopping_threshold": math.nan}, "stopping_threshold must be a finite number"),
        ({"monitor": None}, "monitor must be the name of a logged value"),
    ],
)
def test_an_argument_that_is_not_allowed_is_refused(arguments, message):
    with pytest.raises(TrainerError, match="EarlyStopping") as error:
        descend.EarlyStopping(**{"monitor": "val_loss", **arguments})
    assert message in str(error.value)


def test_a_misspelt_argument_is_refused_with_the_one_that_is_meant():
    with pytest.raises(descend.errors.ArgumentError, match="did you mean patience"):
        descend.EarlyStopping("val_loss", patince=3)


@pytest.mark.parametrize("value", [None, "0.5", True, torch.ones(2), [0.5], 1j])
def test_a_value_that_is_no_number_is_an_error_and_changes_nothing(value):
    stopping = descend.EarlyStopping("val_loss")
    stopping.step(0.5)
    before = stopping.state_dict()
    with pytest.raises(TrainerError, match="val_loss must be a number or a tensor of one element"):
        stopping.step(value)
    assert stopping.state_dict() == before


def test_tensors_and_numbers_of_any_kind_are_values():
    stopping = descend.EarlyStopping("val_loss")
    for value in (
        3,
        2.5,
        torch.tensor(2.25),
        torch.tensor([2.0]),
        torch.tensor(1, dtype=torch.int8),
    ):
        assert not stopping.step(value)
    assert type(stopping.best) is float
    assert stopping.best == 1.0


def test_p63_in_a_loop_of_ones_own_it_goes_on_where_it_was(tmp_path):
    losses = [0.9, 0.1 + 0.2, 0.5, 0.5, 0.5]
    ended = []
    for epochs in (2, 5):
        model, stopping = torch.nn.Linear(4, 1), descend.EarlyStopping("val_loss")
        run = descend.Run(tmp_path, model=model, stopping=stopping, loader=loader(), epochs=epochs)
        for batches in run.epochs():
            for _ in batches:
                pass
            if stopping.step(losses[run.epoch - 1]):
                ended.append(run.epoch)
                run.stop()
    assert ended == [5]
    assert struct.pack("d", stopping.best) == struct.pack("d", 0.1 + 0.2)
    assert stopping.reason == "val_loss did not improve on 0.3 in the last 3 checks"
    # and one that finds the run over knows why it is
    again = descend.EarlyStopping("val_loss")
    run = descend.Run(tmp_path, model=model, stopping=again, loader=loader(), epochs=5)
    assert run.is_over
    assert again.state_dict() == stopping.state_dict()


@pytest.mark.parametrize("batch", [1, 8, 17, 18, 23])
def test_p63_a_trainer_goes_on_with_the_best_value_and_stops_where_it_would_have(tmp_path, batch):
    losses = [0.5, 0.1 + 0.2, 0.4, 0.35, 0.31, 0.1]
    make = lambda: [descend.EarlyStopping("val_loss", patience=3)]  # noqa: E731
    options = {"max_epochs": 6}
    whole = make()
    straight, _ = trained(tmp_path / "whole", *whole, net=Scripted(losses), **options)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", *make(), Interrupt(batch), net=Scripted(losses), **options)
    second = make()
    goes_on, _ = trained(tmp_path / "run", *second, Interrupt(-1), net=Scripted(losses), **options)
    assert (straight.current_epoch, straight.global_step) == (5, 30)
    assert (goes_on.current_epoch, goes_on.global_step) == (5, 30)
    assert second[0].state_dict() == whole[0].state_dict()
    assert whole[0].state_dict() == {
        "best": 0.1 + 0.2,
        "wait": 3,
        "reason": "val_loss did not improve on 0.3 in the last 3 checks",
        "stopped_epoch": 4,
    }


def test_p63_a_monitor_that_was_never_logged_is_an_error_that_lists_what_was(tmp_path):
    with pytest.raises(TrainerError) as error:
        trained(tmp_path, descend.EarlyStopping("val_los"))
    assert str(error.value) == (
        "EarlyStopping: 'val_los' was not logged; did you mean val_loss? logged: train_loss, "
        "train_loss_step, val_loss, train_loss_epoch"
    )
    passed_over = descend.EarlyStopping("val_los", strict=False)
    trainer, _ = trained(None, passed_over)
    assert trainer.current_epoch == 3
    assert passed_over.wait == 0


def test_it_says_why_it_stopped_and_each_improvement_if_asked(capsys):
    net = Scripted([0.5, 0.25, 0.3])
    stopping = descend.EarlyStopping("val_loss", patience=1, verbose=True)
    trained(None, stopping, net=net, max_epochs=9, enable_progress_bar=True)
    lines = capsys.readouterr().out.splitlines()
    assert "val_loss improved from inf to 0.5" in lines
    assert "val_loss improved from 0.5 to 0.25" in lines
    assert lines[-1] == "stopped in epoch 3: val_loss did not improve on 0.25 in the last 1 check"
    assert stopping.stopped_epoch == 2


def test_without_validation_it_looks_at_the_end_of_each_epoch():
    stopping = descend.EarlyStopping("train_loss", min_delta=100.0, patience=2)
    trainer = descend.Trainer(max_epochs=9, callbacks=[stopping], enable_progress_bar=False)
    trainer.fit(Net(), loader())
    assert trainer.current_epoch == 3
    halves = descend.EarlyStopping("train_loss", min_delta=100.0, patience=2)
    trainer = descend.Trainer(
        max_epochs=9, callbacks=[halves], enable_progress_bar=False, val_check_interval=0.5
    )
    trainer.fit(Net(), loader())
    assert trainer.current_epoch == 3


@pytest.mark.parametrize(
    ("options", "checks"),
    [
        ({}, 4),
        ({"val_check_interval": 0.5}, 8),
        ({"check_val_every_n_epoch": 2}, 2),
        ({"max_steps": 9}, 1),  # the second epoch is cut short: it has no validation
    ],
)
def test_patience_counts_validations_and_no_sanity_check(options, checks):
    taken = []

    class Counting(descend.EarlyStopping):
        def step(self, value):
            taken.append(value)
            return super().step(value)

    trainer, net = trained(None, Counting("val_loss", patience=99), max_epochs=4, **options)
    assert len(taken) == checks
    trainer.validate(net, validation())
    assert len(taken) == checks


def test_two_that_watch_different_values_have_each_their_state(tmp_path):
    make = lambda: [  # noqa: E731
        descend.EarlyStopping("val_loss", patience=9),
        descend.EarlyStopping("train_loss", patience=9),
    ]
    whole = make()
    trained(tmp_path / "whole", *whole)
    *_, second = resumed(tmp_path / "run", make, 8)
    assert [one.state_dict() for one in second] == [one.state_dict() for one in whole]
    assert whole[0].best != whole[1].best


def test_what_stopped_early_stays_over_and_says_so(tmp_path, capsys):
    make = lambda: [descend.EarlyStopping("val_loss", patience=1)]  # noqa: E731
    losses = Scripted([0.5, 0.25, 0.3])
    trained(tmp_path, *make(), net=losses, max_epochs=9)
    again = make()
    trained(tmp_path, *again, net=losses, max_epochs=12, enable_progress_bar=True)
    assert capsys.readouterr().out == (
        f"{tmp_path} is over after 3 epochs: it stopped, {again[0].reason}; resume=False starts "
        f"over\n"
    )
    for folder, limit in (("epochs", {"max_epochs": 1}), ("steps", {"max_steps": 4})):
        for _ in range(2):
            trained(tmp_path / folder, enable_progress_bar=True, **limit)
        (name,) = limit
        assert f"; more {name} goes on, resume=False" in capsys.readouterr().out
