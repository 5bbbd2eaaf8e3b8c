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
        owner = type(self).__name__
        several = isinstance(lr_lambda, list | tuple)
        self._for_all = not several
        self.lr_lambdas: list[Any] = list(lr_lambda) if several else [lr_lambda]  # type: ignore[arg-type]
        for function in self.lr_lambdas:
            if not callable(function):
                raise ScheduleTypeError(
                    f"{owner}: lr_lambda must be a function of the epoch, or a list of them, got "
                    f"{type(function).__name__}"
                )
        groups = len(getattr(optimizer, "param_groups", self.lr_lambdas))
        if several and len(self.lr_lambdas) != groups:
            raise ScheduleError(
                f"{owner}: lr_lambda has {counted(len(self.lr_lambdas), 'function')}, and the "
                f"optimizer {counted(groups, 'group')}; give one for each group, or one for all"
            )
        if not several:
            self.lr_lambdas *= groups
        super().__init__(optimizer, last_epoch)

    def _no_number(self, factors: list[Any], time: float) -> ScheduleTypeError:
        return ScheduleTypeError(
            f"{type(self).__name__}: lr_lambda must return a number, and returned "
            f"{', '.join(map(repr, factors))} in epoch {time}"
        )

    def _extend(self, count: int) -> None:
        """Let the one function be that of the groups that were added, too."""
        if not self._for_all:
            raise ScheduleError(
                f"{type(self).__name__}: got {counted(count, 'group')} and "
                f"{counted(len(self.lr_lambdas), 'function')}; append one for each group that was "
                "added to scheduler.lr_lambdas"
            )
        self.lr_lambdas.extend(self.lr_lambdas[:1] * (count - len(self.lr_lambdas)))

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; of a function that is an object, its attributes."""
        state = super().state_dict()
        state["lr_lambdas"] = [
            None if isinstance(function, types.FunctionType) else dict(vars(function))
            for function in self.lr_lambdas
            if hasattr(function, "__dict__")
        ]
        return state

    def take_over(self, state: dict[str, Any]) -> None:
        """Set the position, the bases, and the attributes of functions that are objects."""
        super().take_over(state)
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
        functions = self.lr_lambdas
        if len(functions) < len(bases):
            self._extend(len(bases))
        factors = [function(time) for function in functions]
        try:
            return [base * float(factor) for base, factor in zip(bases, factors)]  # noqa: B905 - slow
        except (TypeError, ValueError) as error:
            raise self._no_number(factors, time) from error


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
    _product: tuple[float, Values] = (-1, [])  # when, and that of each group

    def curve(self, time: float, bases: Values) -> Values:
        """The base times the product; it goes on from the one of the epoch before, if known."""
        functions = self.lr_lambdas
        if len(functions) < len(bases):
            self._extend(len(bases))
        epoch, products = self._product
        if len(products) != len(functions) or not 0 <= time - epoch <= 1:
            products = self._from_the_beginning(int(time))
        elif time != epoch:
            factors = [function(time) for function in functions]
            try:
                products = [product * float(by) for product, by in zip(products, factors)]  # noqa: B905 - slow
            except (TypeError, ValueError) as error:
                raise self._no_number(factors, time) from error
        self._product = (time, products)
        return [base * product for base, product in zip(bases, products)]  # noqa: B905 - as above

    def get_lr(self) -> list[Any]:
        """What this scheduler makes of the bases in this epoch, other schedulers apart.

        Beside a scheduler written for torch, as torch: of the lr that is there.
        """
        if not self._as_torchs():
            return super().get_lr()
        lrs, last = [read(group, "lr") for group in self.optimizer.param_groups], self.last_epoch
        if self._is_initial:
            return lrs
        return [lr * float(by(last)) for lr, by in zip(lrs, self.lr_lambdas, strict=True)]

    def _from_the_beginning(self, time: int) -> Values:
        products: dict[Any, float] = {}
        for function in self.lr_lambdas:
            if id(function) not in products:
                product = 1.0
                for epoch in range(1, time + 1):
                    product *= float(function(epoch))
                products[id(function)] = product
        return [products[id(function)] for function in self.lr_lambdas]
