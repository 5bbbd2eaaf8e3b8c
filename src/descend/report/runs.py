"""Runs as plain data and in text: their settings, and how several of them came out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from descend.checkpoint.contents import Content, entry
from descend.checkpoint.series import FOLDER
from descend.format import counted, plain_text, printable
from descend.report.run_log import RunLog, best_value
from descend.report.tables import Cell, Screen, fitting, sentence


def about_run(content: Content) -> dict[str, Any]:
    """Describe the run that a checkpoint is of.

    Args:
        content: of the checkpoint.

    Returns:
        Names and plain values, None for what it does not tell; empty if it is of no run.

    Example:
        >>> about_run(content_of(Path("runs/digits/checkpoints/step-00000042")))["optimizer"]
        'adamw'
    """
    own = content.state.get("run")
    loader = entry(own, "loader") if isinstance(own, Mapping) else {}
    if not loader:
        return {}
    options = entry(
        entry(entry(entry(content.state, "trainer"), "callbacks"), "Command"), "options"
    )
    about = entry(content.manifest, "about")
    return {
        "task": _task(options),
        "optimizer": options.get("--optimizer"),
        "lr": options.get("--lr"),
        "set": options.get("--set") or [],
        "schedules": _schedules(content.state),
        "objects": dict(entry(about, "objects")),
        "seed": loader.get("seed"),
        "samples": loader.get("samples"),
        "batch_size": _in_step(loader.get("batch_size"), options.get("--accumulate")),
        "accumulate": options.get("--accumulate"),
        "order": loader.get("order"),
        "epochs": about.get("epochs"),
        "over": about.get("over"),
    }


def _in_step(batch_size: Any, accumulate: Any) -> Any:
    """The samples of a step, of several batches where they are accumulated."""
    return batch_size if batch_size is None else batch_size * (accumulate or 1)


def _task(options: Mapping[str, Any]) -> str | None:
    """The task that `descend train` trained."""
    if not options:
        return None
    return options.get("TASK.py") or options.get("--data") or "the shipped digits"


def _schedules(state: Mapping[str, Any]) -> dict[str, str]:
    """The schedules of each `descend.Scheduler`, by hyperparameter."""
    found = {
        name: schedules
        for name, value in state.items()
        if isinstance(value, Mapping) and (schedules := entry(value, "schedules"))
    }
    return {
        str(key) if len(found) == 1 else f"{name}.{key}": plain_text(schedule)
        for name, schedules in found.items()
        for key, schedule in schedules.items()
    }


def run_facts(run: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """The same in words."""
    facts: list[tuple[str, Cell]] = []

    def tell(name: str, text: object) -> None:
        if text:
            facts.append((name, printable(str(text))))

    tell("task", run["task"])
    settings = [f"lr {plain_text(run['lr'])}"] * (run["lr"] is not None) + [*map(str, run["set"])]
    tell("optimizer", ", ".join([*filter(None, [run["optimizer"]]), *settings]))
    if not run["task"]:  # else they are the same for every task
        tell("objects", ", ".join(f"{name}: {kind}" for name, kind in run["objects"].items()))
    tell("schedule", ", ".join(f"{key}: {text}" for key, text in run["schedules"].items()))
    if isinstance(run["samples"], int):
        size = f", {plain_text(run['batch_size'])} to a step" if run["batch_size"] else ""
        if run["accumulate"]:
            size += f" in {plain_text(run['accumulate'])} batches"
        data = f"{counted(run['samples'], 'sample')}{size}, {plain_text(run['order'])}"
        tell("data", f"{data}, seed {plain_text(run['seed'])}")
    if run["over"] is not None:
        asked = counted(run["epochs"], "epoch") if isinstance(run["epochs"], int) else "more"
        tell("run", "over" if run["over"] else f"not over: {asked} asked for")
    return facts


def describe_runs(
    folder: Path, contents: Mapping[str, Content], summaries: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The runs in a folder, each with what its newest sound checkpoint and its log tell.

    Args:
        folder: the one that they are in.
        contents: of their checkpoints, by path.
        summaries: of the same, each run's oldest first.

    Returns:
        Names and plain values.
    """
    runs: dict[Path, list[Mapping[str, Any]]] = {}
    for one in summaries:
        path = Path(one["path"])
        if path.parent.name == FOLDER and path.parent.parent != folder:
            runs.setdefault(path.parent.parent, []).append(one)
    described = []
    for path, own in runs.items():
        sound = [one for one in own if not one["damages"] and not one["error"]]
        newest = (sound or own)[-1]
        described.append(
            {
                "name": str(path.relative_to(folder)),
                "path": str(path),
                "checkpoints": len(own),
                "damaged": sum(bool(one["damages"]) for one in own),
                "step": newest["step"],
                "epochs_done": newest["epochs_done"],
                **about_run(contents[newest["path"]]),
                "metrics": _metrics(path),
            }
        )
    return described


def _metrics(folder: Path) -> dict[str, dict[str, float]]:
    """Each metric of a log: its lowest and its highest value, and the last."""
    log = RunLog(folder)
    try:
        log.read()
    except OSError:
        return {}
    return {
        name: {"lowest": min(known), "highest": max(known), "last": known[-1]}
        for name, curve in log.curves.items()
        if name != "lr" and (known := curve.known)
    }


def runs_lines(runs: Sequence[Mapping[str, Any]], on: Screen) -> list[str]:
    """A table of runs, one line each, with as many metrics as there is room for."""
    metrics = list(dict.fromkeys(name for run in runs for name in run["metrics"]))
    metrics.sort(key=lambda name: (name.startswith("train"), name.endswith("loss")))
    header = ["run", "optimizer", "epochs", "is", *(_named(metric, on) for metric in metrics)]
    spare = [*range(4, len(header))][::-1]
    spare.insert(len(metrics) - 1, 1)  # the optimizers go before the last metric does
    rows = [_row(run, metrics) for run in runs]
    lines, gone = fitting(header, rows, on, left=(0, 1), spare=spare)
    rest = [metric for i, metric in enumerate(metrics, 4) if i in gone]
    if len(rest) < len(metrics):
        lines += sentence(
            "of each metric: the best value, which is the lowest, or the highest of an accuracy; "
            "then the last one",
            on,
        )
    if rest:
        told = ", ".join(map(printable, rest))
        lines += sentence(f"--json has {counted(len(rest), 'more metric')}: {told}", on)
    return lines


def _named(metric: str, on: Screen) -> str:
    """A metric in a header: where columns are few, a long word is cut."""
    name = printable(metric)
    return name if on.width is None else name.replace("validation_", "val_")


def _row(run: Mapping[str, Any], metrics: Sequence[str]) -> list[Cell]:
    done, of = run["epochs_done"], run.get("epochs")
    status: Cell = ("damaged", "bad") if run["damaged"] else "not over"
    if not run["damaged"] and run.get("over") is not False:
        status = ("over", "good") if run.get("over") else ""
    settings = [f"lr {plain_text(run['lr'])}"] * (run.get("lr") is not None)
    named = ", ".join(filter(None, [run.get("optimizer"), *settings, *run.get("set", [])]))
    return [
        (printable(run["name"]), "name"),
        printable(named or str(entry(run, "objects").get("optimizer", ""))),
        "" if done is None else plain_text(done) + (f"/{plain_text(of)}" if of is not None else ""),
        status,
        *(_best_and_last(name, run["metrics"].get(name)) for name in metrics),
    ]


def _best_and_last(name: str, of: Mapping[str, float] | None) -> str:
    if of is None:
        return "-"
    best = best_value(name, [of["lowest"], of["highest"]])
    return f"{best:.4g}, {of['last']:.4g}"
