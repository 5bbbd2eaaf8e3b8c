"""Adagrad: steps scaled by the sum of all squared gradients so far."""

from typing import Annotated, Any

import torch
from torch import Tensor

from descend.base.optimizer import Optimizer, Params
from descend.engine.hyperparameters import (
    Capturable,
    ClipNorm,
    ClipValue,
    Differentiable,
    Epsilon,
    Foreach,
    Fused,
    LearningRate,
    Maximize,
    Options,
    Range,
    SkipNonfinite,
    WeightDecay,
)
from descend.engine.plan import Clipping
from descend.engine.rule import Rule
from descend.engine.step_inputs import counted, filled_like
from descend.engine.vocabulary import sqrt
from descend.optimizers.decay import decayed


def update(
    param: Tensor,
    grad: Tensor,
    sum: Tensor,
    *,
    step_size: float,
    weight_decay: float,
    eps: float,
    decayed: bool,
) -> tuple[Tensor, Tensor]:
    """One step of one element."""
    if decayed:
        grad = grad + param * weight_decay
    sum = sum + grad * grad
    param = param - step_size * grad / (sqrt(sum) + eps)
    return param, sum


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """What depends only on step and options: the learning rate that has decayed so far."""
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

    Args:
        params: tensors, `(name, tensor)` pairs, or dicts with "params" and options of their own.
        {hyperparameters}

    Raises:
        HyperparameterError: a value outside its range.
        ParameterError: parameters that cannot be optimized.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = descend.Adagrad(model.parameters(), lr=1e-2)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()

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

    def __init__(
        self,
        params: Params,
        lr: LearningRate = 1e-2,
        lr_decay: Annotated[float, Range(0), "how fast lr falls, per step"] = 0,
        weight_decay: WeightDecay = 0,
        initial_accumulator_value: Annotated[float, Range(0), "what the sum starts from"] = 0,
        eps: Epsilon = 1e-10,
        foreach: Foreach = None,
        *,
        maximize: Maximize = False,
        differentiable: Differentiable = False,
        fused: Fused = None,
        capturable: Capturable = False,
        clip_norm: ClipNorm = None,
        clip_value: ClipValue = None,
        skip_nonfinite: SkipNonfinite = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
            "capturable": capturable,
        }
        super().__init__(params, defaults, Clipping(clip_norm, clip_value, skip_nonfinite))

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
        try:
            state = [filled_like(param, start) for param in group["params"]]
        except BaseException:
            self.param_groups.pop()
            raise
        for param, value in zip(group["params"], state, strict=True):
            device = param.device if group.get("capturable") else torch.device("cpu")
            self.state[param] = {"step": counted("step", 0.0, device), "sum": value}
        self._stepper.ahead.update(group["params"])
