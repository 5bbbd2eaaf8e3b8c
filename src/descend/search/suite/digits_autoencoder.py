"""Handwritten digits through a bottleneck of 8 numbers."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import mse_loss

import descend
from descend.training.digits import load_digits


def task() -> descend.Task:
    """Draw 1,797 images of 8x8 pixels again; 360 are for validation."""
    images, _ = load_digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = images[order].flatten(1) / 16
    sizes = (64, 128, 64, 8, 64, 128, 64)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return descend.Task(
        model=nn.Sequential(*layers[:-1]),
        train=(x[360:], x[360:]),
        validation=(x[:360], x[:360]),
        loss=mse_loss,
        batch_size=32,
        epochs=80,
    )
