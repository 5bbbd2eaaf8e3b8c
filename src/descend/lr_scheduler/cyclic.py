"""CyclicLR."""

import types
from collections.abc import Callable
from typing import Any, Literal

from torch.optim import Optimizer

from descend.errors import ScheduleError
from descend.lr_scheduler.checks import finite, not_negative, positive
from descend.lr_scheduler.momentum import WithMomentum
from descend.lr_scheduler.state import plain
from descend.lr_scheduler.track import Values
from descend.schedules import formulas

MODES = ("triangular", "triangular2", "exp_range")


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
        step_size_up = not_negative("CyclicLR", "step_size_up", step_size_up)
        down = step_size_up if step_size_down is None else step_size_down
        down = not_negative("CyclicLR", "step_size_down", down)
        positive("CyclicLR", "step_size_up + step_size_down", step_size_up + down)
        base_lr = finite("CyclicLR", "base_lr", base_lr)
        max_lr = finite("CyclicLR", "max_lr", max_lr)
        gamma = finite("CyclicLR", "gamma", gamma)
        if mode not in MODES and scale_fn is None:
            raise ScheduleError(
                f"CyclicLR: mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}"
            )
        self._up, self._down = step_size_up, down
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        builtin = "iterations" if mode == "exp_range" else "cycle"
        self.scale_mode = scale_mode if scale_fn is not None else builtin
        self.cycle_momentum = cycle_momentum
        self._base_lr, self._max_lr = base_lr, max_lr
        self._base_momentum = finite("CyclicLR", "base_momentum", base_momentum)
        self._max_momentum = finite("CyclicLR", "max_momentum", max_momentum)
        self._choose_momentum(optimizer)
        self._checked(optimizer, "base_lr", "max_lr", "base_momentum", "max_momentum")
        super().__init__(optimizer, last_epoch)

    def _initial_step(self) -> None:
        """Note the values in the groups, as torch does, and begin."""
        self._note([{"initial_lr": base} for base in self.base_lrs])
        super()._initial_step()

    @property
    def base_lrs(self) -> list[Any]:
        """The value at the bottom, of each group."""
        return self._each("base_lr", len(self.optimizer.param_groups))

    @base_lrs.setter
    def base_lrs(self, bases: list[Any]) -> None:
        self._base_lr, self._levels = plain(bases), None

    @property
    def max_lrs(self) -> list[float]:
        """The value at the top, of each group."""
        return self._each("max_lr", len(self.optimizer.param_groups))

    @property
    def base_momentums(self) -> list[float]:
        """The momentum where the lr is at the top, of each group."""
        return self._each("base_momentum", len(self.optimizer.param_groups))

    @property
    def max_momentums(self) -> list[float]:
        """The momentum where the lr is at the bottom, of each group."""
        return self._each("max_momentum", len(self.optimizer.param_groups))

    def _own_bases(self) -> list[float]:
        """The values at the bottom."""
        return list(self.base_lrs)

    def scale_fn(self, x: float) -> float:
        """How high a cycle is.

        Args:
            x: the number of the cycle, or of iterations, as `scale_mode` says.
        """
        if self._scale_fn_custom is not None:
            return float(self._scale_fn_custom(x))
        return formulas.cycle_scale(self.mode, int(x), x, self.gamma)

    def find_levels(self, count: int) -> list[Any]:
        """Bottom and top of the lr, and of the momentum, in each group."""
        momentum = ("base_momentum", "max_momentum") if self.cycle_momentum else ()
        columns = [self._each(name, count) for name in ("base_lr", "max_lr", *momentum)]
        return [list(zip(*columns[:2], strict=True)), list(zip(*columns[2:], strict=True))]

    def both(self, time: float, count: int) -> tuple[Values, Values]:
        """Between bottom and top; the momentum against the lr."""
        cycle, height = formulas.triangle(time, self._up, self._down)
        if self._scale_fn_custom is not None or self.mode != "triangular":
            height *= self.scale_fn(cycle if self.scale_mode == "cycle" else time)
        lrs, momentums = self.levels(count)
        return (
            [low + (high - low) * height for low, high in lrs],
            [high - (high - low) * height for low, high in momentums],
        )

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; of a `scale_fn` that is an object, its attributes."""
        state, own = super().state_dict(), self._scale_fn_custom
        simple = own is None or isinstance(own, types.FunctionType)
        state["_scale_fn_custom"] = None if simple else dict(vars(own))
        return state

    def take_over(self, state: dict[str, Any]) -> None:
        """Set the position, and the attributes of a `scale_fn` that is an object."""
        # Its `base_lrs` are its own values; the bases of other schedulers stand in "bases".
        super().take_over({key: value for key, value in state.items() if key != "base_lrs"})
        saved = state.get("_scale_fn_custom")
        if saved is not None and self._scale_fn_custom is not None:
            vars(self._scale_fn_custom).update(saved)
