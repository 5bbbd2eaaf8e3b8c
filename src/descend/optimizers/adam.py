"""Adam: steps scaled by running means of the gradient and of its square."""

from typing import Annotated, Any

from torch import Tensor

from descend.base.optimizer import Optimizer, Params
from descend.engine.hyperparameters import (
    Betas,
    Capturable,
    ClipNorm,
    ClipValue,
    DecoupledWeightDecay,
    Differentiable,
    Epsilon,
    Foreach,
    Fused,
    LearningRate,
    Maximize,
    Options,
    SkipNonfinite,
    Switch,
    WeightDecay,
)
from descend.engine.plan import Clipping
from descend.engine.rule import Flags, Rule
from descend.engine.vocabulary import maximum, sqrt
from descend.optimizers.decay import coupled_or_decoupled

AmsGrad = Annotated[bool, Switch(), "divide by the largest mean square so far (AMSGrad)"]


def update(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor,
    *,
    decay: float,
    weight_decay: float,
    rest1: float,
    beta2: float,
    rest2: float,
    step_size: float,
    root_scale: float,
    eps: float,
    coupled: bool,
    decoupled: bool,
    amsgrad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step of one element; `rest1` is 1 - beta1, `rest2` is 1 - beta2."""
    if decoupled:
        param = param * decay
    if coupled:
        grad = grad + param * weight_decay
    exp_avg = exp_avg + (grad - exp_avg) * rest1
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * rest2 * grad
    if amsgrad:
        max_exp_avg_sq = maximum(max_exp_avg_sq, exp_avg_sq)
        root = sqrt(max_exp_avg_sq)
    else:
        root = sqrt(exp_avg_sq)
    param = param - step_size * exp_avg / (root * root_scale + eps)
    return param, exp_avg, exp_avg_sq, max_exp_avg_sq


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """What depends only on step and options: decay, and the corrections of the early means."""
    lr, (beta1, beta2) = options["lr"], options["betas"]
    return {
        "decay": 1 - lr * options["weight_decay"],
        "weight_decay": options["weight_decay"],
        "rest1": 1 - beta1,
        "beta2": beta2,
        "rest2": 1 - beta2,
        "step_size": lr / (1 - beta1**step),
        "root_scale": 1 / sqrt(1 - beta2**step),
        "eps": options["eps"],
    }


def flags(options: Options) -> Flags:
    """Which parts of the update these options ask for."""
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

    Args:
        params: tensors, `(name, tensor)` pairs, or dicts with "params" and options of their own.
        {hyperparameters}

    Raises:
        HyperparameterError: a value outside its range.
        ParameterError: parameters that cannot be optimized.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = descend.Adam(model.parameters(), lr=1e-3)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()

    Source:
        D. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015,
        https://arxiv.org/abs/1412.6980; S. Reddi et al., "On the convergence of Adam and beyond",
        ICLR 2018, https://arxiv.org/abs/1904.09237 (AMSGrad).
    """

    rule = Rule(update, scalars, flags, optional={"max_exp_avg_sq": "amsgrad"})

    def __init__(
        self,
        params: Params,
        lr: LearningRate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Epsilon = 1e-8,
        weight_decay: WeightDecay = 0,
        amsgrad: AmsGrad = False,
        *,
        foreach: Foreach = None,
        maximize: Maximize = False,
        capturable: Capturable = False,
        differentiable: Differentiable = False,
        fused: Fused = None,
        decoupled_weight_decay: DecoupledWeightDecay = False,
        clip_norm: ClipNorm = None,
        clip_value: ClipValue = None,
        skip_nonfinite: SkipNonfinite = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, Clipping(clip_norm, clip_value, skip_nonfinite))
