"""NAdam: Adam with Nesterov's look along the momentum."""

from typing import Annotated, Any

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import coupled_or_decoupled
from descend.rules import Optimizer, Options, Params, Range, Rule, sqrt


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
    grad_size,
    mean_size,
    root_scale,
    eps,
    coupled: bool,
    decoupled: bool,
):
    """One step of one element."""
    if decoupled:
        param = param * (1 - lr * weight_decay)
    if coupled:
        grad = grad + param * weight_decay
    exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * (1 - beta2) * grad
    ahead = grad_size * grad + mean_size * exp_avg
    param = param - ahead / (sqrt(exp_avg_sq) * root_scale + eps)
    return param, exp_avg, exp_avg_sq


def scalars(options: Options, step: Any, mu_product: Any) -> dict[str, Any]:
    """The numbers of a step: options, and how far to go along gradient and mean."""
    lr, (beta1, beta2) = options["lr"], options["betas"]
    mu = _momentum(options, step)
    next_mu = _momentum(options, step + 1)
    mu_product = mu_product * mu
    return {
        "lr": lr,
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
        "grad_size": lr * (1 - mu) / (1 - mu_product),
        "mean_size": lr * next_mu / (1 - mu_product * next_mu),
        "root_scale": 1 / sqrt(1 - beta2**step),
        "eps": options["eps"],
        "mu_product": mu_product,
    }


def _momentum(options: Options, step: Any) -> Any:
    """The momentum of a step: it rises from half of beta1 to beta1."""
    return options["betas"][0] * (1 - 0.5 * 0.96 ** (step * options["momentum_decay"]))


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov's look along the momentum.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \mu_t &= \beta_1 \left(1 - \tfrac{1}{2} \, 0.96^{t \psi}\right) \\
        \hat m_t &= \frac{\mu_{t+1} m_t}{1 - \prod_{i=1}^{t+1} \mu_i}
        + \frac{(1 - \mu_t) g_t}{1 - \prod_{i=1}^{t} \mu_i} \\
        \theta_t &= \theta_{t-1} - \gamma
        \frac{\hat m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with :math:`\gamma` lr, :math:`\lambda` weight_decay, :math:`\psi` momentum_decay.

    {arguments}

    Source:
        T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016,
        https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ. The mean decays by
        :math:`\beta_1`, as in torch; the paper has :math:`\mu_t`.
    """

    rule = Rule(
        update,
        scalars,
        coupled_or_decoupled,
        counters={"mu_product": 1.0},
        decoupled="decoupled_weight_decay",
    )
    last_in_groups = "foreach capturable differentiable"

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 2e-3,
        betas: hp.Betas = (0.9, 0.999),
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 0,
        momentum_decay: Annotated[
            float, Range(0), "how fast the momentum rises from half of its final value"
        ] = 4e-3,
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
