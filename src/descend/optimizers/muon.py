"""Muon: momentum whose matrices are made orthogonal; AdamW for what is no matrix."""

from collections.abc import Callable, Mapping
from functools import partial
from math import sqrt
from typing import Annotated, Any

import torch
from torch import Tensor

from descend.engine import hyperparameters as hp
from descend.engine.rule import AnyRule, Flags, Rule, State, WholeRule
from descend.errors import ParameterError
from descend.optimizers import adam
from descend.optimizers.blocks import in_blocks, move, widened
from descend.rules import Choice, Optimizer, Options, Params, Range, Switch

ADJUSTED: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, cols: sqrt(max(1, rows / cols)),
    "match_rms_adamw": lambda rows, cols: 0.2 * sqrt(max(rows, cols)),
    "spectral_unclamped": lambda rows, cols: sqrt(rows / cols),
}
"""By what lr is multiplied for a matrix of so many rows and columns."""


def update(param: Tensor, grad: Tensor, state: State, options: Options, step: Any) -> None:
    """One step of one matrix, or of a tensor taken as the matrix (first dimension, all others)."""
    if not param.numel():
        return
    # Nothing here keeps the matrix: the iteration needs room for no more than itself and the next.
    direction = orthogonalized(_ahead(param, grad, state, options), options)
    _take(param, direction.view(param.shape), options)


def update_same(
    params: list[Tensor], grads: list[Tensor], states: list[State], options: Options, step: Any
) -> None:
    """One step of matrices of one shape, whose products are made at once."""
    if not params[0].numel():
        return
    ahead = [_ahead(*each, options) for each in zip(params, grads, states, strict=True)]
    stack = torch.stack(ahead)
    del ahead
    for param, direction in zip(params, orthogonalized(stack, options), strict=True):
        _take(param, direction.reshape(param.shape), options)


def _take(param: Tensor, direction: Tensor, options: Options) -> None:
    """Take the step of one matrix in its direction."""
    rows = param.shape[0]
    lr_factor = ADJUSTED[options["adjust_lr_fn"] or "original"](rows, param.numel() // rows)
    take = partial(move, size=options["lr"] * lr_factor, options=options)
    in_blocks(take, param.dtype, param, direction, whole=bool(options["differentiable"]))


def _ahead(param: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
    """The momentum that a matrix's step is made of, in the dtype of the products; advances it."""
    momentum, recorded = options["momentum"], bool(options["differentiable"])

    def average(mean: Tensor, grad: Tensor, ahead: Tensor) -> None:
        grad = grad.to(mean.dtype)
        mean.lerp_(grad, 1 - momentum)
        ahead.copy_(torch.lerp(grad, mean, momentum) if options["nesterov"] else mean)

    ahead = torch.empty_like(
        param, dtype=_products(param, recorded), memory_format=torch.contiguous_format
    )
    in_blocks(average, param.dtype, state["momentum_buffer"], grad, ahead, whole=recorded)
    return ahead.view(param.shape[0], -1)


def _products(param: Tensor, recorded: bool) -> torch.dtype:
    """The dtype of the matrix products: as in torch, unless there is no such or it has no slope."""
    if recorded:
        return widened(param.dtype)  # rounding to bfloat16 has the derivative zero, or none
    return torch.complex64 if param.is_complex() else torch.bfloat16


def orthogonalized(x: Tensor, options: Options) -> Tensor:
    """About the orthogonal matrix next to this one, or to each of a stack (Newton-Schulz).

    U S V^H becomes U S' V^H; with the default coefficients S' lies between 0.7 and 1.2, unless S
    holds numbers far below its largest.

    Args:
        x: the matrix, or the stack of matrices, in the dtype of the products.
        options: `ns_coefficients`, `ns_steps`, `eps`.
    """
    a, b, c = options["ns_coefficients"]
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=options["eps"])
    add = torch.addmm if x.ndim == 2 else torch.baddbmm  # noqa: PLR2004 - one matrix
    for _ in range(options["ns_steps"]):
        gram = x @ x.mH
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def shapes(param: Tensor, flags: Flags) -> Mapping[str, tuple[int, ...]]:
    """The momentum, of the parameter's shape."""
    return {"momentum_buffer": param.shape}


def _as_adamw(options: Options) -> Options:
    """A group's options as AdamW has them."""
    lr = options["lr"] if options["adamw_lr"] is None else options["adamw_lr"]
    return {
        "lr": lr,
        "betas": options["adamw_betas"],
        "eps": options["adamw_eps"],
        "weight_decay": options["weight_decay"],
        "amsgrad": False,
        "decoupled_weight_decay": True,
    }


ADAMW = Rule(
    adam.update,
    lambda options, step: adam.scalars(_as_adamw(options), step),
    lambda options: adam.flags(_as_adamw(options)),
    optional={"max_exp_avg_sq": "amsgrad"},
)
"""The rule of the parameters that are no matrices."""


class Muon(Optimizer):
    r"""Muon: momentum whose matrices are made orthogonal; AdamW for what is no matrix.

    .. math::
        B_t &= \mu B_{t-1} + (1 - \mu) G_t \\
        \tilde B_t &= \begin{cases}
        \mu B_t + (1 - \mu) G_t & \text{if nesterov} \\
        B_t & \text{otherwise}
        \end{cases} \\
        X_0 &= \tilde B_t / \max(\|\tilde B_t\|_F, \epsilon), \quad
        X_k = a X_{k-1} + (b A_k + c A_k^2) X_{k-1}, \quad A_k = X_{k-1} X_{k-1}^H \\
        \theta_t &= (1 - \gamma \lambda) \theta_{t-1} - \gamma s X_K

    with :math:`G_t = \nabla f(\theta_{t-1})`, :math:`\gamma` lr, :math:`\lambda` weight_decay,
    :math:`\mu` momentum, :math:`(a, b, c)` ns_coefficients, K ns_steps. For a matrix of n rows and
    m columns s is :math:`\sqrt{\max(1, n / m)}`, or :math:`0.2 \sqrt{\max(n, m)}` with
    `adjust_lr_fn="match_rms_adamw"`: its steps have the size of AdamW's, so that AdamW's lr and
    weight decay fit. With "spectral_unclamped" it is :math:`\sqrt{n / m}`: a step changes what
    comes out of a layer by as much, whatever its shape.

    A tensor of more than two dimensions is taken as the matrix (first dimension, all others), as a
    convolution's kernel is (output channels, everything else). Tensors of fewer dimensions (biases,
    norms) are updated by AdamW; so are whole groups that say `adamw=True`, which is meant for
    embeddings and output layers:

        Muon([{"params": hidden}, {"params": rest, "adamw": True, "lr": 3e-4}], lr=0.02)

    `param_groups_matrices(model)` makes such groups by the structure of a model.
    A schedule of lr leaves `adamw_lr` alone; two groups as above are scheduled alike.

    The iteration is computed in bfloat16, as in torch; of complex tensors in complex64; under
    `differentiable` in the parameter's own precision, because rounding has no derivative.

    {arguments}

    Raises:
        HyperparameterError: a value outside its range.
        ParameterError: parameters that cannot be optimized; with adamw=False one that is no matrix.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
        >>> optimizer = descend.Muon(model.parameters(), lr=0.02)
        >>> model(torch.ones(4, 1, 5, 5)).sum().backward()
        >>> optimizer.step()
        >>> [list(optimizer.state[param]) for param in model.parameters()]
        [['momentum_buffer'], ['step', 'exp_avg', 'exp_avg_sq']]

    Source:
        K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024,
        https://kellerjordan.github.io/posts/muon/; J. Liu et al., "Muon is scalable for LLM
        training", 2025, https://arxiv.org/abs/2502.16982 (match_rms_adamw); J. Bernstein, "Deriving
        Muon", 2025, https://jeremybernste.in/writing/deriving-muon (spectral_unclamped). As in
        torch the momentum is a mean rather than a sum; the orthogonal factor is the same.
    """

    rule = WholeRule(
        update, shapes, states=("momentum_buffer",), counts_steps=False, together=update_same
    )

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-3,
        weight_decay: hp.WeightDecay = 0.1,
        momentum: Annotated[float, Range(0), "share of the mean gradient that is kept"] = 0.95,
        nesterov: Annotated[bool, Switch(), "look ahead along the mean gradient (Nesterov)"] = True,
        ns_coefficients: Annotated[
            tuple[float, float, float], Range(count=3), "the polynomial of the iteration"
        ] = (3.4445, -4.7750, 2.0315),
        eps: Annotated[float, Range(0), "smallest norm that a matrix is divided by"] = 1e-7,
        ns_steps: Annotated[
            int, Range(0, 100, whole=True), "how many steps the iteration takes"
        ] = 5,
        adjust_lr_fn: Annotated[
            str | None,
            Choice((None, *ADJUSTED)),
            "how lr follows the shape of a matrix; None is 'original'",
        ] = None,
        *,
        adamw: Annotated[
            bool | None,
            Switch(optional=True),
            "True: all of the group by AdamW, False: none; None: what has fewer than 2 dimensions",
        ] = None,
        adamw_lr: Annotated[
            float | Tensor | None, Range(0, optional=True, tensor=True), "AdamW's lr; None: lr"
        ] = None,
        adamw_betas: hp.Betas = (0.9, 0.999),
        adamw_eps: hp.Epsilon = 1e-8,
        maximize: hp.Maximize = False,
        capturable: hp.Capturable = False,
        differentiable: hp.Differentiable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
    ) -> None:
        super().__init__(params, locals())

    def rule_of(self, param: Tensor, options: Options) -> AnyRule:
        """Muon's rule for matrices, AdamW's for the rest.

        Args:
            param: the parameter.
            options: of its group.

        Raises:
            ParameterError: it is no matrix, and the group says adamw=False.
        """
        if options.get("adamw"):
            return ADAMW
        if param.ndim >= 2:  # noqa: PLR2004 - rows and columns
            return self.rule
        if options.get("adamw") is None:
            return ADAMW
        raise ParameterError(
            f"Muon: with adamw=False a parameter must have at least 2 dimensions, got one of shape "
            f"{tuple(param.shape)}; leave adamw out and AdamW takes it"
        )

    def _refuse_unfit(self, tensors: list[Tensor], group: dict[str, Any]) -> None:
        super()._refuse_unfit(tensors, group)
        for param in tensors:
            self.rule_of(param, {**self.defaults, **group})
