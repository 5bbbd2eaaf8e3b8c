"""BaseWarmup: a factor of the lr, and the block in which schedulers are stepped without it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer

from descend.base.untraced import never_traced
from descend.errors import ScheduleError, ScheduleTypeError, StateError
from descend.format import counted
from descend.lr_scheduler.base import LRScheduler
from descend.lr_scheduler.checks import is_number
from descend.lr_scheduler.slot import read
from descend.lr_scheduler.track import Track, Values, beside_torch, tracks_of
from descend.warmup.rollback import noted, put_back

Params = dict[str, Any]
PAIR = 2


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
    rank = 2
    _open: bool = False  # whether a block of `dampening` is being executed
    _seen_torch: bool = False  # whether torch's schedulers were there before
    # What a scheduler of torch has written: for the number of a group, what descend's schedulers
    # said, and what it wrote instead.
    _taken: dict[int, tuple[float, float]]

    def __init__(
        self, optimizer: Optimizer, warmup_params: list[Params], last_step: int = -1
    ) -> None:
        if isinstance(optimizer, Optimizer):  # else the base class refuses it
            self._params = self._checked(warmup_params, len(optimizer.param_groups))
        self._taken = {}
        super().__init__(optimizer, last_step)

    def _join(self, key: str, resumed: bool) -> Track:
        """The track, with this warmup on it.

        It takes nobody's place, so it lets those drive on that are there. Where only torch's are,
        `initial_lr` is theirs and stays as it is.
        """
        groups, track = self.optimizer.param_groups, tracks_of(self.optimizer).get(key)
        self._seen_torch = self._beside_torch()
        if track is not None and track.drivers():
            track.settle(groups)
            return super()._join(key, resumed)
        track = super()._join(key, resumed or self._seen_torch)
        if self._seen_torch:
            self._take_instead([read(group, key) for group in groups], track.bases(groups))
        return track

    def _rejoin(self, track: Track, groups: list[dict[str, Any]]) -> None:
        """Drive again, after a scheduler has begun anew: what it says is not dampened yet."""
        bases = track.bases(groups)
        super()._rejoin(track, groups)
        self._taken = {}
        track.set_bases(groups, bases)

    def _beside_torch(self) -> bool:
        """Whether a scheduler of torch is there, or a subclass with a `get_lr` as torch's."""
        track = tracks_of(self.optimizer).get("lr")
        written_for_torch = track is not None and track.foreign is not None
        return written_for_torch or beside_torch(self.optimizer)

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
        self._params = self._checked(warmup_params, len(self.optimizer.param_groups))

    def _checked(self, warmup_params: Any, count: int) -> list[Params]:
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
        """What the lr of each group would be without this warmup."""
        return self._undampened(self._starts())

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
        """What the lr of a group is multiplied by.

        Args:
            step: from 0.
            **params: those of the group.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no warmup_factor(step, **params); define one"
        )

    def curve(self, time: float, bases: Values) -> Values:
        """The bases, or what was written in their place, times the factor; none in a block."""
        values = self._undampened(bases)
        if self._open:
            return values
        step, factor = int(time) if time == int(time) else time, self.warmup_factor
        return [
            value * float(factor(step, **params))  # type: ignore[arg-type]
            for value, params in zip(values, self.warmup_params, strict=False)
        ]

    def _undampened(self, bases: Values) -> Values:
        taken = self._taken
        if not taken:
            return bases
        return [
            _instead(base, *taken[index]) if index in taken else base
            for index, base in enumerate(bases)
        ]

    def _starts(self) -> Values:
        """What descend's schedulers say, up to this warmup."""
        track = self._tracks["lr"]
        values = track.bases(self.optimizer.param_groups)
        for driver in track.drivers():
            if driver is self:
                break
            values = driver.values_now("lr", values)
        return values

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
        self._refuse_torch_later()
        track, groups = self._tracks["lr"], self.optimizer.param_groups
        track.settle(groups)
        if not track.has(self):
            self._rejoin(track, groups)
        before = noted(track, [driver for driver in track.drivers() if driver is not self], groups)
        step, taken = self.last_epoch, self._taken
        try:
            self._open = True
            self._write()
            yield
            self._take()
            self._open = False
            self.last_epoch += 1
            self._write()
        except BaseException:
            self._open, self.last_epoch, self._taken = False, step, taken
            put_back(before, groups)
            raise
        self._step_count += 1

    @contextmanager
    def undampened(self) -> Iterator[None]:
        """A block in which a scheduler written for torch is built: it finds the whole lr."""
        self._tracks["lr"].settle(self.optimizer.param_groups)
        self._open = self._seen_torch = True
        try:
            self._write()
            yield
            self._take()
        finally:
            self._open = False
            self._write()

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
        if self._tracks["lr"].has(self):
            self._take()
        self.step(step)

    def step(self, epoch: float | None = None) -> None:
        """Go to the next step, as any scheduler does.

        Args:
            epoch: go there instead, as `seek` does.

        Raises:
            ScheduleError: `epoch` is negative or no number, or a block of `dampening` is being
                executed; nothing has changed.
        """
        self._refuse_inside("step()")
        super().step(epoch)

    def _refuse_inside(self, what: str) -> None:
        if self._open:
            raise ScheduleError(
                f"{type(self).__name__}: {what} was called in a block of its own dampening(), "
                "which steps the warmup when it ends; leave it out"
            )

    def _refuse_torch_later(self) -> None:
        """Refuse what nobody could read: torch's first value may be dampened, or not."""
        if self._seen_torch or not self._beside_torch():
            return
        if self._tracks["lr"].touched(self.optimizer.param_groups):
            raise ScheduleError(
                f"{type(self).__name__}: a scheduler of torch was built after the warmup, and has "
                "written an lr that may be dampened or not; build the warmup after it"
            )
        self._seen_torch = True

    def _take(self) -> None:
        """Take over what was written by somebody else, as what the lr is without this warmup."""
        track = self._tracks["lr"]
        touched = track.touched(self.optimizer.param_groups)
        if touched:
            known = self.optimizer.param_groups[: len(track.marks)]
            held = [read(group, "lr") for group in known]
            self._take_instead(held, self._starts(), touched)
            track.accept(known)

    def _take_instead(self, held: Values, starts: Values, touched: list[int] | None = None) -> None:
        """Note what stands in some groups, or in all, instead of what descend's schedulers say."""
        taken = dict(self._taken)
        for index in range(len(held)) if touched is None else touched:
            taken[index] = (starts[index], held[index])
        self._taken = {index: (start, lr) for index, (start, lr) in taken.items() if start != lr}

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data; pytorch_warmup's warmup of the same name loads it."""
        state = {**super().state_dict(), "last_step": self.last_step, "lrs": list(self.lrs)}
        if self._taken:
            state["_taken"] = {str(index): list(pair) for index, pair in self._taken.items()}
        return state

    def refuse_unfit(self, state: Any, strict: bool, place: str = "") -> None:
        """Raise where a state cannot be loaded; pytorch_warmup's has whole periods only."""
        owner = f"{type(self).__name__}.load_state_dict{place}"
        if isinstance(state, dict) and "last_epoch" not in state and "last_step" in state:
            params, lrs = state.get("warmup_params"), state.get("lrs")
            if isinstance(params, list) and _cut(self.warmup_params) == params:
                state = {**state, "warmup_params": self.warmup_params}
            if not isinstance(lrs, list):
                raise StateError(f"{owner}: the state has no list 'lrs', so it is not of a warmup")
            state = {**state, "last_epoch": state["last_step"], "base_lrs": lrs}
        super().refuse_unfit(state, strict, place)
        taken = state.get("_taken", {})
        if not (isinstance(taken, dict) and all(map(_is_taken, taken.items()))):
            raise StateError(
                f"{owner}: _taken must be a dict from groups to pairs of numbers, got {taken!r}"
            )

    def take_over(self, state: dict[str, Any]) -> None:
        """Set the position, and what was written in the place of descend's schedulers' values."""
        track, groups = self._tracks["lr"], self.optimizer.param_groups
        if not track.has(self) and not self._whole():
            track.add(self)
        self._seen_torch = self._beside_torch()
        self._taken = {}
        if "last_epoch" in state:
            super().take_over(state)
            pairs = state.get("_taken", {}).items()
            self._taken = {int(index): (start, lr) for index, (start, lr) in pairs}
            return
        lrs = [float(lr) for lr, _ in zip(state["lrs"], groups, strict=False)]
        alone = track.drivers() == [self]  # else descend's schedulers know better
        bases = {"base_lrs": lrs} if alone and not self._seen_torch else {}
        super().take_over({"last_epoch": state["last_step"], **bases})
        if alone and self._seen_torch:
            self._take_instead(lrs, track.bases(groups))


never_traced(BaseWarmup.step)


def _cut(warmup_params: list[Params]) -> list[Params]:
    """Parameters as pytorch_warmup has them, with whole periods."""
    return [
        {key: int(value) if key == "warmup_period" else value for key, value in params.items()}
        for params in warmup_params
    ]


def _instead(base: float, start: float, written: float) -> float:
    """What a group has where `written` was written instead of `start`, for another base."""
    return written if base == start or not start else written * (base / start)


def _is_taken(entry: tuple[Any, Any]) -> bool:
    """Whether a group's number and a pair of lrs are such."""
    index, pair = entry
    whole = str(index).isdecimal()
    return (
        whole and isinstance(pair, list | tuple) and len(pair) == PAIR and all(map(is_number, pair))
    )
