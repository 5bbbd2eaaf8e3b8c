"""The exceptions of descend, each with the built-in it also is.

    DescendError
    ├── HyperparameterError (ValueError)   a value outside its range, or a misspelt name
    │   └── ConflictError (RuntimeError)   options that do not go together
    ├── ArgumentError (TypeError)          an argument that a constructor or function does not take
    ├── ParameterError (ValueError)        parameters or groups that cannot be optimized
    │   ├── ParameterTypeError (TypeError) something that is no tensor, list or group at all
    │   └── ParameterKeyError (KeyError)   a group without parameters
    ├── ScheduleError (ValueError)         a schedule that cannot be made, read or used
    │   └── ScheduleTypeError (TypeError)  something that is no schedule or no optimizer at all
    ├── RuleError (ValueError)             an update rule that cannot be compiled or used
    ├── StateError (ValueError)            a state that does not belong to this object
    │   ├── StateKeyError (KeyError)       a state without its groups, its entries or its indices
    │   └── ShapeError                     a state tensor that does not fit its parameter
    ├── GradientError (RuntimeError)       a gradient that cannot be stepped with
    ├── ModeError (RuntimeError)           a step of an optimizer that is in evaluation mode
    ├── ClosureError (TypeError)           no closure where a step needs one, or one without a loss
    ├── HookError (RuntimeError)           a hook that answered something else than it may
    ├── DataError (ValueError)             a data file that cannot be read
    ├── TaskError (ValueError)             a task file that cannot be used
    ├── OptimizerFileError (ValueError)    a file with the user's own optimizer, and the same
    ├── DivergedError (ArithmeticError)    a loss that is no longer a finite number
    ├── CheckpointError (ValueError)       a checkpoint that cannot be read or written
    │   ├── DamagedError                   one that is not what was saved
    │   ├── MissingPartError (KeyError)    one that lacks an entry that was asked for
    │   └── FormatError                    a whole one in a format of another version
    ├── RunError (ValueError)              a run that cannot start, go on, or log
    ├── TrainerError (ValueError)          a trainer, module or callback that cannot be used so
    ├── SearchError (ValueError)           a comparison or a search that cannot be made as asked
    └── OutputError (OSError)              a folder or file that cannot be written

    CheckpointWarning (UserWarning)        a save that failed, what was passed over or left out
    CacheWarning (UserWarning)             kernels that the next process compiles again
    FontWarning (UserWarning)              a picture in which boxes stand for characters
    ResumeWarning (UserWarning)            a run that goes on where its bits may differ

Every message says what was asked, what came, what is allowed, and what to do. Catching
`DescendError` catches all of them.
"""


class DescendError(Exception):
    """The root of every exception that descend raises on purpose."""


class HyperparameterError(DescendError, ValueError):
    """A hyperparameter has a value outside its range, or a name nobody knows."""


class ConflictError(HyperparameterError, RuntimeError):
    """Options that are allowed each, but not together."""


class ArgumentError(DescendError, TypeError):
    """A constructor or a function was given an argument that it does not take."""


class ParameterError(DescendError, ValueError):
    """Parameters or parameter groups that cannot be optimized as given."""


class ParameterTypeError(ParameterError, TypeError):
    """Something stands for parameters that is no tensor, no list of them, or no group."""


class ParameterKeyError(ParameterError, KeyError):
    """A parameter group has no "params"."""

    __str__ = Exception.__str__  # KeyError's shows the message in quotes


class RuleError(DescendError, ValueError):
    """An update rule that cannot be compiled, or does not go with its scalars and flags."""


class ScheduleError(DescendError, ValueError):
    """A schedule that cannot be made, read or used."""


class ScheduleTypeError(ScheduleError, TypeError):
    """Something stands for a schedule, a function or an optimizer that is none."""


class StateError(DescendError, ValueError):
    """A state that does not belong to this optimizer or schedule."""


class StateKeyError(StateError, KeyError):
    """A state lacks what every state has: "state", "param_groups", each group's "params"."""

    __str__ = Exception.__str__  # as above


class ShapeError(StateError):
    """A tensor of a saved state has another shape than its parameter here."""


class GradientError(DescendError, RuntimeError):
    """A gradient that this optimizer cannot step with."""


class ModeError(DescendError, RuntimeError):
    """An optimizer was asked for a step while its parameters are those for evaluation."""


class ClosureError(DescendError, TypeError):
    """A step that needs a closure got none, or one that returns no loss."""


class HookError(DescendError, RuntimeError):
    """A hook answered something else than it may."""


class DataError(DescendError, ValueError):
    """A data file that cannot be read."""


class TaskError(DescendError, ValueError):
    """A task file that cannot be used."""


class OptimizerFileError(DescendError, ValueError):
    """A file with the user's own optimizer that cannot be used."""


class DivergedError(DescendError, ArithmeticError):
    """The loss is no longer a finite number: training cannot go on."""


class CheckpointError(DescendError, ValueError):
    """A checkpoint that cannot be read or written."""


class DamagedError(CheckpointError):
    """A checkpoint is not what was saved: truncated, changed, or on a disk that fails."""


class RunError(DescendError, ValueError):
    """A run that cannot start, go on, or log what it was given."""


class TrainerError(DescendError, ValueError):
    """A trainer, a module, a callback or their data cannot be used as asked."""


class SearchError(DescendError, ValueError):
    """A comparison or a search that cannot be made as asked."""


class MissingPartError(CheckpointError, KeyError):
    """A checkpoint lacks an entry that was asked for."""

    __str__ = Exception.__str__  # as above


class FormatError(CheckpointError):
    """A checkpoint is whole, and in a format of another version of descend."""


class OutputError(DescendError, OSError):
    """A folder or file that cannot be written."""


class CheckpointWarning(UserWarning):
    """A save failed and the training goes on, or something was passed over, or left out."""


class CacheWarning(UserWarning):
    """Compiled kernels cannot be kept for the next process."""


class FontWarning(UserWarning):
    """A picture lacks characters that no font of this system has."""


class ResumeWarning(UserWarning):
    """A run goes on in surroundings in which its bits may differ from before."""


class TrainerWarning(UserWarning):
    """A training in which something is likely not meant as it is."""
