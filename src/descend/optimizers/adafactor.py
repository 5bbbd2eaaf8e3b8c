"""Adafactor: steps scaled by a second moment that only its rows and columns are kept of."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, cycle
from math import sqrt
from typing import Annotated, Any

import torch
from torch import Tensor

from descend.engine import hyperparameters as hp
from descend.optimizers.blocks import Blocks, fitting, move, wide, widened
from descend.rules import Flags, Optimizer, Options, Pair, Params, Range, State, WholeRule, minimum
from descend.rules import sqrt as root


def update(param: Tensor, grad: Tensor, state: State, options: Options, step: Any) -> None:
    """One step of one parameter; 16-bit tensors are computed in float32 and rounded once.

    Block by block where it is large: reading the gradient three times takes less than a temporary.
    """
    if not param.numel():
        return
    compute = widened(param.dtype)
    real = compute.to_real()
    recorded, (tiny, _) = options["differentiable"], options["eps"]
    if tiny is None:
        tiny = torch.finfo(param.dtype).eps
    rate = step ** options["beta2_decay"]
    if isinstance(rate, Tensor):
        rate = rate.to(real)
    blocks = Blocks(param, whole=recorded)
    params, grads = blocks.of(param), blocks.of(grad)
    first = _squares(grads[0].to(compute))
    room = None if recorded else first  # for every block, one after the other
    # Autograd keeps what the norm is of for its derivative: the parameter is about to change.
    start = _norm((wide(block.clone() if recorded else block) for block in params), blocks)
    squares = chain([first], (_squares(block.to(compute), room) for block in grads[1:]))
    if grad.ndim < 2:  # noqa: PLR2004 - no rows and columns
        variance = _real(state["variance"], real)
        moments: list[tuple[Tensor, ...]] = [(block,) for block in blocks.of(variance)]
        for (mean,), square in zip(moments, squares, strict=True):
            mean.lerp_(square, rate)
        _keep(state["variance"], variance)
    else:
        row, col = _means(squares, grad.shape, blocks)
        row = _advanced(state["row_var"], row, rate)
        col = _advanced(state["col_var"], col, rate)
        row = row / row.mean(-2, keepdim=True).clamp(min=tiny)
        moments = [*zip(blocks.of(row), cycle(blocks.of(col)), strict=False)]

    def directions() -> Iterator[Tensor]:
        for block, moment in zip(grads, moments, strict=True):
            yield _direction(block.to(compute), moment, tiny, room)

    # A large one is computed twice: each block takes the room of the one before.
    again = directions if blocks.length else [*directions()].copy
    size = _size(param, options, step, start, _norm(again(), blocks))
    for target, direction in zip(params, again(), strict=True):
        new = wide(target)
        move(new, direction, size, options)
        if new is not target:
            target.copy_(new)


def _norm(parts: Iterable[Tensor], blocks: Blocks) -> Tensor:
    """The norm of a tensor that comes in blocks, each overwritten by the next."""
    if not blocks.length:
        (whole,) = parts
    else:  # by rows: a sum of a million squares in float32 would lose digits
        whole = torch.cat([torch.linalg.vector_norm(part, dim=-1).flatten() for part in parts])
    norm: Tensor = torch.linalg.vector_norm(whole)
    return norm


def _means(squares: Iterable[Tensor], shape: torch.Size, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """The means of the rows and of the columns of a tensor that comes in blocks."""
    if not blocks.length:
        (whole,) = squares
        return whole.mean(-1, keepdim=True), whole.mean(-2, keepdim=True)
    sums = [(square.sum(-1, keepdim=True), square.sum(-2, keepdim=True)) for square in squares]
    row, col = (torch.cat(parts, blocks.dim) for parts in zip(*sums, strict=True))
    if blocks.dim == len(shape) - 2:
        col = col.sum(-2, keepdim=True)
    return row / shape[-1], col / shape[-2]


def _squares(grad: Tensor, room: Tensor | None = None) -> Tensor:
    """The squared magnitudes of a gradient."""
    if grad.is_complex():
        return torch.view_as_real(grad.resolve_conj()).square().sum(-1)
    return torch.mul(grad, grad, out=fitting(room, grad))


def _advanced(kept: Tensor, mean: Tensor, rate: Any) -> Tensor:
    """A running mean of the state after this step, in the dtype of the arithmetic."""
    running = _real(kept, mean.dtype)
    running.lerp_(mean, rate)
    _keep(kept, running)
    return running


def _real(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A state tensor in the dtype of the arithmetic: itself, wherever that is possible."""
    if tensor.is_complex():
        tensor = tensor.real
    return tensor if tensor.dtype is dtype else tensor.to(dtype)


def _keep(tensor: Tensor, value: Tensor) -> None:
    """Round a value back into the state, unless it is the state's own memory."""
    if tensor.dtype is not value.dtype and not tensor.is_complex():
        tensor.copy_(value)


def _direction(
    grad: Tensor, moment: tuple[Tensor, ...], tiny: float, room: Tensor | None
) -> Tensor:
    """A gradient divided by the root of its second moment."""
    room = fitting(room, grad)
    square = torch.mul(*moment, out=room) if len(moment) > 1 else moment[0]
    square = torch.clamp(square, min=tiny * tiny, out=room)
    factor = torch.rsqrt(square, out=room)
    return torch.mul(factor, grad, out=None if grad.is_complex() else room)


def _size(param: Tensor, options: Options, step: Any, start: Any, norm: Any) -> Any:
    """The factor of the direction, from the norms of the parameter and of the direction."""
    # Not of a DTensor: it would be the number of this process alone.
    plain = type(start) is Tensor and type(norm) is Tensor and param.device.type == "cpu"
    if plain and not (options["differentiable"] or options["capturable"]):
        start, norm = start.item(), norm.item()
    count = sqrt(param.numel())
    relative = minimum(1 / root(step), options["lr"])
    length = _at_least(options["eps"][1], start / count)
    return relative * length / _at_least(1.0, norm / (count * options["d"]))


def _at_least(low: float, value: Any) -> Any:
    """The larger of both; `low` for NaN, so that a NaN spreads no further than in torch."""
    if isinstance(value, Tensor):
        return torch.fmax(value, torch.full_like(value, low))
    return max(low, value)


def shapes(param: Tensor, flags: Flags) -> Mapping[str, tuple[int, ...]]:
    """A mean for each row and each column of a matrix; for a vector one for each element."""
    if param.ndim < 2:  # noqa: PLR2004 - no rows and columns
        return {"variance": param.shape}
    return {
        "row_var": (*param.shape[:-1], 1),
        "col_var": (*param.shape[:-2], 1, param.shape[-1]),
    }


class Adafactor(Optimizer):
    r"""Adafactor: steps scaled by a second moment that only its rows and columns are kept of.

    .. math::
        \rho_t &= t^{\tau}, \quad
        \alpha_t = \min(\gamma, 1 / \sqrt t) \max(\epsilon_2, \text{RMS}(\theta_{t-1})) \\
        R_t &= (1 - \rho_t) R_{t-1} + \rho_t \, |G_t|^2 1_m / m, \quad
        C_t = (1 - \rho_t) C_{t-1} + \rho_t \, 1_n^\top |G_t|^2 / n \\
        V_t &= R_t C_t / \max(1_n^\top R_t / n, \epsilon_1) \\
        U_t &= G_t / \max(\sqrt{V_t}, \epsilon_1) \\
        \theta_t &= (1 - \gamma \lambda) \theta_{t-1} - \alpha_t U_t / \max(1, \text{RMS}(U_t) / d)

    with :math:`\gamma` lr, :math:`\tau` beta2_decay, :math:`\lambda` weight_decay, and
    :math:`G_t = \nabla f(\theta_{t-1})` of n rows and m columns. Of a vector or a number
    :math:`V_t` itself is kept. A tensor of more than two dimensions is many matrices, of its last
    two; only the RMS is that of the whole tensor. Without :math:`\epsilon_1` it is
    `torch.finfo(dtype).eps` of each parameter.

    Large parameters are taken block by block (4 MiB on the CPU): a step needs no temporary of their
    size.

    {arguments}

    Source:
        N. Shazeer and M. Stern, "Adafactor: adaptive learning rates with sublinear memory cost",
        ICML 2018, https://arxiv.org/abs/1804.04235. As torch does it: lr in place of the paper's
        largest relative step of 0.01, weight decay, means in place of sums, and
        :math:`\epsilon_1` as a lower bound of the two denominators.
    """

    rule = WholeRule(update, shapes, states=("row_var", "col_var", "variance"))

    def __init__(
        self,
        params: Params,
        lr: hp.LearningRate = 1e-2,
        beta2_decay: Annotated[
            float, Range(high=0, closed=True), "exponent of the step count that new squares weigh"
        ] = -0.8,
        eps: Annotated[
            tuple[float | None, float],
            Pair(Range(0, optional=True), Range(0)),
            "the lower bounds of the denominators (None: by dtype), and of the parameter's RMS",
        ] = (None, 1e-3),
        d: Annotated[float, Range(1, infinite=True), "largest RMS of the scaled gradient"] = 1.0,
        weight_decay: hp.WeightDecay = 0.0,
        *,
        foreach: hp.Foreach = None,
        maximize: hp.Maximize = False,
        capturable: hp.Capturable = False,
        differentiable: hp.Differentiable = False,
        clip_norm: hp.ClipNorm = None,
        clip_value: hp.ClipValue = None,
        skip_nonfinite: hp.SkipNonfinite = False,
    ) -> None:
        super().__init__(params, locals())
