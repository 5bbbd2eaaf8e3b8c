"""ScheduleFreeAdamW: AdamW whose averages take the place of a schedule."""

from typing import Annotated, Any

from descend.engine import hyperparameters as hp
from descend.errors import HyperparameterError
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
from descend.rules import Flags, Options, Params, Range, Rule, sqrt


def update(
    param,
    grad,
    z,
    exp_avg_sq,
    exp_avg,
    *,
    lr,
    y_lr,
    towards_z,
    weight_decay,
    beta1,
    beta2,
    mean_scale,
    root_scale,
    eps,
    decayed: bool,
    heavy: bool,
):
    """One step of one element; the parameter is y, `heavy` with a mean of the gradient."""
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * (1 - beta2) * grad
    if heavy:
        exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
        grad = exp_avg * mean_scale
    move = grad / (sqrt(exp_avg_sq) * root_scale + eps)
    if decayed:
        move = move + param * weight_decay
    param = param + (z - param) * towards_z - y_lr * move
    z = z - lr * move
    return param, z, exp_avg_sq, exp_avg


def scalars(options: Options, step: Any, **counters: Any) -> dict[str, Any]:
    """The numbers of a step: where y and z go, and the corrections of the early means."""
    (beta1, beta2), mu_y = options["betas"], options["mu_y"]
    averaged = averaging(options, step, beta1 if mu_y is None else mu_y, **counters)
    return {
        "beta1": beta1,
        "beta2": beta2,
        "mean_scale": 1 / (1 - beta1**step),
        "root_scale": 1 / sqrt(1 - beta2**step),
        "eps": options["eps"],
        **averaged,
    }


def flags(options: Options) -> Flags:
    """The parts of the update that these options ask for."""
    heavy = options["mu_y"] is not None
    if not heavy and options["betas"][0] <= 0:
        raise HyperparameterError(
            f"ScheduleFreeAdamW: betas={options['betas']!r} is not allowed: the first is the share "
            "of x in y, from which x is computed, and must be above 0, unless mu_y says it"
        )
    return {**decayed(options), "heavy": heavy}


class ScheduleFreeAdamW(ScheduleFree):
    r"""ScheduleFreeAdamW: AdamW whose averages take the place of momentum and of a schedule.

    .. math::
        y_t &= \mu x_t + (1 - \mu) z_t, \quad g_t = \nabla f(y_t) \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        z_{t+1} &= z_t - \gamma_t
        \left(\frac{m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} + \lambda y_t\right) \\
        x_{t+1} &= (1 - c_{t+1}) x_t + c_{t+1} z_{t+1} \\
        c_{t+1} &= \frac{w_t}{\sum_{i \le t} w_i}, \quad
        w_t = t^r \left(\max_{i \le t} \gamma_i\right)^p
        \quad\text{or, with mu_x,}\quad c_{t+1} = 1 - \mu_x

    with :math:`\gamma_t` lr, times :math:`\min(t / T, 1)` with T warmup_steps, :math:`\lambda`
    weight_decay, p weight_lr_power, and :math:`x_1 = z_1` the parameter. Schedule-free:
    :math:`\mu = \beta_1` and :math:`m_t = g_t`. With mu_y, :math:`\mu` is mu_y and :math:`m_t`
    AdamW's mean of the gradient with :math:`\beta_1`; with both mu_x and mu_y, generalized primal
    averaging of AdamW. State: two tensors z and exp_avg_sq, 8 bytes a parameter in float32
    (AdamW: 8), 12 with mu_y; 4 more in evaluation.

    The parameters are y in training and x, the model that is wanted, in evaluation: call
    `optimizer.eval()` before a validation and before the model is saved, `optimizer.train()` before
    training goes on. `descend.Trainer` does so by itself; a step in evaluation mode is an error.
    It starts in training mode. Layers that keep means of what they see, such as BatchNorm, have
    those of y: after `eval()` run some training batches through the model in its training mode.

    Take it where the length of the training is not known beforehand. The lr that is best is 1 to
    10 times AdamW's with a schedule; a warmup helps; long trainings may need a :math:`\beta_1` of
    0.95 or 0.98. Generalized primal averaging goes with a schedule: mu_x=0.9967 and mu_y=0.7 are
    its authors' values.

    {arguments}

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = descend.ScheduleFreeAdamW(model.parameters(), warmup_steps=10)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.eval()  # and now validate, or save the model
        >>> optimizer.train()

    Source:
        A. Defazio et al., "The road less scheduled", NeurIPS 2024,
        https://arxiv.org/abs/2405.15682; mu_x and mu_y: A. Defazio et al., "Smoothing DiLoCo with
        primal averaging for faster training of LLMs", 2025, https://arxiv.org/abs/2512.17131.
        Weights and defaults as in the authors' code; it starts in evaluation mode.
    """

    rule = Rule(
        update,
        scalars,
        flags,
        optional={"exp_avg": "heavy"},
        initial={"z": "param"},
        counters=COUNTERS,
    )

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 2.5e-3,
        betas: hp.Betas = (0.9, 0.999),
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 0,
        warmup_steps: WarmupSteps = 0,
        r: WeightPower = 0.0,
        weight_lr_power: WeightLrPower = 2.0,
        mu_x: FixedShare = None,
        mu_y: Annotated[
            float | None,
            Range(0, 1, positive=True, closed=True, optional=True),
            "share of x in y, the rest is z's; None: the first of betas, and no mean of the "
            "gradient",
        ] = None,
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
