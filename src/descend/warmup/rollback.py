"""What a block of `dampening` that raises puts back: schedulers, and what they drive."""

from typing import Any

from descend.lr_scheduler.slot import Group
from descend.lr_scheduler.track import Noted, Track

Before = tuple[list[tuple[Track, Noted]], list[tuple[Any, dict[str, Any]]]]
"""Tracks, and schedulers with their attributes."""


def noted(track: Track, drivers: list[Any], groups: list[Group]) -> Before:
    """Note where some schedulers are, and what they drive.

    Args:
        track: of the lr; whatever was written there by hand is settled.
        drivers: the other schedulers on it.
        groups: the optimizer's.
    """
    tracks = [(track, track.noted())]
    attributes: list[tuple[Any, dict[str, Any]]] = []
    for driver in drivers:
        _add_attributes(driver, attributes)
        for beside in driver._tracks.values():
            if beside is not track:
                beside.settle(groups)
                tracks.append((beside, beside.noted()))
    return tracks, attributes


def put_back(before: Before, groups: list[Group]) -> None:
    """Put everything back; nothing is computed anew, for it may be just that what raised.

    Args:
        before: what `noted` returned.
        groups: the optimizer's.
    """
    tracks, attributes = before
    for scheduler, there in attributes:
        scheduler.__dict__ = there
    for track, what in tracks:
        track.put_back(groups, what)


def _add_attributes(scheduler: Any, found: list[tuple[Any, dict[str, Any]]]) -> None:
    """Those of a scheduler and of its parts, safe from what it does to its lists."""
    attributes: dict[str, Any] = vars(scheduler).copy()
    for name, value in attributes.items():
        if type(value) is list:
            attributes[name] = value.copy()
    found.append((scheduler, attributes))
    for part in attributes.get("_schedulers", ()):
        _add_attributes(part, found)
