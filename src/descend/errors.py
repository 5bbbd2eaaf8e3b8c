"""The exceptions of descend, each with the built-in it also is.

    DescendError
    ├── HyperparameterError (ValueError)   a value outside its range, or a misspelt name
    ├── ParameterError (ValueError)        parameters or groups that cannot be optimized
    ├── StateError (ValueError)            a state that does not belong to this optimizer
    ├── GradientError (RuntimeError)       a gradient that cannot be stepped with
    ├── HookError (RuntimeError)           a hook that answered something else than it may
    ├── DataError (ValueError)             a data file that cannot be read
    ├── TaskError (ValueError)             a task file that cannot be used
    ├── DivergedError (ArithmeticError)    a loss that is no longer a finite number
    ├── CheckpointError (ValueError)       a checkpoint that cannot be read or written
    └── OutputError (OSError)              a folder or file that cannot be written

Every message says what was asked, what came, what is allowed, and what to do. Catching
`DescendError` catches all of them.
"""


class DescendError(Exception):
    """The root of every exception that descend raises on purpose."""


class HyperparameterError(DescendError, ValueError):
    """A hyperparameter has a value outside its range, or a name nobody knows."""


class ParameterError(DescendError, ValueError):
    """Parameters or parameter groups that cannot be optimized as given."""


class StateError(DescendError, ValueError):
    """A state that does not belong to this optimizer."""


class GradientError(DescendError, RuntimeError):
    """A gradient that this optimizer cannot step with."""


class HookError(DescendError, RuntimeError):
    """A hook answered something else than it may."""


class DataError(DescendError, ValueError):
    """A data file that cannot be read."""


class TaskError(DescendError, ValueError):
    """A task file that cannot be used."""


class DivergedError(DescendError, ArithmeticError):
    """The loss is no longer a finite number: training cannot go on."""


class CheckpointError(DescendError, ValueError):
    """A checkpoint that cannot be read or written."""


class OutputError(DescendError, OSError):
    """A folder or file that cannot be written."""
