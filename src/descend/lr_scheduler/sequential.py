"""SequentialLR and ChainedScheduler: schedulers made of others."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, SupportsFloat, cast
from weakref import ref

from torch.optim import Optimizer

from descend.errors import ScheduleError, ScheduleTypeError, StateError
from descend.format import counted
from descend.lr_scheduler import early_step
from descend.lr_scheduler.driver import Driver, Order, Values, drivers_of
from descend.lr_scheduler.plateau import ReduceLROnPlateau
from descend.lr_scheduler.scheduler_base import LRScheduler, unchanged_on_error
from descend.lr_scheduler.torch_style import move, step_as_torch, there_now, write_lrs


class Composed(LRScheduler):
    """A scheduler made of others, which drive through it."""

    made_of_others = True

    _schedulers: list[Any]

    def _take(self, optimizer: Optimizer | None, schedulers: Sequence[Any]) -> Optimizer:
        """Check the schedulers, and let this one drive in their place."""
        owner = type(self).__name__
        if not schedulers:
            raise ScheduleError(f"{owner}: it needs at least one scheduler, got none")
        for index, scheduler in enumerate(schedulers):
            kind = type(scheduler)
            if not isinstance(scheduler, LRScheduler):
                theirs = kind.__module__.startswith("torch.")
                advice = f"; use descend.lr_scheduler.{kind.__name__}" if theirs else ""
                raise ScheduleTypeError(
                    f"{owner}: the scheduler at index {index} must be one of descend's, got "
                    f"{kind.__module__}.{kind.__qualname__}{advice}"
                )
            optimizer = scheduler.optimizer if optimizer is None else optimizer
            if scheduler.optimizer is not optimizer:
                raise ScheduleError(
                    f"{owner}: all schedulers must belong to the same optimizer, and "
                    f"{kind.__name__} at index {index} belongs to another one"
                )
            if scheduler in schedulers[:index]:
                raise ScheduleError(f"{owner}: {kind.__name__} at index {index} is there already")
        self._schedulers = list(schedulers)
        self._measuring = any(scheduler._measuring for scheduler in schedulers)
        self._torch_style = not all(scheduler.pure for scheduler in schedulers)
        self.keys = tuple(dict.fromkeys(key for s in schedulers for key in s.keys))  # type: ignore[misc]
        return cast(Optimizer, optimizer)

    def _join(self, key: str, resumed: bool) -> Driver:
        """The driver, where this one takes the place of its parts."""
        resumed = resumed or any(part._rebuilt for part in self._schedulers)
        driver = drivers_of(self.optimizer)[key]
        alone = all(scheduler in self._schedulers for scheduler in driver.schedulers())
        driver = super()._join(key, resumed)
        if resumed and alone:  # the parts began with the lr that was there
            pairs = zip(driver.bases, driver.remembered, strict=False)
            first = [base if old is None else float(old) for base, old in pairs]
            driver.set_bases(self.optimizer.param_groups, first)
        for scheduler in self._schedulers:
            driver.remove(scheduler)
        self._own_parts()
        return driver

    def _own_parts(self) -> None:
        """Let the parts know what they are part of; those that step as torch's may step alone."""
        for scheduler in self._schedulers:
            scheduler._owner = None if self._torch_style else ref(self)

    def _order_of(self, key: str) -> Order:
        """That of the part that comes first."""
        orders: list[Order] = [part._order_of(key) for part in self._schedulers if key in part.keys]
        return min(orders)

    def _begins_with_the_base(self) -> bool:
        """Whether all parts that are at work in the next epoch do."""
        return all(part._begins_with_the_base() for part, _ in self._at_work(self.last_epoch + 1))

    def step(self, metrics: SupportsFloat | None = None) -> None:
        """Go to the next epoch.

        Args:
            metrics: the measure, if one of the schedulers is a `ReduceLROnPlateau`.

        Raises:
            ScheduleError: a plateau is at work, and nothing was measured; nothing has changed.
        """
        if self._torch_style:
            if self._early is not None:
                self._early = early_step.watched(self._early, self)
            self._step_parts(metrics)
            self._last_lr = there_now(self)
            self.last_epoch += 1
            self._step_count += 1
            return
        if not self._measuring:
            super().step()
            return
        self._rebase()
        with unchanged_on_error(*self._plateaus()):
            self._observe(metrics, self.last_epoch + 1)
            super().step()

    def seek(self, time: float) -> None:
        """Go to any time, exactly, unless one of the schedulers was written for torch.

        Args:
            time: the epoch (or step), from 0.

        Raises:
            ScheduleError: it is negative or no number; nothing has changed.
        """
        if not self._torch_style:
            super().seek(time)
            return
        self.last_epoch, self._fraction = self._position(time)
        for part, local in self._at_work(self.last_epoch):
            if isinstance(part, Composed):
                part.seek(local)
            else:
                move(part, local)

    def _begin_parts(self) -> None:
        """Let the parts begin as torch lets them, where one of them was written for it."""
        for part in self._schedulers:
            step_as_torch(part)

    def _step_parts(self, metrics: SupportsFloat | None) -> None:
        """Step the parts that are at work, as torch does."""
        raise NotImplementedError

    def _plateaus(self) -> list[ReduceLROnPlateau]:
        """All plateaus within."""
        found = []
        for scheduler in self._schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                found.append(scheduler)
            elif isinstance(scheduler, Composed):
                found += scheduler._plateaus()
        return found

    def _observe(self, metrics: SupportsFloat | None, epoch: int) -> None:
        """Tell the plateaus that are at work what was measured."""
        for scheduler, time in self._at_work(epoch):
            if isinstance(scheduler, Composed):
                scheduler._observe(metrics, time)
            elif isinstance(scheduler, ReduceLROnPlateau) and time > 0:
                if metrics is None:
                    raise ScheduleError(
                        f"{type(self).__name__}: ReduceLROnPlateau is at work in epoch {epoch}; "
                        "give its measure: step(validation_loss)"
                    )
                if scheduler._observe(metrics, time):
                    scheduler._reduce()

    def _at_work(self, epoch: int) -> list[tuple[Any, int]]:
        """The schedulers that count in an epoch, each with its own time."""
        raise NotImplementedError

    def _place_parts(self, epoch: int, fraction: float) -> None:
        """Tell the schedulers where they are."""
        self.last_epoch = epoch
        self._fraction = fraction
        for scheduler, time in self._at_work(epoch):
            if isinstance(scheduler, Composed):
                scheduler._place_parts(time, fraction)
            else:
                scheduler.last_epoch = time
                scheduler._fraction = fraction
            scheduler._step_count = time + 1

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what a pickle or a copy holds."""
        super().__setstate__(state)
        self._own_parts()

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data, with that of each scheduler."""
        if not self._torch_style:
            self._place_parts(self.last_epoch, self._fraction)
        parts = [scheduler.state_dict() for scheduler in self._schedulers]
        return {**super().state_dict(), "_schedulers": parts}

    def _refuse_unfit(self, state: Any, strict: bool, place: str = "") -> None:
        """Raise where a state, or that of one of the schedulers, cannot be loaded."""
        if isinstance(state, dict) and "last_epoch" not in state:
            state = {**state, "last_epoch": 0}  # torch's ChainedScheduler has none
        super()._refuse_unfit(state, strict, place)
        owner = f"{type(self).__name__}.load_state_dict{place}"
        parts = state.get("_schedulers")
        if not isinstance(parts, list) or len(parts) != len(self._schedulers):
            count = len(parts) if isinstance(parts, list) else "no"
            raise StateError(
                f"{owner}: the state has {count} schedulers, and this one {len(self._schedulers)}"
            )
        for index, (scheduler, part) in enumerate(zip(self._schedulers, parts, strict=True)):
            scheduler._refuse_unfit(part, strict, f"{place}, scheduler {index}")

    def _take_over(self, state: dict[str, Any]) -> None:
        """Set the position, of each scheduler too."""
        for scheduler, part in zip(self._schedulers, state["_schedulers"], strict=True):
            scheduler._take_over(part)
        super()._take_over({"last_epoch": self._schedulers[0].last_epoch, **state})


class SequentialLR(Composed):
    r"""One scheduler after the other, each from its own beginning.

    .. math::
        \eta_t = f_i(t - m_i), \quad m_i \le t < m_{i+1}

    The schedulers may be any of this module, others of this kind and plateaus included.

    Args:
        optimizer: whose groups it drives.
        schedulers: the schedulers, all of this optimizer; each was built from its beginning.
        milestones: the epochs at which the second and those after it begin, rising; one that is
            there twice, or 0, leaves a scheduler no epochs.
        last_epoch: the last epoch that is over; -1 to begin.

    Raises:
        ScheduleError: the milestones do not fit, or a scheduler is of another optimizer.
        ScheduleTypeError: one of them is no scheduler of descend.

    Example:
        >>> import torch, descend
        >>> from descend.lr_scheduler import ConstantLR, ExponentialLR, SequentialLR
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup, decay = ConstantLR(optimizer, 0.1, 2), ExponentialLR(optimizer, 0.5)
        >>> SequentialLR(optimizer, [warmup, decay], [2]).preview(4)
        {'lr': [[0.1], [0.1], [1.0], [0.5]]}

    Source: torch.optim.lr_scheduler.SequentialLR.
    """

    config = ("_milestones",)

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[LRScheduler],
        milestones: list[int],
        last_epoch: int = -1,
    ) -> None:
        self._take(optimizer, schedulers)
        if not isinstance(milestones, list | tuple):
            raise ScheduleError(f"SequentialLR: milestones must be a list, got {milestones!r}")
        milestones = self._checked_each("each of the milestones", list(milestones))
        if len(milestones) != len(schedulers) - 1:
            raise ScheduleError(
                "SequentialLR: there must be one milestone fewer than schedulers, got "
                f"{counted(len(milestones), 'milestone')} for "
                f"{counted(len(schedulers), 'scheduler')}"
            )
        if any(m < 0 for m in milestones) or sorted(milestones) != milestones:
            raise ScheduleError(
                "SequentialLR: milestones must be epochs of at least 0 in rising order, got "
                f"{milestones}"
            )
        self._milestones = list(milestones)
        super().__init__(optimizer, last_epoch)

    def _initial_step(self) -> None:
        """Begin; where one of the parts was written for torch, as torch does."""
        if not self._torch_style:
            super()._initial_step()
            return
        begin = self.last_epoch + 1
        self._begin_parts()
        if begin:
            self.seek(begin)

    def _begin_parts(self) -> None:
        """Take back the first steps of all parts, and let the first one begin."""
        super()._begin_parts()
        write_lrs(self, [float(group["initial_lr"]) for group in self.optimizer.param_groups])
        self.last_epoch, self._step_count = 0, 1
        for part in self._schedulers:
            part.last_epoch -= 1
        self._begin(self._at_work(0)[0][0])
        self._last_lr = there_now(self)

    def _begin(self, part: Any) -> None:
        """Let a part begin, the first of all."""
        if isinstance(part, Composed):
            part._begin_parts()
        elif isinstance(part, ReduceLROnPlateau):
            part.last_epoch = 0
        else:
            part.last_epoch = -1
            LRScheduler._initial_step(part)

    def _step_parts(self, metrics: SupportsFloat | None) -> None:
        """Step the part whose turn it is, or let it begin."""
        part, time = self._at_work(self.last_epoch + 1)[0]
        if part is self._at_work(self.last_epoch)[0][0]:
            part.step(*([metrics] if part._measuring else []))
        elif isinstance(part, Composed | ReduceLROnPlateau):
            self._begin(part)
        else:
            move(part, time)

    def _at_work(self, epoch: int) -> list[tuple[Any, int]]:
        index = bisect_right(self._milestones, epoch)
        return [(self._schedulers[index], epoch - (self._milestones[index - 1] if index else 0))]

    def values(self, key: str, time: float, bases: Values) -> Values:
        """Those of the scheduler whose turn it is.

        A hyperparameter that it does not drive stays where the last one that does has left it.
        """
        index = bisect_right(self._milestones, time)
        while index >= 0:
            start = self._milestones[index - 1] if index else 0
            if key in self._schedulers[index].keys:
                values: Values = self._schedulers[index].values(key, time - start, bases)
                return values
            time, index = start - 1, index - 1
        return bases


class ChainedScheduler(Composed):
    r"""Several schedulers at once: their product.

    .. math::
        \eta_t = f_n(\ldots f_2(f_1(\eta_0)))

    Args:
        schedulers: the schedulers, all of one optimizer.
        optimizer: whose; that of the first where left out.

    Raises:
        ScheduleError: there is none, or one is of another optimizer.
        ScheduleTypeError: one of them is no scheduler of descend.

    Example:
        >>> import torch, descend
        >>> from descend.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> parts = [ConstantLR(optimizer, 0.5, 2), ExponentialLR(optimizer, 0.5)]
        >>> ChainedScheduler(parts).preview(4)
        {'lr': [[0.5], [0.25], [0.25], [0.125]]}

    Source: torch.optim.lr_scheduler.ChainedScheduler.
    """

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        chosen = self._take(optimizer, schedulers)
        super().__init__(chosen)

    def _initial_step(self) -> None:
        """Begin where the schedulers are."""
        self._is_initial = False
        self.last_epoch = self._schedulers[0].last_epoch
        self._note_offsets()
        self._step_count = self.last_epoch + 1
        if self._torch_style:
            self._begin_parts()
            self._last_lr = there_now(self)
        else:
            self._write()

    def _step_parts(self, metrics: SupportsFloat | None) -> None:
        """Step all of them."""
        for part in self._schedulers:
            part.step(*([metrics] if part._measuring else []))

    def _note_offsets(self) -> None:
        """How far each scheduler is ahead, and the order in which they apply."""
        self._offsets = [(one, one.last_epoch - self.last_epoch) for one in self._schedulers]
        self._applied = {
            key: sorted(
                (pair for pair in self._offsets if key in pair[0].keys),
                key=lambda pair: pair[0]._order_of(key),
            )
            for key in self.keys
        }

    def _at_work(self, epoch: int) -> list[tuple[Any, int]]:
        return [(scheduler, max(0, epoch + offset)) for scheduler, offset in self._offsets]

    def values(self, key: str, time: float, bases: Values) -> Values:
        """The bases, gone through all of them."""
        for scheduler, offset in self._applied[key]:
            bases = scheduler.values(key, max(0, time + offset), bases)
        return bases

    def _take_over(self, state: dict[str, Any]) -> None:
        """Set the position of each scheduler."""
        super()._take_over(state)
        self._note_offsets()
