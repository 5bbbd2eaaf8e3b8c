"""The command that a run was started with, saved with it, so that no other goes on with it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from descend.checkpoint.hashing import hash_bytes
from descend.errors import RunError
from descend.files import read_whole
from descend.training.callbacks.callback import Callback


class Command(Callback):
    """The options of a command that decide what comes out, and the files that it runs.

    Args:
        folder: of the run.
        options: by name, as plain data.
        files: Python files, known by their names and what is in them.
        others: options that may differ, at the price of other bits.

    Attributes:
        doubts: what differs from the command that was loaded, and may.

    Example:
        >>> command = Command(Path("runs/mine"), {"--lr": 0.1}, [])
        >>> command.load_state_dict(command.state_dict())
    """

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, Any],
        files: Iterable[Path],
        others: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.options, self.others = dict(options), dict(others or {})
        self.files = {path.name: hash_bytes(read_whole(path)) for path in files}
        self.doubts: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """The options, and a hash of each file."""
        return {"options": self.options, "files": self.files, "others": self.others}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over nothing: note files that have changed.

        Raises:
            RunError: other options were given then.
        """
        others = changed(state["options"], self.options)
        if others:
            raise RunError(
                f"{self.folder} is the run of another command: {', '.join(others)}; give another "
                f"--out, or --fresh to start over"
            )
        self.doubts = [
            f"{what}: what follows can differ"
            for what in changed(state.get("others", self.others), self.others)
        ] + [
            f"{name} has changed since the run was started: what follows can differ"
            for name, content in self.files.items()
            if state["files"].get(name) != content
        ]


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Tell of each option that differs: "--lr was 0.1 and is 0.2".

    Args:
        then: options by name.
        now: the same later.

    Example:
        >>> changed({"--lr": 0.1}, {"--lr": 0.2, "--seed": None})
        ['--lr was 0.1 and is 0.2']
    """
    return [
        f"{name} was {_shown(then.get(name))} and is {_shown(value)}"
        for name, value in now.items()
        if then.get(name) != value
    ]


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}:{one}" for key, one in value.items()) or "not given"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "not given" if value is None else str(value)
