"""LAMB: Adam whose step of each tensor is as long as the tensor itself, times lr."""

from typing import Annotated, Any

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import decayed
from descend.rules import (
    Measure,
    Optimizer,
    Options,
    Params,
    Rule,
    Switch,
    sqrt,
    where,
)


def lengths(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    *,
    weight_decay,
    beta1,
    beta2,
    mean_scale,
    root_scale,
    eps,
    decayed: bool,
):
    """The squares of a parameter and of Adam's step, decay included."""
    exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
    exp_avg_sq = exp_avg_sq * beta2 + grad * (1 - beta2) * grad
    # A gradient that was never anything but zero, with eps 0, is no 0 / 0.
    step = where(exp_avg == 0, 0.0, mean_scale * exp_avg / (sqrt(exp_avg_sq) * root_scale + eps))
    if decayed:
        step = step + param * weight_decay
    return param * param, step * step


def update(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    *,
    lr,
    weight_decay,
    beta1,
    beta2,
    mean_scale,
    root_scale,
    eps,
    decayed: bool,
):
    """One step of one element; `lr` is the tensor's own."""
    exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * (1 - beta2) * grad
    # A gradient that was never anything but zero, with eps 0, is no 0 / 0.
    step = where(exp_avg == 0, 0.0, mean_scale * exp_avg / (sqrt(exp_avg_sq) * root_scale + eps))
    if decayed:
        step = step + param * weight_decay
    param = param - lr * step
    return param, exp_avg, exp_avg_sq


def terms_scalars(options: Options, step: Any) -> dict[str, Any]:
    """The numbers of a step that measuring takes: options, and corrections of the early means."""
    beta1, beta2 = options["betas"]
    return {
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
        "mean_scale": 1 / (1 - beta1**step),
        "root_scale": 1 / sqrt(1 - beta2**step),
        "eps": options["eps"],
    }


def scalars(options: Options, step: Any, param_squares: Any, step_squares: Any) -> dict[str, Any]:
    """The numbers of a step, with the lr of each tensor."""
    lr = options["lr"]
    if options["trust_ratio"]:
        # Of zeros, such as a bias that has just begun, a step cannot be a share.
        ratio = where(step_squares > 0, sqrt(param_squares) / sqrt(step_squares), 1.0)
        lr = lr * where(param_squares > 0, ratio, 1.0)
    return {"lr": lr, **terms_scalars(options, step)}


class LAMB(Optimizer):
    r"""LAMB: Adam whose step of each tensor is as long as the tensor itself, times lr.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        u_t &= \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}
        + \lambda \theta_{t-1} \\
        \theta_t &= \theta_{t-1} - \gamma \frac{\|\theta_{t-1}\|_2}{\|u_t\|_2} u_t

    with :math:`g_t = \nabla f(\theta_{t-1})`, :math:`\gamma` lr, :math:`\lambda` weight_decay; the
    norms are those of the tensor. Where one of them is zero their ratio counts as 1. It is made for
    very large batches, whose lr is so high that layers of small weights would be torn apart.
    Biases and norms, whose size says little, are usually left without ratio and decay:

        LAMB([{"params": weights}, {"params": rest, "trust_ratio": False, "weight_decay": 0}])

    State: two tensors, 8 bytes a parameter in float32, as AdamW; two passes over memory.

    {arguments}

    Source:
        Y. You et al., "Large batch optimization for deep learning: training BERT in 76 minutes",
        ICLR 2020, https://arxiv.org/abs/1904.00962, algorithm 2, with the corrections of the early
        means that its version 1 lacks.
    """

    rule = Rule(
        update,
        scalars,
        decayed,
        measure=Measure(lengths, {"param_squares": "sum", "step_squares": "sum"}, terms_scalars),
    )

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-3,
        betas: hp.Betas = (0.9, 0.999),
        eps: hp.Epsilon = 1e-6,
        weight_decay: hp.WeightDecay = 0,
        trust_ratio: Annotated[
            bool, Switch(), "scale the step to the tensor's own length; False: Adam's step"
        ] = True,
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
