"""Lion: steps of one size, in the direction of the sign of momentum and gradient."""

from typing import Annotated, Any

from torch import Tensor

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import decayed
from descend.rules import Optimizer, Options, Params, Range, Rule, sign


def update(param, grad, exp_avg, *, lr, weight_decay, beta1, beta2, decayed: bool):
    """One step of one element."""
    if decayed:
        param = param * (1 - lr * weight_decay)
    param = param - sign(exp_avg * beta1 + grad * (1 - beta1)) * lr
    exp_avg = exp_avg * beta2 + grad * (1 - beta2)
    return param, exp_avg


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """The options that are numbers, the pair as two."""
    beta1, beta2 = options["betas"]
    return {
        "lr": options["lr"],
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
    }


class Lion(Optimizer):
    r"""Lion: steps of one size, in the direction of the sign of momentum and gradient.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) \\
        \theta_t &= \theta_{t-1} - \gamma \left(
        \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) + \lambda \theta_{t-1} \right) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    with :math:`\gamma` lr, :math:`\lambda` weight_decay. Every element moves by lr: the paper
    recommends a third to a tenth of AdamW's lr, and a weight_decay larger by as much.

    {arguments}

    Source:
        X. Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023,
        https://arxiv.org/abs/2302.06675
    """

    rule = Rule(update, scalars, decayed, counts_steps=False, decoupled=True)

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-4,
        betas: Annotated[
            tuple[float | Tensor, float | Tensor],
            Range(0, 1, count=2, tensor=True),
            "share of the momentum in the direction of a step, and its decay per step",
        ] = (0.9, 0.99),
        weight_decay: hp.WeightDecay = 0,
        *,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        capturable: hp.Capturable = False,
        differentiable: hp.Differentiable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
        cautious: hp.Cautious = False,
        cautious_weight_decay: hp.CautiousWeightDecay = False,
    ) -> None:
        super().__init__(params, locals())
