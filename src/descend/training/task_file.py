"""A user's file that defines a task, or a function whose arguments make one."""

import inspect
import os
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from descend.checkpoint.hashing import digest, hash_bytes
from descend.checkpoint.randomness import random_states, seed_everything
from descend.errors import TaskError
from descend.files import read_whole
from descend.optimizer_lookup import literal
from descend.spelling import hint
from descend.training.data_module import DataModule
from descend.training.images import digits_task
from descend.training.module import Module
from descend.training.module_task import ModuleTask
from descend.training.task import Task
from descend.user_file import Named, defined_at, run_file

WANTED = "a descend.Task"
KINDS = (bool, int, float, str)
NAME = "task"
_run: dict[Path, tuple[str, "TaskFile"]] = {}  # by path, with what was in the file


@dataclass(frozen=True)
class TaskFile:
    """A file that was run, and how to make the task that it defines.

    Args:
        path: of the file.
        arguments: the default of each argument of its function by name; `inspect.Parameter.empty`
            where there is none. Empty where the file defines a Task itself.
        kinds: what an argument is (bool, int, float or str) by its annotation, or else by its
            default, as far as one of them tells; with None for one that may be None.
        build: makes the task of arguments that were checked.
        began: a hash of the random generators where the file began to run.
        drew: whether it drew from them.

    Example:
        >>> file = load_task_file(Path("tunable.py"))
        >>> file.arguments, file.make(width=64).model
        ({'width': 32, 'dropout': 0.1}, Sequential(...))

    Source: `descend.user_file.run_file`.
    """

    path: Path
    arguments: Mapping[str, Any]
    kinds: Mapping[str, tuple[type, ...]]
    build: Callable[..., Task | ModuleTask]
    began: str
    drew: bool

    def check(self, /, **arguments: Any) -> dict[str, Any]:
        """The arguments, each a float where one is needed and a whole number came.

        Raises:
            TaskError: there is no such argument, or it is of another kind.
        """
        for name in arguments:
            if name not in self.arguments:
                known = ", ".join(self.arguments)
                why = (
                    f"known: {known}"
                    if known
                    else f"the task has none: def {NAME}({name}=...) -> {WANTED[2:]} gives it one"
                )
                raise TaskError(
                    f"{self.path}: there is no argument {name!r}; {hint(name, self.arguments)}{why}"
                )
        return {name: self._checked(name, value) for name, value in arguments.items()}

    def read(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """The arguments in texts, as a command has them.

        Raises:
            TaskError: as `check`.
        """
        values = {name: literal(text) for name, text in texts.items()}
        for name, kinds in self.kinds.items():
            if name in values and str in kinds and type(values[name]) not in kinds:
                values[name] = texts[name]  # such as a name made of digits
        return self.check(**values)

    def make(self, /, **arguments: Any) -> Task | ModuleTask:
        """A new task, or module with its data.

        Args:
            arguments: in place of the defaults.

        Raises:
            TaskError: an argument cannot be used, has no default and is not given; the function
                fails (with its line), or returns something else.
        """
        given = self.check(**arguments)
        for name, default in self.arguments.items():
            if default is inspect.Parameter.empty and name not in given:
                raise TaskError(
                    f"{self.path}: the argument {name} has no default; give --arg {name}=VALUE, or "
                    f"a default in the file"
                )
        return self.build(**given)

    def _checked(self, name: str, value: Any) -> Any:
        kinds = self.kinds.get(name, ())
        if not kinds or type(value) in kinds:
            return value
        if float in kinds and type(value) is int:
            return float(value)
        words = " or ".join("None" if one is _NONE else one.__name__ for one in kinds)
        raise TaskError(f"{self.path}: the argument {name} must be {words}, and is {value!r}")


_NONE = type(None)


def load_task_file(path: Path) -> TaskFile:
    """Run a Python file and find the one task that it defines, or the function that makes it.

    A function is one that is called `task`, or one of the file's own whose annotation says that it
    returns a `descend.Task`. Beside a Task such a function is how that was made. Where there is
    neither, a class of the file's own that is a `descend.Module` makes the task, together with one
    that is a `descend.DataModule`.

    Args:
        path: the file; `run_file` tells how it is run.

    Returns:
        How to make the task. The name of a Task does not matter.

    Raises:
        TaskError: if the file is missing or is no Python file, fails (with its line), or does not
            define exactly one task.

    Example:
        >>> load_task_file(Path("my_task.py")).make().model

    Source: `descend.user_file.run_file`.
    """
    began = digest(random_states())
    module = run_file(path, WANTED, TaskError)
    drew = digest(random_states()) != began
    task, functions = _task(module, path), _functions(module)
    if task is not None:
        return TaskFile(path, {}, {}, partial(_first_or_new, path, began, [task]), began, drew)
    if NAME not in functions and len(functions) > 1:
        raise TaskError(
            f"{path} defines {len(functions)} functions that return a task "
            f"({', '.join(functions)}): call the one that is meant {NAME}"
        )
    data = None
    if not functions:
        functions, data = _module_and_data(module, path)
    name = NAME if NAME in functions else next(iter(functions))
    function = functions[name]
    parameters = {
        one.name: one
        for one in inspect.signature(function).parameters.values()
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    named = Named(path, name, function, defined_at(path, name), WANTED, TaskError, "it makes none")
    return TaskFile(
        path,
        {name: one.default for name, one in parameters.items()},
        {name: _kinds(one, function) for name, one in parameters.items()},
        partial(_called, named) if data is None else partial(_module_task, named, data),
        began,
        drew,
    )


def seeded_task(path: Path | None, arguments: Mapping[str, Any], seed: int) -> Task | ModuleTask:
    """A new task of a file, or of the digits that ship: the same for a seed in every process.

    The generators are seeded before the file is run and before its function is called. In one
    process a file is run once where nothing in it hangs on the seed, so that data which its
    function keeps (`functools.cache`) are read once; they must not be drawn from the global
    generators there, but from one of their own.

    Args:
        path: the file; None for the digits.
        arguments: of its function.
        seed: of all that is drawn.

    Raises:
        TaskError: as `load_task_file` and `TaskFile.make`.

    Example:
        >>> seeded_task(Path("tunable.py"), {"width": 64}, seed=1).model
    """
    if path is None:
        if arguments:
            raise TaskError(
                f"--arg {next(iter(arguments))}: the digits that ship have no arguments; give a "
                f"TASK.py whose function has"
            )
        seed_everything(seed)
        return digits_task()
    file = task_file(path, seed)
    seed_everything(seed)
    return file.make(**arguments)


def task_file(path: Path, seed: int) -> TaskFile:
    """A file, run with a seed: now, or before in this process where that makes no difference."""
    seed_everything(seed)
    place = Path(os.path.abspath(path))
    if place in _run:
        content, file = _run[place]
        if _content(place) == content and (not file.drew or file.began == digest(random_states())):
            return file
    file = load_task_file(path)
    _run[place] = _content(place), file
    return file


def _content(path: Path) -> str:
    """A hash of what is in a file; of one that has gone, of nothing."""
    try:
        return hash_bytes(read_whole(path))
    except OSError:
        return ""


def _first_or_new(path: Path, began: str, first: list[Task]) -> Task:
    """The Task that the file made when it was run; one of another run after that."""
    if first and digest(random_states()) == began:
        return first.pop()
    first.clear()
    task = _task(run_file(path, WANTED, TaskError), path)
    assert task is not None
    return task


def _task(module: types.ModuleType, path: Path) -> Task | None:
    """The Task that a file defines, if it does."""
    tasks = {id(one): (name, one) for name, one in vars(module).items() if isinstance(one, Task)}
    names = [name for name, _ in tasks.values()]
    if names and NAME in _functions(module):
        names.append(NAME)
    if len(names) > 1:
        raise TaskError(
            f"{path} defines {len(names)} tasks ({', '.join(names)}), and one is needed: keep one "
            f"per file"
        )
    return next((task for _, task in tasks.values()), None)


def _functions(module: types.ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions of a file that make a task."""
    return {
        name: value
        for name, value in vars(module).items()
        if (name == NAME and callable(value) and not isinstance(value, Task | type))
        or (
            isinstance(value, types.FunctionType)
            and value.__module__ == module.__name__
            and _annotated(value.__annotations__.get("return"), value) is Task
        )
    }


def _module_and_data(
    module: types.ModuleType, path: Path
) -> tuple[dict[str, Callable[..., Any]], type[DataModule]]:
    """The classes of a file that are a module and its data.

    Raises:
        TaskError: there is not one of each.
    """
    modules, datas = (_leaves(module, kind) for kind in (Module, DataModule))
    if not modules and not datas:
        raise TaskError(
            f"{path} defines no descend.Task: add one, such as task = descend.Task(model=..., "
            f"train=..., validation=..., loss=...), or a function that returns one: "
            f"def {NAME}(width: int = 64) -> descend.Task"
        )
    for classes, kind in ((modules, "Module"), (datas, "DataModule")):
        if len(classes) != 1:
            names = f" ({', '.join(classes)})" if classes else ""
            raise TaskError(
                f"{path} defines {len(classes) or 'no'} descend.{kind}{names}, and one class of it "
                f"is needed beside one that is a descend.{'Data' * (kind == 'Module')}Module"
            )
    return modules, next(iter(datas.values()))


def _leaves(module: types.ModuleType, kind: type[Any]) -> dict[str, Any]:
    """The classes of a kind in a file that are its own, without those that others inherit from."""
    own = {
        name: one
        for name, one in vars(module).items()
        if isinstance(one, type) and issubclass(one, kind) and one.__module__ == module.__name__
    }
    bases = {base for one in own.values() for base in one.__mro__[1:]}
    return {name: one for name, one in own.items() if one not in bases}


def _module_task(named: Named, data: type[DataModule], /, **arguments: Any) -> ModuleTask:
    """A module, and the class of its data."""
    began = random_states()
    with named.trying(f"({_shown(arguments)})"):
        return ModuleTask(named.value(**arguments), data, began=began)


def _annotated(annotation: Any, function: Callable[..., Any]) -> Any:
    """The object that an annotation, perhaps a text, stands for; None where there is none."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(inspect.unwrap(function), "__globals__", {}))  # noqa: S307
    except Exception:  # of a name that only type checkers see
        return None


def _kinds(parameter: inspect.Parameter, function: Callable[..., Any]) -> tuple[type, ...]:
    annotation = _annotated(parameter.annotation, function)
    union = get_args(annotation) or (annotation,)
    if all(one in (*KINDS, _NONE) for one in union) and union != (_NONE,):
        return tuple(union)
    known = annotation is not None and annotation is not parameter.empty
    default = type(parameter.default)
    return (default,) if not known and default in KINDS else ()


def _shown(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _called(named: Named, /, **arguments: Any) -> Task:
    """The task of a function."""
    shown = _shown(arguments)
    with named.trying(f"({shown})"):
        task = named.value(**arguments)
    if not isinstance(task, Task):
        raise named.refused(task, f"what {named.name}({shown}) returns is")
    return task
