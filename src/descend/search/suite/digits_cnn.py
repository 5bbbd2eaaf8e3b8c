"""Handwritten digits and a small convolutional network."""

import torch
from torch import nn

import descend
from descend.training import accuracy
from descend.training.digits import load_digits
from descend.training.images import cnn


def task() -> descend.Task:
    """Tell 1,797 images of 8x8 pixels apart; 720 are for validation.

    Smoothed labels: without them the loss hangs on the few images that are told wrong, and differs
    from seed to seed by as much as between optimizers.
    """
    images, labels = load_digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    validation, train = order[:720], order[720:]
    x = images.float().unsqueeze(1)
    x = (x - x[train].mean()) / x[train].std()
    y = labels.long()
    return descend.Task(
        model=cnn(8, 8, classes=10),
        train=(x[train], y[train]),
        validation=(x[validation], y[validation]),
        loss=nn.CrossEntropyLoss(label_smoothing=0.1),
        metrics={"accuracy": accuracy},
        batch_size=32,
        epochs=16,
    )
