"""Whatever is deleted is freed at once: without the garbage collector, with all of its tensors."""

import copy
import gc
import pickle
from weakref import ref

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import descend
from descend import lr_scheduler, swa_utils, warmup
from descend.errors import DescendError
from descend.optimizers import CATALOGUE
from descend.schedules import cosine
from optimizers.any_optimizer import parameters, train


@pytest.fixture(autouse=True, scope="module")
def _no_collector():
    """What is freed here, no collector has freed; and it need not look at what was there before."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def assert_freed(make):
    """Raise unless everything in the dict that a function returns is freed when that is.

    The first call is left out: what is compiled and cached there stays.
    """
    make()
    gc.collect()
    refs = {name: ref(value) for name, value in make().items()}
    assert [name for name, one in refs.items() if one() is not None] == []


def trained(name, cls=None, **options):
    """An optimizer after some steps, with its parameters and the tensors of its state."""
    params = parameters()
    optimizer = (cls or CATALOGUE[name])(params, **options)
    train(name, optimizer, params, 2)
    return optimizer, params


def parts(optimizer, params):
    """What of an optimizer must be freed."""
    found = {"optimizer": optimizer}
    for index, param in enumerate(params):
        found[f"parameter {index}"] = param
        for key, value in optimizer.state.get(param, {}).items():
            if isinstance(value, torch.Tensor):
                found[f"{key} of {index}"] = value
    return found


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_optimizers(backend, name):
    assert_freed(lambda: parts(*trained(name)))


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_copies_and_loaded_optimizers(name):
    def make():
        optimizer, params = trained(name)
        optimizer.load_state_dict(optimizer.state_dict())
        train(name, optimizer, params, 1, 2)
        again = pickle.loads(pickle.dumps(optimizer))
        other = copy.deepcopy(optimizer)
        found = parts(optimizer, params)
        for twin in (again, other):
            mine = twin.param_groups[0]["params"]
            train(name, twin, mine, 1, 3)
            found |= {f"{key}, {id(twin)}": value for key, value in parts(twin, mine).items()}
        return found

    assert_freed(make)


@pytest.mark.parametrize("options", [{"clip_norm": 1.0}, {"clip_value": 0.1}], ids=str)
def test_clipping_optimizers(backend, options):
    assert_freed(lambda: parts(*trained("adamw", **options, skip_nonfinite=True)))


def test_an_optimizer_whose_step_was_refused():
    def make():
        optimizer, params = trained("adamw")
        optimizer.param_groups[0]["lr"] = -1.0
        with pytest.raises(DescendError):
            optimizer.step()
        return parts(optimizer, params)

    assert_freed(make)


def test_a_users_own_optimizer():
    class Own(descend.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            for param in self.param_groups[0]["params"]:
                param.data.sub_(param.grad, alpha=self.param_groups[0]["lr"])

    assert_freed(lambda: parts(*trained("sgd", Own)))


HOOKS = [
    name
    for name in vars(torch.optim.Optimizer)
    if name.startswith("register_") and name.endswith("hook")
]


@pytest.mark.parametrize("name", HOOKS)
def test_hooks(name):
    def make():
        optimizer, params = trained("adamw")
        held = torch.ones(1)
        handle = getattr(optimizer, name)(lambda *_: (held, None)[1])
        optimizer.load_state_dict(optimizer.state_dict())
        train("adamw", optimizer, params, 1, 2)
        return {**parts(optimizer, params), "held": held, "handle": handle}

    assert_freed(make)


SCHEDULERS = {
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "ConstantLR": lr_scheduler.ConstantLR,
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, cycle_momentum=False),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda time: 0.9**time),
    "LinearLR": lr_scheduler.LinearLR,
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2]),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda time: 0.9),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, 9),
    "PolynomialLR": lr_scheduler.PolynomialLR,
    "ReduceLROnPlateau": lr_scheduler.ReduceLROnPlateau,
    "Scheduler": lambda o: lr_scheduler.Scheduler(o, lr=cosine(9), weight_decay=cosine(9)),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.CosineAnnealingLR(o, 5)], [2]
    ),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.1),
    "ConstantWarmup": lambda o: warmup.ConstantWarmup(o, 2),
    "ExponentialWarmup": lambda o: warmup.ExponentialWarmup(o, 2),
    "LinearWarmup": lambda o: warmup.LinearWarmup(o, 2),
    "RAdamWarmup": warmup.RAdamWarmup,
    "UntunedExponentialWarmup": warmup.UntunedExponentialWarmup,
    "UntunedLinearWarmup": warmup.UntunedLinearWarmup,
}


def test_every_scheduler_is_among_these():
    known = {
        name
        for module in (lr_scheduler, swa_utils, warmup)
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, torch.optim.lr_scheduler.LRScheduler)
        and not name.startswith("_")
    }
    assert known - {"LRScheduler", "BaseWarmup"} == set(SCHEDULERS)


@pytest.mark.parametrize("kind", ["lr a number", "lr a tensor"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(name, kind):
    def make():
        rate = torch.tensor(0.1) if "tensor" in kind else 0.1
        optimizer, params = trained("adamw", lr=rate)
        scheduler = SCHEDULERS[name](optimizer)
        other = lr_scheduler.ExponentialLR(optimizer, 0.9)
        for step in range(4):
            train("adamw", optimizer, params, 1, step)
            if isinstance(scheduler, warmup.BaseWarmup):
                with scheduler.dampening():
                    other.step()
            elif name == "ReduceLROnPlateau":
                scheduler.step(1.0)
            else:
                scheduler.step()
        scheduler.load_state_dict(scheduler.state_dict())
        return {**parts(optimizer, params), "scheduler": scheduler, "other": other}

    assert_freed(make)


def test_torchs_schedulers():
    def make():
        optimizer, params = trained("adamw")
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        train("adamw", optimizer, params, 1, 2)
        scheduler.step()
        return {**parts(optimizer, params), "scheduler": scheduler}

    assert_freed(make)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make_averaged", [swa_utils.EMA, swa_utils.AveragedModel])
def test_averages(make_averaged, dtype):
    def make():
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(dtype)
        averaged = make_averaged(model, use_buffers=True)
        for _ in range(3):
            averaged.update_parameters(model)
        averaged(torch.ones(2, 3, dtype=dtype))
        swa_utils.update_bn([torch.ones(2, 3, dtype=dtype)], averaged)
        averaged.load_state_dict(averaged.state_dict())
        return {
            "model": model,
            "weight": model[0].weight,
            "averaged": averaged,
            "average": averaged.module[0].weight,
            "buffer": averaged.module[1].running_mean,
        }

    assert_freed(make)


def test_an_averaged_model_that_raised():
    def make():
        averaged = swa_utils.EMA(nn.Linear(3, 2).bfloat16())
        with pytest.raises(RuntimeError):
            averaged(torch.ones(2, 4, dtype=torch.bfloat16))
        return {"averaged": averaged, "average": averaged.module.weight}

    assert_freed(make)


def loader():
    return DataLoader(TensorDataset(torch.randn(8, 2)), batch_size=2, shuffle=True)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_runs(tmp_path, background, whole):
    folders = iter(range(9))

    def make():
        model = nn.Linear(2, 1)
        optimizer = descend.AdamW(model.parameters())
        scheduler = lr_scheduler.StepLR(optimizer, 2)
        averaged = swa_utils.EMA(model)
        run = descend.Run(
            tmp_path / str(next(folders)),
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            averaged=averaged,
            loader=loader(),
            epochs=2,
            every_steps=2,
            background=background,
        )
        for (x,) in run:
            loss = model(x).square().sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            averaged.update_parameters(model)
            run.log(loss=loss)
            if not whole and run.step == 3:
                break
        found = parts(optimizer, list(model.parameters()))
        return {**found, "model": model, "scheduler": scheduler, "averaged": averaged, "run": run}

    assert_freed(make)


def test_a_run_leaves_no_hook_behind(tmp_path):
    optimizer = descend.SGD([nn.Parameter(torch.ones(1))])
    run = descend.Run(tmp_path, optimizer=optimizer, loader=loader())
    assert optimizer._optimizer_step_post_hooks
    del run
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_loaders():
    def make():
        inner = loader()
        outer = descend.ResumableLoader(inner)
        batches = [batch for (batch,) in outer]
        for _ in outer:
            break
        outer.load_state_dict(outer.state_dict())
        return {"inner": inner, "outer": outer, "data": inner.dataset, "batch": batches[0]}

    assert_freed(make)


def test_checkpoints(tmp_path):
    def make():
        model = nn.Linear(2, 1)
        path = tmp_path / "saved"
        descend.checkpoint.save(path, {"model": model.state_dict()})
        state = descend.checkpoint.load(path)
        descend.checkpoint.restore(path, model=model)
        return {"model": model, "weight": model.weight, "loaded": state["model"]["weight"]}

    assert_freed(make)
