"""ADOPT: Adam whose gradients are normalized by the squares of the steps before."""

import math
from typing import Annotated, Any

from torch import Tensor

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import coupled_or_decoupled
from descend.rules import (
    Flags,
    Optimizer,
    Options,
    Params,
    Range,
    Rule,
    maximum,
    minimum,
    sqrt,
    where,
)


def update(
    param,
    grad,
    exp_avg_normed,
    exp_avg_sq,
    *,
    lr,
    weight_decay,
    beta1,
    beta2,
    begun,
    limit,
    eps,
    coupled: bool,
    decoupled: bool,
    clipped: bool,
):
    """One step of one element; before it has begun, only the mean square is."""
    if decoupled:
        param = param * (1 - lr * weight_decay)
    if coupled:
        grad = grad + param * weight_decay
    # A gradient that was never anything but zero, with eps 0, is no 0 / 0.
    normed = where(grad == 0, 0.0, grad / maximum(sqrt(exp_avg_sq), eps))
    if clipped:
        normed = minimum(maximum(normed, -limit), limit)
    # Chosen, not multiplied by 0: what was divided by nothing yet may be infinite.
    mean = exp_avg_normed + (normed - exp_avg_normed) * (1 - beta1)
    exp_avg_normed = where(begun > 0, mean, exp_avg_normed)
    param = param - lr * exp_avg_normed
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * (1 - beta2) * grad
    return param, exp_avg_normed, exp_avg_sq


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """The numbers of a step: options, whether it is a later one than the first, the clip's limit.

    In the first nothing moves or decays, as with an lr of 0, and the mean square takes the square
    as it is, as with a beta2 of 0.
    """
    beta1, beta2 = options["betas"]
    exponent, begun = options["clip_exponent"], step > 1
    return {
        "lr": where(begun, options["lr"], 0.0),
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": where(begun, beta2, 0.0),
        "begun": begun,
        "limit": math.inf if exponent is None else maximum(step - 1, 1) ** exponent,
        "eps": options["eps"],
    }


def flags(options: Options) -> Flags:
    """The parts of the update that these options ask for."""
    return {"clipped": options["clip_exponent"] is not None, **coupled_or_decoupled(options)}


class ADOPT(Optimizer):
    r"""ADOPT: Adam whose gradients are normalized by the squares of the steps before.

    .. math::
        g_t &= \nabla f(\theta_t) + \lambda \theta_t, \quad v_0 = g_0^2, \quad m_0 = 0 \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \operatorname{clip}\left(
        \frac{g_t}{\max(\sqrt{v_{t-1}}, \epsilon)}, \pm t^\kappa \right) \\
        \theta_{t+1} &= \theta_t - \gamma m_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2

    with :math:`\gamma` lr, :math:`\lambda` weight_decay, :math:`\kappa` clip_exponent. It
    converges for any :math:`\beta_2`, which Adam does not: the gradient of a step has no part in
    what divides it. The first step, of :math:`t = 0`, only begins the mean square. State: two
    tensors, 8 bytes a parameter in float32, as AdamW's; the mean is of normalized gradients and has
    a name of its own, so that no state of Adam's is taken for it.

    {arguments}

    Source:
        S. Taniguchi et al., "ADOPT: modified Adam can converge with any :math:`\beta_2` with the
        optimal rate", NeurIPS 2024, https://arxiv.org/abs/2411.02853. Clipped as in the authors'
        code, where a function of :math:`t` stands for the exponent.
    """

    rule = Rule(update, scalars, flags, decoupled="decoupled_weight_decay")

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-3,
        betas: Annotated[
            tuple[float | Tensor, float | Tensor],
            Range(0, 1, count=2, tensor=True),
            "decay per step of the running means of the normalized gradient and of the square",
        ] = (0.9, 0.9999),
        eps: Annotated[
            float, Range(0), "the smallest denominator, against division by zero"
        ] = 1e-6,
        clip_exponent: Annotated[
            float | None,
            Range(0, optional=True),
            "normalized gradients are cut to the number of steps to this power; None: they are not",
        ] = 0.25,
        weight_decay: hp.WeightDecay = 0,
        decoupled_weight_decay: hp.DecoupledWeightDecay = False,
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
