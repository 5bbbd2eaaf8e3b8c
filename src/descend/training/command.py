"""The command that a run was started with, saved with it, so that no other goes on with it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from descend.checkpoint.hashing import hash_bytes
from descend.errors import StateError


class Command:
    """The options of a command that decide what comes out, and the files that it runs.

    Args:
        options: by name, as plain data.
        files: Python files, known by their names and what is in them.

    Attributes:
        doubts: what differs from the command that was loaded, and may.

    Example:
        >>> Command({"--lr": 0.1}, []).load_state_dict(Command({"--lr": 0.1}, []).state_dict())
    """

    def __init__(self, options: Mapping[str, Any], files: Iterable[Path]) -> None:
        self.options = dict(options)
        self.files = {path.name: hash_bytes(path.read_bytes()) for path in files}
        self.doubts: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """The options, and a hash of each file."""
        return {"options": self.options, "files": self.files}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over nothing: note files that have changed.

        Raises:
            StateError: other options were given then.
        """
        changed = [
            f"{name} was {_shown(state['options'].get(name))} and is {_shown(value)}"
            for name, value in self.options.items()
            if state["options"].get(name) != value
        ]
        if changed:
            raise StateError(
                f"it was started by another command: {'; '.join(changed)}; give the same options, "
                f"or another folder with --out, or start over with --fresh"
            )
        self.doubts = [
            f"{name} has changed since the run was started: what follows can differ"
            for name, content in self.files.items()
            if state["files"].get(name) != content
        ]


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}:{one}" for key, one in value.items()) or "not given"
    return "not given" if value is None else str(value)
