"""ASGD: stochastic gradient descent that keeps the average of where it has been."""

from typing import Annotated, Any

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import decayed
from descend.rules import Optimizer, Options, Params, Range, Rule, maximum, where


def update(param, grad, ax, *, lambd, weight_decay, step_size, share, decayed: bool):
    """One step of one element; `share` is that of the newest parameter in the average."""
    if decayed:
        grad = grad + param * weight_decay
    param = param * (1 - lambd * step_size) - grad * step_size
    ax = where(share == 1, param, ax + (param - ax) * share)
    return param, ax


def scalars(options: Options, step: Any, eta: Any, mu: Any) -> dict[str, Any]:
    """The numbers of a step, which uses the rates that the one before it left."""
    lr, lambd = options["lr"], options["lambd"]
    return {
        "lambd": lambd,
        "weight_decay": options["weight_decay"],
        "step_size": eta,
        "share": mu,
        "eta": lr * (1 + lambd * lr * step) ** -options["alpha"],
        "mu": 1 / maximum(step - options["t0"], 1),
    }


class ASGD(Optimizer):
    r"""ASGD: stochastic gradient descent that keeps the average of where it has been.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        \theta_t &= (1 - \lambda' \eta_{t-1}) \theta_{t-1} - \eta_{t-1} g_t \\
        \bar\theta_t &= \bar\theta_{t-1} + \mu_{t-1} (\theta_t - \bar\theta_{t-1}) \\
        \eta_t &= \gamma (1 + \lambda' \gamma t)^{-\alpha}, \quad
        \mu_t = 1 / \max(1, t - t_0)

    with :math:`\gamma` lr, :math:`\lambda` weight_decay, :math:`\lambda'` lambd. The average
    :math:`\bar\theta` is `optimizer.state[parameter]["ax"]`.

    {arguments}

    Source:
        B. Polyak and A. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J.
        Control Optim. 30, 1992; W. Xu, "Towards optimal one pass large scale learning with
        averaged stochastic gradient descent", 2011, https://arxiv.org/abs/1107.2490 (the rates).
        As in torch, a new lr is used from the step after next on.
    """

    rule = Rule(update, scalars, decayed, counters={"eta": "lr", "mu": 1.0})

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-2,
        lambd: Annotated[
            float, Range(0), "pull of every parameter towards zero; it makes lr fall, too"
        ] = 1e-4,
        alpha: Annotated[float, Range(0), "power of the fall of lr"] = 0.75,
        t0: Annotated[
            float, Range(infinite=True), "the step from which on the average is taken"
        ] = 1e6,
        weight_decay: hp.WeightDecay = 0,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        differentiable: hp.Differentiable = False,
        capturable: hp.Capturable = False,
        *,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
        cautious: hp.Cautious = False,
        cautious_weight_decay: hp.CautiousWeightDecay = False,
    ) -> None:
        super().__init__(params, locals())
