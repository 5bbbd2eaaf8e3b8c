"""Adam: steps scaled by running means of the gradient and of its square."""

from typing import Annotated, Any

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import coupled_or_decoupled
from descend.rules import Flags, Optimizer, Options, Params, Rule, Switch, maximum, sqrt

AmsGrad = Annotated[bool, Switch(), "divide by the largest mean square so far (AMSGrad)"]


def update(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    max_exp_avg_sq,
    *,
    lr,
    weight_decay,
    beta1,
    beta2,
    step_size,
    root_scale,
    eps,
    coupled: bool,
    decoupled: bool,
    amsgrad: bool,
):
    """One step of one element."""
    if decoupled:
        param = param * (1 - lr * weight_decay)
    if coupled:
        grad = grad + param * weight_decay
    exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * (1 - beta2) * grad
    if amsgrad:
        max_exp_avg_sq = maximum(max_exp_avg_sq, exp_avg_sq)
    root = sqrt(max_exp_avg_sq if amsgrad else exp_avg_sq)
    param = param - step_size * exp_avg / (root * root_scale + eps)
    return param, exp_avg, exp_avg_sq, max_exp_avg_sq


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """The numbers of a step: options, and the corrections of the early means."""
    lr, (beta1, beta2) = options["lr"], options["betas"]
    return {
        "lr": lr,
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
        "step_size": lr / (1 - beta1**step),
        "root_scale": 1 / sqrt(1 - beta2**step),
        "eps": options["eps"],
    }


def flags(options: Options) -> Flags:
    """The parts of the update that these options ask for."""
    return {"amsgrad": bool(options["amsgrad"]), **coupled_or_decoupled(options)}


class Adam(Optimizer):
    r"""Adam: steps scaled by running means of the gradient and of its square.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \gamma
        \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with :math:`\gamma` lr, :math:`\lambda` weight_decay. AMSGrad puts the largest
    :math:`v` so far under the root.

    {arguments}

    Source:
        D. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015,
        https://arxiv.org/abs/1412.6980; S. Reddi et al., "On the convergence of Adam and beyond",
        ICLR 2018, https://arxiv.org/abs/1904.09237 (AMSGrad).
    """

    rule = Rule(
        update,
        scalars,
        flags,
        optional={"max_exp_avg_sq": "amsgrad"},
        decoupled="decoupled_weight_decay",
    )
    last_in_groups = "foreach capturable differentiable fused decoupled_weight_decay"

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-3,
        betas: hp.Betas = (0.9, 0.999),
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 0,
        amsgrad: AmsGrad = False,
        *,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        capturable: hp.Capturable = False,
        differentiable: hp.Differentiable = False,
        fused: hp.Fused = None,
        decoupled_weight_decay: hp.DecoupledWeightDecay = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
        cautious: hp.Cautious = False,
        cautious_weight_decay: hp.CautiousWeightDecay = False,
    ) -> None:
        super().__init__(params, locals())
