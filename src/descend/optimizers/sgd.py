"""Stochastic gradient descent, with momentum."""

from typing import Annotated, Any

from descend.engine import hyperparameters as hp
from descend.errors import HyperparameterError
from descend.optimizers.decay import decayed
from descend.rules import Flags, Optimizer, Options, Params, Range, Rule, Switch


def update(
    param,
    grad,
    momentum_buffer,
    *,
    lr,
    weight_decay,
    momentum,
    kept,
    added,
    decayed: bool,
    heavy: bool,
    nesterov: bool,
):
    """One step of one element; `heavy` with momentum."""
    if decayed:
        grad = grad + param * weight_decay
    if heavy:
        momentum_buffer = momentum_buffer * kept + grad * added
        grad = grad + momentum_buffer * momentum if nesterov else momentum_buffer
    param = param - grad * lr
    return param, momentum_buffer


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """The numbers of a step: the first gradient fills the buffer undamped."""
    first = step == 1
    momentum = options["momentum"]
    return {
        "lr": options["lr"],
        "weight_decay": options["weight_decay"],
        "momentum": momentum,
        "kept": 0.0 if first else momentum,
        "added": 1.0 if first else 1 - options["dampening"],
    }


def flags(options: Options) -> Flags:
    """The parts of the update that these options ask for."""
    if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
        raise HyperparameterError(
            f"SGD: nesterov=True with momentum={options['momentum']!r} and "
            f"dampening={options['dampening']!r} is not allowed: "
            "it needs a momentum above 0 and dampening=0"
        )
    return {
        **decayed(options),
        "heavy": bool(options["momentum"] != 0),
        "nesterov": bool(options["nesterov"]),
    }


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum, dampening, Nesterov and weight decay.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        b_t &= \mu b_{t-1} + (1 - \tau) g_t, \quad b_1 = g_1 \\
        \theta_t &= \theta_{t-1} - \gamma b_t
        \quad\text{or, with Nesterov,}\quad \theta_{t-1} - \gamma (g_t + \mu b_t)

    with :math:`\gamma` lr, :math:`\lambda` weight_decay, :math:`\mu` momentum,
    :math:`\tau` dampening.

    {arguments}

    Raises:
        HyperparameterError: a value outside its range, or Nesterov without momentum.
        ParameterError: parameters that cannot be optimized.

    Source:
        H. Robbins and S. Monro, "A stochastic approximation method", 1951; B. Polyak, "Some
        methods of speeding up the convergence of iteration methods", 1964; I. Sutskever et al.,
        "On the importance of initialization and momentum in deep learning", ICML 2013. The
        learning rate multiplies the buffer, as in torch, rather than what enters it.
    """

    rule = Rule(
        update,
        scalars,
        flags,
        optional={"momentum_buffer": "heavy"},
        counts_steps=False,
        sparse=lambda flags: not flags["heavy"] and not flags["decayed"],
    )

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-3,
        momentum: Annotated[float, Range(0), "share of the last update that is kept"] = 0,
        dampening: Annotated[float, Range(), "share of a gradient kept out of the buffer"] = 0,
        weight_decay: hp.WeightDecay = 0,
        nesterov: Annotated[bool, Switch(), "look ahead along the buffer (Nesterov)"] = False,
        *,
        maximize: hp.Maximize = False,
        foreach: hp.Foreach = None,
        differentiable: hp.Differentiable = False,
        fused: hp.Fused = None,
        capturable: hp.Capturable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
        cautious: hp.Cautious = False,
        cautious_weight_decay: hp.CautiousWeightDecay = False,
    ) -> None:
        super().__init__(params, locals())
