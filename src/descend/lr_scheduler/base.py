"""What all schedulers share: the step, the base, the state; torch's interface on pure functions."""

import copy
import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from descend.base.untraced import never_traced
from descend.errors import ScheduleError, ScheduleTypeError
from descend.lr_scheduler.own_get_lr import Answer, asked, factored, own_state, take_over_own
from descend.lr_scheduler.slot import read
from descend.lr_scheduler.state import (
    bases_in,
    plain,
    refuse_damaged,
    refuse_other,
    refuse_other_groups,
)
from descend.lr_scheduler.track import Track, Values, tracks_of
from descend.schedules.arguments import plain_number
from descend.spelling import spelled

BOTH_BUILT = 2  # moves of one that is stepped beside another, when that one is stepped first
FADED = 1e-3  # a factor below it is the end of a decay


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
    rank: float = 1  # 0: gives values; 1.5: goes to a value; 2: a warmup, which comes last
    last_epoch: int
    _fraction: float = 0  # of an epoch, after `step(epoch + i / batches)`
    _step_count: int = 0
    _answer: Answer | None = None  # the last one of a `get_lr` of the subclass's own
    _apart: bool = False  # whether `step` is the subclass's own too, and writes what it likes
    fades: bool = True  # whether it may come to 0 by itself, and be done
    rises: bool = True  # whether it may come back from near 0
    _others: dict[int, int]  # how often others had moved when it moved last
    _owner: Any = None  # the scheduler that this one is a part of, weakly
    _by_hand: bool = False  # whether `get_lr` says what the lr is, as in torch's subclasses

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """See which of `curve` and `get_lr` the subclass overrides."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = spelled(cls.__init__)  # type: ignore[method-assign]
        names = {"curve", "values", "get_lr"}
        nearest = next(base for base in cls.__mro__ if names & set(vars(base)))
        cls._by_hand = names & set(vars(nearest)) == {"get_lr"}
        cls._apart = cls._by_hand and cls.step is not LRScheduler.step

    @spelled
    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ScheduleTypeError(
                f"{type(self).__name__}: {type(optimizer).__name__} is not an Optimizer; give the "
                "optimizer whose groups are scheduled"
            )
        if isinstance(last_epoch, bool) or not isinstance(last_epoch, int) or last_epoch < -1:
            raise ScheduleError(
                f"{type(self).__name__}: last_epoch must be -1 or the number of the last epoch "
                f"that is over, got {last_epoch!r}"
            )
        self.optimizer = optimizer
        self.last_epoch = last_epoch
        self._others = {}
        self._tracks = {key: self._join(key, last_epoch >= 0) for key in self.keys}
        single = self.keys == ("lr",) and not self._by_hand
        self._single = self._tracks["lr"] if single else None
        self._plain = type(self).values is LRScheduler.values
        self._initial_step()

    def _join(self, key: str, resumed: bool) -> Track:
        """The track of a hyperparameter, with this scheduler on it."""
        tracks, groups = tracks_of(self.optimizer), self.optimizer.param_groups
        track = tracks.get(key)
        if track is None:
            tracks[key] = track = Track(key)
        if not track.drivers() or track.written_by_hand(groups):
            track.restart(groups, resumed)
        else:
            track.settle(groups)
        if not self._apart:
            track.add(self)
        return track

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
        return not self._by_hand

    def rank_of(self, key: str) -> float:
        """When it applies to a hyperparameter: values first, then factors, then warmups.

        Args:
            key: which hyperparameter.
        """
        return self.rank

    def curve(self, time: float, bases: Values) -> Values:
        """What the lr of each group is, a pure function of its arguments.

        Args:
            time: in epochs, or in whatever is counted by `step`; from 0.
            bases: what the lr of each group would be without this scheduler.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has neither curve(time, bases) nor get_lr(); define one"
        )

    def values(self, key: str, time: float, bases: Values) -> Values:
        """What a hyperparameter is at a time; `curve` of the lr, unless there are several.

        Args:
            key: which hyperparameter.
            time: from 0.
            bases: what it would be in each group without this scheduler.
        """
        return self.curve(time, bases)

    def at(self, key: str, time: float, bases: Values) -> Values:
        """What a hyperparameter is at a time: what `values` says, or the subclass's own `get_lr`.

        Args:
            key: which hyperparameter.
            time: from 0.
            bases: what it would be in each group without this scheduler.
        """
        if self._by_hand and key == "lr":
            if self._answer is None or self._answer[0] != time:
                self._answer = asked(self, time)
            return factored(self._answer, bases)
        return self.values(key, time, bases)

    def values_now(self, key: str, bases: Values) -> Values:
        """What a hyperparameter is now.

        Args:
            key: which hyperparameter.
            bases: what it would be in each group without this scheduler.
        """
        if self.last_epoch < 0:  # it has not begun
            return bases
        return self.at(key, self.last_epoch + self._fraction, bases)

    def get_lr(self) -> list[Any]:
        """What this scheduler makes of the bases in this epoch, other schedulers apart."""
        return list(self.values("lr", self.last_epoch + self._fraction, self.base_lrs))

    def get_last_lr(self) -> list[Any]:
        """The lr of each group, as the next step of the optimizer uses it; tensors are copied."""
        return [
            value.detach().clone() if isinstance(value, Tensor) else value
            for value in (group["lr"] for group in self.optimizer.param_groups)
        ]

    @property
    def _last_lr(self) -> list[Any]:
        """What `get_last_lr` says, under the name that some programs read."""
        return self.get_last_lr()

    @_last_lr.setter
    def _last_lr(self, values: list[Any]) -> None:
        """A subclass in torch's style may set it; it follows the groups anyway."""

    @property
    def base_lrs(self) -> list[Any]:
        """The lr of each group without any scheduler; `initial_lr` in the group."""
        return [
            float(group.get("initial_lr", group["lr"])) for group in self.optimizer.param_groups
        ]

    @base_lrs.setter
    def base_lrs(self, bases: list[Any]) -> None:
        for group, base in zip(self.optimizer.param_groups, bases, strict=True):
            group["initial_lr"] = float(base)
        if "lr" in self._tracks:
            self._tracks["lr"].set_bases(self.optimizer.param_groups, bases)

    def step(self, epoch: float | None = None) -> None:
        """Go to the next epoch (or step; whatever is counted), after the optimizer's step.

        Args:
            epoch: go there instead, as `seek` does; between two epochs too (`epoch + i / batches`).

        Raises:
            ScheduleError: `epoch` is negative or no number; nothing has changed.
        """
        if epoch is not None:
            self.seek(epoch)
        elif not self._short_step():
            self._move(self.last_epoch + 1, self._fraction)

    def _short_step(self) -> bool:
        """Go to the next epoch, if nobody else is on the tracks or has written.

        This is every step of most trainings, so it counts: it takes no longer than torch's.
        """
        groups = self.optimizer.param_groups
        time: float = self.last_epoch + 1
        if self._fraction:
            time += self._fraction
        track = self._single
        if track is not None:
            found = track.only(self, groups)
            if not found:
                return False
            bases = track.known
            values = self.curve(time, bases) if self._plain else self.values("lr", time, bases)
            if len(values) != len(groups):
                self._refuse_count(len(values))
            if found == "tensors":
                track.put(groups, values)
            else:
                for group, value in zip(groups, values):  # noqa: B905 - `strict` takes as long
                    group["lr"] = value
                track.marks = values
        else:
            tracks = self._tracks.values()
            for track in tracks:
                if self._by_hand or not track.only(self, groups):
                    return False
            several = [(track, self.values(track.key, time, track.known)) for track in tracks]
            self._put(several, shared=False)
        self.last_epoch += 1
        self._step_count += 1
        return True

    def _refuse_count(self, count: int) -> None:
        raise ScheduleError(
            f"{type(self).__name__}: there are {len(self.optimizer.param_groups)} groups, and its "
            f"curve gives {count} values; give one for each of the bases"
        )

    def seek(self, time: float) -> None:
        """Go to any time, exactly: the values depend on the time alone.

        Args:
            time: the epoch (or step), from 0.

        Raises:
            ScheduleError: it is negative or no number; nothing has changed.
        """
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
        before = self.last_epoch, self._fraction
        self._settle()
        self.last_epoch = epoch
        self._fraction = fraction
        try:
            self._write()
        except BaseException:
            self.last_epoch, self._fraction = before
            raise
        self._step_count += 1

    def _settle(self) -> None:
        """Before it moves: go on from what others have written, if they have."""
        groups = self.optimizer.param_groups
        for key, track in self._tracks.items():
            if self.last_epoch < 0:  # torch's SequentialLR has reset the lr, and begins anew
                track.accept(groups)
            else:
                track.settle(groups)
            if not track.has(self):
                self._rejoin(track, groups)
            if not self.rank_of(key):
                self._take_over_from_the_finished(track, len(groups))

    def _take_over_from_the_finished(self, track: Track, count: int) -> None:
        """Set aside what has run before this one began, or stands still, and makes all of it 0.

        A scheduler of values is often stepped in the place of one that has come to its end.
        """
        moves = {}
        for driver in track.drivers():
            if driver is self or not driver.fades or driver.rank_of(track.key) != 1:
                continue
            moves[id(driver)] = driver._step_count
            ran_before = self._step_count <= 1 and driver._step_count > BOTH_BUILT
            stands = self._others.get(id(driver)) == driver._step_count
            if (ran_before or stands) and max(driver.values_now(track.key, [1.0] * count)) < FADED:
                track.remove(driver)
        self._others = moves

    def _rejoin(self, track: Track, groups: list[dict[str, Any]]) -> None:
        """Drive again, after another has begun anew: go on from what is there."""
        self._refuse_part()
        track.add(self)
        if not self._is_initial:
            track.rebase(groups, range(len(groups)))

    def _refuse_part(self) -> None:
        owner = self._whole()
        if owner is not None:
            raise ScheduleError(
                f"{type(self).__name__}: it is part of a {type(owner).__name__}; step that"
            )

    def _whole(self) -> Any:
        """The scheduler that this one is a part of, if it is."""
        return self._owner and self._owner()

    def _write(self) -> None:
        groups = self.optimizer.param_groups
        found = [(track, track.found(groups)) for track in self._tracks.values()]
        self._put(found, shared=True)

    def _put(self, found: list[tuple[Track, Values]], shared: bool) -> None:
        """Write the values of each track, if it is one for each group."""
        groups = self.optimizer.param_groups
        for _, values in found:
            if len(values) != len(groups):
                self._refuse_count(len(values))
        for track, values in found:
            track.put(groups, values, shared)

    def preview(self, steps: int) -> dict[str, list[list[float]]]:
        """What each hyperparameter will be, without touching the optimizer.

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
        twin = self if self.pure else copy.deepcopy(self)  # one that is not moves as it is asked
        return {
            key: [list(twin.at(key, time, bases)) for time in range(steps)]
            for key, bases in self._settled_bases().items()
        }

    def _settled_bases(self) -> dict[str, Values]:
        """The bases, whoever has written, by hyperparameter."""
        groups = self.optimizer.param_groups
        return {key: track.settled_bases(groups) for key, track in self._tracks.items()}

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data: the position, the bases, and the configuration to compare.

        torch's scheduler of the same name loads it, and the other way round.
        """
        state = {name: plain(getattr(self, name)) for name in (*self.config, *self.own_config)}
        bases = self._settled_bases()
        if "lr" in bases:
            state["base_lrs"] = self._own_bases() or bases["lr"]
            if state["base_lrs"] == bases["lr"]:
                del bases["lr"]
        if bases:
            state["bases"] = bases
        state["last_epoch"] = self.last_epoch
        state["_step_count"] = self._step_count
        state["_last_lr"] = [read(group, "lr") for group in self.optimizer.param_groups]
        if self._fraction:
            state["_fraction"] = self._fraction
        return {**own_state(self), **state} if self._by_hand else state

    def _own_bases(self) -> list[float]:
        """What `base_lrs` are, if not the bases of the track."""
        return []

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
        self.refuse_unfit(state_dict, strict)
        self.take_over(state_dict)
        for track in self._tracks.values():
            # Another has begun anew since; a part drives through the whole.
            if not (track.has(self) or self._apart or self._whole()):
                track.add(self)
        self._write()

    def refuse_unfit(self, state: Any, strict: bool, place: str = "") -> None:
        """Raise where a state cannot be loaded.

        Args:
            state: what was given.
            strict: whether the configuration must be the same.
            place: which part of a scheduler made of several, for the message.
        """
        owner = f"{type(self).__name__}.load_state_dict{place}"
        # A part of a sequence whose turn has not come is in epoch -1 in torch's states.
        refuse_damaged(owner, state, self.config, -1 if place else 0)
        if strict:
            names = (*self.config, *(name for name in self.own_config if name in state))
            refuse_other(owner, state, {name: getattr(self, name) for name in names})
            refuse_other_groups(owner, state, self.keys, len(self.optimizer.param_groups))

    def take_over(self, state: dict[str, Any]) -> None:
        """Set the position and the bases from a state that is fit.

        Args:
            state: a scheduler's.
        """
        bases = bases_in(state)
        for key, track in self._tracks.items():
            track.set_bases(self.optimizer.param_groups, bases.get(key, ()))
        self.last_epoch = state["last_epoch"]
        self._fraction = state.get("_fraction", 0)
        self._step_count = state.get("_step_count", self.last_epoch + 1)
        if self._by_hand:
            take_over_own(self, state)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy holds."""
        return {key: value for key, value in vars(self).items() if key != "_owner"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what a pickle or a copy holds."""
        self.__dict__.update(state)
        tracks = tracks_of(self.optimizer)
        for key, track in self._tracks.items():
            tracks[key] = track


never_traced(LRScheduler.step)
never_traced(LRScheduler.seek)
