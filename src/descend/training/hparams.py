"""The hyperparameters of a module: the arguments that its constructor was called with."""

import inspect
from collections.abc import Collection, Mapping
from types import FrameType
from typing import Any

from descend.errors import TrainerError
from descend.states import mapped


class Hyperparameters(dict[str, Any]):
    """Hyperparameters by name, as items and as attributes.

    Example:
        >>> hparams = Hyperparameters(lr=0.1)
        >>> hparams.lr = 0.2
        >>> hparams["lr"], hparams
        (0.2, {'lr': 0.2})
    """

    def __getattr__(self, name: str) -> Any:
        """A hyperparameter as an attribute."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"no hyperparameter {name!r} was saved; saved: {', '.join(self) or 'none'}"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        """Change one."""
        self[name] = value


class HasHyperparameters:
    """The part that `Module` and `DataModule` share: `save_hyperparameters` and `hparams`."""

    def save_hyperparameters(
        self,
        *names: str | Mapping[str, Any],
        ignore: Collection[str] | str = (),
        logger: bool = True,
    ) -> None:
        """Keep the arguments of the constructor, in which this is called, as `self.hparams`.

        Those of subclasses, whose constructors have called this one, are kept too.

        Args:
            names: which; all where none is given. A mapping takes the place of the arguments.
            ignore: which to leave out.
            logger: whether loggers and `hparams.json` are told of them.

        Raises:
            TrainerError: it is called elsewhere, or there is no such argument.

        Example:
            >>> class Net(Module):
            ...     def __init__(self, hidden: int = 64):
            ...         super().__init__()
            ...         self.save_hyperparameters()
            >>> Net(hidden=32).hparams.hidden
            32

        Source: the name and its meaning are Lightning's.
        """
        if len(names) == 1 and isinstance(names[0], Mapping):
            found, names = dict(names[0]), ()
        else:
            frame = inspect.currentframe()
            found = _arguments(self, frame.f_back if frame else None)
        unknown = [name for name in names if name not in found]
        if unknown:
            raise TrainerError(
                f"save_hyperparameters({unknown[0]!r}): the constructor has no such argument; "
                f"it has {', '.join(found) or 'none'}"
            )
        left_out = {ignore} if isinstance(ignore, str) else {*ignore}
        kept = {name: found[name] for name in map(str, names or found) if name not in left_out}
        self.hparams.update(kept)
        self.__dict__["_logs_hparams"] = logger

    @property
    def logged_hparams(self) -> dict[str, Any]:
        """Those of them that loggers are told of, as plain data."""
        return plain(self.hparams) if self.__dict__.get("_logs_hparams", True) else {}

    @property
    def hparams(self) -> Hyperparameters:
        """The hyperparameters that were saved."""
        found: Hyperparameters = self.__dict__.setdefault("_hparams", Hyperparameters())
        return found


def plain(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as plain data, for a file: anything else as its text.

    Example:
        >>> plain({"lr": 0.1, "shape": (8, 8), "dtype": torch.float32})
        {'lr': 0.1, 'shape': [8, 8], 'dtype': 'torch.float32'}
    """

    def one(value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return value.__name__ if isinstance(value, type) else str(value)

    return {str(name): mapped(value, one) for name, value in hparams.items()}


def _arguments(owner: object, frame: FrameType | None) -> dict[str, Any]:
    """The arguments of the constructors of an object that are being run, the outermost last."""
    found: dict[str, Any] = {}
    calls = 0
    while frame is not None and frame.f_code.co_name == "__init__":
        arguments = inspect.getargvalues(frame)
        if not arguments.args or arguments.locals[arguments.args[0]] is not owner:
            break
        found |= {name: arguments.locals[name] for name in arguments.args[1:]}
        found |= arguments.locals[arguments.keywords] if arguments.keywords else {}
        frame, calls = frame.f_back, calls + 1
    if not calls:
        raise TrainerError(
            f"save_hyperparameters() of a {type(owner).__name__} must be called in its __init__, "
            f"whose arguments it keeps"
        )
    return found
