"""SWALR."""

import math
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from descend.errors import ScheduleError
from descend.lr_scheduler.base import LRScheduler
from descend.lr_scheduler.checks import spread
from descend.lr_scheduler.slot import read
from descend.lr_scheduler.track import Track, Values
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
    rank: Any = 1.5  # after all factors, before the warmups

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        last_epoch: int = -1,
    ) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise ScheduleError(
                f"SWALR: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}"
            )
        if (
            isinstance(anneal_epochs, bool)
            or not isinstance(anneal_epochs, int)
            or anneal_epochs < 0
        ):
            raise ScheduleError(
                "SWALR: anneal_epochs must be a whole number of epochs of at least 0, got "
                f"{anneal_epochs!r}"
            )
        several = isinstance(swa_lr, list | tuple)
        self._swa_lr = None if several else _checked(swa_lr)
        self._swa_lrs: list[float] = []
        if isinstance(optimizer, Optimizer):
            count = len(optimizer.param_groups)
            self._swa_lrs = [_checked(lr) for lr in spread("SWALR", "swa_lr", swa_lr, count)]
        self.anneal_epochs = anneal_epochs
        self._anneal_strategy = anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _join(self, key: str, resumed: bool) -> Track:
        """The track of the lr, with this scheduler on it."""
        groups = self.optimizer.param_groups
        noted = [group.get("initial_lr") for group in groups]
        track = super()._join(key, resumed)
        if track.only_driven_by(self):
            for group, initial in zip(groups, noted, strict=True):
                if initial is not None:  # schedulers of torch may need it until this one begins
                    group["initial_lr"] = initial
        return track

    def _initial_step(self) -> None:
        """Note the lrs in the groups, as torch does, and begin."""
        for group, lr in zip(self.optimizer.param_groups, self._swa_lrs, strict=True):
            group["swa_lr"] = lr
        if self.anneal_epochs and self.last_epoch == -1:  # there is nothing to write
            self.last_epoch, self._step_count, self._is_initial = 0, 1, False
        else:
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
        return _checked(own)

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

    def values_now(self, key: str, bases: Values) -> Values:
        """What the lr is now; until the first step it leaves it to the others, if there are any."""
        begun = self.last_epoch > 0 or self._fraction or self._tracks[key].only_driven_by(self)
        return super().values_now(key, bases) if begun else bases

    def _waits(self) -> bool:
        """Whether it has not begun, and no other of descend drives: the lr is not its own yet."""
        begun = self.last_epoch > 0 or self._fraction or self._is_initial
        return not begun and self._tracks["lr"].only_driven_by(self)

    def _move(self, epoch: int, fraction: float) -> None:
        """Go somewhere; from the beginning, it is from the lr that is there."""
        if self.anneal_epochs and self._waits():
            groups = self.optimizer.param_groups
            self._tracks["lr"].set_bases(groups, [read(group, "lr") for group in groups])
        super()._move(epoch, fraction)

    def _bases(self) -> Values:
        """What the lr of each group would be without it, whoever has written; nothing changes."""
        groups = self.optimizer.param_groups
        if self.anneal_epochs and self._waits():
            return [read(group, "lr") for group in groups]
        return self._tracks["lr"].settled_bases(groups)

    def preview(self, steps: int) -> dict[str, list[list[float]]]:
        """What the lr will be, without touching the optimizer.

        Args:
            steps: how many epochs (or steps), from 0.

        Returns:
            For "lr", and each step, its value in each group.
        """
        bases = self._bases()
        return {"lr": [self.curve(time, bases) for time in range(steps)]}

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; torch's SWALR loads it, and the other way round."""
        steps = self.last_epoch + 1  # where torch's is
        return {**super().state_dict(), "base_lrs": self._bases(), "_step_count": steps}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Go to where a state was saved; before or after the optimizer's is loaded.

        Args:
            state_dict: what `state_dict` returned, or torch's SWALR.
            strict: refuse the state of a SWALR that is configured otherwise. False: take over the
                position and the bases, and keep the configuration that is here.

        Raises:
            StateError: the state is of another kind of scheduler, or (strict) of one with another
                configuration or other groups; nothing has changed.
        """
        self.refuse_unfit(state_dict, strict)
        if "swa_lrs" not in state_dict:
            state_dict = self._from_torch(state_dict)
        started = state_dict["last_epoch"] or state_dict.get("_fraction")
        beside_torch = hasattr(self.optimizer.step, "_wrapped_by_lr_sched")
        if self._waits() and beside_torch and not started:
            return
        super().load_state_dict(state_dict, strict)

    def _from_torch(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state of torch as one of these: its position is in the steps, the base in the lr."""
        time = state.get("_step_count", state["last_epoch"] + 1) - 1
        part, last = self._annealed(time), state.get("_last_lr")
        state = {**state, "last_epoch": time}
        if part < 1.0 and last is not None and self._tracks["lr"].only_driven_by(self):
            state["base_lrs"] = [
                (float(lr) - part * target) / (1.0 - part)
                for lr, target in zip(last, self.swa_lrs, strict=False)
            ]
        return state


def _checked(swa_lr: Any) -> float:
    """An lr as a number."""
    if isinstance(swa_lr, Tensor) and swa_lr.numel() == 1:
        swa_lr = swa_lr.item()
    if (
        isinstance(swa_lr, bool)
        or not isinstance(swa_lr, int | float)
        or not 0 <= swa_lr < math.inf
    ):
        raise ScheduleError(f"SWALR: swa_lr must be a number of at least 0, got {swa_lr!r}")
    return float(swa_lr)
