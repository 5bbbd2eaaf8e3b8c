"""OneCycleLR."""

from bisect import bisect_left
from typing import Any, Literal

from torch.optim import Optimizer

from descend.checks import ABOVE_0, COUNT, Choice, Range
from descend.errors import ScheduleError
from descend.lr_scheduler.momentum import Levels, WithMomentum
from descend.schedules import formulas


class OneCycleLR(WithMomentum):
    r"""Once up to a maximum, and down to almost nothing; the momentum the other way round.

    .. math::
        \eta: \ \eta_{max} / d \to \eta_{max} \to \eta_{max} / (d \, d_{final})

    After the last step it stays as it is.

    Args:
        optimizer: whose groups it drives.
        max_lr: the value at the top; or a list, one for each group.
        total_steps: how many steps there are; or `epochs` and `steps_per_epoch`.
        epochs: how many epochs there are.
        steps_per_epoch: how many steps each has.
        pct_start: the part of the steps that it rises, from 0 to 1.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: drive the momentum, or the first beta, too.
        base_momentum: its value where the lr is at the top; or a list, one for each group.
        max_momentum: its value where the lr is at the bottom; or a list, one for each group.
        div_factor: d; the first value is max_lr / d.
        final_div_factor: the last value is the first one divided by it.
        three_phase: fall as far as it has risen, and then to the last value.
        last_epoch: the last step that is over; -1 to begin.

    Raises:
        ScheduleError: an argument is out of range, or there is no momentum to cycle.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
        >>> scheduler = descend.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
        >>> scheduler.seek(2)
        >>> scheduler.get_last_lr(), optimizer.param_groups[0]["momentum"]
        ([1.0], 0.85)

    Source: L. Smith and N. Topin, Super-Convergence, 2018, https://arxiv.org/abs/1708.07120.
    """

    config = ("total_steps", "_schedule_phases", "_anneal_func_type", "cycle_momentum")
    own_config = ("_max_lr", "_div", "_final_div", "_base_momentum", "_max_momentum")

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ScheduleError(
                    "OneCycleLR: it must know how many steps there are; give total_steps, or "
                    "epochs and steps_per_epoch"
                )
            total_steps = self._checked("epochs", epochs, COUNT) * self._checked(
                "steps_per_epoch", steps_per_epoch, COUNT
            )
        self.total_steps = self._checked("total_steps", total_steps, COUNT)
        share = self._checked("pct_start", pct_start, Range(0, 1, closed=True))
        self._anneal_func_type = self._checked(
            "anneal_strategy", anneal_strategy, Choice(("cos", "linear"))
        )
        self._schedule_phases = _phases(self.total_steps, share, three_phase)
        self._ends = [phase["end_step"] for phase in self._schedule_phases]
        self.cycle_momentum = cycle_momentum
        self._max_lr = self._checked_each("max_lr", max_lr)
        self._div = self._checked("div_factor", div_factor, ABOVE_0)
        self._final_div = self._checked("final_div_factor", final_div_factor, ABOVE_0)
        self._base_momentum = self._checked_each("base_momentum", base_momentum)
        self._max_momentum = self._checked_each("max_momentum", max_momentum)
        self._choose_keys(optimizer)
        super().__init__(optimizer, last_epoch)

    def _initial_step(self) -> None:
        """Note the values in the groups, as torch does, and begin."""
        self._note(list(map(self._lrs, self._of_each("max_lr"))), always=self._torch_style)
        super()._initial_step()

    def _lrs(self, max_lr: float) -> dict[str, float]:
        """The three levels of the lr, by the names that torch has in its phases."""
        initial = max_lr / self._div
        return {"initial_lr": initial, "max_lr": max_lr, "min_lr": initial / self._final_div}

    def _find_levels(self, count: int) -> Levels:
        """For each phase, the ends of the lr and of the momentum in each group."""
        lrs = list(map(self._lrs, self._of_each("max_lr", count)))
        levels = {name: [own[name] for own in lrs] for name in ("initial_lr", "max_lr", "min_lr")}
        for name in ("base_momentum", "max_momentum"):
            levels[name] = self._of_each(name, count)
        # As in torch, a line is added to where it begins, and a cosine to where it ends.
        first, second = ("start", "end") if self._anneal_func_type == "linear" else ("end", "start")

        def ends(phase: dict[str, Any], of: str) -> list[tuple[float, float]]:
            pair = (levels[phase[f"{end}_{of}"]] for end in (first, second))
            return list(zip(*pair, strict=True))

        return [(ends(phase, "lr"), ends(phase, "momentum")) for phase in self._schedule_phases]

    def _place(self, time: float) -> tuple[int, float]:
        """The phase, and how far it is from the end that all is added to."""
        ends = self._ends
        if time >= ends[-1]:
            phase, passed = len(ends) - 1, 1.0
        else:
            phase = bisect_left(ends, time)
            begin = ends[phase - 1] if phase else 0.0
            passed = (time - begin) / (ends[phase] - begin)
        return phase, passed if self._anneal_func_type == "linear" else formulas.cosine(passed)


def _phases(total: int, rise: float, three: bool) -> list[dict[str, Any]]:
    """The phases, each with its last step and with what it goes from and to; as torch's."""
    names = [("initial_lr", "max_lr", "max_momentum", "base_momentum")]
    ends = [float(rise * total) - 1]
    if three:
        names.append(("max_lr", "initial_lr", "base_momentum", "max_momentum"))
        names.append(("initial_lr", "min_lr", "max_momentum", "max_momentum"))
        ends.append(float(2 * rise * total) - 2)
    else:
        names.append(("max_lr", "min_lr", "base_momentum", "max_momentum"))
    return [
        {
            "end_step": end,
            "start_lr": start_lr,
            "end_lr": end_lr,
            "start_momentum": start_momentum,
            "end_momentum": end_momentum,
        }
        for end, (start_lr, end_lr, start_momentum, end_momentum) in zip(
            [*ends, total - 1], names, strict=True
        )
    ]
