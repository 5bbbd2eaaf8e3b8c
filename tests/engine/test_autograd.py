"""What autograd, the profiler and the compiler see of a step that they did not run."""

import warnings

import pytest
import torch
from torch.nn import Parameter

import descend
from optimizers.cases import NAMES, ours


@pytest.mark.parametrize("name", NAMES)
def test_backward_through_stepped_parameters_is_refused(backend, name):
    param = Parameter(torch.ones(3))
    optimizer = ours(name)([param], lr=0.1)
    loss = (param**3).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    assert [record["backend"] for record in optimizer.explain()] == [backend]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_counter_that_requires_a_gradient_gets_one(decoupled):
    """`differentiable`: what a step makes of NAdam's product of momenta is recorded as well."""

    def stepped(param, product):
        param = param.clone()
        param.grad = torch.ones_like(param)
        optimizer = descend.NAdam(
            [param], lr=0.9, differentiable=True, decoupled_weight_decay=decoupled
        )
        state = {"exp_avg": 0.5 * torch.ones_like(param), "exp_avg_sq": torch.ones_like(param)}
        optimizer.state[param] = {
            "step": torch.tensor(10.0),
            **state,
            "mu_product": product.clone(),
        }
        optimizer.step()
        return param, optimizer.state[param]["mu_product"]

    param = torch.rand(3, dtype=torch.float64, requires_grad=True)
    product = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stepped, (param, product))


def test_a_profiler_sees_the_step():
    param = Parameter(torch.ones(3))
    optimizer = descend.SGD([param], lr=0.1)
    param.grad = torch.ones(3)
    with torch.profiler.profile() as profile:
        optimizer.step()
    assert "Optimizer.step#SGD.step" in {event.key for event in profile.key_averages()}
    torch.testing.assert_close(param.detach(), torch.full((3,), 0.9))


def test_p54_a_compiled_step_never_recompiles_for_a_new_lr():
    # Dynamo imports modules that warn of deprecations of their own.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch._dynamo

        torch._dynamo.reset()
        model = torch.nn.Linear(3, 2)
        optimizer = descend.AdamW(model.parameters(), lr=0.01)
        inputs = torch.ones(4, 3)

        @torch.compile(backend="eager")
        def train():
            optimizer.zero_grad()
            loss = model(inputs).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        losses = [train().item()]
        counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for _ in range(5):
            optimizer.param_groups[0]["lr"] *= 0.7
            losses.append(train().item())
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == counted
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses)
