"""OneCycleLR."""

from typing import Any, Literal

from torch.optim import Optimizer

from descend.errors import ScheduleError
from descend.lr_scheduler.checks import finite, number, positive, whole
from descend.lr_scheduler.momentum import WithMomentum
from descend.lr_scheduler.track import Values
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
            epochs = whole("OneCycleLR", "epochs", epochs, 1)
            steps_per_epoch = whole("OneCycleLR", "steps_per_epoch", steps_per_epoch, 1)
            total_steps = epochs * steps_per_epoch
        total_steps = whole("OneCycleLR", "total_steps", total_steps, 1)
        max_lr = finite("OneCycleLR", "max_lr", max_lr)
        share = number(pct_start)
        if share is None or not 0 <= share <= 1:
            raise ScheduleError(f"OneCycleLR: pct_start must be from 0.0 to 1.0, got {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ScheduleError(
                f"OneCycleLR: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}"
            )
        div_factor = positive("OneCycleLR", "div_factor", div_factor)
        final_div_factor = positive("OneCycleLR", "final_div_factor", final_div_factor)
        self.total_steps = total_steps
        self._anneal_func_type = anneal_strategy
        self._schedule_phases = _phases(total_steps, share, three_phase)
        self._ends = [phase["end_step"] for phase in self._schedule_phases]
        self.cycle_momentum = cycle_momentum
        self._max_lr, self._div, self._final_div = max_lr, div_factor, final_div_factor
        self._base_momentum = finite("OneCycleLR", "base_momentum", base_momentum)
        self._max_momentum = finite("OneCycleLR", "max_momentum", max_momentum)
        self._choose_momentum(optimizer)
        self._checked(optimizer, "max_lr", "base_momentum", "max_momentum")
        super().__init__(optimizer, last_epoch)

    def _initial_step(self) -> None:
        """Note the values in the groups, as torch does, and begin."""
        tops = self._each("max_lr", len(self.optimizer.param_groups))
        self._note(list(map(self._lrs, tops)), always=self._by_hand)
        super()._initial_step()

    def _lrs(self, max_lr: float) -> dict[str, float]:
        initial = max_lr / self._div
        return {"initial_lr": initial, "max_lr": max_lr, "min_lr": initial / self._final_div}

    def find_levels(self, count: int) -> list[Any]:
        """For each phase, what the lr and the momentum of each group go from and to."""
        columns: dict[str, list[float]] = {}
        for max_lr in self._each("max_lr", count):
            for name, value in self._lrs(max_lr).items():
                columns.setdefault(name, []).append(value)
        if self.cycle_momentum:
            for name in ("base_momentum", "max_momentum"):
                columns[name] = self._each(name, count)
        return [
            [
                list(zip(columns.get(start, ()), columns.get(end, ()), strict=True))
                for start, end in (
                    (phase["start_lr"], phase["end_lr"]),
                    (phase["start_momentum"], phase["end_momentum"]),
                )
            ]
            for phase in self._schedule_phases
        ]

    def both(self, time: float, count: int) -> tuple[Values, Values]:
        """Between the levels of the phase; the momentum against the lr."""
        phase, begin = 0, 0.0
        last = len(self._ends) - 1
        time = min(time, self._ends[last])
        while phase < last and time > self._ends[phase]:
            begin = self._ends[phase]
            phase += 1
        whole = self._ends[phase] - begin
        passed = (time - begin) / whole if whole else 1.0
        lrs, momentums = self.levels(count)[phase]
        if self._anneal_func_type == "linear":
            return (
                [(end - start) * passed + start for start, end in lrs],
                [(end - start) * passed + start for start, end in momentums],
            )
        left = formulas.cosine(passed)
        return (
            [end + (start - end) * left for start, end in lrs],
            [end + (start - end) * left for start, end in momentums],
        )


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
