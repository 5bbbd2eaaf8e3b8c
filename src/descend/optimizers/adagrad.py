"""Adagrad: steps scaled by the sum of all squared gradients so far."""

from typing import Annotated, Any

import torch

from descend.engine import hyperparameters as hp
from descend.engine.step_inputs import counted
from descend.engine.tensor_layout import filled_like
from descend.optimizers.decay import decayed
from descend.rules import Optimizer, Options, Params, Range, Rule, sqrt


def update(param, grad, sum, *, step_size, weight_decay, eps, decayed: bool):
    """One step of one element."""
    if decayed:
        grad = grad + param * weight_decay
    sum = sum + grad * grad
    param = param - step_size * grad / (sqrt(sum) + eps)
    return param, sum


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """The numbers of a step: the learning rate that has decayed so far, and options."""
    return {
        "step_size": options["lr"] / (1 + (step - 1) * options["lr_decay"]),
        "weight_decay": options["weight_decay"],
        "eps": options["eps"],
    }


class Adagrad(Optimizer):
    r"""Adagrad: steps scaled by the sum of all squared gradients so far.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        s_t &= s_{t-1} + g_t^2, \quad s_0 = \tau \\
        \theta_t &= \theta_{t-1} -
        \frac{\gamma}{1 + (t - 1) \eta} \frac{g_t}{\sqrt{s_t} + \epsilon}

    with :math:`\gamma` lr, :math:`\lambda` weight_decay, :math:`\eta` lr_decay, :math:`\tau`
    initial_accumulator_value.

    {arguments}

    Source:
        J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and
        stochastic optimization", JMLR 12, 2011, https://jmlr.org/papers/v12/duchi11a.html
    """

    rule = Rule(
        update,
        scalars,
        decayed,
        initial={"sum": "initial_accumulator_value"},
        sparse=lambda flags: not flags["decayed"],
    )
    last_in_groups = "weight_decay initial_accumulator_value foreach maximize differentiable fused"

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-2,
        lr_decay: Annotated[float, Range(0), "how fast lr falls, per step"] = 0,
        weight_decay: hp.WeightDecay = 0,
        initial_accumulator_value: Annotated[float, Range(0), "what the sum starts from"] = 0,
        eps: hp.Epsilon = 1e-10,
        foreach: hp.Foreach = None,
        *,
        maximize: hp.Maximize = False,
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

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its state exists from the start, as in torch.

        Args:
            param_group: see `Optimizer.add_param_group`.

        Raises:
            DescendError: see `Optimizer.add_param_group`.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        start = self.rule.start("sum", group)
        # Not by `init_state`, which refuses parameters that no step can take: a model has quantized
        # or expanded ones too, frozen.
        try:
            state = [filled_like(param, start) for param in group["params"]]
        except BaseException:
            self.param_groups.pop()
            raise
        for param, value in zip(group["params"], state, strict=True):
            device = param.device if group.get("capturable") else torch.device("cpu")
            self.state[param] = {"step": counted("step", 0.0, device), "sum": value}
        self._stepper.ahead.update(group["params"])
