"""ScheduleFreeSGD: gradient descent whose averages take the place of a schedule."""

from typing import Annotated, Any

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import decayed
from descend.optimizers.schedule_free import (
    COUNTERS,
    FixedShare,
    ScheduleFree,
    WarmupSteps,
    WeightLrPower,
    WeightPower,
    averaging,
)
from descend.rules import Options, Params, Range, Rule


def update(param, grad, z, *, lr, y_lr, towards_z, weight_decay, decayed: bool):
    """One step of one element; the parameter is y."""
    if decayed:
        grad = grad + param * weight_decay
    param = param + (z - param) * towards_z - y_lr * grad
    z = z - lr * grad
    return param, z


def scalars(options: Options, step: Any, **counters: Any) -> dict[str, Any]:
    """The numbers of a step."""
    return averaging(options, step, options["momentum"], **counters)


class ScheduleFreeSGD(ScheduleFree):
    r"""ScheduleFreeSGD: gradient descent whose averages take the place of a schedule.

    .. math::
        y_t &= \mu x_t + (1 - \mu) z_t \\
        z_{t+1} &= z_t - \gamma_t (\nabla f(y_t) + \lambda y_t) \\
        x_{t+1} &= (1 - c_{t+1}) x_t + c_{t+1} z_{t+1} \\
        c_{t+1} &= \frac{w_t}{\sum_{i \le t} w_i}, \quad
        w_t = t^r \left(\max_{i \le t} \gamma_i\right)^p
        \quad\text{or, with mu_x,}\quad c_{t+1} = 1 - \mu_x

    with :math:`\gamma_t` lr, times :math:`\min(t / T, 1)` with T warmup_steps, :math:`\mu`
    momentum, :math:`\lambda` weight_decay, p weight_lr_power, and :math:`x_1 = z_1` the parameter.
    State: one tensor z, 4 bytes a parameter in float32 (SGD with momentum: 4); 8 in evaluation.

    The parameters are y in training and x, the model that is wanted, in evaluation: call
    `optimizer.eval()` before a validation and before the model is saved, `optimizer.train()` before
    training goes on. `descend.Trainer` does so by itself; a step in evaluation mode is an error.
    It starts in training mode. Layers that keep means of what they see, such as BatchNorm, have
    those of y: after `eval()` run some training batches through the model in its training mode.

    Take it where the length of the training is not known beforehand. The lr that is best is larger
    than with a schedule, often 10 to 50 times that of SGD. Without decay of the lr there is nothing
    to plan, but a warmup helps.

    {arguments}

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = descend.ScheduleFreeSGD(model.parameters(), lr=0.5, warmup_steps=10)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.eval()  # and now validate, or save the model
        >>> optimizer.train()

    Source:
        A. Defazio et al., "The road less scheduled", NeurIPS 2024,
        https://arxiv.org/abs/2405.15682; mu_x: A. Defazio et al., "Smoothing DiLoCo with primal
        averaging for faster training of LLMs", 2025, https://arxiv.org/abs/2512.17131. Weights and
        defaults as in the authors' code; it starts in evaluation mode.
    """

    rule = Rule(update, scalars, decayed, initial={"z": "param"}, counters=COUNTERS)

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1.0,
        momentum: Annotated[
            float, Range(0, 1, positive=True, closed=True), "share of x in y, the rest is z's"
        ] = 0.9,
        weight_decay: hp.WeightDecay = 0,
        warmup_steps: WarmupSteps = 0,
        r: WeightPower = 0.0,
        weight_lr_power: WeightLrPower = 2.0,
        mu_x: FixedShare = None,
        *,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        capturable: hp.Capturable = False,
        differentiable: hp.Differentiable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
    ) -> None:
        super().__init__(params, locals())
