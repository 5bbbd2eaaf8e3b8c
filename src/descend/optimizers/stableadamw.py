"""StableAdamW: AdamW that takes a shorter step where the mean square lags behind the gradient."""

from typing import Any

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import decayed
from descend.rules import Measure, Optimizer, Options, Params, Rule, maximum, sqrt, where


def surprise(param, grad, debiased_avg_sq, *, beta2, eps):
    """The square of how much larger a gradient is than its mean square says."""
    debiased_avg_sq = debiased_avg_sq * beta2 + grad * (1 - beta2) * grad
    # A gradient that was never anything but zero, with eps 0, is no 0 / 0.
    share = where(grad == 0, 0.0, grad / maximum(debiased_avg_sq, eps * eps))
    return (grad * share,)


def update(
    param,
    grad,
    debiased_avg,
    debiased_avg_sq,
    *,
    lr,
    weight_decay,
    beta1,
    beta2,
    eps,
    decayed: bool,
):
    """One step of one element; `lr` is the tensor's own."""
    if decayed:
        param = param * (1 - lr * weight_decay)
    debiased_avg = debiased_avg + (grad - debiased_avg) * (1 - beta1)
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    debiased_avg_sq = debiased_avg_sq * beta2 + grad * (1 - beta2) * grad
    # A gradient that was never anything but zero, with eps 0, is no 0 / 0.
    param = param - where(debiased_avg == 0, 0.0, lr * debiased_avg / (sqrt(debiased_avg_sq) + eps))
    return param, debiased_avg, debiased_avg_sq


def _debiased(beta: Any, step: Any) -> Any:
    """The decay of a step with which a mean that starts from zero is none of fewer gradients."""
    return beta * (1 - beta ** (step - 1)) / (1 - beta**step)


def terms_scalars(options: Options, step: Any) -> dict[str, Any]:
    """The numbers of a step that measuring takes."""
    return {"beta2": _debiased(options["betas"][1], step), "eps": options["eps"]}


def scalars(options: Options, step: Any, surprise: Any) -> dict[str, Any]:
    """The numbers of a step: options, decays of means without bias, the lr that is left."""
    return {
        "lr": options["lr"] / maximum(sqrt(surprise), 1.0),
        "weight_decay": options["weight_decay"],
        "beta1": _debiased(options["betas"][0], step),
        "beta2": _debiased(options["betas"][1], step),
        "eps": options["eps"],
    }


class StableAdamW(Optimizer):
    r"""StableAdamW: AdamW that takes a shorter step where the mean square lags behind the gradient.

    .. math::
        \hat\beta_i &= \beta_i \frac{1 - \beta_i^{t-1}}{1 - \beta_i^t} \\
        m_t &= \hat\beta_1 m_{t-1} + (1 - \hat\beta_1) g_t, \quad
        v_t = \hat\beta_2 v_{t-1} + (1 - \hat\beta_2) g_t^2 \\
        r_t &= \sqrt{\operatorname{mean}\left(g_t^2 / \max(v_t, \epsilon^2)\right)}, \quad
        \gamma_t = \gamma / \max(1, r_t) \\
        \theta_t &= (1 - \gamma_t \lambda) \theta_{t-1} - \gamma_t \frac{m_t}{\sqrt{v_t} + \epsilon}

    with :math:`g_t = \nabla f(\theta_{t-1})`, :math:`\gamma` lr, :math:`\lambda` weight_decay; the
    mean is that of the tensor. Where gradients suddenly grow (a layer that begins to learn late, a
    jump of the loss), :math:`v` is too small for some steps, and AdamW's are too long; these are
    as long as ones with the right :math:`v` would be. It takes the place of clipping by norm.
    State: two tensors, 8 bytes a parameter in float32, as AdamW; they are other means than AdamW's
    (without bias), and have other names. Two passes over memory.

    {arguments}

    Source:
        M. Wortsman et al., "Stable and low-precision training for large-scale vision-language
        models", NeurIPS 2023, https://arxiv.org/abs/2304.13013, algorithm 2 (clipping as in
        Adafactor).
    """

    rule = Rule(
        update,
        scalars,
        decayed,
        measure=Measure(surprise, {"surprise": "mean"}, terms_scalars),
        decoupled=True,
    )

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-3,
        betas: hp.Betas = (0.9, 0.99),
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 1e-2,
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
