"""Checkpoints in text, for a terminal or a log: words, tables, and what was found in them."""

import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

STYLES = {"good": "32", "bad": "31;1", "head": "2", "name": "1"}  # of ANSI
NARROWEST = 40
MOST_TOLD = 20  # groups, damages, values of one checkpoint; --json has all
MOST_METRICS = 4  # columns
LONGEST = 60  # characters of a value
NO_AIMS = ("lr", "seconds")  # what is logged beside the metrics, and is never the best

Cell = str | tuple[str, str]
"""A text, or a text and the name of its style."""


@dataclass(frozen=True)
class Screen:
    """What the output can show.

    Args:
        colour: whether it shows colours.
        width: its columns; None where lines may be of any length, as in a file.
        encoding: the one of its characters.

    Example:
        >>> Screen(colour=False, width=None, encoding="utf-8").width is None
        True
    """

    colour: bool
    width: int | None
    encoding: str


def screen() -> Screen:
    """What standard output can show."""
    terminal = sys.stdout.isatty()
    return Screen(
        terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        max(NARROWEST, shutil.get_terminal_size().columns) if terminal else None,
        getattr(sys.stdout, "encoding", None) or "ascii",
    )


def styled(cell: Cell, on: Screen) -> str:
    """A text as it is written; the characters that the output lacks are spelt out.

    Example:
        >>> styled(("whole", "good"), Screen(colour=False, width=None, encoding="ascii"))
        'whole'
    """
    text, style = (cell, "") if isinstance(cell, str) else cell
    text = text.encode(on.encoding, "backslashreplace").decode(on.encoding)
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and on.colour else text


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    on: Screen,
    *,
    left: Sequence[int] = (0,),
    indent: int = 0,
) -> list[str]:
    r"""Rows below a header, in columns.

    Args:
        header: a name for each column.
        rows: the cells.
        on: where it is shown.
        left: the numbers of the columns that begin at the left; numbers end at the right.
        indent: how many spaces each line begins with.

    Returns:
        The lines; none where there are no rows. A column without any text is left out.

    Example:
        >>> plain = Screen(colour=False, width=None, encoding="utf-8")
        >>> print("\n".join(table(["name", "size"], [["weight", "4 B"], ["b", "12 B"]], plain)))
        name    size
        weight   4 B
        b       12 B
    """
    filled = [list(row) for row in rows]
    if not filled:
        return []
    kept = [i for i in range(len(header)) if any(_text(row[i]) for row in filled)]
    widths = {
        i: max(_columns(cell, on) for cell in (header[i], *(r[i] for r in filled))) for i in kept
    }
    lines = []
    names: list[Cell] = [(name, "head") for name in header]
    for cells in (names, *filled):
        line, spaces = "", indent
        for i in kept:
            missing = widths[i] - _columns(cells[i], on)
            before, after = (0, missing) if i in left else (missing, 0)
            line += " " * (spaces + before) + styled(cells[i], on)
            spaces = after + 2
        lines.append(line.rstrip())
    return lines


def facts(pairs: Iterable[tuple[str, Cell]], on: Screen, *, indent: int = 0) -> list[str]:
    """Names and what there is to say to each, below each other; long texts are folded.

    Example:
        >>> facts([("step", "42"), ("lr", "0.1")], Screen(False, None, "utf-8"))
        ['step  42', 'lr    0.1']
    """
    listed = list(pairs)
    margin = indent + max((_columns(name, on) for name, _ in listed), default=0) + 2
    lines = []
    for name, cell in listed:
        begin = " " * indent + styled((name, "head"), on)
        begin += " " * (margin - indent - _columns(name, on))
        text = _text(cell)
        room = None if on.width is None else max(NARROWEST // 2, on.width - margin)
        folded = [text] if room is None else textwrap.wrap(text, room) or [""]
        style = "" if isinstance(cell, str) else cell[1]
        lines += [
            (" " * margin if number else begin) + styled((part, style), on)
            for number, part in enumerate(folded)
        ]
    return lines


def visible(text: str) -> str:
    r"""A name with every character that does not print spelt out: it could be anything.

    Example:
        >>> visible("a\x1b[31m")
        'a\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def size(count: float) -> str:
    """A number of bytes in words.

    Example:
        >>> size(999), size(1_234_567), size(999_999)
        ('999 B', '1.23 MB', '1.00 MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":  # noqa: PLR2004 - what is shown as 1000 is of the next
            break
        count /= 1000
    if unit == "B":
        return f"{count:.0f} B"
    return f"{count:.{max(0, 2 - math.floor(math.log10(max(count, 1))))}f} {unit}"


def counted(number: int, one: str, several: str = "") -> str:
    """A number and what it is of.

    Example:
        >>> counted(1, "tensor"), counted(1200, "tensor")
        ('1 tensor', '1,200 tensors')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def taken(seconds: float) -> str:
    """A time in words.

    Example:
        >>> taken(0.012), taken(3.21), taken(75)
        ('12 ms', '3.2 s', '1 min 15 s')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def ago(then: datetime, now: datetime) -> str:
    """How long ago something was, roughly; empty for what is yet to come.

    Example:
        >>> ago(datetime(2026, 1, 1), datetime(2026, 1, 3))
        '2 days ago'
    """
    seconds = (now - then).total_seconds()
    if seconds < 0:
        return ""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return f"{counted(int(seconds // length), unit)} ago"
    return "just now"


def finite(value: Any) -> Any:
    """Plain values as JSON can hold them: null for a NaN or an infinity.

    Example:
        >>> finite({"loss": float("nan"), "lr": [0.1]})
        {'loss': None, 'lr': [0.1]}
    """
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def _columns(cell: Cell, on: Screen) -> int:
    """How many columns a text takes: some characters take two, some none."""
    text = styled(_text(cell), on)
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def one_lines(document: Mapping[str, Any], on: Screen) -> list[str]:
    """What `descend inspect` found of one checkpoint, in text."""
    kind = "a file of torch's" if document["kind"] == "torch file" else "a checkpoint"
    path = styled((visible(document["path"]), "name"), on)
    return [f"{path}: {kind}, {_verdict(document, on)}", *_detail_lines(document, on)]


def several_lines(document: Mapping[str, Any], on: Screen) -> list[str]:
    """What it found of a run or a folder of checkpoints, in text."""
    summaries, used = document["checkpoints"], document["used"]
    path = styled((visible(document["path"]), "name"), on)
    lines = [f"{path}: {_kind_words(document)}"]
    if summaries:
        metrics = list(dict.fromkeys(name for one in summaries for name in one["metrics"]))
        metrics.sort(key=lambda name: name in NO_AIMS)
        names = [visible(name) for name in metrics]
        header = ["checkpoint", "step", "epoch", "size", "written", "is", *names[:MOST_METRICS]]
        rows = [_row(one, metrics[:MOST_METRICS], used) for one in summaries]
        lines += ["", *table(header, rows, on, left=(0, 5))]
        if len(metrics) > MOST_METRICS:
            lines.append(f"and the metrics {', '.join(names[MOST_METRICS:])}")
        lines += _best_lines(document["best"], on)
        for one in summaries:
            lines += _damage_lines(one, on)
    lines += _notes(document)
    newest = document["newest"]
    if newest is not None:
        why = "would be used" if used else "is the newest"
        name = styled((visible(newest["name"]), "name"), on)
        lines += ["", f"{name} {why}: {_verdict(newest, on)}", *_detail_lines(newest, on)]
    return lines


def _kind_words(document: Mapping[str, Any]) -> str:
    names = {"run": "a run", "checkpoints": "the checkpoints of a run", "folder": "a folder"}
    count = counted(len(document["checkpoints"]), "checkpoint")
    words = f"{names[document['kind']]}, {count}"
    log = document["log"]
    return words if log is None else f"{words}, {counted(log['lines'], 'line')} of log"


def _row(one: Mapping[str, Any], metrics: Sequence[str], used: str | None) -> list[Cell]:
    status: Cell = ("damaged", "bad")
    if not one["damages"]:
        note = ", used" if one["path"] == used else ""
        status = (f"whole{note}", "good") if one["whole"] else f"not verified{note}"
    return [
        visible(one["name"]),
        _shown(one["step"]) if one["step"] is not None else "",
        _epochs(one),
        size(one["bytes"]),
        (one["written"] or "")[:16].replace("T", " "),
        status,
        *(_shown(one["metrics"][name]) if name in one["metrics"] else "-" for name in metrics),
    ]


def _epochs(one: Mapping[str, Any]) -> str:
    """The epochs done, parts of one too."""
    done, batches, of = one["epochs_done"], one["batches_done"], one["batches_per_epoch"]
    if not all(isinstance(count, int) for count in (done, batches, of)) or not of:
        done = one["epoch"] if done is None else done
        return "" if done is None else _shown(done)
    return f"{done + batches / of:.2f}".rstrip("0").rstrip(".")


def _best_lines(best: Mapping[str, Any], on: Screen) -> list[str]:
    rows = [
        [visible(name)]
        + [
            text
            for word in ("lowest", "highest")
            for text in (_shown(of[word]["value"]), visible(of[word]["checkpoint"]))
        ]
        for name, of in best.items()
    ]
    header = ["metric", "lowest", "in", "highest", "in"]
    return ["", *table(header, rows, on, left=(0, 2, 4))] if rows else []


def _damage_lines(one: Mapping[str, Any], on: Screen) -> list[str]:
    damages = [visible(text) for text in one["damages"]]
    if not damages:
        return []
    lines = []
    if "name" in one:
        damaged = f"{visible(one['name'])} is damaged"
        lines += ["", f"{styled((damaged, 'bad'), on)}:"]
    lines += [f"  {styled(text, on)}" for text in damages[:MOST_TOLD]]
    if len(damages) > MOST_TOLD:
        lines.append(f"  and {len(damages) - MOST_TOLD:,} more, which --json names")
    return lines


def _notes(document: Mapping[str, Any]) -> list[str]:
    """What else there is to know of a run."""
    notes, log, left = [], document["log"], document["left"]
    if document["used"] is None and document["kind"] != "folder":
        bad = "none can be used" if document["checkpoints"] else "no checkpoint yet"
        notes.append(f"{bad}: the run cannot go on")
    if log is not None and log["after"]:
        notes.append(
            f"the log has {counted(log['after'], 'line')} from after the checkpoint that would be "
            f"used; going on from it cuts the log back"
        )
    if left["set_aside"]:
        named = ", ".join(map(visible, left["set_aside"][:MOST_TOLD]))
        notes.append(f"set aside, because a run found it damaged: {named}")
    if left["unfinished"]:
        count = counted(len(left["unfinished"]), "unfinished save")
        notes.append(f"{count}, which the run removes when it goes on")
    return ["", *notes] if notes else []


def _verdict(document: Mapping[str, Any], on: Screen) -> str:
    if document["damages"]:
        return styled(("damaged", "bad"), on)
    whole = styled(("whole", "good"), on)
    if document.get("kind") == "torch file":
        tells = f"{whole} as far as its CRC-32s tell"
        return tells if document["whole"] else "without checksums that could be verified"
    return f"{whole}, every byte is what was saved" if document["whole"] else "not verified"


def _detail_lines(document: Mapping[str, Any], on: Screen) -> list[str]:
    lines = [] if "name" in document else _damage_lines(document, on)
    if document["doubtful"]:
        lines += ["", "What is in it, as far as the damaged descriptions tell:"]
    lines += ["", *facts(_facts(document), on)]
    lines += _object_lines(document["objects"], on)
    lines += _group_lines(document["optimizers"], on)
    if "tensors" in document:
        lines += _tensor_lines(document["tensors"], on)
    return lines


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    def named(values: Mapping[str, Any]) -> str:
        told = [f"{visible(key)} {_shown(value)}" for key, value in values.items()]
        more = len(told) - MOST_TOLD
        return ", ".join(told[:MOST_TOLD]) + (f", and {more} more" if more > 0 else "")

    yield "size", f"{size(document['bytes'])} ({document['bytes']:,} bytes)"
    if document["written"]:
        then = datetime.fromisoformat(document["written"])
        words = ago(then, datetime.now(then.tzinfo))
        yield "written", f"{then:%Y-%m-%d %H:%M:%S}{f', {words}' if words else ''}"
    if document["step"] is not None and "step" not in document["values"]:
        yield "step", _shown(document["step"])
    if document["epochs_done"] is not None:
        epochs = f"{_shown(document['epochs_done'])} done"
        if document["batches_done"]:
            of = f"{_shown(document['batches_done'])} of {_shown(document['batches_per_epoch'])}"
            epochs += f", and {of} batches of the next"
        yield "epochs", epochs
    if document["waiting_gradients"]:
        count = counted(document["waiting_gradients"], "parameter")
        yield "gradients", f"in the middle of an accumulation: those of {count}"
    if document["metrics"]:
        yield "metrics", named(document["metrics"])
    for name in ("values", "about"):
        if document[name]:
            yield name, named(document[name])
    yield from _origin(document)


def _origin(document: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    """What wrote a checkpoint."""
    rest = dict(document["produced_by"])
    if not rest:
        return
    versions = ("descend", "torch", "numpy", "python", "cuda")
    found = {name: rest.pop(name, None) for name in versions}
    yield "written by", ", ".join(f"{k} {_shown(v)}" for k, v in found.items() if v is not None)
    machine = [rest.pop(name, None) for name in ("system", "processor", "cpu capability")]
    threads, devices = rest.pop("threads", None), rest.pop("devices", None)
    if isinstance(threads, int):
        machine.append(counted(threads, "thread"))
    machine.append(devices if devices else "no GPU")
    yield "on", ", ".join(_shown(one) for one in machine if one)
    flags = [
        visible(name) if value is True else f"{visible(name)} {_shown(value)}"
        for name, value in rest.items()
        if value is not None and value is not False
    ]
    if flags:
        yield "with", ", ".join(flags)
    different = document["different_here"]
    if different:
        yield "here", f"{visible('; '.join(different))}: going on from it can give other bits"
    else:
        yield "here", "the same"


def _object_lines(objects: Mapping[str, Any], on: Screen) -> list[str]:
    rows: list[list[Cell]] = [
        [
            (visible(name), "name"),
            f"{one['tensors']:,}" if one["tensors"] else "-",
            f"{one['shared']:,}" if one["shared"] else "",
            f"{one['elements']:,}" if one["tensors"] and one["elements"] is not None else "-",
            size(one["bytes"]) if one["tensors"] and one["bytes"] is not None else "-",
            f"{one['values']:,}" if one["values"] else "",
            ", ".join(map(visible, one["dtypes"])),
        ]
        for name, one in objects.items()
    ]
    header = ["object", "tensors", "shared", "elements", "size", "other values", "dtypes"]
    return ["", *table(header, rows, on, left=(0, 6))] if rows else []


def _group_lines(optimizers: Mapping[str, Any], on: Screen) -> list[str]:
    rows: list[list[Cell]] = []
    for name, groups in optimizers.items():
        for number, group in enumerate(groups[:MOST_TOLD]):
            others = {
                key: value
                for key, value in group.items()
                if key not in ("parameters", "lr") and value is not None and value is not False
            }
            rows.append(
                [
                    (visible(name), "name") if not number else "",
                    str(number),
                    "" if group["parameters"] is None else f"{group['parameters']:,}",
                    _shown(group.get("lr", "")),
                    ", ".join(f"{visible(key)} {_shown(value)}" for key, value in others.items()),
                ]
            )
        if len(groups) > MOST_TOLD:
            more = f"and {len(groups) - MOST_TOLD:,} more groups, which --json lists"
            rows.append(["", "", "", "", more])
    header = ["optimizer", "group", "parameters", "lr", "other hyperparameters"]
    return ["", *table(header, rows, on, left=(0, 4))] if rows else []


def _tensor_lines(tensors: Sequence[Mapping[str, Any]], on: Screen) -> list[str]:
    rows: list[list[Cell]] = [
        [
            visible(one["name"]),
            one["dtype"] or "",
            "" if one["shape"] is None else " x ".join(map(str, one["shape"])) or "number",
            "" if one["bytes"] is None else size(one["bytes"]),
            f"= {visible(one['same_as'])}" if one["same_as"] else one["hash"] or "",
        ]
        for one in tensors
    ]
    header = ["tensor", "dtype", "shape", "size", "hash"]
    return ["", *table(header, rows, on, left=(0, 1, 4))]


def _shown(value: object) -> str:
    """A plain value in a few characters."""
    if isinstance(value, bool) or value is None:
        text = json.dumps(value)
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, list | tuple):
        text = " ".join(_shown(item) for item in value)
    elif isinstance(value, Mapping):
        text = " ".join(f"{key}={_shown(item)}" for key, item in value.items())
    else:
        text = str(value)
    text = visible(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
