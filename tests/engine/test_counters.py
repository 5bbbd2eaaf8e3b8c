"""Numbers beside the step count: kept per parameter, one value a step, on every backend."""

import torch
from torch.nn import Parameter

import descend
from descend.engine.rule import Rule


def update(param, grad, mean, *, rate):
    mean = mean + grad
    return param - rate * mean, mean


def scalars(options, step, product, rest):
    return {"rate": product * rest, "product": product * options["lr"], "rest": rest + step}


class Counting(descend.SGD):
    rule = Rule(update, scalars, counters={"product": 1.0, "rest": "lr"})


def stepped(params, steps, optimizer=None, **options):
    optimizer = optimizer or Counting(params, **options)
    for _ in range(steps):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
    return optimizer


def expected(steps, lr=0.5):
    param, mean, product, rest = 2.0, 0.0, 1.0, lr
    for step in range(1, steps + 1):
        mean += 1
        param -= product * rest * mean
        product, rest = product * lr, rest + step
    return param, product, rest


def test_they_advance_once_a_step(backend):
    # Two chunks of the CPU kernel: the first alone writes the counts.
    sizes = (3, 0, 40_000 if backend != "gpu" else 3_000)
    params = [Parameter(torch.full((size,), 2.0)) for size in sizes]
    optimizer = stepped(params, 4, lr=0.5)
    param, product, rest = expected(4)
    for tensor in params:
        state = optimizer.state[tensor]
        assert list(state) == ["step", "product", "rest", "mean"]
        assert (state["step"].item(), state["product"].item(), state["rest"].item()) == (
            4,
            product,
            rest,
        )
        assert state["product"].dtype is torch.float64
        assert tensor.unique().tolist() in ([param], [])


def test_each_parameter_has_its_own(backend):
    early, late = Parameter(torch.full((3,), 2.0)), Parameter(torch.full((3,), 2.0))
    optimizer = Counting([early, late], lr=0.5)
    stepped([early], 2, optimizer)
    early.grad = None
    stepped([late], 1, optimizer)
    stepped([early, late], 2, optimizer)
    assert early.tolist() == [expected(4)[0]] * 3
    assert late.tolist() == [expected(3)[0]] * 3


def test_one_changed_by_hand_is_used(backend):
    params = [Parameter(torch.full((3,), 2.0)) for _ in range(2)]
    optimizer = stepped(params, 2, lr=0.5)
    optimizer.state[params[1]]["product"].fill_(0.0)
    before = params[1].tolist()
    stepped(params, 1, optimizer)
    assert params[1].tolist() == before
    assert params[0].tolist() == [expected(3)[0]] * 3


def test_a_nan_among_them_is_no_endless_search(backend):
    params = [Parameter(torch.full((3,), 2.0)) for _ in range(2)]
    optimizer = stepped(params, 1, lr=0.5)
    for param in params:
        optimizer.state[param]["product"].fill_(float("nan"))
    stepped(params, 2, optimizer)
    assert all(param.isnan().all() for param in params)
    assert optimizer.state[params[0]]["step"].item() == 3


def test_they_are_saved_and_loaded(backend):
    params = [Parameter(torch.full((3,), 2.0)) for _ in range(2)]
    optimizer = stepped(params, 2, lr=0.5)
    saved = optimizer.state_dict()
    saved["state"][0]["product"] = saved["state"][0]["product"].float()  # as torch would keep it
    other = Counting(params, lr=0.5)
    other.load_state_dict(saved)
    assert other.state[params[0]]["product"].dtype is torch.float64
    stepped(params, 2, other)
    assert params[0].tolist() == params[1].tolist() == [expected(4)[0]] * 3


def test_shared_ones_are_parted(backend):
    params = [Parameter(torch.full((3,), 2.0)) for _ in range(2)]
    optimizer = stepped(params, 1, lr=0.5)
    optimizer.state[params[1]]["product"] = optimizer.state[params[0]]["product"]
    stepped(params, 2, optimizer)
    assert params[0].tolist() == params[1].tolist() == [expected(3)[0]] * 3


def test_captured_steps_keep_them_as_tensors():
    params = [Parameter(torch.full((3,), 2.0))]
    optimizer = Counting(params, lr=0.5)
    optimizer.param_groups[0]["capturable"] = True
    stepped(params, 4, optimizer)
    assert params[0].tolist() == [expected(4)[0]] * 3
    assert optimizer.state[params[0]]["rest"].item() == expected(4)[2]
