"""The base class of all schedulers: torch's interface on pure functions of the step.

The way of a step: each driver is rebased on what others have written since, the scheduler
goes to the next epoch, and each driver writes what all its schedulers make of the bases.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING

from descend.base.untraced import never_traced
from descend.checks import FINITE, WHOLE, Allowed, Range, plain_number
from descend.errors import ScheduleError, ScheduleTypeError
from descend.format import counted
from descend.lr_scheduler import early_step, torch_style
from descend.lr_scheduler.driver import Driver, Order, Values, beside_torch, drivers_of
from descend.lr_scheduler.group_values import read
from descend.lr_scheduler.scheduler_state import (
    bases_in,
    plain,
    refuse_damaged,
    refuse_other,
)
from descend.spelling import spelled


class LRScheduler(torch.optim.lr_scheduler.LRScheduler):
    r"""The base class of the schedulers; an instance of torch's, with none of its mathematics.

    .. math::
        \eta_t = f_t(\eta_0)

    with :math:`\eta_0` the base, which is what the optimizer had when the scheduler was built. A
    subclass says what :math:`f_t` is: in `curve(time, bases)`, a pure function; or, as with torch,
    in `get_lr()`, from `self.last_epoch` and `self.base_lrs`.

    Several schedulers of one optimizer multiply, in whatever order they are built, loaded and
    stepped. An lr that was written by hand is where the curve goes on from. A group that is added
    later is included. `step()` comes after the optimizer's; one too early is not warned of.

    Args:
        optimizer: whose groups it drives; descend's or torch's.
        last_epoch: the last epoch that is over; the scheduler starts in the next one, from the
            base that the groups remember as `initial_lr`. -1: from the beginning, from the lr that
            is there.

    Attributes:
        last_epoch: the epoch (or step) that it is in, from 0.
        base_lrs: the bases.

    Raises:
        ScheduleTypeError: the optimizer is none.
        ScheduleError: an argument is out of range.

    Example:
        >>> import torch, descend
        >>> class Halving(descend.lr_scheduler.LRScheduler):
        ...     def curve(self, time, bases):
        ...         return [base * 0.5**time for base in bases]
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = Halving(optimizer)
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]

    Source:
        The interface is torch's, https://docs.pytorch.org/docs/stable/optim.html.
    """

    keys: ClassVar[tuple[str, ...]] = ("lr",)
    config: ClassVar[tuple[str, ...]] = ()  # the attributes that a state holds, and a load compares
    own_config: ClassVar[tuple[str, ...]] = ()  # those that torch's state does not hold
    order: Order = Order.FACTORS
    # How torch computes it: "recursive", from the lr that is there; "closed", from `base_lrs`.
    form: ClassVar[str] = ""
    made_of_others: ClassVar[bool] = False  # or of measures: its `get_lr` is never asked
    deprecates_epoch: ClassVar[bool] = True  # whether torch's warns of `step(epoch)`
    falls: ClassVar[bool] = False  # whether it never rises again
    last_epoch: int
    _fraction: float = 0  # of an epoch, after `step(epoch + i / batches)`
    _step_count: int = 0
    _drivers: dict[str, Driver] = {}  # noqa: RUF012 - of a subclass that leaves `__init__` out
    _measuring: bool = False  # whether its step takes a measure
    _early: Any = None  # what tells whether it is stepped before the optimizer; None: it is not
    _others: dict[int, int]  # how often others had moved when it moved last
    _owner: Any = None  # the scheduler that this one is a part of, weakly
    _rebuilt: bool = False  # whether it was built in the middle, by `last_epoch`
    _torch_style: bool = False  # whether `get_lr` says what the lr is, as in torch's subclasses

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """See which of `curve` and `get_lr` the subclass overrides."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = spelled(cls.__init__)  # type: ignore[method-assign]
        names = {"curve", "values", "get_lr"}
        nearest = next(base for base in cls.__mro__ if names & set(vars(base)))
        own_step = cls.step is not LRScheduler.step
        asked = own_step if nearest is LRScheduler else names & set(vars(nearest)) == {"get_lr"}
        cls._torch_style = asked and not cls.made_of_others
        if cls._torch_style:
            for name in {"__init__", "step"} & set(vars(cls)):
                setattr(cls, name, torch_style.marking(vars(cls)[name]))

    @spelled
    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self._refuse_no_optimizer(optimizer)
        if not Range(-1, whole=True).admits(last_epoch):
            raise ScheduleError(
                f"{type(self).__name__}: last_epoch must be -1 or the number of the last epoch "
                f"that is over, got {last_epoch!r}"
            )
        self.optimizer = optimizer
        self.last_epoch: int = WHOLE.plain(last_epoch)
        self._rebuilt = self.last_epoch >= 0
        self._others = {}
        self._drivers = {key: self._join(key, self._rebuilt) for key in self.keys}
        with contextlib.ExitStack() as undampened:
            if self._torch_style:  # it is to find the lr without warmups; what it says has none
                vars(self)["base_lrs"] = list(self._drivers["lr"].first)
                for scheduler in self._drivers["lr"].schedulers():
                    if scheduler._order_of("lr") is Order.WARMUP:
                        undampened.enter_context(scheduler._undampened())
            self._initial_step()
        self._early = early_step.begun(optimizer)

    def _refuse_no_optimizer(self, optimizer: Any) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ScheduleTypeError(
                f"{type(self).__name__}: {type(optimizer).__name__} is not an Optimizer; give the "
                "optimizer whose groups are scheduled"
            )

    def _checked(self, name: str, value: Any, allowed: Allowed = FINITE) -> Any:
        """An argument as Python's own, or an error that says what is allowed."""
        return allowed.check(f"{type(self).__name__}: {name}", value, ScheduleError)

    def _checked_each(self, name: str, value: Any, allowed: Allowed = FINITE) -> Any:
        """The same of one that may be a list with one for each group."""
        if isinstance(value, list | tuple):
            return [self._checked(name, one, allowed) for one in value]
        return self._checked(name, value, allowed)

    def _each(self, name: str, given: Any, count: int) -> list[Any]:
        """An argument for each group: the same for all, or one of a list."""
        if not isinstance(given, list | tuple):
            return [given] * count
        if len(given) != count:
            raise ScheduleError(
                f"{type(self).__name__}: {name} must be one for all groups, or one for each of the "
                f"{counted(count, 'group')}, got {len(given)}"
            )
        return list(given)

    def _join(self, key: str, resumed: bool) -> Driver:
        """The driver of a hyperparameter, with this scheduler on it."""
        drivers, groups = drivers_of(self.optimizer), self.optimizer.param_groups
        driver = drivers.get(key)
        if driver is None:
            drivers[key] = driver = Driver(key)
            driver.torchs_initial = beside_torch(self.optimizer)
            driver.restart(groups, resumed or (self._torch_style and driver.torchs_initial))
        elif (not driver.schedulers() and driver.foreign is None) or driver.written_by_hand(groups):
            driver.restart(groups, resumed)
        elif driver.foreign is None:
            driver.rebase(groups)
        for group in groups:
            group.setdefault(driver.initial, read(group, key))
        if not self._torch_style:
            old = self._predecessor(driver) if resumed else None
            if old is not None:  # rebuilt in the middle while the one that was there lives
                driver.remove(old)
            driver.add(self)
        return driver

    def _predecessor(self, driver: Driver) -> Any:
        """The scheduler of the same class that this one takes over from, if there is one."""
        alike = [
            scheduler
            for scheduler in driver.schedulers()
            if type(scheduler) is type(self)
            and not (scheduler._rebuilt and scheduler._step_count == 1)  # just now, beside it
        ]
        same = [
            scheduler
            for scheduler in alike
            if all(plain(getattr(scheduler, n)) == plain(getattr(self, n)) for n in self.config)
        ]
        return next(iter(same or alike), None)

    def _initial_step(self) -> None:
        """Begin the epoch after `last_epoch`."""
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    @property
    def pure(self) -> bool:
        """Whether to ask for a value changes nothing; not so for a subclass's own `get_lr`."""
        return not self._torch_style

    def _order_of(self, key: str) -> Order:
        """When it applies to a hyperparameter, among the schedulers that drive it."""
        return self.order

    def _begins_with_the_base(self) -> bool:
        """Whether its next step lets go for nothing what others have written, as in torch."""
        return self.form == "closed"

    def curve(self, time: float, bases: Values) -> Values:
        """The lr of each group, a pure function of the arguments.

        Args:
            time: in epochs, or in whatever is counted by `step`; from 0.
            bases: what the lr of each group would be without this scheduler.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has neither curve(time, bases) nor get_lr(); define one"
        )

    def values(self, key: str, time: float, bases: Values) -> Values:
        """A hyperparameter at a time, in each group; `curve` of the lr, unless there are several.

        Args:
            key: which hyperparameter.
            time: from 0.
            bases: what it would be in each group without this scheduler.
        """
        return self.curve(time, bases)

    def _now(self, key: str, bases: Values) -> Values:
        """A hyperparameter in each group now, from its values without this scheduler."""
        if self.last_epoch < 0:  # it has not begun
            return bases
        return self.values(key, self.last_epoch + self._fraction, bases)

    def get_lr(self) -> list[Any]:
        """The lr that this scheduler makes of the bases in this epoch, other schedulers apart.

        Where a subclass overrides it, as torch's do, this is what torch's class would say there:
        what its curve makes of the lr that is there, or of `base_lrs`.
        """
        time = self.last_epoch + self._fraction
        if not self._as_torchs():
            bases = self._bases_of_lr()
            return list(self.values("lr", time, bases) if "lr" in self.keys else bases)
        if self.form == "recursive":
            return torch_style.continued(self, time)
        return list(self.values("lr", time, self.base_lrs))

    def _as_torchs(self) -> bool:
        """Whether it steps as torch's class of the same name: beside torch's, or one written so."""
        if self._torch_style or not self.form:
            return self._torch_style
        driver = self._drivers.get("lr")
        return driver is not None and (driver.foreign is not None or beside_torch(self.optimizer))

    def get_last_lr(self) -> list[Any]:
        """The lr of each group, as the next step of the optimizer uses it; tensors are copied.

        Beside a subclass with a `get_lr` of its own, and of such: as this scheduler has left it.
        """
        there = torch_style.there_now(self)
        if not self._as_torchs():
            return there
        left = self._last_lr if self._torch_style else map(float, self._drivers["lr"].written)
        known = list(left)
        return [*known, *there[len(known) :]]

    @property
    def _last_lr(self) -> list[Any]:
        """The same as `get_last_lr`, under the name that some programs read."""
        if not self._torch_style:
            return self.get_last_lr()
        try:
            values: list[Any] = vars(self)["_last_lr"]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has not stepped yet") from None
        return values

    @_last_lr.setter
    def _last_lr(self, values: list[Any]) -> None:
        """A subclass in torch's style may set it; elsewhere it follows the groups."""
        if self._torch_style:
            vars(self)["_last_lr"] = values

    @property
    def base_lrs(self) -> list[Any]:
        """The lr of each group without any scheduler, before anybody wrote by hand.

        What is written there holds from the next step on; in a class that torch computes from the
        lr before, beside a scheduler written for torch, only `step(epoch)` heeds it, as in torch.
        """
        if self._torch_style:
            values: list[Any] = vars(self)["base_lrs"]
            return values
        driver, groups = self._drivers.get("lr"), self.optimizer.param_groups
        return self._bases_of_lr() if driver is None else driver.first_of(groups)

    @base_lrs.setter
    def base_lrs(self, bases: list[Any]) -> None:
        if self._torch_style:  # a list of its own, as in torch
            vars(self)["base_lrs"] = bases
            return
        driver, count = self._drivers.get("lr"), len(self.optimizer.param_groups)
        if len(bases) != count:
            raise ScheduleError(
                f"{type(self).__name__}: base_lrs must be one for each of the {count} groups, got "
                f"{len(bases)}"
            )
        if driver is not None:
            driver.first, driver.moved = [float(base) for base in bases], {}

    def _bases_of_lr(self) -> Values:
        """The lr of each group without any scheduler."""
        driver = self._drivers.get("lr")
        if driver is not None:
            return driver.bases
        return [
            float(group.get("initial_lr", group["lr"])) for group in self.optimizer.param_groups
        ]

    def step(self, epoch: float | None = None) -> None:
        """Go to the next epoch (or step; whatever is counted), after the optimizer's step.

        Args:
            epoch: go there instead, between two epochs too (`epoch + i / batches`), from the first
                bases, whatever was written by hand. torch deprecates it, apart from
                `CosineAnnealingWarmRestarts`; `seek` goes on from what was written.

        Raises:
            ScheduleError: `epoch` is negative or no number; nothing has changed.
        """
        if self._early is not None:
            self._early = early_step.watched(self._early, self)
        if epoch is not None and self.deprecates_epoch:
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        if self._as_torchs():
            self._refuse_part()
            torch_style.move(self, epoch)
        elif epoch is None:
            self._move(self.last_epoch + 1, self._fraction)
        else:
            place = self._position(epoch)
            driver = self._drivers.get("lr")
            if driver is not None:  # what was ever written by hand goes for nothing, as in torch
                driver.forget_what_was_written(self.optimizer.param_groups)
            self._move(*place)

    def _refuse_count(self, count: int) -> None:
        raise ScheduleError(
            f"{type(self).__name__}: the optimizer has "
            f"{counted(len(self.optimizer.param_groups), 'group')}, and the curve gives "
            f"{counted(count, 'value')}; give one for each of the bases"
        )

    def seek(self, time: float) -> None:
        """Go to any time, exactly: the values depend on the time alone.

        Args:
            time: the epoch (or step), from 0.

        Raises:
            ScheduleError: it is negative or no number; nothing has changed.
        """
        if self._torch_style:
            self._refuse_part()
            self._position(time)
            torch_style.move(self, time)
        else:
            self._move(*self._position(time))

    def _position(self, time: Any) -> tuple[int, float]:
        """A time as an epoch, and what is over; anything else is refused."""
        number = plain_number(time)
        if number is None or not 0 <= number < math.inf:
            raise ScheduleError(
                f"{type(self).__name__}: the epoch must be a number of at least 0, got {time!r}"
            )
        whole = math.floor(number)
        return whole, (number - whole) or 0

    def _move(self, epoch: int, fraction: float) -> None:
        """Go somewhere and write what holds there; or, if that fails, change nothing."""
        self._rebase()
        before = self.last_epoch, self._fraction
        self.last_epoch, self._fraction = epoch, fraction
        try:
            self._write()
        except BaseException:
            self.last_epoch, self._fraction = before
            raise
        self._step_count += 1

    def _rebase(self) -> None:
        """Before it moves: go on from what others have written, if they have."""
        groups = self.optimizer.param_groups
        for key, driver in self._drivers.items():
            if self.last_epoch < 0:  # torch's SequentialLR has reset the lr, and begins anew
                driver.mark_as_written(groups)
            on = driver.rebase(groups)
            if self not in on:
                self._refuse_part()
                driver.add_again(self, groups)
            elif len(on) > 1 and self._order_of(key) is Order.VALUES:
                self._set_aside_the_finished(driver)

    def _set_aside_the_finished(self, driver: Driver) -> None:
        """Take over, with values, from factors that have come to 0 and are stepped no longer."""
        count, moves = len(driver.bases), {}
        for other in driver.schedulers():
            if other._order_of(driver.key) is not Order.FACTORS:
                continue
            moves[id(other)] = other._step_count
            stands = self._others.get(id(other)) == other._step_count
            ran_before = self._step_count <= 1 and other._step_count > 2  # noqa: PLR2004 - its own 2
            of_nothing, of_one = (other._now(driver.key, [base] * count) for base in (0.0, 1.0))
            if (stands or ran_before) and of_nothing == of_one:
                driver.remove(other)
        self._others = moves

    def _refuse_part(self) -> None:
        owner = self._owner and self._owner()
        if owner is not None:
            raise ScheduleError(
                f"{type(self).__name__}: it is part of a {type(owner).__name__}; step that"
            )

    def _write(self) -> None:
        """Write the values of each driver, if it is one for each group."""
        groups, found = self.optimizer.param_groups, []
        for driver in self._drivers.values():
            values = driver.values()
            if len(values) != len(groups):
                self._refuse_count(len(values))
            found.append((driver, values))
        for driver, values in found:
            driver.write(groups, values)

    def preview(self, steps: int) -> dict[str, list[list[float]]]:
        """The values of each hyperparameter, without touching the optimizer.

        Args:
            steps: how many epochs (or steps), from 0.

        Returns:
            For each hyperparameter, and each step, its value in each group.

        Example:
            >>> import torch, descend
            >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
            >>> descend.lr_scheduler.StepLR(optimizer, 2, gamma=0.5).preview(4)
            {'lr': [[1.0], [1.0], [0.5], [0.5]]}
        """
        if not self.pure:
            return torch_style.preview(self, steps)
        return {
            key: [list(self.values(key, time, bases)) for time in range(steps)]
            for key, bases in self.bases().items()
        }

    def bases(self) -> dict[str, Values]:
        """Each hyperparameter without schedulers, in each group, whoever has written since."""
        groups = self.optimizer.param_groups
        return {key: list(one.rebased(groups).bases) for key, one in self._drivers.items()}

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data: the position, the bases, and the configuration to compare.

        torch's scheduler of the same name loads it, and the other way round.
        """
        state = {name: plain(getattr(self, name)) for name in (*self.config, *self.own_config)}
        bases = self.bases()
        if "lr" in bases:
            state["base_lrs"] = list(self._base_lrs_of_state())
            if state["base_lrs"] == bases["lr"]:  # else somebody has written by hand
                del bases["lr"]
        if bases:
            state["bases"] = bases
        state["last_epoch"] = self.last_epoch
        state["_step_count"] = self._step_count
        state["_last_lr"] = [read(group, "lr") for group in self.optimizer.param_groups]
        if self._fraction:
            state["_fraction"] = self._fraction
        if self._torch_style and not self.made_of_others:
            groups = self.optimizer.param_groups
            first = {key: list(driver.first_of(groups)) for key, driver in self._drivers.items()}
            return {**state, **torch_style.state_of(self), "bases": first}
        return state

    def _base_lrs_of_state(self) -> Values:
        """The bases before anybody wrote by hand."""
        return self._drivers["lr"].rebased(self.optimizer.param_groups).first

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Go to where a state was saved; before or after the optimizer's is loaded.

        Args:
            state_dict: what `state_dict` returned, or torch's scheduler of the same name.
            strict: refuse the state of a scheduler that is configured otherwise. False: take over
                the position and the bases, and keep the configuration that is here.

        Raises:
            StateError: the state is of another kind of scheduler, or (strict) of one with another
                configuration or other groups; nothing has changed.
        """
        self._refuse_unfit(state_dict, strict)
        self._take_over(state_dict)
        if self._early is not None and state_dict["last_epoch"] > 0:
            self._early = None  # its optimizer stepped, in another process
            early_step.over(self)
        as_torchs, lrs = self._as_torchs(), state_dict.get("_last_lr", ())
        if not self._torch_style:
            for driver in self._drivers.values():
                # Another has begun anew since; a part drives through the whole.
                if self not in driver.schedulers() and not (self._owner and self._owner()):
                    driver.add(self)
            self._write()
        if as_torchs and len(lrs) == len(self.optimizer.param_groups):  # others have a part in it
            torch_style.write_lrs(self, [float(lr) for lr in lrs])
            self._last_lr = torch_style.there_now(self)

    def _refuse_unfit(self, state: Any, strict: bool, place: str = "") -> None:
        """Raise where a state cannot be loaded; `place` says of which part of a whole it is."""
        # A part of a sequence whose turn has not come is in epoch -1 in torch's states; so is what
        # has a step of its own and counts otherwise.
        least = -1 if place or self._torch_style else 0
        owner = f"{type(self).__name__}.load_state_dict{place}"
        refuse_damaged(owner, state, self.config, least)
        if strict:
            names = (*self.config, *(name for name in self.own_config if name in state))
            here = {name: getattr(self, name) for name in names}
            refuse_other(owner, state, here, self.keys, len(self.optimizer.param_groups))

    def _take_over(self, state: dict[str, Any]) -> None:
        """Set the position and the bases from a state that is fit."""
        # The base_lrs of a subclass in torch's style are its own, not those of the groups.
        bases = state.get("bases", {}) if self._torch_style else bases_in(state)
        for key, driver in self._drivers.items():
            driver.torchs_initial = beside_torch(self.optimizer)
            if key in bases:
                first, moved = bases[key], bases[key]
                if self._torch_style:  # the bases of the others are not its own to move
                    moved = [driver.moved.get(index, base) for index, base in enumerate(first)]
                elif key == "lr":
                    first = state.get("base_lrs", first)
                driver.set_bases(self.optimizer.param_groups, first, moved)
        self.last_epoch = state["last_epoch"] if self._torch_style else int(state["last_epoch"])
        self._fraction = state.get("_fraction", 0)
        self._step_count = state.get("_step_count", self.last_epoch + 1)
        if self._torch_style and not self.made_of_others:
            torch_style.take_over(self, state)

    def __getstate__(self) -> dict[str, Any]:
        """The attributes that a pickle or a copy holds."""
        return {key: value for key, value in vars(self).items() if key != "_owner"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what a pickle or a copy holds."""
        self.__dict__.update(state)
        for key, driver in self._drivers.items():
            drivers_of(self.optimizer)[key] = driver


class _LRScheduler(LRScheduler):
    """The base class by the name that it had in torch 1, for programs that use it."""


@contextlib.contextmanager
def unchanged_on_error(*ones: Any) -> Iterator[None]:
    """A block at whose error the attributes of schedulers and drivers are what they were.

    Nothing is computed anew, for it may be just that what raised.
    """
    # A copy of each list: a scheduler may write into its own.
    before = [
        {key: value.copy() if type(value) is list else value for key, value in vars(one).items()}
        for one in ones
    ]
    try:
        yield
    except BaseException:
        for one, attributes in zip(ones, before, strict=True):
            one.__dict__ = attributes
        raise


never_traced(LRScheduler.step)
never_traced(LRScheduler.seek)
