"""torch.compile: what is compiled around an optimizer trains as what is not."""

import warnings

import pytest
import torch
from torch import nn

import descend
from base.test_base_class import plain, with_gradients


@pytest.fixture
def dynamo():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports modules that warn of their own deprecations
        import torch._dynamo

        torch._dynamo.reset()
        yield torch._dynamo
        torch._dynamo.reset()


def trained(make, wrap_model=lambda model: model, wrap_step=lambda step: step, steps=4):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    run = wrap_model(model)
    optimizer = make(run.parameters(), lr=0.05)

    def step(inputs):
        optimizer.zero_grad()
        loss = run(inputs).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    compiled = wrap_step(step)
    losses = [compiled(torch.full((4, 3), float(i))).item() for i in range(steps)]
    return losses, [param.detach() for param in model.parameters()]


def compiled(function):
    return torch.compile(function, backend="eager")


@pytest.mark.parametrize("where", ["model", "step", "both"])
@pytest.mark.parametrize("kind", ["AdamW", "SGD", "own step"])
def test_compiled_training_is_training(dynamo, where, kind):
    make = plain(descend.Optimizer) if kind == "own step" else getattr(descend, kind)
    expected, expected_params = trained(make)
    wraps = {}
    if where in ("model", "both"):
        wraps["wrap_model"] = compiled
    if where in ("step", "both"):
        wraps["wrap_step"] = compiled
    losses, found = trained(make, **wraps)
    assert losses == pytest.approx(expected, rel=1e-6)
    for param, value in zip(found, expected_params, strict=True):
        torch.testing.assert_close(param, value)


def test_a_compiled_step_runs_hooks(dynamo):
    for make in (descend.SGD, plain(descend.Optimizer)):
        optimizer, seen = make(with_gradients((2,)), lr=0.5), []
        optimizer.register_step_post_hook(lambda *_, seen=seen: seen.append(1))
        run = compiled(lambda optimizer=optimizer: optimizer.step())
        run()
        run()
        assert seen == [1, 1]
        assert optimizer.param_groups[0]["params"][0].tolist() != [1.0, 2.0]


def test_the_method_itself_may_be_compiled(dynamo):
    made = with_gradients((2,))
    step = compiled(descend.SGD(made, lr=0.5).step)
    step()
    step()
    assert made[0].tolist() == [0.0, pytest.approx(1 / 11)]


@pytest.mark.parametrize(
    "call",
    [
        lambda o, run: run(o.step)(),
        lambda o, run: run(o.zero_grad)(),
        lambda o, run: run(o.state_dict)(),
        lambda o, run: run(o.load_state_dict)(o.state_dict()),
        lambda o, run: run(o.add_param_group)({"params": with_gradients((1,))}),
        lambda o, run: run(o.to)("cpu"),
    ],
)
def test_no_method_is_traced(dynamo, call):
    """A trace would guard on what the groups and the state hold, and be made again."""
    optimizer = descend.AdamW(with_gradients((2,)))
    optimizer.step()
    before = dynamo.utils.counters["frames"]["total"]
    call(optimizer, compiled)
    assert dynamo.utils.counters["frames"]["total"] == before


def test_one_graph_for_all_is_refused_in_torchs_words(dynamo):
    optimizer = descend.SGD(with_gradients((2,)), lr=0.5)

    def step():
        optimizer.step()

    with pytest.raises(dynamo.exc.Unsupported):
        torch.compile(step, backend="eager", fullgraph=True)()
    assert optimizer.param_groups[0]["params"][0].tolist() == [1.0, pytest.approx(1 + 1 / 11)]
