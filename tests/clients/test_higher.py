"""higher, which looks up how to differentiate an optimizer by its very class."""

import pytest
import torch

import descend
from clients.beside import assert_beside, network, samples


@pytest.fixture
def higher(client):
    return client("higher")


@pytest.mark.parametrize("kind", ["Adam", "SGD", "RMSprop"])
def test_steps_are_differentiated_once_the_class_is_registered(higher, kind, monkeypatch):
    monkeypatch.setattr(higher.optim, "_opt_mapping", dict(higher.optim._opt_mapping))

    def train(optim):
        model = network()
        optimizer = getattr(optim, kind)(model.parameters(), lr=0.01)
        inputs, targets = samples().tensors
        with higher.innerloop_ctx(model, optimizer) as (inner, steps):
            for _ in range(3):
                steps.step(torch.nn.functional.mse_loss(inner(inputs), targets))
            torch.nn.functional.mse_loss(inner(inputs), targets).backward()
        return [param.grad for param in model.parameters()]

    with pytest.raises(ValueError, match="not supported by higher"):
        train(descend)
    differentiable = getattr(higher.optim, f"Differentiable{kind}")
    higher.register_optim(getattr(descend, kind), differentiable)
    assert_beside(train)
