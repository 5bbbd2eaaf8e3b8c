"""SparseAdam: Adam on the rows that a sparse gradient holds; all others stay as they are."""

from typing import Annotated, Any

from descend.engine import hyperparameters as hp
from descend.optimizers.decay import decayed
from descend.rules import Optimizer, Options, Params, Range, Rule, sqrt

START = hp.Hyperparameter(
    "lr",
    1e-3,
    Range(0, positive=True, tensor=True, hint="a schedule may set it to 0 later"),
    "step size at the start",
)


def update(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    *,
    weight_decay,
    beta1,
    beta2,
    step_size,
    eps,
    decayed: bool,
):
    """One step of one element."""
    if decayed:
        grad = grad + param * weight_decay
    exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
    # Not the square first: that of 1e20 is beyond float32, though the mean may hold it.
    exp_avg_sq = exp_avg_sq * beta2 + grad * (1 - beta2) * grad
    param = param - step_size * exp_avg / (sqrt(exp_avg_sq) + eps)
    return param, exp_avg, exp_avg_sq


def scalars(options: Options, step: Any) -> dict[str, Any]:
    """The numbers of a step: options; the step size corrects the early means."""
    beta1, beta2 = options["betas"]
    return {
        "weight_decay": options["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
        "step_size": options["lr"] * sqrt(1 - beta2**step) / (1 - beta1**step),
        "eps": options["eps"],
    }


class SparseAdam(Optimizer):
    r"""SparseAdam: Adam on the rows that a sparse gradient holds; all others stay as they are.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \gamma \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
        \frac{m_t}{\sqrt{v_t} + \epsilon}

    for the rows that the gradient holds, with :math:`\gamma` lr, :math:`\lambda` weight_decay and
    :math:`t` the steps of the whole parameter. So the means of a row do not decay while it is not
    used, and neither does the row itself.

    Gradients must be of the layout torch.sparse_coo, as `torch.nn.Embedding(sparse=True)` and
    `torch.nn.EmbeddingBag(sparse=True)` make them; Adam takes dense ones. There is no
    `capturable`: how many rows a gradient holds is known only when it is computed, and a CUDA
    graph is captured for one size.

    {arguments}

    Raises:
        HyperparameterError: a value outside its range.
        ParameterError: parameters that cannot be optimized, such as sparse ones.

    Example:
        >>> import torch, descend
        >>> table = torch.nn.Embedding(1000, 8, sparse=True)
        >>> optimizer = descend.SparseAdam(table.parameters(), lr=1e-3)
        >>> table(torch.tensor([3, 7, 3])).sum().backward()
        >>> optimizer.step()

    Source:
        D. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, the variant
        at the end of section 2, https://arxiv.org/abs/1412.6980; the rows are torch.optim's idea.
    """

    rule = Rule(update, scalars, decayed, sparse=lambda flags: True, dense=False)

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-3,
        betas: hp.Betas = (0.9, 0.999),
        eps: Annotated[
            float, Range(0, positive=True), "added to the denominator, against division by zero"
        ] = 1e-8,
        maximize: hp.Maximize = False,
        *,
        weight_decay: Annotated[
            float, Range(0), "strength of the pull of the gradient's rows towards zero"
        ] = 0,
        differentiable: hp.Differentiable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
    ) -> None:
        # Only here, as in torch: a schedule may well begin or end with 0.
        hp.validate("SparseAdam", {"lr": START}, {"lr": lr}, "")
        super().__init__(params, locals())

    def state_dict(self) -> dict[str, Any]:
        """The state as plain containers, as torch.optim has it.

        Returns:
            As for every optimizer, with step counts as plain numbers: torch's SparseAdam computes
            with what it loads, and a float32 count would cost it half of its digits.
        """
        result = super().state_dict()
        result["state"] = {
            key: {**entry, "step": int(entry["step"])}
            if isinstance(entry, dict) and "step" in entry
            else entry
            for key, entry in result["state"].items()
        }
        return result
