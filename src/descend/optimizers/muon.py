"""Muon: momentum whose matrices are made orthogonal; AdamW for what is no matrix."""

from collections.abc import Callable, Mapping
from functools import partial
from math import sqrt
from typing import Annotated, Any

import torch
from torch import Tensor

from descend.engine import hyperparameters as hp
from descend.engine.rule import AnyRule, Rule, State, WholeRule
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

POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
"""The best polynomial of each step, for singular values from 1e-3 to 1; the last one repeats."""

SAFETY = 1.01
"""By so much every step but the last is shrunk, as roundings may leave a value above 1."""

SMALLEST = 1e-10
"""Added to what rows and matrices are divided by, which may be 0."""


def update(param: Tensor, grad: Tensor, state: State, options: Options, step: Any) -> None:
    """One step of one matrix, or of a tensor taken as the matrix (first dimension, all others)."""
    if not param.numel():
        return
    # Nothing here keeps the matrix: the iteration needs room for no more than itself and the next.
    direction = orthogonalized(_ahead(param, grad, state, options), options)
    _take(param, direction, state, options)


def update_same(
    params: list[Tensor], grads: list[Tensor], states: list[State], options: Options, step: Any
) -> None:
    """One step of matrices of one shape, whose products are made at once."""
    if not params[0].numel():
        return
    ahead = [_ahead(*each, options) for each in zip(params, grads, states, strict=True)]
    stack = torch.stack(ahead)
    del ahead
    directions = orthogonalized(stack, options)
    for param, direction, state in zip(params, directions, states, strict=True):
        _take(param, direction, state, options)


def _take(param: Tensor, direction: Tensor, state: State, options: Options) -> None:
    """Take the step of one matrix in its direction."""
    if options["normalize"] == "rows":
        direction = _rows_evened(direction, state["row_squares"], options["normalize_beta"])
    direction = direction.reshape(param.shape)
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

    products = _products(param, recorded or options["orthogonalize"] == "exact")
    ahead = torch.empty_like(param, dtype=products, memory_format=torch.contiguous_format)
    in_blocks(average, param.dtype, state["momentum_buffer"], grad, ahead, whole=recorded)
    return ahead.view(param.shape[0], -1)


def _rows_evened(direction: Tensor, row_squares: Tensor, beta: float) -> Tensor:
    """A direction whose rows are divided by the root of their mean squares, as long as before."""
    real = direction.to(widened(direction.dtype))
    size = torch.linalg.vector_norm(real)
    squares = real.abs().square().mean(1).to(row_squares.dtype)
    row_squares.lerp_(squares, 1 - beta)
    evened: Tensor = real / (row_squares.sqrt().to(size.dtype) + SMALLEST)[:, None]
    factor: Tensor = size / (torch.linalg.vector_norm(evened) + SMALLEST)
    return evened * factor


def _products(param: Tensor, recorded: bool) -> torch.dtype:
    """The dtype of the matrix products: as in torch, unless there is no such or it has no slope."""
    if recorded:
        return widened(param.dtype)  # rounding to bfloat16 has the derivative zero, or none
    return torch.complex64 if param.is_complex() else torch.bfloat16


def orthogonalized(x: Tensor, options: Options) -> Tensor:
    """About the orthogonal matrix next to this one, or to each of a stack.

    U S V^H becomes U S' V^H. With Newton-Schulz and the default coefficients S' lies between 0.7
    and 1.2, with Polar Express it comes to 1, unless S holds numbers far below its largest. It is 1
    if it is to be exact, and 0 where S is.

    Args:
        x: the matrix, or the stack of matrices, in the dtype of the products.
        options: `orthogonalize`, `ns_coefficients`, `ns_steps`, `eps`.
    """
    if options["orthogonalize"] == "exact":
        return _polar_factor(x)
    express = options["orthogonalize"] == "polar-express"
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    size = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    x = x / (size * SAFETY if express else size).clamp(min=options["eps"])
    add = torch.addmm if x.ndim == 2 else torch.baddbmm  # noqa: PLR2004 - one matrix
    for step in range(options["ns_steps"]):
        a, b, c = _express(step) if express else options["ns_coefficients"]
        gram = x @ x.mH
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _express(step: int) -> tuple[float, float, float]:
    """The polynomial of a step of Polar Express."""
    a, b, c = POLAR_EXPRESS[min(step, len(POLAR_EXPRESS) - 1)]
    if step >= len(POLAR_EXPRESS) - 1:
        return a, b, c
    return a / SAFETY, b / SAFETY**3, c / SAFETY**5


def _polar_factor(x: Tensor) -> Tensor:
    """The orthogonal factor by singular values; where one is 0, no direction is made up."""
    finite = x.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    left, values, right = torch.linalg.svd(torch.where(finite, x, 0), full_matrices=False)
    least = values[..., :1] * max(x.shape[-2:]) * torch.finfo(values.dtype).eps
    factor = (left * (values > least).to(left.dtype)[..., None, :]) @ right
    return torch.where(finite, factor, torch.nan)


def shapes(param: Tensor, flags: Mapping[str, Any]) -> Mapping[str, tuple[int, ...]]:
    """The momentum, of the parameter's shape; and a number for each row."""
    rows = {"row_squares": (param.shape[0],)} if flags["normalize"] == "rows" else {}
    return {"momentum_buffer": param.shape, **rows}


def _flags(options: Options) -> Mapping[str, Any]:
    """The option that the states hang on."""
    return {"normalize": options["normalize"]}


def _dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """The means of squares are real, and of 32 bits at least."""
    return widened(dtype).to_real() if name == "row_squares" else dtype


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

    `orthogonalize="polar-express"` takes the best polynomial of each step in the place of the same
    one: with as many products the singular values come closer to 1. "exact" computes them, which
    takes much longer. `normalize="rows"` (NorMuon) divides each row of X, which is what comes out
    of one neuron, by the root of the running mean of its square, and gives X its size back; the
    state holds a number more for each row. Matrices of one shape are worked on together.

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
        Muon", 2025, https://jeremybernste.in/writing/deriving-muon (spectral_unclamped); N. Amsel
        et al., "The Polar Express", 2025, https://arxiv.org/abs/2505.16932; Z. Li et al.,
        "NorMuon", 2025, https://arxiv.org/abs/2510.05491, and its authors' code (rows). As in
        torch the momentum is a mean rather than a sum; the orthogonal factor is the same.
    """

    rule = WholeRule(
        update, shapes, ("momentum_buffer",), _flags, False, dtype=_dtype, together=update_same
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
        orthogonalize: Annotated[
            str,
            Choice(("newton-schulz", "polar-express", "exact")),
            "the way to the orthogonal matrix; ns_coefficients are of the first, ns_steps of two",
        ] = "newton-schulz",
        normalize: Annotated[
            str | None, Choice((None, "rows")), '"rows": even out the sizes of the rows (NorMuon)'
        ] = None,
        normalize_beta: Annotated[
            float, Range(0, 1), "decay per step of the mean square of each row"
        ] = 0.95,
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
