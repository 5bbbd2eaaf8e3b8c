"""ScheduleFreeSGD: SGD whose average of all points takes the place of a schedule."""

from typing import Annotated, Any

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
from descend.rules import Options, Params, Range, Rule


def update(param, grad, z, *, lr, pull, share, weight_decay, decayed: bool):
    """One step of one element: of `param`, where the gradient was taken, and of `z`."""
    step = grad
    if decayed:
        step = step + param * weight_decay
    param = param + (z - param) * share - pull * step
    return param, z - lr * step


def scalars(options: Options, step: Any, weight_sum: Any, lr_max: Any) -> dict[str, Any]:
    """The numbers of a step: the decay, and those of the average."""
    found = averaging(options, step, options["momentum"], weight_sum, lr_max)
    return {
        "lr": found["lr"],
        "pull": found["pull"],
        "share": found["share"],
        "weight_decay": options["weight_decay"],
        "weight_sum": found["weight_sum"],
        "lr_max": found["lr_max"],
    }


class ScheduleFreeSGD(AveragingOptimizer):
    r"""ScheduleFreeSGD: SGD whose average of all points takes the place of a schedule.

    .. math::
        y_t &= \beta x_t + (1 - \beta) z_t, \quad g_t = \nabla f(y_t) + \lambda y_t \\
        z_{t+1} &= z_t - \gamma_t g_t \\
        x_{t+1} &= (1 - c_{t}) x_t + c_{t} z_{t+1}, \quad
        c_{t} = \frac{t^r \max_{i \le t} \gamma_i^p}{\sum_{j \le t} j^r \max_{i \le j} \gamma_i^p}

    with :math:`\beta` momentum, :math:`\gamma_t` lr (rising over `warmup_steps`), :math:`\lambda`
    weight_decay, p weight_lr_power. `optimizer.eval()` before evaluating and saving,
    `optimizer.train()` before training, as of `ScheduleFreeAdamW`, which also says what `mu_x` is.
    lr is 10 to 50 times as large as that of SGD with momentum and a schedule. State: one tensor, 4
    bytes a parameter in float32, as SGD with momentum.

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
        lr: hp.LearningRate = 1.0,
        momentum: Annotated[
            float,
            Range(0, 1, positive=True),
            "share of the average in the point where gradients are taken",
        ] = 0.9,
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
        return float(group["momentum"])
