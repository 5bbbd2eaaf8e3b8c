"""SWALR."""

from typing import Any, Literal

from torch.optim import Optimizer

from descend.checks import COUNT_FROM_0, FROM_0, Choice
from descend.errors import ScheduleError
from descend.lr_scheduler.driver import Order, Values
from descend.lr_scheduler.scheduler_base import LRScheduler
from descend.schedules import formulas


class SWALR(LRScheduler):
    r"""To a fixed lr for the averaging phase, and there it stays.

    .. math::
        \eta_t = a(t) \, \eta_{swa} + (1 - a(t)) \, \eta, \quad a(t) = \frac{1 - \cos(\pi t / T)}{2}

    with :math:`\eta` what the lr would be without it: that of the other schedulers, where they
    stand. So it is built in the beginning, and stepped in their place once averaging begins:

        if epoch > swa_start:
            averaged.update_parameters(model)
            swa_scheduler.step()
        else:
            scheduler.step()

    Args:
        optimizer: whose groups it drives.
        swa_lr: the lr it goes to; or a list, one for each group. A group that is added later may
            bring its own as "swa_lr".
        anneal_epochs: T, how many steps it takes; 0: at once, but if other schedulers of descend
            drive too, with the first step.
        anneal_strategy: "cos", or "linear": a(t) = t / T.
        last_epoch: the last epoch that is over; -1 to begin.

    Attributes:
        swa_lrs: the lr that each group goes to.

    Raises:
        ScheduleError: an argument is out of range.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> descend.swa_utils.SWALR(optimizer, 0.5, 2, anneal_strategy="linear").preview(4)
        {'lr': [[1.0], [0.75], [0.5], [0.5]]}

    Source: P. Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization,
        UAI 2018, https://arxiv.org/abs/1803.05407.
    """

    config = ("anneal_epochs", "_anneal_strategy")
    own_config = ("swa_lrs",)
    order = Order.AVERAGING

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        last_epoch: int = -1,
    ) -> None:
        given = self._checked_each("swa_lr", swa_lr, FROM_0)
        self._swa_lr = None if isinstance(given, list) else given
        count = len(getattr(optimizer, "param_groups", ()))
        self._swa_lrs: list[float] = list(map(float, self._each("swa_lr", given, count)))
        self.anneal_epochs = self._checked("anneal_epochs", anneal_epochs, COUNT_FROM_0)
        self._anneal_strategy = self._checked(
            "anneal_strategy", anneal_strategy, Choice(("cos", "linear"))
        )
        super().__init__(optimizer, last_epoch)

    def _initial_step(self) -> None:
        """Note the lrs in the groups, as torch does, and begin."""
        for group, lr in zip(self.optimizer.param_groups, self._swa_lrs, strict=True):
            group["swa_lr"] = lr
        super()._initial_step()

    @property
    def swa_lrs(self) -> list[float]:
        """The lr that each group goes to."""
        return self._targets(len(self.optimizer.param_groups))

    def _targets(self, count: int) -> list[float]:
        known = self._swa_lrs
        if count == len(known):
            return known
        return [*known[:count], *map(self._of_added, range(len(known), count))]

    def _of_added(self, index: int) -> float:
        """The lr of a group that was added later."""
        own = self.optimizer.param_groups[index].get("swa_lr", self._swa_lr)
        if own is None:
            raise ScheduleError(
                f"SWALR: group {index} was added later, and swa_lr is a list of "
                f'{len(self._swa_lrs)}; give the group its own: {{"params": ..., "swa_lr": 0.05}}'
            )
        return float(self._checked("swa_lr", own, FROM_0))

    def anneal_func(self, t: float) -> float:
        """How far it is, from 0 to 1.

        Args:
            t: the part of `anneal_epochs` that has passed.
        """
        return t if self._anneal_strategy == "linear" else 1.0 - formulas.cosine(t)

    def _annealed(self, time: float) -> float:
        epochs = self.anneal_epochs
        if not epochs or time >= epochs:
            return 1.0
        return self.anneal_func(max(time, 0.0) / epochs)

    def curve(self, time: float, bases: Values) -> Values:
        """Between the base and the lr that it goes to."""
        part, targets = self._annealed(time), self._targets(len(bases))
        rest = 1.0 - part
        return [target * part + base * rest for target, base in zip(targets, bases, strict=True)]

    def _now(self, key: str, bases: Values) -> Values:
        """The lr now; until the first step it leaves it to the others, if there are any."""
        begun = self.last_epoch > 0 or self._fraction or self._alone()
        return super()._now(key, bases) if begun else bases

    def _alone(self) -> bool:
        return bool(self._drivers["lr"].schedulers() == [self])

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; torch's SWALR loads it, and the other way round."""
        return {**super().state_dict(), "_step_count": self.last_epoch + 1}  # where torch's is

    def _take_over(self, state: dict[str, Any]) -> None:
        """Set the position and the bases; torch's are told by its steps and by its lr."""
        if "swa_lrs" not in state:
            time = state.get("_step_count", state["last_epoch"] + 1) - 1
            part, last = self._annealed(time), state.get("_last_lr")
            state = {**state, "last_epoch": time}
            if part == 0.0:  # it has not begun: the lr is that of others
                state["base_lrs"] = self.bases()["lr"]
            elif part < 1.0 and last is not None and self._alone():
                state["base_lrs"] = [
                    (float(lr) - part * target) / (1.0 - part)
                    for lr, target in zip(last, self.swa_lrs, strict=False)
                ]
        super()._take_over(state)
