"""Schedulers whose factor is a function of the user's."""

import types
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from descend.errors import ScheduleError, ScheduleTypeError
from descend.format import counted
from descend.lr_scheduler.driver import Values
from descend.lr_scheduler.group_values import read
from descend.lr_scheduler.scheduler_base import LRScheduler

Lambda = Callable[[int], float]


class _Functions(LRScheduler):
    """A function for all groups, or one for each."""

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Lambda | list[Lambda], last_epoch: int = -1
    ) -> None:
        self._for_all = not isinstance(lr_lambda, list | tuple)
        for function in [lr_lambda] if self._for_all else lr_lambda:  # type: ignore[union-attr]
            if not callable(function):
                raise ScheduleTypeError(
                    f"{type(self).__name__}: lr_lambda must be a function of the epoch, or a list "
                    f"of them, got {type(function).__name__}"
                )
        count = len(getattr(optimizer, "param_groups", ()))
        self.lr_lambdas: list[Any] = self._each("lr_lambda", lr_lambda, count)
        super().__init__(optimizer, last_epoch)

    def _factors(self, time: float, count: int) -> Values:
        """The factor of each group at a time; one function for all is that of new groups, too."""
        functions = self.lr_lambdas
        if len(functions) < count:
            if not self._for_all:
                raise ScheduleError(
                    f"{type(self).__name__}: got {counted(count, 'group')} and "
                    f"{counted(len(functions), 'function')}; append one for each group that was "
                    "added to scheduler.lr_lambdas"
                )
            functions.extend(functions[:1] * (count - len(functions)))
        factors = [function(time) for function in functions]
        try:
            return list(map(float, factors))
        except (TypeError, ValueError) as error:
            raise ScheduleTypeError(
                f"{type(self).__name__}: lr_lambda must return a number, and returned "
                f"{', '.join(map(repr, factors))} in epoch {time}"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; of a function that is an object, its attributes."""
        state = super().state_dict()
        state["lr_lambdas"] = [
            None if isinstance(function, types.FunctionType) else dict(vars(function))
            for function in self.lr_lambdas
            if hasattr(function, "__dict__")
        ]
        return state

    def _take_over(self, state: dict[str, Any]) -> None:
        """Set the position, the bases, and the attributes of functions that are objects."""
        super()._take_over(state)
        for function, saved in zip(self.lr_lambdas, state.get("lr_lambdas", ()), strict=False):
            if saved is not None:
                vars(function).update(saved)


class LambdaLR(_Functions):
    r"""The base times a function of the epoch.

    .. math::
        \eta_t = \eta_0 \, \lambda(t)

    Args:
        optimizer: whose groups it drives.
        lr_lambda: from the epoch, from 0, to a factor; or a list, one for each group.
        last_epoch: the last epoch that is over; -1 to begin.

    Raises:
        ScheduleError: as many functions as groups are needed.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = descend.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]

    Source: torch.optim.lr_scheduler.LambdaLR.
    """

    form = "closed"

    def curve(self, time: float, bases: Values) -> Values:
        """The base times the function."""
        factors = self._factors(time, len(bases))
        return [base * factor for base, factor in zip(bases, factors)]  # noqa: B905 - slow


class MultiplicativeLR(_Functions):
    r"""The base times the product of a function of all epochs so far.

    .. math::
        \eta_t = \eta_0 \prod_{k=1}^{t} \lambda(k)

    Args:
        optimizer: whose groups it drives.
        lr_lambda: from the epoch, from 1, to a factor; or a list, one for each group.
        last_epoch: the last epoch that is over; -1 to begin.

    Raises:
        ScheduleError: as many functions as groups are needed.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = descend.lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.5)
        >>> scheduler.seek(3)
        >>> scheduler.get_last_lr()
        [0.125]

    Source: torch.optim.lr_scheduler.MultiplicativeLR.
    """

    form = "recursive"
    _product: tuple[int, Values] = (-1, [])  # when, and that of each group

    def curve(self, time: float, bases: Values) -> Values:
        """The base times the product; it goes on from one that is known."""
        last, (epoch, products) = int(time), self._product
        if len(products) != len(bases) or epoch > last:
            epoch, products = 0, [1.0] * len(bases)
        for between in range(epoch + 1, last + 1):
            factors = self._factors(between, len(bases))
            products = [product * by for product, by in zip(products, factors)]  # noqa: B905 - slow
        self._product = (last, products)
        return [base * product for base, product in zip(bases, products)]  # noqa: B905 - as above

    def get_lr(self) -> list[Any]:
        """The lr that this scheduler makes of the bases in this epoch, other schedulers apart.

        Beside a scheduler written for torch, as torch: of the lr that is there.
        """
        if not self._as_torchs():
            return super().get_lr()
        lrs, last = [read(group, "lr") for group in self.optimizer.param_groups], self.last_epoch
        if self._is_initial:
            return lrs
        return [lr * by for lr, by in zip(lrs, self._factors(last, len(lrs)), strict=True)]
