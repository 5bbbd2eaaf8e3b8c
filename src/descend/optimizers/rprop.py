"""Rprop: steps that follow only the sign of the gradient, each element at its own pace."""

from typing import Annotated, Any

from torch import Tensor

from descend.engine import hyperparameters as hp
from descend.engine.vocabulary import maximum, minimum, sign, where
from descend.errors import HyperparameterError
from descend.optimizers.decay import decayed
from descend.rules import Flags, Optimizer, Options, Pair, Params, Range, Rule


def update(
    param,
    grad,
    prev,
    step_size,
    *,
    weight_decay,
    shrink,
    growth,
    smallest,
    largest,
    decayed: bool,
):
    """One step of one element."""
    if decayed:
        grad = grad + param * weight_decay
    # The signs' product, not the product's sign: that of two small gradients underflows.
    agreement = sign(grad) * sign(prev)
    slower = where(agreement < 0, step_size * shrink, step_size)
    step_size = where(agreement > 0, step_size * growth, slower)
    step_size = minimum(maximum(step_size, smallest), largest)
    grad = where(agreement < 0, 0.0, grad)
    param = param - sign(grad) * step_size
    return param, grad, step_size


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """The options that are numbers, the pairs as two each."""
    shrink, growth = options["etas"]
    smallest, largest = options["step_sizes"]
    return {
        "weight_decay": options["weight_decay"],
        "shrink": shrink,
        "growth": growth,
        "smallest": smallest,
        "largest": largest,
    }


def flags(options: Options) -> Flags:
    """The parts of the update that these options ask for."""
    smallest, largest = options["step_sizes"]
    if smallest > largest:
        raise HyperparameterError(
            f"Rprop: step_sizes={options['step_sizes']!r} is not allowed: the first, the smallest "
            "step, must be no larger than the second"
        )
    return decayed(options)


class Rprop(Optimizer):
    r"""Rprop: steps that follow only the sign of the gradient, each element at its own pace.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        \Delta_t &= \begin{cases}
        \min(\eta^+ \Delta_{t-1}, \Delta_{\max}) & \text{if } g_t g_{t-1} > 0 \\
        \max(\eta^- \Delta_{t-1}, \Delta_{\min}) \text{ and then } g_t = 0
        & \text{if } g_t g_{t-1} < 0 \\
        \Delta_{t-1} & \text{otherwise}
        \end{cases}, \quad \Delta_0 = \gamma \\
        \theta_t &= \theta_{t-1} - \operatorname{sign}(g_t) \Delta_t

    with :math:`\gamma` lr, :math:`\lambda` weight_decay, :math:`(\eta^-, \eta^+)` etas,
    :math:`(\Delta_{\min}, \Delta_{\max})` step_sizes. It is meant for gradients of the whole data
    rather than of a batch.

    {arguments}

    Source:
        M. Riedmiller and H. Braun, "A direct adaptive method for faster backpropagation learning:
        the RPROP algorithm", ICNN 1993; C. Igel and M. Huesken, "Improving the Rprop learning
        algorithm", NC 2000 (iRprop-, which forgets a gradient after a change of sign, as torch
        does).
    """

    rule = Rule(update, scalars, flags, initial={"step_size": "lr"})
    last_in_groups = "capturable"

    def __init__(
        self,
        params: Params,
        lr: Annotated[
            float | Tensor, Range(0, tensor=True), "step size of every element at its first step"
        ] = 1e-2,
        etas: Annotated[
            tuple[float, float],
            Pair(Range(0, 1, positive=True), Range(1, positive=True)),
            "factors of a step size after a change of sign, and after none",
        ] = (0.5, 1.2),
        step_sizes: Annotated[
            tuple[float, float],
            Range(0, count=2, infinite=True),
            "the smallest and the largest step size",
        ] = (1e-6, 50),
        *,
        capturable: hp.Capturable = False,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        differentiable: hp.Differentiable = False,
        weight_decay: hp.WeightDecay = 0,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
        cautious: hp.Cautious = False,
        cautious_weight_decay: hp.CautiousWeightDecay = False,
    ) -> None:
        super().__init__(params, locals())
