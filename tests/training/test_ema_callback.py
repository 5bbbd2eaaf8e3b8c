"""EMA as a callback: averaged weights in validation, the bits of training untouched."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import descend
from checkpoint.bits import assert_same
from descend import swa_utils
from descend.errors import HyperparameterError, StateError, TrainerError
from training.small_trainings import BATCHES, Net, loader, resumed, trained, validation


class Beside(descend.Callback):
    """An average by hand, and what each part sees of the weights."""

    def __init__(self, decay):
        self.decay = decay
        self.ema = None
        self.steps = 0
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step > self.steps:
            self.ema = self.ema or swa_utils.EMA(module, self.decay)
            self.ema.update_parameters(module)
            self.steps = trainer.global_step

    def on_validation_batch_end(self, trainer, module, *rest):
        if not trainer.sanity_checking:
            self.seen.append([one.detach().clone() for one in module.parameters()])
            expected = [one.detach().to(module.dtype) for one in self.ema.module.parameters()]
            assert_same(self.seen[-1], expected)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end


def alike(module, other):
    return all(map(torch.equal, module.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 4}, {"val_check_interval": 0.5}, {"max_steps": 10}],
)
def test_validation_sees_the_average_and_training_is_as_without_it(options):
    plain, net_without = trained(None, **options)
    ema, beside = descend.EMA(0.9), Beside(0.9)
    trainer, net = trained(None, ema, beside, **options)
    assert_same(net.state_dict(), net_without.state_dict())
    assert beside.seen
    assert_same(ema.average.state_dict(), beside.ema.module.state_dict())
    assert not alike(ema.average, net)
    assert trainer.callback_metrics["val_loss"] != plain.callback_metrics["val_loss"]
    # w0 is the weights after the first step, and each step moves it
    assert ema.state_dict()["n_averaged"] == trainer.global_step


def test_test_and_prediction_see_the_average_too_and_other_modules_do_not():
    ema = descend.EMA(0.9)
    trainer, net = trained(None, ema)
    found = trainer.test(net, validation())
    of_average = descend.Trainer(enable_progress_bar=False).test(ema.average, validation())
    assert found == of_average
    other = Net(lr=0.5)
    assert trainer.test(other, validation()) != found
    predicted = torch.cat(trainer.predict(net, validation()))
    assert torch.equal(predicted, torch.cat(trainer.predict(ema.average, validation())))
    assert not torch.equal(predicted, torch.cat(trainer.predict(other, validation())))
    assert trainer.validate(net, validation()) == trainer.validate(ema.average, validation())


def test_the_weights_come_back_as_the_same_memory_and_nothing_is_copied():
    places = []

    class Places(descend.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            places.append([one.data_ptr() for one in module.parameters()])

        def on_validation_batch_end(self, trainer, module, *rest):
            if not trainer.sanity_checking:
                within = [one.data_ptr() for one in module.parameters()]
                assert within == [one.data_ptr() for one in ema.average.parameters()]
                assert not {*within} & {*places[-1]}

    ema = descend.EMA(0.9)
    trained(None, ema, Places())
    assert all(one == places[0] for one in places)


@pytest.mark.parametrize("error", [ValueError("in the validation"), KeyboardInterrupt()])
def test_an_error_in_a_validation_leaves_the_trained_weights(error):
    class Fails(descend.Callback):
        def on_validation_batch_end(self, trainer, module, *rest):
            if trainer.current_epoch == 1:
                raise error

    expected, net = Net(), Net()
    trained(None, net=expected, limit_train_batches=BATCHES, max_epochs=2)
    ema = descend.EMA(0.9)
    with pytest.raises(type(error)):
        trained(None, ema, Fails(), net=net)
    assert_same(net.state_dict(), expected.state_dict())


def test_p75_an_average_of_16_bit_weights_moves_and_is_in_float32():
    steps = []

    class Kept(descend.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            steps.append(module.net[0].weight.detach().clone())

    ema, net = descend.EMA(0.999), Net(torch.bfloat16, lr=1e-3)
    trained(None, ema, Kept(), Beside(0.999), net=net, max_epochs=4)
    assert {one.dtype for one in net.parameters()} == {torch.bfloat16}
    assert {one.dtype for one in ema.average.parameters()} == {torch.float32}
    exact, narrow = steps[0].double(), steps[0].clone()
    for weight in steps[1:]:
        exact.lerp_(weight.double(), 0.001)
        narrow.lerp_(weight, 0.001)
    mean = ema.average.net[0].weight.detach()
    assert (mean - exact).abs().max() < 1e-6
    assert (mean != steps[0].float()).float().mean() > 0.5
    assert (narrow == steps[0]).float().mean() > 0.9  # in 16 bits it stands still


def test_buffers_are_those_of_the_module():
    ema = descend.EMA(0.9)
    _, net = trained(None, ema)
    assert_same(dict(ema.average.named_buffers()), dict(net.named_buffers()))


@pytest.mark.parametrize("batch", [1, 2, 6, 8, 12, 17])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 4}])
def test_it_resumes_to_the_bit(tmp_path, batch, options):
    whole = descend.EMA(0.9, warmup=True)
    trainer, net = trained(tmp_path / "whole", whole, **options)
    make = lambda: [descend.EMA(0.9, warmup=True)]  # noqa: E731
    again, second, (ema,) = resumed(tmp_path / "run", make, batch, **options)
    assert again.global_step == trainer.global_step
    assert_same(second.state_dict(), net.state_dict())
    assert_same(ema.state_dict(), whole.state_dict())
    assert_same(ema.average.state_dict(), whole.average.state_dict())


def test_a_run_that_is_over_has_its_average(tmp_path):
    whole, again = descend.EMA(0.9), descend.EMA(0.9)
    trained(tmp_path, whole)
    trainer, net = trained(tmp_path, again)
    assert trainer.global_step == 18
    assert_same(again.average.state_dict(), whole.average.state_dict())
    assert trainer.test(net, validation()) == trainer.test(again.average, validation())


def test_a_checkpoint_is_measured_with_its_own_average(tmp_path):
    class Kept(descend.Callback):
        """The averages after each epoch, and their losses."""

        def __init__(self):
            self.averages = []

        def on_train_epoch_end(self, trainer, module):
            self.averages.append((trainer.callback_metrics["val_loss"].item(), means()))

    ema, kept = descend.EMA(0.5), Kept()
    means = lambda: [one.clone() for one in ema.average.parameters()]  # noqa: E731
    # It gets worse in the end: the best is not the last
    trainer, net = trained(tmp_path, ema, kept, net=Net(lr=0.6), best="val_loss", max_epochs=6)
    losses = [loss for loss, _ in kept.averages]
    assert min(losses) < losses[-1]
    found = trainer.validate(net, validation(), ckpt_path="best")
    assert found[0]["val_loss"] == min(losses)
    assert_same(means(), kept.averages[losses.index(min(losses))][1])
    # in a process that has not trained
    other = descend.Trainer(
        folder=tmp_path, best="val_loss", callbacks=descend.EMA(0.5), enable_progress_bar=False
    )
    assert other.validate(Net(), validation(), ckpt_path="best") == found
    # a checkpoint without one is measured as it is
    trained(tmp_path / "plain", net=Net(lr=0.6), best="val_loss")
    plain = descend.Trainer(folder=tmp_path / "plain", enable_progress_bar=False)
    other = descend.Trainer(
        folder=tmp_path / "plain", callbacks=descend.EMA(0.5), enable_progress_bar=False
    )
    last = [one.validate(Net(), validation(), ckpt_path="last") for one in (plain, other)]
    assert last[0] == last[1]


def test_a_model_with_a_loss_is_measured_with_its_average():
    model = torch.nn.Linear(4, 1)
    ema = descend.EMA(0.5)
    trainer = descend.Trainer(max_epochs=2, callbacks=ema, enable_progress_bar=False)
    trainer.fit(model, loader(), loss=torch.nn.functional.mse_loss, optimizer=descend.AdamW)
    zeros = torch.zeros(3, 4)
    data = DataLoader(TensorDataset(zeros, torch.zeros(3, 1)), batch_size=3)
    (predicted,) = trainer.predict(model, data)
    assert torch.equal(predicted, ema.average.model(zeros))
    assert not torch.equal(predicted, model(zeros))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.nn.Linear(1, 1),), "a loop of your own takes swa_utils.EMA"),
        ((1.5,), "EMA: decay must be a finite number from 0 to 1, got 1.5"),
    ],
)
def test_what_is_no_decay_is_refused(arguments, message):
    with pytest.raises((TrainerError, HyperparameterError), match=message):
        descend.EMA(*arguments)


def test_another_decay_is_no_way_to_go_on(tmp_path):
    decays = iter((0.9, 0.8))
    with pytest.raises(StateError, match=r"decay=0.9, and this average decay=0.8"):
        resumed(tmp_path, lambda: [descend.EMA(next(decays))], 8)


def test_a_module_that_cannot_be_copied_is_refused(tmp_path):
    net = Net()
    with open(__file__) as net.file, pytest.raises(TrainerError, match="EMA: Net cannot be copied"):
        trained(tmp_path, descend.EMA(), net=net)
    trained(tmp_path)  # the folder is whole
