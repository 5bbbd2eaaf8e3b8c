"""How many bicycles are rented in an hour, by the weather and the calendar."""

import torch
from torch import nn
from torch.nn.functional import mse_loss, one_hot

import descend
from descend.search.suite.data import load_rentals


def task() -> descend.Task:
    """Predict the logarithm of the rentals of 17,379 hours; 3,000 are for validation."""
    table = load_rentals()
    numbers = torch.stack([table[name].float() for name in ("temperature", "humidity", "wind")], 1)
    flags = torch.stack([table[name] for name in ("year", "holiday", "workingday")], 1)
    kinds = [one_hot(table[name]) for name in ("month", "hour", "weekday", "weather")]
    x = torch.cat([(numbers - numbers.mean(0)) / numbers.std(0), flags, *kinds], 1)
    y = table["rentals"].float().log1p().unsqueeze(1)
    y = (y - y.mean()) / y.std()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return descend.Task(
        model=nn.Sequential(
            nn.Linear(x.shape[1], 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
        ),
        train=(x[3000:], y[3000:]),
        validation=(x[:3000], y[:3000]),
        loss=mse_loss,
        batch_size=64,
        epochs=20,
    )
