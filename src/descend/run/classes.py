"""Of which classes the objects of a training are: no state says it, and the bits depend on it.

`torch.optim.AdamW` takes the state of `descend.AdamW` without a word, and a model with another
activation the weights of the one that was saved.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

MOST = 5  # differences in a message
SCRIPTS = ("__main__", "__mp_main__")  # what stands in a script may have moved to a module since

Classes = dict[str, dict[str, str]]  # of each object and of its parts, by the path to them


def classes(objects: Mapping[str, Any], loader: Any) -> Classes:
    """The names of the classes of some objects, of the modules in a model among them, and so on.

    Args:
        objects: by name.
        loader: as it was given.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1))
        >>> classes({"model": model}, torch.utils.data.DataLoader([1]))["model"]
        {'': 'torch.Sequential', '0': 'torch.Linear'}
    """
    found = {name: dict(_parts("", thing)) for name, thing in objects.items()}
    parts = [name for name in ("dataset", "collate_fn") if hasattr(loader, name)]
    given = {"": loader} | {name: getattr(loader, name) for name in parts}
    return {**found, "loader": {path: _name(thing) for path, thing in given.items()}}


def swapped(saved: Classes, here: Classes) -> list[str]:
    """The objects and parts that are of another class than they were, each in words.

    Example:
        >>> swapped({"a": {"": "torch.SGD"}}, {"a": {"": "descend.SGD"}})
        ['a torch.SGD there, descend.SGD here']
    """
    found = [
        f"{name}{'.' * bool(path)}{path} {was} there, {here[name][path]} here"
        for name, parts in saved.items()
        for path, was in parts.items()
        if path in here.get(name, {}) and not _are_same(was, here[name][path])
    ]
    more = [f"{len(found) - MOST} more classes"] if len(found) > MOST else []
    return found[:MOST] + more


def _parts(path: str, thing: Any) -> Iterator[tuple[str, str]]:
    yield path, _name(thing)
    if isinstance(thing, Module):
        yield from ((name, _name(one)) for name, one in thing.named_modules() if name)
    elif isinstance(thing, Optimizer):
        inner = getattr(thing, "optimizer", None)  # in one that wraps it
        if isinstance(inner, Optimizer):
            yield from _parts(_joined(path, "optimizer"), inner)
    elif isinstance(thing, LRScheduler):
        for number, part in enumerate(getattr(thing, "_schedulers", ())):
            yield from _parts(_joined(path, str(number)), part)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _name(thing: Any) -> str:
    """The name of a function, or of a thing's class, after that of the package that it is of."""
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    kind = getattr(kind, "cls_to_become", None) or kind  # of a lazy module, in its first pass
    return (
        f"{(getattr(kind, '__module__', None) or 'builtins').partition('.')[0]}.{kind.__qualname__}"
    )


def _are_same(was: str, now: str) -> bool:
    (before, old), (after, new) = was.split(".", 1), now.split(".", 1)
    return old == new and (before == after or before in SCRIPTS or after in SCRIPTS)
