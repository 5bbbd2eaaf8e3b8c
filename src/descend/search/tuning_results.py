"""The outcome of a search as plain data: `results.json`, and `BEST` for `descend train --from`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from descend.checkpoint.series import FOLDER
from descend.format import counted
from descend.search.asked_trials import Asked
from descend.search.json_file import write_json
from descend.search.trial import Trial

if TYPE_CHECKING:
    from descend.search.sought import Sought

RESULTS, BEST = "results.json", "BEST"


@dataclass(frozen=True)
class Confirmed:
    """The best values on fresh seeds.

    Args:
        values: by seed; None where a training diverged or failed.
    """

    values: Mapping[int, float | None]

    @property
    def mean(self) -> float | None:
        """The mean; None where a training diverged, or there is none."""
        known = [value for value in self.values.values() if value is not None]
        return float(np.mean(known)) if known and len(known) == len(self.values) else None


def tuning_results(
    sought: "Sought",
    trials: Sequence[Asked],
    best: Asked | None,
    trial: Trial | None,
    confirmed: Confirmed | None,
) -> dict[str, Any]:
    """Everything that a search has found; the same for the same search, killed or not.

    Args:
        sought: what it was of.
        trials: all of them, by number.
        best: of them; None where none came to its end.
        trial: the training of the best.
        confirmed: the best on fresh seeds.
    """
    found: dict[str, Any] = {
        "format": 1,
        "task": {"file": sought.task},
        "metric": {"name": sought.metric, "highest": sought.highest},
        "search": {key.lstrip("-"): value for key, value in sought.options.items()},
        "trials": [
            {
                "number": one.number,
                "params": one.params,
                "state": one.state,
                "value": one.value,
                "values": {str(rung): one.values[rung] for rung in sorted(one.values)},
                "why": one.why,
            }
            for one in trials
        ],
        "best": None,
    }
    if best is None or trial is None or confirmed is None:
        return found
    mean, value = confirmed.mean, best.value
    back = None if mean is None or value is None else (
        value - mean if sought.highest else mean - value
    )  # fmt: skip
    return found | {
        "best": {"number": best.number, "value": value, "params": best.params, **asdict(trial)},
        "confirmation": {
            "seeds": [*confirmed.values],
            "values": [*confirmed.values.values()],
            "mean": mean,
            "worse_by": back,
        },
        "model": "/".join(
            [
                "trials",
                f"{best.number:04}",
                *([f"seed-{trial.seed}"] if sought.seeds > 1 else []),
                FOLDER,
            ]
        ),
    }


def note_results(folder: Path, found: Mapping[str, Any], trial: Trial | None) -> None:
    """Write what was found into the folder of the search.

    Args:
        folder: of the search.
        found: as `tuning_results` gives it.
        trial: the best; None where there is none.

    Raises:
        OutputError: it cannot be written.
    """
    write_json(folder / RESULTS, found)
    if trial is not None:
        write_json(folder / BEST, asdict(trial))


def back_in_words(found: Mapping[str, Any]) -> str:
    """How much of the best value was luck, in a sentence.

    Args:
        found: as `tuning_results` gives it, with a best trial.
    """
    told, best, name = found["confirmation"], found["best"], found["metric"]["name"]
    count = len(told["seeds"])
    if not count:
        return "It was not trained on fresh seeds: how much of it is luck is not known."
    if told["mean"] is None:
        failed = sum(value is None for value in told["values"])
        return f"On {count} fresh seeds {failed} of its trainings diverged or failed."
    spread = f" (standard deviation {np.std(told['values'], ddof=1):.2g})" if count > 1 else ""
    back = told["worse_by"]
    how = f"{abs(back):.2g} {'worse' if back > 0 else 'better'}" if back else "the same"
    return (
        f"On {counted(count, 'fresh seed')} its {name} is {told['mean']:.5g}{spread}: "
        f"{how} than the {best['value']:.5g} by which it was chosen. "
        f"{'The best of many is luck as well.' if back > 0 else ''}"
    ).rstrip()
