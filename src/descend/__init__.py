"""descend: the optimization half of PyTorch training.

`import descend as optim` takes the place of `import torch.optim as optim`.

A name is imported when it is first used, so that `descend --help` does not wait for torch. The
names stand in `__init__.pyi`.
"""

import ast as _ast
from importlib import import_module as _import_module

__version__ = "0.1.0"

# The loader reads it, so that it is found inside a zip file too.
_STUB = __spec__.loader.get_data(f"{__path__[0]}/__init__.pyi")
_HOMES = {
    alias.name: statement.module
    for statement in _ast.parse(_STUB).body
    if isinstance(statement, _ast.ImportFrom)
    for alias in statement.names
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - from the stub


def __getattr__(name: str) -> object:
    """Import a public name, and keep it: it comes here once."""
    home = _HOMES.get(name)
    if home is None:
        from descend.spelling import refuse

        return refuse(__name__, name)
    if home == __name__:
        return _import_module(f"{home}.{name}")  # which makes it an attribute here
    value = globals()[name] = getattr(_import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("_")), *_HOMES})
