"""The JSON files of comparisons and searches: written whole, and read with an error that helps."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from descend.errors import OutputError, SearchError
from descend.files import read_whole, replaced
from descend.format import json_text


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document, whole or not at all; its folder is made where it does not exist.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            file.write((json_text(document) + "\n").encode())
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; give another --out, or make room and "
            f"give the same command: it goes on"
        ) from error


AGAIN = "remove it, and the same command makes it again; or give --fresh"


def read_json(path: Path, needed: Collection[str], advice: str = AGAIN) -> dict[str, Any]:
    """Read a document of ours.

    Args:
        path: where it is.
        needed: its entries.
        advice: what to do where it is damaged.

    Raises:
        FileNotFoundError: there is none.
        SearchError: it is damaged.
    """
    try:
        found: Any = json.loads(read_whole(path))
        missing = [name for name in needed if name not in found]
    except (ValueError, TypeError) as error:
        raise damaged(path, "it is no JSON document of descend's", advice) from error
    if missing or not isinstance(found, dict):
        raise damaged(path, f"it has no {', '.join(missing) or 'entries'}", advice)
    return found


def damaged(path: Path, why: str, advice: str = AGAIN) -> SearchError:
    """The error of a file that cannot be used."""
    return SearchError(f"{path} is damaged: {why}; {advice}")
