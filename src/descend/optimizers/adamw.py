"""AdamW: Adam with weight decay apart from the gradient."""

from descend.engine import hyperparameters as hp
from descend.optimizers.adam import Adam, AmsGrad
from descend.rules import Params


class AdamW(Adam):
    r"""AdamW: Adam with weight decay apart from the gradient.

    .. math::
        \theta'_{t-1} &= (1 - \gamma \lambda) \theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= \theta'_{t-1} - \gamma
        \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with :math:`g_t = \nabla f(\theta_{t-1})`, :math:`\gamma` lr, :math:`\lambda` weight_decay.

    {arguments}

    Source:
        I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019,
        https://arxiv.org/abs/1711.05101. The decay is multiplied by lr, as in torch.
    """

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-3,
        betas: hp.Betas = (0.9, 0.999),
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 1e-2,
        amsgrad: AmsGrad = False,
        *,
        maximize: hp.Maximize = False,
        foreach: hp.Foreach = None,
        capturable: hp.Capturable = False,
        differentiable: hp.Differentiable = False,
        fused: hp.Fused = None,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
        cautious: hp.Cautious = False,
        cautious_weight_decay: hp.CautiousWeightDecay = False,
    ) -> None:
        # Adam's own constructor would do no more than this.
        super(Adam, self).__init__(params, {**locals(), "decoupled_weight_decay": True})
