"""Logger: the protocol by which a trainer hands on what is logged."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Logger(Protocol):
    """A place for the metrics of a training: anything with these three methods.

    A logger of files may have three more, so that a run that goes on repeats no line:

    - `state_dict()` is called at each save: it flushes, and says where the files stand;
    - `load_state_dict(state)` takes that back. It only notes it: a load that fails elsewhere must
      have changed nothing;
    - `begin(folder, resumed)` is called once, before the first line: it cuts the files back to the
      state, or removes what a process left that died before its first checkpoint. `folder` is the
      run's, or None.

    Args:
        params: the hyperparameters of the module, the data and the trainer; groups are nested.
        metrics: numbers by name.
        step: how many steps the optimizers have taken.
        status: "success", "stopped" (by a signal) or "failed".

    Example:
        >>> class Printed:
        ...     def log_hyperparams(self, params):
        ...         print(dict(params))
        ...     def log_metrics(self, metrics, step):
        ...         print(step, dict(metrics))
        ...     def finalize(self, status):
        ...         print(status)
        >>> isinstance(Printed(), Logger)
        True

    Source: the names of PyTorch Lightning's loggers.
    """

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Note the hyperparameters; each process of a run tells them once, after `begin`."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Note metrics at a step."""

    def finalize(self, status: str) -> None:
        """Write what is left; more may be logged after it, as of a test."""
