"""ScheduleFreeAdamW: AdamW whose average of all points takes the place of a schedule."""

from typing import Annotated, Any

from torch import Tensor

from descend.checks import Pair
from descend.engine import hyperparameters as hp
from descend.optimizers.averaging import (
    COUNTERS,
    AveragingOptimizer,
    LrPower,
    MuX,
    Power,
    WarmupSteps,
    averaging,
)
from descend.optimizers.decay import decayed
from descend.rules import Options, Params, Range, Rule, sqrt, where


def update(
    param,
    grad,
    z,
    exp_avg_sq,
    *,
    lr,
    pull,
    share,
    weight_decay,
    beta2,
    root_scale,
    eps,
    decayed: bool,
):
    """One step of one element: of `param`, where the gradient was taken, and of `z`."""
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * (1 - beta2) * grad
    # A gradient that was never anything but zero, with eps 0, is no 0 / 0.
    step = where(grad == 0, 0.0, grad / (sqrt(exp_avg_sq) * root_scale + eps))
    if decayed:
        step = step + param * weight_decay
    param = param + (z - param) * share - pull * step
    return param, z - lr * step, exp_avg_sq


def scalars(options: Options, step: Any, weight_sum: Any, lr_max: Any) -> dict[str, Any]:
    """The numbers of a step: options, the correction of the early mean, the average's."""
    beta1, beta2 = options["betas"]
    found = averaging(options, step, beta1, weight_sum, lr_max)
    return {
        "lr": found["lr"],
        "pull": found["pull"],
        "share": found["share"],
        "weight_decay": options["weight_decay"],
        "beta2": beta2,
        "root_scale": 1 / sqrt(1 - beta2**step),
        "eps": options["eps"],
        "weight_sum": found["weight_sum"],
        "lr_max": found["lr_max"],
    }


class ScheduleFreeAdamW(AveragingOptimizer):
    r"""ScheduleFreeAdamW: AdamW whose average of all points takes the place of a schedule.

    .. math::
        y_t &= \beta_1 x_t + (1 - \beta_1) z_t, \quad g_t = \nabla f(y_t) \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        z_{t+1} &= z_t - \gamma_t \left(\frac{g_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}
        + \lambda y_t \right) \\
        x_{t+1} &= (1 - c_{t}) x_t + c_{t} z_{t+1}, \quad
        c_{t} = \frac{t^r \max_{i \le t} \gamma_i^p}{\sum_{j \le t} j^r \max_{i \le j} \gamma_i^p}

    with :math:`\gamma_t` lr (rising over `warmup_steps`), :math:`\lambda` weight_decay, p
    weight_lr_power. While training the parameters hold y; `optimizer.eval()` puts the average x
    into them, and `optimizer.train()` y again. Both are needed: what is good is the average.

        optimizer.train()            # before each epoch's batches
        ...
        optimizer.eval()             # before validation, and before the weights are saved

    descend's `Trainer` and Accelerate call them. lr needs no schedule and is 1 to 10 times as large
    as AdamW's; the end of the training need not be known. `mu_x` makes it generalized primal
    averaging: the average forgets, c is :math:`1 - \mu_x` in each step, and the first beta is that
    paper's :math:`\mu_y`. The first beta must not change in mid-training: x follows from it.
    Layers with running statistics (BatchNorm) have those of y: renew them at x, as
    `descend.swa_utils.update_bn` does. State: two tensors, 8 bytes a parameter in float32, as
    AdamW.

    {arguments}

    Source:
        A. Defazio et al., "The road less scheduled", NeurIPS 2024,
        https://arxiv.org/abs/2405.15682; A. Defazio et al., "Smoothing DiLoCo with primal averaging
        for faster training of LLMs", 2025, https://arxiv.org/abs/2512.17131 (mu_x).
    """

    rule = Rule(update, scalars, decayed, initial={"z": "param"}, counters=COUNTERS)

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 0.0025,
        betas: Annotated[
            tuple[float | Tensor, float | Tensor],
            Pair(Range(0, 1, positive=True, tensor=True), Range(0, 1, tensor=True)),
            "share of the average in the point where gradients are taken; decay per step of the "
            "mean of the gradient's square",
        ] = (0.9, 0.999),
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 0,
        warmup_steps: WarmupSteps = 0,
        r: Power = 0.0,
        weight_lr_power: LrPower = 2.0,
        *,
        mu_x: MuX = None,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        capturable: hp.Capturable = False,
        differentiable: hp.Differentiable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
    ) -> None:
        super().__init__(params, locals())

    def _beta(self, group: dict[str, Any]) -> float:
        return float(group["betas"][0])
