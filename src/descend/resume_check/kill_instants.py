"""When to kill a run: at random instants all over it, half of them in the middle of saves."""

import bisect
import random
from dataclasses import dataclass

from descend.resume_check.run_watch import CheckpointOrder, Course, FolderContents


@dataclass(frozen=True)
class Target:
    """An instant to kill at.

    Args:
        after: not before there is this checkpoint or a later one; None: from the start.
        until: with this checkpoint or a later one, wait no longer; None: for as long as it takes.
        in_save: whether to wait for a save then; else for any sign of work.
        delay: seconds to wait after that.
    """

    after: CheckpointOrder | None
    until: CheckpointOrder | None
    in_save: bool
    delay: float


def often_enough(course: Course, kills: int) -> int | None:
    """After how many steps to save, so that so many kills each find some progress to spoil.

    None: as the script says itself, which saves often, and not only between epochs.
    """
    within = any(step % course.batches for step, _ in course.orders)
    if len(course.orders) > 2 * kills and within:
        return None
    every = max(1, course.steps // (2 * kills + 1))
    return every - 1 if every > 1 and every % course.batches == 0 else every


def kill_targets(rng: random.Random, course: Course, kills: int) -> list[Target]:
    """Random instants after the first checkpoint, one in each part of the run; half in saves."""
    orders, times = course.orders, course.times
    # After the last checkpoint not much is left: to wait longer would be to miss the end
    end = times[-1] + (times[-1] - times[0]) / len(times)
    last = len(orders) - 1
    targets = []
    for part in range(kills):
        share = (part + rng.random()) / kills
        if (part + kills) % 2:  # a single one waits for no save
            instant = times[0] + share * (end - times[0])
            index = bisect.bisect_right(times, instant) - 1
            until = orders[index + 1] if index < last else None
            targets.append(Target(orders[index], until, False, instant - times[index]))
        else:
            index = int(share * len(orders))
            after = orders[index - 1] if index else None
            delay = rng.choice((0.0, rng.uniform(0, course.save_seconds)))
            # A save is soon over: where this one is not seen in time, the next one will do
            targets.append(Target(after, orders[min(index + 1, last)], True, delay))
    return sorted(targets, key=lambda target: target.after or (-1, 0))


def has_come(target: Target, seen: FolderContents, start: FolderContents) -> bool:
    """Whether what a target waits for is there.

    Args:
        target: which.
        seen: what there is in the run's folder.
        start: what there was when the process started.
    """
    if target.after is not None and (seen.newest is None or seen.newest < target.after):
        return False
    if target.in_save:
        return bool(seen.saves - start.saves)
    return seen.newest != start.newest or seen.log != start.log  # it is at work


def has_passed(target: Target, seen: FolderContents, start: FolderContents) -> bool:
    """Whether the process was faster than the whole run, or than we are, and goes on to its end."""
    return (
        target.until is not None
        and seen.newest is not None
        and seen.newest != start.newest
        and seen.newest >= target.until
    )
