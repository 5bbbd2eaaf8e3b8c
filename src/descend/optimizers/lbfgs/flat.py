"""All parameters of an optimizer as one vector of real numbers."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

from descend.engine.step_inputs import check, place_of
from descend.errors import ParameterError

Shares: TypeAlias = list[tuple[slice, float]]
"""The part of a vector that each group has, and its lr as a share of the largest lr."""


class Flat:
    """The elements of parameters, one after the other; a complex one is a pair of real numbers.

    Vectors have the widest dtype of the parameters, at least float32, and lie on the device of the
    first one.

    Args:
        owner: the optimizer's name, for messages.
        groups: its groups, with at least one parameter.

    Raises:
        ParameterError: a parameter is spread over several ranks.
    """

    def __init__(self, owner: str, groups: Sequence[Mapping[str, Any]]) -> None:
        self.params: list[Tensor] = [param for group in groups for param in group["params"]]
        self.places = [
            place_of(owner, index, within, group)
            for index, group in enumerate(groups)
            for within in range(len(group["params"]))
        ]
        for param, place in zip(self.params, self.places, strict=True):
            if hasattr(param, "full_tensor"):
                raise ParameterError(
                    f"{place}: the parameter is spread over several ranks (a DTensor), and L-BFGS "
                    "needs all of it in one place; use another optimizer, or an unsharded model"
                )
        self.sizes = [param.numel() * (2 if param.is_complex() else 1) for param in self.params]
        self.size = sum(self.sizes)
        self.dtype = reduce(
            torch.promote_types, (param.dtype.to_real() for param in self.params), torch.float32
        )
        self.device = self.params[0].device

    def shares(self, groups: Sequence[Mapping[str, Any]]) -> tuple[float, Shares]:
        """The largest lr, and the share of each group that has elements.

        Args:
            groups: the groups that the parameters are of.
        """
        rates = [float(group["lr"]) for group in groups]
        top, sizes, start = max(rates), iter(self.sizes), 0
        shares: Shares = []
        for group, rate in zip(groups, rates, strict=True):
            end = start + sum(next(sizes) for _ in group["params"])
            if end > start:
                shares.append((slice(start, end), rate / top if top else 1.0))
            start = end
        return top, shares

    def gradient(self) -> Tensor:
        """The gradients as a new vector; zeros for a parameter without one.

        Raises:
            GradientError: a gradient does not fit its parameter.
            ParameterError: a parameter cannot be written to.
        """
        vector = torch.empty(self.size, dtype=self.dtype, device=self.device)
        pieces = torch.split(vector, self.sizes)
        for param, piece, place in zip(self.params, pieces, self.places, strict=True):
            grad = param.grad
            if grad is None:
                piece.zero_()
                continue
            check(param, grad, place)
            if grad.layout is not torch.strided:
                grad = grad.to_dense()
            if grad.is_complex():
                grad = torch.view_as_real(grad.resolve_conj())
            piece.view(grad.shape).copy_(grad)
        return vector

    def points(self) -> list[Tensor]:
        """Copies of the parameters."""
        return [param.detach().clone() for param in self.params]

    def place(self, points: list[Tensor]) -> None:
        """Put the parameters back where they were."""
        for param, point in zip(self.params, points, strict=True):
            param.copy_(point)

    def move(self, length: float, along: Tensor) -> None:
        """Add so many times a vector to the parameters."""
        for param, piece in zip(self.params, torch.split(along, self.sizes), strict=True):
            here = piece.to(param.device)
            if param.is_complex():
                pairs = here.view(*param.shape, 2)
                param.real.add_(pairs[..., 0], alpha=length)
                param.imag.add_(pairs[..., 1], alpha=length)
            else:
                param.add_(here.view(param.shape), alpha=length)
