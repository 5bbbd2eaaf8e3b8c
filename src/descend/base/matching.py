"""Which saved parameter is which of ours: by name where both sides know names, else by position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

Label: TypeAlias = str | int
"""What a report calls a parameter: its name, or its position among all parameters."""


@dataclass(frozen=True, eq=False)
class Slot:
    """One parameter's place, in an optimizer or in a saved state.

    Args:
        key: the parameter; or the index that stands for it in the state.
        group: the index of its group.
        position: its index among the parameters of all groups.
        name: its name, if names are known.
    """

    key: Any
    group: int
    position: int
    name: str | None

    @property
    def label(self) -> Label:
        """Its name if that is known, else its position."""
        return self.position if self.name is None else self.name


Pair: TypeAlias = tuple[Slot | None, Slot | None]
"""A parameter of ours and the saved one that it is; None where there is no such."""


def slots(groups: Sequence[Mapping[str, Any]]) -> list[Slot]:
    """The parameters of some groups, in order."""
    found: list[Slot] = []
    for index, group in enumerate(groups):
        keys = group["params"]
        for key, name in zip(keys, group.get("param_names") or [None] * len(keys), strict=True):
            found.append(Slot(key, index, len(found), name))
    return found


def named(mine: list[Slot], theirs: list[Slot]) -> bool:
    """Whether names tell the parameters apart on both sides."""
    return all(
        None not in names and len(set(names)) == len(names)
        for names in ([_bare(slot) for slot in side] for side in (mine, theirs))
    )


def paired(mine: list[Slot], theirs: list[Slot]) -> list[Pair]:
    """Each parameter of ours with the saved one that it is, then the saved ones left over."""
    if not named(mine, theirs):
        return list(zip_longest(mine, theirs))
    saved = {_bare(slot): slot for slot in theirs}
    pairs: list[Pair] = [(slot, saved.pop(_bare(slot), None)) for slot in mine]
    return pairs + [(None, slot) for slot in saved.values()]


def groups_in_common(pairs: list[Pair]) -> dict[int, int]:
    """Our groups, each with the saved group that shares parameters with it and with no other."""
    links = {(one.group, other.group) for one, other in pairs if one and other}
    ours, saved = [link[0] for link in links], [link[1] for link in links]
    return {
        one: other for one, other in sorted(links) if ours.count(one) == saved.count(other) == 1
    }


def _bare(slot: Slot) -> str | None:
    # torch.compile puts a prefix before the names of the model that it wraps.
    return None if slot.name is None else slot.name.replace("_orig_mod.", "")
