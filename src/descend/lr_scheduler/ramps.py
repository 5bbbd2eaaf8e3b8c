"""Schedulers that go from one factor to another."""

from torch.optim import Optimizer

from descend.errors import ScheduleError
from descend.lr_scheduler.base import Recursive
from descend.lr_scheduler.checks import finite, not_negative
from descend.lr_scheduler.track import Values
from descend.schedules import formulas


class ConstantLR(Recursive):
    r"""A factor for some epochs, and then none.

    .. math::
        \eta_t = \eta_0 f \text{ for } t < T, \quad \eta_0 \text{ from } T \text{ on}

    Args:
        optimizer: whose groups it drives.
        factor: f, from 0 to 1.
        total_iters: T, in epochs.
        last_epoch: the last epoch that is over; -1 to begin.

    Raises:
        ScheduleError: the factor is not from 0 to 1.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.lr_scheduler.ConstantLR(optimizer, 0.5, total_iters=2).preview(3)
        {'lr': [[0.5], [0.5], [1.0]]}

    Source: torch.optim.lr_scheduler.ConstantLR.
    """

    config = ("factor", "total_iters")

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        factor = finite("ConstantLR", "factor", factor)
        total_iters = finite("ConstantLR", "total_iters", total_iters)
        if not 0 <= factor <= 1:
            raise ScheduleError(f"ConstantLR: factor must be from 0 to 1, got {factor!r}")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def curve(self, time: float, bases: Values) -> Values:
        """The base times the factor, while it holds."""
        if time >= self.total_iters:
            return bases
        factor = self.factor
        return [base * factor for base in bases]


class LinearLR(Recursive):
    r"""In a line from one factor to another; with the defaults, a warmup.

    .. math::
        \eta_t = \eta_0 \left( f_0 + (f_1 - f_0) \min(t, T) / T \right)

    Args:
        optimizer: whose groups it drives.
        start_factor: f0, above 0 and at most 1.
        end_factor: f1, from 0 to 1.
        total_iters: T, in epochs; 0: the end at once.
        last_epoch: the last epoch that is over; -1 to begin.

    Raises:
        ScheduleError: a factor or the number of epochs is out of range.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=2).preview(3)
        {'lr': [[0.5], [0.75], [1.0]]}

    Source: torch.optim.lr_scheduler.LinearLR.
    """

    config = ("start_factor", "end_factor", "total_iters")

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        start_factor = finite("LinearLR", "start_factor", start_factor)
        end_factor = finite("LinearLR", "end_factor", end_factor)
        if not 0 < start_factor <= 1:
            raise ScheduleError(
                f"LinearLR: start_factor must be above 0 and at most 1, got {start_factor!r}"
            )
        if not 0 <= end_factor <= 1:
            raise ScheduleError(f"LinearLR: end_factor must be from 0 to 1, got {end_factor!r}")
        total_iters = not_negative("LinearLR", "total_iters", total_iters)
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def curve(self, time: float, bases: Values) -> Values:
        """The base times the factor."""
        total, start = self.total_iters, self.start_factor
        part = min(time, total) / total if total else 1.0
        factor = start + (self.end_factor - start) * part
        return [base * factor for base in bases]


class PolynomialLR(Recursive):
    r"""Down to 0 by a power of the time that is left.

    .. math::
        \eta_t = \eta_0 \left( 1 - \min(t, T) / T \right)^p

    Args:
        optimizer: whose groups it drives.
        total_iters: T, in epochs; 0: the end at once.
        power: p.
        last_epoch: the last epoch that is over; -1 to begin.

    Raises:
        ScheduleError: `total_iters` is below 0.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.lr_scheduler.PolynomialLR(optimizer, 2, power=2.0).preview(3)
        {'lr': [[1.0], [0.25], [0.0]]}

    Source: torch.optim.lr_scheduler.PolynomialLR.
    """

    rises = False
    config = ("total_iters", "power")

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        total_iters = not_negative("PolynomialLR", "total_iters", total_iters)
        power = finite("PolynomialLR", "power", power)
        if power < 0:
            raise ScheduleError(f"PolynomialLR: power must be at least 0, got {power!r}")
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def curve(self, time: float, bases: Values) -> Values:
        """The base times the power."""
        total = self.total_iters
        factor = formulas.polynomial(min(time, total) / total if total else 1.0, self.power)
        return [base * factor for base in bases]


class ExponentialLR(Recursive):
    r"""Lower by the same factor in each epoch.

    .. math::
        \eta_t = \eta_0 \, \gamma^t

    Args:
        optimizer: whose groups it drives.
        gamma: the factor.
        last_epoch: the last epoch that is over; -1 to begin.

    Raises:
        ScheduleError: gamma is no finite number.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.lr_scheduler.ExponentialLR(optimizer, 0.5).preview(3)
        {'lr': [[1.0], [0.5], [0.25]]}

    Source: torch.optim.lr_scheduler.ExponentialLR.
    """

    rises = False
    config = ("gamma",)

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        gamma = finite("ExponentialLR", "gamma", gamma)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def curve(self, time: float, bases: Values) -> Values:
        """The base times the power."""
        factor = self.gamma**time
        return [base * factor for base in bases]
