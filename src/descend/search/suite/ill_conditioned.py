"""A noisy linear regression whose Hessian has the condition number 10,000."""

import torch
from torch import nn
from torch.nn.functional import mse_loss

import descend

INPUTS, SAMPLES = 64, 4000
LARGEST, SMALLEST = 20.0, 0.2  # standard deviations of the inputs along their principal axes
NOISE = 0.3  # standard deviation, beside 1 of the targets


def task() -> descend.Task:
    """Find 64 weights from 3,000 samples; 1,000 are for validation.

    The Hessian of the mean square is twice the inputs' covariance, whose eigenvalues run from 400
    down to 0.04; the axes are rotated, so that no scale for each weight undoes it. All directions
    matter: the targets' variance along an axis falls with the square root of its eigenvalue alone.
    No loss falls below the noise's 0.09.
    """
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(INPUTS, INPUTS, generator=generator, dtype=torch.float64))[0]
    scales = torch.logspace(0, 1, INPUTS, SMALLEST / LARGEST, dtype=torch.float64) * LARGEST
    along = torch.randn(SAMPLES, INPUTS, generator=generator, dtype=torch.float64)
    weights = torch.randn(INPUTS, 1, generator=generator, dtype=torch.float64)
    y = along @ (scales[:, None] ** 0.25 * weights)
    y = y / y.std()
    y += NOISE * torch.randn(SAMPLES, 1, generator=generator, dtype=torch.float64)
    x, y = (along * scales @ axes).float(), y.float()
    return descend.Task(
        model=nn.Linear(INPUTS, 1),
        train=(x[1000:], y[1000:]),
        validation=(x[:1000], y[:1000]),
        loss=mse_loss,
        batch_size=32,
        epochs=60,
    )
