"""Descriptions of checkpoints in text: a table of them, and one in detail."""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from descend.format import ago, byte_size, counted, first_names, plain_text, printable
from descend.report.described import NO_AIMS
from descend.report.runs import run_facts, runs_lines
from descend.report.tables import Cell, Screen, facts, fitting, sentence, styled, table

MOST_TOLD = 20  # groups, damages, values of one checkpoint; --json has all
MOST_METRICS = 4  # columns
ROOMY = 80  # columns of a terminal that has room for dates


def one_lines(document: Mapping[str, Any], on: Screen) -> list[str]:
    """Tell the description of one checkpoint in text."""
    kind = "a file of torch's" if document["kind"] == "torch file" else "a checkpoint"
    path = styled((printable(document["path"]), "name"), on)
    return [f"{path}: {kind}, {_verdict(document, on)}", *_detail_lines(document, on)]


def several_lines(document: Mapping[str, Any], on: Screen) -> list[str]:
    """Tell the description of a run or a folder of checkpoints in text."""
    summaries, used = document["checkpoints"], document["used"]
    path = styled((printable(document["path"]), "name"), on)
    lines = [f"{path}: {_kind_words(document)}"]
    if runs := document["runs"]:
        lines += ["", *runs_lines(runs, on)]
    of_runs = tuple(f"{run['path']}{os.sep}" for run in runs)
    if alone := [one for one in summaries if not one["path"].startswith(of_runs)]:
        lines += _summary_lines(alone, used, on)
        lines += [] if runs else _best_lines(document["best"], on)
    for one in summaries:
        lines += _damage_lines(one, on)
    if notes := _notes(document):
        lines += ["", *(line for note in notes for line in sentence(note, on))]
    newest = document["newest"]
    if newest is not None:
        why = "would be used" if used else "is the newest"
        name = styled((printable(newest["name"]), "name"), on)
        lines += ["", f"{name} {why}: {_verdict(newest, on)}", *_detail_lines(newest, on)]
    return lines


def _kind_words(document: Mapping[str, Any]) -> str:
    names = {"run": "a run", "checkpoints": "the checkpoints of a run", "folder": "a folder"}
    count = counted(len(document["checkpoints"]), "checkpoint")
    words = f"{names[document['kind']]}, {count}"
    if runs := document["runs"]:
        words = f"{names[document['kind']]}, {counted(len(runs), 'run')}, {count}"
    log = document["log"]
    return words if log is None else f"{words}, {counted(log['lines'], 'line')} of log"


def _summary_lines(
    summaries: Sequence[Mapping[str, Any]], used: str | None, on: Screen
) -> list[str]:
    """The table of the checkpoints, with as many metrics in it as there is room for."""
    metrics = list(dict.fromkeys(name for one in summaries for name in one["metrics"]))
    metrics.sort(key=lambda name: name in NO_AIMS)
    dated = on.width is None or on.width >= ROOMY
    shown = metrics[:MOST_METRICS]
    header = ["checkpoint", "step", "epoch", "size", "written", "is", *map(printable, shown)]
    rows = [_row(one, shown, used, dated) for one in summaries]
    spare = [*range(6, len(header))][::-1]
    lines, gone = fitting(header, rows, on, left=(0, 5), spare=spare)
    if rest := metrics[len(shown) - len(gone) :]:
        told = ", ".join(map(printable, rest))
        lines += sentence(f"and the {'metric' if len(rest) == 1 else 'metrics'} {told}", on)
    return ["", *lines]


def _row(
    one: Mapping[str, Any], metrics: Sequence[str], used: str | None, dated: bool
) -> list[Cell]:
    status: Cell = ("damaged", "bad")
    if one["error"]:
        status = ("not readable", "bad")
    elif not one["damages"]:
        note = ", used" if one["path"] == used else ""
        status = (f"whole{note}", "good") if one["whole"] else f"not verified{note}"
    return [
        printable(one["name"]),
        plain_text(one["step"]) if one["step"] is not None else "",
        _epochs(one),
        byte_size(one["bytes"]),
        (one["written"] or "")[:16].replace("T", " ") if dated else "",
        status,
        *(plain_text(one["metrics"][name]) if name in one["metrics"] else "-" for name in metrics),
    ]


def _epochs(one: Mapping[str, Any]) -> str:
    """The epochs done, parts of one too."""
    done, batches, of = one["epochs_done"], one["batches_done"], one["batches_per_epoch"]
    if not all(isinstance(count, int) for count in (done, batches, of)) or not of:
        done = one["epoch"] if done is None else done
        return "" if done is None else plain_text(done)
    return f"{done + batches / of:.2f}".rstrip("0").rstrip(".")


def _best_lines(best: Mapping[str, Any], on: Screen) -> list[str]:
    rows = []
    for name, of in best.items():
        rows.append([printable(name)])
        for end in (of["lowest"], of["highest"]):
            rows[-1] += [plain_text(end["value"]), printable(end["checkpoint"])]
    header = ["metric", "lowest", "in", "highest", "in"]
    return ["", *table(header, rows, on, left=(0, 2, 4))] if rows else []


def _damage_lines(one: Mapping[str, Any], on: Screen) -> list[str]:
    damages = [printable(text) for text in one["damages"]]
    lines = []
    if "name" in one and (damages or one["error"]):
        name, what = printable(one["name"]), "is damaged" if damages else "cannot be read"
        lines += ["", f"{styled((f'{name} {what}', 'bad'), on)}:"]
    for text in damages[:MOST_TOLD] or ([printable(one["error"])] if one.get("error") else []):
        lines += sentence(text, on, indent=2)
    if len(damages) > MOST_TOLD:
        lines.append(f"  and {len(damages) - MOST_TOLD:,} more, which --json names")
    return lines


def _notes(document: Mapping[str, Any]) -> list[str]:
    """The notes on a run."""
    notes, log, left = [], document["log"], document["left"]
    if document["used"] is None and document["kind"] != "folder":
        none_yet = "no checkpoint yet: the run would begin at its start"
        held = document["checkpoints"]
        notes.append("none can be used: the run cannot go on" if held else none_yet)
    run = (document["newest"] or {}).get("run", {})
    tested = run.get("over") and run.get("task")  # `descend train` measures the test data last
    if log is not None and log["after"] > bool(tested):
        notes.append(
            f"the log has {counted(log['after'], 'line')} from after the checkpoint that would be "
            f"used; going on from it cuts the log back"
        )
    if left["set_aside"]:
        named = first_names(left["set_aside"], MOST_TOLD)
        notes.append(f"set aside, because a run found it damaged: {named}")
    if left["unfinished"]:
        count = counted(len(left["unfinished"]), "unfinished save")
        notes.append(f"{count}, which the run removes when it goes on")
    return notes


def _verdict(document: Mapping[str, Any], on: Screen) -> str:
    bad = "damaged" if document["damages"] else "not readable" if document.get("error") else ""
    if bad:
        return styled((bad, "bad"), on)
    of_torch = document.get("kind") == "torch file"
    if not document["whole"]:
        return "without checksums that could be verified" if of_torch else "not verified"
    tells = " as far as its CRC-32s tell" if of_torch else ", every byte is what was saved"
    return f"{styled(('whole', 'good'), on)}{tells}"


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
    yield "size", f"{byte_size(document['bytes'])} ({counted(document['bytes'], 'byte')})"
    if document["written"]:
        then = datetime.fromisoformat(document["written"])
        words = ago(then, datetime.now(then.tzinfo))
        yield "written", f"{then:%Y-%m-%d %H:%M:%S}{f', {words}' if words else ''}"
    if document["step"] is not None and "step" not in document["values"]:
        yield "step", plain_text(document["step"])
    if document["epochs_done"] is not None:
        epochs = f"{plain_text(document['epochs_done'])} done"
        if document["batches_done"]:
            done, of = (plain_text(document[f"batches_{word}"]) for word in ("done", "per_epoch"))
            epochs += f", and {done} of {of} {'batch' if of == '1' else 'batches'} of the next"
        yield "epochs", epochs
    if document["run"]:
        yield from run_facts(document["run"])
    if document["waiting_gradients"]:
        count = counted(document["waiting_gradients"], "parameter")
        yield "gradients", f"in the middle of an accumulation: those of {count}"
    if document["metrics"]:
        yield "metrics", first_names(_pairs(document["metrics"]), MOST_TOLD)
    for name in ("values", "about"):
        if document[name]:
            yield name, first_names(_pairs(document[name]), MOST_TOLD)
    yield from _origin(document)


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{printable(str(name))} {plain_text(value)}" for name, value in values.items()]


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that say something: no flag that is not set."""
    return {name: one for name, one in values.items() if one is not None and one is not False}


def _origin(document: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    """The facts on who wrote a checkpoint."""
    rest = dict(document["produced_by"])
    if not rest:
        return
    versions = ("descend", "torch", "numpy", "python", "cuda")
    found = {name: rest.pop(name, None) for name in versions}
    yield "written by", ", ".join(_pairs(_told(found)))
    machine = [rest.pop(name, None) for name in ("system", "processor", "cpu capability")]
    threads, devices = rest.pop("threads", None), rest.pop("devices", None)
    if isinstance(threads, int):
        machine.append(counted(threads, "thread"))
    machine.append(devices if devices else "no GPU")
    yield "on", ", ".join(plain_text(one) for one in machine if one)
    if flags := _told(rest):
        yield "with", ", ".join(text.removesuffix(" true") for text in _pairs(flags))
    different = document["different_here"]
    if different:
        yield "here", f"{printable('; '.join(different))}: going on from it can give other bits"
    else:
        yield "here", "the same machine and versions"


def _object_lines(objects: Mapping[str, Any], on: Screen) -> list[str]:
    rows: list[list[Cell]] = [
        [
            (printable(name), "name"),
            f"{one['tensors']:,}" if one["tensors"] else "-",
            f"{one['shared']:,}" if one["shared"] else "",
            f"{one['elements']:,}" if one["tensors"] and one["elements"] is not None else "-",
            byte_size(one["bytes"]) if one["tensors"] and one["bytes"] is not None else "-",
            f"{one['values']:,}" if one["values"] else "",
            ", ".join(map(printable, one["dtypes"])),
        ]
        for name, one in objects.items()
    ]
    header = ["object", "tensors", "shared", "elements", "size", "other values", "dtypes"]
    return ["", *table(header, rows, on, left=(0, 6))] if rows else []


def _group_lines(optimizers: Mapping[str, Any], on: Screen) -> list[str]:
    rows: list[list[Cell]] = []
    for name, groups in optimizers.items():
        for number, group in enumerate(groups[:MOST_TOLD]):
            others = {key: group[key] for key in group if key not in ("parameters", "lr")}
            rows.append(
                [
                    (printable(name), "name") if not number else "",
                    str(number),
                    "" if group["parameters"] is None else f"{group['parameters']:,}",
                    plain_text(group.get("lr", "")),
                    ", ".join(_pairs(_told(others))),
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
            printable(one["name"]),
            one["dtype"] or "",
            "" if one["shape"] is None else " x ".join(map(str, one["shape"])) or "number",
            "" if one["bytes"] is None else byte_size(one["bytes"]),
            f"= {printable(one['same_as'])}" if one["same_as"] else one["hash"] or "",
        ]
        for one in tensors
    ]
    header = ["tensor", "dtype", "shape", "size", "hash"]
    return ["", *table(header, rows, on, left=(0, 1, 4))]
