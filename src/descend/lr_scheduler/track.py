"""One hyperparameter of one optimizer, and the schedulers that drive it together.

A scheduler is a function from what the hyperparameter would be without it to what it is. A track
applies those of its schedulers one after the other to the base, which stands in the group as
`initial_lr`, where torch keeps it. So their product does not depend on the order in which they are
built, loaded or stepped; only one with a minimum of its own, which is no factor, must know what
comes before it.

Whoever else writes the hyperparameter is noticed: by the value, or by a tensor's version. The base
is then set so that the curve goes on from what was written; unless all schedulers are of classes
whose every step in torch begins with the base, such as `LambdaLR`: programs that warm up by hand
beneath one count on it.

Nothing here keeps a scheduler or an optimizer alive: the optimizer holds its tracks weakly, a track
its schedulers. So dropping an optimizer frees its memory at once.
"""

import copy
import math
from collections.abc import Iterable
from typing import Any, Protocol
from weakref import WeakValueDictionary, ref

from torch import Tensor
from torch.optim import Optimizer

from descend.lr_scheduler.slot import Group, differs, mark_of, number_of, read, slot

FARTHEST = 100.0  # times the lr there was: a larger base is none
WARMUP = 2  # the rank of warmups
NEAR = 1e-9  # relative: an inverse that comes out this close is one

Values = list[float]
Noted = tuple[list[Any], list[Any], Values]


class Driver(Protocol):
    """What a track needs of a scheduler."""

    def rank_of(self, key: str) -> float:
        """When it applies: values come first, then factors, then warmups."""

    def values_now(self, key: str, bases: Values) -> Values:
        """What the hyperparameter is, from what it would be without this scheduler."""

    def begins_with_the_base(self) -> bool:
        """Whether its next step lets go for nothing what others have written."""


class Track:
    """One hyperparameter of one optimizer.

    Args:
        key: its name in a group; "beta1" and "beta2" stand for the two of "betas".
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.initial = f"initial_{key}"
        self.name, self.place = slot(key)
        self._drivers: list[ref[Any]] = []
        self.marks: list[Any] = []  # what was written to each group
        self.loaded: tuple[Any, Values] | None = None  # the marks there were at a load, its values
        self.before: list[Any] = []  # what the groups remembered when it began
        self.known: Values = []  # the bases, when they were last looked at
        self.first: Values = []  # the bases before anybody wrote by hand, for `step(epoch)`
        # The marks of what a scheduler with a `get_lr` of its own has left in the groups since.
        self.foreign: list[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For a copy or a pickle: weak references are made anew."""
        return {**self.__dict__, "_drivers": self.drivers()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` gave."""
        self.__dict__.update(state)
        self._drivers = [ref(driver) for driver in state["_drivers"]]

    def drivers(self) -> list[Any]:
        """The schedulers, in the order in which they apply."""
        return [driver for driver in (entry() for entry in self._drivers) if driver is not None]

    def add(self, driver: Driver) -> None:
        """Let a scheduler drive too; those that give values come before those that give factors."""
        self._drivers = sorted([*self._drivers, ref(driver)], key=self._rank)

    def _rank(self, entry: ref[Any]) -> float:
        driver = entry()
        return 0 if driver is None else driver.rank_of(self.key)

    def has(self, driver: Driver) -> bool:
        """Whether a scheduler drives.

        Args:
            driver: the scheduler.
        """
        return any(entry() is driver for entry in self._drivers)

    def remove(self, driver: Driver) -> None:
        """Let a scheduler drive no longer; what it wrote stays until the next writing."""
        self._drivers = [entry for entry in self._drivers if entry() is not driver]

    def only(  # noqa: PLR0911 - each as soon as it is known
        self, driver: Driver, groups: list[Group]
    ) -> str:
        """Whether one scheduler is alone here, and all is as it was written.

        Args:
            driver: the scheduler.
            groups: the optimizer's.

        Returns:
            "numbers", or "tensors" if there are any among them; empty if it is not so.
        """
        if self.foreign is not None or not self.only_driven_by(driver):
            return ""
        name, place, found = self.name, self.place, "numbers"
        marks, known, initial = self.marks, self.known, self.initial
        if not len(groups) == len(marks) == len(known):
            return ""
        try:
            for group, mark, base in zip(groups, marks, known):  # noqa: B905 - takes twice as long
                held = group[name] if place is None else group[name][place]
                if group[initial] != base:
                    return ""
                if type(held) is float:
                    if held != mark:
                        return ""
                elif type(mark) is tuple and held is mark[0] and held._version == mark[1]:
                    found = "tensors"
                else:
                    return ""
        except KeyError:
            return ""
        return found

    def only_driven_by(self, driver: Driver) -> bool:
        """Whether one scheduler is alone here.

        Args:
            driver: the scheduler.
        """
        drivers = self._drivers
        return len(drivers) == 1 and drivers[0]() is driver

    def restart(self, groups: list[Group], resumed: bool) -> None:
        """Begin anew, with nobody driving.

        Args:
            groups: the optimizer's.
            resumed: whether the bases are those that the groups remember, if they do.
        """
        self._drivers, self.foreign = [], None
        self.before = [group.get(self.initial) for group in groups]
        for group in groups:
            known = resumed and self.initial in group
            group[self.initial] = float(group[self.initial]) if known else read(group, self.key)
        self.accept(groups)
        # Groups may share a tensor; as none is marked, the first step looks for that.
        self.marks = [
            (None, 0, mark[2]) if isinstance(mark, tuple) else mark for mark in self.marks
        ]
        self.first = self.known = self.bases(groups)

    def written_by_hand(self, groups: list[Group]) -> bool:
        """Whether somebody has written other values, apart from a load of the optimizer's state.

        Args:
            groups: the optimizer's.
        """
        if self.foreign is not None:
            return not self.left_by_foreign(groups)
        if not self.touched(groups):
            return False
        marks, values = self.loaded or (None, [])
        return marks is not self.marks or values != [read(group, self.key) for group in groups]

    def note_foreign(self, groups: list[Group]) -> None:
        """Note what stands in the groups as left by a scheduler with a `get_lr` of its own.

        Args:
            groups: the optimizer's.
        """
        self.foreign = [mark_of(value) for value in self._held(groups)]

    def left_by_foreign(self, groups: list[Group]) -> bool:
        """Whether the groups hold what such a scheduler has left there.

        Args:
            groups: the optimizer's.
        """
        left, held = self.foreign, self._held(groups)
        return left is not None and len(left) == len(held) and not any(map(differs, held, left))

    def touched(self, groups: list[Group]) -> list[int]:
        """The numbers of the groups that hold something else than was written there.

        Args:
            groups: the optimizer's.
        """
        pairs = zip(self._held(groups), self.marks, strict=False)
        return [index for index, pair in enumerate(pairs) if differs(*pair)]

    def _held(self, groups: list[Group]) -> list[Any]:
        """What stands in each group."""
        name, place = self.name, self.place
        if place is None:
            return [group[name] for group in groups]
        return [group[name][place] for group in groups]

    def remember(self, groups: list[Group]) -> None:
        """Take the bases that the groups had before it began anew; those of a loaded optimizer.

        Args:
            groups: the optimizer's.
        """
        now = self.bases(groups)
        pairs = zip(now, self.before, strict=False)
        self.set_bases(groups, [new if old is None else float(old) for new, old in pairs])

    def set_bases(self, groups: list[Group], bases: Values) -> None:
        """Set the bases of the first groups; nothing is written.

        Args:
            groups: the optimizer's.
            bases: as many as there are, or fewer.
        """
        for group, base in zip(groups, bases, strict=False):
            group[self.initial] = float(base)
        self.first = self.known = self.bases(groups)

    def bases(self, groups: list[Group]) -> Values:
        """What the hyperparameter of each group would be without schedulers."""
        initial, known = self.initial, self.known
        bases = []
        for index, group in enumerate(groups):
            if initial in group:
                bases.append(float(group[initial]))
            else:  # an optimizer's state that knows no schedulers was loaded
                bases.append(known[index] if index < len(known) else read(group, self.key))
        return bases

    def accept(self, groups: list[Group]) -> None:
        """Take what the groups hold as if it were written here; the bases stay.

        Args:
            groups: the optimizer's.
        """
        self.marks, self.foreign = [mark_of(value) for value in self._held(groups)], None

    def settled_bases(self, groups: list[Group]) -> Values:
        """The bases that `settle` would find; nothing is written.

        Args:
            groups: the optimizer's.
        """
        twin, copies = copy.copy(self), [dict(group) for group in groups]
        twin.settle(copies)
        return twin.bases(copies)

    def settle(self, groups: list[Group]) -> None:
        """Before a scheduler moves: if somebody else has written, go on from there.

        Args:
            groups: the optimizer's.
        """
        marks, initial, known = self.marks, self.initial, self.known
        name, place = self.name, self.place
        gone = None in [entry() for entry in self._drivers]
        if len(marks) == len(groups) == len(known) and not gone:
            for group, mark, base in zip(groups, marks, known):  # noqa: B905 - slow
                value = group[name] if place is None else group[name][place]
                other = value != mark if type(value) is float else differs(value, mark)
                if other or group.get(initial) != base:
                    break
            else:
                return
        bases, held = self.bases(groups), self._held(groups)
        self._drivers = [entry for entry in self._drivers if entry() is not None]
        marks = self.marks = list(marks[: len(groups)])
        moved, new = [], []
        anew = self._begins_with_the_base()
        for index, (group, value) in enumerate(zip(groups, held, strict=True)):
            if index >= len(marks):  # a group that is new
                group[initial] = float(value)
                marks.append(mark_of(value))
                new.append(index)
                continue
            touched = differs(value, marks[index])
            # Where the lr is as it was, a base that is not came with an older state.
            group[initial] = bases[index] if touched or index >= len(known) else known[index]
            if touched:
                marks[index] = mark_of(value)
            if gone or (touched and not anew):
                moved.append(index)
        self.rebase(groups, moved)
        self.rebase(groups, new, dampened=False)
        self.known = self.bases(groups)
        self.first = [*self.first[: len(groups)], *self.known[len(self.first) :]]

    def _begins_with_the_base(self) -> bool:
        """Whether the next step lets go for nothing what others have written, warmups apart."""
        drivers = [driver for driver in self.drivers() if driver.rank_of(self.key) < WARMUP]
        return bool(drivers) and all(driver.begins_with_the_base() for driver in drivers)

    def noted(self) -> Noted:
        """Who drives, what was written, and the bases, for `put_back`."""
        return self._drivers, self.marks, self.known  # lists that nobody changes in place

    def put_back(self, groups: list[Group], noted: Noted) -> None:
        """Let everything be as it was; nothing is computed anew.

        Args:
            groups: the optimizer's.
            noted: what `noted` returned.
        """
        self._drivers, marks, bases = noted
        first = self.first
        self.set_bases(groups, bases)
        self.first = first
        lrs = list(map(number_of, marks))
        self.put(groups[: len(lrs)], lrs)

    def found(self, groups: list[Group]) -> Values:
        """What the schedulers say that the hyperparameter of each group is.

        Args:
            groups: the optimizer's.
        """
        key, values = self.key, self.bases(groups)
        for group, base in zip(groups, values):  # noqa: B905 - they are as many
            group.setdefault(self.initial, base)
        self.known = values
        for entry in self._drivers:
            driver = entry()
            if driver is not None:
                values = driver.values_now(key, values)
        return values

    def put(self, groups: list[Group], values: Values, shared: bool = False) -> None:
        """Write values, and remember that they are from here.

        Args:
            groups: the optimizer's.
            values: for each group.
            shared: whether groups may share a tensor, as a default of torch's optimizers; where
                their values differ, each is given its own.
        """
        name, place = self.name, self.place
        marks: list[Any] = []
        filled: dict[int, float] = {}
        for group, given in zip(groups, values):  # noqa: B905 - slow; the caller has counted
            value = given if type(given) is float else float(given)
            pair = group[name]
            held = pair if place is None else pair[place]
            if type(held) is not float and isinstance(held, Tensor):
                if shared and filled.setdefault(id(held), value) != value:
                    held = held.detach().clone()
                    group[name] = (
                        held if place is None else (*pair[:place], held, *pair[place + 1 :])
                    )
                (held.detach() if held.requires_grad else held).fill_(value)
                marks.append((held, held._version, value))
                continue
            group[name] = value if place is None else (*pair[:place], value, *pair[place + 1 :])
            marks.append(value)
        self.marks, self.foreign = marks, None

    def rebase(self, groups: list[Group], chosen: Iterable[int], dampened: bool = True) -> None:
        """Set the bases of some groups so that the schedulers give what the groups hold.

        Args:
            groups: the optimizer's.
            chosen: the numbers of those groups.
            dampened: whether what they hold has been through the warmups; not so in a new group.
        """
        left = {index: read(groups[index], self.key) for index in chosen}
        if not left:
            return
        bases, drivers = self.bases(groups), self.drivers()
        if not dampened:
            drivers = [driver for driver in drivers if driver.rank_of(self.key) < WARMUP]

        def results(tried: dict[int, float]) -> Values:
            values = [tried.get(index, base) for index, base in enumerate(bases)]
            for driver in drivers:
                values = driver.values_now(self.key, values)
            return values

        at_zero = results(dict.fromkeys(left, 0.0))
        at_one = results(dict.fromkeys(left, 1.0))
        now = results({})
        rises = any(driver.rises for driver in drivers)

        def by_slope(index: int) -> float:
            slope = at_one[index] - at_zero[index]
            return (left[index] - at_zero[index]) / slope if slope else math.nan

        def by_share(index: int) -> float:
            return bases[index] * left[index] / now[index] if now[index] else math.nan

        for solved in (by_slope, by_share):
            tried = {}
            for index, wanted in left.items():
                base, old = solved(index), bases[index]
                # Near a zero of a curve that rises again, the base would be enormous: what was
                # written there holds for one step.
                most = FARTHEST * max(abs(old), abs(wanted)) if rises else math.inf
                if math.isfinite(base) and (abs(base) <= most or base == old):
                    tried[index] = base
            got = results(tried) if tried else []
            for index, base in tried.items():
                if math.isclose(got[index], left[index], rel_tol=NEAR):
                    groups[index][self.initial] = base
                    del left[index]


def tracks_of(optimizer: Optimizer) -> "WeakValueDictionary[str, Track]":
    """The tracks of an optimizer, by hyperparameter.

    Args:
        optimizer: whose; one that wraps another has the other's.
    """
    owner = owner_of(optimizer)
    tracks: WeakValueDictionary[str, Track] | None = vars(owner).get("_schedules")
    if tracks is None:
        hooks = vars(owner).get("_optimizer_load_state_dict_post_hooks")
        # A wrapper may have left `Optimizer.__init__` out: then it has no hooks.
        if hooks is not None and note_load not in hooks.values():
            owner.register_load_state_dict_post_hook(note_load)
        tracks = vars(owner)["_schedules"] = WeakValueDictionary()
    return tracks


def owner_of(optimizer: Optimizer) -> Optimizer:
    """The optimizer whose groups these are: the innermost, where one wraps another.

    Args:
        optimizer: any.
    """
    seen = [optimizer]  # the inner one may know its wrapper
    for outer in seen:
        seen += [
            inner
            for inner in vars(outer).values()
            if isinstance(inner, Optimizer)
            and all(inner is not one for one in seen)
            and inner.param_groups is outer.param_groups
        ]
    return seen[-1]


def beside_torch(optimizer: Optimizer) -> bool:
    """Whether a scheduler of torch has been built for an optimizer; it leaves this sign.

    Args:
        optimizer: whose.
    """
    return hasattr(vars(optimizer).get("step"), "_wrapped_by_lr_sched")


def note_load(optimizer: Optimizer) -> None:
    """After the optimizer has loaded a state: what it brought was written by no hand.

    Args:
        optimizer: whose.
    """
    for track in vars(optimizer).get("_schedules", {}).values():
        track.loaded = track.marks, [read(group, track.key) for group in optimizer.param_groups]
        track.foreign = None
