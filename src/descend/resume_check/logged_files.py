"""The logs of loggers, beside a run's own: rows of metrics.csv, values in event files."""

import csv
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from descend.files import opened

CSV = "metrics.csv"
EVENTS = "tensorboard"
HEAD, FOOT = 12, 4  # bytes around a record of an event file: its length and checksums

Lines = list[dict[str, Any]]


def logged_files(folder: Path) -> dict[str, Lines]:
    """The lines of each log in a run's folder that is not the run's own.

    Args:
        folder: of the run.

    Returns:
        By file or folder, its rows; of event files, a line for each value, without the time.
    """
    found: dict[str, Lines] = {}
    for path in sorted(folder.rglob(CSV)):
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            found[str(path.relative_to(folder))] = [dict(row) for row in csv.DictReader(file)]
    for path in sorted(folder.rglob("events.out.tfevents.*"), key=_in_time):
        place = str(path.parent.relative_to(folder))
        found.setdefault(place, []).extend(_values(path))
    return found


def _in_time(path: Path) -> list[str | int]:
    """The name of an event file for a sort: the time in it, and a number within a process."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _values(path: Path) -> Iterator[dict[str, Any]]:
    """The values in an event file, in its order."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    except ImportError:  # the script's Python wrote it without
        return
    for record in _records(path):
        event = Event.FromString(record)
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":  # maps in no order
                data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                shown: Any = data.SerializeToString(deterministic=True).hex()
            elif value.WhichOneof("value") == "simple_value":
                shown = value.simple_value
            else:  # a histogram, a text, a picture
                shown = value.SerializeToString(deterministic=True).hex()
            yield {"step": event.step, "tag": value.tag, value.tag: shown}


def _records(path: Path) -> Iterator[bytes]:
    with opened(path) as file:
        while len(head := file.read(HEAD)) == HEAD:
            (length,) = struct.unpack("<Q", head[:8])
            record = file.read(length)
            if len(record) < length or len(file.read(FOOT)) < FOOT:
                return
            yield record
