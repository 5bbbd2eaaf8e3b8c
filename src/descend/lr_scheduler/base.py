"""What all schedulers share: the step, the base, the state; torch's interface on pure functions."""

import contextlib
import copy
import math
import warnings
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING

from descend.base.untraced import never_traced
from descend.errors import ScheduleError, ScheduleTypeError
from descend.format import counted
from descend.lr_scheduler import order
from descend.lr_scheduler.checks import number as number_in
from descend.lr_scheduler.checks import whole_number
from descend.lr_scheduler.own_get_lr import (
    gone_on,
    move,
    noting,
    own_state,
    take_over_own,
    there_now,
    write,
)
from descend.lr_scheduler.slot import number_of, read
from descend.lr_scheduler.state import (
    bases_in,
    plain,
    refuse_damaged,
    refuse_other,
    refuse_other_groups,
)
from descend.lr_scheduler.track import WARMUP, Track, Values, beside_torch, tracks_of
from descend.spelling import spelled

BOTH_BUILT = 2  # moves of one that is stepped beside another, when that one is stepped first
FLOATS = {float}
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
    # How torch computes it: "recursive", from the lr that is there; "closed", from `base_lrs`.
    form: ClassVar[str] = ""
    made_of_others: ClassVar[bool] = False  # or of measures: its `get_lr` is never asked
    deprecates_epoch: ClassVar[bool] = True  # whether torch's warns of `step(epoch)`
    last_epoch: int
    _fraction: float = 0  # of an epoch, after `step(epoch + i / batches)`
    _step_count: int = 0
    _tracks: dict[str, Track] = {}  # noqa: RUF012 - of a subclass that leaves `__init__` out
    _asked: bool = False  # whether the whole that it is a part of lets it step just now
    _order: Any = None  # what tells whether it is stepped before the optimizer; None: it is not
    fades: bool = True  # whether it may come to 0 by itself, and be done
    rises: bool = True  # whether it may come back from near 0
    _others: dict[int, int]  # how often others had moved when it moved last
    _owner: Any = None  # the scheduler that this one is a part of, weakly
    _written_bases: Values | None = None  # those that the next `step(epoch)` begins to use
    _rebuilt: bool = False  # whether it was built in the middle, by `last_epoch`
    _by_hand: bool = False  # whether `get_lr` says what the lr is, as in torch's subclasses
    _own_step: bool = False  # whether `step` is the subclass's own too, and writes what it likes

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """See which of `curve` and `get_lr` the subclass overrides."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = spelled(cls.__init__)  # type: ignore[method-assign]
        names = {"curve", "values", "get_lr"}
        nearest = next(base for base in cls.__mro__ if names & set(vars(base)))
        own_step = cls.step is not LRScheduler.step
        asked = own_step if nearest is LRScheduler else names & set(vars(nearest)) == {"get_lr"}
        cls._by_hand = asked and not cls.made_of_others
        cls._own_step = cls._by_hand and own_step
        if cls._by_hand:
            for name in {"__init__", "step"} & set(vars(cls)):
                setattr(cls, name, noting(vars(cls)[name]))

    @spelled
    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ScheduleTypeError(
                f"{type(self).__name__}: {type(optimizer).__name__} is not an Optimizer; give the "
                "optimizer whose groups are scheduled"
            )
        epoch = whole_number(last_epoch)
        if epoch is None or epoch < -1:
            raise ScheduleError(
                f"{type(self).__name__}: last_epoch must be -1 or the number of the last epoch "
                f"that is over, got {last_epoch!r}"
            )
        self.optimizer = optimizer
        self.last_epoch = epoch
        self._rebuilt = epoch >= 0
        self._others = {}
        self._tracks = {key: self._join(key, self._rebuilt) for key in self.keys}
        if self._by_hand:
            vars(self)["base_lrs"] = self._bases_there()
        single = self.keys == ("lr",) and not self._by_hand
        self._single = self._tracks["lr"] if single else None
        self._plain = type(self).values is LRScheduler.values
        with contextlib.ExitStack() as undampened:
            if self._by_hand:  # it is to find the lr without warmups, and what it says has none
                for driver in self._tracks["lr"].drivers():
                    if driver.rank_of("lr") == WARMUP:
                        undampened.enter_context(driver.undampened())
            self._initial_step()
        self._order = order.begun(optimizer)

    def _join(self, key: str, resumed: bool) -> Track:
        """The track of a hyperparameter, with this scheduler on it."""
        tracks, groups = tracks_of(self.optimizer), self.optimizer.param_groups
        track = tracks.get(key)
        if track is None:
            tracks[key] = track = Track(key)
            track.restart(groups, resumed or (self._by_hand and beside_torch(self.optimizer)))
        elif (not track.drivers() and track.foreign is None) or track.written_by_hand(groups):
            track.restart(groups, resumed)
        elif track.foreign is None:
            track.settle(groups)
        for group in groups:
            group.setdefault(track.initial, read(group, key))
        if not self._by_hand:
            if resumed:
                self._take_over(track)
            track.add(self)
        return track

    def _take_over(self, track: Track) -> None:
        """Rebuilt in the middle while the one that was there lives: drive in its place."""
        old = self._predecessor(track)
        if old is not None:
            track.remove(old)

    def _predecessor(self, track: Track) -> Any:
        """The scheduler of the same class that this one takes over from, if there is one."""
        alike = [
            driver
            for driver in track.drivers()
            if type(driver) is type(self)
            and not (driver._rebuilt and driver._step_count == 1)  # rebuilt just now, beside it
        ]
        same = [
            driver
            for driver in alike
            if all(plain(getattr(driver, n)) == plain(getattr(self, n)) for n in self.config)
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
        return not self._by_hand

    def rank_of(self, key: str) -> float:
        """When it applies to a hyperparameter: values first, then factors, then warmups.

        Args:
            key: which hyperparameter.
        """
        return self.rank

    def begins_with_the_base(self) -> bool:
        """Whether its next step lets go for nothing what others have written, as in torch."""
        return self.form == "closed"

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

    def values_now(self, key: str, bases: Values) -> Values:
        """What a hyperparameter is now.

        Args:
            key: which hyperparameter.
            bases: what it would be in each group without this scheduler.
        """
        if self.last_epoch < 0:  # it has not begun
            return bases
        return self.values(key, self.last_epoch + self._fraction, bases)

    def get_lr(self) -> list[Any]:
        """What this scheduler makes of the bases in this epoch, other schedulers apart.

        Where a subclass overrides it, as torch's do, this is what torch's class would say there:
        what its curve makes of the lr that is there, or of `base_lrs`.
        """
        time = self.last_epoch + self._fraction
        if not self._as_torchs():
            return list(self.values("lr", time, self._bases_there()))
        if self.form == "recursive":
            return gone_on(self, time)
        return list(self.values("lr", time, self.base_lrs))

    def _as_torchs(self) -> bool:
        """Whether it steps as torch's class of the same name: beside torch's, or one written so."""
        if self._by_hand:
            return True
        track = self._tracks.get("lr")
        if not self.form or track is None:
            return False
        return track.foreign is not None or beside_torch(self.optimizer)

    def get_last_lr(self) -> list[Any]:
        """The lr of each group, as the next step of the optimizer uses it; tensors are copied.

        Beside a subclass with a `get_lr` of its own, and of such: as this scheduler has left it.
        """
        there, track = there_now(self), self._tracks.get("lr")
        if self._by_hand:
            left = self._last_lr
        elif track is None or not self._as_torchs():
            left = there
        else:
            left = vars(self).get("_last_lr", list(map(number_of, track.marks)))
        return left if len(left) >= len(there) else [*left, *there[len(left) :]]

    @property
    def _last_lr(self) -> list[Any]:
        """What `get_last_lr` says, under the name that some programs read."""
        if not self._by_hand:
            return self.get_last_lr()
        try:
            values: list[Any] = vars(self)["_last_lr"]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has not stepped yet") from None
        return values

    @_last_lr.setter
    def _last_lr(self, values: list[Any]) -> None:
        """A subclass in torch's style may set it; elsewhere it follows the groups."""
        if self._by_hand:
            vars(self)["_last_lr"] = values

    @property
    def base_lrs(self) -> list[Any]:
        """The lr of each group without any scheduler; `initial_lr` in the group.

        What is written there holds from the next step on; in a class that torch computes from the
        lr before, beside a scheduler written for torch, only `step(epoch)` heeds it, as in torch.
        """
        if self._by_hand:
            values: list[Any] = vars(self)["base_lrs"]
            return values
        written = self._written_bases if self._as_torchs() else None
        return Bases(written or self._bases_there(), self)

    @base_lrs.setter
    def base_lrs(self, bases: list[Any]) -> None:
        if self._by_hand:  # a list of its own, as in torch
            vars(self)["base_lrs"] = bases
            return
        values, groups = [float(base) for base in bases], self.optimizer.param_groups
        if len(values) != len(groups):
            raise ScheduleError(
                f"{type(self).__name__}: base_lrs must be one for each of the {len(groups)} "
                f"groups, got {len(values)}"
            )
        track = self._tracks.get("lr")
        if track is not None and self._as_torchs():
            self._written_bases = values
            track.note_foreign(groups)  # so that the next step looks for them
            return
        for group, base in zip(groups, values, strict=True):
            group["initial_lr"] = base
        if track is not None:
            track.set_bases(groups, values)

    def _bases_there(self) -> Values:
        """The lr of each group without any scheduler, as the groups hold it."""
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
        if self._order is not None:
            self._order = order.watched(self._order, self)
        if epoch is not None and self.deprecates_epoch:
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        if self._by_hand:
            if not self._asked:
                self._refuse_part()
            move(self, epoch)
        elif epoch is None and self._short_step():
            pass
        elif self._as_torchs():
            self._refuse_part()
            move(self, epoch)
        elif epoch is None:
            self._move(self.last_epoch + 1, self._fraction)
        else:
            place = self._position(epoch)
            self._begin_anew()
            self._move(*place)

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
            if found == "tensors" or {*map(type, values)} != FLOATS:  # a user's may be NumPy's
                track.put(groups, values)
            else:
                for group, value in zip(groups, values):  # noqa: B905 - `strict` takes as long
                    group["lr"] = value
                track.marks = values
        else:
            tracks = self._tracks.values()
            for track in tracks:
                if not track.only(self, groups):
                    return False
            several = [(track, self.values(track.key, time, track.known)) for track in tracks]
            self._put(several, shared=False)
        self.last_epoch += 1
        self._step_count += 1
        return True

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
        if self._by_hand:
            self._refuse_part()
            self._position(time)
            move(self, time)
        else:
            self._move(*self._position(time))

    def _position(self, time: Any) -> tuple[int, float]:
        """A time as an epoch, and what is over; anything else is refused."""
        number = number_in(time)
        if number is None or number < 0:
            raise ScheduleError(
                f"{type(self).__name__}: the epoch must be a number of at least 0, got {time!r}"
            )
        whole = math.floor(number)
        return whole, (number - whole) or 0

    def _move(self, epoch: int, fraction: float) -> None:
        """Go somewhere and write what holds there; or, if that fails, change nothing."""
        before = self.last_epoch, self._fraction
        vars(self).pop("_last_lr", None)
        self._written_bases = None
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

    def _begin_anew(self) -> None:
        """Let what was ever written by hand into the groups go for nothing, as in torch."""
        groups, track = self.optimizer.param_groups, self._tracks.get("lr")
        if track is not None and track.has(self) and len(track.marks) == len(groups):
            track.set_bases(groups, track.first)
            track.accept(groups)

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
        if not self.pure:
            return self._stepped_preview(steps)
        return {
            key: [list(self.values(key, time, bases)) for time in range(steps)]
            for key, bases in self._settled_bases().items()
        }

    def _stepped_preview(self, steps: int) -> dict[str, list[list[float]]]:
        """The same of one that is not pure: a copy of it steps."""
        twin = copy.deepcopy(self)
        write(twin, [float(base) for base in twin.base_lrs])
        twin.seek(0)
        seen = []
        for time in range(steps):
            if time:
                twin.step()
            seen.append([read(group, "lr") for group in twin.optimizer.param_groups])
        return {"lr": seen}

    def _settled_bases(self) -> dict[str, Values]:
        """The bases, whoever has written, by hyperparameter."""
        groups = self.optimizer.param_groups
        return {key: track.settled_bases(groups) for key, track in self._tracks.items()}

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data: the position, the bases, and the configuration to compare.

        torch's scheduler of the same name loads it, and the other way round.
        """
        state = {name: plain(getattr(self, name)) for name in (*self.config, *self.own_config)}
        all_bases = self._settled_bases()
        bases = dict(all_bases)
        if "lr" in bases:
            state["base_lrs"] = self._own_bases() or bases["lr"]
            if state["base_lrs"] == bases["lr"]:
                del bases["lr"]
        if bases:
            state["bases"] = bases
        first = {key: track.first for key, track in self._tracks.items()}
        written = {key: list(values) for key, values in first.items() if values != all_bases[key]}
        if written and not self._by_hand:
            state["first_bases"] = written
        state["last_epoch"] = self.last_epoch
        state["_step_count"] = self._step_count
        state["_last_lr"] = [read(group, "lr") for group in self.optimizer.param_groups]
        if self._fraction:
            state["_fraction"] = self._fraction
        if self._by_hand and not self.made_of_others:
            return {**state, **own_state(self), "bases": {"lr": self._bases_there()}}
        return state

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
        if self._by_hand:
            lrs = state_dict.get("_last_lr", ())
            if len(lrs) == len(self.optimizer.param_groups):
                write(self, [float(lr) for lr in lrs])
                self._last_lr = there_now(self)
            return
        for track in self._tracks.values():
            # Another has begun anew since; a part drives through the whole.
            if not (track.has(self) or self._whole()):
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
        # A part of a sequence whose turn has not come is in epoch -1 in torch's states; so is what
        # has a step of its own and counts otherwise.
        refuse_damaged(owner, state, self.config, -1 if place or self._by_hand else 0)
        if strict:
            names = (*self.config, *(name for name in self.own_config if name in state))
            refuse_other(owner, state, {name: getattr(self, name) for name in names})
            refuse_other_groups(owner, state, self.keys, len(self.optimizer.param_groups))

    def take_over(self, state: dict[str, Any]) -> None:
        """Set the position and the bases from a state that is fit.

        Args:
            state: a scheduler's.
        """
        # The base_lrs of a subclass in torch's style are its own, not those of the groups.
        bases = state.get("bases", {}) if self._by_hand else bases_in(state)
        for key, track in self._tracks.items():
            track.set_bases(self.optimizer.param_groups, bases.get(key, ()))
            first = state.get("first_bases", {}).get(key)
            if first is not None and len(first) == len(track.first):
                track.first = [float(base) for base in first]
        self.last_epoch = state["last_epoch"] if self._by_hand else int(state["last_epoch"])
        self._fraction = state.get("_fraction", 0)
        self._step_count = state.get("_step_count", self.last_epoch + 1)
        if self._by_hand and not self.made_of_others:
            take_over_own(self, state)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy holds."""
        return {key: value for key, value in vars(self).items() if key != "_owner"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what a pickle or a copy holds."""
        self.__dict__.update(state)
        for key, track in self._tracks.items():
            tracks_of(self.optimizer)[key] = track


class Recursive(LRScheduler):
    """A class that torch computes from the lr before, and in `step(epoch)` in a closed form."""

    form = "recursive"

    def _get_closed_form_lr(self) -> list[Any]:
        """What its curve makes of `base_lrs`; a subclass in torch's style may ask for it."""
        return list(self.values("lr", self.last_epoch + self._fraction, self.base_lrs))


class _LRScheduler(LRScheduler):
    """The base class by the name that it had in torch 1, for programs that use it."""


class Bases(list[float]):
    """The bases of a scheduler: what is written into the list is written there.

    Args:
        bases: those of each group.
        scheduler: whose.

    Example:
        >>> import torch, descend
        >>> optimizer = descend.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = descend.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
        >>> scheduler.base_lrs[0] = 4.0
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [2.0]
    """

    def __init__(self, bases: Values, scheduler: LRScheduler) -> None:
        super().__init__(bases)
        self._scheduler = scheduler

    def __setitem__(self, index: Any, base: Any) -> None:
        """Write one base, or several."""
        super().__setitem__(index, base)
        self._scheduler.base_lrs = self

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or a pickle, is a plain list."""
        return list, (list(self),)


never_traced(LRScheduler.step)
never_traced(LRScheduler.seek)
