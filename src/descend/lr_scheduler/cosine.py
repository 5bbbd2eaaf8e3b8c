"""Schedulers along a cosine."""

from torch.optim import Optimizer

from descend.lr_scheduler.base import LRScheduler, Recursive
from descend.lr_scheduler.checks import finite, positive, whole
from descend.lr_scheduler.track import Values
from descend.schedules import formulas


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
        eta_min = finite("CosineAnnealingLR", "eta_min", eta_min)
        self.T_max = positive("CosineAnnealingLR", "T_max", T_max)
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def curve(self, time: float, bases: Values) -> Values:
        """Between the minimum and the base."""
        least, factor = self.eta_min, formulas.wave(time, self.T_max)
        return [least + (base - least) * factor for base in bases]


class CosineAnnealingWarmRestarts(LRScheduler):
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
        owner = "CosineAnnealingWarmRestarts"
        eta_min = finite(owner, "eta_min", eta_min)
        self.T_0 = whole(owner, "T_0", T_0, 1)
        self.T_mult = whole(owner, "T_mult", T_mult, 1)
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    @property
    def T_cur(self) -> float:  # noqa: N802 - torch's name
        """The epochs since the last restart."""
        return formulas.restarts(self.last_epoch + self._fraction, self.T_0, self.T_mult)[0]

    @property
    def T_i(self) -> float:  # noqa: N802 - torch's name
        """The length of the period."""
        return formulas.restarts(self.last_epoch + self._fraction, self.T_0, self.T_mult)[1]

    def curve(self, time: float, bases: Values) -> Values:
        """Between the minimum and the base."""
        since, period = formulas.restarts(time, self.T_0, self.T_mult)
        least, factor = self.eta_min, formulas.wave(since, period)
        return [least + (base - least) * factor for base in bases]

    def state_dict(self) -> dict[str, object]:
        """The state as plain data."""
        return {**super().state_dict(), "T_cur": self.T_cur, "T_i": self.T_i}

    def take_over(self, state: dict[str, object]) -> None:
        """Set the position; torch's state has the part of an epoch in `T_cur`."""
        super().take_over(state)
        since = state.get("T_cur")
        if isinstance(since, float):
            self._fraction = since - int(since)
