"""skorch: fit, partial_fit, clipping, schedules, checkpoints, clones, grid search."""

import pickle

import numpy as np
import pytest
import torch

import descend
from clients.beside import CLOSE_16, assert_beside, network, parameters, samples

INPUTS, TARGETS = (tensor.numpy() for tensor in samples().tensors)


@pytest.fixture
def skorch(client):
    client("skorch.callbacks")
    return client("skorch")


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, inputs):
        return self.net(inputs)


def regressor(skorch, optim, kind=None, **options):
    default = {"optimizer": optim.AdamW, "lr": 0.03, "max_epochs": 4, "batch_size": 6}
    kind = kind or skorch.NeuralNetRegressor
    return kind(Network, **{**default, **options}, train_split=None, verbose=0)


def seen(net, *columns):
    return [
        *(net.history[:, column] for column in ("train_loss", *columns)),
        parameters(net.module_),
    ]


@pytest.mark.parametrize("way", [torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_])
def test_fitted_and_clipped(skorch, way):
    def train(optim):
        if way is torch.nn.utils.clip_grad_norm_:
            callbacks = [skorch.callbacks.GradientNormClipping(0.5)]
        else:

            class ByValue(skorch.callbacks.Callback):
                def on_grad_computed(self, net, named_parameters, **kwargs):
                    way([param for _, param in named_parameters], 0.05)

            callbacks = [ByValue()]
        net = regressor(skorch, optim, callbacks=callbacks).fit(INPUTS, TARGETS)
        return seen(net)

    assert_beside(train)


def test_groups_and_their_options(skorch):
    def train(optim):
        net = regressor(
            skorch,
            optim,
            optimizer=optim.SGD,
            optimizer__param_groups=[("*bias", {"lr": 0.01, "momentum": 0.5})],
            optimizer__momentum=0.9,
            optimizer__nesterov=True,
        )
        net.fit(INPUTS, TARGETS)
        net.set_params(lr=0.001, optimizer__momentum=0.8)
        net.partial_fit(INPUTS, TARGETS)
        return seen(net)

    assert_beside(train)


SCHEDULES = {
    "step": {"policy": "StepLR", "step_size": 2, "gamma": 0.5},
    "exponential": {"policy": "ExponentialLR", "gamma": 0.8},
    "cosine": {"policy": "CosineAnnealingLR", "T_max": 8},
    "lambda": {"policy": "LambdaLR", "lr_lambda": lambda epoch: 0.8**epoch},
    "cyclic": {"policy": "CyclicLR", "base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    "plateau": {"policy": "ReduceLROnPlateau", "patience": 0, "factor": 0.5, "threshold": 0.5},
}


def scheduler(skorch, optim, schedule, **options):
    policy = getattr(optim.lr_scheduler, schedule["policy"])
    return skorch.callbacks.LRScheduler(**{**schedule, "policy": policy, **options})


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_by_epoch_with_partial_fit(skorch, schedule):
    """Each fit makes a new scheduler, with the last epoch that is over, on the same optimizer."""

    def train(optim):
        callbacks = [scheduler(skorch, optim, SCHEDULES[schedule])]
        net = regressor(skorch, optim, callbacks=callbacks)
        for _ in range(3):
            net.partial_fit(INPUTS, TARGETS)
        return seen(net, "event_lr")

    if schedule == "step":  # torch's multiplies once more where the new one begins at a step
        rates = train(descend)[1]
        assert rates == pytest.approx([0.03 * 0.5 ** (epoch // 2) for epoch in range(12)])
    else:
        assert_beside(train)


@pytest.mark.parametrize("schedule", ["step", "cyclic", "plateau"])
def test_schedules_by_batch(skorch, schedule):
    def train(optim):
        monitor = "train_loss" if schedule == "plateau" else None
        stepped = scheduler(skorch, optim, SCHEDULES[schedule], step_every="batch", monitor=monitor)
        net = regressor(skorch, optim, callbacks=[stepped]).fit(INPUTS, TARGETS)
        rates = [row["event_lr"] for epoch in net.history for row in epoch["batches"]]
        return rates, *seen(net)

    assert_beside(train)


def test_a_schedule_is_simulated(skorch):
    def train(optim):
        return scheduler(skorch, optim, SCHEDULES["step"]).simulate(6, 0.1).tolist()

    assert_beside(train)


def test_accumulated(skorch):
    class Accumulating(skorch.NeuralNetRegressor):
        def train_step(self, batch, **fit_params):
            if len(self.history[-1, "batches"]) % 2:
                self.optimizer_.zero_grad()
            step = self.train_step_single(batch, **fit_params)
            if not len(self.history[-1, "batches"]) % 2:
                self.optimizer_.step()
            return step

    def train(optim):
        return seen(regressor(skorch, optim, Accumulating).fit(INPUTS, TARGETS))

    assert_beside(train)


def test_in_mixed_precision(skorch, accelerate, client):
    helper = client("skorch.hf")

    class Accelerated(helper.AccelerateMixin, skorch.NeuralNetRegressor):
        pass

    def train(optim):
        accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
        net = regressor(skorch, optim, Accelerated, accelerator=accelerator)
        return seen(net.fit(INPUTS, TARGETS))

    assert_beside(train, **CLOSE_16)


def test_resumed_from_its_own_checkpoint(skorch, tmp_path):
    def train(optim):
        whole = regressor(skorch, optim, max_epochs=6).fit(INPUTS, TARGETS)
        kept = skorch.callbacks.Checkpoint(monitor=None, dirname=tmp_path / optim.__name__)
        regressor(skorch, optim, max_epochs=3, callbacks=[kept]).fit(INPUTS, TARGETS)
        loading = skorch.callbacks.LoadInitState(kept)
        net = regressor(skorch, optim, max_epochs=3, callbacks=[loading]).fit(INPUTS, TARGETS)
        assert net.history[:, "train_loss"] == whole.history[:, "train_loss"]
        copied = pickle.loads(pickle.dumps(net)).partial_fit(INPUTS, TARGETS)
        assert all(
            map(
                torch.equal,
                parameters(net.partial_fit(INPUTS, TARGETS).module_),
                parameters(copied.module_),
            )
        )
        return seen(net)

    assert_beside(train)


def test_a_grid_search(skorch, client):
    search = client("sklearn.model_selection")

    def train(optim):
        grid = {"lr": [0.003, 0.03], "optimizer__weight_decay": [0.0, 0.1]}
        found = search.GridSearchCV(regressor(skorch, optim), grid, cv=2).fit(INPUTS, TARGETS)
        assert np.isfinite(found.cv_results_["mean_test_score"]).all()
        return found.best_params_, found.cv_results_["mean_test_score"].tolist()

    assert_beside(train, rtol=1e-3, atol=1e-4)
