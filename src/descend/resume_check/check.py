"""Whether a script's resume is bit-exact: run it whole, run it with kills, compare every bit."""

import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from descend.checkpoint import series
from descend.checkpoint.manifest import read_manifest
from descend.checkpoint.state_source import locate
from descend.errors import OutputError
from descend.format import counted, duration
from descend.resume_check.kill_instants import (
    Target,
    has_come,
    has_passed,
    kill_targets,
    often_enough,
)
from descend.resume_check.run_comparison import (
    Comparison,
    LeftOut,
    Outcome,
    compare,
    log_lines,
    outcome,
    varying,
    without_keys,
)
from descend.resume_check.run_watch import (
    CheckpointOrder,
    Course,
    FolderContents,
    look,
    starts_over,
    watched,
)
from descend.resume_check.script_process import (
    Script,
    ScriptError,
    failed,
    kill,
    refuse_unusable,
    started,
    tail,
    warnings_in,
    without_checkpoint,
)
from descend.run.stop_signals import exit_on

SLOWER, GRACE = 10, 60  # a process never ends if it takes so many whole runs, and seconds
PATIENCE = 3  # runs in a row without a kill that shows anything, then it is no use

Verdict = Literal[
    "bit-exact",
    "not bit-exact",  # what the runs with kills leave differs
    "not repeatable",  # what two runs without kills leave differs
    "changed by saving",  # a run that saves more often differs
    "fails",  # when it is started again
    "starts over",  # instead of going on
    "never ends",
]


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
class ResumeCheck:
    """The verdict of a check, and what it rests on.

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

    The script uses one `descend.Run`, itself or by a `Trainer`, whose folder is replaced. First it
    has to repeat itself without any kill. Then it is killed with SIGKILL, at random instants after
    its first checkpoint and in the middle of saves, and started again each time, until it ends by
    itself. A run that ends before it could be killed often enough is followed by another.

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
        ScriptError: if the script fails by itself, makes no Run in a folder, or is too short to be
            killed.
        OutputError: if `keep` cannot be used.

    Example:
        >>> check_resume(Script(Path("my_script.py"))).verdict
        'bit-exact'

    Source: T. Pillai et al., All File Systems Are Not Created Equal: On the Complexity of Crafting
    Crash-Consistent Applications, OSDI 2014, for crashes at instants that tests do not choose.
    """
    refuse_unusable(script)
    with _scratch(keep) as scratch, exit_on(signal.SIGTERM, signal.SIGHUP):
        check = _Check(script, scratch, kills, ignore, tell, keep_runs=keep is not None)
        return check.run_whole(every_steps) or check.run_killed(seed)


@dataclass
class _Check:
    """A check under way: its arguments are those of `check_resume`; `run_whole` sets the others."""

    script: Script
    scratch: Path
    kills: int
    ignore: Collection[str]
    tell: Callable[[str], None]
    keep_runs: bool
    whole: Outcome = field(init=False)
    course: Course = field(init=False)
    left_out: LeftOut = field(init=False)
    result: ResumeCheck = field(init=False)

    def run_whole(self, every_steps: int | None) -> ResumeCheck | None:
        """Run the script twice without kills; the end of the check, where that shows something."""
        self.tell("running the script whole")
        course, self.whole = _run_whole(self.script, self.scratch / "whole-1", None)
        every = every_steps or often_enough(course, self.kills)
        result = ResumeCheck("bit-exact", course.steps, course.seconds, every, self.kills)
        rest = 2 * course.seconds + self.kills * course.times[0]
        self.tell(
            f"it took {counted(course.steps, 'step')} and {duration(course.seconds)}, the rest "
            f"takes about {duration(rest)}; running it whole again"
        )
        try:
            # Its course is the one to plan kills by: it saves as the runs with kills do
            self.course, again = _run_whole(self.script, self.scratch / "whole-2", every)
        except ScriptError as error:
            return replace(result, verdict="fails", output=error.output, status=error.status)
        self.left_out = varying(self.whole, again, self.ignore)
        compared = compare(self.whole, again, self.left_out)
        if not compared.equal:
            third = None
            if every is not None:
                self.tell("they differ; running it whole once more, saving as it says itself")
                third = _run_whole(self.script, self.scratch / "whole-3", None)[1]
            return _unequal(result, self.whole, again, third, self.ignore)
        self.result = replace(result, left_out=self.left_out.names(), comparison=compared)
        self._remove("whole-1", "whole-2")
        return None

    def run_killed(self, seed: int) -> ResumeCheck:
        """Run the script with kills, until there were enough of them, or one shows something."""
        self.tell(f"both are equal; now with {counted(self.kills, 'kill')}")
        rng, missed = random.Random(seed), 0  # noqa: S311 - instants, no secrets
        while missed < PATIENCE:
            wanted, shown = self.kills - len(self.result.kills), _in_the_middle(self.result)
            if wanted <= 0 and shown:
                break
            folder = self.scratch / f"killed-{self.result.runs + 1}"
            self._run_killed(folder, kill_targets(rng, self.course, max(wanted, 1)))
            if self.result.verdict != "bit-exact":
                return self.result
            compared = compare(self.whole, outcome(folder), self.left_out)
            self.result = replace(self.result, comparison=compared)
            if not compared.equal:
                return replace(self.result, verdict="not bit-exact")
            missed = missed + 1 if _in_the_middle(self.result) == shown else 0
            self._remove(folder.name)
        if not _in_the_middle(self.result):
            times = self.course.times
            raise ScriptError(
                f"{self.script.path} went on {counted(len(self.result.kills), 'time')} after a "
                f"kill, but never from between its first checkpoint and its last, which are "
                f"{times[-1] - times[0]:.2g} s apart, so nothing is shown; let it train longer: "
                f"more epochs or samples"
            )
        return self.result

    def _run_killed(self, folder: Path, targets: Sequence[Target]) -> None:
        """Run the script with kills, to its end; the verdict is of how it ended."""
        self.result = result = replace(self.result, runs=self.result.runs + 1)
        limit = GRACE + SLOWER * result.seconds
        for target in (*targets, None):
            start = look(folder)
            with started(self.script, folder, result.every_steps) as process:
                ended = _await(process, folder, target, start, limit)
                hit = ended == "at the instant" and kill(process)
            if ended == "starts over" or ended == "never ends":  # noqa: PLR1714 - for mypy
                self.result = replace(self.result, verdict=ended, output=tail(folder))
                return
            if not hit:
                break
            done = _kill_record(result.runs, folder, start)
            self.result = replace(self.result, kills=(*self.result.kills, done))
            self.tell(_as_line(done, len(self.result.kills), self.kills))
        warnings = (*self.result.warnings, *warnings_in(folder))
        self.result = replace(self.result, warnings=warnings)
        if process.returncode or look(folder).newest is None:
            status = process.returncode
            self.result = replace(self.result, verdict="fails", output=tail(folder), status=status)

    def _remove(self, *names: str) -> None:
        """Remove runs, so that not all of them are on the disk at once."""
        for name in () if self.keep_runs else names:
            shutil.rmtree(self.scratch / name, ignore_errors=True)


def _run_whole(script: Script, folder: Path, every_steps: int | None) -> tuple[Course, Outcome]:
    """Run the script without kills.

    Raises:
        ScriptError: if it fails, or leaves no checkpoint.
    """
    times: dict[CheckpointOrder, float] = {}
    saves: dict[str, tuple[float, float]] = {}
    now = 0.0
    with started(script, folder, every_steps) as process:
        for now, seen in watched(process, folder):
            if seen.newest is not None:
                times.setdefault(seen.newest, now)
            for name in seen.saves:
                saves[name] = (saves.get(name, (now,))[0], now)
    if process.returncode:
        raise failed(script, folder, process.returncode)
    newest = look(folder).newest
    if newest is None:
        raise without_checkpoint(script, folder)
    times.setdefault(newest, now)
    lengths = sorted(end - begin for begin, end in saves.values())
    course = Course(
        now,
        sorted(times),
        [times[order] for order in sorted(times)],
        lengths[len(lengths) // 2] if lengths else 0.0,
        int(read_manifest(locate(folder))["about"].get("batches per epoch") or 1),
    )
    return course, outcome(folder)


def _unequal(
    result: ResumeCheck,
    whole: Outcome,
    again: Outcome,
    third: Outcome | None,
    ignore: Collection[str],
) -> ResumeCheck:
    """Of two whole runs that differ: whether a third, which saves as the first does, is equal."""
    left_out = varying(whole, third, ignore) if third is not None else LeftOut()
    if third is not None and compare(whole, third, left_out).equal:
        result = replace(result, verdict="changed by saving", left_out=left_out.names())
    else:  # nothing is left out: which of it follows from which, nobody knows
        left_out = without_keys(ignore)
        result = replace(result, verdict="not repeatable")
    return replace(result, comparison=compare(whole, again, left_out))


def _await(
    process: "subprocess.Popen[bytes]",
    folder: Path,
    target: Target | None,
    start: FolderContents,
    limit: float,
) -> Literal["at the instant", "by itself", "starts over", "never ends"]:
    """Wait for the instant to kill at; how the waiting ended."""
    instant: float | None = None  # once it is known
    for now, seen in watched(process, folder):
        if now > limit:
            return "never ends"
        if starts_over(folder, start, seen):
            return "starts over"
        if target is None:
            continue
        if instant is None and has_come(target, seen, start):
            instant = now + target.delay
        if (instant is not None and now >= instant) or has_passed(target, seen, start):
            return "at the instant"
    return "by itself"


def _in_the_middle(result: ResumeCheck) -> int:
    """How many kills were followed by a resume that is more than a start or an end."""
    steps = [
        series.step_and_number(Path(kill.resumes_from))[0]
        for kill in result.kills
        if kill.resumes_from
    ]
    return sum(0 < step < result.steps for step in steps)


def _kill_record(run: int, folder: Path, start: FolderContents) -> Kill:
    """A kill, and what it interrupted, from what it left."""
    left = look(folder)
    logged = [line["step"] for line in log_lines(folder) if isinstance(line.get("step"), int)]
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
    count = f"{number} of {of}" if number <= of else f"{number} (one more)"
    return f"kill {count}: at step {kill.step}{moment.get(kill.moment, '')}; on {goes_on}"


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
