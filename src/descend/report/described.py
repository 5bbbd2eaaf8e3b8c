"""Checkpoints and torch files described by plain data, for `descend inspect`.

--json prints it, and `descend.report.checkpoints` tells it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from descend.checkpoint.contents import Content, content_of, content_of_state, entry
from descend.checkpoint.damages import is_doubtful
from descend.checkpoint.manifest import MANIFEST, damage_alone
from descend.checkpoint.series import FOLDER
from descend.checkpoint.torch_file import load_torch
from descend.checks import plain_number
from descend.errors import CheckpointError
from descend.files import opened
from descend.format import counted
from descend.report.detail import detail
from descend.report.locate import Located, disk_size, used_checkpoint
from descend.report.runs import describe_runs
from descend.report.scalars import is_value, plain_value
from descend.run.metrics_log import METRICS

NO_AIMS = ("lr", "seconds")  # what is logged beside the metrics, and is never the best

Look = Callable[[Path], list[str] | None]
"""A function from a checkpoint to its damages; to None where they cannot be known."""


def describe_one(found: Located, look: Look, listed: str | None) -> dict[str, Any]:
    """Describe a checkpoint or a torch file.

    Args:
        found: where it is.
        look: says what in it is damaged.
        listed: of which names its tensors are listed: those with this text in them, or those that
            a pattern with * or ? fits; all for an empty one, none for None.

    Returns:
        Names and plain values.

    Raises:
        CheckpointError: if it cannot be read, or if no tensor has such a name.

    Example:
        >>> describe_one(find(Path("old.pth")), damages_of, None)["values"]
        {'epoch': 3}
    """
    path = found.checkpoints[0]
    damages = look(path)
    if path.is_dir():
        content = content_of(path)
    elif damages:
        content = Content({}, {}, {})
    else:
        content = content_of_state(load_torch(path), hashed=listed is not None)
    summary = _summary(path, content, damages)
    return {"kind": found.kind, **summary, **detail(content, listed)}


def describe_several(found: Located, look: Look, listed: str | None) -> dict[str, Any]:
    """Describe a run or a folder of checkpoints: each in short, and the one that is used in detail.

    Args:
        found: where they are.
        look: as for `describe_one`; where it raises that a checkpoint cannot be read, which is no
            damage, that is its "error".
        listed: as for `describe_one`.

    Returns:
        Names and plain values.

    Raises:
        CheckpointError: if tensors shall be listed, and it is not clear whose, or none is there.

    Example:
        >>> describe_several(find(Path("runs/mine")), damages_of, None)["used"]
        'runs/mine/checkpoints/step-00000042'
    """
    if listed is not None and not (found.is_series and found.checkpoints):
        raise CheckpointError(
            f"cannot list the tensors of {found.path}, which holds "
            f"{counted(len(found.checkpoints), 'checkpoint')}; give one of them"
        )
    summaries, contents = [], {}
    for path in found.checkpoints:
        damages, error = None, None
        try:
            damages = look(path)
        except CheckpointError as unreadable:
            error = damage_alone(path, str(unreadable))
        content = content_of(path)
        if path.exists():  # a training removes old ones meanwhile
            name = {"name": found.name(path), "error": error}
            summaries.append({**name, **_summary(path, content, damages)})
            contents[str(path)] = content
    chosen = used_checkpoint(found, summaries)
    document: dict[str, Any] = {
        "kind": found.kind,
        "path": str(found.path),
        "log": _log(found.path, contents[chosen].state if chosen else {}),
        "checkpoints": summaries,
        "used": chosen,
        "runs": describe_runs(found.path, contents, summaries) if found.kind == "folder" else [],
        "best": _best([one for one in summaries if not one["damages"]]),
        "left": _left(found),
        "newest": None,
    }
    if found.is_series and summaries:
        newest = next((one for one in summaries if one["path"] == chosen), summaries[-1])
        document["newest"] = {**newest, **detail(contents[newest["path"]], listed)}
    return document


def _summary(path: Path, content: Content, damages: list[str] | None) -> dict[str, Any]:
    """The row of a checkpoint in the table of a run's."""
    about = entry(content.manifest, "about")
    plain = {
        key: plain_value(value)
        for key, value in content.state.items()
        if key in ("step", "global_step", "epoch") and is_value(value)
    }
    steps = (about.get("step"), plain.get("step"), plain.get("global_step"))
    try:
        described = path / MANIFEST if (path / MANIFEST).exists() else path
        written = datetime.fromtimestamp(described.stat().st_mtime).astimezone().isoformat()
    except (OSError, ValueError, OverflowError):
        written = None
    return {
        "path": str(path),
        "whole": None if damages is None else not damages,
        "verified": damages is not None,
        "damages": damages or [],
        "doubtful": bool(damages) and is_doubtful(path),
        "bytes": disk_size(path),
        "written": written,
        "step": next((step for step in steps if step is not None), None),
        "epoch": plain.get("epoch"),
        "epochs_done": about.get("epochs done"),
        "batches_done": about.get("batches done"),
        "batches_per_epoch": about.get("batches per epoch"),
        "metrics": dict(entry(about, "metrics")),
    }


def _log(folder: Path, state: Mapping[str, Any]) -> dict[str, Any] | None:
    """How many lines a run's log has, and how many a process that goes on would cut off."""
    own = state.get("run")
    kept = own.get("log") if isinstance(own, Mapping) else None
    lines = after = place = 0
    try:
        with opened(folder / METRICS) as file:
            for line in file:
                after += isinstance(kept, int) and place >= kept
                place += len(line)
                lines += 1
    except OSError:
        return None
    return {"path": str(folder / METRICS), "lines": lines, "bytes": place, "after": after}


def _best(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For each metric, the checkpoints where it is lowest and where it is highest."""
    values: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for one in summaries:
        for name, value in one["metrics"].items():
            if plain_number(value) is not None and name not in NO_AIMS:
                values[name].append((value, one["name"]))
    return {
        name: {
            word: dict(zip(("value", "checkpoint"), one, strict=True))
            for word, one in (
                ("lowest", min(of, key=itemgetter(0))),
                ("highest", max(of, key=itemgetter(0))),
            )
        }
        for name, of in values.items()
        if len(of) > 1
    }


def _left(found: Located) -> dict[str, list[str]]:
    """The rest in the folder of a run's checkpoints."""
    folder = found.path / FOLDER if found.kind == "run" else found.path
    try:
        names = sorted(child.name for child in folder.iterdir()) if found.is_series else []
    except OSError:
        names = []
    return {
        "set_aside": [name for name in names if name.endswith(".damaged")],
        "unfinished": [name for name in names if name.startswith(".") and name.endswith(".tmp")],
    }
