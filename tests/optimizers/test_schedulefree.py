"""Schedule-free optimizers: beside their authors' package, and the two points they keep."""

import copy
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import descend
from checkpoint.bits import assert_same
from descend.engine import forced_backend
from descend.errors import HyperparameterError
from optimizers.cases import tensor

SHAPES = [(17, 3), (5,), ()]
MINE = {"adamw": descend.ScheduleFreeAdamW, "sgd": descend.ScheduleFreeSGD}
CLASSES = pytest.mark.parametrize("cls", MINE.values(), ids=MINE)


def parameters(dtype=torch.float64):
    return [torch.nn.Parameter(tensor(seed, shape, dtype)) for seed, shape in enumerate(SHAPES)]


def gradients(params, seed):
    for index, param in enumerate(params):
        noise = tensor(100 * seed + index, param.shape, param.dtype)
        param.grad = 0.1 * noise + param.detach()


def authors(name, params, **options):
    package = pytest.importorskip("schedulefree")
    cls = {"adamw": "AdamWScheduleFree", "sgd": "SGDScheduleFree"}[name]
    optimizer = getattr(package, cls)(params, **options)
    optimizer.train()
    return optimizer


CASES = {
    "defaults": {},
    "decay": {"weight_decay": 0.1},
    "warmup": {"warmup_steps": 30, "r": 1.0},
    "power": {"weight_lr_power": 0.5, "warmup_steps": 10},
}


@pytest.mark.parametrize(
    ("dtype", "close"),
    # float32: 200 steps of about 5 roundings of 6e-8, which mostly cancel
    [(torch.float64, 1e-12), (torch.float32, 2e-5)],
    ids=["float64", "float32"],
)
@pytest.mark.parametrize("name", MINE)
@pytest.mark.parametrize("case", CASES)
def test_200_steps_are_those_of_their_authors(case, name, dtype, close):
    params, others = parameters(dtype), parameters(dtype)
    optimizer = MINE[name](params, lr=0.05, **CASES[case])
    other = authors(name, others, lr=0.05, **CASES[case])
    for seed in range(200):
        if seed == 120:  # a validation in between, and a change of lr behind it
            for one in (optimizer, other):
                one.eval()
            assert_all_close(params, others, close)
            for one in (optimizer, other):
                one.train()
                one.param_groups[0]["lr"] = 0.02
        gradients(params, seed)
        gradients(others, seed)
        optimizer.step()
        other.step()
    assert_all_close(params, others, close)
    optimizer.eval()
    other.eval()
    assert_all_close(params, others, close)


def assert_all_close(params, others, close):
    for a, b in zip(params, others, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=close, atol=close)


@CLASSES
@pytest.mark.parametrize("mu_x", [None, 0.8])
def test_the_average_is_that_of_all_points(cls, mu_x):
    """x by its own definition, from the z of each step."""
    beta = 0.9
    param = torch.nn.Parameter(tensor(0, (6,)))
    optimizer = cls([param], lr=0.1, mu_x=mu_x)
    average = param.detach().clone()
    for t in range(1, 30):
        param.grad = tensor(t, (6,)) + param.detach()
        optimizer.step()
        share = 1 / t if mu_x is None else 1 - mu_x
        average = (1 - share) * average + share * optimizer.state[param]["z"]
        y = beta * average + (1 - beta) * optimizer.state[param]["z"]
        torch.testing.assert_close(param.detach(), y, rtol=1e-12, atol=1e-12)
        with optimizer.averaged():
            torch.testing.assert_close(param.detach(), average, rtol=1e-11, atol=1e-12)


@CLASSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_points_are_exchanged_once_and_back(cls, dtype):
    params = parameters(dtype)
    optimizer = cls(params, lr=0.1)
    optimizer.eval()
    optimizer.train()  # nothing has been trained: both are where they were
    assert_same([one.detach() for one in params], [one.detach() for one in parameters(dtype)])
    for seed in range(5):
        gradients(params, seed)
        optimizer.step()
    trained = [one.detach().clone() for one in params]
    optimizer.eval()
    assert not optimizer.training
    average = [one.detach().clone() for one in params]
    optimizer.eval()
    assert_same([one.detach() for one in params], average)
    assert not any(map(torch.equal, average, trained))
    optimizer.train()
    optimizer.train()
    close = 1e-6 if dtype is torch.float32 else 2e-2  # two roundings
    for a, b in zip(params, trained, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=close, atol=close)
    with pytest.raises(ZeroDivisionError), optimizer.averaged():
        raise ZeroDivisionError
    assert optimizer.training


@CLASSES
def test_averaged_puts_the_very_bits_back(cls):
    params = parameters(torch.float32)
    optimizer = cls(params, lr=0.1)
    for seed in range(5):
        gradients(params, seed)
        optimizer.step()
    before = [one.detach().clone() for one in params]
    for _ in range(3):
        with optimizer.averaged():
            assert not any(map(torch.equal, before, params))
    assert_same([one.detach() for one in params], before)


@CLASSES
def test_a_step_after_eval_alone_is_told(cls):
    params = parameters()
    optimizer = cls(params, lr=0.1)
    gradients(params, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.eval()
        optimizer.step()  # at the first step both points are the same
        optimizer.eval()
    with pytest.warns(RuntimeWarning, match=r"Call optimizer.train\(\) before training"):
        optimizer.step()
    assert optimizer.training


@CLASSES
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "checkpoint"])
def test_a_saved_training_goes_on_in_its_mode_to_the_bit(cls, mode, way, tmp_path):
    params = parameters(torch.float32)
    optimizer = cls(params, lr=0.1, warmup_steps=3)
    for seed in range(5):
        gradients(params, seed)
        optimizer.step()
    getattr(optimizer, mode)()
    if way == "deepcopy":
        others, other = copy.deepcopy((params, optimizer))
    else:
        others = copy.deepcopy(params)
        other = cls(others, lr=0.5)
        if way == "checkpoint":
            path = tmp_path / "saved"
            descend.checkpoint.save(path, {"optimizer": optimizer.state_dict()})
            descend.checkpoint.restore(path, optimizer=other)
        else:
            saved = tmp_path / "saved.pt"
            torch.save(optimizer.state_dict(), saved)
            other.load_state_dict(torch.load(saved, weights_only=True))
    assert other.training is (mode == "train")
    for one, its in ((params, optimizer), (others, other)):
        its.train()
        for seed in range(5, 8):
            gradients(one, seed)
            its.step()
        its.eval()
    assert_same([one.detach() for one in others], [one.detach() for one in params])


@CLASSES
@pytest.mark.parametrize("backend", ["eager", "cpu", "gpu"])
def test_at_lr_0_nothing_is_divided_by_nothing(cls, backend):
    params = parameters(torch.float32)
    before = [one.detach().clone() for one in params]
    optimizer = cls(params, lr=0.0)
    with forced_backend(backend):
        for seed in range(3):
            gradients(params, seed)
            optimizer.step()
    assert_same([one.detach() for one in params], before)


def test_without_momentum_there_is_no_line_between_the_points():
    with pytest.raises(HyperparameterError, match="betas"):
        descend.ScheduleFreeAdamW(parameters(), betas=(0.0, 0.9))
    with pytest.raises(HyperparameterError, match="momentum"):
        descend.ScheduleFreeSGD(parameters(), momentum=0.0)


@CLASSES
def test_a_group_that_is_added_is_in_the_mode_of_the_others(cls):
    params = parameters()
    optimizer = cls(params[:2], lr=0.1)
    gradients(params[:2], 0)
    optimizer.step()
    optimizer.eval()
    optimizer.add_param_group({"params": params[2:]})
    assert not optimizer.param_groups[1]["train_mode"]


# In a training.

X = tensor(7, (64, 4), torch.float32)
Y = X.sum(1, keepdim=True)


class Regression(descend.Module):
    def __init__(self, cls=descend.ScheduleFreeAdamW):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.cls, self.seen = torch.nn.Linear(4, 1), cls, {}

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.setdefault("train", []).append(self.optimizers().training)
        return torch.nn.functional.mse_loss(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.seen.setdefault("validation", []).append(self.optimizers().training)
        self.log("val_loss", torch.nn.functional.mse_loss(self.net(x), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_loss", torch.nn.functional.mse_loss(self.net(x), y))

    def configure_optimizers(self):
        return self.cls(self.parameters(), lr=0.05)


def loader():
    return DataLoader(TensorDataset(X, Y), 8)


def fitted(folder=None, validated=True, epochs=3, **options):
    module = Regression()
    trainer = descend.Trainer(
        max_epochs=epochs, enable_progress_bar=False, folder=folder, seed=0, **options
    )
    trainer.fit(module, loader(), loader() if validated else None)
    return module, trainer


def test_a_trainer_trains_at_one_point_and_validates_at_the_other():
    module, trainer = fitted()
    assert all(module.seen["train"])
    assert not any(module.seen["validation"])
    (optimizer,) = trainer.optimizers
    assert not optimizer.training  # what is left is the average
    first = module.net.weight.detach().clone()
    trainer.fit(module, loader())  # begins where the average is
    assert all(module.seen["train"])
    assert not torch.equal(module.net.weight, first)


def test_validations_do_not_change_the_training():
    with_, without = (fitted(validated=one)[0] for one in (True, False))
    assert_same(with_.state_dict(), without.state_dict())


def test_a_checkpoint_is_tested_at_its_average(tmp_path):
    module, trainer = fitted(tmp_path / "run", best="val_loss")
    expected = trainer.validate(module, loader())[0]["val_loss"]
    (values,) = trainer.test(module, loader(), ckpt_path="last")
    assert values["test_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    whole, _ = fitted(tmp_path / "whole", epochs=4)
    fitted(tmp_path / "halves", epochs=2)
    second, _ = fitted(tmp_path / "halves", epochs=4)
    assert_same(second.state_dict(), whole.state_dict())


def test_accelerate_changes_the_mode():
    accelerate = pytest.importorskip("accelerate")
    params = parameters(torch.float32)
    prepared = accelerate.Accelerator(cpu=True).prepare(descend.ScheduleFreeAdamW(params, lr=0.1))
    gradients(params, 0)
    prepared.step()
    prepared.eval()
    assert not prepared.optimizer.training
    prepared.train()
    assert prepared.optimizer.training
