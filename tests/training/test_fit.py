"""The loop: what it computes, what it calls back, what it refuses."""

import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from descend.errors import DivergedError, TaskError, TrainerError
from descend.optimizers import CATALOGUE
from descend.training import ResumableLoader, Task, accuracy
from training.tasks_trained import evaluate, fit

LOSS = torch.nn.functional.cross_entropy


def toy(seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 4, generator=generator)
    y = (x.sum(1) > 0).long()
    torch.manual_seed(seed)
    parts = {
        "model": torch.nn.Linear(4, 2),
        "train": (x[:30], y[:30]),
        "validation": (x[30:], y[30:]),
        "loss": LOSS,
        "metrics": {"accuracy": accuracy},
    }
    return Task(**parts | changes)


def run(task, epochs=2, batch_size=8, lr=0.1, seed=0, **callbacks):
    optimizer = CATALOGUE["sgd"](task.model.parameters(), lr=lr)
    return fit(task, optimizer, epochs=epochs, batch_size=batch_size, seed=seed, **callbacks)


def orders(samples, batch_size, seed=0):
    """The samples' numbers in batches, epoch after epoch."""
    loader = ResumableLoader(DataLoader(range(samples), batch_size, shuffle=True), seed)
    while True:
        yield list(loader)


def test_g1_it_is_the_plain_loop():
    task, plain = toy(), toy()
    records = run(task, epochs=3)
    x, y = plain.train
    for record, order in zip(records, orders(30, 8), strict=False):
        total = 0.0
        for part in order:
            plain.model.zero_grad()
            loss = LOSS(plain.model(x[part]), y[part])
            loss.backward()
            with torch.no_grad():
                for parameter in plain.model.parameters():
                    parameter.sub_(0.1 * parameter.grad)
            total += loss.item() * len(part)
        assert record.train_loss == pytest.approx(total / 30, rel=1e-6)
    for mine, theirs in zip(task.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    with torch.no_grad():
        outputs = plain.model(plain.validation[0])
    assert records[-1].validation_loss == pytest.approx(float(LOSS(outputs, plain.validation[1])))
    assert records[-1].metrics == {"accuracy": accuracy(outputs, plain.validation[1])}
    assert [(r.epoch, r.lr) for r in records] == [(1, 0.1), (2, 0.1), (3, 0.1)]


def test_a_dataset_and_a_list_train_as_tensors_do():
    tensors = toy()
    pairs = [(x, int(y)) for x, y in zip(*tensors.train, strict=True)]
    dataset, listed = toy(train=TensorDataset(*tensors.train)), toy(train=pairs)
    assert run(tensors)[-1].train_loss == run(dataset)[-1].train_loss == run(listed)[-1].train_loss
    assert torch.equal(tensors.model.weight, dataset.model.weight)


def test_the_order_follows_the_seed_alone():
    torch.manual_seed(1)
    first = run(toy(), seed=3)[-1].train_loss
    torch.manual_seed(2)
    assert run(toy(), seed=3)[-1].train_loss == first != run(toy(), seed=4)[-1].train_loss


def test_every_sample_is_seen_once_per_epoch():
    seen = []

    class Watch(torch.nn.Linear):
        def forward(self, x):
            if self.training:
                seen.extend(x[:, 0].tolist())
            return super().forward(x)

    task = toy(model=Watch(4, 2))
    run(task, epochs=2, batch_size=7)
    once = sorted(task.train[0][:, 0].tolist())
    assert sorted(seen[:30]) == sorted(seen[30:]) == once
    assert seen[:30] != seen[30:]


def test_modes_and_gradients_are_right_and_restored():
    modes = []

    class Watch(torch.nn.Linear):
        def forward(self, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    task = toy(model=Watch(4, 2))
    task.model.eval()
    run(task, epochs=1, batch_size=30)
    assert modes == [(True, True), (False, False)]
    assert task.model.training
    evaluate(task, task.validation, batch_size=3)
    assert task.model.training


def test_a_metric_sees_all_samples_at_once():
    sizes = []
    task = toy(metrics={"n": lambda outputs, targets: sizes.append(len(targets)) or len(outputs)})
    assert evaluate(task, task.validation, batch_size=3)["n"] == 20
    assert sizes == [20]


def test_callbacks_come_in_order():
    calls = []
    run(
        toy(), epochs=1, batch_size=20,
        on_batch=lambda *a: calls.append(a), on_epoch=lambda r: calls.append(r.epoch),
    )  # fmt: skip
    assert calls == [("train", 1, 2), ("train", 2, 2), ("evaluate", 1, 1), 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_loss_is_reported_and_not_stepped_with(bad):
    steps = [0]

    def loss(outputs, targets):
        steps[0] += 1
        return LOSS(outputs, targets) * (bad if steps[0] == 3 else 1)

    task, same = toy(loss=loss), toy()
    with pytest.raises(
        DivergedError, match=rf"training loss became {bad} in batch 3 of 4 of epoch 1, with lr 0.1"
    ):
        run(task)
    with pytest.raises(KeyboardInterrupt):
        run(
            same,
            on_batch=lambda phase, done, all_: (
                done == 2 and (_ for _ in ()).throw(KeyboardInterrupt)
            ),
        )
    assert torch.equal(task.model.weight, same.model.weight)


def test_a_diverged_validation_loss_is_reported():
    task = toy(validation=(torch.full((2, 4), math.nan), torch.tensor([0, 1])))
    with pytest.raises(DivergedError, match="validation loss became nan after epoch 1"):
        run(task)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": torch.nn.Linear(5, 2)}, r"the model, given \(8, 4\), failed: RuntimeError"),
        ({"loss": lambda o, t: LOSS(o, t, reduction="none")}, r"one number, .* shape \(8,\)"),
        ({"loss": lambda o, t: 1.0}, "returned a float"),
        (
            {"loss": lambda o, t: torch.tensor(1.0)},
            "has no gradient: it must follow",
        ),
        ({"metrics": {"a": lambda o, t: o}}, r"the metric 'a', given \(20, 2\), \(20,\), failed"),
        ({"train": [1, 2, 3]}, r"must give pairs \(input, target\)"),
        ({"train": [(torch.ones(4), None)]}, "reading the data failed: TypeError"),
    ],
)
def test_a_failing_part_of_a_task_is_named(changes, message):
    with pytest.raises((TaskError, TrainerError), match=message):
        run(toy(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": torch.nn.Linear}, r"model must be a torch\.nn\.Module, and is the class Linear"),
        ({"train": torch.ones(3)}, "train must be a pair of tensors"),
        ({"validation": (torch.ones(3), torch.ones(2))}, "validation must hold as many inputs as"),
        ({"test": (torch.ones(0, 4), torch.ones(0))}, "test must hold at least one sample"),
        ({"train": iter([])}, "train must be a pair of tensors .* is a list_iterator"),
        ({"loss": 3}, "loss must be a function .* is a int"),
        ({"metrics": [accuracy]}, "metrics must be a dict"),
        ({"metrics": {"loss": accuracy}}, "the metric 'loss' needs another name"),
        ({"metrics": {"a": 1}}, "the metric 'a' must be a function"),
    ],
)
def test_a_task_that_cannot_be_used_is_refused(changes, message):
    with pytest.raises(TaskError, match=message):
        toy(**changes)


@pytest.mark.parametrize("bad", [{"epochs": -2}, {"batch_size": 0}, {"epochs": 1.5}])
def test_counts_below_one_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be a whole number of at least -?1"):
        run(toy(), **bad)


def test_accuracy_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="accuracy takes outputs of shape"):
        accuracy(torch.ones(3, 2), torch.ones(2))


def test_g2_ten_thousand_digits_as_in_the_scenario(tmp_path):
    """The scenario's network and batches on drawn data of its size; its figures need MNIST."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2000) % 10
    x = torch.rand(2000, 1, 28, 28, generator=generator)
    x[torch.arange(2000), 0, 2 * y, :] += 1.0
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 26 * 26, 10),
    )
    task = Task(model, (x, y), (x[:100], y[:100]), LOSS)
    optimizer = CATALOGUE["adam"](model.parameters(), lr=1e-3)
    records = fit(task, optimizer, epochs=8, batch_size=512)
    losses = [record.train_loss for record in records]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]
