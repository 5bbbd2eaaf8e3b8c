"""MARS: AdamW on gradients that are corrected by how they have changed since the last step."""

from typing import Annotated, Any

from descend.engine import hyperparameters as hp
from descend.rules import (
    Flags,
    Measure,
    Optimizer,
    Options,
    Params,
    Range,
    Rule,
    Switch,
    maximum,
    sqrt,
    where,
)


def length(param, grad, previous_grad, *, correction):
    """The square of a corrected gradient."""
    corrected = grad + (grad - previous_grad) * correction
    return (corrected * corrected,)


def update(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    previous_grad,
    *,
    lr,
    weight_decay,
    beta1,
    beta2,
    correction,
    shrink,
    step_size,
    root_scale,
    eps,
    decayed: bool,
    adamw: bool,
):
    """One step of one element."""
    corrected = grad
    if not adamw:
        corrected = (grad + (grad - previous_grad) * correction) * shrink
    if decayed:
        param = param * (1 - lr * weight_decay)
    exp_avg = exp_avg + (corrected - exp_avg) * (1 - beta1)
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + corrected * (1 - beta2) * corrected
    # A gradient that was never anything but zero, with eps 0, is no 0 / 0.
    step = where(exp_avg == 0, 0.0, step_size * exp_avg / (sqrt(exp_avg_sq) * root_scale + eps))
    # "+ 0": what becomes a state is a value of its own.
    return param - step, exp_avg, exp_avg_sq, grad + 0.0


def terms_scalars(options: Options, step: Any) -> dict[str, Any]:
    """The number of a step that measuring takes."""
    return {"correction": _correction(options)}


def scalars(options: Options, step: Any, squares: Any) -> dict[str, Any]:
    """The numbers of a step, and by how much each tensor's gradient is shortened."""
    lr, (beta1, beta2) = options["lr"], options["betas"]
    return {
        "lr": lr,
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
        "correction": _correction(options),
        "shrink": 1 / maximum(sqrt(squares), 1.0),
        "step_size": lr / (1 - beta1**step),
        "root_scale": 1 / sqrt(1 - beta2**step),
        "eps": options["eps"],
    }


def _correction(options: Options) -> Any:
    """The share of its change that a gradient is corrected by."""
    beta1 = options["betas"][0]
    return options["gamma"] * beta1 / (1 - beta1)


def flags(options: Options) -> Flags:
    """The parts of the update that these options ask for."""
    return {"decayed": bool(options["weight_decay"] != 0), "adamw": bool(options["adamw"])}


class MARS(Optimizer):
    r"""MARS: AdamW on gradients that are corrected by how they have changed since the last step.

    .. math::
        c_t &= g_t + \kappa \frac{\beta_1}{1 - \beta_1} (g_t - g_{t-1}), \quad
        \tilde c_t = c_t / \max(1, \|c_t\|_2) \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \tilde c_t, \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) \tilde c_t^2 \\
        \theta_t &= (1 - \gamma \lambda) \theta_{t-1} - \gamma
        \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with :math:`g_t = \nabla f(\theta_{t-1})` and :math:`g_0 = 0`, :math:`\gamma` lr,
    :math:`\lambda` weight_decay, :math:`\kappa` gamma; the norm is that of the tensor. The
    correction reduces the variance of the mean, as that of stochastic recursive momentum does; the
    authors call this form, which takes the last batch's gradient as it was, MARS-AdamW approximate.

    They leave norms and biases to AdamW: a group that says `adamw=True`, with betas and lr of its
    own. State: three tensors, 12 bytes a parameter in float32 (AdamW: 8); two passes over memory.

    {arguments}

    Source:
        H. Yuan et al., "MARS: unleashing the power of variance reduction for training large
        models", ICML 2025, https://arxiv.org/abs/2411.10438, algorithm 2.
    """

    rule = Rule(
        update,
        scalars,
        flags,
        measure=Measure(length, {"squares": "sum"}, terms_scalars),
        decoupled=True,
    )

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 3e-3,
        betas: hp.Betas = (0.95, 0.99),
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 0,
        gamma: Annotated[
            float, Range(0), "weight of the correction; 0.025 is the authors' for language models"
        ] = 0.025,
        adamw: Annotated[
            bool, Switch(), "take the gradients of this group as they are, as AdamW does"
        ] = False,
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
