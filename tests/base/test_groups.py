"""Parameter groups, missing gradients, hooks, schedulers: everything around the update."""

import warnings

import pytest
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from optimizers.cases import (
    ADDED,
    IDLE,
    IN_TORCH,
    NAMES,
    RICH,
    TORCH,
    TORCH_CASES,
    assert_close,
    assert_same_training,
    beside_torch,
    counts,
    give_gradients,
    ours,
    parameters,
    steps_on,
    tensor,
    train,
)


def _both(name, shapes, **options):
    mine, theirs = parameters(shapes), parameters(shapes)
    return ours(name)(mine, **options), mine, TORCH[name](theirs, **options), theirs


@pytest.mark.parametrize("name", IN_TORCH)
def test_groups_of_different_hyperparameters_and_flags(backend, name):
    """Each group as an optimizer of its own.

    torch's Adagrad ignores the initial_accumulator_value of a group, so torch gets it by argument.
    """
    all_options = [options for one, options in TORCH_CASES if one == name]
    shapes = [(size,) for size in range(3, 3 + len(all_options))]
    mine, theirs = parameters(shapes), parameters(shapes)
    my_optimizer = ours(name)(
        [{"params": [param], **options} for param, options in zip(mine, all_options, strict=True)]
    )
    their_optimizers = [
        TORCH[name]([param], **options) for param, options in zip(theirs, all_options, strict=True)
    ]
    for seed in range(1, steps_on(backend, few=3) + 1):
        train(my_optimizer, mine, 1, seed)
        give_gradients(theirs, seed)
        for optimizer in their_optimizers:
            optimizer.step()
    for my_param, optimizer, their_param in zip(mine, their_optimizers, theirs, strict=True):
        assert_same_training(my_optimizer, [my_param], optimizer, [their_param])


@pytest.mark.parametrize("name", IN_TORCH)
def test_gradients_that_appear_only_at_some_steps(backend, name):
    """A parameter without a gradient does not move, nor does its state or its step count."""
    my_optimizer, mine, their_optimizer, theirs = _both(name, [(5,), (3,), (4,)], **RICH[name])
    for seed in range(1, steps_on(backend) + 1):
        for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
            give_gradients(params, seed)
            if seed % 3:
                params[1].grad = None
            if seed < 5:
                params[2].grad = None
            optimizer.step()
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)
    if counts(name):
        steps = [my_optimizer.state[param]["step"].item() for param in mine]
        assert len(set(steps)) == 3


@pytest.mark.parametrize("name", IN_TORCH)
def test_no_gradient_at_all(backend, name):
    my_optimizer, mine, their_optimizer, theirs = _both(name, [(5,)], **RICH[name])
    my_optimizer.step()
    their_optimizer.step()
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_flags_switched_between_steps(backend, name):
    """maximize, weight decay and lr are read at every step."""

    def decay(value):
        return {} if "weight_decay" in ADDED.get(name, {}) else {"weight_decay": value}

    my_optimizer, mine, their_optimizer, theirs = _both(name, [(5,)], **RICH[name])
    for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
        train(optimizer, params, 2)
        optimizer.param_groups[0].update(maximize=True, **decay(0.0))
        train(optimizer, params, 2, first=3)
        optimizer.param_groups[0].update(maximize=False, lr=0.001, **decay(0.2))
        train(optimizer, params, 2, first=5)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


def test_momentum_switched_on_in_mid_training(backend):
    """SGD's velocity then starts as that step's gradient."""
    my_optimizer, mine, their_optimizer, theirs = _both("sgd", [(5,)], lr=0.1, dampening=0.5)
    for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
        train(optimizer, params, 2)
        optimizer.param_groups[0]["momentum"] = 0.9
        train(optimizer, params, 3, first=3)
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_named_parameters(backend, name):
    """(name, parameter) pairs: the names stand in the groups, as in torch."""
    mine, theirs = parameters([(5,), (3,)]), parameters([(5,), (3,)])
    my_optimizer = ours(name)(zip(["a", "b"], mine, strict=True), **RICH[name])
    their_optimizer = TORCH[name](zip(["a", "b"], theirs, strict=True), **RICH[name])
    train(my_optimizer, mine, 3)
    train(their_optimizer, theirs, 3)
    assert my_optimizer.param_groups[0]["param_names"] == ["a", "b"]
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_step_hooks_run_around_the_step(backend, name):
    (param,) = parameters([(3,)])
    optimizer = ours(name)([param], lr=0.1)
    train(optimizer, [param], IDLE.get(name, 0))
    seen = []

    def note(label):
        def hook(stepped, args, kwargs):
            assert stepped is optimizer
            seen.append((label, param.tolist()))

        return hook

    handles = [
        optimizer.register_step_pre_hook(note("own before")),
        optimizer.register_step_post_hook(note("own after")),
        register_optimizer_step_pre_hook(note("any before")),
        register_optimizer_step_post_hook(note("any after")),
    ]
    start = param.tolist()
    try:
        train(optimizer, [param], 1)
    finally:
        for handle in handles:
            handle.remove()
    end = param.tolist()
    assert start != end
    assert seen == [
        ("any before", start),
        ("own before", start),
        ("own after", end),
        ("any after", end),
    ]
    train(optimizer, [param], 1)
    assert len(seen) == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_pre_hook_may_change_the_arguments(backend, name):
    (param,) = parameters([(3,)])
    optimizer = ours(name)([param], lr=0.1)
    called = []

    def closure():
        called.append(1)
        return 7

    optimizer.register_step_pre_hook(lambda stepped, args, kwargs: ((stepped, closure), kwargs))
    give_gradients([param], 1)
    assert optimizer.step() == 7
    assert called == [1]
    optimizer.register_step_pre_hook(lambda *_: 3)
    with pytest.raises(RuntimeError, match="must return None or"):
        optimizer.step()


def _schedulers():
    schedule = torch.optim.lr_scheduler
    return {
        "LambdaLR": lambda o: schedule.LambdaLR(o, lambda epoch: 0.9**epoch),
        "StepLR": lambda o: schedule.StepLR(o, 3),
        "MultiStepLR": lambda o: schedule.MultiStepLR(o, [2, 5]),
        "ExponentialLR": lambda o: schedule.ExponentialLR(o, 0.8),
        "CosineAnnealingLR": lambda o: schedule.CosineAnnealingLR(o, 10),
        "OneCycleLR": lambda o: schedule.OneCycleLR(  # cycles momentum or beta1 too
            o, 0.1, total_steps=20, cycle_momentum="betas" in o.defaults or "momentum" in o.defaults
        ),
        "SequentialLR": lambda o: schedule.SequentialLR(
            o, [schedule.LinearLR(o), schedule.ExponentialLR(o, 0.5)], [4]
        ),
    }


@pytest.mark.parametrize("scheduler", sorted(_schedulers()))
@pytest.mark.parametrize("name", IN_TORCH)
def test_torchs_schedulers_drive_it(backend, name, scheduler):
    my_optimizer, mine, their_optimizer, theirs = _both(name, [(5,)], **RICH[name])
    seen = []
    for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
        with warnings.catch_warnings():
            # SequentialLR steps its own members before the optimizer and warns about it.
            warnings.filterwarnings("ignore", message=".*`lr_scheduler.step\\(\\)` before.*")
            schedule = _schedulers()[scheduler](optimizer)
        rates = []
        for seed in range(1, 9):
            train(optimizer, params, 1, seed)
            schedule.step()
            rates.append(schedule.get_last_lr()[0])
        seen.append(rates)
    assert seen[0] == seen[1]
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_reduce_on_plateau_drives_it(backend, name):
    my_optimizer, mine, their_optimizer, theirs = _both(name, [(5,)], **RICH[name])
    for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        for seed in range(1, 7):
            train(optimizer, params, 1, seed)
            schedule.step(1.0)
    assert my_optimizer.param_groups[0]["lr"] < RICH[name]["lr"]
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrapped_step_still_steps(name):
    """Wrapping `optimizer.step` (profilers, schedulers and trainers do) must reach the rule."""
    (param,) = parameters([(3,)])
    optimizer = ours(name)([param], lr=0.1)
    inner = optimizer.step
    optimizer.step = lambda *args, **kwargs: inner(*args, **kwargs)  # noqa: PLW0108 - a wrapper
    give_gradients([param], 1)
    before = param.detach().clone()
    for _ in range(1 + IDLE.get(name, 0)):
        optimizer.step()
    assert not torch.equal(param, before)


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_step_under_the_profiler(backend, name):
    """The step shows under torch's own label, and is the same step."""
    my_optimizer, mine, their_optimizer, theirs = _both(name, [(5,)], **RICH[name])
    train(their_optimizer, theirs, 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        train(my_optimizer, mine, 1)
    names = {event.key for event in profile.key_averages()}
    assert f"Optimizer.step#{TORCH[name].__name__}.step" in names
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", IN_TORCH)
def test_an_optimizer_of_many_tensors(backend, name):
    """A hundred tensors of different sizes and step counts."""
    count = 100 if backend != "gpu" else 12
    shapes = [(1 + index % 37,) for index in range(count)]
    mine, theirs = parameters(shapes), parameters(shapes)
    my_optimizer, their_optimizer = beside_torch(name, mine, theirs)
    for seed in range(1, 6):
        for optimizer, params in ((my_optimizer, mine), (their_optimizer, theirs)):
            give_gradients(params, seed)
            for param in params[seed::7]:
                param.grad = None
            optimizer.step()
    assert_same_training(my_optimizer, mine, their_optimizer, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_autograd_sees_that_the_parameter_has_changed(backend, name):
    """A backward through a value from before the step is refused, as it is with torch."""
    param = torch.nn.Parameter(tensor(1, (4,)))
    optimizer = ours(name)([param], lr=0.1)
    loss = (param**3).sum()
    give_gradients([param], 1)
    version = param._version
    optimizer.step()
    assert param._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", IN_TORCH)
def test_subclassing_with_another_step_default(backend, name):
    """A user's subclass that presets a hyperparameter."""

    class Slow(ours(name)):
        def __init__(self, params, **options):
            super().__init__(params, lr=1e-4, **options)

    (mine,), (theirs,) = parameters([(4,)]), parameters([(4,)])
    my_optimizer, their_optimizer = Slow([mine]), TORCH[name]([theirs], lr=1e-4)
    train(my_optimizer, [mine], 3)
    train(their_optimizer, [theirs], 3)
    assert_close(mine, theirs)
