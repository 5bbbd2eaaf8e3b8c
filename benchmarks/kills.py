"""Kills of a training at random, and what comes out: the frame of `kill_train` and `kill_trainer`.

The same command is started, killed with SIGKILL, and started again until it is through, and so is
another run of it that nobody kills. Nearly half of the kills come in the middle of a save, nearly
half at any time of the training, and some while it starts. What is compared:

- after each kill: every checkpoint that is there is whole, the newest is not older than the newest
  before the kill, and it is, bit for bit, what the other run saved at that step; the next process
  goes on from it;
- at the end: every object of the last checkpoint bit for bit, all lines of the log (the learning
  rates among them), all that loggers left, and what was printed.

Durations are left out: "seconds", and the length of the log in bytes, which follows from them. A
process is killed and not the machine: what was written reaches the disk with or without a flush.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from descend.checkpoint import Difference, diff, load, verify
from descend.checkpoint.series import FOLDER, checkpoints, step_and_number
from descend.errors import CheckpointError
from descend.resume_check import run_watch
from descend.resume_check.logged_files import logged_files
from descend.resume_check.run_watch import CheckpointOrder

MOST_KILLS = 40  # of one run, about
PAUSE = 5e-4  # s, between two looks at a folder
TOO_LONG = 300  # s, for one process
IN_SAVE, AFTER_EPOCH = "in a save", "in a save after an epoch"  # where the log has a new line
ANY_TIME, START = "at any time", "at the start"
SHARES = {IN_SAVE: 0.35, AFTER_EPOCH: 0.1, ANY_TIME: 0.45, START: 0.1}
MOST_IN_VAIN = 5  # runs without a kill
STAGES = ("state.json", "tensors.safetensors", "manifest.json")  # in the order they are written
LINES = 20  # kills per line of progress


@dataclass(frozen=True)
class Plan:
    """A kill to come: of what kind, and two random numbers from 0 to 1 that say when."""

    kind: str
    when: float
    after: float


@dataclass(frozen=True)
class Kill:
    """A kill: the newest complete checkpoint when it came, and the files of a half one."""

    kind: str
    newest: CheckpointOrder | None
    half: frozenset[str] | None = None


@dataclass(frozen=True)
class Subject:
    """A training that is killed.

    Args:
        command: the words that start it for a seed, in a folder of its own, with its run in `run`.
        steps_per_epoch: how many batches an epoch has.
        resumed: the step that a process says it goes on from; None: it starts. It is given what
            that has printed, and the step of the newest checkpoint, if it is to go on.
        printed: how the lines begin that must be the same.
        places: in a state, those that hold durations and names of files, as paths.
    """

    command: Callable[[int], list[str]]
    steps_per_epoch: int
    resumed: Callable[[str, int | None], int | None]
    printed: tuple[str, ...]
    places: tuple[tuple[str, ...], ...] = (("run", "log"),)


@dataclass(frozen=True)
class Reference:
    """A run that nobody killed, how long it took in seconds, and all checkpoints that it saved."""

    subject: Subject
    folder: Path
    saved: Path
    start: float
    training: float
    save: float
    saves: int
    kills: int  # what a run like it gets, about

    @property
    def run(self) -> Path:
        """Its run folder."""
        return self.folder / "run"


@dataclass
class Life:
    """A process under way, and where its output goes."""

    process: "subprocess.Popen[bytes]"
    out: Path
    errors: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        """Whether it is over; one that hangs is killed, and an error."""
        if time.monotonic() - self.began > TOO_LONG:
            self.process.kill()
            raise TimeoutError(f"{self.out} did not end within {TOO_LONG} s")
        return self.process.poll() is not None

    @property
    def trains(self) -> bool:
        """Whether it has printed its first line, after which it trains."""
        return self.out.stat().st_size > 0


@dataclass
class Tally:
    """The state that all jobs share: the kills to come, and what has come of those before."""

    plans: list[Plan]
    total: int = 0
    kills: list[Kill] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    compared: int = 0
    runs: int = 0
    in_vain: int = 0
    lines: int = 0
    next_seed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> Plan | None:
        """The next kill; None where there are enough, or one difference is known already."""
        with self.lock:
            return None if self.problems or not self.plans else self.plans.pop()

    def give_back(self, plan: Plan) -> None:
        """Return a kill that came too late."""
        with self.lock:
            self.plans.insert(0, plan)  # not the same again at once

    def end_run(self, kills: int) -> None:
        """Count a run that is through; too many that no kill came to are a problem."""
        with self.lock:
            self.runs += 1
            self.in_vain = 0 if kills else self.in_vain + 1
            if self.in_vain == MOST_IN_VAIN:
                self.problems.append(f"{MOST_IN_VAIN} runs ended before a kill came: no kill hits")

    def new_seed(self) -> int | None:
        """The seed of the next run; None where no kill is left for it."""
        with self.lock:
            self.next_seed += 1
            return None if self.problems or not self.plans else self.next_seed - 1


def plans(count: int, seed: int) -> list[Plan]:
    """So many kills, each kind with its share, in random order."""
    draw = random.Random(seed)
    kinds = [
        kind
        for kind, share in SHARES.items()
        for _ in range(round(count * share) if kind != ANY_TIME else 0)
    ][:count]
    kinds += [ANY_TIME] * (count - len(kinds))
    draw.shuffle(kinds)
    return [Plan(kind, draw.random(), draw.random()) for kind in kinds]


def start(folder: Path, words: Sequence[str], name: str) -> Life:
    """Start the command in a folder."""
    out, errors = folder / f"{name}.out", folder / f"{name}.err"
    with out.open("wb") as stdout, errors.open("wb") as stderr:
        return Life(subprocess.Popen(words, cwd=folder, stdout=stdout, stderr=stderr), out, errors)


def look(run: Path) -> tuple[CheckpointOrder | None, dict[CheckpointOrder, Path]]:
    """The newest complete checkpoint of a run, and its half ones, by their order."""
    seen = run_watch.look(run)
    # Their names are those of the whole ones, after a dot and before another
    half = {step_and_number(Path(name.split(".")[1])): run / FOLDER / name for name in seen.saves}
    return seen.newest, half


def uninterrupted(folder: Path, subject: Subject, seed: int, kills: int) -> Reference:
    """Run the command whole, and keep every checkpoint that it saves.

    Raises:
        RuntimeError: if it fails.
    """
    saved = folder / "saved"
    saved.mkdir(parents=True)
    life = start(folder, subject.command(seed), "life")
    known: set[CheckpointOrder] = set()
    seen: dict[CheckpointOrder, list[float]] = {}
    first = 0.0
    try:
        while not life.ended:
            time.sleep(PAUSE)
            first = first or (time.monotonic() if life.trains else 0.0)
            newest, half = look(folder / "run")
            for at in half:
                seen.setdefault(at, []).append(time.monotonic())
            if newest is not None and newest not in known:
                known.add(newest)
                _link(folder / "run", saved)
    finally:
        life.process.kill()
        life.process.wait()
    ended = time.monotonic()
    if life.process.returncode:
        raise RuntimeError(f"the uninterrupted run failed: {life.errors.read_text().strip()}")
    lengths = [times[-1] - times[0] for times in seen.values()]
    if not lengths:
        raise RuntimeError(f"no save of {folder / 'run'} was seen on the way: are names others?")
    return Reference(
        subject,
        folder,
        saved,
        start=first - life.began,
        training=ended - first,
        save=statistics.median(lengths),
        saves=len(known),
        kills=kills,
    )


def _link(run: Path, saved: Path) -> None:
    """Keep the files of all complete checkpoints: removing the others' names leaves them."""
    for path in checkpoints(run / FOLDER):
        target = saved / path.name
        if not target.exists():
            target.mkdir()
            for name in STAGES:
                try:
                    os.link(path / name, target / name)
                except FileNotFoundError:  # it is being removed
                    shutil.rmtree(target)
                    break


def kill(life: Life, plan: Plan, run: Path, reference: Reference) -> Kill | None:
    """Kill a process as planned; None where it ended before."""
    if plan.kind == START:
        _sleep(life, plan.when * reference.start)
    else:
        while not life.trains and not life.ended:
            time.sleep(PAUSE)
    if plan.kind == ANY_TIME:
        _sleep(life, plan.when * 2 * reference.training / reference.kills)
    aimed = plan.kind in (IN_SAVE, AFTER_EPOCH)
    half = _stop_in_save(life, plan, run, reference) if aimed else None
    if life.ended:
        return None
    newest, _ = look(run)
    life.process.send_signal(signal.SIGKILL)
    if life.process.wait() != -signal.SIGKILL:
        return None  # it ended just before
    if half is None and (left := look(run)[1]):  # by chance
        (half,) = left.values()
    files = None if half is None else frozenset(os.listdir(half))
    return Kill(plan.kind, newest, files)


def _sleep(life: Life, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not life.ended:
        time.sleep(min(0.005, max(0.0, until - time.monotonic())))


def _stop_in_save(life: Life, plan: Plan, run: Path, reference: Reference) -> Path | None:
    """Wait for a save, and stop the process in the middle of it; what is there of it."""
    wanted = 1 + int(plan.when * 2 * reference.saves / reference.kills)
    delay = plan.after * reference.save
    seen: set[CheckpointOrder] = set()
    epoch = reference.subject.steps_per_epoch
    while not life.ended:
        _, half = look(run)
        seen |= half.keys()
        ends_epoch = any(at[0] and at[0] % epoch == 0 for at in half)
        if ends_epoch if plan.kind == AFTER_EPOCH else half and len(seen) >= wanted:
            time.sleep(delay)
            life.process.send_signal(signal.SIGSTOP)
            # The process stays unreaped: Popen would not find its status
            os.waitid(os.P_PID, life.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            for at, path in look(run)[1].items():
                if plan.kind == IN_SAVE or at[0] % epoch == 0:
                    return path
            life.process.send_signal(signal.SIGCONT)
            delay /= 2  # the save was over before: try the next one, sooner
        time.sleep(PAUSE)
    return None


def went_on(life: Life, step: int | None, subject: Subject) -> list[str]:
    """Problems with where a process went on: it should be at the newest checkpoint."""
    printed = life.out.read_text()
    if not printed:  # it did not come so far
        return []
    from_step = subject.resumed(printed, step)
    return [] if from_step == step else [f"{life.out} went on from {from_step}, not from {step}"]


def after_kill(run: Path, killed: Kill, reference: Reference) -> tuple[list[str], int]:
    """Problems after a kill, and how many checkpoints were compared: 0 or 1."""
    paths = checkpoints(run / FOLDER)
    try:
        problems = [damage for path in paths for damage in verify(path)]
    except CheckpointError as error:
        return [str(error)], 0
    if not paths:
        return problems if killed.newest is None else [f"{run} has lost every checkpoint"], 0
    newest = paths[-1]
    if killed.newest is not None and step_and_number(newest) < killed.newest:
        problems.append(f"{run}: step {killed.newest[0]} was complete, and {newest.name} is left")
    if problems:
        return problems, 0
    state = load(newest)
    logged = (run / "metrics.jsonl").read_bytes() if (run / "metrics.jsonl").exists() else b""
    length = state["run"]["log"]
    lines, others = _lines(logged[:length].decode()), _lines(_text(reference.run))
    if len(logged) < length or lines != others[: len(lines)]:
        problems.append(f"{run}: the log up to {newest.name} differs")
    if not (reference.saved / newest.name).is_dir():
        return problems, 0
    found = difference(load(reference.saved / newest.name), state, reference.subject)
    return problems + [f"{newest}: {one.name}: {one.what}" for one in found], 1


def at_end(life: Life, run: Path, reference: Reference) -> list[str]:
    """Problems of a run that is through."""
    if life.process.returncode:
        return [f"{life.out} ended with {life.process.returncode}: {life.errors.read_text()}"]
    problems = []
    found = difference(load(reference.run), load(run), reference.subject)
    problems += [f"{run}, at the end: {one.name}: {one.what}" for one in found]
    ours, others = _lines(_text(run)), _lines(_text(reference.run))
    if ours != others:
        problems.append(f"{run}: metrics.jsonl differs")
        for number in range(max(len(ours), len(others))):
            mine, other = ours[number : number + 1], others[number : number + 1]
            if mine != other:
                problems.append(f"  line {number + 1}: {mine or 'nothing'}, not {other}")
                break
    files, theirs = logged_files(run), logged_files(reference.run)
    problems += [
        f"{run}: {name} differs: {len(files.get(name, ()))} lines, not {len(theirs.get(name, ()))}"
        for name in sorted({*files, *theirs})
        if files.get(name) != theirs.get(name)
    ]
    outputs = life.out, reference.folder / "life.out"
    printed = [_printed(out, reference.subject.printed) for out in outputs]
    if printed[0] != printed[1]:
        problems.append(f"{life.out}: printed was {printed[0]}, not {printed[1]}")
    left = [path.name for path in (run / FOLDER).glob(".*")]
    if left:
        problems.append(f"{run}: left behind were {', '.join(left)}")
    return problems


def difference(a: Mapping[str, Any], b: Mapping[str, Any], subject: Subject) -> list[Difference]:
    """Every difference of two checkpoints of one step but that of durations."""
    return diff(*(_without(subject.places, state) for state in (a, b)))


def _without(places: Iterable[tuple[str, ...]], state: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = _dropped(state)
    for *above, last in places:
        part = kept
        for name in above:
            part = part.get(name, {})
        part.pop(last, None)
    return kept


def _dropped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _dropped(item) for key, item in value.items() if key != "seconds"}
    return [_dropped(item) for item in value] if isinstance(value, list) else value


def _text(run: Path) -> str:
    return (run / "metrics.jsonl").read_text()


def _lines(text: str) -> list[dict[str, Any]]:
    """The log's lines without durations."""
    kept: list[dict[str, Any]] = _dropped([json.loads(line) for line in text.splitlines()])
    return kept


def _printed(out: Path, beginnings: tuple[str, ...]) -> list[str]:
    """The last lines: the test data's, and the digest of the model and the optimizer."""
    return [line for line in out.read_text().splitlines() if line.startswith(beginnings)]


def one_run(folder: Path, subject: Subject, seed: int, tally: Tally, kills: int) -> None:
    """Run a command whole, and again with kills until it is through."""
    reference = uninterrupted(folder / "whole", subject, seed, kills)
    words = subject.command(seed)
    killed_in = folder / "killed"
    killed_in.mkdir(parents=True)
    run, number, known = killed_in / "run", 0, _said(reference.folder / "life.err")
    while True:
        number += 1
        newest = max((step_and_number(path)[0] for path in checkpoints(run / FOLDER)), default=None)
        plan = tally.take()
        life = start(killed_in, words, f"life-{number:03}")
        try:
            death = None if plan is None else kill(life, plan, run, reference)
            if plan is None:
                while not life.ended:
                    time.sleep(0.01)
        finally:
            life.process.kill()
            life.process.wait()
        problems, compared = (
            (at_end(life, run, reference), 0)
            if death is None
            else after_kill(run, death, reference)
        )
        problems += went_on(life, newest, subject)
        problems += [f"{life.errors}: {line}" for line in sorted(_said(life.errors) - known)]
        with tally.lock:
            tally.problems += problems
            tally.compared += compared
            if death is not None:
                tally.kills.append(death)
        if death is None:
            if plan is not None:
                tally.give_back(plan)
            tally.end_run(number - 1)
            return
        if problems:
            return
        _tell(tally)


def _said(errors: Path) -> set[str]:
    """The errors and warnings of a process."""
    return {*errors.read_text().splitlines()}


def _tell(tally: Tally) -> None:
    with tally.lock:
        done = len(tally.kills)
        if done // LINES > tally.lines:
            tally.lines = done // LINES
            saves = sum(one.half is not None for one in tally.kills)
            print(f"{done:4} of {tally.total} kills, {saves} in a save", flush=True)


def kill_and_compare(count: int, folder: Path, subject: Subject, *, seed: int, jobs: int) -> Tally:
    """Kill as often as asked, in as many runs as that takes."""
    tally = Tally(plans(count, seed), count, next_seed=seed)
    kills = min(MOST_KILLS, 1 + 3 * count // (2 * jobs))

    def job() -> None:
        while (number := tally.new_seed()) is not None:
            place = folder / f"seed-{number}"
            try:
                one_run(place, subject, number, tally, kills)
            except Exception as error:
                with tally.lock:  # which ends the other jobs
                    tally.problems.append(f"{place}: {type(error).__name__}: {error}")

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(job) for _ in range(jobs)]
        try:
            for one in waiting:
                one.result()
        except KeyboardInterrupt:
            with tally.lock:
                tally.problems.append("stopped by Ctrl-C")
    return tally


def table(tally: Tally, seconds: float) -> str:
    """The results, in lines."""
    kinds = Counter(one.kind for one in tally.kills)
    stages = Counter(_stage(one.half) for one in tally.kills if one.half is not None)
    names = ("nothing yet", *(f"up to {name}" for name in STAGES))
    rows = [
        ("kills", len(tally.kills)),
        *((f"  aimed: {kind}", kinds[kind]) for kind in SHARES),
        ("kills that left half a checkpoint", sum(stages.values())),
        *((f"  {name}", stages[count]) for count, name in enumerate(names)),
        ("runs to their end, each beside an uninterrupted one", tally.runs),
        ("checkpoints after kills, bit for bit the other run's", tally.compared),
        ("differences, losses and damages", len(tally.problems)),
        ("seconds", round(seconds)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value:6}" for name, value in rows)


def _stage(half: Collection[str]) -> int:
    """How many files of a half checkpoint are there; the tensors are written to another first."""
    writing = any(name.startswith(".") for name in half)
    return sum(name in half for name in STAGES) - writing


def main(
    text: str | None,
    subject: Callable[[int, int], Subject],
    arguments: Sequence[str] | None,
    *,
    kills: int,
    epochs: int,
) -> int:
    """Kill, compare and print; the status is 1 where anything differs.

    Args:
        text: the documentation of the script.
        subject: of a number of epochs, and of steps after each of which it saves.
        arguments: of the command line.
        kills: how many, by default.
        epochs: how many, by default.
    """
    parser = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    number = {"type": int, "metavar": "N"}
    parser.add_argument("--kills", default=kills, **number)
    parser.add_argument("--seed", default=0, help="of the kills and of the first run", **number)
    parser.add_argument("--jobs", default=2, help="how many runs at a time", **number)
    parser.add_argument("--epochs", default=epochs, help="of each run", **number)
    parser.add_argument("--every-steps", default=3, help="how often a run saves", **number)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep all runs in this folder")
    given = parser.parse_args(arguments)
    if min(given.kills, given.jobs, given.epochs, given.every_steps) < 1 or given.seed < 0:
        parser.error("every N must be at least 1, and the seed at least 0")
    if given.keep is not None and given.keep.exists() and any(given.keep.iterdir()):
        parser.error(f"--keep {given.keep}: it is not empty; give a new folder")
    folder: Path = (given.keep or Path(tempfile.mkdtemp(prefix="kills-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    whole = False
    try:
        killed = subject(given.epochs, given.every_steps)
        tally = kill_and_compare(given.kills, folder, killed, seed=given.seed, jobs=given.jobs)
        whole = not tally.problems
    finally:
        if whole and given.keep is None:
            shutil.rmtree(folder)
    print(table(tally, time.monotonic() - began))
    for problem in tally.problems:
        print(problem)
    print("all as if it had never been killed" if whole else f"NOT THE SAME: see {folder}")
    return int(not whole)
