"""Kills of `descend train` at random, and what comes out: `python benchmarks/kill_train.py`.

`kills.py` says what is compared. Beside that, the metrics of the test data and the digest that it
prints at its end are the same.
"""

import re
import sys
from collections.abc import Sequence

from kills import Subject
from kills import main as kill_and_tell

STEPS_PER_EPOCH = 21


def subject(epochs: int, every_steps: int) -> Subject:
    """The command, with a schedule."""
    steps = epochs * STEPS_PER_EPOCH
    warmup = min(50, steps // 4)

    def command(seed: int) -> list[str]:
        return [
            *(sys.executable, "-c", "from descend.cli import main; main()", "train"),
            *("--epochs", str(epochs), "--every-steps", str(every_steps), "--seed", str(seed)),
            *("--schedule", f"warmup({warmup}) >> cosine({steps - warmup})", "--out", "run"),
        ]

    return Subject(command, STEPS_PER_EPOCH, resumed, ("test ", "state: "))


def resumed(printed: str, step: int | None) -> int | None:
    """The step that a process says it goes on from."""
    if match := re.search(r"goes on after (\d+) epochs?(?: and (\d+) of)?", printed):
        return int(match[1]) * STEPS_PER_EPOCH + int(match[2] or 0)
    return step if "is complete" in printed else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, compare and print; the status is 1 where anything differs."""
    return kill_and_tell(__doc__, subject, arguments, kills=200, epochs=30)


if __name__ == "__main__":
    sys.exit(main())
