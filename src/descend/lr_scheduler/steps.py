"""Schedulers that fall in steps."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from descend.lr_scheduler.base import Recursive
from descend.lr_scheduler.checks import finite, positive
from descend.lr_scheduler.track import Values


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

    rises = False
    config = ("step_size", "gamma")

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        step_size = positive("StepLR", "step_size", step_size)
        gamma = finite("StepLR", "gamma", gamma)
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def curve(self, time: float, bases: Values) -> Values:
        """The base times the power of gamma."""
        factor = self.gamma ** (time // self.step_size)
        return [base * factor for base in bases]


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

    rises = False
    config = ("milestones", "gamma")

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        listed = list(milestones) if isinstance(milestones, Iterable) else [milestones]
        listed = finite("MultiStepLR", "each of the milestones", listed)
        gamma = finite("MultiStepLR", "gamma", gamma)
        self.milestones = Counter(listed)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    @property
    def milestones(self) -> Counter[int]:
        """The epochs, and how often each counts."""
        return self._milestones

    @milestones.setter
    def milestones(self, milestones: Iterable[int]) -> None:
        self._milestones = Counter(milestones)
        self._sorted = sorted(self._milestones.elements())

    def curve(self, time: float, bases: Values) -> Values:
        """The base times the power of gamma."""
        factor = self.gamma ** bisect_right(self._sorted, time)
        return [base * factor for base in bases]

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; the milestones as torch counts them."""
        return {**super().state_dict(), "milestones": Counter(self.milestones)}

    def refuse_unfit(self, state: Any, strict: bool, place: str = "") -> None:
        """Raise where a state cannot be loaded; JSON has made strings of the epochs."""
        if isinstance(state, dict) and isinstance(state.get("milestones"), dict):
            saved = {int(epoch): count for epoch, count in state["milestones"].items()}
            state = {**state, "milestones": saved}
        super().refuse_unfit(state, strict, place)
