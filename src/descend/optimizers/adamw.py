"""AdamW: Adam with weight decay apart from the gradient."""

from descend.base.optimizer import Params
from descend.engine.hyperparameters import (
    Betas,
    Capturable,
    ClipNorm,
    ClipValue,
    Differentiable,
    Epsilon,
    Foreach,
    Fused,
    LearningRate,
    Maximize,
    SkipNonfinite,
    WeightDecay,
)
from descend.optimizers.adam import Adam, AmsGrad


class AdamW(Adam):
    r"""AdamW: Adam with weight decay apart from the gradient.

    .. math::
        \theta'_{t-1} &= (1 - \gamma \lambda) \theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= \theta'_{t-1} - \gamma
        \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with :math:`g_t = \nabla f(\theta_{t-1})`, :math:`\gamma` lr, :math:`\lambda` weight_decay.

    Args:
        params: tensors, `(name, tensor)` pairs, or dicts with "params" and options of their own.
        {hyperparameters}

    Raises:
        HyperparameterError: a value outside its range.
        ParameterError: parameters that cannot be optimized.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = descend.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()

    Source:
        I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019,
        https://arxiv.org/abs/1711.05101. The decay is multiplied by lr, as in torch.
    """

    def __init__(
        self,
        params: Params,
        lr: LearningRate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Epsilon = 1e-8,
        weight_decay: WeightDecay = 1e-2,
        amsgrad: AmsGrad = False,
        *,
        maximize: Maximize = False,
        foreach: Foreach = None,
        capturable: Capturable = False,
        differentiable: Differentiable = False,
        fused: Fused = None,
        clip_norm: ClipNorm = None,
        clip_value: ClipValue = None,
        skip_nonfinite: SkipNonfinite = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            clip_norm=clip_norm,
            clip_value=clip_value,
            skip_nonfinite=skip_nonfinite,
        )
