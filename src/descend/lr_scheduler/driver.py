"""The driver of one hyperparameter of one optimizer: it applies the curves of all schedulers.

A scheduler is a function from the value of a hyperparameter without it to the value with it. A
driver applies those of its schedulers one after the other to the base of each group, in the order
of `Order`. So their product does not depend on the order in which they are built, loaded or
stepped; only one with a minimum of its own, which is no factor, must know what comes before it.

The contract for a value that somebody else has written, by hand or from a scheduler of torch: it
scales the rest of the curve. It is noticed before the next move, by the number or by a tensor's
version, and the base is set so that the curves give that value. Two exceptions:

- Where the curve is 0, no base gives another value: what was written holds for one step.
- Where all schedulers are of classes whose every step in torch begins with the base, such as
  `LambdaLR`, it holds for one step too: programs that warm up by hand beneath one count on it.

The base that moves so is the driver's own. The group keeps `initial_lr`, where torch has it and
where warmups by hand read it: what stood there before any scheduler.

Nothing here keeps a scheduler or an optimizer alive: the optimizer holds its drivers weakly, a
driver its schedulers. So dropping an optimizer frees its memory at once.
"""

import copy
import math
from collections.abc import Iterable
from enum import IntEnum
from operator import itemgetter
from typing import Any
from weakref import WeakValueDictionary, ref

from torch.optim import Optimizer

from descend.lr_scheduler.group_values import Group, held, mark_of, place_of, read, write

Values = list[float]

FARTHEST = 100.0  # times the lr there was: a larger base, under a curve that rises again, is none


class Order(IntEnum):
    """The order in which schedulers apply to a hyperparameter, whatever was built first."""

    VALUES = 0
    FACTORS = 1
    AVERAGING = 2  # from what the factors give to a value of its own: SWALR
    WARMUP = 3


class Driver:
    """One hyperparameter of one optimizer, and the schedulers that drive it together.

    All its methods take the groups of the optimizer, which it does not keep alive.

    Args:
        key: its name in a group; "beta1" and "beta2" stand for the two of "betas".
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.initial = f"initial_{key}"
        self.name, self.place = place_of(key)
        self._get = itemgetter(self.name)
        self._on: list[ref[Any]] = []
        self.first: Values = []  # the base of each group before anybody wrote; torch's `base_lrs`
        self.moved: dict[int, float] = {}  # by what was written: the number of a group, its base
        self.remembered: list[Any] = []  # what the groups had as `initial_lr` when it began
        self.written: list[Any] = []  # the marks of what was written last
        # What else has been left in the groups since, and is by no hand: the marks of what a
        # scheduler in torch's style has written, or the numbers that a load has brought.
        self.foreign: list[Any] | None = None
        self.loaded: Values | None = None
        self.torchs_initial = False  # whether `initial_lr` is also that of schedulers of torch

    def __getstate__(self) -> dict[str, Any]:
        """For a copy or a pickle: weak references are made anew."""
        return {**self.__dict__, "_on": self.schedulers()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` gave."""
        self.__dict__.update(state)
        self._on = [ref(scheduler) for scheduler in state["_on"]]

    def schedulers(self) -> list[Any]:
        """The schedulers that live, in the order in which they apply."""
        return [scheduler for entry in self._on if (scheduler := entry()) is not None]

    def add(self, scheduler: Any) -> None:
        """Let a scheduler drive too."""
        on = [*self.schedulers(), scheduler]
        self._on = [ref(one) for one in sorted(on, key=lambda one: one._order_of(self.key))]

    def add_again(self, scheduler: Any, groups: list[Group]) -> None:
        """Let a scheduler drive that another, which began anew, has left out; go on from there."""
        self.add(scheduler)
        if scheduler._order_of(self.key) < Order.WARMUP:  # it has not been through a warmup
            self._move_bases(self.numbers(groups), range(len(groups)), self.schedulers())

    def remove(self, scheduler: Any) -> None:
        """Let a scheduler drive no longer; what it wrote stays until the next writing."""
        self._on = [entry for entry in self._on if entry() is not scheduler]

    def held(self, groups: list[Group]) -> list[Any]:
        """The number or the tensor in each group."""
        there = list(map(self._get, groups))
        return there if self.place is None else [pair[self.place] for pair in there]

    def numbers(self, groups: list[Group]) -> Values:
        """The number in each group."""
        return list(map(float, self.held(groups)))

    @property
    def bases(self) -> Values:
        """The base of each group, from which the curves go on after what was written by hand."""
        return [self.moved.get(index, base) for index, base in enumerate(self.first)]

    def first_of(self, groups: list[Group]) -> Values:
        """The bases before anybody wrote by hand, those of groups that were added since, too."""
        for group in groups[len(self.first) :]:
            self.first.append(float(group.get(self.initial, held(group, self.key))))
        return self.first

    def restart(self, groups: list[Group], resumed: bool) -> None:
        """Begin anew, with no scheduler; resumed, from the bases that the groups remember."""
        self._on = []
        self.remembered = [group.get(self.initial) for group in groups]
        self.mark_as_written(groups)
        there = map(float, self.written)
        self.set_bases(
            groups,
            [
                float(known) if resumed and known is not None else number
                for known, number in zip(self.remembered, there, strict=True)
            ],
        )

    def set_bases(self, groups: list[Group], first: Values, bases: Values | None = None) -> None:
        """Set the bases of the first groups, and as they were before anybody wrote by hand."""
        first = list(map(float, first))[: len(groups)]
        known = [*self.first, *self.numbers(groups[len(self.first) :])]
        self.first = [*first, *known[len(first) :]]
        pairs = zip(map(float, first if bases is None else bases), self.first, strict=False)
        self.moved = {index: base for index, (base, was) in enumerate(pairs) if base != was}
        for group, base in zip(groups, self.first, strict=False):
            if self.torchs_initial:
                group.setdefault(self.initial, base)
            else:
                group[self.initial] = base

    def mark_as_written(self, groups: list[Group]) -> None:
        """Take what the groups hold as if it were written here; the bases stay."""
        self.written = list(map(mark_of, self.held(groups)))
        self.foreign = self.loaded = None

    def forget_what_was_written(self, groups: list[Group]) -> None:
        """Go back to the bases before anybody wrote by hand, whatever the groups hold."""
        if len(self.written) == len(groups):
            self.moved = {}
            self.mark_as_written(groups)

    def changed_groups(self, groups: list[Group]) -> list[int]:
        """The numbers of the groups that hold something else than was written there."""
        pairs = enumerate(zip(self.written, self.held(groups), strict=False))
        return [index for index, (mark, value) in pairs if mark != value]

    def written_by_hand(self, groups: list[Group]) -> bool:
        """Whether other values stand there, which neither a load nor a scheduler has left."""
        if self.foreign is not None:
            return self.foreign != self.held(groups)
        return self.loaded != self.numbers(groups) and bool(self.changed_groups(groups))

    def rebase(self, groups: list[Group]) -> list[Any]:
        """Before a scheduler moves: go on from what somebody else has written, if they have.

        Returns:
            The schedulers.
        """
        on: list[Any] = [entry() for entry in self._on]
        held, gone = self.held(groups), None in on
        if self.written == held and not gone:  # every step of most trainings
            return on
        touched = self.changed_groups(groups)
        count = min(len(self.written), len(groups))  # those after them are new
        self._on = [entry for entry in self._on if entry() is not None]
        on = [scheduler for scheduler in on if scheduler is not None]
        undampened = [one for one in on if one._order_of(self.key) < Order.WARMUP]
        if gone:  # what it has made of the others' values stays
            touched = list(range(count))
        elif undampened and all(one._begins_with_the_base() for one in undampened):
            touched = []
        numbers = list(map(float, held))
        self.written = list(map(mark_of, held))
        self.first = [*self.first[:count], *numbers[count:]]
        self._move_bases(numbers, touched, on)
        # What stands in a new group has not been through the warmups.
        self._move_bases(numbers, range(count, len(groups)), undampened)
        self.first = [*self.first[:count], *self.bases[count:]]
        for group, base in zip(groups[count:], self.first[count:], strict=True):
            group.setdefault(self.initial, base)
        return on

    def _move_bases(self, values: Values, chosen: Iterable[int], on: list[Any]) -> None:
        """Move the bases of some groups so that schedulers give the values that stand there."""
        chosen, bases = list(chosen), self.bases
        if not chosen:
            return
        at_zero, at_one = [0.0] * len(bases), [1.0] * len(bases)
        for scheduler in on:
            at_zero, at_one = (scheduler._now(self.key, part) for part in (at_zero, at_one))
        falls, found = all(scheduler.falls for scheduler in on), dict[int, float]()
        for index in chosen:
            slope, wanted = at_one[index] - at_zero[index], values[index]
            base = (wanted - at_zero[index]) / slope if slope else math.nan
            # Near a zero of a curve that rises again, the base would be enormous.
            most = math.inf if falls else FARTHEST * max(abs(bases[index]), abs(wanted))
            if math.isfinite(base) and abs(base) <= most:
                found[index] = base
        given = [found.get(index, base) for index, base in enumerate(bases)]
        for scheduler in on:
            given = scheduler._now(self.key, given)
        # A plateau, with its lowest lr, is no straight line.
        fit = {i: base for i, base in found.items() if math.isclose(given[i], values[i])}
        self.moved = {**self.moved, **fit}

    def rebased(self, groups: list[Group]) -> "Driver":
        """A copy, rebased on what the groups hold; nothing else is changed."""
        twin = copy.copy(self)
        twin.rebase([dict(group) for group in groups])
        return twin

    def values(self) -> Values:
        """The value of each group that the schedulers give."""
        # A copy: a curve of the user's may write into its argument.
        values, key = self.bases if self.moved else self.first[:], self.key
        for entry in self._on:
            scheduler = entry()
            if scheduler is not None:
                values = scheduler._now(key, values)
        return values

    def write(self, groups: list[Group], values: Values) -> None:
        """Write a value into each group, and remember that they are from here."""
        self.written = write(groups, self.name, self.place, values)
        self.foreign = self.loaded = None


def drivers_of(optimizer: Optimizer) -> "WeakValueDictionary[str, Driver]":
    """The drivers of an optimizer, by hyperparameter; one that wraps another has the other's."""
    owner = owner_of(optimizer)
    drivers: WeakValueDictionary[str, Driver] | None = vars(owner).get("_schedules")
    if drivers is None:
        hooks = vars(owner).get("_optimizer_load_state_dict_post_hooks")
        # A wrapper may have left `Optimizer.__init__` out: then it has no hooks.
        if hooks is not None and note_load not in hooks.values():
            owner.register_load_state_dict_post_hook(note_load)
        drivers = vars(owner)["_schedules"] = WeakValueDictionary()
    return drivers


def owner_of(optimizer: Optimizer) -> Optimizer:
    """The optimizer whose groups these are: the innermost, where one wraps another."""
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
    """Whether a scheduler of torch has been built for an optimizer; it leaves this sign."""
    return "step" in vars(optimizer) and hasattr(optimizer.step, "_wrapped_by_lr_sched")


def note_load(optimizer: Optimizer) -> None:
    """After the optimizer has loaded a state: its values were written by no hand."""
    groups = optimizer.param_groups
    for driver in vars(optimizer).get("_schedules", {}).values():
        driver.loaded, driver.foreign = [read(group, driver.key) for group in groups], None
        for group, base in zip(groups, driver.first, strict=False):
            group.setdefault(driver.initial, base)
