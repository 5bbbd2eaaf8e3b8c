"""The suite: five tasks of different kinds, as files that `descend compare` takes like a user's."""

from pathlib import Path

NAMES = (
    "digits_cnn",
    "digits_autoencoder",
    "character_model",
    "bicycle_rentals",
    "ill_conditioned",
)


def suite_tasks() -> dict[str, Path]:
    """The files of the suite's tasks by their names, in the order in which they are shown.

    Example:
        >>> [*suite_tasks()][0]
        'digits_cnn'
    """
    return {name: Path(__file__).with_name(f"{name}.py") for name in NAMES}
