"""BaseWarmup: a factor of the lr, and the block in which schedulers are stepped without it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import dropwhile
from typing import Any

from torch.optim import Optimizer

from descend.base.untraced import never_traced
from descend.errors import ScheduleError, ScheduleTypeError, StateError
from descend.format import counted
from descend.lr_scheduler.driver import Driver, Order, Values, beside_torch
from descend.lr_scheduler.scheduler_base import LRScheduler, unchanged_on_error

Params = dict[str, Any]


class BaseWarmup(LRScheduler):
    r"""The base class of the warmups: a factor of the lr, beside any schedulers.

    .. math::
        \hat\alpha_t = \alpha_t \, \omega_t

    with :math:`\alpha_t` what the schedulers say and :math:`\omega_t` the factor. A subclass gives
    `warmup_factor(step, **params)`. The step counts from 0, and the first one is warmed already.

    Args:
        optimizer: whose groups it warms; descend's or torch's.
        warmup_params: for each group, the keyword arguments of its `warmup_factor`.
        last_step: the last step that is over; the warmup starts in the next one. -1 to begin.

    Attributes:
        last_step: the step that it is in, from 0; the same as `last_epoch`.
        lrs: what the lr of each group would be without this warmup.

    Raises:
        ScheduleTypeError: the optimizer is none, or an argument has another type.
        ScheduleError: an argument is out of range, or not one for each group.

    Example:
        >>> import torch, descend
        >>> class Squared(descend.warmup.BaseWarmup):
        ...     def warmup_factor(self, step, period):
        ...         return min(1.0, (step + 1) / period) ** 2
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warmup = Squared(optimizer, [{"period": 4}])
        >>> with warmup.dampening():
        ...     pass
        >>> warmup.get_last_lr(), warmup.lrs
        ([0.25], [1.0])

    Source: The interface is pytorch_warmup's, https://github.com/Tony-Y/pytorch_warmup.
    """

    deprecates_epoch = False
    config = ("warmup_params",)
    order = Order.WARMUP
    _open: bool = False  # whether a block of `dampening` is being executed
    _seen_torch: bool = False  # whether torch's schedulers were there before

    def __init__(
        self, optimizer: Optimizer, warmup_params: list[Params], last_step: int = -1
    ) -> None:
        if isinstance(optimizer, Optimizer):  # else the base class refuses it
            self._params = self._params_checked(warmup_params, len(optimizer.param_groups))
        super().__init__(optimizer, last_step)

    def _join(self, key: str, resumed: bool) -> Driver:
        """The driver, with this warmup on it; it begins with the lr that torch's have left."""
        driver = super()._join(key, resumed)
        self._seen_torch = self._beside_torch(driver)
        if self._seen_torch and driver.schedulers() == [self]:
            driver.moved = dict(enumerate(driver.numbers(self.optimizer.param_groups)))
        return driver

    def _beside_torch(self, driver: Driver) -> bool:
        """Whether a scheduler of torch is there, or a subclass with a `get_lr` as torch's."""
        return driver.foreign is not None or beside_torch(self.optimizer)

    @property
    def last_step(self) -> int:
        """The step that it is in, from 0."""
        return self.last_epoch

    @last_step.setter
    def last_step(self, step: int) -> None:
        self.last_epoch = step

    @property
    def warmup_params(self) -> list[Params]:
        """For each group, the keyword arguments of its `warmup_factor`."""
        groups = self.optimizer.param_groups
        while len(self._params) < len(groups):
            self._params.append(self.params_of(groups[len(self._params)]))
        return self._params

    @warmup_params.setter
    def warmup_params(self, warmup_params: list[Params]) -> None:
        self._params = self._params_checked(warmup_params, len(self.optimizer.param_groups))

    def _params_checked(self, warmup_params: Any, count: int) -> list[Params]:
        """The keyword arguments of each group, as given."""
        owner, listed = type(self).__name__, isinstance(warmup_params, list | tuple)
        if not (listed and all(isinstance(params, Mapping) for params in warmup_params)):
            raise ScheduleTypeError(
                f"{owner}: warmup_params must be a list with a dict for each group, got "
                f"{warmup_params!r}"
            )
        if len(warmup_params) != count:
            raise ScheduleError(
                f"{owner}: warmup_params has "
                f"{counted(len(warmup_params), 'entry', 'entries')}, and the optimizer "
                f"{counted(count, 'group')}; give one for each group"
            )
        return [dict(params) for params in warmup_params]

    @property
    def lrs(self) -> list[float]:
        """The lr of each group without this warmup."""
        driver = self._drivers["lr"]
        values = driver.rebased(self.optimizer.param_groups).bases
        for scheduler in driver.schedulers():
            if scheduler is self:
                break
            values = scheduler._now("lr", values)
        return list(values)

    def params_of(self, group: dict[str, Any]) -> Params:
        """The keyword arguments of `warmup_factor` of a group that was added; those of all others.

        Args:
            group: of the optimizer.

        Raises:
            ScheduleError: the others differ.
        """
        first = self._params[0]
        if any(params != first for params in self._params):
            raise ScheduleError(
                f"{type(self).__name__}: got "
                f"{counted(len(self.optimizer.param_groups), 'group')} and "
                f"{counted(len(self._params), 'dict')}; append one for each group that was "
                f"added to warmup.warmup_params, such as {first}"
            )
        return dict(first)

    def warmup_factor(self, step: int, **params: Any) -> float:
        """The factor of the lr of a group.

        Args:
            step: from 0.
            **params: those of the group.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no warmup_factor(step, **params); define one"
        )

    def curve(self, time: float, bases: Values) -> Values:
        """The bases times the factor; none in a block."""
        if self._open:
            return bases
        step, factor = int(time) if time == int(time) else time, self.warmup_factor
        return [
            base * float(factor(step, **params))  # type: ignore[arg-type]
            for base, params in zip(bases, self.warmup_params, strict=False)
        ]

    @contextmanager
    def dampening(self) -> Iterator[None]:
        """A block for the steps of schedulers, or for none; at its end the warmup steps too.

        Inside, the groups hold the lr without this warmup. What a scheduler writes there is taken
        over, and dampened at the end. If the block raises, the warmup, the lr and the schedulers of
        descend go back to where they were; one of torch stays where it has come to.

        Raises:
            ScheduleError: the warmup is in such a block, or part of another scheduler; or a
                scheduler of torch was built after it.

        Example:
            >>> import torch, descend
            >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
            >>> warmup = descend.warmup.LinearWarmup(optimizer, warmup_period=4)
            >>> scheduler = descend.lr_scheduler.ExponentialLR(optimizer, 0.5)
            >>> with warmup.dampening():
            ...     scheduler.step()
            >>> scheduler.get_last_lr()
            [0.25]
        """
        self._refuse_inside("dampening()")
        driver, groups = self._drivers["lr"], self.optimizer.param_groups
        self._refuse_torch_later(driver)
        self._rebase()
        moved = self._all_that_a_block_moves(driver, groups)
        try:
            with unchanged_on_error(*moved), self._opened(driver, groups, steps=1):
                yield
        except BaseException:
            for one in moved:
                if isinstance(one, Driver):
                    one.write(groups, list(map(float, one.written)))
            raise
        self._step_count += 1

    @contextmanager
    def _opened(
        self, driver: Driver, groups: list[dict[str, Any]], steps: int = 0
    ) -> Iterator[None]:
        """A block in which the groups hold the lr without it; what is left there is dampened."""
        self._open = True
        try:
            self._write()
            yield
            apart = self._rebase_undampened(driver, groups)
        finally:
            self._open = False
        self.last_epoch += steps
        self._write()
        self._write_apart(driver, groups, apart)

    def _rebase_undampened(self, driver: Driver, groups: list[dict[str, Any]]) -> dict[int, float]:
        """Go on from the lr that is there, in a block.

        Returns:
            The lr of those groups for which no base gives it, as where a curve is 0.
        """
        changed = driver.changed_groups(groups)
        driver.rebase(groups)
        left, given = list(map(float, driver.written)), driver.values()
        return {i: left[i] for i in changed if not math.isclose(left[i], given[i])}

    def _write_apart(
        self, driver: Driver, groups: list[dict[str, Any]], apart: dict[int, float]
    ) -> None:
        """Write what no base gives, dampened; it holds for one step."""
        if not apart:
            return
        values = list(map(float, driver.written))
        dampened = [apart.get(index, value) for index, value in enumerate(values)]
        for scheduler in dropwhile(lambda one: one is not self, driver.schedulers()):
            dampened = scheduler._now("lr", dampened)
        driver.write(groups, [dampened[i] if i in apart else v for i, v in enumerate(values)])

    def _all_that_a_block_moves(self, driver: Driver, groups: list[dict[str, Any]]) -> list[Any]:
        """The schedulers of the lr, their parts, and all their drivers, rebased."""
        schedulers, drivers = driver.schedulers(), {driver.key: driver}
        for one in schedulers:
            schedulers += vars(one).get("_schedulers", ())
            for key, beside in one._drivers.items():
                if key not in drivers:
                    beside.rebase(groups)
                    drivers[key] = beside
        return [*drivers.values(), *schedulers]

    @contextmanager
    def _undampened(self) -> Iterator[None]:
        """A block in which a scheduler written for torch is built: it finds the whole lr."""
        driver, groups = self._drivers["lr"], self.optimizer.param_groups
        driver.rebase(groups)
        self._seen_torch = True
        try:
            with self._opened(driver, groups):
                yield
        except BaseException:
            self._write()
            raise

    def dampen(self, step: int | None = None) -> None:
        """Go to the next step; an lr that was written since the last one is taken as undampened.

        `dampening` is better: a scheduler of torch that goes on from the lr it finds does not find
        its own here.

        Args:
            step: go there instead, from 0.

        Raises:
            ScheduleError: `step` is negative or no number, or a block of `dampening` is being
                executed.
        """
        self._refuse_inside("dampen()")
        if step is not None:
            self._position(step)  # refused before anything is taken over
        driver, groups = self._drivers["lr"], self.optimizer.param_groups
        self._open = True
        try:
            apart = self._rebase_undampened(driver, groups)
        finally:
            self._open = False
        self.step(step)
        self._write_apart(driver, groups, apart)

    def step(self, epoch: float | None = None) -> None:
        """Go to the next step, as any scheduler does.

        Args:
            epoch: go there instead, as `seek` does.

        Raises:
            ScheduleError: `epoch` is negative or no number, or a block of `dampening` is being
                executed; nothing has changed.
        """
        self._refuse_inside("step()")
        if epoch is None:
            super().step()
        else:
            self.seek(epoch)

    def _refuse_inside(self, what: str) -> None:
        if self._open:
            raise ScheduleError(
                f"{type(self).__name__}: {what} was called in a block of its own dampening(), "
                "which steps the warmup when it ends; leave it out"
            )

    def _refuse_torch_later(self, driver: Driver) -> None:
        """Refuse an lr that nobody could read: torch's first value may be dampened, or not."""
        if self._seen_torch or not self._beside_torch(driver):
            return
        if driver.changed_groups(self.optimizer.param_groups):
            raise ScheduleError(
                f"{type(self).__name__}: a scheduler of torch was built after the warmup, and has "
                "written an lr that may be dampened or not; build the warmup after it"
            )
        self._seen_torch = True

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; pytorch_warmup's warmup of the same name loads it."""
        return {**super().state_dict(), "last_step": self.last_step, "lrs": self.lrs}

    def _refuse_unfit(self, state: Any, strict: bool, place: str = "") -> None:
        """Raise where a state cannot be loaded; pytorch_warmup's has whole periods only."""
        if isinstance(state, dict) and "last_epoch" not in state and "last_step" in state:
            params, lrs = state.get("warmup_params"), state.get("lrs")
            if isinstance(params, list) and _cut(self.warmup_params) == params:
                state = {**state, "warmup_params": self.warmup_params}
            if not isinstance(lrs, list):
                owner = f"{type(self).__name__}.load_state_dict{place}"
                raise StateError(f"{owner}: the state has no list 'lrs', so it is not of a warmup")
            state = {**state, "last_epoch": state["last_step"], "base_lrs": lrs}
        super()._refuse_unfit(state, strict, place)

    def _take_over(self, state: dict[str, Any]) -> None:
        """Set the position and the bases; pytorch_warmup's are the lrs that others have left."""
        driver = self._drivers["lr"]
        self._seen_torch = self._beside_torch(driver)
        if "last_epoch" not in state:
            alone = driver.schedulers() in ([], [self])  # else descend's schedulers know better
            bases = {"bases": {"lr": state["lrs"]}} if alone else {}
            state = {"last_epoch": state["last_step"], **bases}
        super()._take_over(state)


never_traced(BaseWarmup.step)


def _cut(warmup_params: list[Params]) -> list[Params]:
    """Parameters as pytorch_warmup has them, with whole periods."""
    return [
        {key: int(value) if key == "warmup_period" else value for key, value in params.items()}
        for params in warmup_params
    ]
