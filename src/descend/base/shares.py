"""Refusals of an optimizer that sees a share of the parameters and takes it for the whole.

DTensors (`fully_shard`, tensor parallelism) say themselves that they are shares, and their norms
are those of all ranks. These do not: the optimizer inside a ZeroRedundancyOptimizer, or of a worker
in a DistributedOptimizer, gets some of the parameters; one that steps in the backward pass
(`_apply_optimizer_in_backward`) gets one; with FullyShardedDataParallel (FSDP1) a parameter is a
flat piece of itself.
"""

import sys
from collections.abc import Iterable

from torch import Tensor, distributed

from descend.errors import ConflictError, ParameterError

_OPTIM = "torch.distributed.optim"
_ZERO = f"{_OPTIM}.zero_redundancy_optimizer"
_MAKERS = {
    f"{_OPTIM}.apply_optimizer_in_backward": "that steps in the backward pass has one",
    f"{_OPTIM}.optimizer": "in a DistributedOptimizer has those of its worker",
}
"""The modules that make optimizers of a few parameters each."""


def refuse_own_norm(
    owner: str, params: Iterable[object], norm: float | None, skip_nonfinite: bool
) -> None:
    """Refuse what asks for all gradients at once where this process has a share of them.

    Args:
        owner: the optimizer's name, for messages.
        params: the parameters.
        norm: `clip_norm`.
        skip_nonfinite: the option of that name.

    Raises:
        ConflictError: each rank would decide by its own share.
    """
    if norm is None and not skip_nonfinite:
        return
    asked = f"clip_norm={norm!r}" if norm is not None else "skip_nonfinite=True"
    call = f"clip_grad_norm_({'max_norm' if norm is None else norm})"
    after = " and step only where what it returns is finite" if skip_nonfinite else ""
    for maker in _MAKERS.keys() & _callers():
        raise ConflictError(
            f"{owner}: {asked} asks for all gradients, and an optimizer {_MAKERS[maker]}; leave it "
            "out (clip_value works), or clip and look at all gradients before a step of your own"
        )
    if _in_zero():
        sees = "in a ZeroRedundancyOptimizer sees those of its own rank's parameters only"
        call = f"torch.nn.utils.{call.replace('(', '(model.parameters(), ')}"
    elif _flat_pieces(params):
        sees = "of FullyShardedDataParallel's parameters sees its own rank's pieces only"
        call = f"model.{call}"
    else:
        return
    raise ConflictError(
        f"{owner}: {asked} asks for the gradients of all ranks, and an optimizer {sees}; "
        f"leave it out, and before the step call {call}{after}"
    )


def refuse_pieces(owner: str, params: Iterable[object]) -> None:
    """Refuse flat pieces of parameters, for a rule that needs whole tensors.

    Args:
        owner: the optimizer's name, for messages.
        params: the parameters.

    Raises:
        ParameterError: they are FullyShardedDataParallel's.
    """
    if _flat_pieces(params):
        raise ParameterError(
            f"{owner}: it needs whole parameters, and FullyShardedDataParallel's are flat pieces "
            "of them; shard with torch.distributed.fsdp.fully_shard, whose parameters it takes"
        )


def refuse_shares(owner: str, params: Iterable[object]) -> None:
    """Refuse a share of the parameters, for a step that is one of all parameters together.

    Args:
        owner: the optimizer's name, for messages.
        params: the parameters.

    Raises:
        ParameterError: other ranks have the others.
    """
    refuse_pieces(owner, params)
    if _in_zero():
        raise ParameterError(
            f"{owner}: its step is one of all parameters together, and in a "
            "ZeroRedundancyOptimizer each rank has a share of them; use it without"
        )


def _several_ranks() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def _in_zero() -> bool:
    """Whether a ZeroRedundancyOptimizer of several ranks is making this optimizer.

    Nothing that it passes on tells, so the callers are asked.
    """
    return _several_ranks() and _ZERO in _callers()


def _callers() -> set[str]:
    """The modules whose functions led here."""
    names, frame = set(), sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        names.add(str(frame.f_globals.get("__name__")))
    return names


def _flat_pieces(params: Iterable[object]) -> bool:
    return _several_ranks() and any(
        isinstance(param, Tensor) and getattr(param, "_fsdp_flattened", False) for param in params
    )
