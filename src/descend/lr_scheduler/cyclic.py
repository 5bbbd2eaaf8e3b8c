"""CyclicLR."""

import types
from collections.abc import Callable
from typing import Any, Literal

from torch.optim import Optimizer

from descend.checks import ABOVE_0, FROM_0, Choice
from descend.lr_scheduler.momentum import Levels, WithMomentum
from descend.lr_scheduler.scheduler_state import plain
from descend.schedules import formulas

MODE = Choice(("triangular", "triangular2", "exp_range"))


class CyclicLR(WithMomentum):
    r"""Up and down between two values, and the momentum the other way round.

    .. math::
        \eta_t = \eta_{base} + (\eta_{max} - \eta_{base}) \, h(t) \, s(t)

    with h a zigzag between 0 and 1, and s the mode: 1, halved in each cycle, or gamma to the t.

    Args:
        optimizer: whose groups it drives.
        base_lr: the value at the bottom; or a list, one for each group.
        max_lr: the value at the top; or a list, one for each group.
        step_size_up: how many steps it rises.
        step_size_down: how many it falls; as many where left out.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: of "exp_range".
        scale_fn: a function in place of the mode, to at most 1.
        scale_mode: whether `scale_fn` gets the number of the "cycle", from 1, or of "iterations".
        cycle_momentum: drive the momentum, or the first beta, too.
        base_momentum: its value where the lr is at the top.
        max_momentum: its value where the lr is at the bottom.
        last_epoch: the last step that is over; -1 to begin.

    Raises:
        ScheduleError: an argument is out of range, or there is no momentum to cycle.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = descend.lr_scheduler.CyclicLR(optimizer, 0.5, 1.0, 2, cycle_momentum=False)
        >>> scheduler.preview(4)
        {'lr': [[0.5], [0.75], [1.0], [0.75]]}

    Source: L. Smith, Cyclical Learning Rates, WACV 2017, https://arxiv.org/abs/1506.01186.
    """

    config = (
        "total_size",
        "step_ratio",
        "mode",
        "gamma",
        "scale_mode",
        "max_lrs",
        "cycle_momentum",
    )
    own_config = ("_base_lr", "_base_momentum", "_max_momentum")

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: Literal["cycle", "iterations"] = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        self._up = self._checked("step_size_up", step_size_up, FROM_0)
        down = self._up if step_size_down is None else step_size_down
        self._down = self._checked("step_size_down", down, FROM_0)
        self._checked("step_size_up + step_size_down", self._up + self._down, ABOVE_0)
        self.total_size = float(self._up + self._down)
        self.step_ratio = self._up / self.total_size
        self.mode = mode if scale_fn is not None else self._checked("mode", mode, MODE)
        self.gamma = self._checked("gamma", gamma)
        self._scale_fn_custom = scale_fn
        builtin = "iterations" if mode == "exp_range" else "cycle"
        self.scale_mode = scale_mode if scale_fn is not None else builtin
        self.cycle_momentum = cycle_momentum
        self._base_lr = self._checked_each("base_lr", base_lr)
        self._max_lr = self._checked_each("max_lr", max_lr)
        self._base_momentum = self._checked_each("base_momentum", base_momentum)
        self._max_momentum = self._checked_each("max_momentum", max_momentum)
        self._choose_keys(optimizer)
        super().__init__(optimizer, last_epoch)

    def _initial_step(self) -> None:
        """Note the values in the groups, as torch does, and begin."""
        self._note([{"initial_lr": base} for base in self.base_lrs])
        super()._initial_step()

    @property
    def base_lrs(self) -> list[Any]:
        """The value at the bottom, of each group."""
        return self._of_each("base_lr")

    @base_lrs.setter
    def base_lrs(self, bases: list[Any]) -> None:
        self._base_lr, self._levels = plain(bases), None

    def _base_lrs_of_state(self) -> list[float]:
        """The values at the bottom."""
        return self._of_each("base_lr")

    @property
    def max_lrs(self) -> list[float]:
        """The value at the top, of each group."""
        return self._of_each("max_lr")

    @property
    def base_momentums(self) -> list[float]:
        """The momentum where the lr is at the top, of each group."""
        return self._of_each("base_momentum")

    @property
    def max_momentums(self) -> list[float]:
        """The momentum where the lr is at the bottom, of each group."""
        return self._of_each("max_momentum")

    def scale_fn(self, x: float) -> float:
        """How high a cycle is.

        Args:
            x: the number of the cycle, or of iterations, as `scale_mode` says.
        """
        if self._scale_fn_custom is not None:
            return float(self._scale_fn_custom(x))
        return formulas.cycle_scale(self.mode, int(x), x, self.gamma)

    def _find_levels(self, count: int) -> Levels:
        """Bottom and top of the lr in each group, and top and bottom of the momentum."""
        low, high = self._of_each("base_lr", count), self._of_each("max_lr", count)
        least, most = (self._of_each(f"{end}_momentum", count) for end in ("base", "max"))
        return [(list(zip(low, high, strict=True)), list(zip(most, least, strict=True)))]

    def _place(self, time: float) -> tuple[int, float]:
        """The height of the zigzag, as scaled by the mode."""
        cycle, height = formulas.triangle(time, self._up, self._down)
        if self._scale_fn_custom is not None or self.mode != "triangular":
            height *= self.scale_fn(cycle if self.scale_mode == "cycle" else time)
        return 0, height

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; of a `scale_fn` that is an object, its attributes."""
        state, own = super().state_dict(), self._scale_fn_custom
        simple = own is None or isinstance(own, types.FunctionType)
        state["_scale_fn_custom"] = None if simple else dict(vars(own))
        return state

    def _take_over(self, state: dict[str, Any]) -> None:
        """Set the position, and the attributes of a `scale_fn` that is an object."""
        # Its `base_lrs` are its own values; the bases of other schedulers stand in "bases".
        super()._take_over({key: value for key, value in state.items() if key != "base_lrs"})
        saved = state.get("_scale_fn_custom")
        if saved is not None and self._scale_fn_custom is not None:
            vars(self._scale_fn_custom).update(saved)
