"""Which saved parameter is which of ours: by name where both sides know names, else by position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

from descend.errors import StateError
from descend.format import counted

Label: TypeAlias = str | int
"""A parameter in a report: its name, or its position among all parameters."""


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


def _named(mine: list[Slot], theirs: list[Slot]) -> bool:
    """Whether names tell the parameters apart on both sides."""
    return all(
        None not in names and len(set(names)) == len(names)
        for names in ([_bare(slot) for slot in side] for side in (mine, theirs))
    )


def paired(mine: list[Slot], theirs: list[Slot]) -> list[Pair]:
    """Each parameter of ours with the saved one that it is, then the saved ones left over."""
    if not _named(mine, theirs):
        return list(zip_longest(mine, theirs))
    saved = {_bare(slot): slot for slot in theirs}
    pairs: list[Pair] = [(slot, saved.pop(_bare(slot), None)) for slot in mine]
    return pairs + [(None, slot) for slot in saved.values()]


def matched(
    owner: str,
    groups: Sequence[Mapping[str, Any]],
    saved: Sequence[Mapping[str, Any]],
    strict: bool,
) -> tuple[list[Pair], dict[int, int]]:
    """The parameters and the groups of an optimizer, each with the saved one that it is.

    Args:
        owner: the optimizer's name, for messages.
        groups: its groups.
        saved: those of the state.
        strict: every parameter of either side must be one of the other's, in the same groups.

    Returns:
        The pairs of parameters; and our groups, each with the saved group that shares parameters
        with it and with no other: `{group: saved group}`.

    Raises:
        StateError: (strict) the state is of other parameters, or has them in other groups.
    """
    mine, theirs = slots(groups), slots(saved)
    pairs = paired(mine, theirs)
    shared = _groups_in_common(pairs)
    if strict:
        _refuse_other_parameters(
            owner, groups, saved, pairs, shared if _named(mine, theirs) else None
        )
        shared |= zip(  # by order, those without parameters
            [index for index in range(len(groups)) if index not in shared],
            [index for index in range(len(saved)) if index not in shared.values()],
            strict=True,
        )
    return pairs, shared


def _refuse_other_parameters(
    owner: str,
    groups: Sequence[Mapping[str, Any]],
    saved: Sequence[Mapping[str, Any]],
    pairs: list[Pair],
    shared: dict[int, int] | None,
) -> None:
    """Raise unless both sides have the same parameters in the same groups, by name where known."""
    sizes, theirs = ([len(group["params"]) for group in side] for side in (groups, saved))
    if shared is not None:
        missed = sorted(str(one.name) for one, other in pairs if one and not other)
        unused = sorted(str(other.name) for one, other in pairs if other and not one)
        if missed or unused:
            raise StateError(
                f"{owner}: the state's parameters have other names than this optimizer's: "
                f"not in the state: {', '.join(missed) or 'none'}; "
                f"only in the state: {', '.join(unused) or 'none'}; "
                "to load those that both have, pass strict=False"
            )
        apart = next((one for one, _ in pairs if one and one.group not in shared), None)
        if apart is not None:
            raise StateError(
                f"{owner}: group {apart.group}, the one of {apart.name!r}, has other parameters in "
                "the state; put the same parameters into the same groups, or pass strict=False to "
                "load their state and keep this optimizer's options"
            )
        sizes, theirs = sorted(sizes), sorted(theirs)
    if sizes != theirs:
        raise StateError(
            f"{owner}: the state has {_counted(theirs)}, this optimizer has {_counted(sizes)}; "
            "build it from the same parameters in the same groups, or pass strict=False to load "
            "what matches"
        )


def _counted(sizes: list[int]) -> str:
    groups = counted(len(sizes), "group")
    return f"{groups} of {', '.join(map(str, sizes))} parameters" if sizes else groups


def _groups_in_common(pairs: list[Pair]) -> dict[int, int]:
    """Our groups, each with the saved group that shares parameters with it and with no other."""
    links = {(one.group, other.group) for one, other in pairs if one and other}
    ours, saved = [link[0] for link in links], [link[1] for link in links]
    return {
        one: other for one, other in sorted(links) if ours.count(one) == saved.count(other) == 1
    }


def _bare(slot: Slot) -> str | None:
    # torch.compile puts a prefix before the names of the model that it wraps.
    return None if slot.name is None else slot.name.replace("_orig_mod.", "")
