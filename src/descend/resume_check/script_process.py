"""A script of the user's as a process: its run in a folder of ours, its output in a file beside."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from descend.errors import RunError
from descend.files import open_own, opened
from descend.run.run_folder import FOLDER_VARIABLE, STEPS_VARIABLE

TAIL, WIDEST = 20, 500  # lines of a script's output that are shown, and characters of each
TAIL_BYTES = 4 * TAIL * WIDEST  # a character has up to four
WARNING = re.compile(r"(?:CheckpointWarning|ResumeWarning): .*")


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
    """The script to check: a Python file and the arguments that it gets."""

    path: Path
    arguments: tuple[str, ...] = ()


def refuse_unusable(script: Script) -> None:
    """Refuse what is no file, and systems where nothing can be killed for certain.

    Raises:
        ScriptError: saying which.
    """
    if not hasattr(os, "killpg"):
        raise ScriptError("scripts can be checked on Linux and macOS only: it takes SIGKILL")
    if not script.path.is_file():
        what = "is a folder" if script.path.is_dir() else "does not exist"
        raise ScriptError(
            f"{script.path} {what}; give a Python file that uses descend.Run or descend.Trainer"
        )


@contextmanager
def started(
    script: Script, folder: Path, every_steps: int | None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the script; neither it nor its children outlive the block.

    Args:
        script: which.
        folder: where its run is to be.
        every_steps: after how many steps it is to save; None: as it says itself.
    """
    environment = {name: value for name, value in os.environ.items() if name != STEPS_VARIABLE}
    environment |= {FOLDER_VARIABLE: str(folder), "PYTHONUNBUFFERED": "1"}
    if every_steps is not None:
        environment[STEPS_VARIABLE] = str(every_steps)
    with open_own(_output(folder), append=True) as output:
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
        kill(process)


def kill(process: "subprocess.Popen[bytes]") -> bool:
    """Kill a process and its children; whether that is what ended it."""
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses where all are zombies
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def tail(folder: Path) -> str:
    """The last lines of what the run in a folder printed, as a terminal would show them."""
    with opened(_output(folder)) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = file.read().decode(errors="replace").rstrip().split("\n")
    # A progress bar writes over itself
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines[-TAIL:]]
    return "\n".join(line if len(line) <= WIDEST else f"{line[:WIDEST]}..." for line in shown)


def warnings_in(folder: Path) -> list[str]:
    """The warnings of descend in the run in a folder."""
    with _output(folder).open(encoding="utf-8", errors="replace") as file:
        return list(dict.fromkeys(found for line in file for found in WARNING.findall(line)))


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    return f"exit status {status}" if status >= 0 else f"killed by signal {-status}"


def failed(script: Script, folder: Path, status: int) -> ScriptError:
    """The error for a script that fails without any kill."""
    output = tail(folder)
    last = output.rpartition("\n")[2]
    hint = ""
    # In a new folder, no run is there before its own
    if any(text in last for text in (FOLDER_VARIABLE, "holds a run of", " cannot go on: ")):
        hint = (
            "; several runs cannot share the one folder that they have here: give the script an "
            "argument that makes it train one of them, and check one at a time"
        )
    return ScriptError(
        f"{script.path} fails by itself, without any kill ({how_it_ended(status)}): "
        f"{last or 'it wrote nothing'}{hint}",
        output,
        status,
    )


def without_checkpoint(script: Script, folder: Path) -> ScriptError:
    """The error for a script that ends well and leaves no checkpoint."""
    what = (
        "makes a descend.Run, but iterates over none of its batches"
        if folder.exists()
        else "makes no descend.Run and fits no descend.Trainer in a folder, so nothing could resume"
    )
    return ScriptError(
        f"{script.path} {what}; its loop should be: run = descend.Run(FOLDER, loader=loader, "
        f"model=model, optimizer=optimizer), then for batch in run: ...; or "
        f"descend.Trainer(folder=FOLDER).fit(module, loader)",
        tail(folder),
    )


def _output(folder: Path) -> Path:
    """Where what a run prints goes."""
    return folder.with_name(f"{folder.name}.txt")
