"""Nested states, such as a `state_dict`: one walk for all that look into one.

A state is a mapping, a list, a tuple or a set of states, or a leaf: a tensor, a number, a text, or
anything else. A place in it is the tuple of keys and indices that lead there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

Place = tuple[Any, ...]

ABSENT: Final = object()
"""The stand-in for an entry that the other state does not have."""


def walk(state: object, place: Place = ()) -> Iterator[tuple[Place, object]]:
    """Visit a state and everything in it, each with its place; what holds others comes before them.

    Example:
        >>> [place for place, _ in walk({"a": [1, 2]})]
        [(), ('a',), ('a', 0), ('a', 1)]
    """
    yield place, state
    for key, item in entries(state) or ():
        yield from walk(item, (*place, key))


def leaves(state: object, place: Place = ()) -> Iterator[tuple[Place, object]]:
    """Visit everything in a state that holds nothing itself, each with its place.

    Example:
        >>> list(leaves({"a": [1, 2], "b": {}}))
        [(('a', 0), 1), (('a', 1), 2)]
    """
    held = entries(state)
    if held is None:
        yield place, state
        return
    for key, item in held:
        yield from leaves(item, (*place, key))


def mapped(state: Any, change: Callable[[Any], Any]) -> Any:
    """Build a state of dicts and lists anew, each leaf changed.

    Example:
        >>> mapped({"a": (1, 2)}, lambda leaf: -leaf)
        {'a': [-1, -2]}
    """
    if isinstance(state, Mapping):
        return {key: mapped(item, change) for key, item in state.items()}
    if isinstance(state, list | tuple):
        return [mapped(item, change) for item in state]
    return change(state)


def beside(a: Any, b: Any, place: Place = ()) -> Iterator[tuple[Place, Any, Any]]:
    """Walk two states at once: the leaves of both that have one place, in the order of the first.

    Two mappings are walked together, and so are two lists or two tuples; of what has a
    `state_dict`, that is taken. Where one state has no such entry, `ABSENT` stands; where they are
    of other kinds, both are taken for leaves.

    Example:
        >>> list(beside({"a": [1]}, {"a": [2], "b": 3})) == [(("a", 0), 1, 2), (("b",), ABSENT, 3)]
        True
    """
    a, b = state_of(a), state_of(b)
    alike = type(a) is type(b) or (isinstance(a, Mapping) and isinstance(b, Mapping))
    if not alike or not isinstance(a, Mapping | list | tuple):
        yield place, a, b
        return
    one, other = dict(entries(a) or ()), dict(entries(b) or ())
    for key in {**one, **other}:
        yield from beside(one.get(key, ABSENT), other.get(key, ABSENT), (*place, key))


def state_of(thing: Any) -> Any:
    """The state of what has a `state_dict`, such as a model; anything else as it is."""
    has_one = callable(getattr(thing, "state_dict", None)) and not isinstance(thing, type)
    return thing.state_dict() if has_one and not isinstance(thing, Mapping) else thing


def entries(state: object) -> Iterable[tuple[Any, Any]] | None:
    """The entries of a state with the key or the number of each; None for a leaf."""
    if isinstance(state, Mapping):
        return state.items()
    return enumerate(state) if isinstance(state, list | tuple | set | frozenset) else None


def below(path: str, key: object) -> str:
    """Write the place of an entry, from that of what holds it."""
    return f"{path}.{key}" if path else str(key)


def joined(place: Place) -> str:
    """Write a place as a message or a file names it.

    Example:
        >>> joined(("optimizer", "state", 0, "exp_avg"))
        'optimizer.state.0.exp_avg'
    """
    return ".".join(map(str, place))
