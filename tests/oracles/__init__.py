"""Slow float64 NumPy optimizers, each written from the paper or definition that it cites.

They share no code with descend or torch. Every module has two pure functions:

    start(param, **hyper) -> state                     the state before the first step
    step(param, grad, state, t, **hyper) -> param, state

`t` counts from 1. State entries carry torch's names, so that state can be compared as well. The
arithmetic is on real arrays; a complex tensor is given as its real and imaginary parts, which is
how torch treats it.

`lbfgs` asks for gradients as it goes, so it has an interface of its own.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
State = dict[str, Array]

ORACLES: dict[str, ModuleType] = {
    name: importlib.import_module(f"oracles.{name}")
    for _, name, _ in pkgutil.iter_modules(__path__)
    if name != "lbfgs"
}
"""By the optimizer's name in lower case: every file here."""


class Result(NamedTuple):
    """Parameter and state after one step."""

    param: Array
    state: State


def run(
    name: str, grads: list[Array], param: Array, dtype: Any = np.float64, **hyper: Any
) -> list[Result]:
    """Step `param` once with each of `grads`; the results after every step."""
    oracle = ORACLES[name]
    param = np.asarray(param, dtype=dtype)
    state = oracle.start(param, **hyper)
    results = []
    for t, grad in enumerate(grads, start=1):
        param, state = oracle.step(param, np.asarray(grad, dtype=dtype), state, t, **hyper)
        results.append(Result(param, state))
    return results
