"""Kills of comparisons and searches at random: `python benchmarks/kill_search.py`.

`descend compare` and `descend tune` are each run whole, and again with kills: SIGKILL at random
instants, by turns to the whole group of processes and to the one above alone, and then the same
command again, until it is through; with one process at work and with two. In the end `results.json`
must be the same, byte for byte, and no trial may be trained twice: the task notes each time that it
is built, and that may be no more often than what was under way at the kills.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START = 4.0  # seconds, about, until a process trains
TASK = """
import os
import torch, descend

generator = torch.Generator().manual_seed(0)
x = torch.randn(300, 4, generator=generator)
y = x.sum(1, keepdim=True) + 0.3 * torch.randn(300, 1, generator=generator)

def task(width: int = 8) -> descend.Task:
    with open("built.txt", "a") as file:
        file.write(f"{os.getpid()}\\n")
    return descend.Task(
        model=torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Dropout(0.1),
            torch.nn.Linear(width, 1),
        ),
        train=(x[:200], y[:200]),
        validation=(x[200:], y[200:]),
        loss=torch.nn.functional.mse_loss,
        batch_size=10,
        epochs=5,
    )
"""
COMMANDS = {
    "compare": ["task.py", "lion", "--budget", "2000steps"],
    "tune": ["task.py", "--space", "lr=log(1e-4,1e-1)", "width=int(2,32)", "--trials", "24"],
}
TIMED = 60  # builds for the clock, where a kill comes while it runs


def words(command: str, jobs: int) -> list[str]:
    """The command, in a folder of its own."""
    options = [*COMMANDS[command], "--jobs", str(jobs), "--out", "out"]
    return [sys.executable, "-m", "descend", command, *options]


def started(command: str, jobs: int, folder: Path) -> "subprocess.Popen[str]":
    """The command under way, in a group of processes of its own."""
    return subprocess.Popen(
        words(command, jobs), cwd=folder, start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]") -> None:
    """Wait until it is through; an error otherwise."""
    _, errors = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(f"it ended with {process.returncode}: {errors[-2000:]}")


def new_folder(name: str) -> Path:
    """A folder with the task in it."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    (folder / "task.py").write_text(TASK)
    return folder


def builds(folder: Path) -> int:
    """How often the task was built."""
    return len((folder / "built.txt").read_text().splitlines())


def killed(command: str, jobs: int, kills: int, whole: Path, seconds: float) -> str:
    """Run a command with kills and compare with a whole run; the line to print.

    Raises:
        RuntimeError: anything differs.
    """
    draw = random.Random(jobs)
    folder = new_folder(command)
    done = alone = 0
    began = time.monotonic()
    while done < kills:
        process = started(command, jobs, folder)
        until = time.monotonic() + draw.uniform(0, START + 2 * seconds / kills)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is not None:
            ended(process)
            if done < kills // 2:
                raise RuntimeError(f"{command} was through after {done} kills: give fewer")
            break
        if draw.random() < 1 / 2:
            process.kill()
            alone += 1
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        done += 1
    ended(started(command, jobs, folder))
    if (folder / "out/results.json").read_bytes() != (whole / "out/results.json").read_bytes():
        raise RuntimeError(f"{command}, {jobs} jobs: results.json differs: {whole} and {folder}")
    more = builds(folder) - builds(whole)
    if more > done * (jobs + 1) + TIMED:  # a process plans, and has so many trials under way
        raise RuntimeError(f"{command}, {jobs} jobs: {more} more builds after {done} kills")
    return (
        f"{command}, --jobs {jobs}: {done} kills ({alone} of the one above alone) in "
        f"{time.monotonic() - began:.0f} s, the same results.json, {more} more builds"
    )


def main() -> None:
    """Kill and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="of each")
    parser.add_argument("--command", choices=[*COMMANDS], help="one of the two alone")
    given = parser.parse_args()
    for command in [given.command] if given.command else [*COMMANDS]:
        whole = new_folder(command)
        began = time.monotonic()
        ended(started(command, 1, whole))
        seconds = time.monotonic() - began
        print(f"{command}: {seconds:.0f} s without kills", flush=True)
        for jobs in (1, 2):
            print(killed(command, jobs, given.kills, whole, seconds), flush=True)


if __name__ == "__main__":
    main()
