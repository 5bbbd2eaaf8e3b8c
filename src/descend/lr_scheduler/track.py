"""One hyperparameter of one optimizer, and the schedulers that drive it together.

A scheduler is a function from what the hyperparameter would be without it to what it is. A track
applies those of its schedulers one after the other to the base, which stands in the group as
`initial_lr`, where torch keeps it. So their product does not depend on the order in which they are
built, loaded or stepped; only one with a minimum of its own, which is no factor, must know what
comes before it.

Whoever else writes the hyperparameter is noticed: by the value, or by a tensor's version. The base
is then set so that the curve goes on from what was written.

Nothing here keeps a scheduler or an optimizer alive: the optimizer holds its tracks weakly, a track
its schedulers. So dropping an optimizer frees its memory at once.
"""

import copy
import math
from typing import Any, Protocol
from weakref import WeakValueDictionary, ref

import torch
from torch import Tensor
from torch.optim import Optimizer

FARTHEST = 100.0  # times the lr there was: a larger base is none
NEAR = 1e-9  # relative: an inverse that comes out this close is one

Group = dict[str, Any]
Values = list[float]


class Driver(Protocol):
    """What a track needs of a scheduler."""

    def rank_of(self, key: str) -> float:
        """When it applies: values come first, then factors, then warmups."""

    def values_now(self, key: str, bases: Values) -> Values:
        """What the hyperparameter is, from what it would be without this scheduler."""


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
        self.loaded: Values | None = None  # what the optimizer's state has brought
        self.before: list[Any] = []  # what the groups remembered when it began
        self.known: Values = []  # the bases, when they were last looked at

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
        self._drivers.append(ref(driver))
        self._drivers.sort(key=self._rank)

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
        if not self.only_driven_by(driver):
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
        self._drivers.clear()
        self.before = [group.get(self.initial) for group in groups]
        for group in groups:
            known = resumed and self.initial in group
            group[self.initial] = float(group[self.initial]) if known else read(group, self.key)
        self.marks = [_mark(group, self.key, read(group, self.key)) for group in groups]
        self.known = self.bases(groups)

    def written_by_hand(self, groups: list[Group]) -> bool:
        """Whether somebody has written other values, apart from a load of the optimizer's state.

        Args:
            groups: the optimizer's.
        """
        now = [read(group, self.key) for group in groups]
        return now != self.loaded and bool(self.touched(groups))

    def touched(self, groups: list[Group]) -> list[int]:
        """The numbers of the groups that hold something else than was written there.

        Args:
            groups: the optimizer's.
        """
        pairs = enumerate(zip(groups, self.marks, strict=False))
        return [index for index, (group, mark) in pairs if _differs(group, self.key, mark)]

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
        self.known = self.bases(groups)

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
        self.marks = [_mark(group, self.key, read(group, self.key)) for group in groups]

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
        marks, key, initial, known = self.marks, self.key, self.initial, self.known
        gone = None in [entry() for entry in self._drivers]
        if len(marks) == len(groups) == len(known) and not gone:
            for group, mark, base in zip(groups, marks, known, strict=True):
                differs = group.get(key) != mark if type(mark) is float else True
                if (differs and _differs(group, key, mark)) or group.get(initial) != base:
                    break
            else:
                return
        bases = self.bases(groups)
        self._drivers = [entry for entry in self._drivers if entry() is not None]
        marks = self.marks = marks[: len(groups)]
        for index, group in enumerate(groups):
            if index >= len(marks):  # a group that is new
                group[initial] = read(group, key)
                marks.append(_mark(group, key, group[initial]))
                continue
            touched = _differs(group, key, marks[index])
            # Where the lr is as it was, a base that is not came with an older state.
            group[initial] = bases[index] if touched or index >= len(known) else known[index]
            if gone or touched:
                self._rebase(groups, index)
                marks[index] = _mark(group, key, read(group, key))
        self.known = self.bases(groups)

    def found(self, groups: list[Group]) -> Values:
        """What the schedulers say that the hyperparameter of each group is.

        Args:
            groups: the optimizer's.
        """
        key, initial = self.key, self.initial
        values = self.bases(groups)
        for group, base in zip(groups, values):  # noqa: B905 - they are as many
            if initial not in group:
                group[initial] = base
        self.known = values
        for entry in self._drivers:
            driver = entry()
            if driver is not None:
                values = driver.values_now(key, values)
        return values

    def put(self, groups: list[Group], values: Values) -> None:
        """Write values, and remember that they are from here.

        Args:
            groups: the optimizer's.
            values: for each group.
        """
        name, place = self.name, self.place
        marks: list[Any] = []
        for group, value in zip(groups, values):  # noqa: B905 - slow; the caller has counted
            pair = group[name]
            held = pair if place is None else pair[place]
            if type(held) is not float and isinstance(held, Tensor):
                (held.detach() if held.requires_grad else held).fill_(value)
                marks.append((held, held._version, value))
                continue
            group[name] = value if place is None else (*pair[:place], value, *pair[place + 1 :])
            marks.append(value)
        self.marks = marks

    def rebase(self, groups: list[Group]) -> None:
        """Set the bases so that the schedulers give what the groups hold.

        Args:
            groups: the optimizer's.
        """
        for index in range(len(groups)):
            self._rebase(groups, index)

    def _rebase(self, groups: list[Group], index: int) -> None:
        """Set the base of a group so that the schedulers give what the group holds."""
        wanted, old = read(groups[index], self.key), float(groups[index][self.initial])
        bases = self.bases(groups)

        def result(base: float) -> float:
            values = [*bases[:index], base, *bases[index + 1 :]]
            for driver in self.drivers():
                values = driver.values_now(self.key, values)
            return values[index]

        # Near a zero of a curve that rises again, the base would be enormous: what was written
        # there holds for one step.
        most = math.inf
        if any(driver.rises for driver in self.drivers()):
            most = FARTHEST * max(abs(old), abs(wanted))
        at_zero = result(0.0)
        slope = result(1.0) - at_zero
        now = result(old)
        for base in (
            (wanted - at_zero) / slope if slope else math.nan,
            old * wanted / now if now else math.nan,
        ):
            if not math.isfinite(base) or (abs(base) > most and base != old):
                continue
            if math.isclose(result(base), wanted, rel_tol=NEAR):
                groups[index][self.initial] = base
                return


def tracks_of(optimizer: Optimizer) -> "WeakValueDictionary[str, Track]":
    """The tracks of an optimizer, by hyperparameter.

    Args:
        optimizer: whose.
    """
    tracks: WeakValueDictionary[str, Track] | None = vars(optimizer).get("_schedules")
    if tracks is None:
        tracks = WeakValueDictionary()
        vars(optimizer)["_schedules"] = tracks
        hooks = vars(optimizer).get("_optimizer_load_state_dict_post_hooks", {})
        if note_load not in hooks.values():
            optimizer.register_load_state_dict_post_hook(note_load)
    return tracks


def note_load(optimizer: Optimizer) -> None:
    """After the optimizer has loaded a state: what it brought was written by no hand.

    Args:
        optimizer: whose.
    """
    for track in vars(optimizer).get("_schedules", {}).values():
        track.loaded = [read(group, track.key) for group in optimizer.param_groups]


def slot(key: str) -> tuple[str, int | None]:
    """Where a hyperparameter stands in a group: its key, and its place in a tuple."""
    return ("betas", int(key[-1]) - 1) if key in ("beta1", "beta2") else (key, None)


def has(group: Group, key: str) -> bool:
    """Whether a group has such a hyperparameter.

    Args:
        group: of an optimizer.
        key: the name; "beta1" and "beta2" stand for the two of "betas".
    """
    name, place = slot(key)
    return name in group and (place is None or isinstance(group[name], tuple | list))


def is_number(group: Group, key: str) -> bool:
    """Whether a hyperparameter of a group is a number, or a tensor with one.

    Args:
        group: of an optimizer.
        key: the name; "beta1" and "beta2" stand for the two of "betas".
    """
    name, place = slot(key)
    value = group[name] if place is None else group[name][place]
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, float | int) and not isinstance(value, bool)


def read(group: Group, key: str) -> float:
    """A hyperparameter of a group as a number.

    Args:
        group: of an optimizer.
        key: the name; "beta1" and "beta2" stand for the two of "betas".
    """
    name, place = slot(key)
    return float(group[name] if place is None else group[name][place])


def write(group: Group, key: str, value: float) -> None:
    """Set a hyperparameter of a group; a tensor is filled in place.

    Args:
        group: of an optimizer.
        key: the name; "beta1" and "beta2" stand for the two of "betas".
        value: the number.
    """
    track = Track(key)
    track.put([group], [value])


def _mark(group: Group, key: str, value: float) -> Any:
    """What tells later whether somebody else has written.

    Of a tensor it is the tensor's version: to read its number could wait for a GPU.
    """
    held = group.get(key)
    return (held, held._version, value) if isinstance(held, Tensor) else value


def _differs(group: Group, key: str, mark: Any) -> bool:
    """Whether a group holds something else than was written there."""
    held = group.get(key)
    if not isinstance(mark, tuple):
        return bool(held is None or held != mark) and read(group, key) != mark
    if not isinstance(held, Tensor):
        return True
    if held is mark[0] and held._version == mark[1]:
        return False
    # A load writes too, but most often the same number.
    return float(held) != float(torch.tensor(mark[2], dtype=held.dtype))
