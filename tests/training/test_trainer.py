"""A trainer after an error, and more than once: what it leaves whole."""

import copy
import io
import pickle

import pytest
import torch
from torch.nn.functional import mse_loss

import descend
from descend.checkpoint import diff, load
from descend.errors import RunError, TrainerError
from descend.training.trainer_hooks import HOOKS
from training.small_trainings import Net, loader, trained, validation

IN_A_FIT = sorted(name for name in HOOKS if "test" not in name and "predict" not in name)


class BrokenError(Exception):
    pass


class Broken(descend.Callback):
    """Raises in one hook, until it is mended."""

    def __init__(self, name):
        self.mended, self.name = False, name
        setattr(self, name, self._raise)

    def _raise(self, *arguments, **named):
        if not self.mended:
            raise BrokenError(self.name)


class Ended:
    """A logger that remembers how it ended."""

    def __init__(self, error=None):
        self.ends, self.error = [], error

    def log_hyperparams(self, params):
        pass

    def log_metrics(self, metrics, step):
        pass

    def finalize(self, status):
        self.ends.append(status)
        if self.error is not None:
            raise self.error


def plain(folder=None, *callbacks, **options):
    options = {"max_epochs": 2, "enable_progress_bar": False, **options}
    return descend.Trainer(folder=folder, callbacks=[*callbacks], **options)


def without_seconds(folder):
    state = load(folder)
    state["trainer"].pop("seconds")
    return state


@pytest.mark.parametrize("name", IN_A_FIT)
def test_after_an_error_in_any_hook_the_same_trainer_fits_to_the_same_end(name, tmp_path):
    options = {"gradient_clip_val": 1.0, "every_steps": 1, "max_epochs": 2}
    trained(tmp_path / "whole", descend.EMA(0.9), **options)
    broken, logger = Broken(name), Ended()
    trainer = plain(tmp_path / "run", descend.EMA(0.9), broken, logger=logger, **options)
    raised = False
    try:
        trainer.fit(Net(), loader(), validation())
    except BrokenError:
        raised = True
    assert raised == (name != "on_exception")  # which is called only if another raises
    assert not any([trainer.training, trainer.validating, trainer.sanity_checking])
    assert logger.ends == ["failed" if raised else "success"]
    broken.mended = True
    trainer.fit(Net(), loader(), validation())
    assert logger.ends[1:] == ["success"]
    assert not [*diff(without_seconds(tmp_path / "whole"), without_seconds(tmp_path / "run"))]


def test_an_error_in_on_exception_keeps_no_other_callback_from_it():
    seen = []

    class Sees(descend.Callback):
        def on_exception(self, trainer, module, exception):
            seen.append(str(exception))

    class Fails(Broken):
        def on_exception(self, *arguments):
            raise OSError("in on_exception")

    with pytest.raises(OSError, match="in on_exception") as raised:
        plain(None, Fails("on_train_batch_end"), Sees()).fit(Net(), loader())
    assert seen == ["on_train_batch_end"]
    assert isinstance(raised.value.__context__, BrokenError)  # nor hides what was first


def test_a_logger_that_cannot_end_keeps_no_other_from_ending():
    loggers = [Ended(OSError("the disk is full")), Ended()]
    with pytest.raises(OSError, match="the disk is full"):
        plain(logger=loggers).fit(Net(), loader())
    assert [one.ends for one in loggers] == [["success"], ["success"]]


def test_an_optimizer_that_a_folder_refuses_is_left_as_it_was_given(tmp_path):
    def fit(make):
        model = torch.nn.Linear(4, 1)
        optimizer = make(model.parameters())
        before = optimizer.clipping
        try:
            trainer = plain(tmp_path, gradient_clip_val=1.0)
            trainer.fit(model, loader(), loss=mse_loss, optimizer=optimizer)
        finally:
            assert optimizer.clipping is before

    fit(descend.AdamW)
    with pytest.raises(RunError, match=r"start over with .*resume=False"):
        fit(lambda parameters: descend.SGD(parameters, lr=0.1))


def test_a_modules_own_callbacks_are_there_once_and_not_for_another_module(tmp_path):
    class Own(Net):
        def configure_callbacks(self):
            return [descend.EarlyStopping("val_loss", patience=9), descend.EMA(0.9)]

    trainer, net = plain(tmp_path, max_epochs=1), Own()
    others = len(trainer.callbacks)
    trainer.fit(net, loader(), validation())
    own = trainer.callbacks[others:]
    assert len(own) == 2
    trainer.test(net, loader(False), verbose=False)
    trainer.fit(net, loader(), validation())
    assert trainer.callbacks[others:] == own  # with the averages of the training
    trainer.test(Net(), loader(False), verbose=False)
    assert len(trainer.callbacks) == others


def test_a_second_fit_stops_as_early_as_the_first():
    stopping = descend.EarlyStopping("val_loss", patience=1, min_delta=100.0)
    epochs = []
    for trainer in [plain(None, stopping, max_epochs=5)] * 2 + [plain(None, stopping)]:
        trainer.fit(Net(), loader(), validation())
        epochs.append(trainer.current_epoch)
        trainer.test(Net(), loader(False), verbose=False)
    assert epochs == [2, 2, 2]
    stopping.load_state_dict({**stopping.state_dict(), "best": -99.0})  # by hand: that counts
    plain(None, stopping).fit(Net(), loader(), validation())
    assert stopping.best == -99.0


def test_copies_of_a_module_that_was_trained_are_trained_too(tmp_path):
    net = trained(tmp_path)[1]
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    for one in [*copies, torch.load(file, weights_only=False)]:
        trainer = plain()
        trainer.fit(one, loader())
        assert trainer.global_step == 12


def test_a_compiled_module_is_told_how_it_is_trained():
    with pytest.raises(TrainerError, match=r"hides the steps of the Net .*module\.compile\(\)"):
        plain().fit(torch.compile(Net(), backend="eager"), loader())


def test_hyperparameters_that_loggers_are_not_told_of_are_in_the_checkpoint_alone(tmp_path):
    class Noting(Ended):
        def log_hyperparams(self, params):
            self.params = dict(params)

    class Secret(Net):
        def __init__(self, width=3, logger=False):
            super().__init__()
            self.save_hyperparameters("width", logger=logger)

    told, untold = Noting(), Noting()
    plain(tmp_path / "told", logger=told).fit(Secret(logger=True), loader())
    plain(tmp_path / "untold", logger=untold).fit(Secret(), loader())
    assert (told.params, untold.params) == ({"width": 3}, {})
    assert (tmp_path / "told" / "hparams.json").exists()
    assert not (tmp_path / "untold" / "hparams.json").exists()
    assert load(tmp_path / "untold")["trainer"]["hparams"] == {"width": 3}


def test_a_step_is_logged_once_where_a_module_steps_through_a_window_by_itself():
    class ByHand(Net):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = mse_loss(self.net(batch[0]), batch[1])
            self.log("by_hand", loss.detach())
            self.manual_backward(loss)
            if (batch_idx + 1) % 2 == 0:
                self.optimizers().step()
                self.optimizers().zero_grad()

    class Steps(Ended):
        def log_metrics(self, metrics, step):
            if "by_hand" in metrics:
                self.ends.append(step)

    steps = Steps()
    trainer = plain(accumulate_grad_batches=2, log_every_n_steps=1, logger=steps, max_epochs=1)
    trainer.fit(ByHand(), loader())
    assert steps.ends[:-1] == [*range(1, trainer.global_step + 1)]  # the last is how it ended


def test_overfitting_leaves_a_loader_its_workers(tmp_path):
    started = tmp_path / "started"
    given = torch.utils.data.DataLoader(
        loader().dataset, batch_size=2, shuffle=True, num_workers=1, persistent_workers=True,
        worker_init_fn=lambda number: started.touch(),
    )  # fmt: skip
    trainer = plain(overfit_batches=2)
    trainer.fit(Net(), given)
    assert started.exists()
    assert trainer.run.loader.given.persistent_workers


def test_a_run_is_saved_at_the_end_of_each_so_many_epochs(tmp_path):
    for every, steps in ((1, [0, 6, 12, 18]), (2, [0, 12, 18]), (None, [0, 18])):
        trainer = plain(tmp_path / str(every), every_epochs=every, keep=9, max_epochs=3)
        trainer.fit(Net(), loader())
        saved = sorted(path.name for path in (tmp_path / str(every)).glob("checkpoints/*"))
        assert [int(name.removeprefix("step-")) for name in saved] == steps
