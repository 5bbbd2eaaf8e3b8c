"""Kills of a Trainer script at random, and what comes out: `python benchmarks/kill_trainer.py`.

The script is `trainer_to_kill.py`; `kills.py` says what is compared: the states of callbacks are in
the checkpoints, and of TensorBoard's event files each (step, tag, value).
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from kills import Subject
from kills import main as kill_and_tell

STEPS_PER_EPOCH = 21
SCRIPT = Path(__file__).with_name("trainer_to_kill.py")


def subject(epochs: int, every_steps: int) -> Subject:
    """The script."""

    def command(seed: int) -> list[str]:
        options = ("--epochs", epochs, "--every-steps", every_steps, "--seed", seed)
        return [sys.executable, str(SCRIPT), *map(str, options)]

    # The names of event files have the time in them
    places = (("run", "log"), ("trainer", "loggers"))
    return Subject(command, STEPS_PER_EPOCH, resumed, ("state: ",), places)


def resumed(printed: str, step: int | None) -> int | None:
    """The step that a process says it goes on from."""
    if match := re.search(r"goes on from step ([\d,]+)", printed):
        return int(match[1].replace(",", ""))
    if "is over after" in printed:
        return step
    return None if not step else -1


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, compare and print; the status is 1 where anything differs."""
    return kill_and_tell(__doc__, subject, arguments, kills=100, epochs=30)


if __name__ == "__main__":
    sys.exit(main())
