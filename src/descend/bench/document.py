"""A measurement as plain data for JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from descend.bench.changing import ChangingMeasurement, changing_targets
from descend.bench.suite import Measurement
from descend.bench.targets import Target, targets

FORMAT = 1
"""Counts the incompatible changes of the document's layout."""


def document(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement as dictionaries, lists, strings and numbers.

    Args:
        measurement: What `run` returned.

    Returns:
        The fields of `Measurement` by name, all times in seconds and all sizes in bytes; `format`,
        the number of this layout; and `targets`, each with its `status`. A spread is an object of
        `median`, `low` and `high`, the quartiles. `best_torch` in an entry of `steps` is the name
        of torch's fastest contender there, or null.

    Example:
        >>> import json
        >>> from descend.bench import cases, run, WORKLOADS
        >>> found = run([cases()["sgd"]], [WORKLOADS["mlp"]], rounds=3, start=False)
        >>> sorted(json.loads(json.dumps(document(found))))[:3]
        ['format', 'machine', 'memory']
    """
    steps = [
        {**asdict(one), "best_torch": one.best_torch.contender if one.best_torch else None}
        for one in measurement.steps
    ]
    told = promised(targets(measurement))
    return {"format": FORMAT, **asdict(measurement), "steps": steps, "targets": told}


def changing_document(measurement: ChangingMeasurement) -> dict[str, Any]:
    """Return a measurement of changes in the same way.

    Args:
        measurement: What `run_changing` returned.

    Returns:
        The fields of `ChangingMeasurement` by name, all times in seconds; `format`; and `targets`.
        `best_torch` in an entry of `changes` is the name of torch's fastest contender there, or
        null.
    """
    changes = [
        {**asdict(one), "best_torch": one.best_torch.contender if one.best_torch else None}
        for one in measurement.changes
    ]
    told = promised(changing_targets(measurement))
    return {"format": FORMAT, **asdict(measurement), "changes": changes, "targets": told}


def promised(found: Sequence[Target]) -> list[dict[str, Any]]:
    """Return targets in the same way, each with its `status`.

    Args:
        found: What a measurement was compared with.
    """
    return [{**asdict(target), "status": target.status} for target in found]
