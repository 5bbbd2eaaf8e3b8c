"""Every loss of torch with every optimizer: scalar losses, and vectors with a gradient given."""

import pytest
import torch
from torch import nn

from optimizers.cases import NAMES, RICH, TORCH, assert_close, ours

CLASSES, BATCH = 4, 12

# name -> (the loss, what the targets are)
LOSSES = {
    "L1": (nn.L1Loss, "numbers"),
    "MSE": (nn.MSELoss, "numbers"),
    "SmoothL1": (nn.SmoothL1Loss, "numbers"),
    "Huber": (nn.HuberLoss, "numbers"),
    "BCEWithLogits": (nn.BCEWithLogitsLoss, "shares"),
    "SoftMargin": (nn.SoftMarginLoss, "signs"),
    "PoissonNLL": (nn.PoissonNLLLoss, "shares"),
    "MultiLabelSoftMargin": (nn.MultiLabelSoftMarginLoss, "shares"),
    "MultiMargin": (nn.MultiMarginLoss, "classes"),
    "CrossEntropy": (nn.CrossEntropyLoss, "classes"),
    "CrossEntropy of shares": (nn.CrossEntropyLoss, "shares"),
}
CROSS_ENTROPY = {
    "class weights": {"weight": torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=torch.float64)},
    "ignore_index": {"ignore_index": 2},
    "label smoothing": {"label_smoothing": 0.2},
    "all": {
        "weight": torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=torch.float64),
        "ignore_index": 1,
        "label_smoothing": 0.1,
    },
}


def targets(kind):
    numbers = torch.Generator().manual_seed(5)
    if kind == "classes":
        return torch.randint(CLASSES, (BATCH,), generator=numbers)
    values = torch.randn(BATCH, CLASSES, generator=numbers, dtype=torch.float64)
    return {"numbers": values, "shares": values.softmax(1), "signs": values.sign()}[kind]


def trained(make, loss, kind, options):
    """A small network after a few steps, and its losses."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    inputs = torch.randn(BATCH, 5, dtype=torch.float64)
    optimizer = make(model.parameters(), **options)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        value = loss(model(inputs), targets(kind))
        if value.ndim:
            # One weight per element: the gradient of a vector's weighted sum.
            value.backward(gradient=torch.linspace(0.5, 1.5, value.numel()).view_as(value))
        else:
            value.backward()
        optimizer.step()
        losses.append(value.detach().sum())
    return [*model.parameters(), torch.stack(losses)]


def assert_trains_as_torch(name, loss, kind):
    mine = trained(ours(name), loss, kind, RICH[name])
    theirs = trained(TORCH[name], loss, kind, RICH[name])
    for my_tensor, their_tensor in zip(mine, theirs, strict=True):
        # torch keeps some scalars of NAdam and ASGD in float32.
        close = {"rtol": 1e-6, "atol": 1e-7} if name in ("nadam", "asgd") else {}
        assert_close(my_tensor, their_tensor, **close)
    # The loss is one that trains: it moved every time.
    assert (mine[-1].diff() != 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", sorted(set(NAMES) & set(TORCH)))
def test_every_loss_and_reduction(name, loss, reduction):
    kind, made = LOSSES[loss][1], LOSSES[loss][0](reduction=reduction)
    assert_trains_as_torch(name, made, kind)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("option", CROSS_ENTROPY)
@pytest.mark.parametrize("name", sorted(set(NAMES) & set(TORCH)))
def test_cross_entropy_with_its_options(name, option, reduction):
    loss = nn.CrossEntropyLoss(**CROSS_ENTROPY[option], reduction=reduction)
    assert_trains_as_torch(name, loss, "classes")
