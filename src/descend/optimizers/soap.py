"""SOAP: Adam in the eigenbases of Shampoo's preconditioners; AdamW for what has none."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import inf, prod
from typing import Annotated, Any

import torch
from torch import Tensor

from descend.engine import hyperparameters as hp
from descend.engine.rule import AnyRule, State
from descend.engine.tensor_layout import DENSE_TYPES
from descend.optimizers import adam
from descend.optimizers.blocks import in_blocks, move, widened
from descend.rules import Optimizer, Options, Params, Range, Rule, Switch, WholeRule

MATRICES = ("preconditioner", "basis")
"""The state tensors of each preconditioned dimension, whose number follows."""

ROUNDINGS = 8
"""How many roundings of the largest eigenvalue may make one that is really 0."""

SMALLEST = 1e-30
"""The least size that a direction is divided by, where its size is made 1."""


def folded(shape: Sequence[int], options: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape that a parameter is taken in: its own, or with neighbouring dimensions merged.

    Args:
        shape: the parameter's.
        options: `merge_dims`, and `max_precond_dim`, which no product of merged ones exceeds.

    Example:
        >>> folded((8, 4, 3, 3), {"merge_dims": True, "max_precond_dim": 100})
        (96, 3)
    """
    if not options["merge_dims"]:
        return tuple(shape)
    merged, size = [], 1
    for length in shape:
        if size * length <= options["max_precond_dim"]:
            size *= length
            continue
        if size > 1:
            merged.append(size)
        size = length
    return (*merged, size) if size > 1 or not merged else tuple(merged)


def preconditioned(shape: Sequence[int], options: Mapping[str, Any]) -> tuple[int, ...]:
    """The dimensions, of the shape that a parameter is taken in, that have a preconditioner.

    Args:
        shape: the parameter's.
        options: `merge_dims`, `max_precond_dim`, `precondition_1d`.
    """
    if not prod(shape) or len(shape) < 1 + (not options["precondition_1d"]):
        return ()
    # The only basis of a dimension of length 1 changes nothing.
    taken = enumerate(folded(shape, options))
    return tuple(dim for dim, size in taken if 1 < size <= options["max_precond_dim"])


def update(param: Tensor, grad: Tensor, state: State, options: Options, step: Any) -> None:
    """One step of one parameter."""
    update_same([param], [grad], [state], options, step)


def update_same(
    params: list[Tensor], grads: list[Tensor], states: list[State], options: Options, step: Any
) -> None:
    """One step of parameters of the same shape and dtype, which are worked on at once.

    Args:
        params: the parameters.
        grads: their gradients.
        states: their states.
        options: their group's.
        step: the number of the step, counted from 1.
    """
    shape = folded(params[0].shape, options)
    dims = preconditioned(params[0].shape, options)
    compute = widened(params[0].dtype)

    def working(name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        """The states of that name, to be changed in place: their own memory, where it can be."""
        return _stacked([state[name] for state in states], dtype, shape)

    def keep(name: str, values: Tensor) -> None:
        kept = [state[name] for state in states]
        # Only of plain tensors an address tells whether this is the state's own memory.
        own = len(kept) == 1 and type(kept[0]) in DENSE_TYPES
        if not own or values.data_ptr() != kept[0].data_ptr():
            for one, value in zip(kept, values.reshape(-1, *kept[0].shape), strict=True):
                one.copy_(value)

    grad = _stacked(grads, compute, shape)
    grams, bases = (
        {dim: working(f"{name}_{dim}", compute, shape[dim], shape[dim]) for dim in dims}
        for name in MATRICES
    )
    # Of a step the basis is that of the gradients before: one that was made of the very gradient
    # that it is used on would take its noise for structure. So the first only begins it.
    if step > 1:
        mean = working("exp_avg", compute, *shape)
        square = working("exp_avg_sq", compute.to_real(), *shape)
        direction = _rotated(_adam(_rotated(grad, bases), mean, square, options), bases, back=True)
        if options["normalize_grads"]:
            sizes = torch.linalg.vector_norm(direction.flatten(1), dim=1) / prod(shape) ** 0.5
            direction = direction / sizes.clamp(min=SMALLEST).view(-1, *(1 for _ in shape))
        take = partial(move, size=_size(options, step - 1), options=options)
        for param, one in zip(params, direction.reshape(-1, *params[0].shape), strict=True):
            in_blocks(take, param.dtype, param, one)
    _advance(grams, grad, options)
    if step == 1:
        bases = {dim: _eigenbasis(gram) for dim, gram in grams.items()}
    elif (step - 1) % options["precondition_frequency"] == 0:
        for dim, gram in grams.items():
            refreshed, order = _refreshed(gram, bases[dim])
            square = _ordered(square, dim, order)
            mean = _times(mean, dim, bases[dim].mT @ refreshed.conj())
            bases[dim] = refreshed
    if step > 1:
        keep("exp_avg", mean)
        keep("exp_avg_sq", square)
    for dim in dims:
        keep(f"preconditioner_{dim}", grams[dim])
        if (step - 1) % options["precondition_frequency"] == 0:
            keep(f"basis_{dim}", bases[dim])


def _stacked(tensors: list[Tensor], dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """Equal shapes as one tensor with a first dimension more; a single one without a copy.

    Contiguous, so that the bits of a product do not depend on how its parameter lies in memory.
    """
    stack = tensors[0] if len(tensors) == 1 else torch.stack(tensors)
    return stack.to(dtype).contiguous().view(-1, *shape)


def _unfolded(stack: Tensor, dim: int) -> Tensor:
    """Each of a stack of tensors as a matrix, whose columns are one of its dimensions."""
    if stack.ndim == 3:  # noqa: PLR2004 - matrices
        return stack if dim else stack.mT
    return stack.movedim(dim + 1, -1).reshape(len(stack), -1, stack.shape[dim + 1])


def _times(stack: Tensor, dim: int, matrices: Tensor) -> Tensor:
    """Each of a stack of tensors multiplied from the right, along one of its dimensions."""
    if stack.ndim == 3:  # noqa: PLR2004 - matrices
        return torch.bmm(stack, matrices) if dim else torch.bmm(matrices.mT, stack)
    others = [length for index, length in enumerate(stack.shape) if index != dim + 1]
    product = torch.bmm(_unfolded(stack, dim), matrices)
    return product.view(*others, -1).movedim(-1, dim + 1)


def _rotated(stack: Tensor, bases: Mapping[int, Tensor], back: bool = False) -> Tensor:
    """A stack of tensors in the bases of its dimensions; or back from there."""
    for dim, basis in bases.items():
        stack = _times(stack, dim, basis.mT if back else basis.conj())
    return stack


def _advance(grams: Mapping[int, Tensor], grad: Tensor, options: Options) -> None:
    """Advance the running means of the gradients' second moments, along each dimension."""
    beta = options["shampoo_beta"]
    beta = options["betas"][1] if beta is None else beta
    # Not the products first: those of 1e20 are beyond float32, though the means may hold them.
    share = grad * (1 - beta)
    for dim, gram in grams.items():
        gram.baddbmm_(_unfolded(share, dim).mT, _unfolded(grad, dim).conj(), beta=beta)


def _adam(grad: Tensor, mean: Tensor, square: Tensor, options: Options) -> Tensor:
    """Adam's direction in the eigenbases; advances the means of the gradient and its square."""
    beta1, beta2 = options["betas"]
    mean.lerp_(grad, 1 - beta1)
    size = grad.abs() if grad.is_complex() else grad
    square.mul_(beta2).addcmul_(size, size, value=1 - beta2)
    root = square.sqrt().add_(options["eps"])
    if options["eps"] == 0:
        root.masked_fill_(root == 0, inf)  # where no gradient ever was, no step is taken
    return mean / root


def _eigenbasis(gram: Tensor) -> Tensor:
    """The eigenvectors of each of a stack of matrices, those of large eigenvalues first.

    Of one gradient with fewer columns than rows most eigenvalues are 0, and their vectors are
    nothing but roundings, which differ from machine to machine. Adam's steps depend on the basis
    even there: QR completes it from the others instead.
    """
    finite = gram.isfinite().flatten(1).all(1).view(-1, 1, 1)
    gram = torch.where(finite, gram, 0)  # LAPACK would not come to an end
    try:
        values, basis = torch.linalg.eigh(gram)
    except RuntimeError:  # it has come to none: more digits help
        wide = torch.complex128 if gram.is_complex() else torch.float64
        values, basis = torch.linalg.eigh(gram.to(wide))
    values, basis = values.flip(-1).unsqueeze(-2), basis.to(gram.dtype).flip(-1)
    real = values > ROUNDINGS * torch.finfo(gram.dtype).eps * values.amax(-1, keepdim=True)
    completed: Tensor = torch.linalg.qr(torch.where(real, basis, 0))[0]
    return completed


def _refreshed(gram: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenbases after a step of power iteration, and the order their vectors came in.

    The sign (of complex ones the phase) of each vector is whatever QR gives: nothing that is kept
    or computed in a basis depends on it.
    """
    product = torch.bmm(gram, basis)
    values = (basis.conj() * product).sum(-2, keepdim=True).real
    finite = values.sum(-1, keepdim=True).isfinite()
    product = torch.where(finite, product, basis)  # what a NaN or an infinity has met stays
    order = torch.where(finite, values, 0).argsort(dim=-1, descending=True, stable=True)
    product = product.gather(-1, order.expand_as(product))
    return torch.linalg.qr(product)[0], order.squeeze(-2)


def _ordered(stack: Tensor, dim: int, order: Tensor) -> Tensor:
    """Each of a stack of tensors in an order of its own along one of its dimensions."""
    shape = [len(order), *(1 for _ in stack.shape[1:])]
    shape[dim + 1] = order.shape[1]
    return stack.gather(dim + 1, order.view(shape).expand_as(stack))


def _size(options: Options, moves: int) -> Any:
    """The factor of the direction: lr, and the corrections of the early means."""
    if not options["correct_bias"]:
        return options["lr"]
    beta1, beta2 = options["betas"]
    return options["lr"] * ((1 - beta2**moves) ** 0.5 / (1 - beta1**moves))


def shapes(param: Tensor, flags: Mapping[str, Any]) -> Mapping[str, tuple[int, ...]]:
    """Adam's two means, and of each preconditioned dimension two square matrices."""
    shape = folded(param.shape, flags)
    dims = preconditioned(param.shape, flags)
    return {
        "exp_avg": param.shape,
        "exp_avg_sq": param.shape,
        **{f"{name}_{dim}": (shape[dim],) * 2 for name in MATRICES for dim in dims},
    }


def dtype(name: str, param: torch.dtype) -> torch.dtype:
    """The dtype of a state tensor: matrices in that of the arithmetic, squares real."""
    if name == "exp_avg":
        return param
    return param.to_real() if name == "exp_avg_sq" else widened(param)


def flags(options: Options) -> Mapping[str, Any]:
    """The options that the shapes of the state depend on."""
    return {name: options[name] for name in ("max_precond_dim", "merge_dims", "precondition_1d")}


def scalars(options: Options, step: Any) -> Mapping[str, Any]:
    """The numbers of AdamW's steps, which the group may ask not to be corrected."""
    numbers = adam.scalars(options, step)
    uncorrected = {"step_size": options["lr"], "root_scale": 1.0}
    return numbers if options["correct_bias"] else {**numbers, **uncorrected}


ADAMW = Rule(
    adam.update,
    scalars,
    lambda options: adam.flags({**options, "amsgrad": False, "decoupled_weight_decay": True}),
    optional={"max_exp_avg_sq": "amsgrad"},
)
"""The rule of the parameters without a preconditioner."""


class SOAP(Optimizer):
    r"""SOAP: Adam in the eigenbases of Shampoo's preconditioners; AdamW for what has none.

    .. math::
        G'_t &= Q_L^\top G_t Q_R \\
        M'_t &= \beta_1 M'_{t-1} + (1 - \beta_1) G'_t, \quad
        V_t = \beta_2 V_{t-1} + (1 - \beta_2) G'_t \odot G'_t \\
        \theta_t &= (1 - \gamma \lambda) \theta_{t-1} - \gamma
        \frac{\sqrt{1 - \beta_2^s}}{1 - \beta_1^s} \,
        Q_L \frac{M'_t}{\sqrt{V_t} + \epsilon} Q_R^\top \\
        L_t &= \beta L_{t-1} + (1 - \beta) G_t G_t^\top, \quad
        R_t = \beta R_{t-1} + (1 - \beta) G_t^\top G_t

    with :math:`G_t = \nabla f(\theta_{t-1})`, :math:`\gamma` lr, :math:`\lambda` weight_decay,
    :math:`\beta` shampoo_beta, and :math:`s = t - 1`: the first step moves nothing. It begins L and
    R, and :math:`Q_L` and :math:`Q_R` are their eigenvectors then. After every
    precondition_frequency steps they are refreshed by one step of power iteration,
    :math:`Q_L = \text{QR}(L_t Q_L)` (that of the largest eigenvalue first), and :math:`M'` is
    turned into the new basis.

    A tensor of more than two dimensions has one such matrix for each, and so one basis. Those
    longer than max_precond_dim have none: of an embedding only the shorter side. With `merge_dims`
    neighbouring dimensions are one as long as that is no longer. Vectors (without
    `precondition_1d`), numbers, and tensors with no dimension to precondition are updated by AdamW
    at the same lr, from the first step on.

    State: Adam's two means, and two square matrices of each preconditioned dimension; in float32 a
    matrix of n rows and m columns takes :math:`8nm + 8n^2 + 8m^2` bytes (AdamW: 8nm). Matrices of
    16-bit parameters are kept in float32. Complex tensors have unitary bases, and a mean of
    :math:`|G'|^2`.

    For networks whose weights are matrices, with large batches above all, where its authors need
    fewer steps than with AdamW; each takes some matrix products more, and a refresh a QR
    decomposition of each preconditioner. A larger precondition_frequency makes refreshes rarer.

    {arguments}

    Raises:
        HyperparameterError: a value outside its range.
        ParameterError: parameters that cannot be optimized.

    Example:
        >>> import torch, descend
        >>> weight = torch.nn.Parameter(torch.ones(4, 3))
        >>> optimizer = descend.SOAP([weight])
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     weight.square().sum().backward()
        ...     optimizer.step()
        >>> optimizer.state[weight]["basis_0"].shape
        torch.Size([4, 4])

    Source:
        N. Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", ICLR 2025,
        https://arxiv.org/abs/2409.11321. Defaults, the first step and :math:`\epsilon` before the
        corrections are those of the authors' code, https://github.com/nikhilvyas/SOAP. Weight decay
        comes before the step, as AdamW's does, and AdamW takes what has no preconditioner.
    """

    rule = WholeRule(
        update, shapes, ("exp_avg", "exp_avg_sq"), flags, dtype=dtype, together=update_same
    )

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 3e-3,
        betas: Annotated[
            tuple[float, float],
            Range(0, 1, count=2),
            "decay per step of the running means of the gradient and of its square",
        ] = (0.95, 0.95),
        shampoo_beta: Annotated[
            float | None,
            Range(0, 1, optional=True),
            "decay per step of the preconditioners; None: that of the mean square",
        ] = None,
        eps: hp.Epsilon = 1e-8,
        weight_decay: hp.WeightDecay = 0.01,
        precondition_frequency: Annotated[
            int, Range(1, whole=True), "steps from one refresh of the bases to the next"
        ] = 10,
        max_precond_dim: Annotated[
            int, Range(0, whole=True), "longest dimension that has a preconditioner"
        ] = 10000,
        merge_dims: Annotated[
            bool, Switch(), "take neighbouring dimensions as one, up to max_precond_dim"
        ] = False,
        precondition_1d: Annotated[
            bool, Switch(), "give vectors a preconditioner too, in place of AdamW"
        ] = False,
        normalize_grads: Annotated[
            bool, Switch(), "make the RMS of every direction 1; for long times between refreshes"
        ] = False,
        correct_bias: Annotated[
            bool, Switch(), "correct the means for their start from zero, as Adam does"
        ] = True,
        *,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
    ) -> None:
        super().__init__(params, locals())

    def rule_of(self, param: Tensor, options: Options) -> AnyRule:
        """SOAP's rule for what has a dimension to precondition, AdamW's for the rest.

        Args:
            param: the parameter.
            options: of its group.
        """
        return self.rule if preconditioned(param.shape, options) else ADAMW
