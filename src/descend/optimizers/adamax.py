"""Adamax: Adam with the largest recent gradient in place of the mean square."""

from typing import Annotated, Any

from torch import Tensor

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import decayed
from descend.rules import Optimizer, Options, Params, Range, Rule, absolute, maximum


def update(
    param, grad, exp_avg, exp_inf, *, weight_decay, beta1, beta2, step_size, eps, decayed: bool
):
    """One step of one element."""
    if decayed:
        grad = grad + param * weight_decay
    exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
    exp_inf = maximum(exp_inf * beta2, absolute(grad) + eps)
    param = param - step_size * exp_avg / exp_inf
    return param, exp_avg, exp_inf


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """The numbers of a step: options, and the correction of the early means."""
    beta1, beta2 = options["betas"]
    return {
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
        "step_size": options["lr"] / (1 - beta1**step),
        "eps": options["eps"],
    }


class Adamax(Optimizer):
    r"""Adamax: Adam with the largest recent gradient in place of the mean square.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        u_t &= \max(\beta_2 u_{t-1}, |g_t| + \epsilon) \\
        \theta_t &= \theta_{t-1} - \frac{\gamma}{1 - \beta_1^t} \frac{m_t}{u_t}

    with :math:`\gamma` lr, :math:`\lambda` weight_decay.

    {arguments}

    Source:
        D. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, section 7.1,
        https://arxiv.org/abs/1412.6980. Epsilon is added to the gradient's magnitude, as in torch.
    """

    rule = Rule(update, scalars, decayed)

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 2e-3,
        betas: Annotated[
            tuple[float | Tensor, float | Tensor],
            Range(0, 1, count=2, tensor=True),
            "decay per step of the gradient's running mean and of its largest magnitude",
        ] = (0.9, 0.999),
        eps: Annotated[
            float, Range(0), "added to the gradient's magnitude, against division by zero"
        ] = 1e-8,
        weight_decay: hp.WeightDecay = 0,
        foreach: hp.Foreach = None,
        *,
        maximize: hp.Maximize = False,
        differentiable: hp.Differentiable = False,
        capturable: hp.Capturable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
        cautious: hp.Cautious = False,
        cautious_weight_decay: hp.CautiousWeightDecay = False,
    ) -> None:
        super().__init__(params, locals())
