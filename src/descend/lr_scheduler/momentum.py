"""Schedulers of torch that drive the momentum too: once they have it, against the lr."""

from typing import Any

from torch.optim import Optimizer

from descend.errors import ScheduleError
from descend.lr_scheduler.base import LRScheduler
from descend.lr_scheduler.checks import spread
from descend.lr_scheduler.track import Track, Values


class WithMomentum(LRScheduler):
    """A scheduler of given lrs, and of the momentum or the first of the betas."""

    rank = 0
    form = "closed"
    cycle_momentum: bool
    _levels: tuple[int, list[Any]] | None = None

    def _choose_momentum(self, optimizer: Optimizer) -> None:
        """Drive "momentum" or "beta1", whichever the optimizer has."""
        self.keys = ("lr",)  # type: ignore[misc]
        if not self.cycle_momentum or not isinstance(optimizer, Optimizer):
            return
        if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
            raise ScheduleError(
                f"{type(self).__name__}: {type(optimizer).__name__} must have a momentum or betas "
                "to cycle, and has none; give cycle_momentum=False"
            )
        self.use_beta1 = "betas" in optimizer.defaults
        self.keys = ("lr", "beta1" if self.use_beta1 else "momentum")  # type: ignore[misc]

    def _each(self, name: str, count: int) -> list[Any]:
        """An argument for each group; one for all is that of groups that were added, too."""
        return spread(type(self).__name__, name, getattr(self, f"_{name}"), count)

    def _checked(self, optimizer: Optimizer, *names: str) -> None:
        """Refuse a list that has not one entry for each group."""
        if isinstance(optimizer, Optimizer):
            for name in names:
                self._each(name, len(optimizer.param_groups))

    def _note(self, levels: list[dict[str, float]], always: bool = False) -> None:
        """Note the values in the groups, as torch does; the base too, if nobody else needs it."""
        groups, track = self.optimizer.param_groups, self._tracks["lr"]
        others = [driver for driver in track.drivers() if driver is not self]
        alone = always or (not others and track.foreign is None)
        if self.cycle_momentum:
            for name in ("max_momentum", "base_momentum"):
                for group, value in zip(groups, self._each(name, len(groups)), strict=True):
                    group[name] = value
        for group, own in zip(groups, levels, strict=True):
            group.update({k: v for k, v in own.items() if alone or k != "initial_lr"})
        track.first = track.known = track.bases(groups)
        if self._by_hand:
            vars(self)["base_lrs"] = list(track.known)

    def levels(self, count: int) -> list[Any]:
        """What the curves go between, in each group.

        Args:
            count: how many groups there are.
        """
        if self._levels is None or self._levels[0] != count:
            self._levels = (count, self.find_levels(count))
        return self._levels[1]

    def find_levels(self, count: int) -> list[Any]:
        """The same, from the arguments."""
        raise NotImplementedError

    def get_lr(self) -> list[Any]:
        """The lr of each group in this step; beside a scheduler written for torch, as torch's.

        Then it writes the momentum, too.
        """
        groups = self.optimizer.param_groups
        lrs, momentums = self.both(self.last_epoch + self._fraction, len(groups))
        if self._as_torchs() and self.cycle_momentum:
            Track(self.keys[1]).put(groups, momentums)
        return list(lrs)

    def values(self, key: str, time: float, bases: Values) -> Values:
        """The lr, or the momentum."""
        both = self.both(time, len(bases))
        return both[0] if key == "lr" else both[1]

    def curve(self, time: float, bases: Values) -> Values:
        """Given values, whatever the base."""
        return self.both(time, len(bases))[0]

    def both(self, time: float, count: int) -> tuple[Values, Values]:
        """What the lr and the momentum of each group are, a pure function of the time.

        Args:
            time: from 0.
            count: how many groups there are.
        """
        raise NotImplementedError

    def _short_step(self) -> bool:
        """Go to the next step with both, if nobody else is on the tracks or has written."""
        if len(self.keys) == 1:
            return super()._short_step()
        groups = self.optimizer.param_groups
        rates, momenta = self._tracks.values()
        alone = rates.only_driven_by(self) and momenta.only_driven_by(self)
        if not alone or rates.foreign is not None:
            return False
        if not len(groups) == len(rates.marks) == len(momenta.marks):
            return False
        name, beta, numbers = momenta.name, momenta.place is not None, True
        for group, rate, momentum in zip(groups, rates.marks, momenta.marks):  # noqa: B905 - slow
            lr, held = group["lr"], group[name][0] if beta else group[name]
            # The types first: to compare a tensor takes longer than all the rest.
            if type(lr) is not float or type(held) is not float:
                numbers = False
                break
            if lr != rate or held != momentum:
                return False
        if not (numbers or (rates.only(self, groups) and momenta.only(self, groups))):
            return False
        lrs, momentums = self.both(self.last_epoch + 1 + self._fraction, len(groups))
        if numbers:
            for group, lr, momentum in zip(groups, lrs, momentums):  # noqa: B905 - slow
                group["lr"] = lr
                group[name] = (momentum, *group[name][1:]) if beta else momentum
            rates.marks, momenta.marks = lrs, momentums
        else:
            rates.put(groups, lrs)
            momenta.put(groups, momentums)
        self.last_epoch += 1
        self._step_count += 1
        return True
