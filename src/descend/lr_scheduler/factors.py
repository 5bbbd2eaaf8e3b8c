"""torch's schedulers whose curve is one factor of the bases, above a minimum."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from descend.checks import ABOVE_0, COUNT, FROM_0, Range
from descend.lr_scheduler.driver import Values
from descend.lr_scheduler.scheduler_base import LRScheduler
from descend.schedules import formulas

FACTOR = Range(0, 1, closed=True)


class Factor(LRScheduler):
    """A scheduler of one factor for all groups, from a minimum that is 0 unless one is given."""

    eta_min: float = 0.0

    def _share(self, time: float) -> float:
        """The part of the base that is left above the minimum."""
        raise NotImplementedError

    def curve(self, time: float, bases: Values) -> Values:
        """Between the minimum and the base."""
        least, share = self.eta_min, self._share(time)
        return [least + (base - least) * share for base in bases]


class Recursive(Factor):
    """A class that torch computes from the lr before, and in `step(epoch)` in a closed form."""

    form = "recursive"

    def _get_closed_form_lr(self) -> list[Any]:
        """The curve of `base_lrs`; a subclass in torch's style may ask for it."""
        return list(self.values("lr", self.last_epoch + self._fraction, self.base_lrs))


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
        self.factor = self._checked("factor", factor, FACTOR)
        self.total_iters = self._checked("total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def _share(self, time: float) -> float:
        """The factor, while it holds."""
        return 1.0 if time >= self.total_iters else self.factor


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
        self.start_factor = self._checked(
            "start_factor", start_factor, Range(0, 1, closed=True, positive=True)
        )
        self.end_factor = self._checked("end_factor", end_factor, FACTOR)
        self.total_iters = self._checked("total_iters", total_iters, FROM_0)
        super().__init__(optimizer, last_epoch)

    def _share(self, time: float) -> float:
        """In a line between the two."""
        total, start = self.total_iters, self.start_factor
        part = min(time, total) / total if total else 1.0
        return float(start + (self.end_factor - start) * part)


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

    falls = True
    config = ("total_iters", "power")

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        self.total_iters = self._checked("total_iters", total_iters, FROM_0)
        self.power = self._checked("power", power, FROM_0)
        super().__init__(optimizer, last_epoch)

    def _share(self, time: float) -> float:
        """The power of the time that is left."""
        total = self.total_iters
        return formulas.polynomial(min(time, total) / total if total else 1.0, self.power)


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

    falls = True
    config = ("gamma",)

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = self._checked("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def _share(self, time: float) -> float:
        """The power of gamma."""
        return formulas.power(self.gamma, time)


class StepLR(Recursive):
    r"""Lower by a factor every so many epochs.

    .. math::
        \eta_t = \eta_0 \, \gamma^{\lfloor t / s \rfloor}

    Args:
        optimizer: whose groups it drives.
        step_size: s, in epochs.
        gamma: the factor.
        last_epoch: the last epoch that is over; -1 to begin.

    Raises:
        ScheduleError: `step_size` is not a number above 0.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = descend.lr_scheduler.StepLR(optimizer, 30, gamma=0.5)
        >>> scheduler.seek(60)
        >>> scheduler.get_last_lr()
        [0.25]

    Source: torch.optim.lr_scheduler.StepLR.
    """

    falls = True
    config = ("step_size", "gamma")

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size = self._checked("step_size", step_size, ABOVE_0)
        self.gamma = self._checked("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def _share(self, time: float) -> float:
        """The power of gamma."""
        return formulas.power(self.gamma, time // self.step_size)


class MultiStepLR(Recursive):
    r"""Lower by a factor at each milestone.

    .. math::
        \eta_t = \eta_0 \, \gamma^{|\{m : m \le t\}|}

    Args:
        optimizer: whose groups it drives.
        milestones: the epochs m; one that stands twice counts twice.
        gamma: the factor.
        last_epoch: the last epoch that is over; -1 to begin.

    Raises:
        ScheduleError: a milestone is no number.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = descend.lr_scheduler.MultiStepLR(optimizer, [30, 80], gamma=0.5)
        >>> scheduler.seek(80)
        >>> scheduler.get_last_lr()
        [0.25]

    Source: torch.optim.lr_scheduler.MultiStepLR.
    """

    falls = True
    config = ("milestones", "gamma")

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        listed = list(milestones) if isinstance(milestones, Iterable) else [milestones]
        self.milestones = Counter(self._checked_each("each of the milestones", listed))
        self.gamma = self._checked("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def _share(self, time: float) -> float:
        """The power of gamma."""
        return float(self.gamma ** formulas.passed(self._sorted, time))

    @property
    def milestones(self) -> Counter[int]:
        """The epochs, and how often each counts."""
        return self._milestones

    @milestones.setter
    def milestones(self, milestones: Iterable[int]) -> None:
        self._milestones = Counter(milestones)
        self._sorted = sorted(self._milestones.elements())

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; the milestones as torch counts them."""
        return {**super().state_dict(), "milestones": Counter(self.milestones)}

    def _refuse_unfit(self, state: Any, strict: bool, place: str = "") -> None:
        """Raise where a state cannot be loaded; JSON has made strings of the epochs."""
        if isinstance(state, dict) and isinstance(state.get("milestones"), dict):
            saved = {int(epoch): count for epoch, count in state["milestones"].items()}
            state = {**state, "milestones": saved}
        super()._refuse_unfit(state, strict, place)


class CosineAnnealingLR(Recursive):
    r"""Along a cosine wave between the base and a minimum.

    .. math::
        \eta_t = \eta_{min} + (\eta_0 - \eta_{min}) \, \frac{1 + \cos(\pi t / T_{max})}{2}

    After `T_max` it rises again, as torch's; `descend.schedules.cosine` stays at its end.

    Args:
        optimizer: whose groups it drives.
        T_max: half a wave, in epochs.
        eta_min: the minimum.
        last_epoch: the last epoch that is over; -1 to begin.

    Raises:
        ScheduleError: `T_max` is not above 0.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.lr_scheduler.CosineAnnealingLR(optimizer, 2).preview(3)
        {'lr': [[1.0], [0.5], [0.0]]}

    Source: I. Loshchilov and F. Hutter, SGDR, ICLR 2017, https://arxiv.org/abs/1608.03983.
    """

    config = ("T_max", "eta_min")

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int,  # noqa: N803 - torch's name
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.T_max = self._checked("T_max", T_max, ABOVE_0)
        self.eta_min = self._checked("eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def _share(self, time: float) -> float:
        """A wave between 1 and 0."""
        return formulas.wave(time, self.T_max)


class CosineAnnealingWarmRestarts(Factor):
    r"""Half a cosine wave from the base to a minimum, and from the base again.

    .. math::
        \eta_t = \eta_{min} + (\eta_0 - \eta_{min}) \, \frac{1 + \cos(\pi T_{cur} / T_i)}{2}

    Args:
        optimizer: whose groups it drives.
        T_0: how long the first period is, in epochs.
        T_mult: how many times as long each next one is.
        eta_min: the minimum.
        last_epoch: the last epoch that is over; -1 to begin.

    Attributes:
        T_cur: the epochs since the last restart.
        T_i: the length of the period.

    Raises:
        ScheduleError: an argument is out of range.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2).preview(3)
        {'lr': [[1.0], [0.5], [1.0]]}

    Source: I. Loshchilov and F. Hutter, SGDR, ICLR 2017, https://arxiv.org/abs/1608.03983.
    """

    form = "closed"
    deprecates_epoch = False
    config = ("T_0", "T_mult", "eta_min")

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,  # noqa: N803 - torch's name
        T_mult: int = 1,  # noqa: N803 - torch's name
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.T_0 = self._checked("T_0", T_0, COUNT)
        self.T_mult = self._checked("T_mult", T_mult, COUNT)
        self.eta_min = self._checked("eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def _share(self, time: float) -> float:
        """Half a wave from 1 to 0 in each period."""
        return formulas.wave(*formulas.restarts(time, self.T_0, self.T_mult))

    @property
    def T_cur(self) -> float:  # noqa: N802 - torch's name
        """The epochs since the last restart."""
        return formulas.restarts(self.last_epoch + self._fraction, self.T_0, self.T_mult)[0]

    @property
    def T_i(self) -> float:  # noqa: N802 - torch's name
        """The length of the period."""
        return formulas.restarts(self.last_epoch + self._fraction, self.T_0, self.T_mult)[1]

    def state_dict(self) -> dict[str, object]:
        """The state as plain data."""
        return {**super().state_dict(), "T_cur": self.T_cur, "T_i": self.T_i}

    def _take_over(self, state: dict[str, object]) -> None:
        """Set the position; torch's state has the part of an epoch in `T_cur`."""
        super()._take_over(state)
        since = state.get("T_cur")
        if isinstance(since, float):
            self._fraction = since - int(since)
