"""Whether a script's resume is bit-exact: run it whole, run it with kills, compare every bit."""

import bisect
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

from descend.checkpoint import series
from descend.checkpoint.compare import Difference, diff
from descend.checkpoint.manifest import read_manifest
from descend.checkpoint.source import locate_and_load
from descend.checkpoint.tree import flatten
from descend.errors import OutputError, RunError
from descend.training.metrics_log import METRICS
from descend.training.run import FOLDER_VARIABLE, OWN, STEPS_VARIABLE

POLL = 0.001  # seconds between two looks at a run's folder: a save of a small model takes a few
SLOWER, GRACE = 10, 60  # a process never ends if it takes so many whole runs, and seconds
PATIENCE = 3  # runs in a row without a kill that shows anything, then it is no use
TAIL = 20  # lines of a script's output that are shown
TEMPORARY = re.compile(rf"\.({series.NAME.pattern})\..+\.tmp")  # of a save, or of a removal
WARNING = re.compile(r"(?:CheckpointWarning|ResumeWarning): .*")

Order = tuple[int, int]  # the step of a checkpoint, and its number among those of that step
Place = tuple[str | int, ...]  # where in a state a value is
Verdict = Literal[
    "bit-exact",
    "not bit-exact",  # what the runs with kills leave differs
    "not repeatable",  # what two runs without kills leave differs
    "changed by saving",  # a run that saves more often differs
    "fails",  # when it is started again
    "starts over",  # instead of going on
    "never ends",
]


class ScriptError(RunError):
    """A script that cannot be checked.

    Args:
        message: why.
        output: the end of what it wrote.
        status: its exit status.
    """

    def __init__(self, message: str, output: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.output = output
        self.status = status


@dataclass(frozen=True)
class Script:
    """What is checked: a Python file and the arguments that it gets."""

    path: Path
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kill:
    """One kill.

    Args:
        run: in which of the runs with kills, from 1.
        step: the last step that had left a trace.
        moment: what it interrupted.
        resumes_from: the name of the newest checkpoint that it left; None: there was none yet.
    """

    run: int
    step: int
    moment: Literal["save", "removal", "training"]
    resumes_from: str | None


@dataclass(frozen=True)
class LogDifference:
    """The first line in which two logs differ.

    Args:
        line: its number, from 1.
        step: its step.
        keys: what differs in it, in the order of the line.
        first: the line of the first log; None where that has ended.
        second: the line of the second log; None where that has ended.
    """

    line: int
    step: int | None
    keys: tuple[str, ...]
    first: Mapping[str, Any] | None
    second: Mapping[str, Any] | None


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    Args:
        objects: the entries of their newest checkpoints.
        tensors: how many tensors these hold.
        values: how many other values.
        lines: how many lines the first log has.
        keys: what is compared of them.
        state: what differs between the newest checkpoints.
        log: where the logs differ first.
    """

    objects: tuple[str, ...]
    tensors: int
    values: int
    lines: int
    keys: tuple[str, ...]
    state: tuple[Difference, ...]
    log: LogDifference | None

    @property
    def equal(self) -> bool:
        """Whether there is no difference."""
        return not self.state and self.log is None


@dataclass(frozen=True)
class ResumeCheck:
    """What came out.

    Args:
        verdict: in a word or two.
        steps: how many steps the whole run took.
        seconds: how long it took, from the start of the process to its end.
        every_steps: after how many steps the other runs saved; None: as the script says.
        wanted: how many kills were asked for.
        kills: those that hit.
        runs: how many runs with kills there were.
        left_out: what differs between two whole runs too, and what was to be ignored.
        comparison: of the whole run with the first that differs from it, else with the last.
        warnings: what descend warned of in the runs with kills.
        output: the end of what the script wrote, where it failed.
        status: the exit status with which it failed.
    """

    verdict: Verdict
    steps: int
    seconds: float
    every_steps: int | None
    wanted: int
    kills: tuple[Kill, ...] = ()
    runs: int = 0
    left_out: tuple[str, ...] = ()
    comparison: Comparison | None = None
    warnings: tuple[str, ...] = ()
    output: str = ""
    status: int = 0


def check_resume(
    script: Script,
    *,
    kills: int = 5,
    every_steps: int | None = None,
    seed: int = 0,
    ignore: Collection[str] = (),
    keep: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> ResumeCheck:
    """Run a script whole, twice, then with kills, and compare what it leaves, bit for bit.

    The script uses one `descend.Run`, whose folder is replaced. First it has to repeat itself
    without any kill. Then it is killed with SIGKILL, at random instants after its first checkpoint
    and in the middle of saves, and started again each time, until it ends by itself. A run that
    ends before it could be killed often enough is followed by another.

    Args:
        script: which.
        kills: how many, at least 1.
        every_steps: save after each so many steps in all runs but the first; None: often enough
            for the kills.
        seed: of the random instants.
        ignore: keys of the log that need not be equal, such as times.
        keep: a new or empty folder, where the runs' folders stay; None: they are removed.
        tell: called with a line of text for each thing that happens.

    Returns:
        The verdict and what it rests on.

    Raises:
        ScriptError: if the script fails by itself, makes no Run, or is too short to be killed.
        OutputError: if `keep` cannot be used.

    Example:
        >>> check_resume(Script(Path("my_script.py"))).verdict
        'bit-exact'

    Source: T. Pillai et al., All File Systems Are Not Created Equal: On the Complexity of Crafting
    Crash-Consistent Applications, OSDI 2014, for crashes at instants that tests do not choose.
    """
    _refuse_unusable(script)
    rng = random.Random(seed)  # noqa: S311 - instants, no secrets
    with _scratch(keep) as scratch, _stopped_by_signals():
        tell("running the script whole")
        whole = _run_whole(script, scratch / "whole-1", None)
        steps, every = whole.marks[-1].order[0], every_steps or _often_enough(whole, kills)
        result = ResumeCheck("bit-exact", steps, whole.seconds, every, kills)
        tell(f"it took {steps} steps and {whole.seconds:.1f} s; running it whole again")
        try:
            again = _run_whole(script, scratch / "whole-2", every)
        except ScriptError as error:
            return replace(result, verdict="fails", output=error.output, status=error.status)
        left_out = _varying(whole.outcome, again.outcome, ignore)
        compared = _compare(whole.outcome, again.outcome, left_out)
        result = replace(result, left_out=left_out.names(), comparison=compared)
        if not compared.equal:
            # Nothing is left out: which of it follows from which, nobody knows
            compared = _compare(whole.outcome, again.outcome, _without_keys(ignore))
            result = replace(result, left_out=(), comparison=compared, verdict="not repeatable")
            if every is None:
                return result
            tell("they differ; running it whole once more, saving as it says itself")
            third = _run_whole(script, scratch / "whole-3", None)
            left_out = _varying(whole.outcome, third.outcome, ignore)
            if _compare(whole.outcome, third.outcome, left_out).equal:
                return replace(result, verdict="changed by saving")
            return result
        again = replace(again, outcome=whole.outcome)  # one copy in memory is enough
        if keep is None:  # and none on the disk
            for name in ("whole-1", "whole-2"):
                shutil.rmtree(scratch / name, ignore_errors=True)
        tell(f"both are equal; now with {kills} kill{'' if kills == 1 else 's'}")
        missed = 0
        while result.verdict == "bit-exact" and missed < PATIENCE:
            wanted = kills - len(result.kills)
            if wanted <= 0 and _in_the_middle(result):
                break
            before = _in_the_middle(result)
            folder = scratch / f"killed-{result.runs + 1}"
            targets = _targets(rng, again, max(wanted, 1))
            result = _run_killed(script, folder, targets, whole, left_out, result, tell)
            missed = missed + 1 if _in_the_middle(result) == before else 0
            if keep is None:
                shutil.rmtree(folder, ignore_errors=True)
        if result.verdict == "bit-exact" and not _in_the_middle(result):
            raise ScriptError(
                f"{script.path} went on {len(result.kills)} times after a kill, but never from "
                f"between its first checkpoint and its last, which are {_apart(again):.2g} s "
                f"apart, so nothing is shown; let it train longer: more epochs or samples"
            )
        return result


def _in_the_middle(result: ResumeCheck) -> int:
    """How many kills were followed by a resume that is more than a start or an end."""
    steps = [series.order(Path(kill.resumes_from))[0] for kill in result.kills if kill.resumes_from]
    return sum(0 < step < result.steps for step in steps)


class _Seen(NamedTuple):
    """What there is in a run's folder at an instant."""

    newest: Order | None  # of the complete checkpoints
    saves: frozenset[str]  # names of what is being written
    removals: frozenset[str]  # names of what is being removed
    log: tuple[int, int]  # the size and the time of change of the log


class _Mark(NamedTuple):
    """A checkpoint, and after how many seconds it was there."""

    order: Order
    time: float


@dataclass(frozen=True)
class _Outcome:
    """What a run leaves."""

    state: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Whole:
    """A run without kills."""

    seconds: float
    marks: Sequence[_Mark]
    save_seconds: float
    batches: int  # in an epoch
    outcome: _Outcome


@dataclass(frozen=True)
class _Target:
    """An instant to kill at.

    Args:
        after: not before there is this checkpoint or a later one; None: from the start.
        until: with this checkpoint or a later one, wait no longer; None: for as long as it takes.
        in_save: whether to wait for a save then; else for any sign of work.
        delay: seconds to wait after that.
    """

    after: Order | None
    until: Order | None
    in_save: bool
    delay: float


@dataclass(frozen=True)
class _LeftOut:
    """What need not be equal: keys of the log, and places in the state, where * is any index."""

    keys: frozenset[str] = frozenset()
    places: frozenset[Place] = frozenset()

    def names(self) -> tuple[str, ...]:
        places = {".".join(map(str, place)) for place in self.places if place[0] != OWN}
        return (*sorted(self.keys), *sorted(places))


class _StartsOverError(Exception):
    """The script does not go on where it was."""


class _NeverEndsError(Exception):
    """The script takes far longer than without kills."""


def _apart(whole: _Whole) -> float:
    """The seconds between the first checkpoint and the last."""
    return whole.marks[-1].time - whole.marks[0].time


def _run_whole(script: Script, folder: Path, every_steps: int | None) -> _Whole:
    """Run the script without kills.

    Raises:
        ScriptError: if it fails, or leaves no checkpoint.
    """
    times: dict[Order, float] = {}
    saves: dict[str, tuple[float, float]] = {}
    now = 0.0
    with _started(script, folder, every_steps) as process:
        for now, seen in _watched(process, folder):
            if seen.newest is not None:
                times.setdefault(seen.newest, now)
            for name in seen.saves:
                saves[name] = (saves.get(name, (now,))[0], now)
    if process.returncode:
        raise _failed(script, folder, process.returncode)
    newest = _look(folder).newest
    if newest is None:
        raise _without_checkpoint(script, folder)
    times.setdefault(newest, now)
    lengths = sorted(end - begin for begin, end in saves.values())
    path, outcome = _outcome(folder)
    return _Whole(
        now,
        [_Mark(*item) for item in sorted(times.items())],
        lengths[len(lengths) // 2] if lengths else 0.0,
        int(read_manifest(path)["about"].get("batches per epoch", 1)),
        outcome,
    )


def _run_killed(
    script: Script,
    folder: Path,
    targets: Sequence[_Target],
    whole: _Whole,
    left_out: _LeftOut,
    before: ResumeCheck,
    tell: Callable[[str], None],
) -> ResumeCheck:
    """Run the script with kills, to its end, and compare."""
    number, done = before.runs + 1, list(before.kills)
    status = 0
    result = replace(before, runs=number)
    limit = GRACE + SLOWER * whole.seconds
    try:
        for target in (*targets, None):
            start = _look(folder)
            with _started(script, folder, before.every_steps) as process:
                hit = _await(process, folder, target, start, limit) and _kill(process)
            if not hit:
                status = process.returncode
                break
            done.append(_kill_record(number, folder, start))
            result = replace(result, kills=tuple(done))
            tell(_as_line(done[-1], len(done), before.wanted))
    except (_StartsOverError, _NeverEndsError) as error:
        over = isinstance(error, _StartsOverError)
        return replace(
            result, verdict="starts over" if over else "never ends", output=_tail(folder)
        )
    result = replace(result, warnings=(*result.warnings, *_warnings(folder)))
    if status:
        return replace(result, verdict="fails", output=_tail(folder), status=status)
    compared = _compare(whole.outcome, _outcome(folder)[1], left_out)
    return replace(
        result,
        verdict="bit-exact" if compared.equal else "not bit-exact",
        comparison=compared,
    )


def _await(
    process: "subprocess.Popen[bytes]",
    folder: Path,
    target: _Target | None,
    start: _Seen,
    limit: float,
) -> bool:
    """Wait for the instant to kill at; whether it came before the end of the process."""
    instant: float | None = None  # once it is known
    for now, seen in _watched(process, folder):
        if now > limit:
            raise _NeverEndsError
        if _is_behind(seen, start) and _has_started_over(folder, start):
            raise _StartsOverError
        if target is None:
            continue
        if instant is None and _has_come(target, seen, start):
            instant = now + target.delay
        if (instant is not None and now >= instant) or _has_passed(target, seen, start):
            return True
    return False


def _has_come(target: _Target, seen: _Seen, start: _Seen) -> bool:
    """Whether what a target waits for is there."""
    if target.after is not None and (seen.newest is None or seen.newest < target.after):
        return False
    if target.in_save:
        return bool(seen.saves - start.saves)
    return seen.newest != start.newest or seen.log != start.log  # it is at work


def _has_passed(target: _Target, seen: _Seen, start: _Seen) -> bool:
    """Whether the process was faster than the whole run, or than we are, and goes on to its end."""
    return (
        target.until is not None
        and seen.newest is not None
        and seen.newest != start.newest
        and seen.newest >= target.until
    )


def _is_behind(seen: _Seen, start: _Seen) -> bool:
    """Whether the checkpoint to go on from is gone, and no later one is there."""
    return start.newest is not None and (seen.newest is None or seen.newest < start.newest)


def _has_started_over(folder: Path, start: _Seen) -> bool:
    """The same, for certain: one look can miss what is renamed meanwhile."""
    damaged = any((folder / series.FOLDER).glob("*.damaged"))  # which a run leaves aside
    return not damaged and _is_behind(_look(folder), start)


def _kill_record(run: int, folder: Path, start: _Seen) -> Kill:
    """What a kill interrupted, from what it left."""
    left = _look(folder)
    lines = _lines(folder / METRICS)
    logged = [line["step"] for line in lines if isinstance(line.get("step"), int)]
    checkpoints = series.checkpoints(folder / series.FOLDER)
    return Kill(
        run,
        max([0 if left.newest is None else left.newest[0], *logged[-1:]]),
        "save"
        if left.saves - start.saves
        else "removal"
        if left.removals - start.removals
        else "training",
        checkpoints[-1].name if checkpoints else None,
    )


def _as_line(kill: Kill, number: int, of: int) -> str:
    moment = {"save": ", in the middle of a save", "removal": ", while removing a checkpoint"}
    goes_on = f"from {kill.resumes_from}" if kill.resumes_from else "from the start"
    count = f"{number} of {of}" if number <= of else f"{number}, one more,"
    return f"kill {count}: at step {kill.step}{moment.get(kill.moment, '')}; on {goes_on}"


def _often_enough(whole: _Whole, kills: int) -> int | None:
    """After how many steps to save, so that so many kills each find some progress to spoil."""
    steps = [mark.order[0] for mark in whole.marks]
    if len(steps) > 2 * kills and any(step % whole.batches for step in steps):
        return None  # as it is, it saves often, and not only between epochs
    every = max(1, steps[-1] // (2 * kills + 1))
    return every - 1 if every > 1 and every % whole.batches == 0 else every


def _targets(rng: random.Random, whole: _Whole, kills: int) -> list[_Target]:
    """Random instants after the first checkpoint, one in each part of the run; half in saves."""
    orders = [mark.order for mark in whole.marks]
    times = [mark.time for mark in whole.marks]
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
            targets.append(_Target(orders[index], until, False, instant - times[index]))
        else:
            index = int(share * len(orders))
            after = orders[index - 1] if index else None
            delay = rng.choice((0.0, rng.uniform(0, whole.save_seconds)))
            # A save is soon over: where this one is not seen in time, the next one will do
            targets.append(_Target(after, orders[min(index + 1, last)], True, delay))
    return sorted(targets, key=lambda target: target.after or (-1, 0))


@contextmanager
def _started(
    script: Script, folder: Path, every_steps: int | None
) -> Iterator["subprocess.Popen[bytes]"]:
    """The script as a process, which does not outlive the block, nor do its children."""
    environment = {name: value for name, value in os.environ.items() if name != STEPS_VARIABLE}
    environment |= {FOLDER_VARIABLE: str(folder), "PYTHONUNBUFFERED": "1"}
    if every_steps is not None:
        environment[STEPS_VARIABLE] = str(every_steps)
    with _output(folder).open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - the user's own script
            [sys.executable, str(script.path), *script.arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group to kill, which the terminal's Ctrl-C does not reach
        )
    try:
        yield process
    finally:
        _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> bool:
    """Kill a process and its children; whether that is what ended it."""
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses where all are zombies
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def _watched(process: "subprocess.Popen[bytes]", folder: Path) -> Iterator[tuple[float, _Seen]]:
    """What there is in a run's folder, and after how many seconds, while the process lives."""
    began = time.monotonic()
    while process.poll() is None:
        yield time.monotonic() - began, _look(folder)
        time.sleep(POLL)


def _look(folder: Path) -> _Seen:
    names: list[str] = []
    log = (0, 0)
    with suppress(FileNotFoundError):
        names = os.listdir(folder / series.FOLDER)
    with suppress(FileNotFoundError):
        found = (folder / METRICS).stat()
        log = (found.st_size, found.st_mtime_ns)
    complete = [series.order(Path(name)) for name in names if series.NAME.fullmatch(name)]
    newest = max(complete, default=None)
    temporary = {match[0]: match[1] for match in map(TEMPORARY.fullmatch, names) if match}
    saves = frozenset(
        name
        for name, final in temporary.items()
        if newest is None or series.order(Path(final)) > newest
    )
    return _Seen(newest, saves, frozenset(temporary) - saves, log)


def _outcome(folder: Path) -> tuple[Path, _Outcome]:
    """The newest checkpoint, and what the run has left."""
    path, state = locate_and_load(folder)
    return path, _Outcome(state, _lines(folder / METRICS))


def _lines(log: Path) -> list[dict[str, Any]]:
    """The lines of a log, but a last one that is cut short."""
    lines: list[dict[str, Any]] = []
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        lines.append(found if isinstance(found, dict) else {"": line})  # not the run's: as it is
    return lines


def _without_keys(keys: Collection[str]) -> _LeftOut:
    """Leave out keys of the log, and what a run's own state holds of them."""
    metrics = {(OWN, "metrics", key) for key in keys}
    return _LeftOut(frozenset(keys), frozenset({(OWN, "log"), *metrics} if keys else ()))


def _varying(a: _Outcome, b: _Outcome, ignore: Collection[str]) -> _LeftOut:
    """What differs between two whole runs and is none of the training's: times, above all.

    That is a key of the log, and a value in an object that holds no tensors. Where anything else
    differs too, `_compare` says so.
    """
    keys = set(ignore)
    for one, other in zip(a.lines, b.lines, strict=False):
        keys |= {key for key in one if _text(one[key]) != _text(other.get(key))}
    left_out = _without_keys(keys - {"step", "epoch"})
    places = set(left_out.places)
    for name in a.state.keys() & b.state.keys() - {OWN}:
        if not flatten({name: a.state[name]})[1]:
            here, there = dict(_leaves(a.state[name])), dict(_leaves(b.state[name]))
            places |= {
                (name, *("*" if isinstance(key, int) else key for key in place))
                for place in here.keys() & there.keys()
                if repr(here[place]) != repr(there[place])
            }
    return replace(left_out, places=frozenset(places))


def _compare(a: _Outcome, b: _Outcome, left_out: _LeftOut) -> Comparison:
    """Every bit of two runs, but what is left out."""
    first, second = (_without(outcome.state, left_out.places) for outcome in (a, b))
    tensors = len(flatten(first)[1])
    keys = {key: None for line in a.lines for key in line if key not in left_out.keys}
    return Comparison(
        tuple(a.state),
        tensors,
        sum(1 for _ in _leaves(first)) - tensors,
        len(a.lines),
        tuple(keys),
        tuple(diff(first, second)),
        _log_difference(a.lines, b.lines, left_out.keys),
    )


def _log_difference(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], left_out: frozenset[str]
) -> LogDifference | None:
    for number, (one, other) in enumerate(zip_longest(a, b), start=1):
        both = {**(one or {}), **(other or {})}
        keys = tuple(
            key
            for key in both
            if key not in left_out
            and (one is None or other is None or _value(one, key) != _value(other, key))
        )
        if keys or one is None or other is None:
            step = both.get("step")
            return LogDifference(number, step if isinstance(step, int) else None, keys, one, other)
    return None


def _value(line: Mapping[str, Any], key: str) -> str | None:
    return _text(line[key]) if key in line else None


def _text(value: object) -> str:
    """A value of JSON, so that 1 and 1.0 and true differ."""
    return json.dumps(value, sort_keys=True)


def _leaves(value: object, place: Place = ()) -> Iterator[tuple[Place, object]]:
    """Everything in a state that holds nothing itself."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, (*place, index))
    else:
        yield place, value


def _without(value: Any, places: Collection[Place]) -> Any:
    """A state without what is at some places."""
    if not places:
        return value
    if () in places:
        return None
    if isinstance(value, Mapping):
        return {key: _without(item, _below(places, str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without(item, _below(places, "*")) for item in value)
    return value


def _below(places: Collection[Place], key: str) -> set[Place]:
    return {place[1:] for place in places if place and place[0] == key}


def _output(folder: Path) -> Path:
    """Where what a run prints goes."""
    return folder.with_name(f"{folder.name}.txt")


def _tail(folder: Path) -> str:
    lines = _output(folder).read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-TAIL:])


def _warnings(folder: Path) -> list[str]:
    """What descend warned of."""
    text = _output(folder).read_text(encoding="utf-8", errors="replace")
    return list(dict.fromkeys(WARNING.findall(text)))


def _failed(script: Script, folder: Path, status: int) -> ScriptError:
    output = _tail(folder)
    how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
    last = output.strip().rpartition("\n")[2]
    hint = ""
    # In a new folder, no run is there before its own
    if any(text in last for text in (FOLDER_VARIABLE, "holds a run of", " cannot go on: ")):
        hint = (
            "; several runs cannot share the one folder that they have here: give the script an "
            "argument that makes it train one of them, and check one at a time"
        )
    return ScriptError(
        f"{script.path} fails by itself, without any kill ({how}): {last or 'it wrote nothing'}"
        f"{hint}",
        output,
        status,
    )


def _without_checkpoint(script: Script, folder: Path) -> ScriptError:
    what = (
        "makes a descend.Run, but iterates over none of its batches"
        if folder.exists()
        else "makes no descend.Run, so there is nothing that could resume"
    )
    return ScriptError(
        f"{script.path} {what}; its loop should be: run = descend.Run(FOLDER, loader=loader, "
        f"model=model, optimizer=optimizer), then for batch in run: ...",
        _tail(folder),
    )


def _refuse_unusable(script: Script) -> None:
    if not hasattr(os, "killpg"):
        raise ScriptError("scripts can be checked on Linux and macOS only: it takes SIGKILL")
    if not script.path.is_file():
        what = "is a folder" if script.path.is_dir() else "does not exist"
        raise ScriptError(f"{script.path} {what}; give a Python file that uses descend.Run")


@contextmanager
def _scratch(keep: Path | None) -> Iterator[Path]:
    """A folder for the runs, which is removed unless it is one to keep."""
    if keep is None:
        # ignored: what a killed process's last child still writes, after its group was killed
        with tempfile.TemporaryDirectory(
            prefix="descend-resume-", ignore_cleanup_errors=True
        ) as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        taken = any(keep.iterdir())
    except OSError as error:
        raise OutputError(
            f"the folder {keep} cannot be made: {error.strerror or error}; give another"
        ) from error
    if taken:
        raise OutputError(f"the folder {keep} is not empty; give one that is, or a new one")
    yield keep.resolve()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and a terminal that is closed end us as an exception, which kills the script."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = {kind: signal.signal(kind, stop) for kind in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
